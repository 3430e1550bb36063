"""Tokenizers of files: each kind, read in any of the ways in which a corpus comes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from etude.corpus.lines import CorpusError
from etude.corpus.songs import read_songs
from etude.corpus.vocabulary import learn_tokenizer, read_passages
from etude.tokens.bpe import BPETokenizer
from etude.tokens.bpe_training import train_bpe
from etude.tokens.bytes import ByteTokenizer
from etude.tokens.characters import CharTokenizer
from etude.tokens.chords import ChordTokenizer
from etude.tokens.comparison import compare
from etude.tokens.tokenizer import TokenizerError

from ..conftest import SONGS

TEXT = "Verse: C G Am F (2x) é\nSpeak, speak! " * 4


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_every_kind(text_file: Path, songs_file: Path) -> None:
    assert learn_tokenizer([text_file], "char") == CharTokenizer.train([TEXT], byte_fallback=True)
    assert learn_tokenizer([text_file], "plain") == CharTokenizer.train([TEXT])
    assert learn_tokenizer([text_file], "byte") == ByteTokenizer()
    assert learn_tokenizer([songs_file], "chord") == ChordTokenizer.train(
        song.changes for song in read_songs(songs_file)
    )
    bpe = learn_tokenizer([text_file], "bpe", 270, "chords")
    assert isinstance(bpe, BPETokenizer) and (bpe.vocab_size, bpe.pattern) == (270, "chords")


def test_however_a_corpus_comes_the_bytes_are_the_same(tmp_path: Path, text_file: Path) -> None:
    plain = learn_tokenizer([text_file], "bpe", 280).to_json()
    packed = tmp_path / "text.gz"
    packed.write_bytes(gzip.compress(TEXT.encode()))
    lines = tmp_path / "text.jsonl"
    lines.write_text(json.dumps({"text": TEXT}) + "\n", encoding="utf-8")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.txt").write_text(TEXT, encoding="utf-8")
    for other in (packed, lines, folder):
        assert learn_tokenizer([other], "bpe", 280).to_json() == plain
    heard = list[int]()
    learn_tokenizer([text_file], "bpe", 280, watch=heard.append)
    assert sum(heard) == text_file.stat().st_size


def test_documents_do_not_join(tmp_path: Path) -> None:
    path = tmp_path / "two.jsonl"
    path.write_text('{"text": "ab"}\n{"text": "cd"}\n' * 3, encoding="utf-8")
    bpe = learn_tokenizer([path], "bpe", 300)
    assert isinstance(bpe, BPETokenizer) and bpe.encode("abcd") == [256, 257]


def test_songs_are_known_by_their_chords(tmp_path: Path, songs_file: Path, text_file: Path) -> None:
    packed = tmp_path / "songs.jsonl.gz"
    packed.write_bytes(gzip.compress(SONGS.encode()))
    for path in (songs_file, packed):
        passages = list(read_passages(path))
        assert all(passage.is_song for passage in passages)
        assert [passage.text for passage in passages] == [
            "D A Bm G D A7 D",
            "Cm7 Fm7 Dm7b5 G7b9 Cm7 N.C. Cm7/Bb",
            "E A E B7 A E A E",
        ]
    lines = tmp_path / "text.jsonl"
    lines.write_text(json.dumps({"text": "C G"}) + "\n" + json.dumps({"text": "Am"}) + "\n", encoding="utf-8")
    assert [(passage.text, passage.begins) for passage in read_passages(lines)] == [("C G", True), ("Am", True)]
    assert [passage.is_song for passage in read_passages(text_file)] == [False]


def test_faults(tmp_path: Path, text_file: Path) -> None:
    with pytest.raises(CorpusError, match=r"text.txt, line 1: not JSON .*; the kind chord is learnt of songs"):
        learn_tokenizer([text_file], "chord")
    nothing = tmp_path / "none.jsonl"
    nothing.write_text("", encoding="utf-8")
    with pytest.raises(CorpusError, match="no documents in it"):
        list(read_passages(nothing))
    (tmp_path / "bom.txt").write_bytes(b"\xef\xbb\xbf")
    with pytest.raises((CorpusError, TokenizerError), match=r"empty|no text"):
        learn_tokenizer([tmp_path / "bom.txt"], "char")


def test_a_tokenizer_of_chords_needs_the_fewest_tokens_a_chord(shared_chords: Path, shared_gpt2: Path) -> None:
    """On real songs, beside GPT-2's own and one that was learnt from other songs."""
    songs = list(read_passages(shared_chords / "valid.jsonl.gz"))
    text = "\n".join(song.text for song in songs)
    path = shared_chords / "test.jsonl.gz"
    found = compare(
        {
            "gpt2": BPETokenizer.from_path(shared_gpt2),
            "gpt2 pattern": train_bpe([[text]], 1024),
            "chords pattern": train_bpe([[text]], 1024, "chords"),
            "chords": learn_tokenizer([path], "chord"),
        },
        read_passages(path),
    )
    figures = [row["tokens_per_chord"] for row in found["rows"]]
    assert figures == sorted(figures, reverse=True)
    assert figures[0] == pytest.approx(2.389, abs=0.001)
    assert figures[2] < 1.2 and figures[3] == 1
    shares = [row["one_token_chords"] for row in found["rows"]]
    assert shares[0] < shares[1] < 0.5 and 0.8 < shares[2] < shares[3] == 1
