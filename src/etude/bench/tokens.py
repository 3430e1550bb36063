"""Learning a BPE vocabulary of 20,000 from 100 MB of text, beside the `tokenizers` library alone with equal settings.

Each is a process of its own and reads the text from a file: the library by itself, line by line, and in large parts
cut as here, of which it must learn the same merges. The text is made here, always the same: words of random
syllables, as frequent as words are (Zipf's law), in sentences and paragraphs.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from etude.corpus.text import documents, find_sources
from etude.corpus.vocabulary import learn_tokenizer
from etude.errors import EtudeError
from etude.tokens.bpe import blank_edge
from etude.tokens.bpe_training import MAX_PART, PART
from etude.tokens.tokenizer import in_parts

VOCAB_SIZE = 20_000
MEGABYTES = 100
SUBJECTS = ("etude", "tokenizers, of the file", "tokenizers, in large parts")
ROUNDS = 3
_WORDS, _BATCH = 400_000, 200_000
_ONSETS = ("", "b", "br", "ch", "d", "f", "g", "h", "k", "l", "m", "n", "p", "qu", "r", "s", "st", "t", "tr", "v", "z")
_RHYMES = ("a", "an", "ar", "e", "en", "er", "i", "in", "is", "o", "on", "or", "u", "um", "y", "é", "ö", "ou", "ea")
_UNIT = 1 << 20 if sys.platform == "darwin" else 1 << 10  # in which the system counts memory, to MiB

Row = dict[str, Any]


def bench(corpus: Path | None = None, report: Callable[[str], None] = lambda remark: None) -> list[Row]:
    """The rows of `etude bench tokens`, of a text file or of 100 MB that are made. Raises `EtudeError`."""
    with tempfile.TemporaryDirectory() as folder:
        path = corpus
        if path is None:
            report(f"making {MEGABYTES} MB of text")
            path = Path(folder) / "words.txt"
            write_words(path, MEGABYTES * 10**6)
        try:
            size = path.stat().st_size / 1e6
        except OSError as error:
            raise EtudeError(f"{path}: cannot be read ({error.strerror})") from error
        found: dict[str, list[dict[str, Any]]] = {subject: [] for subject in SUBJECTS}
        for turn in range(ROUNDS):  # in turns, since a machine's speed drifts by more than they differ
            for subject in SUBJECTS:
                report(f"{subject}: {size:,.1f} MB, round {turn + 1} of {ROUNDS}")
                found[subject].append(_apart(subject, path))
    rows = list[Row]()
    for subject, rounds in found.items():
        seconds, processor = (median(each[name] for each in rounds) for name in ("seconds", "processor"))
        rows.append({"subject": subject, "metric": "learning", "value": seconds, "unit": "s"})
        rows.append({"subject": subject, "metric": "text", "value": size / seconds, "unit": "MB/s"})
        rows.append({"subject": subject, "metric": "processor time", "value": processor, "unit": "s"})
        memory = max(each["memory"] for each in rounds)
        rows.append({"subject": subject, "metric": "most memory", "value": memory, "unit": "MiB"})
    for other in SUBJECTS[1:]:
        pairs = zip(found[other], found["etude"], strict=True)
        times = median(theirs["seconds"] / ours["seconds"] for theirs, ours in pairs)
        rows.append({"subject": "etude", "metric": f"speed over {other}", "value": times, "unit": "times"})
    merges, theirs = found["etude"][0]["merges"], found[SUBJECTS[2]][0]["merges"]
    same = sum(a == b for a, b in zip(merges, theirs, strict=False))
    rows.append({"subject": "etude", "metric": "merges", "value": len(merges), "unit": "merges"})
    return [*rows, {"subject": "etude", "metric": "merges that are the library's", "value": same, "unit": "merges"}]


def write_words(path: Path, size: int) -> None:
    """Write `size` bytes of made-up text, and what is left of the last line."""
    rng = np.random.default_rng(0)
    words = _words(rng)
    chance = 1 / (np.arange(len(words)) + 2.7)
    bounds = np.cumsum(chance / chance.sum())
    written = 0
    with path.open("wb") as file:
        while written < size:
            drawn = words[np.searchsorted(bounds, rng.random(_BATCH)).clip(max=len(words) - 1)]
            marks = rng.random(_BATCH)
            drawn = np.where(marks < 0.06, drawn + ",", np.where(marks < 0.12, drawn + ".", drawn))
            drawn[marks > 0.99] = rng.integers(2000, size=int((marks > 0.99).sum())).astype(str)
            drawn[np.flatnonzero((marks[:-1] >= 0.06) & (marks[:-1] < 0.12)) + 1] = "And"
            lines = (" ".join(drawn[start : start + 100]) for start in range(0, _BATCH, 100))
            content = ("\n".join(lines) + "\n").encode()
            file.write(content)
            written += len(content)


def _words(rng: np.random.Generator) -> Any:
    """[n] distinct words, the most frequent first."""
    onsets, rhymes = np.array(_ONSETS, object), np.array(_RHYMES, object)
    words = dict[str, None]()
    while len(words) < _WORDS:
        for syllables in (1, 2, 2, 3, 3, 3, 4):
            count = 20 if syllables == 1 else 2000
            made = sum(
                (rng.choice(onsets, count) + rng.choice(rhymes, count) for _ in range(syllables)), np.array("", object)
            )
            words |= dict.fromkeys(made.tolist())
    return np.array([*words][:_WORDS], object)


def measure(subject: str, path: Path) -> dict[str, Any]:
    """Learn in this process: seconds, those of processors, MiB of it and the largest that it started, the merges."""
    import resource  # not on every system that the other benches run on

    begun = time.perf_counter()
    if subject == "etude":
        text = learn_tokenizer([path], "bpe", VOCAB_SIZE).to_json()
    else:
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            vocab_size=VOCAB_SIZE,
            min_frequency=2,
            show_progress=False,
            special_tokens=["<|endoftext|>"],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        )
        if subject == SUBJECTS[1]:
            tokenizer.train([str(path)], trainer)
        else:
            pieces = (piece for source in find_sources([path]) for _, found in documents(source) for piece in found)
            tokenizer.train_from_iterator(in_parts(pieces, blank_edge, PART, MAX_PART), trainer)
        text = tokenizer.to_str()
    seconds = time.perf_counter() - begun
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    memory, processor = sum(each.ru_maxrss for each in used), sum(each.ru_utime + each.ru_stime for each in used)
    pairs = [pair.split(" ") if isinstance(pair, str) else pair for pair in json.loads(text)["model"]["merges"]]
    return {"seconds": seconds, "processor": processor, "memory": memory / _UNIT, "merges": pairs}


def _apart(subject: str, path: Path) -> dict[str, Any]:
    """`measure` in a process of its own; where the system tells it, with the most memory of all that it started too."""
    # -P: a file of the current folder must not be taken for a module of Python's.
    command, most, pipe = [sys.executable, "-P", "-m", "etude.bench.tokens", subject, str(path)], 0.0, subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True) as process:
        while True:
            try:
                said, failed = process.communicate(timeout=0.1)
                break
            except subprocess.TimeoutExpired:
                most = max(most, _memory(process.pid))
            except BaseException:
                os.killpg(process.pid, signal.SIGKILL)
                raise
    if process.returncode:
        raise EtudeError(f"{subject} failed: {(failed.strip().splitlines() or ['without a word'])[-1]}")
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found | ({"memory": most} if most else {})


def _memory(group: int) -> float:
    """MiB that the processes of a group have in memory now; 0 where no /proc tells it."""
    pages = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        pages += int(fields[21]) if int(fields[2]) == group else 0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], Path(sys.argv[2]))))
