"""Directories of GPT-2: ours are those of transformers, theirs are ours, and what is wrong with one is said by name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from etude.engines.array import ArrayEngine
from etude.gpt.config import GPTConfig, parameter_shapes
from etude.gpt.directory import ModelError, Weights, load_model, save_model
from etude.gpt.tensors import TensorFile, is_finite
from etude.tokens.characters import CharTokenizer

TOKENIZER = CharTokenizer("abcdefghijklmnopqrstuvwxyz")
TIED = GPTConfig("gpt2", 27, 16, 2, 2, 8, bos_token_id=26, eos_token_id=26)
UNTIED = dataclasses.replace(TIED, tie_word_embeddings=False)
IDS = [3, 1, 4, 15, 9, 2, 6]


def random_weights(config: GPTConfig) -> Weights:
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in parameter_shapes(config).items()}


def foreign(directory: Path, config: GPTConfig, tensors: dict[str, np.ndarray]) -> Path:
    """A directory as another program writes it: no digests, any names, our configuration and tokenizer."""
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config.to_dict()))
    (directory / "tokenizer.json").write_text(TOKENIZER.to_json())
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    return directory


def same(found: Weights, wanted: Weights) -> bool:
    return found.keys() == wanted.keys() and all((found[name] == wanted[name]).all() for name in wanted)


@pytest.fixture(params=[TIED, UNTIED], ids=["tied", "untied"])
def config(request: pytest.FixtureRequest) -> GPTConfig:
    assert isinstance(request.param, GPTConfig)
    return request.param


@pytest.fixture
def weights(config: GPTConfig) -> Weights:
    return random_weights(config)


@pytest.fixture
def ours(tmp_path: Path, config: GPTConfig, weights: Weights) -> Path:
    save_model(tmp_path / "ours", config, weights, TOKENIZER, "# A model\n")
    return tmp_path / "ours"


@pytest.fixture
def transformers_model(config: GPTConfig, weights: Weights) -> Any:
    torch = pytest.importorskip("torch", reason="the parity tests need PyTorch (the train extra)")
    transformers = pytest.importorskip("transformers", reason="the parity tests need transformers (the bench extra)")
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config.from_dict(config.to_dict())).eval()
    state = {f"{'' if name == 'lm_head.weight' else 'transformer.'}{name}": w for name, w in weights.items()}
    state.setdefault("lm_head.weight", weights["wte.weight"])
    model.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    return model


def test_what_is_saved_is_loaded(ours: Path, config: GPTConfig, weights: Weights) -> None:
    model = load_model(ours)
    assert (model.config, model.tokenizer, model.card) == (config, TOKENIZER, "# A model\n")
    assert same(model.weights, weights)
    document = json.loads((ours / "config.json").read_text())
    assert (document["model_type"], document["n_positions"], document["tie_word_embeddings"]) == (
        "gpt2",
        16,
        config.tie_word_embeddings,
    )
    assert TensorFile.open(ours / "model.safetensors").metadata["format"] == "pt"


def test_weights_are_mapped_aligned_and_not_to_be_written(ours: Path) -> None:
    for array in load_model(ours).weights.values():
        assert not array.flags.owndata and not array.flags.writeable and array.flags.c_contiguous
    assert min(array.ctypes.data for array in load_model(ours).weights.values()) % 64 == 0


def test_transformers_loads_what_we_save(ours: Path, config: GPTConfig, weights: Weights) -> None:
    torch = pytest.importorskip("torch", reason="the parity tests need PyTorch (the train extra)")
    transformers = pytest.importorskip("transformers", reason="the parity tests need transformers (the bench extra)")
    model, report = transformers.AutoModelForCausalLM.from_pretrained(ours, output_loading_info=True)
    assert not any(report[fault] for fault in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        wanted = model(torch.tensor([IDS])).logits[0].numpy()
    assert np.abs(ArrayEngine(config, weights).start_all(IDS) - wanted).max() < 1e-4


@pytest.mark.parametrize("shard", ["10GB", "3KB"], ids=["one file", "shards"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_we_load_what_transformers_saves(
    tmp_path: Path, config: GPTConfig, weights: Weights, transformers_model: Any, shard: str, dtype: str
) -> None:
    import torch

    directory = tmp_path / "theirs"
    transformers_model.to(getattr(torch, dtype)).save_pretrained(directory, max_shard_size=shard)
    assert (directory / "model.safetensors.index.json").exists() == (shard == "3KB")
    (directory / "tokenizer.json").write_text(TOKENIZER.to_json())
    model = load_model(directory)
    assert model.config == config
    rounded = {name: torch.from_numpy(w).to(getattr(torch, dtype)).float().numpy() for name, w in weights.items()}
    assert same(model.weights, rounded)
    assert all(array.dtype == np.float32 for array in model.weights.values())


def test_the_base_model_of_transformers_has_no_prefix(tmp_path: Path, transformers_model: Any) -> None:
    if not transformers_model.config.tie_word_embeddings:
        pytest.skip("a base model has no head of its own")
    transformers_model.transformer.save_pretrained(tmp_path / "base")
    assert "wte.weight" in load_file(tmp_path / "base" / "model.safetensors")
    (tmp_path / "base" / "tokenizer.json").write_text(TOKENIZER.to_json())
    assert same(load_model(tmp_path / "base").weights, random_weights(TIED))


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_names_with_and_without_the_prefix_and_the_masks_of_older_files(
    tmp_path: Path, config: GPTConfig, weights: Weights, prefix: str
) -> None:
    tensors = {(name if name == "lm_head.weight" else prefix + name): array for name, array in weights.items()}
    for layer in range(config.n_layer):
        tensors[f"{prefix}h.{layer}.attn.bias"] = np.tril(np.ones((1, 1, 16, 16), np.uint8))
        tensors[f"{prefix}h.{layer}.attn.masked_bias"] = np.array(-1e4, np.float32)
    assert same(load_model(foreign(tmp_path / "theirs", config, tensors)).weights, weights)


def test_shards_without_transformers(tmp_path: Path, config: GPTConfig, weights: Weights) -> None:
    directory = foreign(tmp_path / "theirs", config, {})
    (directory / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, directory / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    assert same(load_model(directory).weights, weights)

    (directory / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model-00002-of-00002\.safetensors: missing"):
        load_model(directory)
    save_file({names[0]: weights[names[0]]}, directory / "model-00002-of-00002.safetensors")
    with pytest.raises(ModelError, match=rf"index\.json: holds more than once: {names[0]}"):
        load_model(directory)
    for places in ('{"a": "../ours/model.safetensors"}', '{"a": 3}', '{"a": []}', "[]", "{}", '{"a": ".."}'):
        (directory / "model.safetensors.index.json").write_text(f'{{"weight_map": {places}}}')
        with pytest.raises(ModelError, match=r"index\.json: its weight_map"):
            load_model(directory)


def test_bfloat16_is_the_upper_half_of_float32(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5, 3.0e38, 1e-40, 0.0, -0.0], np.float32)
    halves = (values.view(np.uint32) >> 16).astype(np.uint16)
    header = json.dumps({"x": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}}).encode()
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + halves.tobytes())
    found = TensorFile.open(tmp_path / "x").array("x")
    assert found.dtype == np.float32 and found.shape == (2, 3)
    assert (found.view(np.uint32).ravel() == values.view(np.uint32) & 0xFFFF0000).all()


def test_tensors_that_lie_askew_are_read(tmp_path: Path) -> None:
    values = np.arange(5, dtype=np.float32)
    header = json.dumps({"x": {"dtype": "F32", "shape": [5], "data_offsets": [0, 20]}}).encode()
    header += b" " * ((1 - 8 - len(header)) % 4)
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header + values.tobytes())
    found = TensorFile.open(tmp_path / "x").array("x")
    assert found.flags.aligned and (found == values).all()


def test_a_tied_head_may_be_written_out_but_only_as_what_it_is(tmp_path: Path) -> None:
    weights = random_weights(TIED)
    written_out = weights | {"lm_head.weight": weights["wte.weight"].copy()}
    assert same(load_model(foreign(tmp_path / "same", TIED, written_out)).weights, weights)
    written_out["lm_head.weight"][0, 0] += 1
    with pytest.raises(ModelError, match=r"lm_head\.weight is not wte\.weight"):
        load_model(foreign(tmp_path / "other", TIED, written_out))


def test_tensors_that_do_not_fit_are_listed_by_name(tmp_path: Path) -> None:
    weights = random_weights(UNTIED)
    del weights["lm_head.weight"], weights["h.1.ln_2.bias"]
    weights["score.weight"] = np.zeros((2, 8), np.float32)
    weights["h.0.mlp.c_fc.weight"] = weights["h.0.mlp.c_fc.weight"].T.copy()
    with pytest.raises(ModelError) as caught:
        load_model(foreign(tmp_path / "theirs", UNTIED, weights))
    assert str(caught.value).endswith(
        "model.safetensors: does not fit config.json: h.0.mlp.c_fc.weight is (32, 8), not (8, 32); "
        "missing h.1.ln_2.bias; missing lm_head.weight; unknown score.weight"
    )


def test_both_names_of_one_parameter_are_refused(tmp_path: Path) -> None:
    weights = random_weights(TIED)
    weights["transformer.ln_f.bias"] = weights["ln_f.bias"]
    with pytest.raises(ModelError, match=r"holds more than once: ln_f\.bias"):
        load_model(foreign(tmp_path / "theirs", TIED, weights))


def test_a_pickle_is_refused_with_what_to_do(ours: Path) -> None:
    (ours / "model.safetensors").unlink()
    (ours / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin: is a pickle.* convert it: python -c .*save_pretrained"):
        load_model(ours)


def test_numbers_that_are_none_or_of_another_kind(tmp_path: Path) -> None:
    weights = random_weights(TIED)
    whole = weights | {"ln_f.bias": np.zeros(8, np.int64)}
    with pytest.raises(ModelError, match=r"ln_f\.bias is I64; floats of 16 to 64 bits and integers of 8 are read"):
        load_model(foreign(tmp_path / "whole", TIED, whole))
    weights["ln_f.bias"][3] = np.nan
    with pytest.raises(ModelError, match="not finite"):
        load_model(foreign(tmp_path / "nan", TIED, weights))


def test_is_finite_looks_everywhere() -> None:
    x = np.zeros((3, 1 << 20), np.float32)
    assert is_finite(x)
    x[2, -1] = np.inf
    assert not is_finite(x)


def test_damage_is_one_error_or_does_none(ours: Path, weights: Weights) -> None:
    """A flipped bit may rename our digests; then the file is one that others wrote, and its weights must be right."""
    path = ours / "model.safetensors"
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for position in [*range(0, 1000, 11), *rng.integers(1000, len(content), 60)]:
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(bytes(changed))
        try:
            assert same(load_model(ours).weights, weights)
        except ModelError as error:
            assert "model.safetensors" in str(error)
            refused += 1
    assert refused > 130
    for cut in (0, 7, 8, 300, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:cut])
        with pytest.raises(ModelError, match=r"model\.safetensors"):
            load_model(ours)
    for size in (1 << 62, 200_000_000, len(content)):
        path.write_bytes(size.to_bytes(8, "little") + content[8:])
        with pytest.raises(ModelError, match="damaged"):
            load_model(ours)


def test_a_vocabulary_may_be_padded_but_not_cut(tmp_path: Path) -> None:
    padded = dataclasses.replace(TIED, vocab_size=32)
    assert load_model(foreign(tmp_path / "padded", padded, random_weights(padded))).config.vocab_size == 32
    cut = GPTConfig("gpt2", 20, 16, 2, 2, 8)
    with pytest.raises(ModelError, match=r"has 27 ids, but config\.json says 20"):
        load_model(foreign(tmp_path / "cut", cut, random_weights(cut)))
