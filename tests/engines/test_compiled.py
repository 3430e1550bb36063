"""The compiled engine: its parts against NumPy, its gradients and steps against the scalar engine, the whole exact run.

A version for a precision, of one document a step or of many, takes some 15 seconds to compile; shapes share it.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from etude.engines.array import ArrayEngine
from etude.engines.scalar import GPT, Adam, initial_weights, sample
from etude.gpt.config import GPTConfig

numba: Any = pytest.importorskip("numba", reason="the compiled engine needs Numba (the fast extra)")

from etude.engines.compiled import CompiledEngine, CompiledTrainer  # noqa: E402
from etude.engines.kernels import exp, kernel, matmul, matmul_transposed  # noqa: E402

Arrays = dict[str, NDArray[Any]]
Documents = Sequence[Sequence[int]]
RATES: dict[str, Any] = {"learning_rate": 0.01, "beta1": 0.85, "beta2": 0.99, "epsilon": 1e-8}

# A width of 6 makes heads of 3, 8 of 4, 10 of 5: less than the four at a time of the loops, as many, and one more.
CONFIGS = [GPTConfig("micro", 7, 9, n_layer=2, n_head=2, n_embd=width) for width in (6, 8, 10)]
SMALL = CONFIGS[0]
BOS = SMALL.vocab_size - 1


def drawn(config: GPTConfig, std: float = 0.4) -> dict[str, list[list[float]]]:
    rng = random.Random(3)
    return initial_weights(rng, config.vocab_size, config.block_size, config.n_layer, config.n_embd, std)


def some_documents(count: int) -> list[tuple[int, ...]]:
    """From 1 position to the whole block, no two neighbours alike; most are names, from BOS to BOS."""
    rng = random.Random(5)
    lengths = [9, 1, 2, 5, 3, 8, 2, 7, 4, 6] * (count // 10 + 1)  # positions
    return [(BOS, *(rng.randrange(BOS) for _ in range(n - 1)), BOS) for n in lengths[:count]]


def trainer(
    config: GPTConfig, documents: Documents, batch_size: int, precision: str, **rates: float
) -> CompiledTrainer:
    weights = {name: np.array(rows) for name, rows in drawn(config).items()}
    return CompiledTrainer(config, weights, documents, batch_size=batch_size, precision=precision, **RATES | rates)


@cache
def scalar_gradients(config: GPTConfig, *documents: tuple[int, ...]) -> tuple[float, Arrays]:
    """The loss and its gradients by name."""
    model = GPT(drawn(config), config.n_head)
    loss = model.loss(documents)
    loss.backward()
    gradients = {name: np.array([[v.grad for v in row] for row in rows]) for name, rows in model.weights.items()}
    return loss.data, gradients


def far(ours: Arrays, theirs: Arrays) -> float:
    """The largest difference."""
    assert ours.keys() == theirs.keys()
    assert all(ours[name].shape == theirs[name].shape for name in ours)
    return max(float(np.abs(ours[name] - theirs[name]).max()) for name in ours)


# The parts


@numba.njit(fastmath=True, error_model="numpy")  # type: ignore[untyped-decorator]  # as `kernel`, but not kept on disk
def exp_of(x: Any, y: Any) -> None:
    for i in range(len(x)):
        y[i] = exp(x[i])


@pytest.mark.parametrize(("dtype", "lowest"), [(np.float64, -700.0), (np.float32, -87.0)], ids=["float64", "float32"])
def test_exp_is_right_to_the_last_digits(dtype: Any, lowest: float) -> None:
    """Far from 0 fewer of them are: compiled without regard to order, x - n ln 2 has an error that grows with x."""
    halves = [-math.log(2) * (n + 0.5) + shift for n in range(100) for shift in (-1e-6, 0.0, 1e-6)]  # r is largest here
    x = np.concatenate([np.linspace(lowest, 0, 100_001), -np.logspace(-300, 1, 2_000), halves]).astype(dtype)
    y = np.ones_like(x)
    exp_of(x, y)
    wanted = np.array([math.exp(each) for each in x.tolist()])
    digit = np.finfo(dtype).eps
    assert (np.abs(y - wanted) < 2 * digit).all()
    assert (np.abs(y / wanted - 1) < 2 * digit * (1 + np.abs(x))).all()
    edges = np.array([0.0, -0.0, lowest - 1, -1e30, -np.inf], dtype)
    y = np.ones_like(edges)
    exp_of(edges, y)
    assert (y[:2] == 1).all()
    assert (y[2:] >= 0).all() and (y[2:] < 1e-37).all()


def test_matrix_products_equal_numpys_for_all_small_sizes() -> None:
    rng = np.random.default_rng(0)
    for rows in range(1, 10):
        for inner in range(1, 10):
            for columns in range(1, 10):
                a, a_turned = rng.normal(size=(rows, inner)), rng.normal(size=(inner, rows)).T
                b, c = rng.normal(size=(inner, columns + 2)), rng.normal(size=(rows, columns + 3))
                for left in (a, a_turned):
                    wanted = c.copy()
                    wanted[:, :columns] += left @ b[:, :columns]
                    ours = c.copy()
                    matmul(left, b, ours, columns)
                    assert np.abs(ours - wanted).max() < 1e-13
                left, out = rng.normal(size=(rows, columns + 3)), np.full((rows, inner), 9.0)
                matmul_transposed(left, b, out, columns)
                assert np.abs(out - left[:, :columns] @ b[:, :columns].T).max() < 1e-13


def test_a_kernel_that_cannot_be_kept_on_disk_is_compiled_all_the_same() -> None:
    names: dict[str, Any] = {}
    exec(compile("def one_more(x): return x + 1", "<no file>", "exec"), names)
    assert kernel(names["one_more"])(2) == 3


# Gradients


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: str(config.n_embd))
def test_gradients_of_one_document_equal_scalars(config: GPTConfig, precision: str, tolerance: float) -> None:
    """At a rate of 0 the weights stay: document after document, long and short, in the room that the last one left."""
    documents = some_documents(10)
    ours = trainer(config, documents, 1, precision, learning_rate=0.0)
    for number in range(len(documents)):
        loss, gradients = scalar_gradients(config, documents[number])
        assert ours.run(np.array([[number]]), 0, 10)[0] == pytest.approx(loss, abs=tolerance)
        assert far(ours.gradients, gradients) < tolerance


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize(
    ("config", "batch_size"), [*((config, 3) for config in CONFIGS), *((SMALL, size) for size in (2, 5, 33, 70))],
    ids=lambda value: str(value) if isinstance(value, int) else str(value.n_embd),
)  # fmt: skip
def test_gradients_of_many_documents_equal_scalars(
    config: GPTConfig, batch_size: int, precision: str, tolerance: float
) -> None:
    """Lanes are 32 at most: 33 and 70 documents are two groups and three."""
    documents = some_documents(batch_size)
    everyone = np.arange(batch_size)
    rows = [
        everyone,
        np.where(everyone % 3 == 1, everyone, -1),  # none at the ends and between
        np.where(everyone == batch_size - 1, 1, -1),  # but one, of one position
        (everyone * 7 + 3) % batch_size // 2,  # some of them twice
    ]
    ours = trainer(config, documents, batch_size, precision, learning_rate=0.0)
    for row in rows:
        loss, gradients = scalar_gradients(config, *(documents[number] for number in row if number >= 0))
        assert ours.run(row[None], 0, 10)[0] == pytest.approx(loss, abs=tolerance)
        assert far(ours.gradients, gradients) < tolerance


@pytest.mark.parametrize("batch_size", [1, 3])
def test_numbers_beyond_the_range_of_exp(batch_size: int) -> None:
    """What is largest is taken away first, wherever it stands: among scores up to the block's end, and among logits."""
    rng, config = random.Random(0), CONFIGS[2]  # here the last token's largest score is at times the first's, by 1,000
    documents = [[BOS, *(rng.randrange(BOS) for _ in range(8)), BOS] for _ in range(15)]
    rows = np.arange(15).reshape(-1, batch_size)
    large = {name: 40 * np.array(weights) for name, weights in drawn(config).items()}
    below = large | {"lm_head": np.tile(100 * large["lm_head"][:1], (config.vocab_size, 1))}  # no token is likelier
    for weights in (large, below):
        model = GPT({name: array.tolist() for name, array in weights.items()}, config.n_head)
        losses = [model.loss([documents[number] for number in row]).data for row in rows]
        ours = CompiledTrainer(
            config, weights, documents, batch_size=batch_size, precision="float64", **RATES | {"learning_rate": 0.0}
        )
        assert ours.run(rows, 0, 30).tolist() == pytest.approx(losses, rel=1e-7)


# Steps

ROWS = {1: np.arange(20)[:, None] % 9, 5: np.random.default_rng(1).integers(-1, 9, (20, 5))}


@pytest.mark.parametrize("batch_size", [1, 5])
def test_twenty_steps_equal_scalars(batch_size: int) -> None:
    documents, rows = some_documents(9), ROWS[batch_size]
    ours = trainer(SMALL, documents, batch_size, "float64")
    model = GPT(drawn(SMALL), SMALL.n_head)
    adam = Adam(model.parameters(), **RATES)
    losses = []
    for step, row in enumerate(rows.tolist()):
        loss = model.loss([documents[number] for number in row if number >= 0])
        loss.backward()
        adam.step(step + 3, 30)
        losses.append(loss.data)
    assert np.abs(ours.run(rows, 3, 30) - losses).max() < 1e-9
    state = ours.state()
    weights = {name: np.array([[v.data for v in row] for row in rows]) for name, rows in model.weights.items()}
    assert far({name: state[f"weights.{name}"] for name in weights}, weights) < 1e-9
    for kind, moments in (("first", adam.first), ("second", adam.second)):
        flat = np.concatenate([state[f"{kind}.{name}"].ravel() for name in weights])
        assert np.abs(flat - moments).max() < 1e-9


@pytest.mark.parametrize(("batch_size", "precision"), [(1, "float64"), (5, "float32")])
def test_the_same_run_is_the_same_to_the_bit_cut_or_restored(batch_size: int, precision: str) -> None:
    documents, rows = some_documents(9), ROWS[batch_size]
    whole, cut, restored = (trainer(SMALL, documents, batch_size, precision) for _ in range(3))
    losses = whole.run(rows, 0, 20).tolist()
    assert [*cut.run(rows[:7], 0, 20), *cut.run(rows[7:8], 7, 20), *cut.run(rows[8:], 8, 20)] == losses
    other = trainer(SMALL, documents, batch_size, precision)
    other.run(rows[:11], 0, 20)
    state = other.state()
    other.run(rows, 0, 20)  # what was copied stays as it was
    restored.run(rows[5:9], 0, 20)  # what a run left behind is of no account
    restored.restore(state)
    assert restored.run(rows[11:], 11, 20).tolist() == losses[11:]
    bits = {name: array.tobytes() for name, array in whole.state().items()}
    for again in (cut, restored):
        assert {name: array.tobytes() for name, array in again.state().items()} == bits


@pytest.mark.parametrize(("batch_size", "precision"), [(1, "float64"), (5, "float32")])
def test_no_step_allocates_memory(batch_size: int, precision: str) -> None:
    """By Numba's own count of what compiled code allocates: a call takes hold of its arguments, a step of nothing."""
    runtime = numba.core.runtime
    ours = trainer(SMALL, some_documents(9), batch_size, precision)
    counts = []
    runtime._nrt_python.memsys_enable_stats()
    for times in (1, 10):
        before = runtime.rtsys.get_allocation_stats()
        ours.run(np.tile(ROWS[batch_size], (times, 1)), 0, 200)
        counts.append(
            [after - start for start, after in zip(before, runtime.rtsys.get_allocation_stats(), strict=True)]
        )
    runtime._nrt_python.memsys_disable_stats()
    assert counts[0] == counts[1]
    assert counts[0][0] == counts[0][1] > 0  # it does count, and all is freed


# The reference run


class Reference(NamedTuple):
    """What came of the thousand steps, and the random stream after them."""

    losses: list[str]
    config: GPTConfig
    weights: Arrays
    characters: list[str]
    stream: Any


@pytest.fixture(scope="module")
def reference(shared_names: Path) -> Reference:
    rng = random.Random(42)
    names = [line.strip() for line in shared_names.read_text(encoding="utf-8").splitlines() if line.strip()]
    rng.shuffle(names)
    characters = sorted(set("".join(names)))
    bos = len(characters)
    config = GPTConfig("micro", bos + 1, block_size=16, n_layer=1, n_head=4, n_embd=16)
    weights = {name: np.array(rows) for name, rows in initial_weights(rng, bos + 1, 16, n_layer=1, n_embd=16).items()}
    documents = [[bos, *map(characters.index, name), bos][:17] for name in names[:1000]]
    ours = CompiledTrainer(config, weights, documents, batch_size=1, precision="float64", **RATES)
    losses = ours.run(np.arange(1000)[:, None], 0, 1000)
    state = ours.state()
    trained = {name: state[f"weights.{name}"] for name in weights}
    return Reference([f"{loss:.4f}" for loss in losses], config, trained, characters, rng.getstate())


def digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_the_losses_of_the_reference_all_thousand(reference: Reference) -> None:
    """The digest is that of the losses which `python scalar.py names.txt` prints."""
    printed = {1: "3.3660", 2: "3.4243", 3: "3.1778", 10: "3.2229", 50: "2.4050",
               100: "3.3669", 250: "2.1581", 500: "2.0645", 750: "2.0780", 1000: "2.6497"}  # fmt: skip
    assert {step: reference.losses[step - 1] for step in printed} == printed
    assert digest(reference.losses) == "4e87fee6ee9d3bf54bbffab59b3b0774840a282abf213a989d8281e681fbafeb"


def test_the_names_of_the_reference_all_twenty(reference: Reference) -> None:
    rng = random.Random()
    rng.setstate(reference.stream)
    engine = CompiledEngine(reference.config, reference.weights)
    model: Any = SimpleNamespace(block_size=16, start=engine.start, step=engine.step)
    bos = len(reference.characters)
    names = ["".join(reference.characters[token] for token in sample(model, rng, bos)) for _ in range(20)]
    assert names[:5] == ["kamon", "ann", "karai", "jaire", "vialan"]
    assert digest(names) == "7c91a0c48ea9a72d160cde18a6992e4646c6f0eff5e045f9ceef09cb03532b46"


# The engine


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-9), ("float32", 1e-4)])
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: str(config.n_embd))
@given(prompt=st.lists(st.integers(0, BOS), min_size=1, max_size=12), more=st.lists(st.integers(0, BOS), max_size=12))
@settings(max_examples=25, deadline=None)
def test_logits_equal_those_of_array(
    config: GPTConfig, dtype: str, tolerance: float, prompt: list[int], more: list[int]
) -> None:
    weights = {name: np.array(rows, dtype) for name, rows in drawn(config).items()}
    ours, array = CompiledEngine(config, weights), ArrayEngine(config, weights)
    logits = ours.start_all(prompt)
    assert logits.dtype == dtype
    assert logits.shape == (min(len(prompt), config.block_size), config.vocab_size)
    assert np.abs(logits - array.start_all(prompt)).max() < tolerance
    for token in more:  # over the end of the block
        assert np.abs(ours.step(token) - array.step(token)).max() < tolerance
    assert np.abs(ours.start(prompt) - logits[-1]).max() < tolerance  # nothing is left of what was before


def test_logits_stay_when_the_engine_goes_on() -> None:
    engine = CompiledEngine(SMALL, {name: np.array(rows) for name, rows in drawn(SMALL).items()})
    logits = engine.start([1, 2, 3])
    kept = logits.copy()
    engine.start([4])
    assert (logits == kept).all()


@pytest.mark.parametrize("ids", [[], [-1], [7], [1, 2, 7], [10_000_000]])
def test_ids_that_are_none_are_refused_and_forgotten(ids: list[int]) -> None:
    engine = CompiledEngine(SMALL, {name: np.array(rows) for name, rows in drawn(SMALL).items()})
    with pytest.raises(ValueError, match="token ids must be 0 to 6, and one at least"):
        engine.start(ids)
    engine.start([1, 2])
    for token in ids:
        if not 0 <= token < SMALL.vocab_size:
            with pytest.raises(ValueError, match="token ids must be"):
                engine.step(token)
    assert np.abs(engine.step(3) - engine.start([1, 2, 3])).max() < 1e-12


# What is said

OF_FEW_LINES = """
import numpy as np
from etude.engines import compiled
from etude.engines.kernels import kernel
from etude.gpt.config import GPTConfig, parameter_shapes

@kernel
def count(order):
    return len(order)

@kernel
def train(w, dw, flat, moments, r, rates, tokens, starts, order, first_step, steps, losses):
    losses[:] = count(order)

@kernel
def forward(w, r, ids, start):
    return r.logits[start : count(ids)]

compiled.train, compiled.forward = train, forward  # in place of what takes long to compile
config = GPTConfig("micro", 3, 2, 1, 1, 1)
weights = {name: np.zeros(shape) for name, shape in parameter_shapes(config).items()}
settings = {"batch_size": 1, "precision": "float64", "learning_rate": 1, "beta1": 0, "beta2": 0, "epsilon": 1}

def say(message):
    print("said:", message.partition(",")[0])

trainer = compiled.CompiledTrainer(config, weights, [[0, 1]], say=say, **settings)
print("a trainer is made")
print(trainer.run(np.zeros((2, 1), np.int64), 0, 2))
engine = compiled.CompiledEngine(config, weights, say)
print("an engine is made")
print(engine.start([1, 2]))
"""


def test_what_is_compiled_is_said_once_and_what_is_on_disk_is_not(tmp_path: Path) -> None:
    """And it is compiled before the first step, so that a step takes no longer than others."""
    script = tmp_path / "script.py"
    script.write_text(OF_FEW_LINES)
    outputs = []
    for _ in range(2):
        result = subprocess.run(
            [sys.executable, str(script)], capture_output=True, text=True, check=False, timeout=300,
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")},
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        outputs.append(result.stdout.splitlines())
    said, silent = "said: compiling", ["a trainer is made", "[2. 2.]", "an engine is made", "[0. 0. 0.]"]
    assert outputs == [[said, *silent[:2], said, *silent[2:]], silent]
