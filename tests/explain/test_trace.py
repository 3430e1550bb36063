"""A trace against the hooks of transformers, against the model's own answers, and what it refuses."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etude.engines.array import ArrayEngine
from etude.errors import EtudeError
from etude.explain import Trace, record
from etude.explain.words import Word
from etude.gpt.config import Architecture, GPTConfig, parameter_shapes
from etude.gpt.directory import Weights
from etude.gpt.importing import import_gpt2
from etude.model import ChordModel, TextModel, load

IDS = [5, 2, 60, 2, 33, 7, 0, 18, 5]
GPT2 = GPTConfig("gpt2", vocab_size=61, block_size=32, n_layer=3, n_head=4, n_embd=16)


def random_weights(config: GPTConfig, dtype: str = "float32") -> Weights:
    rng = np.random.default_rng(0)
    return {name: rng.normal(0, 0.4, shape).astype(dtype) for name, shape in parameter_shapes(config).items()}


def word(token: int) -> Word:
    return Word(f"t{token}")


def gpt2_trace(weights: dict[str, np.ndarray], ids: list[int], config: GPTConfig = GPT2, top: int = 3) -> Trace:
    return record("tiny", config, weights, ids, len(ids), word, config.vocab_size, top, ["*"])


def hooked(config: GPTConfig, weights: dict[str, np.ndarray], ids: list[int]) -> dict[str, np.ndarray]:
    """Every intermediate that transformers shows: what its modules give, its attention and its hidden states."""
    torch = pytest.importorskip("torch", reason="the parity tests need PyTorch (the train extra)")
    transformers = pytest.importorskip("transformers", reason="the parity tests need transformers (the bench extra)")
    settings = transformers.GPT2Config.from_dict(config.to_dict(), attn_implementation="eager")
    model = transformers.GPT2LMHeadModel(settings).eval()
    state = {f"transformer.{name}": torch.from_numpy(w) for name, w in weights.items()}
    model.load_state_dict(state | {"lm_head.weight": state["transformer.wte.weight"]})
    found: dict[str, np.ndarray] = {}

    def hook(name: str) -> Callable[[Any, Any, Any], None]:
        def keep(module: Any, inputs: Any, output: Any) -> None:
            found[name] = (output[0] if isinstance(output, tuple) else output)[0].numpy().copy()
            found[f"{name} input"] = inputs[0][0].numpy().copy()

        return keep

    for name, module in model.named_modules():
        module.register_forward_hook(hook(name.removeprefix("transformer.")))
    with torch.no_grad():
        output = model(torch.tensor([ids]), output_attentions=True, output_hidden_states=True)
    c = config
    for layer in range(c.n_layer):
        name = f"h.{layer}"
        qkv = found[f"{name}.attn.c_attn"].reshape(len(ids), 3, c.n_head, c.head_size).transpose(1, 2, 0, 3)
        found |= {f"{name}.attn.{letter}": part for letter, part in zip("qkv", qkv, strict=True)}
        found[f"{name}.attn.scores"] = qkv[0] @ qkv[1].transpose(0, 2, 1) / c.head_size**0.5
        found[f"{name}.attn.weights"] = output.attentions[layer][0].numpy()
        found[f"{name}.attn.z"] = found[f"{name}.attn.c_proj input"]
        found[f"{name}.resid_mid"] = found[f"{name}.ln_2 input"]
        # The last of the hidden states is after ln_f, so the block's own output stands for it.
        last = layer == c.n_layer - 1
        found[f"{name}.resid_post"] = found["ln_f input"] if last else output.hidden_states[layer + 1][0].numpy()
    return found | {"resid_pre": output.hidden_states[0][0].numpy(), "logits": output.logits[0].numpy()}


def test_every_intermediate_is_what_hooks_on_transformers_give() -> None:
    weights = random_weights(GPT2)
    theirs, trace = hooked(GPT2, weights, IDS), gpt2_trace(weights, IDS)
    assert len(trace.operations) == 3 + 15 * 3 + 2
    for operation in trace.operations:
        ours, wanted = trace[operation.name], theirs[operation.name]
        assert operation.shape == ours.shape == wanted.reshape(ours.shape).shape
        assert np.abs(ours - wanted.reshape(ours.shape)).max() < 1e-4, operation.name
    logits = theirs["logits"].astype(np.float64)
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    for i, choices in enumerate(trace.steps):
        assert [c.id for c in choices] == np.argsort(-logits[i])[:3].tolist()
        assert [c.logit for c in choices] == pytest.approx(logits[i][[c.id for c in choices]].tolist(), abs=1e-4)
        assert [c.percent for c in choices] == pytest.approx((100 * p[i][[c.id for c in choices]]).tolist(), abs=1e-3)
    assert trace.tokens[0].probability is None and trace.tokens[0].rank is None
    for i, token in enumerate(trace.tokens[1:]):
        assert token.probability == pytest.approx(p[i, token.id], abs=1e-6)
        assert token.rank == (p[i] > p[i, token.id]).sum() + 1


def test_the_lens_is_the_head_on_every_layer() -> None:
    weights = random_weights(GPT2, "float64")
    trace = gpt2_trace(weights, IDS)
    lens = trace.lens()
    assert list(lens) == ["resid_pre", "h.0.resid_post", "h.1.resid_post", "h.2.resid_post"]
    for name, rows in lens.items():
        x = trace[name]
        x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-5)
        logits = (x * weights["ln_f.weight"] + weights["ln_f.bias"]) @ weights["wte.weight"].T
        assert [row[0].id for row in rows] == logits.argmax(axis=-1).tolist()
        assert [row[1].logit for row in rows] == pytest.approx(np.sort(logits, axis=-1)[:, -2].tolist())
    for some, all_of_them in zip(
        trace.lens(slice(-2, None))["h.1.resid_post"], lens["h.1.resid_post"][-2:], strict=True
    ):
        assert [choice.id for choice in some] == [choice.id for choice in all_of_them]  # products round by their shape
        assert [choice.logit for choice in some] == pytest.approx([choice.logit for choice in all_of_them])
    assert lens["h.2.resid_post"] == trace.steps


def test_summaries_are_those_of_the_values_and_all_else_is_as_in_one_pass(chord_trace: Trace) -> None:
    for each in chord_trace.operations:
        values = chord_trace[each.name]
        assert (each.mean, each.std) == pytest.approx((values.mean(), values.std()), rel=1e-3, abs=1e-5)
        assert (each.smallest, each.largest) == (values.min(), values.max())
        assert each.first == tuple(values.ravel()[:6].tolist())
    assert chord_trace["h.1.attn.weights"].shape == (2, 7, 7)
    with pytest.raises(KeyError):
        chord_trace["h.2.attn.weights"]


def test_chords_are_told_as_suggest_tells_them(chord_model: ChordModel) -> None:
    prompt = "Db Ab Bbm Gb Db Ab"  # repeats, so that the look-up has something to say
    trace = chord_model.trace(prompt, top=4)
    assert [token.word.text for token in trace.tokens] == ["<song>", *prompt.split()]
    suggested = chord_model.suggest(prompt, 4).candidates
    assert [choice.text for choice in trace.steps[-1]] == [candidate.symbol for candidate in suggested]
    wanted = [100 * candidate.probability for candidate in suggested]
    assert [choice.percent for choice in trace.steps[-1]] == pytest.approx(wanted, rel=1e-4)
    assert (trace["found"][5:] > 0).any() and (trace["lengths"][5] == [1, 0]).all()

    # A layer says more than its stream: what was looked up has its logits raised.
    trace = chord_model.trace(prompt, top=1000)
    (lens,) = trace.lens(slice(-1, None))["h.0.resid_post"]
    gates = trace["logits"] - trace["lm_head"]
    wanted = (chord_model.engine().head(trace["h.0.resid_post"]) + gates)[-1]
    assert np.abs(gates[-1]).max() > 0.05
    assert [choice.logit for choice in lens] == pytest.approx([wanted[choice.id] for choice in lens], rel=1e-4)


def test_steps_go_on_as_greedy_generation_does(names_model: TextModel, chord_model: ChordModel) -> None:
    from etude.sampling import GREEDY

    trace = names_model.trace("ab", steps=5)
    (sample,) = names_model.generate("ab", max_tokens=5, sampling=GREEDY)
    assert trace.n_prompt == 3
    assert tuple(token.id for token in trace.tokens[3:]) == sample.tokens
    assert [token.rank for token in trace.tokens[3:]] == [1] * len(sample.tokens)
    engine = ArrayEngine(names_model.config, names_model._weights)
    logits = engine.start_all([token.id for token in trace.tokens])
    assert (trace["logits"] == logits).all()
    chords = chord_model.trace("D A", steps=3)
    wanted = chord_model.generate("D A", 3, GREEDY)
    assert len(chords.tokens) == 6
    assert [chord_model.tokenizer.chord(token.id, 2) for token in chords.tokens[3:]] == list(wanted)


def test_an_empty_prompt_is_what_begins_a_text(names_model: TextModel) -> None:
    trace = names_model.trace()
    assert [token.word.text for token in trace.tokens] == ["<BOS>"]
    assert len(trace.steps) == 1


def test_what_does_not_fit_is_refused_and_what_just_fits_is_not(
    names_model: TextModel, chord_model: ChordModel
) -> None:
    assert len(names_model.trace("a" * 63).tokens) == 64
    for prompt, steps in (("a" * 64, 0), ("a" * 60, 4)):
        with pytest.raises(EtudeError, match=re.escape("the model reads at most 64 at once")):
            names_model.trace(prompt, steps=steps)
    with pytest.raises(EtudeError, match="the prompt is 33 tokens, and the model reads at most 32"):
        chord_model.trace(" ".join(["D", "A"] * 16))
    with pytest.raises(EtudeError, match="steps must be 0 or more"):
        names_model.trace("a", steps=-1)
    with pytest.raises(EtudeError, match="top must be 1 or more"):
        names_model.trace("a", top=0)
    assert len(names_model.trace("a", top=1000).steps[0]) == names_model.config.vocab_size


def test_numbers_that_are_none_are_named_where_they_first_are() -> None:
    weights = random_weights(GPT2)
    weights["h.1.mlp.c_fc.weight"][3, 2] = np.inf
    with pytest.raises(EtudeError, match=re.escape("h.1.mlp.c_fc: not all of its numbers are finite")):
        gpt2_trace(weights, IDS)


def test_only_what_is_asked_for_is_kept(names_model: TextModel) -> None:
    trace = names_model.trace("abc", keep=["h.0.attn.?"])
    assert trace["h.0.attn.q"].shape == (2, 4, 4)
    with pytest.raises(KeyError):
        trace["h.0.mlp.act"]
    assert [each.name for each in trace.only(["h.0.attn.?", "logits"])] == [
        *(f"h.0.attn.{letter}" for letter in "qkvz"),
        "logits",
    ]
    with pytest.raises(EtudeError, match=re.escape("h.9.*: no intermediate has such a name")):
        trace.only(["h.0.*", "h.9.*"])


def test_the_same_question_has_the_same_answer(chord_model: ChordModel, chord_trace: Trace) -> None:
    again = chord_model.trace("D A Bm G D A", top=3)
    assert (again.tokens, again.steps, again.lens()) == (chord_trace.tokens, chord_trace.steps, chord_trace.lens())
    assert all((again[each.name] == chord_trace[each.name]).all() for each in again.operations)


def test_a_directory_of_others_with_a_padded_vocabulary(shared_checkpoints: Path, tmp_path: Path) -> None:
    import_gpt2(os.fspath(shared_checkpoints / "hf_tiny_gpt2"), tmp_path / "model")
    model = load(tmp_path / "model")
    assert isinstance(model, TextModel)
    trace = model.trace("", top=model.config.vocab_size, steps=3)
    assert sum(choice.percent for choice in trace.steps[0]) == pytest.approx(100)
    assert trace.model == "model"


@pytest.mark.parametrize(
    ("architecture", "ngram_rows", "others"),
    [("micro", 0, "-"), ("gpt2", 0, "-"), ("modern", 0, "of text: the sum"), ("modern", 31, "of chords: ")],
)
def test_the_page_of_names_has_each_with_its_shape(architecture: Architecture, ngram_rows: int, others: str) -> None:
    config = GPTConfig(architecture, 61, 32, 2, 4, 24, ngram_rows=ngram_rows)
    trace = record("m", config, random_weights(config), IDS, len(IDS), word, 61, 3, [])
    sizes = {"t": 9, "d": 24, "3d": 72, "4d": 96, "h": 4, "k": 6, "V": 61, "2": 2}
    column = ["gpt2", "micro", "modern"].index(architecture)
    named = dict[str, tuple[int, ...]]()
    for row in (Path(__file__).parents[2] / "docs" / "explain.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if len(cells) == 5 and cells[1].startswith("[") and cells[2 + column] and not cells[4].startswith(others):
            shape = tuple(sizes[size] for size in cells[1].strip("[]").split(", "))
            named |= dict.fromkeys(re.findall(r"`([^`]+)`", cells[0]), shape)
    assert [each.name for each in trace.operations if each.name.startswith("h.0.")] == [
        name.replace("h.L.", "h.0.") for name in named if name.startswith("h.L.")
    ]
    assert {
        each.name.replace("h.1.", "h.L."): each.shape for each in trace.operations if "h.0." not in each.name
    } == named
