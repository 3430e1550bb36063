"""The ablations of `modern`: a run is the run of `etude train`, and every variant changes what it names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs PyTorch (the train extra)")

from etude.bench import ablations  # noqa: E402
from etude.bench.ablations import BASE, LONG, SHORT, Choices, Outcome, Variant, compare, forward, train  # noqa: E402
from etude.engines.tensor_modern import TextGPT  # noqa: E402
from etude.errors import EtudeError  # noqa: E402
from etude.gpt.config import GPTConfig  # noqa: E402
from etude.training.learner import Learner, schedule  # noqa: E402
from etude.training.recipes import RECIPES, TextRecipe  # noqa: E402
from etude.training.text import train as train_text  # noqa: E402

TINY = replace(
    cast("TextRecipe", RECIPES["modern"]),
    n_layer=2, n_head=2, n_embd=16, block_size=16, batch_size=4, steps=8, warmup=2, ngram_rows=64, samples=0,
    validate_every=8, compile="no",
)  # fmt: skip
CONFIG = GPTConfig("modern", 40, 16, 2, 2, 16, ngram_rows=64)
BY_NAME = {variant.name: variant for variant in SHORT}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """What is so small is slower with two."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def plays(tmp_path: Path) -> Path:
    path = tmp_path / "plays.txt"
    path.write_text("Over the hills and far away, the fiddler's playing;\nand who will dance with him to-day?\n" * 4)
    return path


def learner(variant: Variant, settings: TextRecipe = TINY) -> Learner:
    """As a run of the variant has it before its first step, but with weights each of which matters."""
    settings = variant.change(settings)
    torch.manual_seed(1)
    config = replace(CONFIG, block_size=settings.block_size, n_layer=settings.n_layer)
    found = Learner(config, settings)
    with torch.no_grad():
        for tensor in found.model.stored().values():
            tensor.normal_(std=0.3)
        cast("TextGPT", found.model).ngrams[0] = 0
    torch.manual_seed(1)
    variant.alter(found, settings)
    return found


def ids(rows: int = 2) -> Any:
    return np.random.default_rng(3).integers(40, size=(rows, 17))


def test_a_run_is_the_run_of_etude_train(plays: Path, tmp_path: Path) -> None:
    result = train_text([plays], None, tmp_path / "run", replace(TINY, seed=5))
    assert result["validation"]["nats_per_token"]["value"] == train(plays, BASE, TINY, 5).nats
    assert train(plays, BASE, TINY, 6).nats != train(plays, BASE, TINY, 5).nats


def test_written_out_forward_is_the_engines() -> None:
    model = cast("TextGPT", learner(BASE).model)
    for dtype, train_mode in ((torch.float32, False), (torch.bfloat16, True)):
        model.trunk.compute = dtype
        model.train(train_mode)
        torch.manual_seed(2)
        own = model(torch.from_numpy(ids()[:, :-1]))
        torch.manual_seed(2)
        assert torch.equal(forward(model, Choices(), torch.from_numpy(ids()[:, :-1])), own)


def test_names_are_distinct_and_the_first_is_the_recipe_itself() -> None:
    assert len({variant.name for variant in SHORT}) == len(SHORT)
    for variants in (SHORT, LONG):
        assert variants[0] is BASE
        assert len({variant.name for variant in variants}) == len(variants)
    assert BASE.change(TINY) is TINY
    assert all(BASE.course(TINY, step) is TINY for step in range(TINY.steps))


@cache
def base(text: str) -> float:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "plays.txt"
        path.write_text(text)
        return train(path, BASE, TINY, 1).nats


@pytest.mark.parametrize("variant", [*SHORT[1:], *LONG[1:]], ids=lambda variant: str(variant.name))
def test_every_variant_ends_elsewhere(plays: Path, variant: Variant) -> None:
    found = train(plays, variant, TINY, 1)
    assert np.isfinite(found.nats)
    assert found.nats != base(plays.read_text())


def test_variants_see_as_many_tokens() -> None:
    for variant in (*SHORT, *LONG):
        settings = variant.change(replace(TINY, steps=30))
        steps = [variant.course(settings, step) for step in range(settings.steps)]
        assert sum(step.batch_size * step.block_size for step in steps) == 30 * 4 * 16, variant.name


def moved(variant: Variant, settings: TextRecipe = TINY, step: int = 2) -> dict[str, Any]:
    """How far a step moves each tensor of a model directory."""
    settings = variant.change(settings)
    found = learner(variant, settings)
    before = {name: tensor.detach().clone() for name, tensor in found.model.stored().items()}
    found.step(ids(), settings, step)
    return {name: (tensor.detach() - before[name]).numpy() for name, tensor in found.model.stored().items()}


def logits(found: Learner, tokens: Any) -> Any:
    found.model.eval()
    with torch.no_grad():
        return found.model(torch.from_numpy(tokens)).numpy()


def test_adamw_moves_every_number_of_a_matrix_as_far() -> None:
    """Adam's first step is the rate in the direction of the gradient's sign; Muon's is as far for the whole matrix."""
    name = "h.1.mlp.c_fc"
    settings = replace(TINY, dropout=0.0, matrix_weight_decay=0.0)
    adam = np.abs(moved(BY_NAME["AdamW for the matrices too, rate 0.003"], settings)[name])
    muon = np.abs(moved(BASE, settings)[name])
    assert np.median(adam) == pytest.approx(0.003, rel=1e-3)
    assert adam.std() < 0.2 * adam.mean()
    assert muon.std() > 0.4 * muon.mean()


def test_ngrams_that_are_left_out_are_neither_read_nor_learnt() -> None:
    names = ("no n-grams", "n-grams of 2 alone", "n-grams of 2 and 3", "n-grams of 2 to 4", "modern")
    for lengths, name in enumerate(names):
        rows = moved(BY_NAME[name], replace(TINY, ngram_dropout=0.0))["ngrams"][1:].reshape(4, 64, 16)
        assert [bool(np.abs(each).sum() > 0) for each in rows] == [length < lengths for length in range(4)]
        found = learner(BY_NAME[name])
        before = logits(found, ids()[:, :-1])
        with torch.no_grad():
            cast("TextGPT", found.model).ngrams[1 + 64 * lengths :] += 1.0
        assert np.array_equal(logits(found, ids()[:, :-1]), before)


def order_matters(name: str) -> bool:
    """Whether one layer without n-grams tells the order of what it attends to."""
    found = learner(BY_NAME[name], replace(TINY, n_layer=1))
    with torch.no_grad():
        cast("TextGPT", found.model).ngrams.zero_()
        if name == "learned positions":
            found.model.get_parameter("wpe").normal_()
    tokens = ids()[:, :-1]
    turned = np.concatenate([tokens[:, -2::-1], tokens[:, -1:]], axis=1)
    return bool(np.abs(logits(found, tokens)[:, -1] - logits(found, turned)[:, -1]).max() > 1e-4)


def test_positions() -> None:
    assert not order_matters("no positions")
    assert order_matters("learned positions")
    assert order_matters("modern")
    found = learner(BY_NAME["learned positions"])
    wpe = found.model.get_parameter("wpe")
    before = wpe.detach().clone()
    found.step(ids(), TINY, 2)
    assert torch.count_nonzero(wpe.detach() - before) == before.numel()


def same_after(name: str, change: Any, times: float = 1) -> bool:
    """Whether a change of the parameters leaves the logits as they are, or as many times as large."""
    found = learner(BY_NAME[name])
    before = logits(found, ids()[:, :-1])
    with torch.no_grad():
        change(found.model)
    return bool(np.abs(logits(found, ids()[:, :-1]) / times - before).max() < 1e-3)


def test_norms() -> None:
    def longer_queries(model: Any) -> None:
        model.trunk.blocks[0].c_attn[:16] *= 2

    def shifted_embeddings(model: Any) -> None:
        model.wte += 1.0

    def longer_embeddings(model: Any) -> None:
        for parameter in (model.wte, model.ngrams, model.lm_bias):  # wte is the head too
            parameter.mul_(10)

    for name, change, times in (
        ("queries and keys not normed", longer_queries, 1),
        ("embeddings not normed", longer_embeddings, 10),
    ):
        assert same_after("modern", change, times)
        assert not same_after(name, change, times)
    assert same_after("LayerNorm", shifted_embeddings)
    assert not same_after("modern", shifted_embeddings)


def test_activations() -> None:
    def of_degree(degree: int) -> Any:
        def change(model: Any) -> None:
            for block in model.trunk.blocks:
                block.c_fc *= 2
                block.mlp_proj /= 2**degree

        return change

    degrees = {name: [same_after(name, of_degree(n)) for n in (1, 2)] for name in ("modern", "ReLU", "GELU")}
    assert degrees == {"modern": [False, True], "ReLU": [True, False], "GELU": [False, False]}


def test_beginnings() -> None:
    def begins(name: str) -> Any:
        torch.manual_seed(1)
        found = Learner(CONFIG, TINY)  # with weights as they begin
        BY_NAME[name].alter(found, TINY)
        return found.model

    block = "trunk.blocks.1."
    assert not begins("modern").get_parameter(block + "mlp_proj").any()
    assert begins("projections random at first").get_parameter(block + "mlp_proj").all()
    scale = begins("attention sharp at first (1.2)").get_parameter(block + "scale")
    assert torch.equal(scale, torch.full((2,), 1.2))
    own = begins("a head of its own")
    assert not own.get_parameter("lm_head").any()
    assert torch.equal(own.wte, 10 * begins("modern").wte)


def test_what_is_not_learnt_stays() -> None:
    every = moved(BASE)
    assert all(np.abs(change).sum() > 0 for change in every.values())
    assert not moved(BY_NAME["head without bias"])["lm_bias"].any()
    assert not moved(BY_NAME["attention's scale not learnt"])["h.0.attn.scale"].any()
    found = learner(BY_NAME["a head of its own"])
    found.step(ids(), TINY, 2)
    assert found.model.get_parameter("lm_head").all()


def test_schedules() -> None:
    settings = replace(TINY, steps=102)  # two of them warm up

    def rates(name: str) -> list[tuple[float, ...]]:
        found = []
        for step in (0, 1, 2, 27, 52, 77, 101):
            now = BY_NAME[name].course(settings, step)
            rates = (now.learning_rate, now.matrix_learning_rate, now.ngram_learning_rate)
            whole = (settings.learning_rate, settings.matrix_learning_rate, settings.ngram_learning_rate)
            shares = {round(schedule(now, step) * own / other, 6) for own, other in zip(rates, whole, strict=True)}
            found.append(tuple(shares))
        return found

    rise = [(round(1 / 3, 6),), (round(2 / 3, 6),), (1.0,)]
    assert rates("rates fall in a line") == [*rise, (0.75,), (0.5,), (0.25,), (0.01,)]
    assert rates("rates stay, then fall in a line in the second half") == [*rise, (1.0,), (1.0,), (0.5,), (0.02,)]
    assert rates("modern")[:5] == [*rise, (round((1 + 0.5**0.5) / 2, 6),), (0.5,)]


def test_differences_are_taken_seed_by_seed() -> None:
    base = [Outcome(1.5, 0.1), Outcome(1.6, 0.1), Outcome(1.7, 0.1)]
    more, error = compare([Outcome(1.6, 0.1), Outcome(1.7, 0.1), Outcome(1.9, 0.1)], base)
    assert more == pytest.approx(0.4 / 3)
    assert error == pytest.approx(1 / 30)  # of 0.1, 0.1 and 0.2: 0.1 / sqrt(3) / sqrt(3)


def test_rows(plays: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "modern", TINY)
    for name, value in (("SEEDS", (1, 2)), ("STEPS", (5,)), ("SHORT", (BASE, BY_NAME["ReLU"])), ("LONG", LONG[:2])):
        monkeypatch.setattr(ablations, name, value)
    heard: list[str] = []
    found = {(row["subject"], row["metric"]): row["value"] for row in ablations.bench(plays, heard.append)}
    assert [subject for subject, metric in found if metric == "validation"] == [
        "modern, 5 steps", "ReLU, 5 steps", "modern, 8 steps", "no dropout, 8 steps",
    ]  # fmt: skip
    runs = {seed: train(plays, BY_NAME["ReLU"], replace(TINY, steps=5), seed).nats for seed in (1, 2)}
    assert found["ReLU, 5 steps", "validation"] == pytest.approx(sum(runs.values()) / 2)
    more = found["ReLU, 5 steps", "validation"] - found["modern, 5 steps", "validation"]
    assert found["ReLU, 5 steps", "more than modern"] == pytest.approx(more)
    assert found["no dropout, 8 steps", "standard error"] > 0
    assert ("modern, 5 steps", "more than modern") not in found
    assert all(value > 0 for (_, metric), value in found.items() if metric == "processor time a step")
    assert heard[1] == "5 steps, 2 seeds: ReLU"


def test_a_loss_that_is_not_finite_is_no_row(plays: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "modern", TINY)
    wild = ablations.setting("wild", learning_rate=1e30, final_learning_rate=1e30)
    for name, value in (("SEEDS", (1, 2)), ("STEPS", (4,)), ("SHORT", (BASE, wild)), ("LONG", ())):
        monkeypatch.setattr(ablations, name, value)
    heard: list[str] = []
    rows = ablations.bench(plays, heard.append)
    assert {row["subject"] for row in rows} == {"modern, 4 steps"}
    assert heard[-1] == "wild: its loss did not stay finite"


def test_a_text_that_is_too_short_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("Over the hills")
    with pytest.raises(EtudeError, match="too short for windows of 16 tokens"):
        train(path, BASE, TINY, 1)
