from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from etude.engines.scalar import initial_weights
from etude.errors import EtudeError
from etude.gpt.config import GPTConfig, parameter_shapes
from etude.gpt.directory import load_model, save_model
from etude.model import TextModel, load
from etude.prime import models
from etude.prime.models import program, round_model, save_rounded, written
from etude.prime.number import PrimeError
from etude.prime.packing import minify
from etude.prime.running import Limits, run_program
from etude.sampling import Sampling
from etude.tokens.characters import CharTokenizer

TEXTS = ["C G Am F", "Am F C G", "Dm7 G7 C", "C F G C", "F G Em Am"]


def made(folder: Path, letters: str, n_layer: int, n_embd: int, n_head: int, block_size: int) -> Path:
    """A model with weights of some size, so that every one of them matters."""
    import random

    tokenizer = CharTokenizer("".join(sorted(set(letters))))
    config = GPTConfig("micro", tokenizer.vocab_size, block_size, n_layer, n_head, n_embd)
    drawn = initial_weights(random.Random(3), tokenizer.vocab_size, block_size, n_layer, n_embd, 0.5)
    weights = {name: np.array(drawn[name]) for name in parameter_shapes(config)}
    save_model(folder, config, weights, tokenizer, "# A model\n", "float64")
    return folder


@pytest.fixture(autouse=True)
def few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "TEXTS", 12)
    monkeypatch.setattr(models, "_TRIES", 4)


@pytest.fixture(params=[(1, 8, 2, 9), (2, 12, 3, 6)], ids=["one layer", "two layers"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return made(tmp_path / "micro", "".join(TEXTS) + "é\"'\\", *request.param)


@pytest.mark.parametrize(("seed", "temperature"), [(0, 3.0), (4_294_967_295, 3.5)])
def test_the_program_prints_what_generate_prints(
    directory: Path, tmp_path: Path, seed: int, temperature: float
) -> None:
    rounded = round_model(directory, within=0.2)
    source = program(rounded, seed, 12, temperature).encode()
    save_rounded(rounded, tmp_path / "rounded", "model")
    model = load(tmp_path / "rounded")
    assert isinstance(model, TextModel)
    samples = model.generate(n=12, sampling=Sampling(temperature), seed=seed)
    wanted = "".join(f"{sample.text}\n" for sample in samples)
    assert wanted == written(rounded, seed, 12, temperature)
    assert len(set(wanted.splitlines())) > 3  # it says something
    for content in (source, minify(source.decode())[0].encode()):
        pieces: list[bytes] = []
        assert run_program(content, Limits(seconds=60), pieces.append).status == 0
        assert b"".join(pieces).decode() == wanted


def test_rounding_keeps_its_word_and_a_tighter_one_costs_bits(directory: Path, tmp_path: Path) -> None:
    loose, tight = round_model(directory, within=0.5), round_model(directory, within=0.05)
    assert loose.divergence <= 0.5 and tight.divergence <= 0.05
    assert loose.bits < tight.bits
    original = load_model(directory).weights
    for rounded in (loose, tight):
        for name, numbers in rounded.numbers.items():
            assert np.abs(numbers).max() <= 28
            assert np.array_equal(rounded.weights[name], rounded.scales[name] * numbers)
            assert numbers.shape == original[name].shape
    assert loose.loss[0] == tight.loss[0]
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(TEXTS))
    measured = round_model(directory, 0.5, [corpus])
    assert measured.tokens == sum(
        len(text[:block]) + (len(text) < block) for text in TEXTS for block in [_block(directory)]
    )


def _block(directory: Path) -> int:
    return load_model(directory).config.block_size


def test_rounding_with_amends_beats_rounding_alone(directory: Path) -> None:
    """Of the same steps: what a column was rounded by is made good in the others."""
    model = load_model(directory)
    documents = models._documents(model, model.tokenizer, [], lambda message: None)  # type: ignore[arg-type]
    original = {name: np.array(model.weights[name]) for name in parameter_shapes(model.config)}
    likely = models._log_probabilities(model.config, original, documents)
    steps = models._Steps(model.config, original, documents, likely)
    name = "h.0.mlp.c_fc"
    inputs, matrix = steps.inputs[name], original[name]
    step = 0.5 * float(matrix.std())
    errors = [
        float(np.square(inputs @ (matrix - step * models._rounded(matrix, step, given)).T).mean())
        for given in (None, inputs)
    ]
    assert errors[1] < 0.9 * errors[0]


def test_other_models_and_impossible_wishes_are_refused(model_directory: Path, directory: Path) -> None:
    with pytest.raises(PrimeError, match="modern"):
        round_model(model_directory)
    with pytest.raises(PrimeError, match="--within"):
        round_model(directory, within=1e-9)
    rounded = round_model(directory, within=0.5)
    with pytest.raises(PrimeError, match="seed"):
        program(rounded, 2**32, 1, 1.0)
    with pytest.raises(PrimeError, match="temperature"):
        program(rounded, 0, 1, 0.0)
    with pytest.raises(EtudeError, match="no such model"):
        round_model(directory / "none")
