"""The model card that travels with a model: data, recipe, seed, measured quality."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from etude.corpus.songs import SongDocument

from .recipes import ChordRecipe, MicroRecipe, Recipe, TextRecipe


def chord_card(
    recipe: ChordRecipe, documents: Sequence[SongDocument], step: int, best: dict[str, Any] | None = None
) -> str:
    """Markdown. `best` is the validation document of these weights, where they are the best so far."""
    songs: dict[tuple[str, str], int] = defaultdict(int)
    changes: dict[tuple[str, str], int] = defaultdict(int)
    for document in documents:
        source = (document.source or "unnamed", document.licence or "not stated")
        songs[source] += 1
        changes[source] += len(document.changes)
    sources = "\n".join(
        f"| {name} | {licence} | {songs[name, licence]:,} | {changes[name, licence]:,} |"
        for name, licence in sorted(songs)
    )
    rows = (
        ""
        if best is None
        else "\n".join(
            f"| {label} | {part['changes']:,} | {_percent(part['top1'])} | {_percent(part['top3'])} | "
            f"{_number(part['nats_per_chord'])} |"
            for label, part in (("all", best), ("first occurrences", best["first"]), ("repeats", best["repeat"]))
        )
    )
    quality = (
        ""
        if best is None
        else f"""| quality on validation songs | changes | top-1 | top-3 | nats a chord |
|---|---|---|---|---|
{rows}

"""
    )
    return f"""# A chord model

Continues chord progressions. Trained by `etude train --recipe {recipe.name} --seed {recipe.seed}` on the songs below;
these are the averaged weights of step {step:,}{", the best of its validations" if best else ""}.

{quality}| source | licence | songs | changes |
|---|---|---|---|
{sources}

{_settings(recipe)}"""


def text_card(recipe: MicroRecipe, engine: str, documents: Sequence[str], result: dict[str, Any]) -> str:
    """Markdown. `result` is what the run returns; times are left out, so that equal runs write equal cards."""
    characters = sum(map(len, documents))
    quality = f"| training, mean of the last steps | {result['loss']:.4f} |\n"
    validation = result["validation"]
    if validation is not None:
        quality += f"| validation, {validation['documents']:,} documents | {_number(validation['nats_per_token'])} |\n"
    return f"""# A small text model

Writes lines like those it was trained on: {len(documents):,} documents, {characters:,} characters. Trained by
`etude train --recipe {recipe.name} --engine {engine} --seed {recipe.seed}` in {result["steps"]:,} steps.

| loss | nats a token |
|---|---|
{quality}
{_settings(recipe)}"""


def stream_card(recipe: TextRecipe, corpora: Sequence[str], held_out: str | None, result: dict[str, Any]) -> str:
    """Markdown. `corpora` and `held_out` are names of files, `result` is what the run returns, its times left out.

    It may be that of a run which goes on: then "validation" and "best" may be None.
    """
    names = "\n".join(f"- `{name}`" for name in corpora)
    begun = f" from the model `{recipe.init}`, whose licence and history it shares," if recipe.init else ""
    step, kept, best = result["steps"], result["kept"], result["best"]
    rows = f"| {step:,} | training, mean of the last {result['loss_steps']} steps | {result['loss']:.4f} |\n"
    for when, found in ((step, result["validation"]), (best and best["step"], best)):
        if found is None or (found is best and when == step):
            continue
        note = ", the best of all" if found is best or (best and best["step"] == step) else ""
        random = found["random"]
        rows += (
            f"| {when:,} | validation, all {found['tokens']:,} tokens{note} | {_number(found['nats_per_token'])} |\n"
        )
        rows += (
            f"| {when:,} | validation, {random['batches']} random batches, as nanoGPT has it | "
            f"{random['nats_per_token']:.4f} |\n"
        )
    return f"""# A text model

Writes text like that it was trained on. Trained{begun} by `etude train --recipe {recipe.name} --seed {recipe.seed}` in
{step:,} steps on {result["tokens"]:,} tokens of:

{names}

These are the weights after step {kept:,}. Validated on {_held_out(held_out)}.

| after step | loss | nats a token |
|---|---|---|
{rows}
{_settings(recipe)}"""


def _held_out(name: str | None) -> str:
    return "the end of them, which was not trained on" if name is None else f"`{name}`"


def _settings(recipe: Recipe) -> str:
    rows = "".join(f"| `{key}` | {value} |\n" for key, value in asdict(recipe).items())
    return f"| setting | value |\n|---|---|\n{rows}"


def _percent(measured: dict[str, float | None]) -> str:
    value, error = measured["value"], measured["se"]
    return "-" if value is None else f"{100 * value:.1f}%" + ("" if error is None else f" ± {100 * error:.1f}")


def _number(measured: dict[str, float | None]) -> str:
    value, error = measured["value"], measured["se"]
    return "-" if value is None else f"{value:.3f}" + ("" if error is None else f" ± {error:.3f}")
