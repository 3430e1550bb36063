"""Memory and code that the kernels share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

from etude.engines.kernels import reserved


def test_a_cache_takes_the_memory_that_is_written() -> None:
    memory = reserved((1 << 28,))  # a gigabyte
    memory[::1024][:100] = 1
    if Path("/proc/self/statm").exists():
        before = int(Path("/proc/self/statm").read_text().split()[1])
        memory[1 << 27 :: 1 << 10][:512] = 1
        after = int(Path("/proc/self/statm").read_text().split()[1])
        assert after - before < 600  # pages


@pytest.mark.slow
def test_compiled_and_loaded_code_give_the_same_bits(tmp_path: Path) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from tests.engines.test_decoder import *\n"
        "if len(sys.argv) > 2: CompiledDecoder(CONFIG, random_weights(CONFIG), 'int8')\n"
        "print(CompiledDecoder(CONFIG, random_weights(CONFIG)).start([1, 2, 3]).tobytes().hex())\n"
    )
    found = set()
    for more in ([], ["int8"]):  # compiled, and loaded after another
        command = [sys.executable, "-c", program, str(Path(__file__).parents[2]), *more]
        done = subprocess.run(
            command, env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}, capture_output=True, text=True, check=True
        )
        found.add(done.stdout)
    assert len(found) == 1
