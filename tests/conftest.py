"""Shared fixtures: a tiny model, a few songs, and the songs beside the checkout where they are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from etude.corpus.songs import SongDocument, read_songs
from etude.gpt.config import GPTConfig, parameter_shapes
from etude.gpt.directory import Weights, save_model
from etude.tokens.chords import ChordTokenizer

SHARED = Path(__file__).parents[2] / "shared"
SONGS = """\
{"id": "a", "group": 1, "source": "made", "licence": "MIT", "genre": "pop", "key": "D", "meter": "4/4", "chords": ["D", "A", "Bm", "G", "D", "A7", "D"], "bars": ["D", "A", "Bm", "G", "D A7", "D"], "sections": [{"label": "verse", "bar": 0}, {"label": "chorus", "bar": 4}]}
{"id": "b", "group": 2, "source": "made", "licence": "MIT", "genre": "jazz", "key": "Cm", "meter": "3/4", "chords": ["Cm7", "Fm7", "Dm7b5", "G7b9", "Cm7", "N.C.", "Cm7/Bb"], "bars": ["Cm7", "Cm7", "Fm7", "Dm7b5 G7b9", "Cm7", "N.C.", "Cm7/Bb"]}
{"id": "c", "group": 3, "source": "made", "licence": "MIT", "genre": "rock", "chords": ["E", "A", "E", "B7", "A", "E", "A", "E"]}
"""  # noqa: E501


@pytest.fixture
def songs_file(tmp_path: Path) -> Path:
    path = tmp_path / "songs.jsonl"
    path.write_text(SONGS, encoding="utf-8")
    return path


@pytest.fixture
def songs(songs_file: Path) -> list[SongDocument]:
    return read_songs(songs_file)


@pytest.fixture
def tokenizer(songs: list[SongDocument]) -> ChordTokenizer:
    return ChordTokenizer.train((song.changes for song in songs), min_count=1)


@pytest.fixture
def config(tokenizer: ChordTokenizer) -> GPTConfig:
    return GPTConfig("modern", tokenizer.vocab_size, block_size=32, n_layer=2, n_head=2, n_embd=16)


@pytest.fixture
def weights(config: GPTConfig) -> Weights:
    """Random weights for every parameter, so that each of them matters."""
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in parameter_shapes(config).items()}


@pytest.fixture
def model_directory(tmp_path: Path, config: GPTConfig, weights: Weights, tokenizer: ChordTokenizer) -> Path:
    save_model(tmp_path / "model", config, weights, tokenizer, "# A model\n")
    return tmp_path / "model"


@pytest.fixture(scope="session")
def shared_chords() -> Path:
    path = SHARED / "data" / "chords"
    if not path.is_dir():
        pytest.skip(f"the song collection is not beside the checkout ({path.name} in ../shared/data)")
    return path


@pytest.fixture(scope="session")
def shared_names() -> Path:
    """The 32,033 names of the reference run."""
    path = SHARED / "data" / "names.txt"
    if not path.is_file():
        pytest.skip("names.txt is not beside the checkout (in ../shared/data)")
    return path


@pytest.fixture(scope="session")
def shared_checkpoints() -> Path:
    """Small GPT-2 directories as others wrote them."""
    path = SHARED / "data" / "checkpoints"
    if not path.is_dir():
        pytest.skip(f"the GPT-2 directories are not beside the checkout ({path.name} in ../shared/data)")
    return path


@pytest.fixture(scope="session")
def shared_gpt2() -> Path:
    """The folder of GPT-2's own vocab.json and merges.txt."""
    path = SHARED / "data" / "gpt2"
    if not path.is_dir():
        pytest.skip(f"GPT-2's vocabulary is not beside the checkout ({path.name} in ../shared/data)")
    return path


@pytest.fixture(scope="session")
def shared_plays() -> Path:
    """The 1,115,394 characters of Shakespeare's plays that nanoGPT trains on."""
    path = SHARED / "data" / "shakespeare.txt"
    if not path.is_file():
        pytest.skip("shakespeare.txt is not beside the checkout (in ../shared/data)")
    return path
