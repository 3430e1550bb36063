"""A corpus for tokenizers: one is learnt of it, or several are compared on it. Text as all here read it, or songs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

from etude.tokens.bpe import blank_edge
from etude.tokens.bpe_training import Progress, train_bpe
from etude.tokens.bytes import ByteTokenizer
from etude.tokens.characters import CharTokenizer
from etude.tokens.chords import ChordTokenizer
from etude.tokens.comparison import Passage, song_passage, text_passage
from etude.tokens.patterns import PatternName
from etude.tokens.tokenizer import TextTokenizer, TokenizerError, in_parts

from .chord_text import key_of
from .lines import CorpusError, Watch
from .songs import is_songs, read_songs
from .text import Source, documents, find_sources

Kind = Literal["char", "plain", "byte", "bpe", "chord"]
KINDS: tuple[Kind, ...] = get_args(Kind)
VOCAB_SIZE = 8192  # of BPE, unless it is told
_PART, _MAX_PART = 1 << 16, 1 << 20  # characters of a text that are looked at together


def learn_tokenizer(
    corpus: Sequence[Path],
    kind: Kind,
    vocab_size: int = VOCAB_SIZE,
    pattern: PatternName = "gpt2",
    say: Callable[[str], None] = lambda message: None,
    watch: Watch = lambda count: None,
    progress: Progress | None = None,
    leave_out: Path | None = None,
) -> TextTokenizer | ChordTokenizer:
    """A tokenizer of what a corpus holds; all of text is read once, in pieces.

    Of text `char` takes every character and says all others in bytes, `plain` takes its characters alone, and `bpe`
    learns merges, of which there are `vocab_size` - 257 at most, in pieces cut by `pattern`; `byte` reads none of it.
    `chord` takes the chord shapes of songs in JSON lines. `watch` hears of bytes read, `progress`, in another thread,
    how far the learning is. A folder's `leave_out` is not read. Raises `CorpusError` or `TokenizerError`.
    """
    if kind == "chord":
        try:
            return ChordTokenizer.train(song.changes for path in corpus for song in read_songs(path))
        except CorpusError as error:
            raise CorpusError(f"{error}; the kind chord is learnt of songs in JSON lines") from error
    sources = find_sources(corpus, leave_out, say)
    if kind == "byte":  # the same for every corpus
        return ByteTokenizer()
    if kind == "bpe":
        return train_bpe(_documents(sources, watch), vocab_size, pattern, progress=progress)
    texts = (piece for document in _documents(sources, watch) for piece in document)
    found = CharTokenizer.train(texts, byte_fallback=kind == "char")
    if not found.characters:
        raise TokenizerError("no text to take characters from")
    return found


def _documents(sources: Sequence[Source], watch: Watch) -> Iterator[Iterator[str]]:
    return (pieces for source in sources for _, pieces in documents(source, watch))


def read_passages(corpus: Path, say: Callable[[str], None] = lambda message: None) -> Iterator[Passage]:
    """What tokenizers are compared on: every song of a collection, or all of a text, in pieces.

    JSON lines are songs where the first of them has `chords`. Raises `CorpusError`.
    """
    if is_songs(corpus):
        for song in read_songs(corpus):
            yield song_passage(song.changes, key_of(song))
        return
    for document in _documents(find_sources([corpus], None, say), lambda count: None):
        begins = True
        for text in in_parts(document, blank_edge, _PART, _MAX_PART):
            yield text_passage(text, begins)
            begins = False
