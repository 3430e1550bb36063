"""Chords from models of text: what they cost and what is likeliest, held to sums that are written out."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etude.corpus.songs import SongDocument
from etude.engines.array import ArrayEngine
from etude.engines.branches import BranchEngine
from etude.errors import EtudeError
from etude.gpt.config import GPTConfig, parameter_shapes
from etude.music.theory import Chord, ChordError
from etude.tokens.bpe import BPETokenizer
from etude.tokens.bytes import ByteTokenizer
from etude.tokens.characters import CharTokenizer
from etude.tokens.tokenizer import TextTokenizer
from etude.training import chord_scores
from etude.training.chord_scores import score_songs
from etude.training.evaluation import first_occurrences

CHARACTERS = CharTokenizer(" 7ACGm")
LOOP = "Am C7 G Am C7 G Am Gm7"


def document(text: str) -> SongDocument:
    return SongDocument(text, text, "", "", tuple(map(Chord.parse, text.split())), None)


def bpe(tmp_path: Path) -> BPETokenizer:
    """Of the characters, with `C`, `Am` and `Cm` behind a blank as tokens of their own."""
    tokens = [*"Ġ7ACGm", "ĠC", "ĠA", "ĠAm", "ĠCm", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (tmp_path / "merges.txt").write_text("Ġ C\nĠ A\nĠA m\nĠC m\n", encoding="utf-8")
    return BPETokenizer.from_files(tmp_path / "vocab.json", tmp_path / "merges.txt")


def engine_of(vocab_size: int, architecture: Any = "gpt2", block_size: int = 32, spread: float = 0.5) -> BranchEngine:
    config = GPTConfig(
        architecture, vocab_size, block_size=block_size, n_layer=2, n_head=2, n_embd=8,
        ngram_rows=17 if architecture == "modern" else 0,
    )  # fmt: skip
    rng = np.random.default_rng(3)
    weights = {name: rng.normal(0, spread, shape) for name, shape in parameter_shapes(config).items()}
    return BranchEngine(config, weights)


def bigram(table: dict[str, dict[str, float]], tokenizer: CharTokenizer) -> BranchEngine:
    """A model that knows nothing but what follows each character; `$` is BOS."""
    size = tokenizer.vocab_size
    names = [*tokenizer.characters, "$"]
    chances = np.full((size, size), 1e-30)
    for before, after in table.items():
        for character, chance in after.items():
            chances[names.index(before), names.index(character)] = chance
    config = GPTConfig("lesson", size, block_size=64, n_layer=1, n_head=1, n_embd=size, rung="bigram")
    return BranchEngine(config, {"wte": np.log(chances)})


def softmax(logits: Any) -> Any:
    chances = np.exp(np.asarray(logits, float) - np.max(logits))
    return chances / chances.sum()


def chance(engine: ArrayEngine, tokenizer: TextTokenizer, before: Sequence[int], symbol: Sequence[int]) -> float:
    """Of a symbol after some ids, by the formula at the top of the file, a pass of the whole engine for each token."""
    pieces = tokenizer.pieces(range(tokenizer.vocab_size))
    begins = [i for i, piece in enumerate(pieces) if piece.startswith(b" ")]
    ends = [i for i, piece in enumerate(pieces) if piece[:1].isspace() or i == tokenizer.end_id]
    total, ids = 1.0, list(before)
    for at, token in enumerate(symbol):
        chances = softmax(engine.start(ids))
        total *= chances[token] / (1 if at else chances[begins].sum())
        ids.append(token)
    return total * float(softmax(engine.start(ids))[ends].sum())


def test_costs_of_a_model_that_is_known() -> None:
    """What follows C is 7 or the end of the chord; a blank is followed by C or G; nothing else happens."""
    table = {
        "$": {"C": 1.0},
        " ": {"C": 0.75, "G": 0.25},
        "C": {"7": 0.5, " ": 0.4, "$": 0.1},
        "7": {" ": 1.0},
        "G": {" ": 0.5, "$": 0.5},
    }
    found = score_songs([document("C G C7 G C C7")], bigram(table, CHARACTERS), CHARACTERS, CHARACTERS.bos_id, 64)
    # G ends in any case; C costs that it is C and that it ends, C7 that it is C and goes on.
    chances = [0.25, 0.75 * 0.5, 0.25, 0.75 * 0.5, 0.75 * 0.5]
    assert np.allclose(found.scores.nats, -np.log(chances))
    assert found.scores.rank.tolist() == [2, 0, 2, 0, 0]
    assert found.characters.tolist() == [2, 3, 2, 2, 3]
    summary = found.summary()
    assert list(summary)[:6] == ["changes", "top1", "top3", "top5", "nats_per_chord", "nats_per_character"]
    assert summary["nats_per_character"]["value"] == pytest.approx(-np.log(chances).sum() / 12)


def test_spellings_of_a_chord_are_added_up() -> None:
    """`Cm` and `C-` are one chord: together likelier than `G`, though each alone is less likely."""
    tokenizer = CharTokenizer(" -CGm")
    table = {
        "$": {"G": 1.0},
        " ": {"C": 0.7, "G": 0.3},
        "C": {"m": 0.4, "-": 0.4, " ": 0.2},
        "m": {" ": 1.0},
        "-": {" ": 1.0},
        "G": {" ": 1.0},
    }
    found = score_songs([document("G Cm G")], bigram(table, tokenizer), tokenizer, tokenizer.bos_id, 64)
    assert found.scores.rank.tolist() == [0, 1]
    assert found.scores.nats[0] == pytest.approx(-math.log(0.28))  # of the symbol as it stands


def test_a_chord_that_is_not_decoded_has_its_cost_and_what_is_likelier_before_it() -> None:
    """A block of 12 tokens has room for a blank and two more of a symbol: `Gm7` is never found, and the likeliest."""
    table = {
        "$": {"C": 1.0},
        " ": {"G": 0.7, "C": 0.2, "A": 0.1},
        "G": {"m": 1.0},
        "m": {"7": 0.7, " ": 0.3},
        "7": {" ": 1.0},
        "C": {" ": 1.0},
        "A": {" ": 1.0},
    }
    found = score_songs([document("C Gm7 A")], bigram(table, CHARACTERS), CHARACTERS, CHARACTERS.bos_id, 12)
    assert np.allclose(found.scores.nats, -np.log([0.7 * 0.7, 0.1]))
    assert found.scores.rank.tolist() == [0, 2]  # before A are Gm and C


@pytest.mark.parametrize("architecture", ["gpt2", "modern", "micro"])
@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_costs_are_those_of_a_pass_a_token(architecture: str, kind: str, tmp_path: Path) -> None:
    kinds: dict[str, TextTokenizer] = {"char": CHARACTERS, "byte": ByteTokenizer(), "bpe": bpe(tmp_path)}
    tokenizer = kinds[kind]
    engine = engine_of(tokenizer.vocab_size, architecture)
    song = document(LOOP)
    found = score_songs([song], engine, tokenizer, tokenizer.bos_id, 32)
    other = ArrayEngine(engine.config, engine.weights)
    assert tokenizer.bos_id is not None
    words = LOOP.split()
    expected = []
    for at in range(1, len(words)):
        before = [tokenizer.bos_id, *tokenizer.encode(" ".join(words[:at]))]
        expected.append(-math.log(chance(other, tokenizer, before, tokenizer.encode(f" {words[at]}"))))
    assert np.allclose(found.scores.nats, expected, rtol=0, atol=1e-9)
    assert (found.scores.first == first_occurrences(song.changes)[1:]).all()


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_the_likeliest_are_those_of_all_symbols(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every symbol of up to three tokens, each by itself; a beam that is wide enough misses none of the likeliest."""
    monkeypatch.setattr(chord_scores, "BEAM", 64)
    monkeypatch.setattr(chord_scores, "LONGEST", 3)
    tokenizer: TextTokenizer = CHARACTERS if kind == "char" else bpe(tmp_path)
    engine = engine_of(tokenizer.vocab_size, spread=0.8)
    other = ArrayEngine(engine.config, engine.weights)
    found = score_songs([document("C Am G")], engine, tokenizer, tokenizer.bos_id, 32)
    pieces = tokenizer.pieces(range(tokenizer.vocab_size))
    firsts = [i for i, piece in enumerate(pieces) if piece.startswith(b" ")]
    inner = [i for i, piece in enumerate(pieces) if piece and not piece.startswith(b" ") and i != tokenizer.end_id]
    symbols = [symbol for length in range(3) for symbol in product(firsts, *[inner] * length)]
    for at, answer in enumerate(("Am", "G")):
        before = [int(tokenizer.bos_id or 0), *tokenizer.encode(["C", "C Am"][at])]
        likely = {symbol: chance(other, tokenizer, before, symbol) for symbol in symbols}
        assert 0.1 < sum(likely.values()) <= 1 + 1e-9
        chances: dict[Chord, float] = defaultdict(float)
        for symbol, p in likely.items():
            with suppress(ChordError):
                chances[Chord.parse(tokenizer.decode(symbol)[1:])] += p
        own = chances.pop(Chord.parse(answer))
        assert found.scores.rank[at] == sum(p > own for p in chances.values())


def test_a_song_longer_than_a_block_is_scored_in_windows() -> None:
    """Where only the character before counts, windows change nothing."""
    table = {
        "$": {"C": 1.0},
        " ": {"C": 0.5, "G": 0.3, "A": 0.2},
        "C": {"7": 0.5, " ": 0.5},
        "7": {" ": 1.0},
        "G": {" ": 0.5, "m": 0.5},
        "m": {" ": 1.0},
        "A": {" ": 1.0},
    }
    engine, song = bigram(table, CHARACTERS), document(" ".join(["C", "G", "C7", "A", "Gm"] * 40))
    whole = score_songs([song, document("C"), song], engine, CHARACTERS, CHARACTERS.bos_id, 64)
    assert len(whole.scores.nats) == 2 * 199 and set(whole.scores.song.tolist()) == {0, 2}
    for size in (13, 24, 63):
        found = score_songs([song, document("C"), song], engine, CHARACTERS, CHARACTERS.bos_id, size)
        assert np.allclose(found.scores.nats, whole.scores.nats) and (found.scores.rank == whole.scores.rank).all()
    by_chord = dict(zip(song.changes[1:], whole.scores.nats, strict=False))
    assert by_chord[Chord.parse("Gm")] == pytest.approx(-math.log(0.15))


def test_a_vocabulary_in_pieces_is_scored_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, songs = engine_of(CHARACTERS.vocab_size), [document(LOOP)]
    whole = score_songs(songs, engine, CHARACTERS, CHARACTERS.bos_id, 32)
    monkeypatch.setattr(chord_scores, "_LOGITS", 1)
    monkeypatch.setattr(chord_scores, "_PIECE", 3)
    found = score_songs(songs, engine, CHARACTERS, CHARACTERS.bos_id, 32)
    assert np.allclose(found.scores.nats, whole.scores.nats) and (found.scores.rank == whole.scores.rank).all()


def test_what_cannot_be_scored() -> None:
    engine = engine_of(CHARACTERS.vocab_size)
    with pytest.raises(EtudeError, match="no song has two chords"):
        score_songs([document("C")], engine, CHARACTERS, CHARACTERS.bos_id, 32)
    with pytest.raises(EtudeError, match="was not in the text"):
        score_songs([document("C Bb")], engine, CHARACTERS, CHARACTERS.bos_id, 32)
    with pytest.raises(EtudeError, match="a block of 2 tokens; 3 are the fewest"):
        score_songs([document("C G")], engine, CHARACTERS, CHARACTERS.bos_id, 2)
    assert np.isfinite(score_songs([document("C G")], engine, CHARACTERS, CHARACTERS.bos_id, 3).scores.nats).all()
    blankless = CharTokenizer("7ACGm")
    with pytest.raises(EtudeError, match="none of its tokens is or begins with the blank"):
        score_songs([document("C G")], engine_of(6), blankless, blankless.bos_id, 32)
