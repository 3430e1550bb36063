"""Model directories in int8 and int4."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba")

import etude
from etude.engines.decoder import CompiledDecoder
from etude.engines.engine import EngineError
from etude.engines.quantize import quantize_model
from etude.errors import EtudeError
from etude.gpt.config import GPTConfig, Precision
from etude.gpt.directory import ModelError, load_model, save_model
from etude.gpt.exporting import ExportingError, export_model
from etude.gpt.importing import ImportingError, import_gpt2
from etude.gpt.tensors import TensorFile, write_tensors
from etude.model import TextModel
from etude.sampling import GREEDY
from etude.tokens.characters import CharTokenizer

from .test_decoder import random_weights

TOKENIZER = CharTokenizer("".join(map(chr, range(97, 117))))  # 20 letters and BOS
QUANTIZED: list[Precision] = ["int8", "int4"]


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def original(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    config = GPTConfig("gpt2", 21, 16, 2, 2, 12, 1e-4, tie_word_embeddings=request.param, bos_token_id=20)
    save_model(tmp_path / "original", config, random_weights(config), TOKENIZER, "A card.\n")
    return tmp_path / "original"


@pytest.mark.parametrize("precision", QUANTIZED)
def test_a_quantized_directory_is_the_model_quantized_at_load(original: Path, precision: Precision) -> None:
    made = original.parent / precision
    quantize_model(original, made, precision)
    first, second = load_model(original), load_model(made)
    assert second.config.precision == precision
    assert second.tokenizer == TOKENIZER
    assert second.card == f"A card.\n\nIts weights were rounded to {precision} by `etude export`.\n"
    ids = [20, *range(15)]
    at_load = CompiledDecoder(first.config, first.weights, precision).start_all(ids)
    assert np.array_equal(CompiledDecoder(second.config, second.weights).start_all(ids), at_load)
    plain = CompiledDecoder(first.config, first.weights).start_all(ids)
    assert 0 < np.abs(at_load - plain).max() < 0.5 * np.abs(plain).max()
    # Whole groups of 64 are stored, most of them zeros in a model as small as this.
    assert "architecture" in json.loads((made / "config.json").read_text())


def test_equal_models_give_equal_bytes(original: Path) -> None:
    for name in ("a", "b"):
        quantize_model(original, original.parent / name, "int4")
    for path in (original.parent / "a").iterdir():
        assert path.read_bytes() == (original.parent / "b" / path.name).read_bytes()


def test_a_quantized_model_runs_compiled_and_nowhere_else(original: Path) -> None:
    made = original.parent / "made"
    quantize_model(original, made, "int8")
    model = etude.load(made)
    assert isinstance(model, TextModel)
    assert (model.engine_name, model.precision) == ("compiled", "int8")
    at_load = etude.load(original, precision="int8")
    assert isinstance(at_load, TextModel)
    assert model.generate("abc", sampling=GREEDY) == at_load.generate("abc", sampling=GREEDY)
    for engine in ("array", "tensor", "scalar"):
        with pytest.raises(EngineError):
            etude.load(made, engine)
    with pytest.raises(EngineError, match="compiled alone"):
        model.trace("abc")
    with pytest.raises(EngineError, match="stored in int8 and does not run in int4"):
        etude.load(made, precision="int4")
    with pytest.raises(EngineError, match="unknown precision 'int3'; known: float32, int8, int4"):
        etude.load(original, precision="int3")  # type: ignore[call-overload]


def test_what_was_rounded_is_not_rounded_or_exported_again(original: Path) -> None:
    made, other = original.parent / "made", original.parent / "other"
    quantize_model(original, made, "int8")
    with pytest.raises(EtudeError, match="exists already"):
        quantize_model(original, made, "int8")
    with pytest.raises(EtudeError, match="stored in int8"):
        quantize_model(made, other, "int8")
    with pytest.raises(EngineError, match="stored in int8"):
        quantize_model(made, other, "int4")
    with pytest.raises(ExportingError, match="stored in int8"):
        export_model(made, other, "gguf")
    with pytest.raises(ImportingError, match="in int8"):
        import_gpt2(str(made), other)
    assert not other.exists()


def test_numbers_of_another_kind_are_refused(original: Path) -> None:
    made = original.parent / "made"
    quantize_model(original, made, "int8")
    path = made / "model.safetensors"
    file = TensorFile.open(path)
    arrays = {name: np.array(file.array(name)) for name in file.shapes}
    for name, wrong in (
        ("c_fc.numbers", np.uint8),
        ("c_fc.scales", np.int8),
        ("wte.numbers", np.float32),
        ("wpe", np.float64),
    ):
        with path.open("wb") as out:
            write_tensors(out, arrays | {name: arrays[name].astype(wrong)}, {}, None)
        with pytest.raises(ModelError, match=rf"{name} is {np.dtype(wrong)}"):
            load_model(made)
