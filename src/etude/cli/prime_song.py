"""`etude prime sing` and `etude prime hear`: a number as a song, and back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from etude.errors import EtudeError
from etude.files import atomic_write
from etude.music.sound import RATE
from etude.music.sound.audio import OTHERS, WAV, check_ending
from etude.prime.hearing import MIDI, Heard
from etude.prime.hearing import hear as listen
from etude.prime.notation import write_score
from etude.prime.notes import (
    DEFAULT_RAGA,
    INTONATIONS,
    MAX_TEMPO,
    MIN_TEMPO,
    NOTES_A_MINUTE,
    RAGAS,
    SA,
    TALAS,
    Intonation,
    check_table,
    find_raga,
    find_tala,
    parse_pitch,
)
from etude.prime.number import decimal, read_number
from etude.prime.recovery import Recovered, recover
from etude.prime.song import Song, compose, read_sample, write_audio, write_midi

from .options import JsonOption, check_folder, check_not_read, print_json, say

_SCORE = (".svg",)
_KINDS = (*WAV, *OTHERS, *MIDI, *_SCORE)


def register(app: typer.Typer) -> None:
    """Add the two verbs to `etude prime`."""

    @app.command()
    def sing(
        number: Annotated[Path, typer.Argument(help="A number's file: decimal, or hexadecimal after 0x.")],
        output: Annotated[
            list[Path], typer.Option("-o", "--output", help=f"A file to write ({', '.join(_KINDS)}); repeatable.")
        ],
        raga: Annotated[str, typer.Option(help=f"Ten notes for the digits: {', '.join(RAGAS)}.")] = DEFAULT_RAGA,
        sa: Annotated[str, typer.Option(help="The keynote: Hz, or a note such as D3.")] = f"{SA:g}",
        tempo: Annotated[float, typer.Option(help="Notes a minute.", min=MIN_TEMPO, max=MAX_TEMPO)] = NOTES_A_MINUTE,
        intonation: Annotated[str, typer.Option(help="equal (as a piano) or just (as a tanpura).")] = "equal",
        rests: Annotated[int, typer.Option(help="A rest after every so many notes; 0 for none.", min=0)] = 0,
        drone: Annotated[bool, typer.Option("--drone", help="A tanpura plays all through.")] = False,
        tala: Annotated[
            str | None, typer.Option(help=f"Light drums, a beat a note: {', '.join(TALAS)}.", show_default="no drums")
        ] = None,
        intro: Annotated[
            bool,
            typer.Option("--intro", help="Sing the table of digits first and parity notes last, for hearing it back."),
        ] = False,
        sample: Annotated[
            Path | None,
            typer.Option(help="Sing with a recording of one steady note.", show_default="a harmonium made here"),
        ] = None,
        sample_pitch: Annotated[
            str | None, typer.Option(help="The sample's pitch: Hz, or a note.", show_default="found in it")
        ] = None,
        digits: Annotated[int | None, typer.Option(help="Only so many digits.", min=1, show_default="all")] = None,
        seconds: Annotated[
            float | None, typer.Option(help="Only so many seconds of notes.", min=0.1, max=1e6, show_default="all")
        ] = None,
        as_json: JsonOption = False,
    ) -> None:
        """Sing a number, a digit a note: as sound, as MIDI, or as a score in sargam and staff notation.

        Example: etude prime sing gpt.prime -o song.wav -o song.svg
        """
        if digits is not None and seconds is not None:
            raise typer.BadParameter("give --digits or --seconds, not both")
        if sample_pitch is not None and sample is None:
            raise typer.BadParameter("--sample-pitch is of a --sample; give that, too")
        for path in output:
            _check_output(path)
            check_not_read(path, [number] if sample is None else [number, sample])
        first = digits if seconds is None else max(1, int(seconds * tempo / 60))
        song = compose(
            read_number(number),
            find_raga(raga),
            sa=parse_pitch(sa),
            tempo=tempo,
            intonation=_intonation(intonation),
            rests=rests,
            drone=drone,
            tala=None if tala is None else find_tala(tala),
            intro=intro,
            first_digits=first,
        )
        recording = None
        if sample is not None:
            recording = read_sample(sample, None if sample_pitch is None else parse_pitch(sample_pitch))
            say(f"{sample}: a note of {recording.pitch:.2f} Hz")
        for path in output:
            ending = path.suffix.lower()
            if ending in MIDI:
                write_midi(song, path)
            elif ending in _SCORE:
                write_score(song, path)
            else:
                write_audio(song, path, recording)
        if as_json:
            print_json(_song_facts(song) | {"files": [str(path) for path in output]})
            return
        print(_described(song))
        if not song.whole:
            say(f"note: only {len(song.digits):,} digits are sung, so the number cannot be heard back from this song")
        for path in output:
            say(f"wrote {path} ({path.stat().st_size:,} bytes)")

    @app.command()
    def hear(
        song: Annotated[Path, typer.Argument(help="A song's file: WAV, FLAC, Ogg, MP3 or MIDI.")],
        output: Annotated[
            Path | None, typer.Option("-o", "--output", help="Write the number's digits to this file.")
        ] = None,
        program: Annotated[Path | None, typer.Option(help="Write the program in the number to this file.")] = None,
        table: Annotated[
            str | None,
            typer.Option(help="The ten digits, commonest first, such as 3092854716.", show_default="found out"),
        ] = None,
        raga: Annotated[
            str | None, typer.Option(help="With --table: the raga that it is for.", show_default=DEFAULT_RAGA)
        ] = None,
        tempo: Annotated[
            float | None,
            typer.Option(help="Notes a minute.", min=MIN_TEMPO, max=MAX_TEMPO, show_default="found out"),
        ] = None,
        as_json: JsonOption = False,
    ) -> None:
        """Hear a song back: its notes, their digits, the prime number, and the program in it.

        Nothing need be known of the song. A song without an intro whose number carries no program needs --table, unless
        its file says it.

        Example: etude prime hear song.wav -o heard.prime --program program.py
        """
        if raga is not None and table is None:
            raise typer.BadParameter("--raga is for --table; give that, too")
        for path in (output, program):
            if path is not None:
                check_folder(path)
                check_not_read(path, [song])
        if output is not None and program is not None and output.resolve() == program.resolve():
            raise typer.BadParameter("-o and --program name the same file; give each its own")
        if tempo is not None and song.suffix.lower() in MIDI:
            raise typer.BadParameter("--tempo is for sound; a MIDI file says its own")
        heard = listen(song, tempo)
        try:
            found = recover(
                heard,
                None if table is None else check_table(table),
                None if raga is None else find_raga(raga),
            )
        except EtudeError as error:
            raise EtudeError(f"{song}: {error}") from error
        if not found.prime:
            raise EtudeError(f"{song}: {_not_prime(found)}")
        if program is not None and found.payload is None:
            raise EtudeError(f"{song}: a prime number is heard, but there is no program in it to write to {program}")
        if output is not None:
            with atomic_write(output) as file:
                file.write(f"{decimal(found.number)}\n".encode())
        if program is not None and found.payload is not None:
            with atomic_write(program) as file:
                file.write(found.payload.program)
        files = [str(path) for path in (output, program) if path is not None]
        if as_json:
            print_json(_hearing_facts(heard, found) | {"files": files})
            return
        print(_told(heard, found))
        for name in files:
            say(f"wrote {name} ({os.path.getsize(name):,} bytes)")


def _intonation(text: str) -> Intonation:
    for known in INTONATIONS:
        if text == known:
            return known
    raise typer.BadParameter(f"no intonation {text!r}; these are: {', '.join(INTONATIONS)}")


def _check_output(path: Path) -> None:
    """Refuse what cannot be written before anything is made."""
    if path.suffix.lower() not in _KINDS:
        raise typer.BadParameter(f"{path}: cannot write this kind of file; known: {', '.join(_KINDS)}")
    if path.suffix.lower() in OTHERS:
        check_ending(path)
    check_folder(path)


def _song_facts(song: Song) -> dict[str, object]:
    return {
        "digits": len(song.digits),
        "whole": song.whole,
        "notes": len(song.sung),
        "rests": len(song.slots) - len(song.sung),
        "seconds": song.seconds,
        "seconds_per_note": song.frames_per_slot / RATE,
        "table": song.table,
        "raga": song.raga.name,
        "degrees": list(song.raga.degrees),
        "sa": song.sa,
        "intonation": song.intonation,
        "drone": song.drone,
        "tala": None if song.tala is None else song.tala.name,
        "intro": song.intro,
    }


def _described(song: Song) -> str:
    pairs = ", ".join(f"{digit} {name}" for digit, name in zip(song.table, song.raga.swaras, strict=True))
    minutes, seconds = divmod(song.seconds, 60)
    return (
        f"{len(song.sung):,} notes in {int(minutes)} min {seconds:.1f} s, raga {song.raga.name} "
        f"({song.raga.about}), Sa = {song.sa:g} Hz\ndigits, commonest first: {pairs}"
    )


def _hearing_facts(heard: Heard, found: Recovered) -> dict[str, object]:
    return {
        "notes": len(heard.notes),
        "rests": heard.rests,
        "seconds_per_note": heard.seconds_per_note,
        "pitches": [round(pitch, 2) for pitch in heard.pitches],
        "table_from": found.table_from,
        "mended": found.mended,
        "digits": len(found.digits),
        "prime": "probable" if found.prime else "no",
        "program_bytes": None if found.payload is None else len(found.payload.program),
        "sha256": None if found.payload is None else found.payload.sha256,
    }


_SOURCES = {
    "intro": "the intro told the digits",
    "table": "the digits are as --table says",
    "comment": "a comment in the file told the digits",
    "number": "nobody told the digits: the number begins as a gzip file does, which gave them away",
}


def _told(heard: Heard, found: Recovered) -> str:
    lines = [
        f"{len(heard.notes):,} notes of {heard.seconds_per_note:.4f} s on {len(heard.pitches)} pitches, "
        f"{heard.pitches[0]:.1f} to {heard.pitches[-1]:.1f} Hz, and {heard.rests:,} rests",
        _SOURCES[found.table_from],
    ]
    if found.mended:
        lines.append(f"{found.mended} of the notes were heard wrongly and have been put right")
    lines.append(f"a probable prime of {len(found.digits):,} digits")
    if found.payload is None:
        lines.append("there is no program in it")
    else:
        lines.append(f"a program of {len(found.payload.program):,} bytes, sha256 {found.payload.sha256}")
    return "\n".join(lines)


def _not_prime(found: Recovered) -> str:
    heard = f"heard as a number of {len(found.digits):,} digits that is not prime"
    if found.payload is not None:
        return (
            f"{heard}, though the program in it is whole: a note after the program's digits is wrong, "
            "or the number that was sung was no prime"
        )
    return (
        f"{heard} and in which no program can be opened: notes were heard wrongly (or the number that was sung was no "
        "prime); try a better recording, or sing it with --intro"
    )
