"""A trained model as a program that fits into a prime: its weights in few bits each, and what runs them.

The weights become whole numbers times one scale a matrix. How coarse a matrix may be is measured: on texts, by how many
nats a token the coarser model is farther from the original (the Kullback-Leibler divergence of what they expect next).
That grows with the square of the step between two numbers, and the bits of a weight fall with its logarithm, so the
bits are best spent where every matrix has a share of the divergence in proportion to its weights. A matrix that
multiplies is rounded column by column, and what a column was rounded by is made good in those after it, as far as its
inputs are alike (Frantar et al. 2022, GPTQ).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.corpus.text import read_documents
from etude.engines.array import ArrayEngine
from etude.gpt.config import GPTConfig, parameter_shapes
from etude.gpt.directory import ModelFiles, load_model, save_model
from etude.model import TextModel, model_directory
from etude.sampling import Sampling
from etude.tokens.characters import CharTokenizer

from .number import PrimeError

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]
Weights = Mapping[str, Floats]

WITHIN = 0.02
TEXTS = 300
"""So many texts are measured on: the model's own, or a corpus's at even distances."""

_LARGEST = 28  # numbers from -28 to 28 are characters without a quote or a backslash among them
_MIDDLE = 63
_TRIED_STEP = 0.3  # of a matrix's deviation, where its sensitivity is measured
_TRIES, _CAUTION = 8, 0.995
_DAMPING = 0.01  # of the mean square of a matrix's inputs, without which their covariance may have no inverse
_OWN_TEXTS_SEED = 2**31  # the model's own texts are not those that the program will write
_TEMPLATE = re.compile(r"# model \{\n.*?# \}\n", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Rounded:
    """A model whose weights are `numbers` times `scales`, and what it lost: nats a token on the texts, and how far
    (`divergence`, nats a token) it is from the original."""

    config: GPTConfig
    tokenizer: CharTokenizer
    numbers: dict[str, Ints]
    scales: dict[str, float]
    loss: tuple[float, float]
    divergence: float
    tokens: int

    @property
    def weights(self) -> dict[str, Floats]:
        return {name: self.scales[name] * numbers for name, numbers in self.numbers.items()}

    @property
    def bits(self) -> float:
        """Of a weight, on average."""
        return bits_per_weight(self.numbers)


def bits_per_weight(numbers: Mapping[str, Ints]) -> float:
    """On average, if the commonest numbers of each matrix had the shortest codes that there can be (the entropy)."""
    total = 0.0
    for each in numbers.values():
        _, counts = np.unique(each, return_counts=True)
        total -= float((counts * np.log2(counts / each.size)).sum())
    return total / sum(each.size for each in numbers.values())


def round_model(
    directory: Path,
    within: float = WITHIN,
    corpus: Sequence[Path] = (),
    say: Callable[[str], None] = lambda message: None,
) -> Rounded:
    """Round the weights of a `micro` model as coarsely as keeps it `within` so many nats a token of what it was.

    Raises `PrimeError` for another model, or where no rounding is good enough.
    """
    model = load_model(model_directory(directory))
    config, tokenizer = model.config, model.tokenizer
    if config.architecture != "micro" or not isinstance(tokenizer, CharTokenizer) or tokenizer.byte_fallback:
        raise PrimeError(
            f"{directory}: a model of the architecture micro, as etude train --recipe micro makes it, fits into a "
            f"prime; this one is {config.architecture}"
        )
    documents = _documents(model, tokenizer, corpus, say)
    original: dict[str, Floats] = {name: model.weights[name].astype(np.float64) for name in parameter_shapes(config)}
    likely = _log_probabilities(config, original, documents)
    steps = _Steps(config, original, documents, likely)
    tries, factor = [], 1.0
    for _ in range(_TRIES):
        tries.append(steps.rounded(within, factor))
        # The divergence grows with the square of the steps, and rounding has something of chance.
        factor *= min(4.0, max(0.25, _CAUTION * (within / max(tries[-1][2], 1e-12)) ** 0.5))
    good = [tried for tried in tries if tried[2] <= within]
    if not good:
        raise PrimeError(
            f"{directory}: with {2 * _LARGEST + 1} different numbers a matrix it cannot be kept within {within:g} nats "
            "a token; allow more with --within"
        )
    numbers, scales, divergence = min(good, key=lambda tried: bits_per_weight(tried[0]))
    weights = {name: scales[name] * each for name, each in numbers.items()}
    targets = np.concatenate([ids[1:] for ids in documents])
    losses = [
        -float(each[np.arange(len(targets)), targets].mean())
        for each in (likely, _log_probabilities(config, weights, documents))
    ]
    return Rounded(config, tokenizer, numbers, scales, (losses[0], losses[1]), divergence, len(targets))


def _documents(
    model: ModelFiles, tokenizer: CharTokenizer, corpus: Sequence[Path], say: Callable[[str], None]
) -> list[list[int]]:
    """Texts as ids from BOS on, at most a block and one token long."""
    if corpus:
        lines = read_documents(corpus, say=say)
        texts = [lines[index] for index in np.linspace(0, len(lines) - 1, min(TEXTS, len(lines))).round().astype(int)]
    else:
        writer = TextModel(model, tokenizer, "array")
        texts = [sample.text for sample in writer.generate(n=TEXTS, seed=_OWN_TEXTS_SEED)]
    return [tokenizer.document(text)[: model.config.block_size + 1] for text in texts]


def _log_probabilities(config: GPTConfig, weights: Weights, documents: Sequence[Sequence[int]]) -> Floats:
    """Of every token [V] after each of the documents' tokens but their last: [tokens, V]."""
    engine = ArrayEngine(config, weights)
    logits = np.concatenate([engine.start_all(ids[:-1]) for ids in documents])
    logits -= logits.max(axis=1, keepdims=True)
    result: Floats = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return result


class _Steps:
    """How the matrices are rounded, and how far from the original that leads."""

    def __init__(
        self, config: GPTConfig, original: Weights, documents: Sequence[Sequence[int]], likely: Floats
    ) -> None:
        self.config, self.original, self.documents, self.likely = config, original, documents, likely
        self.inputs = self._inputs(original)
        self.sensitivity = {name: self._sensitivity(name) for name in original}

    def _inputs(self, weights: Weights) -> dict[str, Floats]:
        """What each matrix that multiplies is given, [tokens, in]."""
        last = f"h.{self.config.n_layer - 1}"
        matrices = {f"{last}.resid_post": "lm_head"}
        for layer in range(self.config.n_layer):
            h = f"h.{layer}"
            matrices |= {f"{h}.ln_1": f"{h}.attn.c_attn", f"{h}.attn.z": f"{h}.attn.c_proj"}
            matrices |= {f"{h}.ln_2": f"{h}.mlp.c_fc", f"{h}.mlp.act": f"{h}.mlp.c_proj"}
        seen: dict[str, list[Floats]] = {name: [] for name in matrices.values()}

        def note(name: str, value: NDArray[Any]) -> NDArray[Any]:
            if name in matrices:
                seen[matrices[name]].append(value.reshape(-1, value.shape[-1]).copy())
            return value

        engine = ArrayEngine(self.config, weights, note)
        for ids in self.documents:
            engine.start_all(ids[:-1])
        return {name: np.concatenate(values) for name, values in seen.items()}

    def _sensitivity(self, name: str) -> float:
        """The divergence that rounding this matrix alone causes, over the square of the step."""
        matrix = self.original[name]
        step = max(_TRIED_STEP * float(matrix.std()), 1e-9)
        numbers = _rounded(matrix, step, self.inputs.get(name))
        return max(self.divergence({**self.original, name: step * numbers}) / step**2, 1e-12)

    def divergence(self, weights: Weights) -> float:
        """Nats a token."""
        coarse = _log_probabilities(self.config, weights, self.documents)
        return float((np.exp(self.likely) * (self.likely - coarse)).sum(axis=1).mean())

    def rounded(self, within: float, factor: float) -> tuple[dict[str, Ints], dict[str, float], float]:
        """Numbers, scales and divergence, with steps that would lead to `within` if squares added up, times `factor`.

        Layer after layer: a matrix is rounded for the inputs that it gets from those that were rounded before it.
        """
        total = sum(matrix.size for matrix in self.original.values())
        numbers: dict[str, Ints] = {}
        scales: dict[str, float] = {}
        weights = dict(self.original)
        layers = [name for name in self.original if name.startswith("h.")]
        for name in ("wte", "wpe", *layers, "lm_head"):
            matrix = self.original[name]
            step = factor * (within * matrix.size / total / self.sensitivity[name]) ** 0.5
            step = max(step, float(np.abs(matrix).max()) / _LARGEST)  # else the largest would not fit
            scales[name] = float(f"{step:.3g}") or 1.0
            inputs = self._inputs(weights)[name] if name in self.inputs else None
            numbers[name] = _rounded(matrix, scales[name], inputs)
            weights[name] = scales[name] * numbers[name]
        return {name: numbers[name] for name in self.original}, scales, self.divergence(weights)


def _rounded(matrix: Floats, step: float, inputs: Floats | None) -> Ints:
    """Whole numbers that times `step` are nearly the matrix [out, in], or lead to nearly the same for the inputs."""
    if inputs is None:
        plain: Ints = np.clip(np.rint(matrix / step), -_LARGEST, _LARGEST).astype(np.int64)
        return plain
    covariance = inputs.T @ inputs / len(inputs)  # [in, in]
    covariance += max(_DAMPING * float(np.trace(covariance)) / len(covariance), 1e-9) * np.eye(len(covariance))
    order = np.argsort(-np.diag(covariance), kind="stable")  # the strongest first, while there is much to make it good
    rest = matrix[:, order]
    spread = np.linalg.cholesky(np.linalg.inv(covariance[np.ix_(order, order)])).T
    numbers = np.empty(matrix.shape, np.int64)
    for column in range(matrix.shape[1]):
        numbers[:, order[column]] = np.clip(np.rint(rest[:, column] / step), -_LARGEST, _LARGEST)
        error = (rest[:, column] - step * numbers[:, order[column]]) / spread[column, column]
        rest[:, column + 1 :] -= np.outer(error, spread[column, column + 1 :])
    return numbers


def program(rounded: Rounded, seed: int, samples: int, temperature: float) -> str:
    """The source of a program that prints the samples of `etude generate`, one a line. Raises `PrimeError`."""
    if not 0 <= seed < 2**32:
        raise PrimeError(f"the seed of a program must be below 2^32, not {seed}")
    if not 0.1 <= temperature <= 100:
        raise PrimeError(f"the temperature of a program must be 0.1 to 100, not {temperature:g}")
    config = rounded.config
    weights = "".join(
        chr(_MIDDLE + number) for name in parameter_shapes(config) for number in rounded.numbers[name].ravel().tolist()
    )
    shapes = ", ".join(
        f"({rounded.scales[name]!r}, {rows}, {columns})" for name, (rows, columns) in parameter_shapes(config).items()
    )
    model = (
        f"letters = {rounded.tokenizer.characters!r}\n"
        f"block, width, size = {config.block_size}, {config.n_embd}, {config.head_size}\n"
        f"shapes = {shapes}\n"
        f"weights = {weights!r}\n"
        f"seed, samples, temperature = {seed}, {samples}, {temperature!r}\n"
    )
    template = files("etude.prime.programs").joinpath("sampler.py").read_text(encoding="utf-8")
    source, count = _TEMPLATE.subn(lambda match: model, template)
    assert count == 1
    return source


def written(rounded: Rounded, seed: int, samples: int, temperature: float) -> str:
    """What `etude generate` prints of the rounded model, which the program must print too."""
    model = ModelFiles(rounded.config, rounded.weights, rounded.tokenizer, "")
    texts = TextModel(model, rounded.tokenizer, "array").generate(n=samples, sampling=Sampling(temperature), seed=seed)
    return "".join(f"{sample.text}\n" for sample in texts)


def save_rounded(rounded: Rounded, directory: Path, name: str) -> None:
    """Write the rounded model as a model directory, for `etude generate` and all else."""
    card = (
        f"# {name}, rounded for a prime\n\nThe weights of {name} as whole numbers times one scale a matrix, "
        f"{rounded.bits:.2f} bits each: {rounded.divergence:.4f} nats a token away from the original. "
        f"Loss on {rounded.tokens:,} tokens: {rounded.loss[0]:.4f} before, {rounded.loss[1]:.4f} after.\n"
    )
    directory.mkdir(parents=True, exist_ok=True)
    save_model(directory, rounded.config, rounded.weights, rounded.tokenizer, card, "float64")
