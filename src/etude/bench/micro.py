"""`etude bench micro`: how fast the smallest GPT trains, and how far that is from what the processor can do.

A training sample is a document (on the reference's names 7.1 tokens), in shuffled batches whose parts are of about
equal length. Speeds are the best of several runs, `compiled` on one core; single precision unless a row says otherwise.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from etude.corpus.text import read_documents
from etude.engines.engine import check_engine, is_installed
from etude.gpt.config import GPTConfig
from etude.training.micro import Order, Trainer, begin, make_trainer
from etude.training.recipes import MicroRecipe

BATCHED = MicroRecipe(batch_size=128, precision="float32")
WIDTHS = (16, 64)
PUBLISHED = {16: 3.0, 64: 46.8}  # microseconds a sample: the fastest C with a backward pass by hand, on an Apple M5
# What learns the names best within a second (docs/log.md).
LEARNING = replace(
    BATCHED, n_embd=28, n_head=7, batch_size=64, steps=1700, learning_rate=0.012, beta1=0.7, init_std=0.12
)
SEEDS = (42, 1, 2)
_REPEATS = 12
_SECONDS = 0.05  # a measured run is about so long

Row = dict[str, Any]
Report = Callable[[str], None]


def bench(corpus: Path, report: Report = lambda remark: None) -> list[Row]:
    """The rows of `etude bench micro`; `report` hears what is being measured. Raises `EtudeError`."""
    check_engine("compiled")
    documents = read_documents([corpus])
    rows: list[Row] = []

    def add(subject: str, metric: str, value: float, unit: str) -> None:
        rows.append({"subject": subject, "metric": metric, "value": value, "unit": unit})

    report("the reference run, double precision")
    for engine, steps in (("scalar", 20), ("tensor", 200), ("compiled", 1000)):
        if is_installed(engine):
            seconds = best_seconds(engine, documents, MicroRecipe(), steps, 2 if engine == "scalar" else _REPEATS)
            add(f"{engine}, one document a step, float64", "training step", 1e6 * seconds / steps, "µs")
    report("what one core can do at most")
    peak = peak_flops()
    add("matrix product of NumPy, one core", "rate", peak / 1e9, "GFLOP/s")
    for width in WIDTHS:
        recipe = replace(BATCHED, n_embd=width)
        for engine in ("tensor", "compiled"):
            if not is_installed(engine):
                continue
            report(f"{engine}, n_embd {width}")
            steps = 10
            steps = max(5, int(steps * _SECONDS / best_seconds(engine, documents, recipe, steps, 1)))
            seconds = best_seconds(engine, documents, recipe, steps, _REPEATS) / (steps * recipe.batch_size)
            subject = f"{engine}, n_embd {width}, batch {recipe.batch_size}"
            add(subject, "training sample", 1e6 * seconds, "µs")
            if engine == "compiled":
                rate = flops_per_sample(documents, recipe) / seconds
                add(subject, "rate", rate / 1e9, "GFLOP/s")
                add(subject, "share of that matrix product", 100 * rate / peak, "%")
        add(f"the fastest C on an Apple M5, n_embd {width} (published)", "training sample", PUBLISHED[width], "µs")
    report("a second of learning")
    seconds, losses = 0.0, []
    for seed in SEEDS:
        recipe = replace(LEARNING, seed=seed)
        beginning = begin(documents, recipe)
        trainer = make_trainer("compiled", beginning, recipe)
        order = Order([len(ids) for ids in beginning.ids], recipe.batch_size, seed).rows(0, recipe.steps)
        began = time.perf_counter()
        losses.append(float(trainer.run(order, 0, recipe.steps)[-100:].mean()))
        seconds = max(seconds, time.perf_counter() - began)
    subject = f"compiled, n_embd {LEARNING.n_embd}, batch {LEARNING.batch_size}, {LEARNING.steps:,} steps"
    add(subject, f"training time, the longest of {len(SEEDS)} runs", seconds, "s")
    add(subject, "training loss, last 100 steps, mean of them", float(np.mean(losses)), "nats a token")
    return rows


def best_seconds(engine: str, documents: Sequence[str], recipe: MicroRecipe, steps: int, repeats: int) -> float:
    """Seconds of the first steps of a run, the least of `repeats` times after one that does not count."""
    beginning = begin(documents, recipe)
    trainer: Trainer = make_trainer(engine, beginning, recipe)
    order: NDArray[np.int64] = Order([len(ids) for ids in beginning.ids], recipe.batch_size, recipe.seed).rows(0, steps)
    state, best = trainer.state(), np.inf
    for attempt in range(repeats + 1):
        trainer.restore(state)
        began = time.perf_counter()
        trainer.run(order, 0, steps)
        if attempt:
            best = min(best, time.perf_counter() - began)
    return float(best)


def flops_per_sample(documents: Sequence[str], recipe: MicroRecipe) -> float:
    """Multiplications and additions of forward and backward pass for a document of mean length, padding left out."""
    beginning = begin(documents, recipe)
    config: GPTConfig = beginning.config
    tokens = np.array([len(ids) - 1 for ids in beginning.ids])
    d = config.n_embd
    matrices = (12 * config.n_layer * d * d + config.vocab_size * d) * tokens.mean()
    attention = config.n_layer * d * (tokens * (tokens + 1)).mean()  # scores and mixed values over all pairs
    return float(3 * 2 * (matrices + attention))


def peak_flops() -> float:
    """Floating-point operations a second of a large float32 matrix product on one core, in a process of its own."""
    code = (
        "import numpy as np, time\n"
        "a = np.ones((1024, 1024), np.float32); best = 9.0\n"
        "for _ in range(20):\n"
        "    began = time.perf_counter(); a @ a; best = min(best, time.perf_counter() - began)\n"
        "print(2 * 1024**3 / best)\n"
    )
    threads = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    environment = os.environ | dict.fromkeys(threads, "1")
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)
