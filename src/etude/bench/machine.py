"""What a figure was measured on, and the text it was measured with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from etude.errors import EtudeError
from etude.system import cores

CORPORA = {
    "names.txt": "the reference run's 32,033 names are names.txt of github.com/karpathy/makemore",
    "shakespeare.txt": "tiny Shakespeare is input.txt of github.com/karpathy/ng-video-lecture",
}
_LIBRARIES = ("numpy", "numba", "torch")


def machine() -> dict[str, Any]:
    """Processor, cores, system, and the versions that a speed depends on."""
    return {
        "processor": _processor(),
        "cores": cores(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{library: _version(library) for library in _LIBRARIES},
    }


def corpus_file(corpus: Path | None, name: str = "names.txt") -> Path:
    """The corpus asked for, or the one called `name` where it lies at hand. Raises `EtudeError`."""
    places = (Path(name), Path("../shared/data") / name)
    found = corpus or next((path for path in places if path.is_file()), None)
    if found is None:
        raise EtudeError(f"no {name} in this folder: name a text file ({CORPORA[name]})")
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
