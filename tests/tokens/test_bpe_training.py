"""A vocabulary learnt here is the one that the library learns, however a text comes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from etude.tokens import bpe_library, bpe_training
from etude.tokens.bpe import BPETokenizer
from etude.tokens.bpe_training import train_bpe
from etude.tokens.patterns import PATTERNS, PatternName, pre_tokenizer
from etude.tokens.tokenizer import TokenizerError

PLAY = """First Citizen:
Before we proceed any further, hear me speak: it's 1594.

All:
Speak, speak.  Speak!\tWe'll hear — naïve, 日本語 日本語, "as they'd say" \r\n  and 12 + 12 is 24.
"""
DOCUMENTS = [PLAY, PLAY.upper(), "C G#dim Bm/C F#m Ab|---|\n" * 5, " \n\n ", "x" * 70]


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


def test_however_a_text_comes_the_bytes_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Character by character, and in small parts."""
    documents = [(text + " ") * 20 for text in DOCUMENTS]
    monkeypatch.setattr(bpe_training, "PART", 100)
    assert merges_of(train_bpe(map(iter, documents), 500).text) == alone(documents, 500)


def test_a_text_without_a_blank_is_cut_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpe_training, "PART", 4)
    monkeypatch.setattr(bpe_training, "MAX_PART", 8)
    assert merges_of(train_bpe(["abcdefghi" * 3], 270).text) == alone(["abcdefghi"] * 3, 270)


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


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """All that are started."""
    found = list[subprocess.Popen[bytes]]()

    class Started(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **settings)
            found.append(self)

    monkeypatch.setattr(subprocess, "Popen", Started)
    return found


def test_what_a_reader_raises_is_raised_and_no_process_stays(processes: list[subprocess.Popen[bytes]]) -> None:
    def reader() -> Iterator[list[str]]:
        yield [PLAY]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_bpe(reader(), 300)
    assert len(processes) == 1 and processes[0].poll() is not None


def test_a_process_that_is_killed_is_told_of(processes: list[subprocess.Popen[bytes]]) -> None:
    def reader() -> Iterator[list[str]]:
        yield [PLAY]
        processes[0].send_signal(signal.SIGKILL)
        while True:
            yield [PLAY] * 100

    with pytest.raises(TokenizerError, match="learns merges ended early: it was killed"):
        train_bpe(reader(), 300)
    assert processes[0].poll() is not None


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


def learn(texts: bytes, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """What the process of the library makes of its standard input."""
    command = [sys.executable, "-P", bpe_library.__file__, "300", "2", json.dumps(pre_tokenizer("gpt2")), "no"]
    return subprocess.run(
        command, input=texts, capture_output=True, env=os.environ | environment, timeout=60, check=False
    )


def framed(*texts: bytes) -> bytes:
    return b"".join(len(text).to_bytes(8, "little") + text for text in texts)


def test_texts_beyond_those_that_are_read_ahead_are_learnt_in_any_locale() -> None:
    found = learn(framed(*[b"ab ab"] * 3000, b""), PYTHONIOENCODING="latin-1")
    assert found.returncode == 0, found.stderr
    assert merges_of(found.stdout.decode()) == [["a", "b"], ["\u0120", "ab"]]


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (framed(b"ab ab"), b"EOFError: the texts ended early"),
        (framed(b"ab ab")[:-1], b"EOFError: the texts ended early"),
        (framed("日本".encode())[:-1], b"EOFError: the texts ended early"),
        (framed(b"ab ab", b"\xff", b""), b"UnicodeDecodeError"),
    ],
)
def test_where_the_texts_end_early_so_does_the_process(texts: bytes, words: bytes) -> None:
    found = learn(texts)
    assert found.returncode == 1 and not found.stdout
    assert found.stderr.splitlines()[-1].startswith(words)
