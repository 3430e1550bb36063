"""The bench of learning a vocabulary: its text is always the same, and the library alone learns the same from it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from etude.bench import tokens
from etude.errors import EtudeError


def test_the_text_is_as_words_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_WORDS", 40_000)
    for name in ("a", "b"):
        tokens.write_words(tmp_path / name, 1_000_000)
    content = (tmp_path / "a").read_bytes()
    assert (tmp_path / "b").read_bytes() == content
    assert 1_000_000 <= len(content) < 3_000_000
    words = content.decode().split()
    assert len(set(words)) > len(words) / 10 and Counter(words).most_common(1)[0][1] > len(words) / 40
    assert b"\n\n" not in content


def test_rows_of_a_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "ROUNDS", 2)
    path, heard = tmp_path / "text.txt", list[str]()
    path.write_text("Speak, speak! We know't, we know't.\nA kind of good.\n" * 400, encoding="utf-8")
    rows = tokens.bench(path, heard.append)
    assert len(heard) == 2 * len(tokens.SUBJECTS)
    found = {(row["subject"], row["metric"]): row["value"] for row in rows}
    assert found["etude", "merges"] == found["etude", "merges that are the library's"] > 20
    for subject in tokens.SUBJECTS:
        assert found[subject, "learning"] > 0 and 10 < found[subject, "most memory"] < 1000
    for other in tokens.SUBJECTS[1:]:
        assert found["etude", f"speed over {other}"] > 0
    with pytest.raises(EtudeError, match=r"none\.txt: cannot be read"):
        tokens.bench(tmp_path / "none.txt")
