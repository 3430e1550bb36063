"""`etude prime`: a program, or a trained model, as a prime number, and back."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from etude.errors import EtudeError
from etude.files import atomic_write

from . import prime_song
from .options import JsonOption, SeedOption, check_folder, check_not_read, check_unused, print_json, say

if TYPE_CHECKING:
    from etude.prime.models import Rounded

FileArgument = Annotated[
    Path, typer.Argument(help="A file with the number: decimal, or hexadecimal after 0x, or pack's JSON.")
]
_TEXT, _PICTURES = (".prime", ".txt", ".hex"), (".svg", ".png")
_QR_DIGITS = 7089  # of the largest QR code, version 40 with error correction L (ISO/IEC 18004, table 7)
_LINE_SECONDS = 5.0
_OF_PROGRAMS = ("minify", "check", "given", "seconds")
_OF_MODELS = ("corpus", "within", "samples", "temperature", "seed", "quantized_model")
"""Options of `pack` that only the one or the other looks at."""

_MEANS_PROBABLE = (
    "probable prime: it passed Baillie-PSW and {rounds} Miller-Rabin rounds, which no composite is known to do; "
    "that is no proof"
)


def register(app: typer.Typer) -> None:
    """Add the verbs below `prime`."""
    prime = typer.Typer(
        name="prime",
        help="A program or a small model as a prime number, and back.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    app.add_typer(prime)
    _register_pack(prime)
    _register_verify(prime)
    _register_prove(prime)
    _register_run(prime)
    prime_song.register(prime)


def _register_pack(app: typer.Typer) -> None:
    @app.command()
    def pack(
        context: typer.Context,
        program: Annotated[
            Path | None, typer.Argument(help="A Python program; micro is the one of this package.", metavar="PROGRAM")
        ] = None,
        model: Annotated[
            Path | None, typer.Option(help="Pack a trained model of the architecture micro and what runs it instead.")
        ] = None,
        output: Annotated[
            list[Path] | None,
            typer.Option(
                "-o",
                "--output",
                help="gpt.prime or .txt for the digits, .hex, .json, or .svg or .png for a QR code; repeatable.",
                show_default="the digits on standard output",
            ),
        ] = None,
        hexadecimal: Annotated[bool, typer.Option("--hex", help="Digits of .prime and .txt in hexadecimal.")] = False,
        proven: Annotated[
            bool, typer.Option("--proven", help="A longer prime, with a certificate that proves it.")
        ] = False,
        minify: Annotated[bool, typer.Option(help="Whether the program is made shorter before.")] = True,
        check: Annotated[
            bool, typer.Option(help="Whether it is run as it was and minified, to see that both print the same.")
        ] = True,
        given: Annotated[
            Path | None, typer.Option("--input", help="A file that the program finds as input.txt.")
        ] = None,
        seconds: Annotated[
            float, typer.Option(help="The longest that each is run for the check.", min=0.1, max=1e6)
        ] = 60.0,
        corpus: Annotated[
            list[Path] | None,
            typer.Option(
                help="With --model: texts to measure the rounding on; repeatable.", show_default="the model's own"
            ),
        ] = None,
        within: Annotated[
            float, typer.Option(help="With --model: nats a token that the rounding may cost.", min=1e-4, max=10)
        ] = 0.02,
        samples: Annotated[
            int, typer.Option("-n", "--n", help="With --model: how many samples it prints.", min=1, max=10_000)
        ] = 20,
        temperature: Annotated[
            float, typer.Option(help="With --model: above 1 bolder, below 1 safer.", min=0.1, max=100)
        ] = 1.0,
        seed: SeedOption = 0,
        quantized_model: Annotated[
            Path | None,
            typer.Option(help="With --model: the rounded model as a directory, of which etude generate prints this."),
        ] = None,
        jobs: Annotated[int | None, typer.Option(help="Searches at once.", min=1, show_default="all cores")] = None,
        as_json: JsonOption = False,
    ) -> None:
        """Make a program a prime number: minified, compressed, and followed by what makes it prime.

        Stopped, the search goes on where it was when it is started again with the same -o.

        Example: etude prime pack program.py -o program.prime

        Example: etude prime pack --model my-names -o names.prime -o names.svg
        """
        from etude.prime import packing

        if (program is None) == (model is None):
            raise typer.BadParameter("give a PROGRAM or --model DIR, one of the two")
        unused, why = (_OF_MODELS, "is for --model") if model is None else (_OF_PROGRAMS, "is for a PROGRAM")
        check_unused(context, unused, why)
        outputs = output or []
        for path in outputs:
            if path.suffix not in (*_TEXT, *_PICTURES, ".json"):
                known = ", ".join((*_TEXT, ".json", *_PICTURES))
                raise typer.BadParameter(f"{path}: what to write is told by the name's end: {known}")
            check_folder(path)
            check_not_read(path, [each for each in (program, given, *(corpus or [])) if each is not None])
        if any(path.suffix in _PICTURES for path in outputs):
            packing.qr_code(1, "svg")  # whether one can be drawn here, before the search
        told: dict[str, Any] = {}
        rounded = None
        if program is not None:
            content = _program(program, minify, check, given, seconds)
        else:
            assert model is not None
            if quantized_model is not None and quantized_model.exists():
                raise EtudeError(f"{quantized_model}: exists already; name a new folder, or take that one away")
            content, rounded, told = _model(model, corpus or [], within, seed, samples, temperature)
        member = packing.gzip_member(content)
        say(f"compressed: {len(member):,} bytes")
        if any(path.suffix in _PICTURES for path in outputs):
            _check_code(packing.digits_at_least(member, proven))
        state = outputs[0].with_name(f".{outputs[0].name}.search") if outputs else None
        with _Search() as report:
            packed = packing.find(member, proven, state, jobs, report)
        document = packing.facts(packed.file())
        proof = "proved" if packed.certificate else "probable"
        say(
            f"a prime of {document['digits']:,} digits, {document['bits']:,} bits, {proof}: "
            f"{packed.tests:,} tests, {packed.seconds:.1f} s"
        )
        written = {
            "number": packing.digits_of(packed.number, hexadecimal),
            "remarks": list(packed.file().remarks),
            "prime": proof,
            **document,
            **told,
            "tests": packed.tests,
            "made_with": packing.versions(),
            "check": [
                "etude prime verify FILE tests it and says what is in it; etude prime run FILE runs that",
                "in Python: import zlib; n = int(number); "
                "zlib.decompress(n.to_bytes((n.bit_length() + 7) // 8, 'big'), 31)",
            ],
        }
        for path in sorted(outputs, key=lambda path: path.suffix in _PICTURES):  # the digits first
            _write(path, packed, hexadecimal, written)
        if rounded is not None and quantized_model is not None:
            from etude.prime.models import save_rounded

            save_rounded(rounded, quantized_model, Path(model or "").resolve().name)
            say(f"{quantized_model}: the rounded model; etude generate prints what the prime's program prints")
        if as_json:
            print_json({**written, "seconds": round(packed.seconds, 3), "files": [str(path) for path in outputs]})
        elif not outputs:
            sys.stdout.write(packing.text_of(packed.file(), hexadecimal))


def _program(path: Path, minify: bool, check: bool, given: Path | None, seconds: float) -> bytes:
    """The bytes to be compressed: the program, or a shorter one that does the same."""
    from etude.prime import checking, packing
    from etude.prime.number import MAX_PROGRAM_BYTES, PrimeError
    from etude.prime.running import Limits

    if str(path) == "micro" and not path.exists():
        content = packing.bundled("micro.py")
    else:
        with open(path, "rb") as file:
            content = file.read(MAX_PROGRAM_BYTES + 1)
    if len(content) > MAX_PROGRAM_BYTES:
        raise PrimeError(f"{path}: larger than {MAX_PROGRAM_BYTES >> 20} MiB")
    if not minify:
        return content
    try:
        shorter = packing.shortest(content)
    except PrimeError as error:
        raise PrimeError(f"{path}: {error}") from error
    say(f"{path}: {len(content):,} bytes, minified {len(shorter):,}")
    if check and shorter != content:
        limits = Limits(seconds=seconds)
        say("running it as it was and minified, with the limits of etude prime run (--no-check does without)")
        say(checking.compare(checking.run(content, limits, given), checking.run(shorter, limits, given), str(path)))
    return shorter


def _model(
    directory: Path,
    corpus: list[Path],
    within: float,
    seed: int,
    samples: int,
    temperature: float,
) -> tuple[bytes, Rounded, dict[str, Any]]:
    """The program that a model becomes, the rounded model, and what was measured of it."""
    from etude.prime import checking, models, packing
    from etude.prime.number import PrimeError
    from etude.prime.running import Limits

    rounded = models.round_model(directory, within, corpus, say)
    before, after = rounded.loss
    on = "the corpus" if corpus else "the model's own texts"
    count = sum(each.size for each in rounded.numbers.values())
    say(
        f"{directory}: {count:,} weights in {rounded.bits:.2f} bits each; "
        f"{rounded.divergence:.4f} nats a token away; loss on {on} {before:.4f}, rounded {after:.4f}"
    )
    source = models.program(rounded, seed, samples, temperature)
    content = packing.shortest(source.encode())
    expected = models.written(rounded, seed, samples, temperature)
    ran = checking.run(content, Limits(seconds=600), None)
    if ran.ended.stopped:
        raise PrimeError(f"{directory}: the program was stopped before its end: {ran.ended.stopped}")
    if ran.output.decode("utf-8", "replace") != expected:
        raise PrimeError(
            f"{directory}: the program prints something else than the rounded model; choose another --seed"
        )
    say(f"the program prints the same {samples:,} samples as the rounded model")
    told = {
        "loss": {"before": before, "after": after, "tokens": rounded.tokens, "on": on},
        "divergence": rounded.divergence,
        "bits_per_weight": rounded.bits,
    }
    return content, rounded, told


def _check_code(digits: int) -> None:
    """Refuse a QR code before the search for a number that none holds."""
    if digits > _QR_DIGITS:
        raise EtudeError(
            f"a QR code holds at most {_QR_DIGITS:,} digits, and the prime will have {digits:,}; leave out the picture"
        )


def _write(path: Path, packed: Any, hexadecimal: bool, document: dict[str, Any]) -> None:
    """One file, of the kind that its name says."""
    import json

    from etude.prime import packing

    if path.suffix in _PICTURES:
        content = packing.qr_code(packed.number, path.suffix.removeprefix("."))
    elif path.suffix == ".json":
        content = (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()
    else:
        content = packing.text_of(packed.file(), hexadecimal or path.suffix == ".hex").encode()
    with atomic_write(path) as file:
        file.write(content)
    say(f"{path}: {len(content):,} bytes")


def _register_verify(app: typer.Typer) -> None:
    @app.command()
    def verify(file: FileArgument, as_json: JsonOption = False) -> None:
        """Test whether a number is prime, check its certificate where it has one, and say what program it is.

        Exit status 1 where it is not prime, or carries no program.

        Example: etude prime verify gpt.prime
        """
        from etude.prime.verifying import verify_file

        verdict = verify_file(file, say)
        if as_json:
            print_json(verdict.document)
        else:
            _show(verdict.document)
        if verdict.fault:
            raise EtudeError(f"{file}: {verdict.fault}")


def _show(document: dict[str, Any]) -> None:
    """A verdict as lines."""
    from etude.prime.primality import ROUNDS

    prime = {
        "no": "not prime",
        "probable": _MEANS_PROBABLE.format(rounds=ROUNDS),
        "proved": f"proved prime by its {document.get('certificate')}",
    }[document["prime"]]
    print(prime)
    print(f"number    {document['digits']:,} digits, {document['bits']:,} bits, {document['bytes']:,} bytes")
    if document["sha256"] is None:
        return
    offset = document["offset"]
    shown = f"{offset:,}" if isinstance(offset, int) else f"a number of {len(offset):,} digits"
    print(f"gzip      {document['gzip_bytes']:,} bytes, then {document['free_bytes']:,} free: offset {shown}")
    print(f"program   {document['program_bytes']:,} bytes, sha256 {document['sha256']}")


def _register_prove(app: typer.Typer) -> None:
    @app.command()
    def prove(
        file: FileArgument,
        output: Annotated[
            Path | None,
            typer.Option(
                "-o", "--output", help="Write the number with its certificate.", show_default="the certificate alone"
            ),
        ] = None,
        hexadecimal: Annotated[bool, typer.Option("--hex", help="Digits in hexadecimal.")] = False,
    ) -> None:
        """Make a certificate that proves a number prime, where a third of the number less 1 can be factored.

        That is so for those of pack --proven, should they have lost theirs, and for small ones.

        Example: etude prime prove gpt.prime -o proved.prime
        """
        from etude.prime import packing
        from etude.prime.number import NumberFile, PrimeError, read_number_file
        from etude.prime.proving import prove_number

        if output is not None:
            check_folder(output)
        number = read_number_file(file).number
        try:
            certificate = prove_number(number, say)
        except PrimeError as error:
            raise EtudeError(f"{file}: {error}") from error
        if output is None:
            print(f"# {certificate}")
            return
        with atomic_write(output) as target:
            target.write(packing.text_of(NumberFile(number, (str(certificate),)), hexadecimal).encode())
        say(f"{output}: proved by its {certificate}")


def _register_run(app: typer.Typer) -> None:
    @app.command()
    def run(
        file: FileArgument,
        yes: Annotated[bool, typer.Option("--yes", "-y", help="Run it without asking.")] = False,
        given: Annotated[
            Path | None, typer.Option("--input", help="A file that the program finds as input.txt.")
        ] = None,
        seconds: Annotated[float, typer.Option(help="The longest that it may run.", min=0.1, max=1e6)] = 600.0,
        memory: Annotated[int, typer.Option(help="MiB of memory that it may take.", min=32, max=1 << 20)] = 1024,
        show: Annotated[bool, typer.Option(help="Whether the program is shown before.")] = True,
    ) -> None:
        """Show the program in a number, ask, and run it: apart, without environment, with limits.

        What it may not do keeps accidents in check. It is no sandbox: a program written to break out has your rights.

        Example: etude prime run gpt.prime --input names.txt
        """
        from etude.prime.number import PrimeError, decode, read_number
        from etude.prime.running import Limits, run_program

        number = read_number(file)
        try:
            payload = decode(number)
        except PrimeError as error:
            raise EtudeError(f"{file}: {error}") from error
        if given is not None and not given.is_file():
            raise EtudeError(f"{given}: no such file")
        if show:
            print(_harmless(payload.program), file=sys.stderr)
            say(f"sha256 {payload.sha256}")
        if not yes:
            if not sys.stdin.isatty():
                raise EtudeError(f"{file}: nobody is there to be asked whether to run this; --yes runs it")
            say("It is run apart and with limits, but with your rights: this is no sandbox.")
            typer.confirm("Run it?", abort=True, err=True)
        ended = run_program(payload.program, Limits(seconds, memory), _print, given)
        if ended.stopped:
            raise EtudeError(f"{file}: the program was stopped: {ended.stopped}")
        if ended.status:
            raise EtudeError(f"{file}: the program failed, with status {ended.status}")


def _harmless(content: bytes) -> str:
    """Text without what a terminal would obey."""
    text = content.decode("utf-8", "replace")
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "\N{REPLACEMENT CHARACTER}" for sign in text)


def _print(content: bytes) -> None:
    """What a program prints, as it comes; a terminal gets no more than text."""
    sys.stdout.flush()
    if sys.stdout.isatty():
        sys.stdout.write(_harmless(content))
        sys.stdout.flush()
    else:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()


class _Search:
    """A search shown: on a terminal a line that changes, elsewhere a line now and then."""

    def __enter__(self) -> _Search:
        from rich.console import Console

        self.status = Console(stderr=True).status("sieving") if sys.stderr.isatty() else None
        if self.status:
            self.status.start()
        self.said = time.monotonic()
        return self

    def __exit__(self, *failure: object) -> None:
        if self.status:
            self.status.stop()

    def __call__(self, progress: Any) -> None:
        rate = progress.tested / progress.seconds if progress.seconds else 0.0
        left = f", {progress.expected / rate:,.0f} s" if rate else ""
        text = f"{progress.tested:,} tests done, {progress.expected:,.0f} more expected{left} ({rate:.2g} tests/s)"
        if self.status:
            self.status.update(text)
        elif time.monotonic() > self.said + _LINE_SECONDS:
            self.said = time.monotonic()
            say(text)
