"""GGUF: the tensors and keys as the format's own reader has them, and the tokens that llama.cpp continues with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from etude.engines.array import ArrayEngine
from etude.gpt.config import GPTConfig, parameter_shapes
from etude.gpt.directory import load_model, save_model
from etude.gpt.exporting import ExportingError, export_model
from etude.gpt.gguf import q4_0, q8_0
from etude.tokens.bpe import BPETokenizer
from etude.tokens.characters import CharTokenizer

from .conftest import MakeGPT2

PROMPT = "Over the hills"
TRICKY = [
    "Over the hills and far away",
    "  two  spaces   and more    ",
    "don't I'll we've 'S 'll'd",
    "naïve e\u0301 ß 🎵👩‍👩‍👧",
    "\n\n\n\t x\r\n\u0085\u2028\u00a0\u3000",
    "12345 ²½ ٣٤ Ⅷ",
    "日本語テキスト",
    "<|endoftext|>, as characters",
    "\x00\x01\x7f\ufeff",
    "x" * 60,
]


def reader(path: Path) -> Any:
    gguf = pytest.importorskip("gguf", reason="the checks of GGUF files need its own reader (the dev extra)")
    return gguf.GGUFReader(path)


@pytest.mark.parametrize("tied", [True, False])
def test_the_formats_reader_finds_every_tensor_and_key(tmp_path: Path, make_gpt2: MakeGPT2, tied: bool) -> None:
    """At 20 wide, most tensors end between multiples of 32 bytes."""
    settings = {"n_embd": 20, "tie_word_embeddings": tied, "layer_norm_epsilon": 1e-4}
    source = make_gpt2(card="---\nlicense: mit\n---\n", **settings)
    model = export_model(source, tmp_path / "m.gguf", "gguf")
    file = reader(tmp_path / "m.gguf")
    tensors = {tensor.name: tensor.data for tensor in file.tensors}
    assert len(tensors) == len(model.weights) and ("output.weight" in tensors) is not tied
    for theirs, ours in {
        "token_embd.weight": model.weights["wte.weight"],
        "position_embd.weight": model.weights["wpe.weight"],
        "blk.1.attn_norm.bias": model.weights["h.1.ln_1.bias"],
        "blk.1.attn_qkv.weight": model.weights["h.1.attn.c_attn.weight"].T,
        "blk.0.attn_output.bias": model.weights["h.0.attn.c_proj.bias"],
        "blk.1.ffn_norm.weight": model.weights["h.1.ln_2.weight"],
        "blk.0.ffn_up.weight": model.weights["h.0.mlp.c_fc.weight"].T,
        "blk.0.ffn_down.weight": model.weights["h.0.mlp.c_proj.weight"].T,
        "output_norm.weight": model.weights["ln_f.weight"],
    }.items():
        assert tensors[theirs].dtype == np.float32 and np.array_equal(tensors[theirs], ours), theirs
    keys = {name: field.contents() for name, field in file.fields.items() if not name.startswith("GGUF.")}
    assert {name: value for name, value in keys.items() if not name.startswith("tokenizer.")} == {
        "general.architecture": "gpt2",
        "general.license": "mit",
        "general.file_type": 0,
        "general.quantization_version": 2,
        "general.alignment": 32,
        "gpt2.context_length": 256,
        "gpt2.embedding_length": 20,
        "gpt2.feed_forward_length": 80,
        "gpt2.block_count": 2,
        "gpt2.attention.head_count": 2,
        "gpt2.attention.layer_norm_epsilon": pytest.approx(1e-4),
        "gpt2.vocab_size": 352,
    }
    tokens, kinds = keys["tokenizer.ggml.tokens"], keys["tokenizer.ggml.token_type"]
    assert len(set(tokens)) == len(tokens) == len(kinds) == 352
    assert (tokens[0], kinds[0], kinds[1], tokens[351], kinds[351]) == ("<|endoftext|>", 3, 1, "[unused 351]", 5)
    assert keys["tokenizer.ggml.eos_token_id"] == keys["tokenizer.ggml.bos_token_id"] == 0
    assert keys["tokenizer.ggml.merges"][0].count(" ") == 1 and keys["tokenizer.ggml.add_bos_token"] is False


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        ({"dtype": "float16"}, {"F16", "F32"}),
        ({"quantize": "int8"}, {"Q8_0", "F32"}),
        ({"quantize": "int4"}, {"Q4_0", "Q8_0", "F32"}),
    ],
)
def test_smaller_files_hold_about_the_same_numbers(
    tmp_path: Path, make_gpt2: MakeGPT2, options: dict[str, str], kinds: set[str]
) -> None:
    source = make_gpt2()
    export_model(source, tmp_path / "whole.gguf", "gguf")
    export_model(source, tmp_path / "small.gguf", "gguf", **options)
    whole, small = ({t.name: t for t in reader(tmp_path / f"{each}.gguf").tensors} for each in ("whole", "small"))
    quants = pytest.importorskip("gguf").quants
    assert {tensor.tensor_type.name for tensor in small.values()} == kinds
    for name, tensor in small.items():
        about = quants.dequantize(tensor.data, tensor.tensor_type)
        error = np.abs(about - whole[name].data).max() / np.abs(whole[name].data).max()
        assert (
            error
            <= {"F32": 0, "F16": 2**-11, "Q8_0": 0.5 / 127 + 2**-11, "Q4_0": 1 / 8 + 2**-11}[tensor.tensor_type.name]
        ), name
    embeddings = small["token_embd.weight"].tensor_type.name, small["position_embd.weight"].tensor_type.name
    assert embeddings == ({"float16": "F16"}.get(options.get("dtype", ""), "Q8_0"), "F32")


EDGES = st.sampled_from([0, 0.5, -0.5, 63.5, 127, -127])
NORMAL = st.floats(-6e4, 6e4, width=32).filter(lambda x: abs(x) > 1e-30)


@given(st_numpy.arrays(np.float32, (3, 64), elements=NORMAL | EDGES))
@settings(deadline=None, max_examples=60)
def test_blocks_are_those_of_the_reference(rows: np.ndarray) -> None:
    gguf = pytest.importorskip("gguf", reason="the reference for blocks is the gguf package (the dev extra)")
    for kind, ours in ((gguf.GGMLQuantizationType.Q8_0, q8_0), (gguf.GGMLQuantizationType.Q4_0, q4_0)):
        with np.errstate(all="ignore"):
            assert np.array_equal(ours(rows), gguf.quants.quantize(rows, kind))


def test_blocks_by_hand() -> None:
    row = np.zeros((1, 32), np.float32)
    row[0, :4], row[0, 16] = (127, -0.5, 1.5, -127), 3
    whole = q8_0(row)[0]
    assert whole[:2].view(np.float16)[0] == 1 and whole[2:].view(np.int8)[:4].tolist() == [127, -1, 2, -127]
    row[0, :4], row[0, 16] = (-16, 14, 2, 0), 4
    nibbles = q4_0(row)[0]
    assert nibbles[:2].view(np.float16)[0] == 2
    assert [byte & 15 for byte in nibbles[2:6].tolist()] == [0, 15, 9, 8] and nibbles[2] >> 4 == 10
    for smallest in (0, 1e-42):  # 1e-42 is below what has a reciprocal in float32
        block = np.full((2, 32), smallest, np.float32)
        with np.errstate(divide="raise", over="raise", invalid="raise"):
            assert not q8_0(block).any() and not q4_0(block)[:, :2].copy().view(np.float16).any()


def test_what_the_format_cannot_say(tmp_path: Path, make_gpt2: MakeGPT2) -> None:
    with pytest.raises(ExportingError, match=r"n_embd 48 is not a multiple of 32, the block of int8"):
        export_model(make_gpt2("narrow", n_embd=48), tmp_path / "x", "gguf", quantize="int8")
    config = GPTConfig("gpt2", 256, 8, 1, 1, 32)
    weights = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(config).items()}
    endless = BPETokenizer.from_json(CharTokenizer("ab").to_bpe_json().replace("<|endoftext|>", "<|never|>"))
    save_model(tmp_path / "endless", config, weights, endless, "")
    with pytest.raises(ExportingError, match=r"names no token that ends a text, and llama\.cpp would take token 11"):
        export_model(tmp_path / "endless", tmp_path / "x", "gguf")
    assert not (tmp_path / "x").exists()


class Llama:
    """llama.cpp with a file, and the logits [t, V] after each of some tokens."""

    def __init__(self, path: Path) -> None:
        llama_cpp = pytest.importorskip("llama_cpp", reason="these checks run llama.cpp (pip install llama-cpp-python)")
        self.model = llama_cpp.Llama(str(path), n_ctx=256, n_threads=1, logits_all=True, verbose=False)

    def logits(self, ids: list[int]) -> np.ndarray:
        self.model.reset()
        self.model.eval(ids)
        return np.array(self.model.scores[: len(ids)])

    def tokens(self, text: str) -> list[int]:
        found: list[int] = self.model.tokenize(text.encode(), add_bos=True, special=False)
        return found


@pytest.fixture
def llama(tmp_path: Path) -> Iterator[Any]:
    opened: list[Llama] = []

    def open_file(source: Path, **options: str) -> Llama:
        path = tmp_path / f"{len(opened)}.gguf"
        export_model(source, path, "gguf", **options)
        opened.append(Llama(path))
        return opened[-1]

    yield open_file
    for each in opened:
        each.model.close()


@pytest.mark.parametrize(("tied", "seed"), [(True, 24), (False, 51)])
def test_llama_cpp_continues_with_the_same_tokens(make_gpt2: MakeGPT2, llama: Any, tied: bool, seed: int) -> None:
    """The seeds are of models whose greedy texts vary and whose first choice is clear at each of 64 steps."""
    source = make_gpt2(tie_word_embeddings=tied, seed=seed)
    model = load_model(source)
    engine, ids = ArrayEngine(model.config, model.weights), model.tokenizer.encode(PROMPT)  # type: ignore[union-attr]
    known, wanted, gaps = model.tokenizer.vocab_size, list[int](), list[float]()
    logits = engine.start(ids)
    for _ in range(64):
        wanted.append(int(logits[:known].argmax()))
        gaps.append(float(np.diff(np.sort(logits[:known])[-2:])[0]))
        logits = engine.step(wanted[-1])
    ours = engine.start_all([*ids, *wanted])[len(ids) - 1 : -1]  # [64, V]
    spread = float(ours.std())
    assert len(set(wanted)) > 20 and min(gaps) > 0.02 * spread
    rounding: tuple[tuple[dict[str, str], float, float], ...] = (
        ({}, 0.004, 1.0),
        ({"dtype": "float16"}, 0.008, 1.0),
        ({"quantize": "int8"}, 0.15, 0.9),
    )
    for options, error, share in rounding:
        theirs = llama(source, **options).logits([*ids, *wanted])[len(ids) - 1 : -1]
        assert np.abs(theirs - ours).max() < error * spread, options
        same = theirs[:, :known].argmax(axis=1) == wanted
        clear = np.array(gaps) > 2 * error * spread
        assert same[clear].all() and clear.mean() > 0.3 and same.mean() >= share, options
    theirs = llama(source, quantize="int4").logits([*ids, *wanted])[len(ids) - 1 : -1]
    assert np.corrcoef(theirs.ravel(), ours.ravel())[0, 1] > 0.9


def test_llama_cpp_reads_text_into_the_same_tokens(make_gpt2: MakeGPT2, llama: Any, shared_gpt2: Path) -> None:
    source = make_gpt2("padded")
    small, full = load_model(source), BPETokenizer.from_path(shared_gpt2)
    config = GPTConfig("gpt2", 50304, 16, 1, 1, 32, bos_token_id=50256, eos_token_id=50256)
    weights = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(config).items()}
    save_model(source.parent / "full", config, weights, full, "")
    for directory, tokenizer in ((source, small.tokenizer), (source.parent / "full", full)):
        theirs = llama(directory)
        assert isinstance(tokenizer, BPETokenizer)
        assert theirs.model.token_eos() == tokenizer.end_id
        for text in TRICKY:
            assert theirs.tokens(text) == tokenizer.encode(text), text


def test_llama_cpp_runs_character_tokens(tmp_path: Path, llama: Any) -> None:
    text = "To be, or not\n\tto be's  12"
    tokenizer = CharTokenizer.train([text])
    config = GPTConfig("gpt2", tokenizer.vocab_size, 256, 1, 2, 32)
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in parameter_shapes(config).items()}
    save_model(tmp_path / "characters", config, weights, tokenizer, "")
    theirs, ids = llama(tmp_path / "characters"), tokenizer.document(text)[:-1]
    assert theirs.tokens(text) == ids and theirs.model.token_eos() == tokenizer.bos_id
    ours = ArrayEngine(config, weights).start_all(ids)
    assert np.abs(theirs.logits(ids) - ours).max() < 0.004 * ours.std()
