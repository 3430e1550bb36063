"""GPT-2's tokens: any text comes back to the byte, as ids that every other reader of the same file gives."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from etude.tokens.bpe import BPETokenizer
from etude.tokens.bpe_by_hand import alphabet, encode, merges, read
from etude.tokens.tokenizer import StreamDecoder, TokenizerError, read_tokenizer

TURING = "Alan Turing theorized that computers would one day become"
TURING_IDS = [36235, 39141, 18765, 1143, 326, 9061, 561, 530, 1110, 1716]


def trained() -> BPETokenizer:
    """A small vocabulary, in a tokenizer.json as the library writes it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        show_progress=False,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([f"{TURING}, naïve 日本 日本 👍👍.\n\n  It's 1950.\n"] * 3, trainer)
    document = json.loads(tokenizer.to_str())
    document["decoder"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    return BPETokenizer(json.dumps(document))


TINY = trained()
texts = st.lists(
    st.text(max_size=8)
    | st.sampled_from(
        [TURING, "It's", "'LL", "  ", "\n\n", "\t", "日本", "👩‍👩‍👧", "e\u0301", "²", "\x85", "<|endoftext|>"]
    ),
    max_size=12,
).map("".join)


def edited(**changes: Any) -> BPETokenizer:
    """`TINY` with parts of its document replaced."""
    return BPETokenizer(json.dumps(json.loads(TINY.text) | changes))


@settings(deadline=None)
@given(texts)
def test_any_text_comes_back_to_the_byte(text: str) -> None:
    ids = TINY.encode(text)
    assert TINY.decode(ids) == text
    assert TINY.decode_bytes(ids) == text.encode() == b"".join(TINY.pieces(ids))
    assert TINY.decode(TINY.encode(text, allow_special=True)) == text


@settings(deadline=None)
@given(st.lists(texts, max_size=5))
def test_a_batch_is_its_texts_one_by_one(several: list[str]) -> None:
    assert TINY.encode_batch(several) == [TINY.encode(text) for text in several]


@settings(deadline=None)
@given(st.lists(st.integers(0, TINY.vocab_size - 1), max_size=20))
def test_any_ids_are_text_at_once_or_as_they_come(ids: list[int]) -> None:
    stream = StreamDecoder(TINY)
    for _ in range(2):  # `finish` leaves nothing behind
        told = [stream.feed(token) for token in ids]
        assert "".join([*told, stream.finish()]) == TINY.decode(ids)
    assert TINY.decode(ids) == Tokenizer.from_str(TINY.text).decode(ids, skip_special_tokens=False)


def test_a_stream_gives_a_character_when_its_last_byte_is_there() -> None:
    ids = [TINY._tables.pieces.index(bytes([byte])) for byte in "aé👍".encode()]
    stream = StreamDecoder(TINY)
    assert [stream.feed(token) for token in ids] == ["a", "", "é", "", "", "", "👍"]
    assert stream.finish() == ""
    assert [stream.feed(token) for token in ids[:-1]] == ["a", "", "é", "", "", ""]
    assert stream.finish() == "\ufffd"


@settings(deadline=None)
@given(texts)
def test_steps_lead_from_bytes_to_the_tokens(text: str) -> None:
    for allow_special in (False, True):
        steps = TINY.steps(text, allow_special)
        assert [part for states in steps for part in states[-1]] == TINY.pieces(TINY.encode(text, allow_special))
        for states in steps:
            assert len({b"".join(state) for state in states}) == 1
            assert [len(state) for state in states] == list(range(len(states[0]), len(states[-1]) - 1, -1))
    ids = {piece: i for i, piece in enumerate(TINY._tables.pieces)}
    assert TINY.encode(text) == encode(text, ids, TINY._tables.ranks)


def test_special_tokens_are_text_until_they_are_allowed() -> None:
    text = "one<|endoftext|>two<|endoftext|>"
    assert TINY.end_id == TINY.bos_id == 0
    assert 0 not in TINY.encode(text)
    assert [i for i, token in enumerate(TINY.encode(text, allow_special=True)) if token == 0]
    assert TINY.encode(text, allow_special=True)[-1] == 0
    assert [b"<|endoftext|>"] in [states[0] for states in TINY.steps(text, allow_special=True)]
    assert TINY.steps("day")[0] == list(merges(b"day", TINY._tables.ranks))


def test_an_added_token_that_is_not_special_is_always_found() -> None:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    tokenizer = edited(added_tokens=[{"id": 320, "content": "é chord", **flags}])
    assert (tokenizer.vocab_size, tokenizer.end_id) == (321, 0)
    ids = tokenizer.encode("an é chord")
    assert ids[-1] == 320
    assert tokenizer.decode_bytes(ids) == "an é chord".encode()
    assert tokenizer.steps("an é chord")[-1] == [["é chord".encode()]]


def test_a_vocabulary_without_an_end_has_none() -> None:
    document = json.loads(TINY.text)
    vocab = document["model"]["vocab"]
    vocab["<|fin|>"] = vocab.pop("<|endoftext|>")
    tokenizer = edited(added_tokens=[], model=document["model"] | {"vocab": vocab})
    assert (tokenizer.end_id, tokenizer.bos_id) == (None, None)


def test_what_a_file_says_of_truncation_and_padding_changes_no_text() -> None:
    tokenizer = edited(
        truncation={"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        padding={
            "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>",
        },
    )  # fmt: skip
    assert tokenizer.encode(TURING) == TINY.encode(TURING)
    assert tokenizer.encode_batch([TURING, "a"]) == [TINY.encode(TURING), TINY.encode("a")]


def test_half_a_surrogate_pair_is_refused_with_its_place() -> None:
    for refused in (lambda: TINY.encode("ab\ud800c"), lambda: TINY.encode_batch(["a", "ab\ud800c"])):
        with pytest.raises(TokenizerError, match="character 3 is half a surrogate pair"):
            refused()


@pytest.mark.parametrize("ids", [[-1], [0, 320], [1 << 40]])
def test_ids_that_are_none_are_refused(ids: list[int]) -> None:
    for refused in (TINY.decode, TINY.decode_bytes, TINY.pieces):
        with pytest.raises(TokenizerError, match=f"token {ids[-1]} is not one of 320"):
            refused(ids)


def test_the_same_file_comes_out_as_went_in() -> None:
    again = read_tokenizer(TINY.to_json())
    assert isinstance(again, BPETokenizer)
    assert again == TINY
    assert repr(TINY) == "BPETokenizer()"
    assert Tokenizer.from_str(TINY.to_json()).encode(TURING).ids == TINY.encode(TURING)


@pytest.fixture
def two_files(tmp_path: Path) -> Path:
    """A vocabulary of every byte, two merges and an end, as vocab.json and merges.txt."""
    tokens = [*alphabet(), "Ġt", "Ġth", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\nĠ t\nĠt h\n", encoding="utf-8")
    return tmp_path


def test_two_files_or_one_or_their_folder(two_files: Path) -> None:
    tokenizer = BPETokenizer.from_path(two_files)
    assert tokenizer == BPETokenizer.from_files(two_files / "vocab.json", two_files / "merges.txt")
    assert tokenizer.pieces(tokenizer.encode(" that")) == [b" th", b"a", b"t"]
    assert (tokenizer.vocab_size, tokenizer.end_id) == (259, 258)
    assert tokenizer.encode("<|endoftext|>", allow_special=True) == [258]
    (two_files / "tokenizer.json").write_text(TINY.text, encoding="utf-8")
    assert BPETokenizer.from_path(two_files) == TINY == BPETokenizer.from_path(two_files / "tokenizer.json")


def test_lines_may_end_as_windows_ends_them(two_files: Path) -> None:
    plain = BPETokenizer.from_path(two_files)
    (two_files / "merges.txt").write_bytes("#version: 0.2\r\nĠ t\r\nĠt h\r\n".encode())
    assert BPETokenizer.from_path(two_files) == plain


def test_a_vocabulary_that_lacks_bytes_says_what_it_cannot(shared_checkpoints: Path) -> None:
    tiny = BPETokenizer.from_path(shared_checkpoints / "hf_tiny_gpt2")
    assert (tiny.vocab_size, tiny.end_id) == (21, 20)
    ids = tiny.encode(" lower newer<|endoftext|>", allow_special=True)
    assert (ids, tiny.decode(ids)) == ([14, 15, 10, 9, 3, 2, 15, 20], " lower newer<|endoftext|>")
    for refused in (tiny.encode, lambda text: tiny.encode_batch(["", text])):
        with pytest.raises(TokenizerError, match=r"no token of this vocabulary says 'é' \(character 3\)"):
            refused("loé")


@pytest.fixture(scope="module")
def gpt2(shared_gpt2: Path) -> BPETokenizer:
    return BPETokenizer.from_path(shared_gpt2)


def test_gpt2_s_own_ids(gpt2: BPETokenizer) -> None:
    assert gpt2.encode(TURING) == TURING_IDS
    assert gpt2.decode(TURING_IDS) == TURING
    assert (gpt2.vocab_size, gpt2.end_id, gpt2.bos_id) == (50_257, 50_256, 50_256)
    assert gpt2.encode("<|endoftext|>", allow_special=True) == [50_256]
    assert gpt2.encode("<|endoftext|>") == [27, 91, 437, 1659, 5239, 91, 29]
    assert gpt2.steps(" the")[0] == [[b" ", b"t", b"h", b"e"], [b" t", b"h", b"e"], [b" t", b"he"], [b" the"]]


def test_gpt2_s_ids_are_those_by_hand(gpt2: BPETokenizer, shared_gpt2: Path) -> None:
    vocab, merges_text = ((shared_gpt2 / name).read_text(encoding="utf-8") for name in ("vocab.json", "merges.txt"))
    ids, ranks = read(vocab, merges_text)
    assert ranks == gpt2._tables.ranks
    assert [ids[piece] for piece in gpt2._tables.pieces] == list(range(50_257))


@settings(deadline=None)
@given(text=texts)
def test_gpt2_gives_any_text_back(gpt2: BPETokenizer, text: str) -> None:
    assert gpt2.decode_bytes(gpt2.encode(text)) == text.encode()
    assert [part for states in gpt2.steps(text) for part in states[-1]] == gpt2.pieces(gpt2.encode(text))


class TestTransformers:
    """The same ids and text as `transformers` has, from the same files and from the file that is written here."""

    @pytest.fixture(scope="class", params=["GPT2TokenizerFast", "AutoTokenizer"])
    @staticmethod
    def theirs(
        request: pytest.FixtureRequest, shared_gpt2: Path, gpt2: BPETokenizer, tmp_path_factory: pytest.TempPathFactory
    ) -> Any:
        transformers = pytest.importorskip("transformers")
        if request.param == "GPT2TokenizerFast":
            return transformers.GPT2TokenizerFast(str(shared_gpt2 / "vocab.json"), str(shared_gpt2 / "merges.txt"))
        folder = tmp_path_factory.mktemp("model")
        (folder / "tokenizer.json").write_text(gpt2.to_json(), encoding="utf-8")
        (folder / "config.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")
        return transformers.AutoTokenizer.from_pretrained(str(folder))

    @settings(deadline=None)
    @given(text=texts)
    def test_ids_and_text(self, theirs: Any, gpt2: BPETokenizer, text: str) -> None:
        ids = gpt2.encode(text, allow_special=True)
        assert theirs.encode(text) == ids
        assert theirs.encode(text, split_special_tokens=True) == gpt2.encode(text)
        assert theirs.decode(ids, clean_up_tokenization_spaces=False) == gpt2.decode(ids) == text

    @settings(deadline=None)
    @given(ids=st.lists(st.integers(0, 50_256), max_size=20))
    def test_any_ids(self, theirs: Any, gpt2: BPETokenizer, ids: list[int]) -> None:
        assert theirs.decode(ids, clean_up_tokenization_spaces=False) == gpt2.decode(ids)

    def test_what_they_save_is_read(self, theirs: Any, gpt2: BPETokenizer, tmp_path: Path) -> None:
        theirs.save_pretrained(str(tmp_path))
        again = BPETokenizer.from_path(tmp_path)
        assert again.encode(TURING) == TURING_IDS
        assert (again.vocab_size, again.end_id) == (gpt2.vocab_size, gpt2.end_id)


@given(text=texts)
@settings(max_examples=50, deadline=None)
def test_merges_of_a_token_are_those_that_made_it_in_the_text(text: str) -> None:
    ids = TINY.encode(text)
    own = iter(TINY.merges_of(token) for token in ids)
    for states in TINY.steps(text):
        start = 0
        for piece in states[-1]:
            # Every state of the whole piece, cut to the bytes of this token, each once.
            cuts = []
            for state in states:
                at, cut = 0, []
                for part in state:
                    if start <= at < start + len(piece):
                        cut.append(part)
                    at += len(part)
                cuts += [cut] if cut not in cuts else []
            assert next(own) == cuts
            start += len(piece)
    assert next(own, None) is None
    assert TINY.merges_of(TINY.end_id or 0) == [[b"<|endoftext|>"]]


@settings(deadline=None)
@given(st.lists(texts, max_size=4).map(" ".join), st.integers(1, 9))
def test_a_text_may_be_encoded_in_parts(text: str, least: int) -> None:
    cuts = [0]
    while cuts[-1] < len(text):
        cuts.append(TINY.cut(text, cuts[-1] + least))
        assert cuts[-1] == len(text) or cuts[-1] >= cuts[-2] + least
    parts = TINY.encode_arrays([text[a:b] for a, b in pairwise(cuts)])
    assert [token for part in parts for token in part.tolist()] == TINY.encode(text)


def test_a_text_with_a_token_of_somebodys_own_is_not_cut() -> None:
    document = json.loads(TINY.text)
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    document["added_tokens"].append({"id": TINY.vocab_size, "content": "on and on", **plain})
    assert BPETokenizer(json.dumps(document)).cut("on and on and on", 1) == 16
    assert TINY.cut("on and on and on", 1) == 2
