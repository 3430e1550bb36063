"""GPT-2 from elsewhere: a directory of this machine, or a name on the Hugging Face hub, to a model directory of ours.

What others wrote is checked, written anew with digests and a card, and appears as a whole or not at all.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

from etude.errors import EtudeError
from etude.files import atomic_directory
from etude.hub import HubError, NoClientError, fetch, is_repository

from .config import GPTConfig
from .directory import CARD, CONFIG, INDEX, TOKENIZER, VOCABULARY, WEIGHTS, ModelFiles, load_model, save_model

HUB_NAMES = {
    "gpt2": "openai-community/gpt2",
    "gpt2-medium": "openai-community/gpt2-medium",
    "gpt2-large": "openai-community/gpt2-large",
    "gpt2-xl": "openai-community/gpt2-xl",
    "124M": "openai-community/gpt2",
    "355M": "openai-community/gpt2-medium",
    "774M": "openai-community/gpt2-large",
    "1558M": "openai-community/gpt2-xl",
}
"""OpenAI's four sizes, by Hugging Face's names and by their numbers of parameters."""

_LICENCE = re.compile(r"license:\s*['\"]?([\w .+-]{1,64}?)['\"]?\s*")
_WANTED = [CONFIG, WEIGHTS, INDEX, "model-*.safetensors", TOKENIZER, *VOCABULARY, CARD]


class ImportingError(EtudeError):
    """A source that is not there, cannot be reached or is no GPT-2."""


def import_gpt2(
    source: str, output: Path, say: Callable[[str], None] = lambda message: None, tokenizer: Path | None = None
) -> ModelFiles:
    """Write the model directory `output` from a local directory, one of `HUB_NAMES` or any owner/name on the hub.

    A local directory goes before a name. `tokenizer` is for a source that has none: a tokenizer.json, or a folder with
    it or with vocab.json and merges.txt. `output` must not exist. Raises `ImportingError`, or `ModelError` for a source
    with a fault in it; then nothing is left behind, but what was downloaded is kept for the next try.
    """
    if os.path.lexists(output):
        raise ImportingError(f"{output}: exists already; name a new folder, or take that one away")
    if Path(source).is_dir():
        directory, origin = Path(source), f"the directory `{_quoted(Path(source).resolve().name)}`"
    else:
        repository = _repository(source)
        directory = _download(source, repository, _WANTED, say)
        if not any((directory / name).exists() for name in (WEIGHTS, INDEX)):
            raise ImportingError(
                f"{source}: {repository} has no {WEIGHTS}; a pickle (pytorch_model.bin) is not read here: load it in "
                "transformers, save_pretrained it to a folder and import that"
            )
        # The client keeps a snapshot in a folder that is called like its commit.
        origin = f"https://huggingface.co/{repository}, revision `{_quoted(directory.name)}`"
    model = load_model(directory, tokenizer)
    if (model.config.architecture, model.config.precision) != ("gpt2", "float32"):
        raise ImportingError(
            f"{source}: is a {model.config.architecture} model in {model.config.precision}, no GPT-2 to import"
        )
    title = source if source in HUB_NAMES else Path(source).resolve().name
    card = _card(title, origin, licence_of(model.card), model)
    with atomic_directory(output) as folder:
        save_model(folder, model.config, model.weights, model.tokenizer, card)
    return ModelFiles(model.config, model.weights, model.tokenizer, card)


def licence_of(card: str) -> str | None:
    """What the front matter of a card on the hub names as the licence."""
    first, *lines = card.splitlines() or [""]
    front = takewhile(lambda line: line.rstrip() != "---", lines if first.rstrip() == "---" else [])
    return next((found[1] for found in map(_LICENCE.fullmatch, front) if found), None)


def fetch_tokenizer(source: str, say: Callable[[str], None] = lambda message: None) -> Path:
    """The folder with the tokenizer of one of `HUB_NAMES` or of any owner/name on the hub. Raises `ImportingError`."""
    return _download(source, _repository(source), [TOKENIZER, *VOCABULARY], say)


def _repository(source: str) -> str:
    repository = HUB_NAMES.get(source, source)
    if not is_repository(repository):
        names = ", ".join(HUB_NAMES)
        raise ImportingError(f"{source}: no such directory, and no name; known: {names}, or owner/name on the hub")
    return repository


def _download(source: str, repository: str, wanted: list[str], say: Callable[[str], None]) -> Path:
    """The hub's files, from the client's own cache where they are there; an interrupted download goes on."""
    try:
        return fetch(repository, wanted, say)
    except NoClientError as error:
        raise ImportingError(f"{source}: no such directory; {error}") from error
    except HubError as error:
        raise ImportingError(f"{source}: {error}") from error


def _card(title: str, origin: str, licence: str | None, model: ModelFiles) -> str:
    """Markdown. The front matter is what the hub and a later import read the licence from."""
    c: GPTConfig = model.config
    count = sum(array.size for array in model.weights.values())
    front = f"---\nlicense: {licence}\n---\n" if licence else ""
    return f"""{front}# {_quoted(title)}

GPT-2 weights, written by `etude import` from {origin}.
Licence: {f"{licence}, as the source's card says" if licence else "not stated by the source"}.
Its quality was not measured here.

| size | |
|---|---|
| parameters | {count:,} |
| layers | {c.n_layer:,} |
| heads | {c.n_head:,} |
| width | {c.n_embd:,} |
| longest context, tokens | {c.block_size:,} |
| vocabulary, tokens | {c.vocab_size:,} |
| head | {"the token embeddings" if c.tie_word_embeddings else "its own"} |
"""


def _quoted(name: str) -> str:
    """A name that stays on its line and within its marks."""
    return " ".join(name.replace("`", "'").split())
