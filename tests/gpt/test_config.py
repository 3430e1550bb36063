"""Names and shapes of parameters."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest

from etude.gpt.config import RUNGS, ConfigError, GPTConfig, parameter_shapes


def test_the_parameters_of_micro_in_the_order_of_their_draws() -> None:
    shapes = parameter_shapes(GPTConfig("micro", vocab_size=27, block_size=8, n_layer=2, n_head=4, n_embd=12))
    assert list(shapes.items()) == [
        ("wte", (27, 12)),
        ("wpe", (8, 12)),
        ("lm_head", (27, 12)),
        ("h.0.attn.c_attn", (36, 12)),
        ("h.0.attn.c_proj", (12, 12)),
        ("h.0.mlp.c_fc", (48, 12)),
        ("h.0.mlp.c_proj", (12, 48)),
        ("h.1.attn.c_attn", (36, 12)),
        ("h.1.attn.c_proj", (12, 12)),
        ("h.1.mlp.c_fc", (48, 12)),
        ("h.1.mlp.c_proj", (12, 48)),
    ]


def test_heads_of_odd_size_are_for_learned_positions() -> None:
    assert GPTConfig("micro", 2, 2, 1, 1, 3).head_size == 3


@pytest.mark.parametrize(
    ("n_layer", "n_head", "n_embd", "count"),
    [
        (12, 12, 768, 124_439_808),
        (24, 16, 1024, 354_823_168),
        (36, 20, 1280, 774_030_080),
        (48, 25, 1600, 1_557_611_200),
    ],
)
def test_the_four_sizes_of_gpt2_have_as_many_parameters_as_openais(
    n_layer: int, n_head: int, n_embd: int, count: int
) -> None:
    config = GPTConfig("gpt2", 50257, 1024, n_layer, n_head, n_embd)
    assert sum(math.prod(shape) for shape in parameter_shapes(config).values()) == count


def test_the_parameters_of_gpt2_have_hugging_faces_names_and_orientation() -> None:
    tied = GPTConfig("gpt2", vocab_size=27, block_size=8, n_layer=1, n_head=4, n_embd=12)
    shapes = {
        "wte.weight": (27, 12),
        "wpe.weight": (8, 12),
        "h.0.ln_1.weight": (12,),
        "h.0.ln_1.bias": (12,),
        "h.0.attn.c_attn.weight": (12, 36),
        "h.0.attn.c_attn.bias": (36,),
        "h.0.attn.c_proj.weight": (12, 12),
        "h.0.attn.c_proj.bias": (12,),
        "h.0.ln_2.weight": (12,),
        "h.0.ln_2.bias": (12,),
        "h.0.mlp.c_fc.weight": (12, 48),
        "h.0.mlp.c_fc.bias": (48,),
        "h.0.mlp.c_proj.weight": (48, 12),
        "h.0.mlp.c_proj.bias": (12,),
        "ln_f.weight": (12,),
        "ln_f.bias": (12,),
    }
    assert parameter_shapes(tied) == shapes
    untied = dataclasses.replace(tied, tie_word_embeddings=False)
    assert parameter_shapes(untied) == shapes | {"lm_head.weight": (27, 12)}


# The document that transformers 4.36 wrote for GPT-2's smallest size, without what only its training reads.
GPT2 = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "eos_token_id": 50256,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_embd": 768,
    "n_head": 12,
    "n_inner": None,
    "n_layer": 12,
    "n_positions": 1024,
    "reorder_and_upcast_attn": False,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "torch_dtype": "float32",
    "use_cache": True,
    "vocab_size": 50257,
}


def test_hugging_faces_document_is_read() -> None:
    wanted = GPTConfig("gpt2", 50257, 1024, 12, 12, 768, 1e-5, True, 50256, 50256)
    assert GPTConfig.from_dict(GPT2) == wanted
    assert GPTConfig.from_dict(GPT2 | {"n_inner": 3072, "n_ctx": 512, "activation_function": "gelu_pytorch_tanh"}) == (
        wanted
    )
    named_ctx = {name: value for name, value in GPT2.items() if name != "n_positions"} | {"n_ctx": 512}
    assert GPTConfig.from_dict(named_ctx).block_size == 512
    assert not GPTConfig.from_dict(GPT2 | {"tie_word_embeddings": False}).tie_word_embeddings


def test_a_token_beyond_the_vocabulary_is_none() -> None:
    config = GPTConfig.from_dict(GPT2 | {"vocab_size": 100, "eos_token_id": [1, 2], "bos_token_id": 99})
    assert (config.bos_token_id, config.eos_token_id) == (99, None)


@pytest.mark.parametrize("tied", [True, False])
def test_a_gpt2_document_comes_back(tied: bool) -> None:
    config = GPTConfig("gpt2", 100, 32, 2, 2, 8, 1e-6, tied, 99, 98)
    assert GPTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_transformers_reads_our_document() -> None:
    transformers = pytest.importorskip("transformers", reason="the parity tests need transformers (the bench extra)")
    theirs = transformers.GPT2Config.from_dict(GPTConfig("gpt2", 100, 32, 2, 2, 8, 1e-6, False, 99, 98).to_dict())
    assert (theirs.vocab_size, theirs.n_positions, theirs.n_layer, theirs.n_head, theirs.n_embd) == (100, 32, 2, 2, 8)
    assert (theirs.layer_norm_epsilon, theirs.tie_word_embeddings) == (1e-6, False)
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.activation_function) == (99, 98, "gelu_new")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "'llama' is not one that runs here; gpt2 is"),
        ({"activation_function": "gelu"}, "activation_function 'gelu' is not computed here; 'gelu_new' or"),
        ({"n_inner": 1000}, r"n_inner 1000 is not computed here; four times n_embd \(3072\) is"),
        ({"scale_attn_weights": False}, "scale_attn_weights False"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx True"),
        ({"reorder_and_upcast_attn": True}, "reorder_and_upcast_attn True"),
        ({"add_cross_attention": True}, "add_cross_attention True"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"layer_norm_epsilon": 0}, "layer_norm_epsilon must be"),
        ({"layer_norm_epsilon": "small"}, "layer_norm_epsilon must be"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be"),
        ({"n_embd": {}}, "n_embd must be"),
        ({"n_head": 7}, "not a multiple"),
        ({"vocab_size": "many"}, "vocab_size must be"),
    ],
)
def test_settings_that_are_not_computed_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GPTConfig.from_dict(GPT2 | changes)


def test_a_gpt2_document_without_a_size_names_it() -> None:
    with pytest.raises(ConfigError, match="missing: n_layer"):
        GPTConfig.from_dict({name: value for name, value in GPT2.items() if name != "n_layer"})


def test_each_rung_of_the_lesson_adds_parameters_to_the_one_before() -> None:
    def shapes(rung: str, n_layer: int = 1) -> dict[str, tuple[int, ...]]:
        return parameter_shapes(GPTConfig("lesson", 27, 8, n_layer, 1, 27 if rung == "bigram" else 12, rung=rung))

    assert shapes("bigram") == {"wte": (27, 27)}
    added: dict[str, dict[str, tuple[int, ...]]] = {
        "average": {"wte": (27, 12), "wpe": (8, 12), "lm_head": (27, 12)},
        "head": {"h.0.attn.c_attn": (36, 12)},
        "heads": {"h.0.attn.c_proj": (12, 12)},
        "mlp": {"h.0.mlp.c_fc": (48, 12), "h.0.mlp.c_proj": (12, 48)},
        "residual": {},
        "norm": {f"{n}.{part}": (12,) for n in ("h.0.ln_1", "h.0.ln_2", "ln_f") for part in ("weight", "bias")},
    }
    wanted: dict[str, tuple[int, ...]] = {}
    for rung in RUNGS[1:]:
        wanted |= added[rung]
        assert shapes(rung) == wanted
    assert len(shapes("norm", 3)) == 3 + 3 * 8 + 2


@pytest.mark.parametrize("rung", RUNGS)
def test_a_document_of_the_lesson_comes_back(rung: str) -> None:
    config = GPTConfig("lesson", 27, 8, 1, 1, 27 if rung == "bigram" else 12, rung=rung)
    document = json.loads(json.dumps(config.to_dict()))
    assert document["rung"] == rung
    assert GPTConfig.from_dict(document) == config
    del document["rung"]
    with pytest.raises(ConfigError, match="missing: rung"):
        GPTConfig.from_dict(document)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rung": "ladder"}, "unknown rung 'ladder'; known: bigram, average, head"),
        ({"rung": None}, "unknown rung None"),
        ({"rung": []}, "unknown rung"),
        ({"rung": "head", "n_head": 2}, "n_head is 1 before the rung heads, so on head it is not 2"),
        ({"rung": "mlp", "n_layer": 2}, "n_layer is 1 before the rung residual, so on mlp it is not 2"),
        ({"rung": "bigram"}, "the rows of bigram are logits: n_embd is vocab_size, 27, not 12"),
        ({"architecture": "micro", "rung": "norm"}, "only lesson has a rung, not micro"),
    ],
)
def test_rungs_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    sizes: dict[str, Any] = {"vocab_size": 27, "block_size": 8, "n_layer": 1, "n_head": 1, "n_embd": 12}
    with pytest.raises(ConfigError, match=message):
        GPTConfig(**{"architecture": "lesson", **sizes, **changes})
