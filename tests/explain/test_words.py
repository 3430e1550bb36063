"""What ids say: exact bytes, honest text, the merges that made them."""

from __future__ import annotations

from pathlib import Path

import pytest

from etude.explain.words import chord_words, text_words, visible
from etude.music.theory import Key
from etude.tokens.bpe import BPETokenizer
from etude.tokens.characters import CharTokenizer
from etude.tokens.chords import ChordTokenizer


def test_pieces_of_characters_are_shown_as_bytes(shared_gpt2: Path) -> None:
    tokenizer = BPETokenizer.from_path(shared_gpt2)
    text = " Zürich 日\\x"
    words = [text_words(tokenizer)(token) for token in tokenizer.encode(text)]
    assert b"".join(word.bytes or b"" for word in words) == text.encode()
    assert [word.text for word in words] == [" Z", "ü", "rich", " \\xe6", "\\x97", "\\xa5", "\\", "x"]
    assert words[2].merges == (("r", "i", "c", "h"), ("r", "ic", "h"), ("r", "ich"), ("rich",))
    assert text_words(tokenizer)(50256).merges == (("<|endoftext|>",),)
    assert text_words(tokenizer)(50257).text == "<no token 50257>"


def test_characters_and_chords(tokenizer: ChordTokenizer) -> None:
    letters = text_words(CharTokenizer("aé"))
    assert [(letters(i).text, letters(i).bytes) for i in range(3)] == [("a", b"a"), ("é", b"\xc3\xa9"), ("<BOS>", b"")]
    words = chord_words(tokenizer, Key.parse("Db"), anchor=1)
    encoded = tokenizer.encode_changes([tokenizer.chord(0, 1)])
    assert [words(token).text for token in encoded.ids] == ["<song>", "Db"]
    assert words(0).bytes is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (" the\n\t", "␣the↵⇥"),
        ("a\x1b[31m\x00", "a\\x1b[31m\\x00"),
        ("\u202eab\u200b", "\\u202eab\\u200b"),
        ("日é", "日é"),
    ],
)
def test_what_cannot_be_seen_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown
