"""The song is as long, as loud and as high as it should be, and always the same."""

from __future__ import annotations

import hashlib
import wave
from pathlib import Path

import mido
import numpy as np
import pytest
from numpy.typing import NDArray

from etude.errors import EtudeError
from etude.prime.notes import DEFAULT_RAGA, RAGAS, TALAS, find_raga, frequency
from etude.prime.number import PrimeError, read_number
from etude.prime.song import compose, parse_tag, read_sample, write_audio, write_midi

# The program print("hello"), compressed, and made a prime by what follows it.
NUMBER = 4015900675360164941257961833784007821955751818867272204251449157644366823689729146104054213
REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "prime.txt"


def samples(path: Path) -> NDArray[np.float64]:
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 44100)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767


def cents_from(note: NDArray[np.float64], wanted: float) -> float:
    """How far a note is from a pitch, by where its first three harmonics stand in a long spectrum."""
    size = 1 << 17
    spectrum = np.abs(np.fft.rfft(note * np.hanning(len(note)), size))
    found = []
    for harmonic in (1, 2, 3):
        near = harmonic * wanted * size / 44100
        window = spectrum[int(near * 0.98) : int(near * 1.02) + 2]
        at = int(near * 0.98) + int(np.argmax(window))
        left, centre, right = np.log(spectrum[at - 1 : at + 2])
        found.append((at + 0.5 * (left - right) / (left - 2 * centre + right)) * 44100 / size / harmonic)
    return float(1200 * np.log2(np.mean(found) / wanted))


def test_each_digit_is_its_note_for_a_quarter_of_a_second(tmp_path: Path) -> None:
    song = compose(NUMBER)
    write_audio(song, tmp_path / "song.wav")
    audio = samples(tmp_path / "song.wav")
    assert len(audio) == len(str(NUMBER)) * 11025
    assert np.abs(audio).max() == pytest.approx(0.95, abs=1e-4)
    assert abs(float(audio.mean())) < 1e-4
    notes = audio.reshape(-1, 11025)
    assert not notes[:, [0, -1]].any(), "a fade ends in silence"
    degrees = [RAGAS[DEFAULT_RAGA].degrees[song.table.index(digit)] for digit in str(NUMBER)]
    for degree in set(degrees):
        note = notes[degrees.index(degree)]
        assert abs(cents_from(note, frequency(degree))) < 3
        assert float(np.sqrt((note**2).mean())) > 0.25, "no note is soft"
    # The fades: at half of their 220 frames the note has half its strength, within the first or last few periods.
    ends = np.abs(notes[:, :110]).max() / np.abs(notes).max()
    assert ends < 0.6


def test_the_same_song_has_the_same_bytes(tmp_path: Path) -> None:
    song = compose(NUMBER, find_raga("yaman"), drone=True, tala=TALAS["keherwa"], rests=15, first_digits=30)
    for name in ("a.wav", "b.wav", "a.mid", "b.mid"):
        (write_audio if name.endswith("wav") else write_midi)(song, tmp_path / name)
    for kind in ("wav", "mid"):
        a, b = (hashlib.sha256((tmp_path / f"{name}.{kind}").read_bytes()).digest() for name in "ab")
        assert a == b


def test_tempo_rests_tail_and_shortening(tmp_path: Path) -> None:
    song = compose(NUMBER, tempo=600, rests=10, first_digits=25)
    assert [slot is None for slot in song.slots] == ([False] * 10 + [True]) * 2 + [False] * 5
    write_audio(song, tmp_path / "song.wav")
    audio = samples(tmp_path / "song.wav").reshape(-1, 4410)
    assert len(audio) == 27
    assert not audio[10].any()
    assert not song.whole and compose(NUMBER, first_digits=91).whole
    accompanied = compose(NUMBER, tempo=600, drone=True, tala=TALAS["dadra"], first_digits=25)
    write_audio(accompanied, tmp_path / "song.wav")
    audio = samples(tmp_path / "song.wav")
    assert len(audio) == 25 * 4410 + 2 * 44100
    assert np.abs(audio).max() == pytest.approx(0.95, abs=1e-4)
    assert np.abs(audio[-400:]).max() < 0.01, "it rings out"
    assert np.abs(audio[25 * 4410 : 26 * 4410]).max() > 0.01, "and it does ring"


def test_a_recording_is_sung_at_the_right_pitches(tmp_path: Path) -> None:
    seconds = np.arange(3 * 22050) / 22050
    tone = sum(np.sin(2 * np.pi * 200 * k * seconds + k) / k for k in range(1, 30))
    silence = np.zeros(5000)
    with wave.open(str(tmp_path / "sample.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(22050)
        file.writeframes((8000 * np.concatenate([silence, tone])).astype("<i2").tobytes())
    sample = read_sample(tmp_path / "sample.wav")
    assert sample.pitch == pytest.approx(200, abs=0.05)
    song = compose(NUMBER, find_raga("malkauns"), intonation="just", sa=180.0)
    write_audio(song, tmp_path / "song.wav", sample)
    notes = samples(tmp_path / "song.wav").reshape(-1, 11025)
    for digit in set(str(NUMBER)):
        degree = song.raga.degrees[song.table.index(digit)]
        assert abs(cents_from(notes[str(NUMBER).index(digit)], frequency(degree, 180.0, "just"))) < 3
    with pytest.raises(EtudeError, match="longer sample"):
        write_audio(compose(NUMBER, tempo=20), tmp_path / "slow.wav", sample)


def test_midi_has_every_note_at_its_pitch(tmp_path: Path) -> None:
    song = compose(NUMBER, find_raga("todi"), intonation="just", rests=20, tempo=120)
    write_midi(song, tmp_path / "song.mid")
    file = mido.MidiFile(tmp_path / "song.mid")
    assert file.length == pytest.approx(len(song.slots) * 0.5, abs=0.01)
    bend, heard = 0, []
    for message in file.tracks[1]:
        if message.type == "pitchwheel":
            bend = message.pitch
        elif message.type == "note_on":
            heard.append(440 * 2 ** ((message.note + bend / 4096 - 69) / 12))
    wanted = [frequency(slot, song.sa, "just") for slot in song.slots if slot is not None]
    assert heard == pytest.approx(wanted, rel=1e-4)


def test_the_reference_is_fifteen_minutes(tmp_path: Path) -> None:
    if not REFERENCE.is_file():
        pytest.skip("the published prime is not beside the checkout (in ../shared/reference)")
    song = compose(read_number(REFERENCE))
    assert (len(song.slots), song.seconds, song.table) == (3600, 900.0, "3092854716")
    write_audio(song, tmp_path / "song.wav")
    with wave.open(str(tmp_path / "song.wav")) as file:
        assert file.getnframes() == 3600 * 11025


def test_what_a_file_says_of_itself() -> None:
    song = compose(NUMBER, find_raga("kafi"))
    tag = parse_tag(song.tag)
    assert tag is not None
    assert (tag.table, tag.raga.name, tag.digits, tag.whole) == (song.table, "kafi", 91, True)
    assert parse_tag("a song that I like") is None
    assert parse_tag(song.tag.replace("table=", "table=3")) is None
    assert parse_tag(song.tag.replace("kafi", "blues")) is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sa": 20.0}, "65 to 600 Hz"),
        ({"tempo": 5.0}, "20 to 900"),
        ({"intro": True, "first_digits": 5}, "leave one of them out"),
        ({"rests": -1}, "0 for none"),
    ],
)
def test_what_cannot_be_sung(options: dict[str, float], said: str) -> None:
    with pytest.raises(PrimeError, match=said):
        compose(NUMBER, **options)  # type: ignore[arg-type]
    with pytest.raises(PrimeError, match="sing faster"):
        compose(10**60_000)
