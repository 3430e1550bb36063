"""Files of the Hugging Face hub, by its own client and from that client's cache; asked only where a user names some."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from etude.errors import EtudeError

_OWNER_AND_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*", re.ASCII)


class HubError(EtudeError):
    """A repository that cannot be had, and why."""


class NoClientError(HubError):
    """The client is not installed."""


def is_repository(name: str) -> bool:
    """Whether a name is of the form owner/name."""
    return _OWNER_AND_NAME.fullmatch(name) is not None


def fetch(repository: str, patterns: Sequence[str], say: Callable[[str], None], dataset: bool = False) -> Path:
    """The folder with a repository's files of these names, a model's or a dataset's, from the cache where they are
    there; an interrupted download goes on. Raises `HubError`."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError:
        raise NoClientError("names on the hub need huggingface_hub: pip install 'etude[hub]'") from None
    if not sys.stderr.isatty():
        disable_progress_bars()
    say(f"fetching {repository} from the Hugging Face hub")
    try:
        kind: dict[str, Any] = {"repo_type": "dataset"} if dataset else {}
        return Path(snapshot_download(repository, allow_patterns=list(patterns), **kind))
    except Exception as error:  # the client's own, its transport's and the system's, which change with its version
        name = type(error).__name__
        if name in ("RepositoryNotFoundError", "GatedRepoError"):
            why = "is not on the hub, or not for everyone; check the name"
        else:
            first = str(error).strip().splitlines()[0] if str(error).strip() else name
            why = f"could not be fetched ({first.strip()}); check the network and try again, it goes on where it was"
        raise HubError(f"{repository} {why}") from error
