"""Scores of text: by token, character and byte, the same in every engine, and the same as training says."""

from __future__ import annotations

import math
import string
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from etude.engines.array import ArrayEngine
from etude.engines.engine import is_installed, make_engine
from etude.errors import EtudeError
from etude.gpt.config import GPTConfig, parameter_shapes
from etude.gpt.directory import Weights, save_model
from etude.model import TextModel, load
from etude.tokens.bpe import BPETokenizer
from etude.tokens.bpe_files import characters_json
from etude.tokens.bytes import ByteTokenizer
from etude.tokens.characters import CharTokenizer
from etude.tokens.tokenizer import TextTokenizer
from etude.training.evaluation import score_stream, score_text
from etude.training.text_scores import costs, said_by, score

CHARACTERS = CharTokenizer("abcü")


def make(architecture: str, vocab_size: int, block_size: int = 8) -> tuple[GPTConfig, Weights]:
    config = GPTConfig(architecture, vocab_size, block_size, 1, 2, 8, **_ends(architecture, vocab_size))  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    weights = {n: rng.normal(0, 0.5, shape).astype(np.float32) for n, shape in parameter_shapes(config).items()}
    return config, weights


def _ends(architecture: str, vocab_size: int) -> dict[str, int]:
    return {"bos_token_id": vocab_size - 1, "eos_token_id": vocab_size - 1} if architecture == "gpt2" else {}


def test_the_numbers_of_a_known_distribution() -> None:
    """Two windows of a model to which all five ids are alike but that it says ü for sure."""
    ids = np.array([4, 0, 3, 3, 1, 2, 0, 0], np.int32)

    def nats(rows: np.ndarray) -> np.ndarray:
        return np.where(rows[:, 1:] == 3, 0.0, math.log(5))

    found = score([ids], nats, CHARACTERS, 4, by_window=True)
    assert (found["tokens"], found["characters"], found["bytes"], found["units"]) == (7, 7, 9, 3)
    assert found["nats_per_token"]["value"] == pytest.approx(5 / 7 * math.log(5))
    assert found["bits_per_token"]["value"] == pytest.approx(5 / 7 * math.log2(5))
    assert found["bits_per_character"]["value"] == pytest.approx(5 / 7 * math.log2(5))
    assert found["bits_per_byte"]["value"] == pytest.approx(5 / 9 * math.log2(5))
    perplexity = 5 ** (5 / 7)
    assert found["perplexity"]["value"] == pytest.approx(perplexity)
    # Windows of 4, 2 and 1 tokens that cost 2, 2 and 1 times ln 5, of 7: sqrt(3 / 2 * sum of squared residuals) / 7.
    residuals = [2 - 4 * 5 / 7, 2 - 2 * 5 / 7, 1 - 5 / 7]
    error = math.log(5) * math.sqrt(1.5 * sum(r * r for r in residuals)) / 7
    assert found["nats_per_token"]["se"] == pytest.approx(error)
    assert found["perplexity"]["se"] == pytest.approx(perplexity * error)


def test_what_ids_say() -> None:
    assert said_by(CHARACTERS).tolist() == [[1, 1], [1, 1], [1, 1], [1, 2], [0, 0]]
    bpe = BPETokenizer(characters_json(string.printable))
    assert said_by(bpe).tolist() == [[1, 1]] * 100 + [[0, 0]]
    starts = [[int(not 0x80 <= byte < 0xC0), 1] for byte in range(256)]  # of several bytes the first is the character
    assert said_by(ByteTokenizer()).tolist() == [*starts, [0, 0]]
    assert said_by(CharTokenizer("aü", byte_fallback=True)).tolist() == [[1, 1], [1, 2], [0, 0], *starts]


@pytest.mark.parametrize(
    "tokenizer",
    [CharTokenizer("\n abü€日"), CharTokenizer("\n ab", byte_fallback=True), ByteTokenizer()],
    ids=["plain", "char", "byte"],
)
def test_bits_are_by_the_characters_and_bytes_of_the_text(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    text = "ab ü€\n日 ba\n"
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "text.txt").write_text(text, encoding="utf-8", newline="")
    config, weights = make("gpt2", tokenizer.vocab_size)
    bos = tokenizer.bos_id
    save_model(tmp_path / "model", replace(config, bos_token_id=bos, eos_token_id=bos), weights, tokenizer, "")
    model = load(tmp_path / "model", "array")
    assert isinstance(model, TextModel)
    found = model.evaluate(tmp_path / "corpus")
    assert (found["characters"], found["bytes"]) == (len(text), len(text.encode()))
    assert found["tokens"] == len(tokenizer.encode(text))  # all but the BOS before them
    bits = found["bits_per_token"]["value"] * found["tokens"]
    assert found["bits_per_character"]["value"] == pytest.approx(bits / len(text))
    assert found["bits_per_byte"]["value"] == pytest.approx(bits / len(text.encode()))


def test_pieces_of_characters_count_once(shared_gpt2: Path) -> None:
    text = "Über den Bergen 🎵 日本\n" * 3
    bpe = BPETokenizer.from_path(shared_gpt2)
    sizes = said_by(bpe)[bpe.encode(text)].sum(axis=0)
    assert sizes.tolist() == [len(text), len(text.encode())]


@pytest.mark.parametrize("architecture", ["micro", "gpt2"])
def test_all_engines_and_batches_agree_with_the_scores_of_training(architecture: str) -> None:
    config, weights = make(architecture, 5)
    rng = np.random.default_rng(1)
    documents = [rng.integers(0, 5, length).astype(np.int32) for length in (2, 3, 9, 9, 30, 41)]
    array = ArrayEngine(config, weights)
    for engine in ("array", "tensor", "scalar"):  # compiled is started as array is
        if not is_installed(engine) or (engine == "scalar" and architecture != "micro"):
            continue
        nats = costs(make_engine(engine, config, weights))
        found = score(documents, nats, CHARACTERS, 8, by_window=False)
        wanted = score_text([ids.tolist() for ids in documents], array, 8)
        for key in ("value", "se"):
            assert found["nats_per_token"][key] == pytest.approx(wanted["nats_per_token"][key], abs=1e-5), engine
        assert (found["units"], found["tokens"]) == (6, wanted["tokens"])
        found = score([documents[-1]], nats, CHARACTERS, 8, by_window=True)
        stream = score_stream(documents[-1], costs(array), 8, 3)
        for key in ("value", "se"):
            assert found["nats_per_token"][key] == pytest.approx(stream["nats_per_token"][key], abs=1e-5), engine


def test_a_model_directory_is_evaluated_as_its_architecture_reads(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("abca\n\nbü\ncab\n", encoding="utf-8")
    for architecture, tokenizer in (("micro", CHARACTERS), ("gpt2", CharTokenizer("\nabcü"))):
        config, weights = make(architecture, tokenizer.vocab_size)
        save_model(tmp_path / architecture, config, weights, tokenizer, "")
    micro, gpt2 = load(tmp_path / "micro", "array"), load(tmp_path / "gpt2")
    assert isinstance(micro, TextModel)
    assert isinstance(gpt2, TextModel)
    found = micro.evaluate(text)
    assert (found["units"], found["tokens"], found["characters"], found["bytes"]) == (3, 12, 9, 10)  # 3 documents end
    found = gpt2.evaluate([text, text])
    assert (found["units"], found["tokens"], found["characters"], found["bytes"]) == (6, 27, 26, 28)  # a BOS between
    assert gpt2.evaluate(text, block_size=4)["units"] == 6
    with pytest.raises(EtudeError, match="2 to 8 tokens"):
        gpt2.evaluate(text, block_size=9)
    text.write_text("abx")
    with pytest.raises(EtudeError, match=r"text\.txt: 'x' \(character 3"):
        gpt2.evaluate(text)
