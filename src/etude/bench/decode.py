"""Decoding: GPT-2 124M with random weights in our engines and in the peers that are installed, one text at a time.

Each subject is a process of its own that loads the model and waits. They take turns, round by round, so that a machine
that is slower for a while is slower for all; a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, redirect_stdout, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np

from etude.engines.engine import Engine, check_engine
from etude.errors import EtudeError
from etude.gpt.config import GPTConfig, Precision, parameter_shapes
from etude.gpt.directory import load_model, save_model
from etude.gpt.gguf import write_gguf
from etude.system import cores
from etude.tokens.bpe import BPETokenizer
from etude.tokens.bpe_by_hand import alphabet

CONFIG = GPTConfig("gpt2", 50257, 1024, 12, 12, 768, bos_token_id=256, eos_token_id=256)
PROMPT, NEW, LONG = 16, 64, 512  # tokens
ROUNDS = 9
BANDWIDTH = "reading memory, all cores"


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: a library with a kind of weights, and the modules that it needs."""

    library: str
    kind: str
    needs: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.library} {self.kind}"


SUBJECTS = (
    Subject("etude compiled", "float32", ("numba",)),
    Subject("etude compiled", "int8", ("numba",)),
    Subject("etude compiled", "int4", ("numba",)),
    Subject("etude array", "float32", ("numpy",)),
    Subject("transformers", "float32", ("transformers", "torch")),
    Subject("CTranslate2", "float32", ("ctranslate2", "transformers", "torch")),
    Subject("CTranslate2", "int8", ("ctranslate2", "transformers", "torch")),
    Subject("llama.cpp", "float32", ("llama_cpp",)),
    Subject("llama.cpp", "Q8_0", ("llama_cpp",)),
    Subject("llama.cpp", "Q4_0", ("llama_cpp",)),
)
RATIOS = (
    ("etude compiled float32", "llama.cpp float32"),
    ("etude compiled int8", "llama.cpp Q8_0"),
    ("etude compiled int4", "llama.cpp Q4_0"),
    ("etude array float32", "transformers float32"),
)

Row = dict[str, Any]
Report = Callable[[str], None]


class Decoder(Protocol):
    """A loaded model."""

    def decode(self) -> float:
        """Seconds for `NEW` likeliest tokens after the first `PROMPT`, whose own time does not count."""

    def read(self) -> float:
        """Seconds to read `LONG` tokens and say which is next."""


def bench(report: Report = lambda remark: None, rounds: int = ROUNDS, config: GPTConfig = CONFIG) -> list[Row]:
    """The rows of `etude bench decode`; `report` hears what is being measured. Raises `EtudeError`."""
    check_engine("compiled")
    here = [subject for subject in SUBJECTS if all(map(find_spec, subject.needs))]
    for library in dict.fromkeys(subject.library for subject in SUBJECTS if subject not in here):
        report(f"{library} is not installed and is left out: pip install 'etude[bench]'")
    with TemporaryDirectory(prefix="etude-bench-") as folder, ExitStack() as stack:
        report("writing the random model in every format")
        write_models(Path(folder), config, {subject.library for subject in here})
        workers = {}
        for subject in here:
            report(f"loading {subject.name}")
            workers[subject] = stack.enter_context(Worker(subject, Path(folder)))
        from .memory import Memory  # needs Numba

        times: dict[tuple[str, str], list[float]] = {}
        memory, speeds = Memory(), []
        for number in range(rounds):
            report(f"round {number + 1} of {rounds}")
            speeds.append(memory.bandwidth())
            for subject, worker in workers.items():
                for what in ("decode", "read"):
                    times.setdefault((subject.name, what), []).append(worker.ask(what)["seconds"])
        ends = {subject: worker.ask("end") for subject, worker in workers.items()}
        return rows(times, speeds, {subject.name: worker.begin | ends[subject] for subject, worker in workers.items()})


def rows(
    times: dict[tuple[str, str], list[float]],
    speeds: Sequence[float],
    facts: dict[str, dict[str, float]],
) -> list[Row]:
    """The table: speeds are the best of all rounds, ratios the median of the rounds'."""
    found: list[Row] = []

    def add(subject: str, metric: str, value: float, unit: str) -> None:
        found.append({"subject": subject, "metric": metric, "value": value, "unit": unit})

    add(BANDWIDTH, "bandwidth", max(speeds) / 1e9, "GB/s")
    for name, fact in facts.items():
        seconds = min(times[name, "decode"])
        add(name, f"{NEW} tokens after {PROMPT}", NEW / seconds, "tokens/s")
        add(name, f"prompt of {LONG}", LONG / min(times[name, "read"]), "tokens/s")
        add(name, "weights read a token", fact["weights"] / 1e6, "MB")
        # Against the bandwidth measured in the same round: it drifts.
        shares = [fact["weights"] * NEW / s / speed for s, speed in zip(times[name, "decode"], speeds, strict=True)]
        add(name, "share of the bandwidth", 100 * median(shares), "%")
        add(name, "load", fact["load"], "s")
        add(name, "peak memory beyond the libraries", fact["memory"] / 1e6, "MB")
    for ours, theirs in RATIOS:
        if ours in facts and theirs in facts:
            for what, metric in (("decode", f"{NEW} tokens after {PROMPT}"), ("read", f"prompt of {LONG}")):
                pairs = zip(times[theirs, what], times[ours, what], strict=True)
                add(f"{ours} over {theirs}", metric, median(t / o for t, o in pairs), "times")
    return found


def write_models(folder: Path, config: GPTConfig, libraries: set[str]) -> None:
    """The same random model as every library reads it."""
    rng = np.random.default_rng(0)
    weights = {
        name: rng.normal(1.0 if len(shape) == 1 and name.endswith("weight") else 0.0, 0.02, shape).astype(np.float32)
        for name, shape in parameter_shapes(config).items()
    }
    # CTranslate2 wants a token for every id: after the bytes come pairs of them.
    symbols = [*alphabet(), "<|endoftext|>", *map("".join, product(alphabet(), repeat=2))]
    vocabulary = {symbol: number for number, symbol in enumerate(symbols[: config.vocab_size])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
    tokenizer = BPETokenizer.from_files(folder / "vocab.json", folder / "merges.txt")
    save_model(folder / "model", config, weights, tokenizer, "")
    special = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")  # for CTranslate2 too
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", **special}
    (folder / "model" / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    if "llama.cpp" in libraries:
        document = json.loads(tokenizer.to_json())
        for kind, ours in (("float32", "float32"), ("Q8_0", "int8"), ("Q4_0", "int4")):
            with (folder / f"{kind}.gguf").open("wb") as file:
                write_gguf(file, config, weights, document, False, ours, None, pure=True)
    if "CTranslate2" in libraries:
        os.environ["TRANSFORMERS_VERBOSITY"] = "error"
        from ctranslate2.converters import TransformersConverter

        for kind in ("float32", "int8"):
            converter = TransformersConverter(str(folder / "model"))
            with redirect_stdout(sys.stderr):
                converter.convert(str(folder / f"ct2-{kind}"), quantization=kind)


class Worker:
    """A subject in a process of its own, asked line by line."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        # -P: a file of the current folder must not be taken for a module of Python's.
        command = [sys.executable, "-P", "-m", "etude.bench.decode", subject.name, str(folder)]
        self._subject = subject
        self._errors = (folder / f"{subject.name}.log").open("w+")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )
        self.begin = self._answer()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._errors.close()

    def ask(self, what: str) -> dict[str, float]:
        """The answer to "decode", "read" or "end"."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(what + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            words = self._errors.read().strip().splitlines()
            raise EtudeError(f"{self._subject.name} failed: {words[-1] if words else 'without a word'}")
        answer: dict[str, float] = json.loads(line)
        return answer


class _Etude:
    def __init__(self, engine: str, kind: Precision, folder: Path) -> None:
        model = load_model(folder / "model")
        self._engine: Engine
        if engine == "array":
            from etude.engines.array import ArrayEngine

            self._engine = ArrayEngine(model.config, model.weights)
        else:
            from etude.engines.decoder import CompiledDecoder

            self._engine = CompiledDecoder(model.config, model.weights, kind)
        self._vocab_size = model.config.vocab_size

    def decode(self) -> float:
        logits = self._engine.start(prompt(PROMPT))
        began = time.perf_counter()
        for _ in range(NEW):
            logits = self._engine.step(int(logits.argmax()))
        return time.perf_counter() - began

    def read(self) -> float:
        began = time.perf_counter()
        self._engine.start(prompt(LONG)).argmax()
        return time.perf_counter() - began


class _Transformers:
    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import GPT2LMHeadModel

        torch.set_num_threads(cores())
        self._torch: Any = torch
        self._model: Any = GPT2LMHeadModel.from_pretrained(folder / "model", dtype=torch.float32)

    def decode(self) -> float:
        with self._torch.inference_mode():
            out = self._model(self._torch.tensor([prompt(PROMPT)]), use_cache=True, logits_to_keep=1)
            began = time.perf_counter()
            for _ in range(NEW):
                token = out.logits[:, -1].argmax(-1, keepdim=True)
                out = self._model(token, past_key_values=out.past_key_values, use_cache=True)
            return time.perf_counter() - began

    def read(self) -> float:
        with self._torch.inference_mode():
            began = time.perf_counter()
            self._model(self._torch.tensor([prompt(LONG)]), use_cache=True, logits_to_keep=1).logits[:, -1].argmax()
            return time.perf_counter() - began


class _CTranslate2:
    def __init__(self, kind: str, folder: Path) -> None:
        import ctranslate2

        self._generator = ctranslate2.Generator(
            str(folder / f"ct2-{kind}"), compute_type=kind, intra_threads=cores(), inter_threads=1
        )
        self._symbols = list(alphabet())

    def _seconds(self, count: int, new: int) -> float:
        began = time.perf_counter()
        self._generator.generate_batch(
            [[self._symbols[token] for token in prompt(count)]],
            max_length=new,
            min_length=new,
            sampling_topk=1,
            include_prompt_in_result=False,
        )
        return time.perf_counter() - began

    def decode(self) -> float:
        return self._seconds(PROMPT, NEW + 1) - self._seconds(PROMPT, 1)  # it has no way to wait between the two

    def read(self) -> float:
        return self._seconds(LONG, 1)


class _Llama:
    """Through its C functions: what its Python class does between two tokens would be counted as well."""

    def __init__(self, kind: str, folder: Path) -> None:
        import llama_cpp

        # What it says goes nowhere; the callback must live as long as the library.
        self._quiet = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._quiet, None)
        llama_cpp.llama_backend_init()
        self._library: Any = llama_cpp
        model = llama_cpp.llama_model_load_from_file(
            str(folder / f"{kind}.gguf").encode(), llama_cpp.llama_model_default_params()
        )
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = 1024
        settings.n_threads = settings.n_threads_batch = cores()
        self._context = llama_cpp.llama_init_from_model(model, settings)
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))

    def _eval(self, ids: list[int]) -> int:
        library = self._library
        tokens = (library.llama_token * len(ids))(*ids)  # a batch only points to it
        if library.llama_decode(self._context, library.llama_batch_get_one(tokens, len(ids))):
            raise EtudeError("llama.cpp did not decode")
        logits = library.llama_get_logits_ith(self._context, -1)
        return int(np.ctypeslib.as_array(logits, shape=(self._vocab_size,)).argmax())

    def _forget(self) -> None:
        self._library.llama_memory_clear(self._library.llama_get_memory(self._context), True)

    def decode(self) -> float:
        self._forget()
        token = self._eval(prompt(PROMPT))
        began = time.perf_counter()
        for _ in range(NEW):
            token = self._eval([token])
        return time.perf_counter() - began

    def read(self) -> float:
        self._forget()
        began = time.perf_counter()
        self._eval(prompt(LONG))
        return time.perf_counter() - began


def prompt(count: int) -> list[int]:
    """Some bytes."""
    ids: list[int] = np.random.default_rng(1).integers(0, 256, count).tolist()
    return ids


def weight_bytes(subject: Subject, config: GPTConfig) -> float:
    """What a token reads of the weights: every matrix once, in ggml's formats with a float16 scale for 32 numbers."""
    d = config.n_embd
    numbers = 12 * config.n_layer * d * d + config.vocab_size * d
    scales = {"int4": 4 / 64, "Q8_0": 2 / 32, "Q4_0": 2 / 32}
    bits = {"float32": 32, "int8": 8, "Q8_0": 8, "int4": 4, "Q4_0": 4}
    return numbers * (bits[subject.kind] / 8 + scales.get(subject.kind, 0))


def _memory() -> tuple[int, int]:
    """Bytes of memory that this process holds now, and the most it has held; zeros where the system does not tell."""
    with suppress(OSError):
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        sizes = dict(line.split(":", 1) for line in lines if line.startswith("Vm"))
        return tuple(1024 * int(sizes[name].split()[0]) for name in ("VmRSS", "VmHWM"))  # type: ignore[return-value]
    return 0, 0


def _load(subject: Subject, folder: Path) -> Decoder:
    if subject.library.startswith("etude"):
        kind: Any = subject.kind
        return _Etude(subject.library.split()[1], kind, folder)
    if subject.library == "transformers":
        return _Transformers(folder)
    return _CTranslate2(subject.kind, folder) if subject.library == "CTranslate2" else _Llama(subject.kind, folder)


def _warm(subject: Subject) -> None:
    """Import what is needed, and for our own engine compile: none of it is the model's time or memory."""
    if subject.library == "etude compiled":
        from etude.engines.decoder import CompiledDecoder

        small = GPTConfig("gpt2", 300, 16, 1, 1, 64)
        kind: Any = subject.kind
        CompiledDecoder(
            small, {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(small).items()}, kind
        )
    elif subject.library == "transformers":
        from transformers import GPT2LMHeadModel  # noqa: F401
    elif subject.library != "etude array":
        __import__(subject.needs[0])


def _main(name: str, folder: str) -> None:
    """Load, then answer."""
    subject = next(each for each in SUBJECTS if each.name == name)
    answers, sys.stdout = sys.stdout, sys.stderr  # a library that prints must not be taken for an answer
    _warm(subject)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # forget the most that was held
    (before, _), began = _memory(), time.perf_counter()
    decoder = _load(subject, Path(folder))
    config = GPTConfig.from_dict(json.loads((Path(folder) / "model" / "config.json").read_text()))
    print(
        json.dumps({"load": time.perf_counter() - began, "weights": weight_bytes(subject, config)}),
        file=answers,
        flush=True,
    )
    for line in sys.stdin:
        what = line.strip()
        answer = {"memory": _memory()[1] - before} if what == "end" else {"seconds": getattr(decoder, what)()}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    _main(*sys.argv[1:])
