"""`etude bench train`: how soon text is learnt, `modern` beside `classic`, and a step beside a plain PyTorch loop's.

`classic` is nanoGPT's small run, whose schedule ends where its loss does; so each is given a schedule that ends about
where the loss to reach is. Seconds are those of training alone, without imports, tokenizing and validation. Losses are
of full passes over the held-out tenth. A step is timed in turns with the peer's, so that both meet the same machine.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np

from etude.corpus.text import documents, find_sources
from etude.engines.engine import check_engine
from etude.errors import EtudeError
from etude.training.recipes import TextRecipe, recipe
from etude.training.runs import METRICS

REACH = 1.88  # nats a character: what nanoGPT's run is published with
SOON = 48  # steps after which `modern` has reached it
SEEDS = (1337, 1, 2)
_ROUNDS, _ROUND_STEPS = 20, 5

Row = dict[str, Any]
Report = Callable[[str], None]


def bench(corpus: Path, report: Report = lambda remark: None) -> list[Row]:
    """The rows of `etude bench train`; `report` hears what is being measured. Raises `EtudeError`."""
    check_engine("tensor")
    rows: list[Row] = []

    def add(subject: str, metric: str, value: float, unit: str) -> None:
        rows.append({"subject": subject, "metric": metric, "value": value, "unit": unit})

    report("a step of classic and of a plain PyTorch loop, in turns")
    own, plain = _step_seconds(corpus)
    add("plain PyTorch loop, as nanoGPT's", "training step", 1e3 * plain, "ms")
    add("classic", "training step", 1e3 * own, "ms")
    add("classic", "speed beside the plain loop", plain / own, "times")

    report(f"classic, {_recipe('classic').steps:,} steps")
    run = _run(corpus, "classic", SEEDS[0], validate_every=100)
    subject, slow = f"classic, seed {SEEDS[0]}", run.reached
    add(subject, f"training until {REACH}", slow, "s")
    add(subject, f"validation after {run.tokens:,} tokens", run.nats, "nats a character")
    add(subject, "the same by nanoGPT's protocol", run.random_nats, "nats a character")

    report(f"modern, {SOON} steps, {len(SEEDS)} seeds")
    runs = [_run(corpus, "modern", seed, steps=SOON, validate_every=SOON) for seed in SEEDS]
    subject, soon = f"modern, {SOON} steps, mean of {len(SEEDS)} seeds", fmean(each.reached for each in runs)
    add(subject, f"training until {REACH}", soon, "s")
    add(subject, f"validation after {runs[0].tokens:,} tokens", fmean(each.nats for each in runs), "nats a character")
    add(subject, "speed beside classic", slow / soon, "times")

    steps = _recipe("modern").steps
    report(f"modern, {steps:,} steps, {len(SEEDS)} seeds")
    runs = [_run(corpus, "modern", seed, validate_every=steps) for seed in SEEDS]
    subject = f"modern, {steps:,} steps, mean of {len(SEEDS)} seeds"
    add(subject, "training step", 1e3 * fmean(each.seconds for each in runs) / steps, "ms")
    add(subject, f"validation after {runs[0].tokens:,} tokens", fmean(each.nats for each in runs), "nats a character")
    add(subject, "the worst of them", max(each.nats for each in runs), "nats a character")
    return rows


class _Result:
    """What a run's metrics say."""

    def __init__(self, result: dict[str, Any], lines: list[dict[str, Any]], settings: TextRecipe) -> None:
        self.seconds: float = result["seconds"]
        self.tokens = settings.steps * settings.batch_size * settings.block_size
        found = {line["step"]: line["validation"] for line in lines if "validation" in line}
        last = found[settings.steps]
        self.nats: float = last["nats_per_token"]["value"]
        self.random_nats: float = last["random"]["nats_per_token"]
        first = min((step for step, each in found.items() if each["nats_per_token"]["value"] <= REACH), default=None)
        if first is None:
            raise EtudeError(
                f"{settings.name}, seed {settings.seed}: {settings.steps:,} steps did not reach {REACH} on this text, "
                f"but {self.nats:.4f}; name tiny Shakespeare"
            )
        self.reached = self.seconds * first / settings.steps


def _recipe(name: str) -> TextRecipe:
    return cast("TextRecipe", recipe(name))


def _run(corpus: Path, name: str, seed: int, **settings: int) -> _Result:
    from etude.training.text import train

    chosen = replace(_recipe(name), seed=seed, **settings)  # type: ignore[arg-type]  # whole numbers alone
    with TemporaryDirectory() as folder:
        result = train([corpus], None, Path(folder) / "run", chosen)
        lines = (Path(folder) / "run" / METRICS).read_text(encoding="utf-8").splitlines()
    return _Result(result, [json.loads(line) for line in lines], chosen)


def _step_seconds(corpus: Path) -> tuple[float, float]:
    """Seconds a step of `classic`, ours and the plain loop's: medians of rounds in turns, drawing windows included."""
    from etude.training.learner import Learner
    from etude.training.text import begin, draw

    from .train import PlainLoop

    settings = _recipe("classic")
    read = (pieces for source in find_sources([corpus]) for _, pieces in documents(source))
    text = "".join(piece for pieces in read for piece in pieces)
    beginning = begin([text], settings)
    ids = np.array(beginning.tokenizer.encode(text))
    learner = Learner(beginning.config, settings)
    learner.adopt(beginning.weights)
    # The peer has no bytes to fall back on: its vocabulary is the characters, and they have the same ids.
    size = 1 + max(int(ids.max()), beginning.tokenizer.bos_id or 0)
    weights = beginning.weights | {"wte.weight": beginning.weights["wte.weight"][:size]}
    config, at_once = (
        replace(beginning.config, vocab_size=size, bos_token_id=None, eos_token_id=None),
        settings.batch_size,
    )
    plain = PlainLoop(config, replace(settings, micro_batch_size=at_once), "cpu", weights)
    taken: dict[str, list[float]] = {"own": [], "plain": []}
    for number in range(_ROUNDS + 1):
        for name, subject in (("own", learner), ("plain", plain)):
            began = time.perf_counter()
            for step in range(_ROUND_STEPS):
                rng = np.random.default_rng((settings.seed, number, step))
                rows = draw(ids, rng, settings.batch_size, settings.block_size)
                loss = learner.step(rows, settings, step) if subject is learner else plain.step(rows, step)
                float(loss)
            if number:  # the first round finds cold caches
                taken[name].append((time.perf_counter() - began) / _ROUND_STEPS)
    return median(taken["own"]), median(taken["plain"])
