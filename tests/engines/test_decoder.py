"""The compiled GPT-2, held to the `array` engine on the same weights."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from etude.engines.array import ArrayEngine
from etude.engines.decoder import CompiledDecoder, Layers, layers
from etude.engines.engine import BATCH_BYTES, MAX_ROWS
from etude.engines.kernels import Array
from etude.engines.matrices import Matrix
from etude.engines.team import Team
from etude.gpt.config import PRECISIONS, GPTConfig, Precision, parameter_shapes

from .test_matrices import dense

CONFIG = GPTConfig("gpt2", 300, 24, 2, 3, 48)
ODD = GPTConfig("gpt2", 21, 9, 1, 1, 2, tie_word_embeddings=False)


@pytest.fixture(autouse=True, params=[1, 3], ids=["one thread", "three threads"])
def crew(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even small models are computed by all threads here."""
    monkeypatch.setattr("etude.engines.decoder._ALONE", 0)
    monkeypatch.setattr("etude.engines.decoder.team", lambda: _CREWS[request.param])


_CREWS = {threads: Team(threads) for threads in (1, 3)}


def random_weights(config: GPTConfig, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    shapes = parameter_shapes(config)
    return {
        name: (rng.normal(0, 0.2, shape) + (name.endswith("weight") and "ln_" in name)).astype(np.float32)
        for name, shape in shapes.items()
    }


def kept(config: GPTConfig, weights: dict[str, Array], precision: Precision) -> dict[str, Array]:
    """The weights as a precision has them, for an engine that computes in float32."""
    made: Layers = layers(config, weights, precision)
    found = dict(weights)
    found["wte.weight"] = dense(made.wte, *weights["wte.weight"].shape)
    if not config.tie_word_embeddings:
        found["lm_head.weight"] = dense(made.head, *weights["lm_head.weight"].shape)
    for name, matrix in (
        ("attn.c_attn", made.c_attn),
        ("attn.c_proj", made.attn_proj),
        ("mlp.c_fc", made.c_fc),
        ("mlp.c_proj", made.mlp_proj),
    ):
        for layer in range(config.n_layer):
            one = Matrix(matrix.numbers[layer : layer + 1], matrix.scales[layer : layer + 1], matrix.bias[:1])
            k, n = weights[f"h.{layer}.{name}.weight"].shape
            found[f"h.{layer}.{name}.weight"] = dense(one, n, k).T.copy()
    return found


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("config", [CONFIG, ODD], ids=["three heads", "two wide"])
def test_logits_are_those_of_the_array_engine(config: GPTConfig, precision: Precision) -> None:
    weights = random_weights(config)
    engine = CompiledDecoder(config, weights, precision)
    array = ArrayEngine(config, kept(config, weights, precision))
    tolerance = 1e-4 if precision == "float32" else 3e-2
    ids = np.random.default_rng(1).integers(0, config.vocab_size, config.block_size).tolist()
    assert engine.start_all(ids) == pytest.approx(array.start_all(ids), abs=tolerance)
    assert engine.start(ids[:4]) == pytest.approx(array.start(ids[:4]), abs=tolerance)
    for token in ids:  # past the block
        assert engine.step(token) == pytest.approx(array.step(token), abs=tolerance)


def test_greedy_tokens_are_those_of_the_array_engine_past_the_block() -> None:
    weights = random_weights(CONFIG)
    engine, array = CompiledDecoder(CONFIG, weights), ArrayEngine(CONFIG, weights)
    mine, theirs = engine.start([5]), array.start([5])
    for _ in range(200):
        assert mine.argmax() == theirs.argmax()
        mine, theirs = engine.step(int(mine.argmax())), array.step(int(theirs.argmax()))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_texts_in_a_batch_get_what_they_get_alone(precision: Precision) -> None:
    engine = CompiledDecoder(CONFIG, random_weights(CONFIG), precision)
    rng = np.random.default_rng(2)
    prompts = [rng.integers(0, 300, length).tolist() for length in (1, 24, 7, 40, 2, 23, 3)]
    steps = rng.integers(0, 300, (30, len(prompts))).tolist()
    alone = []
    for number, prompt in enumerate(prompts):
        alone.append([engine.start(prompt), *(engine.step(tokens[number]) for tokens in steps)])
    together = [engine.start_batch(prompts), *map(engine.step_batch, steps)]
    for number in range(len(prompts)):
        for at in range(len(steps) + 1):
            assert np.array_equal(together[at][number], alone[number][at])


def test_a_long_prompt_in_pieces_is_the_prompt() -> None:
    config = GPTConfig("gpt2", 60, 400, 2, 2, 32)
    weights = random_weights(config)
    ids = np.random.default_rng(3).integers(0, 60, 390).tolist()
    engine, array = CompiledDecoder(config, weights), ArrayEngine(config, weights)
    assert engine.start_all(ids) == pytest.approx(array.start_all(ids), abs=1e-4)
    assert engine.step(7) == pytest.approx(array.step(7), abs=1e-4)


def test_kept_texts_go_on_as_they_were() -> None:
    engine = CompiledDecoder(CONFIG, random_weights(CONFIG))
    prompts = [[1, 2, 3], [4, 5], [6]]
    engine.start_batch(prompts)
    engine.step_batch([10, 20, 30])
    engine.keep([2, 0, 2, 2])
    found = engine.step_batch([40, 50, 60, 70])
    for row, ids in enumerate(([6, 30, 40], [1, 2, 3, 10, 50], [6, 30, 60], [6, 30, 70])):
        engine_alone = CompiledDecoder(CONFIG, random_weights(CONFIG))
        engine_alone.start(ids[: -2 if len(ids) == 3 else 3])
        for token in ids[-2 if len(ids) == 3 else 3 :]:
            logits = engine_alone.step(token)
        assert np.array_equal(found[row], logits)
    engine.keep([1])
    engine.keep([0, 0])
    first, second = engine.step_batch([9, 9])
    assert np.array_equal(first, second)


@pytest.mark.parametrize("ids", [[], [300], [-1]])
def test_tokens_outside_the_vocabulary_are_refused(ids: list[int]) -> None:
    engine = CompiledDecoder(CONFIG, random_weights(CONFIG))
    with pytest.raises(ValueError, match="0 to 299"):
        engine.start(ids)


def test_the_width_of_a_batch_counts_what_its_texts_will_write() -> None:
    engine = CompiledDecoder(CONFIG, random_weights(CONFIG))
    assert engine.most_rows(1) == engine.most_rows(1 << 30) == MAX_ROWS  # tiny as it is
    wide = GPTConfig("gpt2", 50257, 1024, 12, 12, 768)
    engine.config = wide  # 9 KB of keys and values a layer and 16 tokens
    assert engine.most_rows(112) == BATCH_BYTES // (12 * 768 * 112 * 8 + 8 * 50257)
    assert engine.most_rows(113) == engine.most_rows(128) < engine.most_rows(112)
    assert engine.most_rows(1024) == engine.most_rows(9999) == BATCH_BYTES // (12 * 768 * 1024 * 8 + 8 * 50257)


def test_a_wrong_number_of_tokens_changes_nothing() -> None:
    engine = CompiledDecoder(CONFIG, random_weights(CONFIG))
    with pytest.raises(ValueError, match="no prompt"):
        engine.start_batch([])
    engine.start_batch([[1], [2]])
    for tokens in ([3], [3, 4, 5]):
        with pytest.raises(ValueError, match=f"{len(tokens)} tokens for 2 texts"):
            engine.step_batch(tokens)
    expected = CompiledDecoder(CONFIG, random_weights(CONFIG))
    expected.start([1])
    assert np.array_equal(engine.step_batch([3, 4])[0], expected.step(3))
