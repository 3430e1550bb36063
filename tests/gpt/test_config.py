"""Names and shapes of parameters."""

from __future__ import annotations

from etude.gpt.config import GPTConfig, parameter_shapes


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
