"""A vocabulary learnt here is the one that the library learns, whoever counts the words and however a text comes."""

from __future__ import annotations

import json
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from etude.tokens import bpe_training
from etude.tokens.bpe import BPETokenizer
from etude.tokens.bpe_files import document_of
from etude.tokens.bpe_training import train_bpe
from etude.tokens.bpe_words import BETWEEN, Words, receive, send
from etude.tokens.patterns import PATTERNS, PatternName, pre_tokenizer
from etude.tokens.tokenizer import TokenizerError

PLAY = """First Citizen:
Before we proceed any further, hear me speak: it's 1594.

All:
Speak, speak.  Speak!\tWe'll hear — naïve, 日本語 日本語, "as they'd say" \r\n  and 12 + 12 is 24.
"""
DOCUMENTS = [PLAY, PLAY.upper(), "C G#dim Bm/C F#m Ab|---|\n" * 5, " \n\n ", "x" * 70]
texts = st.lists(
    st.text(max_size=5) | st.sampled_from(["the ", " the", "\n", "\t ", " \n\n x", "C#m7/9", "\x1c", "\u3000", "日本"]),
    max_size=20,
).map("".join)


def alone(documents: list[str], vocab_size: int, pattern: PatternName = "gpt2") -> list[list[str]]:
    """The merges of the library by itself."""
    # A file's own pattern, since the library has no other way to make one of JSON.
    document = json.loads(Tokenizer(models.BPE()).to_str()) | {"pre_tokenizer": pre_tokenizer(pattern)}
    tokenizer = Tokenizer.from_str(json.dumps(document))
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=2,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(documents, trainer)
    return merges_of(tokenizer.to_str())


def merges_of(text: str) -> list[list[str]]:
    merges = json.loads(text)["model"]["merges"]
    return [each.split(" ") if isinstance(each, str) else each for each in merges]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_merges_are_those_of_the_library_alone(pattern: PatternName) -> None:
    tokenizer = train_bpe(([text] for text in DOCUMENTS), 400, pattern)
    assert merges_of(tokenizer.text) == alone(DOCUMENTS, 400, pattern)
    assert (tokenizer.pattern, tokenizer.end_id) == (pattern, tokenizer.vocab_size - 1)
    for text in DOCUMENTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert tokenizer.encode(text) == Tokenizer.from_str(tokenizer.text).encode(text).ids


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """All that are started, for parts and blocks that are small."""
    found, start = list[subprocess.Popen[bytes]](), bpe_training._start

    def started(*arguments: str, stderr: int) -> subprocess.Popen[bytes]:
        found.append(start(*arguments, stderr=stderr))
        return found[-1]

    monkeypatch.setattr(bpe_training, "_start", started)
    monkeypatch.setattr(bpe_training, "_PART", 100)
    monkeypatch.setattr(bpe_training, "_BLOCK", 400)
    monkeypatch.setattr(bpe_training, "_cores", lambda: 2)
    return found


def test_however_a_text_comes_the_bytes_are_the_same(processes: list[subprocess.Popen[bytes]]) -> None:
    """Character by character, counted in many blocks by two processes."""
    documents = [(text + " ") * 20 for text in DOCUMENTS]
    tokenizer = train_bpe(map(iter, documents), 500)
    assert len(processes) == 3
    assert merges_of(tokenizer.text) == alone(documents, 500)


@settings(deadline=None)
@given(st.lists(texts.filter(bool), min_size=1, max_size=4), st.sampled_from(PATTERNS))
def test_words_are_counted_as_the_library_counts_them(several: list[str], pattern: PatternName) -> None:
    tokenizer = Tokenizer.from_str(document_of({"a": 0}, [], pattern))
    theirs = Counter(piece for text in several for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text))
    lines = Words(pattern).lines(BETWEEN.join(text.encode() for text in several)).decode()
    assert Counter(word for line in lines.split("\n") for word in line.split(" ") if word) == theirs


def test_long_words_and_frequent_ones_are_in_lines_of_bounded_length() -> None:
    words = Words("gpt2")
    lines = words.lines(b"the " * 100_000 + b"x" * 5000).decode().splitlines()
    assert max(map(len, lines)) < 1 << 18
    counts = Counter(word for line in lines for word in line.split())
    assert (
        counts["Ġthe"] == 99_999
        and counts["Ġ" + "x" * 1023] == 1
        and counts["x" * 1024] == 3
        and counts["x" * 905] == 1
    )


def test_the_end_comes_early_where_nothing_occurs_twice() -> None:
    tokenizer = train_bpe([["abcabc abd"]], 1000)
    assert merges_of(tokenizer.text) == [["a", "b"], ["ab", "c"]]
    assert tokenizer.vocab_size == 259
    assert merges_of(train_bpe([["abcabc abd"]], 1000, min_count=3).text) == [["a", "b"]]


def test_the_library_tells_how_far_it_is() -> None:
    told = list[tuple[str, int, int]]()
    train_bpe([[PLAY]], 300, progress=lambda *each: told.append(each))
    if not told:
        pytest.skip("this version of the tokenizers library tells nothing")
    assert told[-1][0] == "Compute merges" and told[-1][1] > 10


@pytest.mark.parametrize("vocab_size", [-1, 0, 256, (1 << 20) + 1])
def test_sizes_that_no_vocabulary_has(vocab_size: int) -> None:
    with pytest.raises(TokenizerError, match=r"a vocabulary has 257 .* to 1,048,576 tokens, not"):
        train_bpe([["text"]], vocab_size)


@pytest.mark.parametrize(
    ("documents", "said"),
    [([], "no text to learn from"), ([[""]], "no text to learn from"), ([["ab\ud800"]], "character 3 is half a surr")],
)
def test_text_that_is_none(documents: list[list[str]], said: str) -> None:
    with pytest.raises(TokenizerError, match=said):
        train_bpe(documents, 300)


def test_what_a_reader_raises_is_raised_and_no_process_stays(processes: list[subprocess.Popen[bytes]]) -> None:
    def reader() -> Iterator[list[str]]:
        yield from [[PLAY]] * 12
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_bpe(reader(), 300)
    assert len(processes) > 1 and all(process.poll() is not None for process in processes)


@pytest.mark.parametrize(
    ("which", "said"), [(0, "learns merges ended early: it was killed"), (1, "counts words ended")]
)
def test_a_process_that_is_killed_is_told_of(processes: list[subprocess.Popen[bytes]], which: int, said: str) -> None:
    def reader() -> Iterator[list[str]]:
        yield from [[PLAY]] * 12
        processes[which].send_signal(signal.SIGKILL)
        while True:
            yield [PLAY]

    with pytest.raises(TokenizerError, match=said):
        train_bpe(reader(), 300)
    assert all(process.poll() is not None for process in processes)


def test_messages_between_processes_are_whole_or_none(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("m") / "pipe"
    with path.open("wb") as file:
        send(file, b"one")
        send(file, b"")
    content = path.read_bytes()
    with path.open("rb") as file:
        assert [receive(file) for _ in range(3)] == [b"one", b"", None]
    path.write_bytes(content[:9])
    with path.open("rb") as file:
        assert receive(file) is None


def test_chord_text_learns_whole_symbols() -> None:
    line = "Intro: Adim G7/13 Em Bb (4x) G#dim Bm/C F#m Ab|---------------------------------| (Bridge) C G Em7 Asus4"
    songs = "Verse: Adim Bb Bm/C Em7 G#dim F#m Ab | Asus4 G7/13 Em (4x)\nIntro: C G Adim Bb Ab Bm\n" * 3
    tokenizers = {pattern: train_bpe([[songs]], 500, pattern) for pattern in PATTERNS}
    pieces = {pattern: each.pieces(each.encode(line)) for pattern, each in tokenizers.items()}
    assert len(pieces["chords"]) < len(pieces["gpt2"]) < 120
    for symbol in (b" Adim", b" Bb", b" Bm", b" Ab", b" G#dim", b" F#m", b" Em7", b" Asus4"):
        assert symbol in pieces["chords"]
    assert isinstance(tokenizers["chords"], BPETokenizer)
    assert tokenizers["chords"].decode(tokenizers["chords"].encode(line)) == line
