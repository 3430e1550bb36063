"""`etude compose`: chords in, a song out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from etude.composer import DEFAULT_FORM, DEFAULT_GENRE, DEFAULT_SAMPLING, DEFAULT_TEMPO
from etude.composer import compose as write_song
from etude.errors import EtudeError
from etude.model import load_chords
from etude.music.arrange import Note, arrange
from etude.music.chart import MIN_WIDTH, render
from etude.music.sound import MAX_SECONDS, write_midi, write_wav
from etude.music.theory import MAX_TEMPO, MIN_TEMPO, Meter, Song
from etude.tokens.chords import GENRES

from .options import (
    GreedyOption,
    JsonOption,
    KeyOption,
    ModelOption,
    PromptArgument,
    SeedOption,
    TemperatureOption,
    TopKOption,
    TopPOption,
    print_json,
    read_key,
    read_prompt_text,
    read_sampling,
    say,
    warn_unfamiliar,
)

WRITERS: dict[str, Callable[[Song, tuple[Note, ...], Path], None]] = {
    ".mid": write_midi,
    ".midi": write_midi,
    ".wav": write_wav,
}


def register(app: typer.Typer) -> None:
    """Add the verb."""

    @app.command()
    def compose(
        prompt: PromptArgument,
        output: Annotated[
            list[Path] | None,
            typer.Option("-o", "--output", help=f"A file to write ({', '.join(WRITERS)}); repeatable."),
        ] = None,
        form: Annotated[str | None, typer.Option(help="Sections by letter.", show_default=DEFAULT_FORM)] = None,
        bars: Annotated[int | None, typer.Option(help="Bars in all.", show_default="8 a section")] = None,
        chords: Annotated[
            int | None, typer.Option(help="Just so many chords after the prompt, a bar each; no form.", min=1)
        ] = None,
        key: KeyOption = None,
        tempo: Annotated[
            float | None,
            typer.Option(
                help="Quarter notes a minute.",
                show_default=f"by genre; {DEFAULT_TEMPO:g} for {DEFAULT_GENRE}",
                min=MIN_TEMPO,
                max=MAX_TEMPO,
            ),
        ] = None,
        meter: Annotated[str, typer.Option(help="Such as 3/4 or 6/8.")] = "4/4",
        genre: Annotated[str, typer.Option(help=f"One of {', '.join(GENRES)}.")] = DEFAULT_GENRE,
        title: Annotated[str, typer.Option(help="The song's title.")] = "",
        greedy: GreedyOption = False,
        temperature: TemperatureOption = DEFAULT_SAMPLING.temperature,
        top_k: TopKOption = DEFAULT_SAMPLING.top_k,
        top_p: TopPOption = DEFAULT_SAMPLING.top_p,
        seed: SeedOption = 0,
        model: ModelOption = "chords",
        as_json: JsonOption = False,
    ) -> None:
        """Write a song that begins with the given chords: print its chart, write MIDI and sound.

        Example: etude compose "D A Bm F#m" -o song.mid -o song.wav
        """
        outputs = output or []
        for path in outputs:
            _check_output(path)
        loaded = load_chords(model)
        result = write_song(
            read_prompt_text(prompt),
            loaded,
            bars=bars,
            form=form,
            chords=chords,
            key=read_key(key),
            tempo=tempo,
            meter=Meter.parse(meter),
            genre=genre,
            sampling=read_sampling(greedy, temperature, top_k, top_p),
            seed=seed,
            title=title,
        )
        song = result.song
        warn_unfamiliar(result.unfamiliar, song.key, [loaded.tokenizer.nearest(c) for c in result.unfamiliar])
        if song.seconds > MAX_SECONDS and any(path.suffix.lower() == ".wav" for path in outputs):
            raise EtudeError(
                f"the song lasts {song.seconds:,.0f} seconds; sound is made for at most {MAX_SECONDS:,.0f}"
            )
        notes = arrange(song, seed) if outputs else ()
        for path in outputs:
            WRITERS[path.suffix.lower()](song, notes, path)
        if as_json:
            print_json(
                {
                    "prompt": [song.key.name(chord) for chord in result.prompt],
                    "chords": [song.key.name(chord) for chord in result.continuation],
                    "key": str(song.key),
                    "tempo": song.tempo,
                    "meter": str(song.meter),
                    "sections": [
                        {
                            "label": section.label,
                            "bars": [" ".join(song.key.name(chord) for chord, _ in bar.chords) for bar in section.bars],
                        }
                        for section in song.sections
                    ],
                    "bars": len(song.bars),
                    "seconds": song.seconds,
                    "seed": seed,
                    "files": [str(path) for path in outputs],
                }
            )
            return
        print(render(song, max(MIN_WIDTH, min(100, shutil.get_terminal_size((80, 24)).columns))))
        for path in outputs:
            say(f"wrote {path} ({path.stat().st_size:,} bytes)")


def _check_output(path: Path) -> None:
    """Refuse what cannot be written before anything is made."""
    if path.suffix.lower() not in WRITERS:
        raise typer.BadParameter(f"{path}: cannot write this kind of file; known: {', '.join(WRITERS)}")
    if path.is_dir():
        raise EtudeError(f"{path} is a folder; name a file in it")
    if not path.parent.is_dir():
        raise EtudeError(f"{path.parent}: no such folder; make it first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise EtudeError(f"{path}: no permission to write there")
