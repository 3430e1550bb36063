"""`etude import`: what others wrote becomes a model directory, as a whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from safetensors.numpy import save_file

from etude.engines.array import ArrayEngine
from etude.gpt.config import GPTConfig, parameter_shapes
from etude.gpt.directory import ModelError, Weights, load_model, save_model
from etude.gpt.importing import HUB_NAMES, ImportingError, import_gpt2, licence_of
from etude.tokens.bpe import BPETokenizer
from etude.tokens.bpe_by_hand import alphabet
from etude.tokens.characters import CharTokenizer

CONFIG = GPTConfig("gpt2", 260, 64, 2, 2, 8, bos_token_id=259, eos_token_id=259)
CARD = "---\nlanguage: en\nlicense: mit\n---\n# Somebody's model\n"


def random_weights(config: GPTConfig = CONFIG) -> Weights:
    """Positions and the head are large, so that greedy tokens vary."""
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in parameter_shapes(config).items()}
    weights["wpe.weight"] *= 10
    return weights


def write_tokenizer(directory: Path) -> None:
    """Every byte, three merges and the end, in the two files of OpenAI's release."""
    pairs = [("t", "h"), ("th", "e"), ("\u0120", "the")]
    tokens = [*alphabet(), *(a + b for a, b in pairs), "<|endoftext|>"]
    (directory / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (directory / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in pairs))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory like the hub's, made without transformers."""
    directory = tmp_path / "somebodys"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG.to_dict()))
    (directory / "README.md").write_text(CARD)
    write_tokenizer(directory)
    save_file(
        {f"transformer.{name}": array for name, array in random_weights().items()}, directory / "model.safetensors"
    )
    return directory


def entries(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_local_directory(tmp_path: Path, source: Path) -> None:
    import_gpt2(str(source), tmp_path / "m")
    assert entries(tmp_path / "m") == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    model, wanted = load_model(tmp_path / "m"), random_weights()
    assert model.config == CONFIG
    assert model.weights.keys() == wanted.keys()
    assert all((model.weights[name] == wanted[name]).all() for name in wanted)
    assert model.card.startswith("---\nlicense: mit\n---\n# somebodys\n")
    assert "the directory `somebodys`" in model.card and "mit, as the source's card says" in model.card
    assert f"| parameters | {sum(array.size for array in wanted.values()):,} |" in model.card
    assert str(tmp_path) not in model.card
    assert entries(tmp_path) == ["m", "somebodys"]


def test_importing_again_gives_the_same_bytes_and_keeps_the_licence(tmp_path: Path, source: Path) -> None:
    import_gpt2(str(source), tmp_path / "first" / "m")
    import_gpt2(str(tmp_path / "first" / "m"), tmp_path / "second" / "m")
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (tmp_path / "first" / "m" / name).read_bytes() == (tmp_path / "second" / "m" / name).read_bytes()
    assert licence_of((tmp_path / "second" / "m" / "README.md").read_text()) == "mit"


def test_the_end_of_text_is_the_vocabularys_where_the_configuration_names_none(tmp_path: Path, source: Path) -> None:
    document = CONFIG.to_dict() | {"bos_token_id": 50256, "eos_token_id": 50256}  # as transformers does by default
    (source / "config.json").write_text(json.dumps(document))
    assert import_gpt2(str(source), tmp_path / "m").config == CONFIG
    assert json.loads((tmp_path / "m" / "config.json").read_text())["eos_token_id"] == 259


def edited(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda directory: (directory / name).write_bytes(change((directory / name).read_bytes()))


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (lambda d: (d / "model.safetensors").unlink(), r"model\.safetensors: missing"),
    "no configuration": (lambda d: (d / "config.json").unlink(), r"config\.json: missing"),
    "no vocabulary": (lambda d: (d / "vocab.json").unlink(), r"tokenizer\.json: missing, and vocab\.json"),
    "no merges": (lambda d: (d / "merges.txt").unlink(), r"tokenizer\.json: missing, and vocab\.json with merges\.txt"),
    "cut weights": (edited("model.safetensors", lambda b: b[:-5]), r"model\.safetensors: damaged"),
    "oversized header": (
        edited("model.safetensors", lambda b: b"\xff" * 7 + b"\x00" + b[8:]),
        r"model\.safetensors: damaged",
    ),
    "cut configuration": (edited("config.json", lambda b: b[:-5]), r"config\.json: not JSON"),
    "cut vocabulary": (edited("vocab.json", lambda b: b[:-5]), r"vocab\.json"),
    "merges of nothing": (edited("merges.txt", lambda b: b + b"q w\n"), r"merges\.txt"),
    "another shape": (edited("config.json", lambda b: b.replace(b'"n_layer": 2', b'"n_layer": 3')), "missing h.2."),
    "another activation": (edited("config.json", lambda b: b.replace(b"gelu_new", b"relu")), "activation_function"),
    "another model": (edited("config.json", lambda b: b.replace(b'"gpt2"', b'"llama"')), "model_type 'llama'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_leaves_nothing_behind(tmp_path: Path, source: Path, fault: str) -> None:
    damage, message = FAULTS[fault]
    damage(source)
    with pytest.raises(ModelError, match=message):
        import_gpt2(str(source), tmp_path / "m")
    assert entries(tmp_path) == ["somebodys"]


def test_a_failure_while_writing_leaves_nothing_behind(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("etude.gpt.directory.write_tensors", full)
    with pytest.raises(OSError, match="No space left"):
        import_gpt2(str(source), tmp_path / "m")
    assert entries(tmp_path) == ["somebodys"]


def test_what_exists_is_not_touched(tmp_path: Path, source: Path) -> None:
    (tmp_path / "m").mkdir()
    with pytest.raises(ImportingError, match="exists already"):
        import_gpt2(str(source), tmp_path / "m")
    assert entries(tmp_path / "m") == []


def test_a_model_of_another_architecture(tmp_path: Path) -> None:
    config = GPTConfig("micro", 3, 4, 1, 1, 2)
    weights = {name: np.zeros(shape, np.float32) for name, shape in parameter_shapes(config).items()}
    save_model(tmp_path / "micro", config, weights, CharTokenizer("ab"), "")
    with pytest.raises(ImportingError, match="is a micro model in float32, no GPT-2 to import"):
        import_gpt2(str(tmp_path / "micro"), tmp_path / "m")


def hub(monkeypatch: pytest.MonkeyPatch, answer: Path | Exception) -> list[str]:
    """A hub that gives one folder or one fault; what it was asked for."""
    asked: list[str] = []

    def snapshot_download(repository: str, allow_patterns: list[str]) -> str:
        assert "model.safetensors" in allow_patterns and not any("bin" in pattern for pattern in allow_patterns)
        asked.append(repository)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    for name in ("huggingface_hub", "huggingface_hub.utils", "huggingface_hub.utils.tqdm"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules["huggingface_hub"], "snapshot_download", snapshot_download, raising=False)
    monkeypatch.setattr(sys.modules["huggingface_hub.utils.tqdm"], "disable_progress_bars", lambda: None, raising=False)
    return asked


@pytest.mark.parametrize("name", [*HUB_NAMES, "some.body/her-model"])
def test_names_on_the_hub(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    asked = hub(monkeypatch, source)
    import_gpt2(name, tmp_path / "m")
    assert asked == [HUB_NAMES.get(name, name)]
    assert f"https://huggingface.co/{asked[0]}, revision `somebodys`" in (tmp_path / "m" / "README.md").read_text()


@pytest.mark.parametrize("name", ["gpt3", "../gpt2", "a/b/c", "https://huggingface.co/gpt2", "", "a/../b", "/a"])
def test_names_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    if name == "":
        monkeypatch.setattr(Path, "is_dir", lambda path: False)  # an empty path is the folder itself
    asked = hub(monkeypatch, OSError("asked"))
    with pytest.raises(ImportingError, match="no such directory, and no name; known: gpt2, gpt2-medium"):
        import_gpt2(name, tmp_path / "m")
    assert asked == [] and entries(tmp_path) == ["here"]


class RepositoryNotFoundError(Exception):
    """Called as the client's own."""


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (RepositoryNotFoundError("404 Client Error.\n\nRepository Not Found"), "not on the hub, or not for everyone"),
        (ConnectionError("no route\nto host"), r"could not be fetched \(no route\); check the network"),
        (TimeoutError(), r"could not be fetched \(TimeoutError\)"),
    ],
)
def test_a_hub_that_cannot_give_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    hub(monkeypatch, fault)
    with pytest.raises(ImportingError, match=message):
        import_gpt2("gpt2", tmp_path / "m")
    assert entries(tmp_path) == []


def test_a_repository_of_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path) -> None:
    (source / "model.safetensors").unlink()
    hub(monkeypatch, source)
    with pytest.raises(ImportingError, match=r"has no model\.safetensors; a pickle .* is not read here"):
        import_gpt2("some/body", tmp_path / "m")


def test_the_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportingError, match=r"pip install 'etude\[hub\]'"):
        import_gpt2("gpt2", tmp_path / "m")


def test_licences() -> None:
    assert licence_of(CARD) == "mit"
    assert licence_of("---\nlicense: 'apache-2.0'\n---\n") == "apache-2.0"
    for card in ("", "license: mit\n", "---\nlanguage: en\n---\nlicense: mit\n", "---\nlicense:\n- mit\n---\n"):
        assert licence_of(card) is None


def etude(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "etude", *map(str, arguments)]
    env = os.environ | environment
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, check=False, timeout=300)


def test_the_command(tmp_path: Path, source: Path) -> None:
    result = etude("import", source, "-o", "m", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr.startswith("m: ") and "parameters, 2 layers, 2 heads, 8 wide" in result.stderr
    again = etude("import", source, "-o", "m", cwd=tmp_path)
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert again.stderr.startswith("etude: m: exists already")
    (source / "merges.txt").unlink()
    failed = etude("import", source, "-o", "n", cwd=tmp_path)
    assert (failed.returncode, failed.stderr.count("\n")) == (1, 1)
    assert entries(tmp_path) == ["m", "somebodys"]


def test_the_command_without_a_network(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="names on the hub need huggingface_hub (the hub extra)")
    cache = tmp_path / "cache"
    result = etude("import", "gpt2", "-o", "m", cwd=tmp_path, HF_HUB_OFFLINE="1", HF_HOME=str(cache))
    assert (result.returncode, result.stdout) == (1, "")
    assert [line for line in result.stderr.splitlines() if line.startswith("etude: ")] == result.stderr.splitlines()[
        -1:
    ]
    assert "gpt2: openai-community/gpt2 could not be fetched" in result.stderr
    assert "m" not in entries(tmp_path)


@pytest.mark.parametrize("tied", [True, False])
def test_the_text_is_that_of_transformers(tmp_path: Path, source: Path, tied: bool) -> None:
    """From a directory that transformers wrote to a greedy text, by both."""
    torch = pytest.importorskip("torch", reason="the parity tests need PyTorch (the train extra)")
    transformers = pytest.importorskip("transformers", reason="the parity tests need transformers (the dev extra)")
    torch.manual_seed(0)
    document = transformers.GPT2Config(
        **(CONFIG.to_dict() | {"tie_word_embeddings": tied, "initializer_range": 0.5, "n_positions": 128})
    )
    model = transformers.GPT2LMHeadModel(document).eval()
    with torch.no_grad():
        model.transformer.wpe.weight.mul_(10)
    model.save_pretrained(tmp_path / "theirs")
    write_tokenizer(tmp_path / "theirs")
    tokenizer = transformers.GPT2TokenizerFast.from_pretrained(tmp_path / "theirs")
    for prompt in ("Over the hills", "", "naïve 🎵\n"):
        ids = tokenizer(prompt or "<|endoftext|>", return_tensors="pt").input_ids
        wanted = model.generate(ids, do_sample=False, max_new_tokens=60, pad_token_id=0)[0]
        text = prompt + tokenizer.decode(wanted[ids.shape[1] :], skip_special_tokens=True)
        name = "m" + str(len(prompt))
        assert etude("import", "theirs", "-o", name, cwd=tmp_path).returncode == 0
        result = etude("generate", name, prompt, "--greedy", "--max-tokens", "60", "--json", cwd=tmp_path)
        (sample,) = json.loads(result.stdout)["samples"]
        assert sample["tokens"] == [token for token in wanted[ids.shape[1] :].tolist() if token != 259]
        assert sample["text"] == text
        assert len(set(sample["tokens"])) > 5
    reread = transformers.AutoTokenizer.from_pretrained(tmp_path / "m0")
    assert reread("Over the hills").input_ids == tokenizer("Over the hills").input_ids


def test_real_directories_of_others(tmp_path: Path, shared_checkpoints: Path) -> None:
    model = import_gpt2(str(shared_checkpoints / "hf_tiny_gpt2"), tmp_path / "m")
    assert (model.config.vocab_size, model.config.eos_token_id, model.tokenizer.vocab_size) == (21, 20, 21)
    assert ArrayEngine(model.config, load_model(tmp_path / "m").weights).start([20, 1, 2]).shape == (21,)
    with pytest.raises(ModelError, match=r"tokenizer\.json: missing, and vocab\.json with merges\.txt too"):
        import_gpt2(str(shared_checkpoints / "hf_fake_gpt2_50257"), tmp_path / "n")
    assert entries(tmp_path) == ["m"]


def test_a_tokenizer_from_elsewhere(tmp_path: Path, shared_checkpoints: Path, shared_gpt2: Path) -> None:
    """A real directory without one, and one that has another."""
    bare = str(shared_checkpoints / "hf_fake_gpt2_50257")
    with pytest.raises(ModelError, match=r"a model needs its tokenizer: etude import --tokenizer PATH takes one"):
        import_gpt2(bare, tmp_path / "m")
    import_gpt2(bare, tmp_path / "m", tokenizer=shared_gpt2)
    model = load_model(tmp_path / "m")
    assert isinstance(model.tokenizer, BPETokenizer) and model.tokenizer.encode("Over the hills") == [5886, 262, 18639]
    import_gpt2(str(tmp_path / "m"), tmp_path / "n", tokenizer=tmp_path / "m" / "tokenizer.json")
    assert load_model(tmp_path / "n").tokenizer == model.tokenizer
    before = entries(tmp_path)
    for source, tokenizer, message in (
        (bare, tmp_path / "nothing", "nothing: missing"),
        (bare, tmp_path, r"tokenizer\.json: missing"),
        (bare, tmp_path / "m" / "README.md", r"README\.md: not JSON"),
        (str(shared_checkpoints / "hf_tiny_gpt2"), shared_gpt2, r"gpt2: has 50,257 ids, but config\.json says 21"),
    ):
        with pytest.raises(ModelError, match=message):
            import_gpt2(source, tmp_path / "x", tokenizer=tokenizer)
    assert entries(tmp_path) == before


def test_the_commands_tokenizer(tmp_path: Path, source: Path) -> None:
    vocabulary = tmp_path / "vocabulary"
    vocabulary.mkdir()
    for name in ("vocab.json", "merges.txt"):
        (source / name).rename(vocabulary / name)
    failed = etude("import", source, "-o", "m", cwd=tmp_path)
    assert failed.returncode == 1 and "--tokenizer" in failed.stderr
    assert etude("import", source, "-o", "m", "--tokenizer", "vocabulary", cwd=tmp_path).returncode == 0
    assert load_model(tmp_path / "m").tokenizer.vocab_size == 260


def test_a_real_directory_with_gpt2s_own_vocabulary(
    tmp_path: Path, shared_checkpoints: Path, shared_gpt2: Path
) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    for path in (*(shared_checkpoints / "hf_fake_gpt2_50257").iterdir(), *shared_gpt2.iterdir()):
        (whole / path.name).write_bytes(path.read_bytes())
    model = import_gpt2(str(whole), tmp_path / "m")
    assert (model.config.vocab_size, model.config.eos_token_id, model.config.block_size) == (50257, 50256, 1024)
    assert model.weights["wte.weight"].shape == (50257, 2)
