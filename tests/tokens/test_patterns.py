"""Chord symbols stay whole, in a file that other readers cut by as we do."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from etude.tokens.bpe import BPETokenizer, blank_edge
from etude.tokens.bpe_by_hand import alphabet, encode, split
from etude.tokens.bpe_files import document_of
from etude.tokens.patterns import BY_HAND, PATTERNS, PatternName, find_pattern, pre_tokenizer
from etude.tokens.tokenizer import TokenizerError

BYTES = alphabet()
LINE = "Intro: Adim G7/13 Em Bb (4x) G#dim Bm/C F#m Ab|-----| (Bridge) C G Em7 Asus4"
FRAGMENTS = (
    *"AbB#♭♯°△ø^+-/()|.,:7x \n\t\x1c\u2003é日²", "N.C.", "C-7", "F#m7(b5)/E", "C7M", "7/#9", "(4x)", "--", "e|-0-2-",
    "N·C·", "  ", " (", "C7(9", "Δ7", "Intro:", "don't", "\u00a0", "<|endoftext|>",
)  # fmt: skip
texts = st.lists(st.text(max_size=4) | st.sampled_from(FRAGMENTS), max_size=24).map("".join)


def tokenizer(pattern: PatternName) -> BPETokenizer:
    """A vocabulary with a few merges that cross what GPT-2 keeps apart."""
    pairs = [("Ġ", "C"), ("G", "#"), ("#", "m"), ("ĠC", "7"), ("-", "-"), ("/", "C"), ("7", "("), ("m", "7")]
    tokens = [*sorted(BYTES), *(a + b for a, b in pairs), "<|endoftext|>"]
    return BPETokenizer(document_of({token: i for i, token in enumerate(tokens)}, pairs, pattern))


BPE = {pattern: tokenizer(pattern) for pattern in PATTERNS}
LIBRARY = {pattern: Tokenizer.from_str(BPE[pattern].text) for pattern in PATTERNS}


def split_by_library(text: str, pattern: PatternName) -> list[str]:
    found = LIBRARY[pattern].pre_tokenizer.pre_tokenize_str(text)
    return [bytes(BYTES[symbol] for symbol in piece).decode() for piece, _ in found]


@settings(deadline=None)
@given(texts, st.sampled_from(PATTERNS))
def test_a_text_is_cut_by_hand_as_the_library_cuts_it(text: str, pattern: PatternName) -> None:
    pieces = split(text, BY_HAND[pattern])
    assert pieces == split_by_library(text, pattern)
    assert "".join(pieces) == text


@settings(deadline=None)
@given(texts, st.sampled_from(PATTERNS))
def test_by_hand_and_by_the_library_the_ids_are_the_same(text: str, pattern: PatternName) -> None:
    bpe = BPE[pattern]
    ids = {piece: i for i, piece in enumerate(bpe.pieces(range(bpe.vocab_size)))}
    assert bpe.encode(text) == encode(text, ids, bpe._tables.ranks, BY_HAND[pattern])
    assert bpe.decode(bpe.encode(text)) == text
    last = [part for states in bpe.steps(text) for part in states[-1]]
    assert last == bpe.pieces(bpe.encode(text))


@settings(deadline=None)
@given(texts, st.integers(0, 40), st.sampled_from(PATTERNS))
def test_where_a_blank_follows_what_is_none_a_text_may_be_cut(text: str, start: int, pattern: PatternName) -> None:
    cut = blank_edge(text, start)
    by_hand = BY_HAND[pattern]
    assert split(text[:cut], by_hand) + split(text[cut:], by_hand) == split(text, by_hand)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("C F#m7 Bb A♭ N.C.", ["C", " F#m7", " Bb", " A♭", " N.C."]),
        ("G7(9) Em7(b5)/F#", ["G7(9)", " Em7(b5)", "/F#"]),
        ("C-7 Dm7-5 C^7 Bø B° G+ FΔ7", ["C-7", " Dm7-5", " C^7", " Bø", " B°", " G+", " FΔ7"]),
        ("G7/13 C7/#9 Bm/C", ["G7", "/13", " C7", "/#9", " Bm", "/C"]),
        ("Ab|-----| (4x) (Bridge)", ["Ab", "|-----|", " (", "4x", ")", " (", "Bridge", ")"]),
        ("| C | G/B |", ["|", " C", " |", " G", "/B", " |"]),
        ("C - G\n  Am", ["C", " -", " G", "\n ", " Am"]),
    ],
)
def test_what_a_piece_of_chord_text_is(text: str, pieces: list[str]) -> None:
    assert split(text, BY_HAND["chords"]) == pieces == split_by_library(text, "chords")


def test_a_pattern_is_told_by_its_file_also_as_the_library_writes_it() -> None:
    for pattern in PATTERNS:
        assert BPE[pattern].pattern == pattern == find_pattern(pre_tokenizer(pattern))
        again = BPETokenizer(LIBRARY[pattern].to_str())
        assert (again.pattern, again.encode(LINE)) == (pattern, BPE[pattern].encode(LINE))
    assert len({tuple(BPE[pattern].encode(LINE)) for pattern in PATTERNS}) == 2


@pytest.mark.parametrize(
    ("at", "value"), [(("pattern", "Regex"), r"\w+"), (("behavior",), "Removed"), (("invert",), True)]
)
def test_any_other_pattern_is_refused(at: tuple[str, ...], value: object) -> None:
    document = json.loads(BPE["chords"].text)
    place = document["pre_tokenizer"]["pretokenizers"][0]
    for key in at[:-1]:
        place = place[key]
    place[at[-1]] = value
    with pytest.raises(TokenizerError, match=r"its pre_tokenizer is not ByteLevel.* nor is it the pattern chords"):
        BPETokenizer(json.dumps(document))


def test_transformers_reads_the_same_file(tmp_path_factory: pytest.TempPathFactory) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not here (the dev extra)")
    for pattern in PATTERNS:
        path = tmp_path_factory.mktemp("t") / "tokenizer.json"
        path.write_text(BPE[pattern].text, encoding="utf-8")
        theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path))
        assert theirs(LINE)["input_ids"] == BPE[pattern].encode(LINE)
        assert theirs.decode(BPE[pattern].encode(LINE), clean_up_tokenization_spaces=False) == LINE
