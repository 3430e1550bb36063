"""Reading chart collections: what they say, and one clear line for what is wrong with them."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from pathlib import Path

import pytest

from etude.corpus import lines as module
from etude.corpus.lines import CorpusError
from etude.corpus.songs import SongDocument, read_songs, split_songs
from etude.music.theory import Chord, Key, Meter


def test_songs_have_bars_sections_keys_and_metres(songs: list[SongDocument]) -> None:
    first, second, third = songs
    assert first.song is not None
    assert [(section.label, len(section.bars)) for section in first.song.sections] == [("verse", 4), ("chorus", 2)]
    assert (first.song.key, first.song.meter, first.song.genre) == (Key("D"), Meter(4, 4), "pop")
    assert second.song is not None
    assert (second.song.key, second.song.meter) == (Key("C", "minor"), Meter(3, 4))
    assert second.changes[-1] == Chord.parse("Cm7/Bb")
    assert third.song is None
    assert (third.name, third.group, third.source, third.licence) == ("c", "3", "made", "MIT")


def test_gzip_and_plain_are_the_same(songs_file: Path, songs: list[SongDocument], tmp_path: Path) -> None:
    packed = tmp_path / "songs.gz"
    packed.write_bytes(gzip.compress(songs_file.read_bytes()))
    assert read_songs(packed) == songs


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not JSON"),
        ("[" * 100_000, "line 2: not JSON"),
        ("[1]", "line 2: not a JSON object"),
        ("{}", "'chords' must be a list"),
        ('{"chords": []}', "1 to 20,000 chords"),
        ('{"chords": [1]}', "'chords' must be a list"),
        ('{"chords": ["C", "Hq"]}', "line 2: cannot read 'Hq'"),
        ('{"chords": ["C"], "bars": ["C", " "]}', "'bars' must be"),
        ('{"chords": ["C"], "bars": ["C"], "key": "Q"}', "not a key"),
        ('{"chords": ["C"], "title": "\\ud800"}', "surrogates"),
        ('{"chords": ["C"], "bars": ["' + "C G " * 9 + '"]}', "at most 16 chords"),
    ],
)
def test_a_bad_line_is_named(songs_file: Path, line: str, message: str) -> None:
    lines = songs_file.read_text().splitlines()
    songs_file.write_text("\n".join([lines[0], line]))
    with pytest.raises(CorpusError, match=message) as caught:
        read_songs(songs_file)
    assert str(songs_file) in str(caught.value)


def test_odd_metres_and_section_starts_are_read_with_care(tmp_path: Path) -> None:
    record = {"chords": ["C"], "bars": ["C", "C"], "meter": ["2/4", "4/4"], "sections": [{"label": "x", "bar": 1}]}
    path = tmp_path / "odd.jsonl"
    path.write_text(json.dumps(record) + "\n" + json.dumps(record | {"meter": "0", "sections": None}))
    listed, zero = (document.song for document in read_songs(path))
    assert listed is not None
    assert zero is not None
    assert listed.meter == zero.meter == Meter(4, 4)
    assert [section.label for section in listed.sections] == ["", "x"]
    assert [section.label for section in zero.sections] == [""]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"bars": ["C", "F#m7b5"]}, "'bars' hold other chords than 'chords'"),
        ({"meter": "wat"}, "wat"),
        ({"sections": "verse"}, "'sections' must be a list"),
        ({"sections": 5}, "'sections' must be a list"),
        ({"sections": [7]}, "'sections' must be a list"),
        ({"sections": [{"label": "x", "bar": 2}]}, "a 'bar' from 0 to 1, not 2"),
        ({"sections": [{"label": "x", "bar": "1"}]}, "a 'bar' from 0 to 1, not '1'"),
    ],
)
def test_a_chart_that_contradicts_itself_is_an_error(tmp_path: Path, wrong: dict[str, object], said: str) -> None:
    path = tmp_path / "wrong.jsonl"
    path.write_text(json.dumps({"chords": ["C", "G"], "bars": ["C", "C G"]} | wrong))
    with pytest.raises(CorpusError, match=f"line 1: .*{re.escape(said)}"):
        read_songs(path)


def test_damaged_and_missing_files(tmp_path: Path, songs_file: Path) -> None:
    packed = gzip.compress(songs_file.read_bytes())
    for name, content in [("cut.gz", packed[:-20]), ("flip.gz", packed[:60] + b"x" + packed[61:]), ("empty", b"")]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CorpusError, match=name):
            read_songs(tmp_path / name)
    with pytest.raises(CorpusError, match="No such file"):
        read_songs(tmp_path / "none")
    with pytest.raises(CorpusError, match="directory"):
        read_songs(tmp_path)


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CORPUS_BYTES", 1 << 22)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join([packer.compress(b"\n" * (1 << 20)) for _ in range(8)]) + packer.flush()
    (tmp_path / "bomb.gz").write_bytes(bomb)
    with pytest.raises(CorpusError, match="more than"):
        read_songs(tmp_path / "bomb.gz")
    (tmp_path / "long.jsonl").write_bytes(b" " * (module.MAX_LINE_BYTES + 10))
    with pytest.raises(CorpusError, match="longer than"):
        read_songs(tmp_path / "long.jsonl")


def test_versions_of_one_song_stay_on_one_side(tmp_path: Path) -> None:
    lines = [json.dumps({"group": i // 2, "id": i, "chords": ["C", "G"]}) for i in range(400)]
    path = tmp_path / "all.jsonl"
    path.write_text("\n".join(lines))
    train, valid = split_songs(read_songs(path), [path], None)
    assert not {d.group for d in train} & {d.group for d in valid}
    assert len(train) + len(valid) == 400
    assert 5 <= len(valid) <= 45


def test_a_validation_file_is_found_or_named_and_its_songs_are_not_trained_on(tmp_path: Path) -> None:
    for name, groups in [("train.jsonl", (1, 2, 3)), ("valid.jsonl", (3, 4)), ("other.jsonl", (1,))]:
        (tmp_path / name).write_text("\n".join(json.dumps({"group": g, "chords": ["C", "G"]}) for g in groups))
    path = tmp_path / "train.jsonl"
    train, valid = split_songs(read_songs(path), [path], None)
    assert ([d.group for d in train], [d.group for d in valid]) == (["1", "2"], ["3", "4"])
    train, valid = split_songs(read_songs(path), [path], tmp_path / "other.jsonl")
    assert ([d.group for d in train], [d.group for d in valid]) == (["2", "3"], ["1"])


def test_each_training_file_brings_its_validation_file(tmp_path: Path) -> None:
    for folder, groups in (("a", (1, 2)), ("b", (3, 4))):
        (tmp_path / folder).mkdir()
        for name, group in zip(("train", "valid"), groups, strict=True):
            (tmp_path / folder / f"{name}.jsonl").write_text(json.dumps({"group": group, "chords": ["C", "G"]}))
    paths = [tmp_path / folder / "train.jsonl" for folder in ("a", "b")]
    train, valid = split_songs([song for path in paths for song in read_songs(path)], paths, None)
    assert ([d.group for d in train], [d.group for d in valid]) == (["1", "3"], ["2", "4"])


def test_one_song_cannot_be_split(tmp_path: Path) -> None:
    path = tmp_path / "one.jsonl"
    path.write_text('{"chords": ["C", "G"]}')
    with pytest.raises(CorpusError, match="too few songs"):
        split_songs(read_songs(path), [path], None)
