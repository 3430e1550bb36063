"""What `etude eval` says while it scores."""

from __future__ import annotations

import pytest

from etude.cli import evaluate


def test_off_a_terminal_lines_say_how_much_is_scored(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluate, "_LINE_SECONDS", -1.0)
    assert list(evaluate._watched("abc", "chords")) == ["a", "b", "c"]
    said = capsys.readouterr().err.splitlines()
    assert said == ["chords: 1 of 3 scored, 0:00 left", "chords: 2 of 3 scored, 0:00 left"]
    monkeypatch.setattr(evaluate, "_LINE_SECONDS", 60.0)
    assert list(evaluate._watched("abc", "chords")) == ["a", "b", "c"]
    assert not capsys.readouterr().err
