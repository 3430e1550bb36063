"""docs/ladder does what it says: its code prints what stands below it, its recipes run, its table has its numbers."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import etude
from etude.corpus.stream import read_ids
from etude.corpus.text import find_sources
from etude.engines.array import ArrayEngine
from etude.gpt.config import RUNGS, GPTConfig, parameter_shapes
from etude.gpt.directory import load_model
from etude.model import TextModel
from etude.training.recipes import RECIPES, MicroRecipe, TextRecipe

LADDER = Path(__file__).parents[1] / "docs" / "ladder"
PAGES = sorted(LADDER.glob("[0-9]*.md"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# 26 letters and BOS; of the plays 65 characters and BOS, for the last two with 256 bytes to fall back on.
V = {"micro": 27, "classic": 322, "modern": 322}
TEXT = "Over the hills and far away,\nthe fiddler's playing;\n\nwe'll dance till day.\n" * 20


def programs(page: str) -> Iterator[tuple[str, str]]:
    """Each block of Python, and the text that stands below it; none where nothing is printed."""
    blocks = [(match.group(1), match.group(2), match.span()) for match in BLOCK.finditer(page)]
    for index, (kind, code, (_, end)) in enumerate(blocks):
        if kind != "python":
            continue
        follows = index + 1 < len(blocks) and not page[end : blocks[index + 1][2][0]].strip()
        yield code, blocks[index + 1][1] if follows and blocks[index + 1][0] == "text" else ""


def printed(code: str, names: dict[str, Any]) -> str:
    output = io.StringIO()
    with redirect_stdout(output):
        exec(compile(code, "page", "exec"), names)
    return "".join(f"{line.rstrip()}\n" for line in output.getvalue().splitlines())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_prints_what_it_says(
    page: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = list(programs(page.read_text(encoding="utf-8")))
    assert blocks
    code = "".join(each for each, _ in blocks)
    if "shakespeare.txt" in code:
        monkeypatch.chdir(request.getfixturevalue("shared_plays").parent)
    if re.search(r"engines\.tensor|training\.learner", code):
        pytest.importorskip("torch", reason="this page needs PyTorch (the train extra)")
    names: dict[str, Any] = {"__name__": page.stem}
    for each, wanted in blocks:
        assert printed(each, names) == wanted


def test_the_pages_are_one_path_from_the_first_to_the_last() -> None:
    index = (LADDER / "README.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES] == re.findall(r"\((\d\d-\w+\.md)\)", index)
    for before, page in pairwise(PAGES):
        assert f"]({page.name})" in before.read_text(encoding="utf-8").split("\n\n")[1]
        assert f"]({before.name})" in page.read_text(encoding="utf-8").split("\n\n")[1]
    for page in LADDER.glob("*.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def rows() -> list[list[str]]:
    """The index's table: a row a recipe."""
    lines = (LADDER / "README.md").read_text(encoding="utf-8").splitlines()
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| [")]
    return [cells for cells in found if "--recipe" in cells[2]]


def test_the_table_has_the_numbers_of_the_pages() -> None:
    assert [re.search(r"--recipe (\w+)", cells[2])[1] for cells in rows()] == [*RUNGS, "micro", "classic", "modern"]  # type: ignore[index]
    for link, parameters, command, loss, time in rows():
        page = (LADDER / re.search(r"\((.+)\)", link)[1]).read_text(encoding="utf-8")  # type: ignore[index]
        assert f"    etude train {command.strip('`').removeprefix('etude train ')} -o " in page
        (numbers,) = re.findall(r"^\*\*.+ loss (.+) nats\*\* a character, (.+) parameters, (.+)\.$", page, re.MULTILINE)
        assert numbers == (loss, parameters, time)


@pytest.mark.parametrize("name", [*RUNGS, "micro", "classic", "modern"])
def test_the_table_counts_the_parameters_of_the_recipes(name: str) -> None:
    settings = RECIPES[name]
    architecture = settings.architecture if isinstance(settings, TextRecipe) else "micro"
    rung, ngrams = (settings.rung, settings.ngram_rows) if isinstance(settings, TextRecipe) else ("", 0)
    v = V.get(name, 66)
    sizes = (settings.block_size, settings.n_layer, settings.n_head, settings.n_embd or v)
    config = GPTConfig(architecture, v, *sizes, rung=rung, ngram_rows=ngrams)
    count = sum(map(math.prod, parameter_shapes(config).values()))
    (row,) = (cells for cells in rows() if f"--recipe {name}`" in cells[2])
    assert row[1] == f"{count:,}"


@pytest.mark.parametrize("rung", RUNGS)
def test_a_rung_is_a_recipe_whose_model_writes(rung: str, tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="training needs PyTorch (the train extra)")
    text = tmp_path / "hills.txt"
    text.write_text(TEXT, encoding="utf-8")
    result = etude.train(text, tmp_path / "run", rung, steps=20, learning_rate=0.02)
    losses = [json.loads(line).get("loss") for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    known = [loss for loss in losses if loss is not None]
    assert np.mean(known[-3:]) < np.mean(known[:3]) - 0.1
    model = load_model(tmp_path / "run")
    settings = RECIPES[rung]
    assert isinstance(settings, TextRecipe)
    assert (model.config.architecture, model.config.rung, model.config.block_size) == ("lesson", rung, 8)
    assert (model.config.n_layer, model.config.n_head) == (settings.n_layer, settings.n_head)
    assert f"etude train --recipe {rung}" in model.card
    assert result["steps"] == 20
    writer = etude.load(tmp_path / "run")
    assert isinstance(writer, TextModel)
    (sample,) = writer.generate("Over", max_tokens=30, seed=1)
    assert sample.text.startswith("Over") and len(sample.text) > 4
    assert writer.trace("Over", steps=2)["h.0.attn.weights"].shape == (settings.n_head, 7, 7)


def test_an_untrained_bigram_is_worse_than_equal_chances(shared_plays: Path) -> None:
    pytest.importorskip("torch", reason="training needs PyTorch (the train extra)")
    from etude.training.text import begin

    settings = RECIPES["bigram"]
    assert isinstance(settings, TextRecipe)
    text = shared_plays.read_text(encoding="utf-8")
    beginning = begin([text], settings)
    ids = read_ids(find_sources([shared_plays]), beginning.tokenizer, beginning.bos_id, 66)
    table = ArrayEngine(beginning.config, beginning.weights).start_batch([[token] for token in range(66)])  # [V, V]
    nats = np.log(np.exp(table).sum(axis=1)[ids[:-1]]) - table[ids[:-1], ids[1:]]
    assert math.log(66) + 0.2 < nats.mean() < math.log(66) + 0.8


def test_the_recipes_of_the_lesson_differ_in_what_the_pages_say_alone() -> None:
    for rung in RUNGS:
        settings = RECIPES[rung]
        assert isinstance(settings, TextRecipe)
        assert (settings.name, settings.rung, settings.batch_size, settings.learning_rate) == (rung, rung, 32, 1e-3)
        assert settings.final_learning_rate == settings.learning_rate and settings.warmup == 0
        assert settings.steps == (10_000 if rung == "bigram" else 5_000)
    assert isinstance(RECIPES["micro"], MicroRecipe)
    residual, norm = RECIPES["residual"], RECIPES["norm"]
    assert isinstance(residual, TextRecipe)
    assert replace(residual, name="norm", rung="norm") == norm
