"""`etude export`: transformers gives the same ids and logits, and a failure is one line that leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from etude.engines.array import ArrayEngine
from etude.gpt.config import GPTConfig, parameter_shapes
from etude.gpt.directory import load_model, save_model
from etude.gpt.exporting import ExportingError, export_model
from etude.gpt.tensors import TensorFile
from etude.tokens.bpe import BPETokenizer
from etude.tokens.bytes import ByteTokenizer
from etude.tokens.characters import CharTokenizer

from .conftest import TEXT, MakeGPT2

FORMATS = ("hf", "gguf", "onnx")


def entries(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def content(path: Path) -> dict[str, bytes]:
    return {str(each.relative_to(path)): each.read_bytes() for each in (path, *path.rglob("*")) if each.is_file()}


def characters_model(directory: Path, tokenizer: CharTokenizer | ByteTokenizer) -> Path:
    config = GPTConfig("gpt2", tokenizer.vocab_size, 32, 1, 2, 32)
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in parameter_shapes(config).items()}
    save_model(directory, config, weights, tokenizer, "")
    return directory


@pytest.mark.parametrize(
    ("tied", "dtype", "error"), [(True, None, 1e-4), (False, "float32", 1e-4), (True, "float16", 2e-2)]
)
def test_transformers_gives_the_same_logits_and_ids(
    tmp_path: Path, make_gpt2: MakeGPT2, tied: bool, dtype: str | None, error: float
) -> None:
    torch = pytest.importorskip("torch", reason="the parity tests need PyTorch (the train extra)")
    transformers = pytest.importorskip("transformers", reason="the parity tests need transformers (the dev extra)")
    source = make_gpt2(tie_word_embeddings=tied, card="# A card\n")
    export_model(source, tmp_path / "x", "hf", dtype)
    ours = load_model(source)
    assert isinstance(ours.tokenizer, BPETokenizer)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "x")
    for text in (TEXT, "  naïve 🎵 \n\n\t", "日本", " a , b .", "\u00a0\r\n'S'll"):
        ids = ours.tokenizer.encode(text)
        assert (tokenizer(text).input_ids, tokenizer.decode(ids)) == (ids, text)
    assert (tokenizer.bos_token, tokenizer.eos_token_id, len(tokenizer)) == ("<|endoftext|>", 0, 320)
    assert tokenizer.model_max_length == 256
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "x", dtype=torch.float32)
    assert model.generation_config.eos_token_id == 0
    ids = ours.tokenizer.encode(TEXT)
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].numpy()
    wanted = ArrayEngine(ours.config, ours.weights).start_all(ids)
    assert np.abs(logits - wanted).max() < error * max(1, wanted.std())
    stored = TensorFile.open(tmp_path / "x" / "model.safetensors")
    assert {stored.raw(name).dtype.name for name in stored.shapes} == {dtype or "float32"}
    again = load_model(tmp_path / "x")  # it is a model directory too
    assert (again.config, again.tokenizer, again.card) == (ours.config, ours.tokenizer, "# A card\n")


@pytest.mark.parametrize(
    ("ours", "text"),
    [
        (CharTokenizer("\n '.?Tabehilnort"), "To be\n  or  not 'll the hill?"),
        (CharTokenizer("\n '.?Tabehilnort", byte_fallback=True), "To be\n  or  Zürich 日本 'll?"),
        (ByteTokenizer(), "To be\n  or  Zürich 日本 'll?"),
    ],
)
def test_transformers_has_tokens_of_characters_and_bytes(
    tmp_path: Path, ours: CharTokenizer | ByteTokenizer, text: str
) -> None:
    transformers = pytest.importorskip("transformers", reason="the parity tests need transformers (the dev extra)")
    source = characters_model(tmp_path / "m", ours)
    export_model(source, tmp_path / "x", "hf")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "x")
    ids = tokenizer(text).input_ids
    assert ids == [ours.bos_id, *ours.encode(text)]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert json.loads((tmp_path / "x" / "config.json").read_text())["eos_token_id"] == ours.bos_id


@pytest.mark.parametrize("to", FORMATS)
def test_equal_models_give_equal_bytes(tmp_path: Path, make_gpt2: MakeGPT2, to: str) -> None:
    if to == "onnx":
        pytest.importorskip("onnx", reason="the format onnx needs the onnx package (the export extra)")
    for name in ("a", "b"):
        export_model(make_gpt2(name), tmp_path / f"{name}.{to}", to)
    assert content(tmp_path / f"a.{to}") == content(tmp_path / f"b.{to}")


def test_what_cannot_be_exported(tmp_path: Path, make_gpt2: MakeGPT2, model_directory: Path) -> None:
    micro = GPTConfig("micro", 3, 4, 1, 1, 2)
    weights = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(micro).items()}
    save_model(tmp_path / "micro", micro, weights, CharTokenizer("ab"), "")
    gpt2 = make_gpt2()
    wide = load_model(gpt2)
    save_model(
        tmp_path / "wide", wide.config, wide.weights | {"wpe.weight": np.full((256, 64), -7e4)}, wide.tokenizer, ""
    )
    accented = characters_model(tmp_path / "accented", CharTokenizer("aé"))
    before = entries(tmp_path)
    for source, to, options, message in (
        (
            model_directory,
            "hf",
            {},
            "no hf for a modern model; what can be exported: hf: gpt2; gguf: gpt2; onnx: gpt2 and",
        ),
        (model_directory, "onnx", {}, "no onnx for a modern model"),
        (tmp_path / "micro", "gguf", {}, "no gguf for a micro model"),
        (accented, "hf", {}, "'é' is a token of its own, which only ASCII can be"),
        (tmp_path / "wide", "hf", {"dtype": "float16"}, r"wpe\.weight holds a number beyond 65,504"),
        (tmp_path / "nothing", "hf", {}, "nothing: no such model directory"),
        (gpt2, "hf", {"quantize": "int8"}, "--quantize is for gguf and etude, not for hf"),
        (gpt2, "onnx", {"dtype": "float16"}, "onnx is written in float32 alone"),
        (gpt2, "gguf", {"dtype": "float16", "quantize": "int8"}, "exclude each other"),
        (gpt2, "gguf", {"dtype": "float64"}, "--dtype 'float64' is none of float32, float16"),
        (gpt2, "tflite", {}, "--to 'tflite' is none of hf, gguf, onnx"),
    ):
        with pytest.raises(ValueError, match=message) as raised:
            export_model(source, tmp_path / "x", to, **options)
        assert "\n" not in str(raised.value)
    assert entries(tmp_path) == before


@pytest.mark.parametrize("to", FORMATS)
def test_what_exists_is_not_touched(tmp_path: Path, make_gpt2: MakeGPT2, to: str) -> None:
    source = make_gpt2()
    (tmp_path / "x").write_text("mine")
    with pytest.raises(ExportingError, match="x: exists already"):
        export_model(source, tmp_path / "x", to)
    assert (tmp_path / "x").read_text() == "mine"


def test_the_missing_extra_is_named(tmp_path: Path, make_gpt2: MakeGPT2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ExportingError, match=r"pip install 'etude\[export\]'"):
        export_model(make_gpt2(), tmp_path / "x", "onnx")
    assert entries(tmp_path) == ["m"]


def etude(*arguments: str | Path, cwd: Path, largest: int | None = None) -> subprocess.CompletedProcess[str]:
    """The command, in a process whose files end after `largest` bytes as a full disk does."""
    command = [sys.executable, "-m", "etude", *map(str, arguments)]
    if largest is not None:
        limit = f"import resource, runpy; resource.setrlimit(resource.RLIMIT_FSIZE, ({largest}, {largest})); "
        run = f"import sys; sys.argv = {command[2:]!r}; runpy.run_module('etude', run_name='__main__')"
        command = [sys.executable, "-c", limit + run]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, timeout=300)


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.skipif(os.name != "posix", reason="a file's size is limited with POSIX's own means")
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, make_gpt2: MakeGPT2, to: str) -> None:
    if to == "onnx":
        pytest.importorskip("onnx", reason="the format onnx needs the onnx package (the export extra)")
    make_gpt2()
    result = etude("export", "m", "x", "--to", to, cwd=tmp_path, largest=200_000)
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert result.stderr.startswith("etude: x: cannot be written (File too large)")
    assert entries(tmp_path) == ["m"]


def test_a_place_that_cannot_be(tmp_path: Path, make_gpt2: MakeGPT2) -> None:
    source = make_gpt2()
    (tmp_path / "file").write_text("")
    for to in ("hf", "gguf"):
        with pytest.raises(ExportingError, match=r"file.x: cannot be written \((Not a directory|File exists)\)"):
            export_model(source, tmp_path / "file" / "x", to)


def test_the_command(tmp_path: Path, make_gpt2: MakeGPT2) -> None:
    make_gpt2()
    result = etude("export", "m", "x.gguf", "--to", "gguf", "--quantize", "int8", cwd=tmp_path)
    size = (tmp_path / "x.gguf").stat().st_size
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr == f"x.gguf: gguf, int8, {size:,} bytes\n"
    for arguments, status in (
        (("m", "x.gguf", "--to", "gguf"), 1),
        (("chords", "y", "--to", "hf"), 1),
        (("m", "y", "--to", "tflite"), 2),
        (("m", "y"), 2),
    ):
        failed = etude("export", *arguments, cwd=tmp_path)
        assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (status, "", 1), failed.stderr
    assert entries(tmp_path) == ["m", "x.gguf"]
