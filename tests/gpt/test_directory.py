"""The model directory: what is written comes back, and what is damaged is one clear error."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from etude.gpt.config import ConfigError, GPTConfig, parameter_shapes
from etude.gpt.directory import ModelError, Weights, load_model, save_model
from etude.tokens.characters import CharTokenizer
from etude.tokens.chords import ChordTokenizer


def test_what_is_saved_is_loaded(
    model_directory: Path, config: GPTConfig, weights: Weights, tokenizer: ChordTokenizer
) -> None:
    model = load_model(model_directory)
    assert (model.config, model.tokenizer, model.card) == (config, tokenizer, "# A model\n")
    assert model.weights.keys() == weights.keys()
    assert all((model.weights[name] == weights[name]).all() for name in weights)


def test_float16_halves_the_file_and_rounds(
    tmp_path: Path, model_directory: Path, config: GPTConfig, weights: Weights, tokenizer: ChordTokenizer
) -> None:
    save_model(tmp_path / "half", config, weights, tokenizer, "", "float16")
    size = (tmp_path / "half" / "model.safetensors").stat().st_size
    assert size < 0.6 * (model_directory / "model.safetensors").stat().st_size
    loaded = load_model(tmp_path / "half").weights["wte"]
    assert loaded.dtype == np.float32
    assert (loaded == weights["wte"].astype(np.float16)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_text_model_keeps_its_precision(tmp_path: Path, dtype: str) -> None:
    tokenizer = CharTokenizer("ab")
    config = GPTConfig("micro", 3, 4, 1, 1, 2)
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 1, shape).astype(dtype) for name, shape in parameter_shapes(config).items()}
    save_model(tmp_path / "text", config, weights, tokenizer, "", dtype)
    model = load_model(tmp_path / "text")
    config = replace(config, bos_token_id=2, eos_token_id=2)  # what it does not say, the tokenizer does
    assert (model.config, model.tokenizer) == (config, tokenizer)
    for name, array in model.weights.items():
        assert array.dtype == dtype
        assert (array == weights[name]).all()


def test_equal_models_are_equal_bytes(
    tmp_path: Path, model_directory: Path, config: GPTConfig, weights: Weights, tokenizer: ChordTokenizer
) -> None:
    save_model(tmp_path / "again", config, dict(reversed(weights.items())), tokenizer, "# A model\n")
    for name in ("config.json", "model.safetensors", "tokenizer.json", "README.md"):
        assert (tmp_path / "again" / name).read_bytes() == (model_directory / name).read_bytes()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_truncated_empty_or_missing_files(model_directory: Path, name: str) -> None:
    path = model_directory / name
    content = path.read_bytes()
    for cut in (0, 1, 8, len(content) // 2, len(content) - 1):
        if cut == len(content) - 1 and name != "model.safetensors":
            continue  # a missing last newline says the same
        path.write_bytes(content[:cut])
        with pytest.raises(ModelError, match=name.replace(".", r"\.")):
            load_model(model_directory)
    path.unlink()
    with pytest.raises(ModelError, match="missing"):
        load_model(model_directory)


def test_every_changed_byte_of_the_weights_is_noticed(model_directory: Path) -> None:
    path = model_directory / "model.safetensors"
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for position in [*range(0, 400, 7), *rng.integers(400, len(content), 60)]:
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(bytes(changed))
        with pytest.raises(ModelError):
            load_model(model_directory)


def test_files_of_two_models_do_not_mix(tmp_path: Path, model_directory: Path, weights: Weights) -> None:
    other = ChordTokenizer((("", 0),))
    config = GPTConfig("modern", other.vocab_size, 8, 1, 1, 4)
    save_model(
        tmp_path / "other",
        config,
        {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(config).items()},
        other,
        "",
    )
    (model_directory / "tokenizer.json").write_bytes((tmp_path / "other" / "tokenizer.json").read_bytes())
    with pytest.raises(ModelError, match="ids, but config"):
        load_model(model_directory)
    (model_directory / "config.json").write_bytes((tmp_path / "other" / "config.json").read_bytes())
    with pytest.raises(ModelError, match="does not fit"):
        load_model(model_directory)


def test_a_reordered_tokenizer_of_the_same_size_is_refused(model_directory: Path) -> None:
    path = model_directory / "tokenizer.json"
    document = json.loads(path.read_text())
    document["shapes"] = document["shapes"][::-1]
    path.write_text(json.dumps(document))
    with pytest.raises(ModelError, match="another tokenizer"):
        load_model(model_directory)


def test_a_changed_configuration_of_fitting_sizes_is_refused(model_directory: Path) -> None:
    path = model_directory / "config.json"
    path.write_text(path.read_text().replace('"block_size": 32', '"block_size": 16'))
    with pytest.raises(ModelError, match="another config"):
        load_model(model_directory)


@pytest.mark.parametrize("metadata", ["[]", '"x"', "[" * 5000, "{}"])
def test_a_header_that_is_none_is_refused(model_directory: Path, weights: Weights, metadata: str) -> None:
    from safetensors.numpy import save_file

    save_file(weights, model_directory / "model.safetensors", {"etude": metadata})
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load_model(model_directory)


def test_an_oversized_header_is_refused(model_directory: Path) -> None:
    path = model_directory / "model.safetensors"
    path.write_bytes((1 << 62).to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(ModelError, match="damaged"):
        load_model(model_directory)


def test_numbers_that_are_not_finite_are_refused(
    tmp_path: Path, config: GPTConfig, weights: Weights, tokenizer: ChordTokenizer
) -> None:
    weights["wte"][0, 0] = np.inf
    save_model(tmp_path / "bad", config, weights, tokenizer, "")
    with pytest.raises(ModelError, match="not finite"):
        load_model(tmp_path / "bad")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_head": 3}, "not a multiple"),
        ({"n_layer": 0}, "n_layer must be"),
        ({"n_embd": "16"}, "n_embd must be"),
        ({"n_head": 16}, "even head size"),
        ({"architecture": "huge"}, "unknown architecture"),
        ({"vocab_size": 1 << 40}, "vocab_size must be"),
    ],
)
def test_impossible_configurations_fail_at_once(config: GPTConfig, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GPTConfig.from_dict(config.to_dict() | changes)


def test_an_incomplete_configuration_names_what_is_missing(config: GPTConfig) -> None:
    document = config.to_dict()
    del document["n_layer"]
    with pytest.raises(ConfigError, match="missing: n_layer"):
        GPTConfig.from_dict(document)
