"""What a figure was measured on, and the text it was measured with."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from etude.errors import EtudeError

NAMES = (Path("names.txt"), Path("../shared/data/names.txt"))
_LIBRARIES = ("numpy", "numba", "torch")


def machine() -> dict[str, Any]:
    """Processor, cores, system, and the versions that a speed depends on."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        **{library: _version(library) for library in _LIBRARIES},
    }


def names_file(corpus: Path | None) -> Path:
    """The corpus asked for, or the names of the reference run where they lie at hand. Raises `EtudeError`."""
    found = corpus or next((path for path in NAMES if path.is_file()), None)
    if found is None:
        raise EtudeError(
            "no names.txt in this folder: name a text file with one document a line (the reference run's 32,033 names "
            "are names.txt of github.com/karpathy/makemore)"
        )
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
