"""GPT-2 on streams of text: from nothing or from a model, with nanoGPT's schedule, stopped and resumed to the bit."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import re
import shutil
import signal
import string
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import etude
from etude.corpus import stream
from etude.corpus.lines import CorpusError
from etude.corpus.stream import read_stream
from etude.corpus.text import find_sources
from etude.engines.array import ArrayEngine
from etude.engines.engine import EngineError
from etude.errors import EtudeError
from etude.files import atomic_write
from etude.gpt.config import GPTConfig, parameter_shapes
from etude.gpt.directory import ModelError, ModelFiles, load_model, save_model
from etude.model import TextModel
from etude.tokens.bpe import BPETokenizer
from etude.tokens.bpe_files import characters_json
from etude.tokens.characters import CharTokenizer
from etude.tokens.chords import ChordTokenizer
from etude.tokens.tokenizer import Ids, TokenizerError
from etude.training.checkpoint import CheckpointError, load_checkpoint
from etude.training.evaluation import score_text
from etude.training.recipes import RecipeError, TextRecipe, recipe, with_settings
from etude.training.runs import Interrupted, Progress, TrainingError, saved_recipe

torch = pytest.importorskip("torch", reason="training needs PyTorch (the train extra)")

from torch._inductor.exc import InvalidCxxCompiler  # noqa: E402 - only where PyTorch is installed

from etude.training import reading, runs  # noqa: E402
from etude.training.device import DeviceError, compiler  # noqa: E402
from etude.training.learner import schedule  # noqa: E402
from etude.training.text import Beginning, begin, draw, train  # noqa: E402

CLASSIC, FINETUNE, MODERN = (cast("TextRecipe", recipe(name)) for name in ("classic", "finetune", "modern"))
SIZES: dict[str, Any] = {"batch_size": 3, "steps": 12, "warmup": 3, "validate_every": 5, "block_size": 16}
TINY = replace(CLASSIC, n_layer=1, n_head=2, n_embd=16, dropout=0.2, **SIZES)
TUNE = replace(FINETUNE, **SIZES)
TEXT = "Over the hills and far away,\nthe fiddler's playing;\n\nwe'll dance till day.\n" * 8
FILES = ("model.safetensors", "metrics.jsonl", "config.json", "tokenizer.json", "README.md", "recipe.json")


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "hills.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def make_model(path: Path, tokenizer: BPETokenizer | CharTokenizer, tied: bool = True, **settings: Any) -> Path:
    bos = tokenizer.bos_id
    sizes: dict[str, Any] = {"block_size": 24, "n_layer": 2, "n_head": 2, "n_embd": 8} | settings
    config = GPTConfig(
        "gpt2", tokenizer.vocab_size, **sizes, tie_word_embeddings=tied, bos_token_id=bos, eos_token_id=bos
    )
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in parameter_shapes(config).items()}
    save_model(path, config, weights, tokenizer, "# A model\n")
    return path


@pytest.fixture
def bpe_model(tmp_path: Path) -> Path:
    """Byte-level BPE that knows ASCII alone and merges nothing."""
    return make_model(tmp_path / "begun-from", BPETokenizer(characters_json(string.printable)))


def encode(path: Path, model: Beginning | ModelFiles) -> Ids:
    """The stream of a file."""
    bos, size = model.config.bos_token_id, model.config.vocab_size
    assert not isinstance(model.tokenizer, ChordTokenizer)
    return read_stream(find_sources([path]), model.tokenizer, bos, size, path.parent / "kept").ids


def stop_at(step: int, number: int = signal.SIGTERM) -> Any:
    def report(progress: Progress) -> None:
        if progress.step == step:
            os.kill(os.getpid(), number)

    return report


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def same_files(a: Path, b: Path) -> None:
    for name in FILES:
        assert (a / name).read_bytes() == (b / name).read_bytes(), name


def test_a_run_makes_a_model_directory(text_file: Path, tmp_path: Path) -> None:
    run, seen, said = tmp_path / "run", list[Progress](), list[str]()
    result = train([text_file], None, run, TINY, report=seen.append, say=said.append)
    model = load_model(run)
    assert isinstance(model.tokenizer, CharTokenizer)
    assert model.tokenizer.characters == "".join(sorted(set(TEXT)))
    bos = model.tokenizer.bos_id
    assert model.config == GPTConfig("gpt2", bos + 257, 16, 1, 2, 16, bos_token_id=bos, eos_token_id=bos)
    assert [progress.step for progress in seen] == list(range(1, 13))
    assert [progress.step for progress in seen if progress.validation is not None] == [5, 10, 12]
    losses = [line["loss"] for line in metrics(run) if "loss" in line]
    assert losses == [round(progress.loss, 4) for progress in seen]
    assert losses[0] == pytest.approx(math.log(bos + 257), abs=0.1)  # it begins by knowing nothing
    assert [line["step"] for line in metrics(run) if "validation" in line] == [5, 10, 12]
    cut = int(0.9 * (len(TEXT) + 1))
    assert (result["tokens"], result["steps"], result["loss_steps"]) == (cut, 12, 12)
    assert result["loss"] == pytest.approx(np.mean(losses), abs=1e-4)
    assert result["validation"]["tokens"] == len(TEXT) - cut
    assert result["validation"] == metrics(run)[-1]["validation"]
    stream = encode(text_file, model)
    scored = score_text([stream[cut:].tolist()], ArrayEngine(model.config, model.weights), 16)  # nothing is dropped
    assert result["validation"]["nats_per_token"]["value"] == pytest.approx(scored["nats_per_token"]["value"], abs=1e-5)
    assert said == [f"{cut:,} tokens to train on, {len(TEXT) + 1 - cut:,} to validate on"]
    for words in ("`hills.txt`", "20 random batches", "--recipe classic --seed 1337", "| `n_embd` | 16 |"):
        assert words in model.card
    loaded = etude.load(run, "array")
    assert isinstance(loaded, TextModel)
    (sample,) = loaded.generate(max_tokens=5)  # an empty prompt is BOS
    assert sample.tokens


def test_a_run_learns(text_file: Path, tmp_path: Path) -> None:
    settings = replace(TINY, steps=150, warmup=10, learning_rate=1e-2, dropout=0.0)
    result = train([text_file], None, tmp_path / "run", settings)
    losses = [line["loss"] for line in metrics(tmp_path / "run") if "loss" in line]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    validation = result["validation"]
    assert validation["nats_per_token"]["value"] < 0.6 * losses[0]
    assert validation["random"]["nats_per_token"] == pytest.approx(validation["nats_per_token"]["value"], abs=0.2)


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_a_stopped_run_resumes_to_the_same_bytes(text_file: Path, tmp_path: Path, stop: int) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    result = train([text_file], None, whole, TINY)
    with pytest.raises(Interrupted):
        train([text_file], None, parts, TINY, report=stop_at(stop))
    assert not (parts / "model.safetensors").exists()
    assert saved_recipe(parts) == TINY
    again = train([text_file], None, parts, TINY, resume=True)
    same_files(whole, parts)
    assert again | {"seconds": 0} == result | {"seconds": 0}
    (parts / "model.safetensors").unlink()
    train([text_file], None, parts, TINY, resume=True)  # a run that is over makes its model
    same_files(whole, parts)


@pytest.mark.slow
def test_a_killed_finetuning_resumes_to_the_same_bytes_without_its_model(
    text_file: Path, bpe_model: Path, tmp_path: Path
) -> None:
    code = (
        "import sys, etude; model = sys.argv[3] if len(sys.argv) > 3 else None;"
        f"etude.train(*sys.argv[1:3], init=model, resume=model is None, **({SIZES | {'steps': 60}} if model else {{}}))"
    )

    def command(folder: str, *more: str | Path) -> list[str]:
        return [sys.executable, "-c", code, str(text_file), str(tmp_path / folder), *map(str, more)]

    subprocess.run(command("whole", bpe_model), check=True)
    lines = tmp_path / "parts" / "metrics.jsonl"
    process = subprocess.Popen(command("parts", bpe_model))
    while process.poll() is None and (not lines.exists() or lines.read_bytes().count(b"\n") < 20):
        time.sleep(0.002)
    process.kill()
    process.wait()
    bpe_model.rename(tmp_path / "elsewhere")
    subprocess.run(command("parts"), check=True)
    same_files(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_a_model_that_is_begun_from_keeps_what_it_is(text_file: Path, tmp_path: Path, kind: str, tied: bool) -> None:
    characters = CharTokenizer("".join(sorted(set(TEXT) | set("XYZ"))))
    tokenizer = BPETokenizer(characters_json(string.printable)) if kind == "bpe" else characters
    begun = load_model(make_model(tmp_path / "begun-from", tokenizer, tied))
    still = replace(TUNE, learning_rate=0.0, final_learning_rate=0.0)
    for settings, equal in ((still, True), (TUNE, False)):
        run = tmp_path / str(equal)
        result = train([text_file], None, run, settings, tmp_path / "begun-from")
        model = load_model(run)
        assert (model.config, model.tokenizer) == (begun.config, begun.tokenizer)
        assert all((model.weights[name] == array).all() == equal for name, array in begun.weights.items())
        assert "from the model `begun-from`" in model.card
        assert "`hills.txt`" in model.card
        assert result["tokens"] == int(0.9 * (len(TEXT) + 1))
    assert json.loads((run / "recipe.json").read_text()).items() >= {
        "name": "finetune", "init": "begun-from", "n_layer": 2, "n_embd": 8, "block_size": 16,
    }.items()  # fmt: skip


def test_finetuning_takes_the_models_block_at_most(bpe_model: Path) -> None:
    assert begin([], FINETUNE, bpe_model).recipe.block_size == 24
    assert begin([], replace(FINETUNE, block_size=8), bpe_model).recipe.block_size == 8
    for setting, message in (("block_size=25", "at most 24 in"), ("n_embd=16", "n_embd is 8 in .*, not 16")):
        with pytest.raises(RecipeError, match=message):
            begin([], with_settings(FINETUNE, [setting]), bpe_model)


def test_a_recipe_of_the_models_sizes_goes_on_from_it(text_file: Path, bpe_model: Path, tmp_path: Path) -> None:
    settings = replace(
        TINY, name="gpt2-124m", n_layer=2, n_head=2, n_embd=8, learning_rate=0.0, final_learning_rate=0.0
    )
    train([text_file], None, tmp_path / "run", settings, bpe_model)
    begun, model = load_model(bpe_model), load_model(tmp_path / "run")
    assert model.tokenizer == begun.tokenizer
    assert all((model.weights[name] == array).all() for name, array in begun.weights.items())


def test_a_recipe_without_a_tokenizer_wants_one(text_file: Path, tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match="the recipe gpt2-124m has no tokenizer of its own: name one with --tokenizer"
    ):
        train([text_file], None, tmp_path / "run", cast("TextRecipe", recipe("gpt2-124m")))
    assert not (tmp_path / "run").exists()


def test_the_plays_are_cut_as_nanogpt_cuts_them(shared_plays: Path) -> None:
    text = shared_plays.read_text(encoding="utf-8")
    beginning = begin([text], CLASSIC)
    ids = encode(shared_plays, beginning)
    assert beginning.config.vocab_size == 66 + 256  # 65 characters, BOS, and the bytes for all others
    cut = int(0.9 * len(ids))
    assert (cut - 1, len(ids) - cut) == (1_003_854, 111_540)
    assert sum(array.size for array in beginning.weights.values()) == 4 * (12 * 128 * 128 + 13 * 128) + 386 * 128 + 256


def test_windows_are_a_function_of_the_generator_and_reach_every_place() -> None:
    ids = np.arange(12, dtype=np.int32)
    rows = draw(ids, np.random.default_rng((1, 1, 7)), 400, 4)
    assert rows.shape == (400, 5)
    assert (rows == rows[:, :1] + np.arange(5)).all()
    assert set(rows[:, 0].tolist()) == set(range(8))
    assert (draw(ids, np.random.default_rng((1, 1, 7)), 400, 4) == rows).all()
    assert (draw(ids, np.random.default_rng((1, 1, 8)), 400, 4) != rows).any()


def test_the_rate_rises_and_falls_as_nanogpts() -> None:
    rates = [1e-3 * schedule(CLASSIC, step) for step in (0, 99, 100, 1050, 1999)]
    assert rates == pytest.approx([1e-3 / 101, 1e-3 * 100 / 101, 1e-3, 5.5e-4, 1e-4], rel=1e-3)
    assert schedule(replace(CLASSIC, steps=5, warmup=50), 4) == pytest.approx(5 / 51)
    assert schedule(replace(CLASSIC, warmup=0), 0) == 1


def test_the_rate_rises_over_a_share_of_the_run() -> None:
    settings = cast("TextRecipe", recipe("gpt2-124m"))
    short = replace(settings, steps=100)
    assert [schedule(short, step) for step in (0, 4, 5)] == pytest.approx([1 / 6, 5 / 6, 1])
    assert schedule(settings, 953) == 1 > schedule(settings, 952)  # 5% of 19,073
    with pytest.raises(RecipeError, match="a share below 1"):
        replace(settings, warmup=1.5)


def test_the_first_step_by_hand(text_file: Path, tmp_path: Path) -> None:
    """AdamW moves each weight by the rate against its gradient and decays matrices; the whole gradient is clipped."""
    from etude.engines.tensor_gpt2 import GPT2

    settings = replace(TINY, steps=1, warmup=0, dropout=0.0, learning_rate=1e-3, weight_decay=0.5, clip=0.01)
    beginning = begin([TEXT], settings)
    train([text_file], None, tmp_path / "run", settings)
    after = load_checkpoint(tmp_path / "run")[0]
    stream = encode(text_file, beginning)
    rows = draw(stream[: int(0.9 * len(stream))], np.random.default_rng((1337, 1, 0)), 3, 16).astype(np.int64)
    rows[0, 0] = beginning.tokenizer.bos_id or -1  # what stands before every prompt is learnt
    model = GPT2(beginning.config)
    model.adopt(beginning.weights)
    loss = model.nats(torch.tensor(rows[:, :-1]), torch.tensor(rows[:, 1:])).mean()
    loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
    assert metrics(tmp_path / "run")[0]["loss"] == pytest.approx(loss.item(), abs=1e-4)
    gradients = {name: np.asarray(p.grad) for name, p in model.named_parameters()}
    length = math.sqrt(sum(float(np.square(gradient).sum()) for gradient in gradients.values()))
    assert length > 0.01
    for name, before in beginning.weights.items():
        gradient = gradients[name] * 0.01 / length
        assert np.abs(after[f"adam.exp_avg.{name}"] - 0.1 * gradient).max() < 1e-7, name
        kept = 1 - 1e-3 * 0.5 if before.ndim > 1 else 1.0
        wanted = kept * before - 1e-3 * gradient / (np.abs(gradient) + 1e-8)
        assert np.abs(after[f"model.{name}"] - wanted).max() < 1e-5, name


def test_validation_on_a_file_of_its_own(text_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("we'll play till day,\n" * 3)
    result = train([text_file], other, tmp_path / "run", TINY)
    assert result["tokens"] == len(TEXT) + 1
    assert result["validation"]["tokens"] == 63
    assert "Validated on `other.txt`" in load_model(tmp_path / "run").card


def test_a_run_in_minutes_sets_its_steps(text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_TIMED_SHARE", 1e9)  # so many steps are timed, however slow the machine is
    settings, seen = replace(TINY, minutes=0.02, validate_every=1000), list[Progress]()
    train([text_file], None, tmp_path / "run", settings, report=seen.append)
    assert [progress.steps for progress in seen[:24]] == [None] * 24
    assert 25 < len(seen) == seen[-1].steps == saved_recipe(tmp_path / "run").steps


def test_what_cannot_be_begun_is_one_line_and_writes_nothing(
    text_file: Path, bpe_model: Path, model_directory: Path, tmp_path: Path
) -> None:
    short, umlaut = tmp_path / "short.txt", tmp_path / "umlaut.txt"
    short.write_text("Over the hills")
    umlaut.write_text("Over the hills\nand über")
    words = make_model(tmp_path / "words", CharTokenizer("abc"))
    cases: list[tuple[list[Path], TextRecipe, Path | None, type[Exception], str]] = [
        ([text_file], FINETUNE, None, RecipeError, "name its directory with --init"),
        ([text_file], CLASSIC, bpe_model, RecipeError, "n_layer is 2 in .*, not 4 as in the recipe; take finetune"),
        ([text_file], MODERN, bpe_model, RecipeError, "modern begins from nothing; with --init take finetune"),
        ([text_file], TUNE, model_directory, ModelError, "is modern in float32 .* kind chord; .* gpt2 in float32"),
        ([text_file], TUNE, tmp_path / "none", ModelError, "no such model directory"),
        ([short], TINY, None, RecipeError, "short.txt: 13 tokens .* windows of 16"),
        ([umlaut], TUNE, bpe_model, TokenizerError, "umlaut.txt: no token .* 'ü' .character 20."),
        ([text_file], TUNE, words, TokenizerError, "hills.txt: 'O' .character 1 of"),
        ([tmp_path / "none.txt"], TINY, None, Exception, "none.txt: cannot be read"),
    ]
    for corpus, settings, init, error, message in cases:
        with pytest.raises(error, match=message):
            train(corpus, None, tmp_path / "run", settings, init)
        assert not (tmp_path / "run").exists()


def test_what_a_run_is_resumed_with_must_be_what_it_was_begun_with(
    text_file: Path, bpe_model: Path, tmp_path: Path
) -> None:
    run, other = tmp_path / "run", tmp_path / "other.txt"
    other.write_text(TEXT[::-1])
    train([text_file], None, run, TUNE, bpe_model)
    begun = saved_recipe(run)
    assert isinstance(begun, TextRecipe)
    train([text_file], None, run, begun, bpe_model, resume=True)  # the model may be named once more
    with pytest.raises(RecipeError, match="begun from the model begun-from, not"):
        train([text_file], None, run, begun, tmp_path / "other", resume=True)
    with pytest.raises(RecipeError, match="holds a run already"):
        train([text_file], None, run, TUNE, bpe_model)
    with pytest.raises(RecipeError, match="another value of steps"):
        train([text_file], None, run, replace(begun, steps=99), resume=True)
    for corpus, held_out in (([other], None), ([text_file, other], None), ([text_file], other)):
        with pytest.raises(CheckpointError, match="another corpus"):
            train(corpus, held_out, run, begun, resume=True)
    (run / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is damaged"):
        train([text_file], None, run, begun, resume=True)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(text_file: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="not finite"):
        train([text_file], None, tmp_path / "run", replace(TINY, learning_rate=1e30, warmup=0))
    assert load_checkpoint(tmp_path / "run")[1]["step"] == 0


def test_the_same_from_python(text_file: Path, bpe_model: Path, tmp_path: Path) -> None:
    result = etude.train(text_file, tmp_path / "run", init=bpe_model, steps=2, block_size=8, dropout=0.5)
    assert result["steps"] == 2
    assert saved_recipe(tmp_path / "run").name == "finetune"
    with pytest.raises(RecipeError, match="the recipe micro begins from nothing"):
        etude.train(text_file, tmp_path / "other", "micro", init=bpe_model)
    with pytest.raises(EngineError, match="classic trains in the engine tensor alone"):
        etude.train(text_file, tmp_path / "other", "classic", engine="compiled")


def test_settings_of_text_recipes() -> None:
    assert recipe("classic") == CLASSIC
    assert with_settings(CLASSIC, ["n_layer=2", "dropout=0.1"]) == replace(CLASSIC, n_layer=2, dropout=0.1)
    for setting, message in [
        ("block_sise=2", "did you mean block_size"), ("init=x", "no setting 'init'"), ("dropout=1", "below 1"),
        ("block_size=1", "at least 2"), ("batch_size=0", "at least 1"), ("beta2=1", "below 1"), ("clip=-1", "negative"),
        ("final_learning_rate=1", "at most learning_rate"),
    ]:  # fmt: skip
        with pytest.raises(RecipeError, match=message):
            with_settings(CLASSIC, [setting])


@pytest.mark.parametrize("tokenizer", ["char", "plain", "byte", "bpe"])
def test_a_new_model_has_the_tokenizer_that_is_chosen(text_file: Path, tmp_path: Path, tokenizer: str) -> None:
    run, chosen = tmp_path / "run", tokenizer
    if tokenizer == "bpe":
        (tmp_path / "ascii").mkdir()
        (tmp_path / "ascii" / "tokenizer.json").write_text(characters_json(string.printable))
        chosen = str(tmp_path / "ascii")
    with pytest.raises(Interrupted):
        train([text_file], None, run, TINY, tokenizer=chosen, report=stop_at(3))
    begun = saved_recipe(run)
    assert isinstance(begun, TextRecipe)
    assert begun.tokenizer == ("ascii" if tokenizer == "bpe" else tokenizer)
    with pytest.raises(RecipeError, match=r"begun with the tokenizer .*, not other; resume without"):
        train([text_file], None, run, begun, resume=True, tokenizer="other")
    if tokenizer == "bpe":
        (tmp_path / "other" / "ascii").mkdir(parents=True)
        (tmp_path / "other" / "ascii" / "tokenizer.json").write_text(characters_json(string.printable[:-1]))
        with pytest.raises(RecipeError, match="begun with another tokenizer than "):
            train([text_file], None, run, begun, resume=True, tokenizer=str(tmp_path / "other" / "ascii"))
    train([text_file], None, run, begun, resume=True, tokenizer=chosen)  # it may be named once more
    model = etude.load(run, "array")
    assert isinstance(model, TextModel)
    assert model.tokenizer.kind == ("char" if tokenizer == "plain" else tokenizer)
    assert model.config.vocab_size == model.tokenizer.vocab_size
    sizes = {"char": len(set(TEXT)) + 257, "plain": len(set(TEXT)) + 1, "byte": 257, "bpe": 101}
    assert model.config.vocab_size == sizes[tokenizer]
    if tokenizer in ("char", "plain"):  # almost untrained, it would write bytes if it might
        assert {character for line in metrics(run) if "samples" in line for text in line["samples"]["texts"]
                for character in text} <= set(TEXT)  # fmt: skip
    every = tokenizer in ("char", "byte")
    prompt = "Over the 日本" if every else "Over the"
    (sample,) = model.generate(prompt, max_tokens=8)
    assert sample.text.startswith(prompt)
    assert "".join(model.stream(prompt, max_tokens=8)) == sample.text
    assert [token.word.bytes for token in model.trace("é" if every else "e", steps=0).tokens][-1] in (
        b"\xa9", b"e",
    )  # fmt: skip


def test_tokenizers_that_cannot_be_are_one_line(
    text_file: Path, bpe_model: Path, model_directory: Path, tmp_path: Path
) -> None:
    cases: list[tuple[TextRecipe, Path | None, str | Path, str]] = [
        (TINY, None, "chars", "chars: no such tokenizer; take char, plain, byte, or the path"),
        (TINY, None, model_directory, "its tokens are chords, not text"),
        (TINY, None, text_file, "hills.txt: not a tokenizer"),
        (TUNE, bpe_model, "byte", "has its own tokenizer; leave --tokenizer out"),
    ]
    for settings, init, tokenizer, message in cases:
        with pytest.raises(EtudeError, match=message):
            train([text_file], None, tmp_path / "run", settings, init, tokenizer=tokenizer)
        assert not (tmp_path / "run").exists()
    with pytest.raises(RecipeError, match="micro makes its own tokenizer"):
        etude.train(text_file, tmp_path / "run", "micro", tokenizer="byte")


def test_a_large_corpus_lies_in_the_run_until_its_end(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, run = tmp_path / "whole", tmp_path / "run"
    train([text_file], None, whole, TINY)
    monkeypatch.setattr(stream, "MAX_MEMORY", 100)
    with pytest.raises(Interrupted):
        train([text_file], None, run, TINY, report=stop_at(3))
    assert (run / ".etude-tokens" / "corpus" / "ids.bin").stat().st_size == 2 * (len(TEXT) + 1)
    with monkeypatch.context() as patch:
        patch.setattr(stream, "_encode", None)  # it is not read again
        train([text_file], None, run, TINY, resume=True)
    same_files(whole, run)
    assert not (run / ".etude-tokens").exists()


def test_a_validation_of_a_large_corpus_stays_short(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MOST_HELD_OUT", 40)
    result = train([text_file], None, tmp_path / "run", replace(TINY, steps=1))
    assert (result["tokens"], result["validation"]["tokens"]) == (len(TEXT) + 1 - 40, 39)


@pytest.mark.parametrize("tokenizer", ["char", "byte"])
def test_standard_input_is_read_once_and_resumed_without(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: str
) -> None:
    def given(content: bytes) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))

    run = tmp_path / "run"
    given(TEXT.encode())
    with pytest.raises(Interrupted):
        train([Path("-")], None, run, TINY, tokenizer=tokenizer, report=stop_at(3))
    assert [path.name for path in (run / ".etude-tokens").iterdir()] == ["corpus"]
    given(b"")
    train([Path("-")], None, run, replace(TINY, tokenizer=tokenizer), resume=True)
    assert not (run / ".etude-tokens").exists()
    assert "`standard input`" in (run / "README.md").read_text()
    train([text_file], None, tmp_path / "file", TINY, tokenizer=tokenizer)
    weights = "model.safetensors"
    assert (run / weights).read_bytes() == (tmp_path / "file" / weights).read_bytes()
    with pytest.raises(CorpusError, match="cannot both be standard input"):
        train([Path("-")], Path("-"), tmp_path / "other", TINY)
    with pytest.raises(CorpusError, match="standard input: empty"):
        train([Path("-")], None, tmp_path / "other", TINY, tokenizer=tokenizer)
    assert not (tmp_path / "other").exists()


def test_a_stop_while_reading_is_one_line_and_leaves_nothing(text_file: Path, tmp_path: Path) -> None:
    def stop(message: str) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    (tmp_path / "folder").mkdir()
    text_file.rename(tmp_path / "folder" / "hills.txt")
    with pytest.raises(TrainingError, match="stopped while looking for characters; no step was taken"):
        train([tmp_path / "folder"], None, tmp_path / "run", TINY, say=stop)  # says how many files there are
    assert not (tmp_path / "run").exists()


def test_long_readings_are_told_of(text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_SAY_SECONDS", 0.0)
    said: list[str] = []
    train([text_file], None, tmp_path / "run", replace(TINY, steps=1), say=said.append)
    assert re.fullmatch(r"looking for characters: 0 of 0 MB, 0:00 left, [\d.,]+ MB/s", said[0])
    assert re.fullmatch(r"tokenizing: 0 MB in 0.\d s, [\d.,]+ MB/s", said[-2])


def overfitted(**settings: Any) -> TextRecipe:
    """A run whose validation gets worse while it learns 60 characters by heart."""
    sizes: dict[str, Any] = {"steps": 120, "warmup": 0, "validate_every": 10, "learning_rate": 1e-2, "dropout": 0.0}
    sizes["tokenizer"] = "plain"
    return replace(TINY, **sizes | {"sample_tokens": 20} | settings)


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    path = tmp_path / "held-out.txt"
    path.write_text("the hills dance; and the fiddler, far away,\nis playing till we all fall.\n")
    return path


def test_the_best_model_or_the_last_is_kept_and_both_are_told(text_file: Path, held_out: Path, tmp_path: Path) -> None:
    results = {}
    for keep in ("best", "last"):
        run = tmp_path / keep
        result = results[keep] = train([text_file], held_out, run, overfitted(keep=keep, learning_rate=3e-2))
        lines = [line for line in metrics(run) if "validation" in line]
        values = [line["validation"]["nats_per_token"]["value"] for line in lines]
        best = lines[int(np.argmin(values))]
        assert 0 < best["step"] < 120  # else this test would say nothing
        assert result["best"] == best["validation"] | {"step": best["step"]}
        assert result["validation"] == lines[-1]["validation"]
        kept = best if keep == "best" else lines[-1]
        assert result["kept"] == kept["step"]
        model = load_model(run)
        loaded = etude.load(run)
        assert isinstance(loaded, TextModel)
        scored = loaded.evaluate(held_out)  # the model is what training says it is
        for key in ("value", "se"):
            assert scored["nats_per_token"][key] == pytest.approx(kept["validation"]["nats_per_token"][key], abs=1e-6)
        assert scored["tokens"] == kept["validation"]["tokens"]
        assert f"the weights after step {kept['step']}." in model.card
        for line in (best, lines[-1]):
            value = line["validation"]["nats_per_token"]["value"]
            assert re.search(rf"\| {line['step']} \| validation, all .* \| {value:.3f} ± ", model.card)
    assert results["best"]["best"] == results["last"]["best"]


def test_a_run_without_patience_goes_on_and_one_with_it_stops(text_file: Path, held_out: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    settings = overfitted(keep="best", patience=2)
    result = train([text_file], held_out, tmp_path / "run", settings, report=seen.append)
    best = result["best"]["step"]
    assert result["stopped_early"] and result["steps"] == best + 20 == seen[-1].step < 120
    assert seen[-1].remark == (
        f"stopped early, after step {best + 20}: 2 validations in a row were no better than that of step {best}"
    )
    assert all(progress.remark is None for progress in seen[:-1])
    again = train([text_file], held_out, tmp_path / "run", settings, resume=True)  # it is over
    assert again == result


def everything(run: Path) -> dict[str, bytes]:
    """All files of a run but the checkpoint, which holds times."""
    found = {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert not [name for name in found if name.endswith(".tmp")]
    del found["checkpoint.safetensors"]
    return found


@pytest.mark.parametrize("stop", [3, 10, 35])
def test_all_that_a_run_leaves_is_the_same_wherever_it_was_stopped(
    text_file: Path, held_out: Path, tmp_path: Path, stop: int
) -> None:
    settings = overfitted(keep="best", patience=2, checkpoint_every=7, steps=50, learning_rate=3e-2)
    result = train([text_file], held_out, tmp_path / "whole", settings, tensorboard=True)
    with pytest.raises(Interrupted):
        train([text_file], held_out, tmp_path / "parts", settings, report=stop_at(stop), tensorboard=True)
    again = train([text_file], held_out, tmp_path / "parts", settings, resume=True, tensorboard=True)
    whole = everything(tmp_path / "whole")
    assert everything(tmp_path / "parts") == whole
    assert again | {"seconds": 0} == result | {"seconds": 0}
    assert {"loss.svg", "samples.txt", "events.out.tfevents.etude"} <= whole.keys()
    steps = [f"step-{step:06d}" for step in range(7, result["steps"] + 1, 7)]
    assert sorted({name.split("/")[0] for name in whole if name.startswith("step-")}) == steps


def test_a_run_that_was_killed_past_its_checkpoint_leaves_the_same(
    text_file: Path, held_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a checkpoint and the kill, models and metrics were written; they are found and written once."""
    monkeypatch.setattr("etude.training.runs.FIRST_CHECKPOINT_SECONDS", math.inf)
    settings = overfitted(keep="best", checkpoint_every=7, steps=50)
    train([text_file], held_out, tmp_path / "whole", settings, tensorboard=True)

    class Killed(BaseException):
        pass

    def kill(progress: Progress) -> None:
        if progress.step == 33:
            raise Killed

    with pytest.raises(Killed):  # nothing is saved after the beginning
        train([text_file], held_out, tmp_path / "parts", settings, report=kill, tensorboard=True)
    assert load_checkpoint(tmp_path / "parts")[1]["step"] == 0
    train([text_file], held_out, tmp_path / "parts", settings, resume=True, tensorboard=True)
    assert everything(tmp_path / "parts") == everything(tmp_path / "whole")


def test_models_that_stay_are_the_run_at_their_step(text_file: Path, tmp_path: Path) -> None:
    settings = replace(TINY, steps=12, checkpoint_every=4)
    train([text_file], None, tmp_path / "run", settings)
    weights = {step: load_model(tmp_path / "run" / f"step-{step:06d}").weights for step in (4, 8, 12)}
    last = load_model(tmp_path / "run").weights
    assert all((weights[12][name] == array).all() for name, array in last.items())
    assert any((weights[8][name] != array).any() for name, array in last.items())
    loaded = etude.load(tmp_path / "run" / "step-000004", "array")
    assert isinstance(loaded, TextModel)
    assert "the weights after step 4." in loaded.card
    (tmp_path / "run" / "recipe.json").unlink()
    with pytest.raises(RecipeError, match="holds a run already"):  # its models would be taken for another's
        train([text_file], None, tmp_path / "run", settings)


def test_samples_do_not_touch_the_run_and_tell_what_is_copied(text_file: Path, tmp_path: Path) -> None:
    settings = replace(TINY, steps=150, validate_every=75, warmup=10, learning_rate=1e-2, block_size=64)
    seen: list[Progress] = []
    result = train([text_file], None, tmp_path / "with", settings, report=seen.append)
    without = train([text_file], None, tmp_path / "without", replace(settings, samples=0))
    same = "validation", "best", "loss"
    assert {key: result[key] for key in same} == {key: without[key] for key in same}
    assert not (tmp_path / "without" / "samples.txt").exists()
    assert without["verbatim"] is None
    sampled = [line for line in metrics(tmp_path / "with") if "samples" in line]
    assert [line["step"] for line in sampled] == [75, 150]
    assert [len(line["samples"]["texts"]) for line in sampled] == [3, 3]
    assert [p.sample for p in seen if p.sample is not None] == [line["samples"]["texts"][0] for line in sampled]
    last = sampled[-1]["samples"]
    assert result["verbatim"] == last["verbatim"]
    file = (tmp_path / "with" / "samples.txt").read_text()
    assert all(text in file for text in last["texts"])
    # The definition, by hand on the texts: runs of 32 characters that the training text has.
    trained, covered = TEXT[: int(0.9 * (len(TEXT) + 1)) - 1], 0
    for text in last["texts"]:
        marks = [False] * len(text)
        for i in range(len(text) - 31):
            if text[i : i + 32] in trained:
                marks[i : i + 32] = [True] * 32
        covered += sum(marks)
    assert last["verbatim"] == pytest.approx(covered / sum(map(len, last["texts"])))


def test_finetuning_is_scored_in_the_windows_of_its_run(
    text_file: Path, held_out: Path, bpe_model: Path, tmp_path: Path
) -> None:
    result = train([text_file], held_out, tmp_path / "run", TUNE, bpe_model)  # windows of 16, of a block of 24
    loaded = etude.load(tmp_path / "run")
    assert isinstance(loaded, TextModel)
    wanted = result["best"]["nats_per_token"]
    found = loaded.evaluate(held_out)["nats_per_token"]
    assert (found["value"], found["se"]) == pytest.approx((wanted["value"], wanted["se"]), abs=1e-6)
    assert loaded.evaluate(held_out, block_size=24)["nats_per_token"]["value"] != pytest.approx(wanted["value"])


def fails_at(monkeypatch: pytest.MonkeyPatch, file: str, step: int, run: Path) -> None:
    """From this step on the disk is full for files of that name."""

    def write(path: Any, real: Any = atomic_write) -> Any:
        lines = run / "metrics.jsonl"
        if Path(path).name == file and lines.exists() and f'"step": {step},' in lines.read_text():
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path)

    for module in ("etude.training.runs", "etude.training.checkpoint", "etude.gpt.directory"):
        monkeypatch.setattr(f"{module}.atomic_write", write)


@pytest.mark.parametrize(
    ("file", "kept"), [("checkpoint.safetensors", 0), ("loss.svg", 0), ("model.safetensors", 0), ("README.md", 0)]
)
def test_a_full_disk_ends_a_run_in_one_line_and_it_goes_on_later(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, kept: int
) -> None:
    settings: dict[str, Any] = {**SIZES, "n_layer": 1, "n_head": 2, "n_embd": 16, "keep": "best"}
    etude.train(text_file, tmp_path / "whole", "classic", **settings)
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        fails_at(patched, file, 5, run)
        with pytest.raises(TrainingError) as caught:
            etude.train(text_file, run, "classic", **settings)
    assert str(caught.value) == (
        f"{run / file}: No space left on device; {run / 'checkpoint.safetensors'} of step {kept} is whole: "
        "free some space and go on with --resume"
    )
    etude.train(text_file, run, resume=True)
    assert everything(run) == everything(tmp_path / "whole")


def test_a_corpus_that_cannot_be_read_again_names_the_checkpoint(text_file: Path, tmp_path: Path) -> None:
    import gzip

    packed = tmp_path / "hills.txt.gz"
    packed.write_bytes(gzip.compress(TEXT.encode(), mtime=0))
    settings: dict[str, Any] = {**SIZES, "n_layer": 1, "n_head": 2, "n_embd": 16}
    with pytest.raises(Interrupted):
        etude.train(packed, tmp_path / "run", "classic", report=stop_at(4), **settings)
    packed.write_bytes(packed.read_bytes()[:-40])
    with pytest.raises(
        TrainingError, match=r"hills\.txt\.gz: cannot be read .* of step 4 is whole: mend that and go on"
    ):
        etude.train(packed, tmp_path / "run", resume=True)
    packed.write_bytes(gzip.compress(TEXT.encode(), mtime=0))
    assert etude.train(packed, tmp_path / "run", resume=True)["steps"] == 12


def test_a_loss_that_is_not_finite_names_the_last_good_checkpoint(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint is due after every step. The weights break in one, before a loss can show it: they are not saved."""
    from etude.training.learner import Learner

    real = Learner.step

    def step(self: Learner, rows: Any, recipe: TextRecipe, number: int) -> Any:
        found = real(self, rows, recipe, number)
        if number == 6:
            next(iter(self.model.parameters())).data.fill_(math.nan)
        return found

    monkeypatch.setattr("etude.training.runs.CHECKPOINT_SECONDS", -1.0)
    monkeypatch.setattr(Learner, "step", step)
    settings: dict[str, Any] = {**SIZES, "n_layer": 1, "n_head": 2, "n_embd": 16}
    run = tmp_path / "run"
    with pytest.raises(TrainingError) as caught:
        etude.train(text_file, run, "classic", **settings)
    assert str(caught.value) == (
        f"after step 7 model.wte.weight is not finite; {run / 'checkpoint.safetensors'} of step 6 is whole; "
        "begin again in another folder with a smaller learning_rate"
    )
    arrays, state = load_checkpoint(run)
    assert state["step"] == 6
    assert all(np.isfinite(array).all() for array in arrays.values())


def test_a_result_shows_its_loss_in_a_notebook(text_file: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {**SIZES, "n_layer": 1, "n_head": 2, "n_embd": 16}
    result = etude.train(text_file, tmp_path / "run", "classic", **settings)
    assert result._repr_html_() == (tmp_path / "run" / "loss.svg").read_text()
    assert json.loads(json.dumps(result))["steps"] == 12
    with pytest.raises(RecipeError, match=r"dropout is 0 in the lesson heads, not 0\.1"):
        with_settings(recipe("heads"), ["dropout=0.1"])
    with pytest.raises(RecipeError, match="no setting 'rung'"):
        with_settings(recipe("heads"), ["rung=norm"])


@pytest.mark.skipif(compiler() is None, reason="compiles the step, and there is no C++ compiler")
@pytest.mark.slow
def test_a_compiled_run_resumes_to_the_same_bytes(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """About 15 seconds of two cores, most of them the C++ compiler's."""
    settings: dict[str, Any] = {**SIZES, "n_layer": 1, "n_head": 2, "n_embd": 16, "ngram_rows": 64, "compile": "yes"}
    settings["precision"] = "float32"  # of which less has to be compiled

    def left_at_7(progress: Progress) -> None:  # what a kill would leave: the checkpoint is of step 6
        if progress.step == 7:
            shutil.copytree(tmp_path / "whole", tmp_path / "killed")

    monkeypatch.setattr("etude.training.runs.CHECKPOINT_SECONDS", -1.0)
    etude.train(text_file, tmp_path / "whole", "modern", report=left_at_7, **settings)
    etude.train(text_file, tmp_path / "killed", resume=True)
    same_files(tmp_path / "killed", tmp_path / "whole")
    etude.train(text_file, tmp_path / "plain", "modern", **settings | {"compile": "no"})
    losses = [[line["loss"] for line in metrics(tmp_path / run) if "loss" in line] for run in ("whole", "plain")]
    assert losses[0] == pytest.approx(losses[1], abs=0.1)  # compiled, dropout drops other numbers
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("whole", "plain")]
    assert weights[0] != weights[1]  # it was compiled


def test_a_run_is_compiled_where_it_is_long_enough_and_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    modern = cast("TextRecipe", recipe("modern"))

    def decided(minutes: float, value: str = "auto") -> str:
        return begin([TEXT], replace(modern, n_embd=16, minutes=minutes, compile=value)).recipe.compile

    assert (modern.compile, CLASSIC.compile) == ("auto", "no")
    monkeypatch.setenv("CXX", sys.executable)  # something that is there
    assert [decided(0), decided(4.9), decided(5), decided(20, "no"), decided(0, "yes")] == [
        "no", "no", "yes", "no", "yes"
    ]  # fmt: skip
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert [decided(20), decided(20, "yes")] == ["no", "yes"]
    with pytest.raises(RecipeError, match="compile must be auto, yes or no, not 'maybe'"):
        replace(modern, compile="maybe")


def test_a_run_keeps_the_precision_that_its_device_has(monkeypatch: pytest.MonkeyPatch) -> None:
    from etude.training import text as module

    modern = replace(cast("TextRecipe", recipe("modern")), n_embd=16)
    assert (modern.precision, CLASSIC.precision) == ("auto", "float32")
    for dtype, name in ((torch.bfloat16, "bfloat16"), (torch.float32, "float32")):
        monkeypatch.setattr(module, "product_type", lambda device, dtype=dtype: dtype)
        assert begin([TEXT], modern).recipe.precision == name
        assert begin([TEXT], replace(modern, precision="bfloat16")).recipe.precision == "bfloat16"
    with pytest.raises(RecipeError, match="precision must be auto, float32 or bfloat16, not 'int8'"):
        replace(modern, precision="int8")


def test_a_run_whose_compiler_is_missing_or_fails_is_one_line(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, settings = tmp_path / "run", {**SIZES, "n_layer": 1, "n_head": 2, "n_embd": 16}
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        RecipeError, match=r"run: its step is compiled .*no C\+\+ compiler is found .* or begin with --set compile=no"
    ):
        etude.train(text_file, run, "classic", compile="yes", **settings)
    assert not run.exists()

    def compile_wrongly(objective: Any, dynamic: bool) -> Any:
        def fail(*arguments: Any) -> Any:
            raise InvalidCxxCompiler

        return fail

    monkeypatch.setenv("CXX", sys.executable)
    monkeypatch.setattr(torch, "compile", compile_wrongly)
    with pytest.raises(DeviceError, match=r"the step cannot be compiled .*; take --set compile=no"):
        etude.train(text_file, run, "classic", compile="yes", **settings)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(RecipeError, match=r"run: its step is compiled .*or name one in \$CXX$"):
        etude.train(text_file, run, resume=True)
