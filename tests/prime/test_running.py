from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from etude.prime import running
from etude.prime.number import PrimeError
from etude.prime.running import Ended, Limits, run_program

pytestmark = pytest.mark.skipif(os.name != "posix", reason="programs are run on Linux and macOS alone")


LIMITS = Limits(seconds=20)


def run(source: str, given: Path | None = None, limits: Limits = LIMITS) -> tuple[Ended, str]:
    pieces: list[bytes] = []
    ended = run_program(source.encode(), limits, pieces.append, given)
    return ended, b"".join(pieces).decode()


def test_a_program_prints_and_ends_as_it_would_by_itself() -> None:
    source = "import sys\nprint('hé', __name__, sys.argv)\nprint('bad', file=sys.stderr)\nsys.exit(3)"
    assert run(source) == (Ended(3), "hé __main__ ['program.py']\nbad\n")


def test_it_finds_an_empty_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET", "known")
    ended, said = run("import os, sys\nprint(os.environ.get('SECRET'), os.listdir(), sys.stdin.read() == '')")
    assert (ended, said) == (Ended(0), "None ['program.py'] True\n")
    given = tmp_path / "names.txt"
    given.write_text("anna\nbo\n")
    assert run("print(len(open('input.txt').read().split()))", given) == (Ended(0), "2\n")


@pytest.mark.parametrize(
    ("source", "limits", "words"),
    [
        ("while True: pass", Limits(seconds=1), "it ran for 1 s"),
        ("import time; time.sleep(60)", Limits(seconds=0.5), "it ran for 0.5 s"),
        ("import sys, time; sys.stdout.close(); time.sleep(60)", Limits(seconds=0.5), "it ran for 0.5 s"),
        ("while True: print('x' * 1000)", Limits(output_bytes=5000), "more than 5,000 bytes"),
        ("x = [0] * 10**9", Limits(memory_mib=200), "more memory than 200 MiB"),
    ],
)
def test_it_is_stopped_at_its_limits(source: str, limits: Limits, words: str) -> None:
    ended, said = run(source, limits=limits)
    assert ended.stopped is not None and words in ended.stopped
    assert len(said) <= 5000


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("open({0!r}, 'w')", "write to"),
        ("open({0!r}, 'a')", "write to"),
        ("open({0!r}, 'r+')", "write to"),
        ("import os; os.open({0!r}, os.O_CREAT | os.O_WRONLY)", "write to"),
        ("from pathlib import Path; Path({0!r}).touch()", "change files"),
        ("from pathlib import Path; Path({0!r}).mkdir()", "change files"),
        ("import os; os.remove('program.py')", "change files"),
        ("import os; os.rename('program.py', {0!r})", "change files"),
        ("import shutil; shutil.rmtree('.')", "change files"),
        ("import os; os.system('touch {0}')", "start another process"),
        ("import subprocess; subprocess.run(['touch', {0!r}])", "start another process"),
        ("import os; os.fork()", "start another process"),
        ("import os; os.mkfifo({0!r})", "call mkfifo"),
        ("import posix; posix.mknod({0!r})", "call mknod"),
        ("import _posixsubprocess as p; p.fork_exec()", "call fork_exec"),
        ("import sys; sys.audit('subprocess.\x1b]0;x')", "(subprocess.\\x1b]0;x)"),  # no escapes for the terminal
        ("import os; os.kill(1, 0)", "send a signal"),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", "use the network"),
        ("import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')", "use the network"),
        ("import ctypes; ctypes.CDLL(None)", "load a foreign library"),
        ("import resource; resource.setrlimit(resource.RLIMIT_CPU, (1, 1))", "change its limits"),
        ("try:\n open({0!r}, 'w')\nexcept BaseException:\n print('on')", "write to"),
    ],
)
def test_what_nobody_expects_of_a_number_ends_it(source: str, words: str, tmp_path: Path) -> None:
    target = tmp_path / "made"
    ended, said = run(source.format(str(target)))
    assert ended.stopped is not None and words in ended.stopped and "\n" not in ended.stopped
    assert said == "" and not target.exists()


def test_a_file_that_is_given_has_a_limit(tmp_path: Path) -> None:
    given = tmp_path / "huge"
    with open(given, "wb") as file:
        file.truncate(65 << 20)
    with pytest.raises(PrimeError, match="larger than 64 MiB"):
        run("print(1)", given)
    with pytest.raises(OSError, match="No such file"):
        run("print(1)", tmp_path / "none")


def test_what_got_round_the_guard_and_started_a_process_has_it_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alive = tmp_path / "alive"  # held open by the process that is started, and by nobody when it is gone
    os.mkfifo(alive)
    unguarded = tmp_path / "guard.py"
    unguarded.write_text(f"import os, time\nos.open({str(alive)!r}, os.O_WRONLY)\nif os.fork() == 0: time.sleep(60)")
    monkeypatch.setattr(running, "_GUARD", unguarded)
    reader = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert run("") == (Ended(0), "")
        ready, _, _ = select.select([reader], [], [], 10)
        assert ready and os.read(reader, 1) == b""
    finally:
        os.close(reader)


def test_nothing_stays_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run("print(1)")
    run("while True: pass", limits=Limits(seconds=0.3))
    assert list(tmp_path.iterdir()) == []
