"""Files are whole or not there."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import pytest

from etude.files import atomic_directory, atomic_write, output


def test_the_file_appears_whole_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "song.mid"
    with atomic_write(path) as file:
        file.write(b"half")
        assert not path.exists()
        file.write(b" and half")
    assert path.read_bytes() == b"half and half"
    assert os.listdir(tmp_path) == ["song.mid"]


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "song.mid"
    path.write_bytes(b"old")
    with pytest.raises(type(error)), atomic_write(path) as file:  # noqa: PT012
        file.write(b"new")
        raise error
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["song.mid"]


def test_errors_name_the_file_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "song.mid"
    with pytest.raises(FileNotFoundError) as caught, atomic_write(path):
        pass
    assert caught.value.filename == str(path)
    assert "No such file" in str(caught.value)
    with pytest.raises(IsADirectoryError), atomic_write(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


def test_an_error_of_the_caller_keeps_its_own_message(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="disk on fire"), atomic_write(tmp_path / "x"):
        raise OSError(5, "disk on fire", "elsewhere")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="permissions, links and pipes of POSIX")
def test_permissions_links_and_pipes(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with atomic_write(tmp_path / "real") as file:
            file.write(b"1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o644
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with atomic_write(tmp_path / "link") as file:
        file.write(b"2")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"2"
    # A pipe of our own: a broken `atomic_write`, run by root, would replace the machine's /dev/null by a file.
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with atomic_write(tmp_path / "pipe") as file:
            file.write(b"3")
        assert os.read(reader, 10) == b"3"
        assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    finally:
        os.close(reader)


def test_output_takes_a_path_or_an_open_file(tmp_path: Path) -> None:
    with output(str(tmp_path / "x")) as file:
        file.write(b"path")
    assert (tmp_path / "x").read_bytes() == b"path"
    memory = io.BytesIO()
    with output(memory) as file:
        file.write(b"file")
    assert memory.getvalue() == b"file"


def test_a_folder_appears_whole_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "model"
    with atomic_directory(path) as folder:
        (folder / "a").write_bytes(b"1")
        assert not path.exists()
    assert [each.name for each in (tmp_path / "deep").iterdir()] == ["model"]
    assert (path / "a").read_bytes() == b"1"


def test_a_folder_that_fails_leaves_no_trace(tmp_path: Path) -> None:
    def stopped() -> None:
        with atomic_directory(tmp_path / "model") as folder:
            (folder / "a").write_bytes(b"1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_does_not_replace_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("model", "link"):
        with pytest.raises(FileExistsError, match=name), atomic_directory(tmp_path / name):
            pass
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link", "model"]
