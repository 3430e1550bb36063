"""Songs of chord sites, from files of exactly the form of the two public data sets; what is no song is counted."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import tracemalloc
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from etude.corpus import chord_sites
from etude.corpus.chord_sites import Census, DictError, group_of, is_table, join_lines, read_chord_sites
from etude.corpus.chord_text import ChordText
from etude.corpus.lines import CorpusError
from etude.errors import EtudeError

KAGGLE = ["", "artist_name", "song_name", "chords&lyrics", "chords", "lyrics", "tabs", "lang", "genres"]
SONG = {
    "artist_name": "Justin Bieber",
    "song_name": "2 Much",
    "chords&lyrics": '\n\t  \t\t\r\nIntro: F#m7  D2 \r\n\r\nVerse 1:\r\nF#m7 \r\n  a line, "quoted"',
    "chords": str({1: "Intro: F#m7  D2 ", 4: "F#m7 ", 8: "D2 \t|", 12: "Bm 'n' A"}),
    "lyrics": "{0: '\\n\\t  \\t\\t', 2: ''}",
    "genres": "['canadian pop', 'pop']",
}
TEXT = "Intro: F#m7 D2 F#m7 D2 | Bm 'n' A"


def table(path: Path, *songs: dict[str, Any], header: list[str] = KAGGLE) -> Path:
    written = io.StringIO()
    writer = csv.DictWriter(written, header, restval="", extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({"": number, **song} for number, song in enumerate(songs))
    content = written.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def read(source: Path | str) -> tuple[list[ChordText], Census]:
    census = Census()
    return list(read_chord_sites(str(source), census)), census


@pytest.mark.parametrize("name", ["chords_and_lyrics.csv", "chords_and_lyrics.csv.gz"])
def test_the_table_of_dicts(tmp_path: Path, name: str) -> None:
    songs, census = read(table(tmp_path / name, SONG, {**SONG, "song_name": "2 Much (acoustic)"}))
    assert songs[0] == ChordText(TEXT, "2 Much", "Justin Bieber", "canadian pop, pop", "2 much")
    assert songs[1].group == songs[0].group
    assert census.document() == {"songs": 2, "skipped": []}


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.jsonl.gz"])
def test_the_data_set_of_strings(tmp_path: Path, name: str) -> None:
    record = {
        "genres": "['cumbia pop']",
        "artist_name": "Karina",
        "song_name": "Noches Mágicas",
        "chords_str": "\n\t \t\tD A G  D (x2) ",
    }
    path = tmp_path / name
    if "jsonl" in name:
        content = (json.dumps(record) + "\n").encode() * 2
        path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    else:
        table(path, record, record, header=list(record))
    assert is_table(str(path))
    songs, census = read(path)
    assert songs == [ChordText("D A G D (x2)", "Noches Mágicas", "Karina", "cumbia pop", "noches mágicas")] * 2
    assert census.songs == 2


def test_the_data_set_as_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow (the hub extra)")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {
        "genres": ["['pop']", None, None],
        "artist_name": ["A", "B", "C"],
        "song_name": ["x", "y", "z"],
        "chords_str": ["C  G", None, "F"],
    }
    path = tmp_path / "train-00000-of-00001.parquet"
    parquet.write_table(pyarrow.table(columns), path)
    songs, census = read(path)
    assert [(song.text, song.genres, song.title) for song in songs] == [("C G", "pop", "x"), ("F", "", "z")]
    assert census.skipped == {"chords_str missing or no string": 1}
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CorpusError, match="not a Parquet file that can be read"):
        read(path)
    parquet.write_table(pyarrow.table({"text": ["C"]}), path)
    with pytest.raises(CorpusError, match="no column chords or chords_str; it has text"):
        read(path)


def test_parquet_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(CorpusError, match=r"needs pyarrow, which comes with: pip install 'etude\[hub\]'"):
        read(tmp_path / "a.parquet")


MARKER = "executed"


@pytest.mark.parametrize(
    "chords",
    [
        f"{{1: open({MARKER!r}, 'w')}}",
        f"__import__('pathlib').Path({MARKER!r}).touch()",
        f"{{1: 'C', 2: __import__('os').system('touch {MARKER}')}}",
        "{1: 'C'} or exec('1')",
        "{1: f'{1}'}",
        "{1: b'C'}",
        "{1: 'C' 'D'}",
        "{1: 'C', 1: 'D'}",
        "{'1': 'C'}",
        "{1: {2: 'C'}}",
        "{1: ['C']}",
        "{1: 'C'",
        "{1: 'C}",
        "{1 'C'}",
        "{1: 'C\\q'}",
        "{1: '\\ud800'}",
        "{1: '\\U00110000'}",
        "{-1: 'C'}",
        "{1234567890: 'C'}",
        "{1: 'C'}}",
        "{,}",
        "['C']",
        "C G",
        "{" * 100_000,
        "{1:" * 50_000,
        "{1: " + "-" * 100_000 + "1}",
        "{1: '" + "\\" * 99_999,
    ],
)
def test_nothing_is_executed_and_nothing_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chords: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DictError):
        join_lines(chords)
    songs, census = read(table(Path("a.csv"), SONG, {**SONG, "chords": chords}, SONG))
    assert len(songs) == 2 and census.skipped == {"chords not the text of a dict of lines": 1}
    assert not Path(MARKER).exists()


@given(st.dictionaries(st.integers(0, 999_999_999), st.text(max_size=20), max_size=6))
@example({3: "it's", 1: 'say "C"', 2: "both ' and \"", 0: "\\n\n\x00\x7f\u2028\U0001d11e"})
@settings(max_examples=150)
def test_the_text_of_any_dict_is_read(lines: dict[int, str]) -> None:
    words = [word for number in sorted(lines) for word in lines[number].split()]
    assert join_lines(repr(lines)) == " ".join(words)
    assert join_lines(" { " + ", ".join(f"{k} :{v!r} " for k, v in lines.items()) + "}\n") == " ".join(words)


@given(st.text(alphabet="{}1: ',\"\\nxu0", max_size=30))
@settings(max_examples=200)
def test_any_text_is_a_dict_or_a_fault(text: str) -> None:
    try:
        found = join_lines(text)
    except DictError:
        return
    import ast

    said = ast.literal_eval(text.strip())  # what we take, Python takes too, and says the same
    assert found == " ".join(" ".join(said[number] for number in sorted(said)).split())


def test_rows_that_are_no_songs_are_counted(tmp_path: Path) -> None:
    path = table(
        tmp_path / "a.csv", SONG, {**SONG, "chords": ""}, {**SONG, "chords": "{}"}, {**SONG, "chords": "{1: '\\x00C'}"}
    )
    with path.open("ab") as file:
        file.write(b"1,2,3\n")
        file.write(b"5,a,b,c,\"{1: '\xff'}\",e,f,g,h\n")
        file.write(b"6,a,b,c,\"{1: 'C'}\",e,f,g,h\n")
    songs, census = read(path)
    assert [song.text for song in songs] == [TEXT, "C"]
    assert census.skipped == {
        "chords empty": 2, "chords not UTF-8 text": 2, "another number of cells than the header": 1,
    }  # fmt: skip
    document = census.document()
    assert document["skipped"][0]["reason"] == "chords empty" and "a.csv, line 9" in document["skipped"][0]["first"]


def test_cells_of_a_hundred_megabytes(tmp_path: Path) -> None:
    """Lyrics of that size do not matter, chords of that size are counted; memory holds neither."""
    path = tmp_path / "a.csv"
    with path.open("wb") as file:
        file.write(b"artist_name,song_name,chords&lyrics,chords,genres\n")
        for lyrics, chords in ((100, 0), (0, 100)):
            file.write(b'a,b,"' + b"la " * (lyrics * 349_525) + b'","')
            file.write(b"{1: 'C" + b" C" * (chords * 524_288) + b"'}\",c\n")
    tracemalloc.start()
    try:
        songs, census = read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [song.text for song in songs] == ["C"]
    assert census.skipped == {"chords longer than 1 MiB": 1}
    assert peak < 16 << 20


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "empty; name a table with a column chords or chords_str"),
        (
            "a.csv",
            b"artist_name,song_name,lyrics\n1,2,3\n",
            "no column chords or chords_str; it has artist_name, song_name",
        ),
        ("a.csv", b"song_name,chords\na,\"{1: 'C'}", "line 2: a quote opens in this row and never closes"),
        ("a.jsonl", b'{"chord_str": "C"}\n', "no column chords or chords_str; it has chord_str"),
        ("a.csv.gz", gzip.compress(b"chords\n", mtime=0)[:-5], "cannot be read"),
        ("none.csv", None, "No such file"),
    ],
)
def test_what_is_no_such_table_is_one_line(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(EtudeError, match=message) as caught:
        read(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_json_lines_that_are_no_songs_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"chords_str": "C G"}\n[1]\n{"chords_str": 3}\nC\n{"chords_str": "\\ud800"}\n{"chords_str": "F"}\n'
    )
    songs, census = read(path)
    assert [song.text for song in songs] == ["C G", "F"]
    assert census.skipped == {"not a JSON object": 3, "chords_str missing or no string": 1}
    assert songs[0].group != songs[1].group  # without names each is a song of its own


def test_a_bomb_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etude.corpus.lines.MAX_CORPUS_BYTES", 1 << 16)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"chords\n" + b"x" * (2 << 20)))
    with pytest.raises(CorpusError, match="unpack it if you know it"):
        read(tmp_path / "a.csv.gz")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Step into Christmas", "Step Into Christmas (Live)", True),
        ("Song feat. B", "Song [ver 2]", True),
        ("Song 1", "Song 2", False),
        ("(1)", "(2)", False),
        ("(" * (1 << 20), "(" * 300, True),  # in no time
    ],
)
def test_versions_share_a_group(one: str, other: str, same: bool) -> None:
    assert (group_of(one) == group_of(other)) == same


def test_a_song_is_in_one_group_whoever_sings_it_and_wherever_it_lies(tmp_path: Path) -> None:
    rows = "artist_name,song_name,chords_str\nA,Let It Be,C G Am F\nB,Let it be (live),C G\n,,D A Bm G\n"
    groups = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.csv").write_text(rows, encoding="utf-8")
        groups.append([song.group for song in read_chord_sites(str(tmp_path / folder / "a.csv"), Census())])
    assert groups[0] == groups[1] and groups[0][0] == groups[0][1] == "let it be" != groups[0][2]


def test_a_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def snapshot_download(repository: str, allow_patterns: list[str], repo_type: str) -> str:
        asked.append((repository, repo_type))
        return str(tmp_path)

    for name in ("huggingface_hub", "huggingface_hub.utils", "huggingface_hub.utils.tqdm"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules["huggingface_hub"], "snapshot_download", snapshot_download, raising=False)
    monkeypatch.setattr(sys.modules["huggingface_hub.utils.tqdm"], "disable_progress_bars", lambda: None, raising=False)
    with pytest.raises(EtudeError, match=r"some/body: no file in it ends in \.csv"):
        read("hub:some/body")
    (tmp_path / "README.md").write_text("a card")
    header = ["genres", "artist_name", "song_name", "chords_str"]
    table(tmp_path / "melodyGPT-song-chords-text-1.csv", {"song_name": "x", "chords_str": "C G"}, header=header)
    songs, _ = read("hub:lluccardoner/melodyGPT-song-chords-text-1")
    assert [song.text for song in songs] == ["C G"]
    assert asked == [("some/body", "dataset"), ("lluccardoner/melodyGPT-song-chords-text-1", "dataset")]
    with pytest.raises(EtudeError, match="not of the form hub:owner/name"):
        read("hub:melody")


def test_sources_that_are_tables(tmp_path: Path, songs_file: Path) -> None:
    assert is_table("hub:a/b") and is_table("a.csv") and is_table("a.csv.gz") and is_table("a.parquet")
    (tmp_path / "text.jsonl").write_text('{"text": "C G"}\n')
    (tmp_path / "broken.jsonl").write_text("{")
    for path in (songs_file, tmp_path / "text.jsonl", tmp_path / "broken.jsonl", tmp_path / "none.jsonl"):
        assert not is_table(str(path))
    assert chord_sites.MAX_SONG == 1 << 20
