"""N-gram models: the mixture by hand and by a slow second author, the song's own past, and the file."""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from etude.training.ngram import NGramModel

VOCAB = 5
EDGE = np.array([0, 1, 0, 1, 4])  # tokens 2 and 3 are 0 and 1 reached from elsewhere

songs = st.lists(st.integers(-1, VOCAB - 1), max_size=12).map(lambda ids: np.array(ids, np.int64))
corpora = st.lists(songs, min_size=1, max_size=5).map(lambda found: [np.array([0, 1]), *found])
edges = st.sampled_from([None, EDGE])
weights = st.sampled_from([0, 1, 3])


def by_the_book(
    corpus: list[NDArray[np.int64]], past: list[int], order: int, edge: NDArray[np.int64] | None, song: int
) -> list[Fraction]:
    """Witten-Bell's recursion word for word, in fractions: the distribution of the token after `past`."""

    def context(tokens: list[int]) -> tuple[int, ...]:
        oldest = tokens[0] if edge is None or tokens[0] < 0 else int(edge[tokens[0]])
        return (oldest, *tokens[1:])

    counts: Counter[tuple[tuple[int, ...], int]] = Counter()
    for tokens, weight in [*((sequence.tolist(), 1) for sequence in corpus), (past, song)]:
        for length in range(order):
            for end in range(length, len(tokens)):
                if tokens[end] >= 0 and weight:
                    counts[context(tokens[end - length : end]) if length else (), tokens[end]] += weight
    row = [Fraction(1, VOCAB)] * VOCAB
    for length in range(min(order, len(past) + 1)):
        here = context(past[-length:]) if length else ()
        seen = {token: count for (before, token), count in counts.items() if before == here}
        if seen:
            total = sum(seen.values()) + len(seen)
            row = [(seen.get(token, 0) + len(seen) * shorter) / total for token, shorter in enumerate(row)]
    return row


def test_tiny_example_by_hand() -> None:
    model = NGramModel.fit([np.array([0, 1, 0, 2])], vocab_size=4, order=2)
    # Unigrams: c = 2, 1, 1, 0 of 4 with T = 3, so (c + 3/4) / 7 = 11/28, 7/28, 7/28, 3/28.
    # After 0 came 1 and 2, once each: (c + 2 P) / 4. After 1 came 0, once: (c + P) / 2. After 2 nothing: P.
    expected = np.array([[11 / 56, 21 / 56, 21 / 56, 3 / 56], [39 / 56, 7 / 56, 7 / 56, 3 / 56]])
    expected = np.vstack([expected, [11 / 28, 7 / 28, 7 / 28, 3 / 28]])
    np.testing.assert_allclose(model.predict(np.array([0, 1, 2, 3])), expected, rtol=1e-14)
    np.testing.assert_allclose(model.predict(np.array([0, 1]), order=1), [[11 / 28, 7 / 28, 7 / 28, 3 / 28]])


@given(corpora, songs, st.integers(1, 4), edges, weights)
def test_agrees_with_the_recursion_in_fractions(
    corpus: list[NDArray[np.int64]], song: NDArray[np.int64], order: int, edge: NDArray[np.int64] | None, weight: int
) -> None:
    rows = NGramModel.fit(corpus, VOCAB, order, edge).predict(song, song=weight)
    assert rows.shape == (max(len(song) - 1, 0), VOCAB)
    assert rows.dtype == np.float64
    for place, row in enumerate(rows, start=1):
        expected = by_the_book(corpus, song[:place].tolist(), order, edge, weight)
        np.testing.assert_allclose(row, [float(p) for p in expected], rtol=1e-12)


@given(corpora, songs, edges, weights)
def test_rows_sum_to_one_and_leave_no_token_out(
    corpus: list[NDArray[np.int64]], song: NDArray[np.int64], edge: NDArray[np.int64] | None, weight: int
) -> None:
    rows = NGramModel.fit(corpus, VOCAB, 4, edge).predict(song, song=weight)
    np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-12)
    assert (rows > 0).all()


@given(corpora, songs, st.integers(1, 4), edges)
def test_a_lower_order_is_the_model_of_that_order(
    corpus: list[NDArray[np.int64]], song: NDArray[np.int64], order: int, edge: NDArray[np.int64] | None
) -> None:
    lower = NGramModel.fit(corpus, VOCAB, order, edge)
    np.testing.assert_array_equal(
        NGramModel.fit(corpus, VOCAB, 4, edge).predict(song, order=order, song=1), lower.predict(song, song=1)
    )


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_a_later_token_never_changes_an_earlier_row(weight: float) -> None:
    chance = np.random.default_rng(3)
    model = NGramModel.fit([chance.integers(0, VOCAB, 200)], VOCAB, 3)
    song = chance.integers(0, VOCAB, 300)  # more than two blocks
    whole = model.predict(song, song=weight)
    for place in (1, 2, 127, 128, 129, 200, 299):
        changed = song.copy()
        changed[place:] = (changed[place:] + 1) % VOCAB
        rows = model.predict(changed, song=weight)
        np.testing.assert_array_equal(rows[:place], whole[:place])  # rows[i] is the distribution of token i + 1
        assert (rows[place : place + 1] != whole[place : place + 1]).any() or place == len(song) - 1


def test_blocks_are_the_rows_of_predict() -> None:
    chance = np.random.default_rng(4)
    model = NGramModel.fit([chance.integers(0, VOCAB, 200)], VOCAB, 3)
    song = chance.integers(-1, VOCAB, 300)
    blocks = list(model.blocks(song, order=2, song=2))
    assert [len(block) for block in blocks] == [128, 128, 43]
    np.testing.assert_array_equal(np.concatenate(blocks), model.predict(song, order=2, song=2))


def test_the_songs_own_past_copies_a_loop() -> None:
    chance = np.random.default_rng(5)
    model = NGramModel.fit([chance.integers(0, 40, 400)], 40, 5)
    loop = np.array([3, 17, 8, 22] * 8)
    place = np.arange(len(loop) - 1)
    without, once, heavy = (model.predict(loop, song=weight)[place, loop[1:]] for weight in (0, True, 100))
    assert without.max() < 0.1
    assert once[-1] > 0.99
    assert heavy[8:].min() > 0.99
    assert once[:3].max() < 0.1  # the first time round there is nothing to copy
    np.testing.assert_array_equal(model.predict(loop, song=1)[place, loop[1:]], once)


def test_the_edge_makes_an_ngram_the_same_in_every_key() -> None:
    # Tokens are interval * 2 + shape. What came before the two chords of the context does not matter, inside it does.
    edge = np.arange(24) % 2
    model = NGramModel.fit([np.array([0, 11, 4]), np.array([1, 14, 6])], 24, 3, edge)
    rows = [model.predict(np.array(start))[-1] for start in ([0, 11, 0], [8, 11, 0], [9, 11, 0], [0, 13, 0])]
    np.testing.assert_array_equal(rows[0], rows[1])
    assert rows[0][4] > rows[2][4] > rows[3][4] * 0.99
    twice = NGramModel.fit([np.array([0, 11, 4]), np.array([8, 11, 4])], 24, 3, edge)
    assert twice.counts.tolist() == [1, 1, 1, 1, 2]  # 0; 8; 0 11; 8 11; and one trigram, met twice
    plain = NGramModel.fit([np.array([0, 11, 4]), np.array([1, 14, 6])], 24, 3)
    assert (plain.predict(np.array([0, 11, 0])) != plain.predict(np.array([8, 11, 0]))).any()


def test_an_unsayable_token_is_never_counted_but_keeps_its_place() -> None:
    model = NGramModel.fit([np.array([0, -1, 1]), np.array([2, -1, -1])], 3, 3)
    assert model.predict(np.array([0, -1, 1]))[1].argmax() == 1  # learnt: after 0 and an unsayable comes 1
    # 0 and 1 are not neighbours when an unsayable stands between them, in training or in the song.
    np.testing.assert_array_equal(model.predict(np.array([0, 1]))[0], model.predict(np.array([1, 0]))[0])
    bare = NGramModel.fit([np.array([0, 1, 2])], 3, 1)
    rows = bare.predict(np.array([-1, -1, 0, 1]), song=1)
    np.testing.assert_allclose(rows[:2], 1 / 3, rtol=1e-14)
    assert rows[2].argmax() == 0


@given(corpora, songs, edges)
def test_a_loaded_model_is_the_saved_one(
    tmp_path_factory: pytest.TempPathFactory,
    corpus: list[NDArray[np.int64]],
    song: NDArray[np.int64],
    edge: NDArray[np.int64] | None,
) -> None:
    path = tmp_path_factory.mktemp("ngram") / "model.safetensors"
    model = NGramModel.fit(corpus, VOCAB, 3, edge)
    model.save(path)
    saved = path.read_bytes()
    again = NGramModel.load(path)
    assert (again.order, again.vocab_size) == (3, VOCAB)
    np.testing.assert_array_equal(again.predict(song, song=2), model.predict(song, song=2))
    NGramModel.fit(corpus[::-1], VOCAB, 3, edge).save(path)
    assert path.read_bytes() == saved


def test_a_large_vocabulary_and_large_counts_survive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    song = np.array([69_999, 0] * 40_000 + [65_536])
    model = NGramModel.fit([song], 70_000, 2)
    model.save(path)
    again = NGramModel.load(path)
    assert again.counts.max() == 40_000
    np.testing.assert_array_equal(again.counts, model.counts)
    np.testing.assert_array_equal(again.predict(song[-3:]), model.predict(song[-3:]))
    assert model.predict(song[-3:]).argmax(axis=1).tolist() == [0, 69_999]


def test_every_flipped_byte_and_every_cut_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    model = NGramModel.fit([np.array([0, 1, 2, 0, 1, 3])], VOCAB, 3)
    model.save(path)
    good = path.read_bytes()
    for place in range(len(good)):
        flipped = (good[:place] + bytes([good[place] ^ bits]) + good[place + 1 :] for bits in (0x01, 0x15, 0x80))
        for damaged in (good[:place], *flipped):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"\A[^\n]*model\.safetensors: not an n-gram model[^\n]*\Z"):
                NGramModel.load(path)


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("grams", np.array([[2], [0], [2]], np.uint16), "out of range"),  # a token before the start
        ("grams", np.array([[2], [2], [1]], np.uint16), "out of range"),  # an unsayable token predicted
        ("grams", np.array([[2], [2], [7]], np.uint16), "out of range"),
        ("counts", np.array([0], np.uint8), "out of range"),
        ("counts", np.array([1, 1], np.uint8), "do not fit together"),
        ("counts", np.array([[1]], np.uint8), "do not fit together"),
        ("grams", np.zeros((0, 1), np.uint16), "do not fit together"),
        ("grams", np.array([2], np.uint16), "do not fit together"),
        ("counts", np.array([1], np.int64), "unsigned"),
        ("edge", np.array([1, 2, 2, 3, 4], np.uint16), "name themselves"),
        ("edge", np.array([0, 1, 2, 3, 5], np.uint16), "name themselves"),
        ("more", np.array([1], np.uint8), "it holds"),
    ],
)
def test_a_well_formed_file_of_wrong_numbers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: NDArray[Any], line: str
) -> None:
    path = tmp_path / "model.safetensors"
    NGramModel.fit([np.array([0, 1, 2])], VOCAB, 3).save(path)
    tensors: dict[str, NDArray[Any]] = load_file(path)
    tensors["grams"], tensors["counts"] = np.array([[2], [3], [4]], np.uint16), np.array([1], np.uint8)
    tensors["checksum"] = np.array([0], np.uint32)
    monkeypatch.setattr("etude.training.ngram._checksum", lambda _: 0)
    save_file(tensors, path)
    NGramModel.load(path)  # these numbers are right
    save_file({**tensors, name: value}, path)
    with pytest.raises(ValueError, match=line):
        NGramModel.load(path)


def test_a_number_type_that_numpy_lacks_is_refused(tmp_path: Path) -> None:
    header = b'{"grams":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(ValueError, match=r"cannot be read as safetensors .*BF16"):
        NGramModel.load(path)


def test_a_file_past_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.safetensors"
    NGramModel.fit([np.array([0, 1, 2])], VOCAB, 3).save(path)
    monkeypatch.setattr("etude.training.ngram.MAX_FILE_BYTES", 10)
    with pytest.raises(ValueError, match="larger than 10 bytes"):
        NGramModel.load(path)


def test_wrong_input_is_one_clear_line() -> None:
    model = NGramModel.fit([np.array([0, 1, 2])], VOCAB, 2)
    for ids in (np.array([0, VOCAB]), np.array([-2, 0])):
        with pytest.raises(ValueError, match=re.escape("ids must be -1 to 4")):
            model.predict(ids)
        with pytest.raises(ValueError, match=re.escape("ids must be -1 to 4")):
            NGramModel.fit([ids], VOCAB, 2)
    with pytest.raises(ValueError, match="one row of integers"):
        model.predict(np.array([0.5, 1.0]))
    for order in (0, 3):
        with pytest.raises(ValueError, match="order must be 1 to 2"):
            model.predict(np.array([0, 1]), order=order)
    for weight in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="song must be"):
            model.blocks(np.array([0, 1]), song=weight)
    with pytest.raises(ValueError, match="nothing to count"):
        NGramModel.fit([np.array([-1])], VOCAB, 2)
    with pytest.raises(ValueError, match="order and vocab_size"):
        NGramModel.fit([np.array([0])], VOCAB, 0)
    for edge in (np.array([0, 1, 2]), np.array([1, 2, 2, 3, 4]), np.array([0, 1, 2, 3, 9])):
        with pytest.raises(ValueError, match="edge must"):
            NGramModel.fit([np.array([0])], VOCAB, 2, edge)
