"""What can be said of a number in a file: whether it is prime, by which proof, and what it carries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .certificate import CertificateError, check, read_certificate
from .number import PrimeError, decode, read_number_file
from .packing import facts
from .primality import ROUNDS, gmp, is_probable_prime
from .search import power_seconds

_TESTS = 3 + ROUNDS  # in powers: Baillie-PSW is worth some three
_LONG = 10.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `etude prime verify --json` prints, and `fault`, why the number is not what it should be, or None."""

    document: dict[str, Any]
    fault: str | None


def verify_file(path: Path, say: Callable[[str], None] = lambda message: None) -> Verdict:
    """Test the number in a file, check its certificate, and open it.

    The document is {"prime": "no", "probable" or "proved", "digits", "bits", "bytes", "offset", "program_bytes",
    "sha256": of the program, "gzip_bytes", "free_bytes", "certificate"}. `say` hears of a test that takes long. Raises
    `PrimeError` for what is no number.
    """
    file = read_number_file(path)
    document: dict[str, Any] = {"prime": "no", **facts(file), "certificate": None}
    faults = []
    try:
        certificate = read_certificate(file.remarks)
    except CertificateError as error:
        certificate, faults = None, [str(error)]
    if certificate is not None:
        library = gmp()
        try:
            check(file.number if library is None else library.mpz(file.number), certificate)
            document |= {"prime": "proved", "certificate": str(certificate)}
        except CertificateError as error:
            faults.append(str(error))
    if document["prime"] == "no":  # what is proved need not be tested
        seconds = _TESTS * power_seconds(document["bits"])
        if seconds > _LONG:
            say(f"testing {document['digits']:,} digits: some {seconds:,.0f} s if it is prime, less if not")
        if is_probable_prime(file.number):
            document["prime"] = "probable"
        else:
            faults = ["it is not prime"]
    try:
        decode(file.number)
    except PrimeError as error:
        faults.append(str(error))
    return Verdict(document, "; ".join(faults) or None)
