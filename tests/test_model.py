"""The bundled model: what it suggests, the same in every key."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import etude
from etude.engines.array import ArrayEngine
from etude.engines.engine import EngineError, is_installed
from etude.errors import EtudeError
from etude.generation import PromptError, Sample
from etude.gpt.config import GPTConfig, parameter_shapes
from etude.gpt.directory import ModelError, load_model, save_model
from etude.model import ChordModel, TextModel, load_chords
from etude.music.theory import Chord, Key
from etude.sampling import GREEDY, Sampling
from etude.tokens.bpe import BPETokenizer
from etude.tokens.bpe_by_hand import alphabet
from etude.tokens.characters import CharTokenizer
from etude.tokens.tokenizer import TokenizerError

PROMPT = tuple(map(Chord.parse, ("D", "A", "Bm", "F#m")))
MODEL = etude.load("chords")
symbols = st.sampled_from(["C", "Am", "Dm7", "G7", "Fmaj7", "Bb", "E7b9", "F#m7b5", "C/E", "Gsus4", "N.C.", "Bdim7"])


@given(st.lists(symbols, min_size=1, max_size=12), st.integers(1, 11))
@settings(max_examples=25, deadline=None)
def test_the_same_probabilities_in_every_key_to_the_bit(prompt: list[str], semitones: int) -> None:
    chords = [Chord.parse(symbol) for symbol in prompt]
    here = MODEL.suggest(chords, top=8)
    there = MODEL.suggest([chord.transpose(semitones) for chord in chords], top=8)
    if any(chord.root is not None for chord in chords):
        assert here.key.transpose(semitones).pitch_class == there.key.pitch_class
        assert [c.chord.transpose(semitones) for c in here.candidates] == [c.chord for c in there.candidates]
        assert [c.numeral for c in here.candidates] == [c.numeral for c in there.candidates]
        assert [c.reason for c in here.candidates] == [c.reason for c in there.candidates]
    assert [c.probability for c in here.candidates] == [c.probability for c in there.candidates]


def test_a_famous_progression_goes_on_as_everybody_expects() -> None:
    assert MODEL.suggest("D A Bm F#m").candidates[0].symbol == "G"
    assert MODEL.suggest("Dm7 G7").candidates[0].symbol == "Cmaj7"
    looped = MODEL.suggest("C G Am F C G Am F C G Am").candidates[0]
    assert looped.symbol == "F"
    assert looped.probability > 0.8


def test_probabilities_over_all_chords_sum_to_one() -> None:
    everything = MODEL.suggest(PROMPT, top=MODEL.tokenizer.n_chords).candidates
    assert len(everything) == MODEL.tokenizer.n_chords
    assert sum(candidate.probability for candidate in everything) == pytest.approx(1)


def test_spelling_follows_the_key_and_what_was_typed() -> None:
    assert MODEL.suggest("Gb Db Ebm Cb").key == Key("Gb")
    assert MODEL.suggest("F# C# D#m B").key == Key("F#")
    assert MODEL.suggest("G♭ D♭ E♭m C♭").key == Key("Gb")
    assert not any("#" in c.symbol for c in MODEL.suggest("F Bb C", top=40).candidates if c.numeral[0] in "IViv")


def test_generate_is_seeded_and_never_repeats_a_chord_at_once() -> None:
    a, b, c = (MODEL.generate("Cm7 Ebmaj7", 20, Sampling(1.0), seed) for seed in (1, 1, 2))
    assert a == b != c
    assert all(x != y for x, y in pairwise(a))
    assert MODEL.generate(PROMPT, 0) == ()
    assert MODEL.generate(PROMPT, 5, GREEDY, 1) == MODEL.generate(PROMPT, 5, GREEDY, 2)


def test_a_long_prompt_and_a_silent_one() -> None:
    assert len(MODEL.suggest("C G " * 900).candidates) == 5
    assert MODEL.suggest("N.C.").key == Key("C")
    here, there = (MODEL.suggest("N.C.", key=key).candidates for key in ("C", "F#"))
    assert [c.chord.transpose(6) for c in here] == [c.chord for c in there]


def test_models_that_are_not_there(tmp_path: Path) -> None:
    for name in ("nothing", tmp_path / "nothing"):
        with pytest.raises(ModelError, match="no such model directory"):
            etude.load(name)
    with pytest.raises(EtudeError, match="no chords"):
        MODEL.suggest([])


def test_a_trained_directory_loads_and_answers(model_directory: Path) -> None:
    model = etude.load(model_directory)
    assert isinstance(model, ChordModel)
    assert len(model.suggest("D A", top=3).candidates) == 3
    with pytest.raises(ModelError, match="no baselines"):
        model.baselines()


def test_suggestions_show_in_a_notebook() -> None:
    html = MODEL.suggest("D A")._repr_html_()
    assert all(f"<b>{candidate.symbol}</b>" in html for candidate in MODEL.suggest("D A").candidates)


@pytest.fixture
def text_directory(tmp_path: Path) -> Path:
    """A model of random weights whose texts end now and then."""
    tokenizer = CharTokenizer("abcde")
    config = GPTConfig("micro", tokenizer.vocab_size, block_size=6, n_layer=1, n_head=2, n_embd=8)
    rng = np.random.default_rng(3)
    weights = {name: rng.normal(0, 0.3, shape) for name, shape in parameter_shapes(config).items()}
    save_model(tmp_path / "text", config, weights, tokenizer, "# A model\n", "float64")
    return tmp_path / "text"


def text_model(directory: Path, engine: str = "array") -> TextModel:
    model = etude.load(directory, engine)
    assert isinstance(model, TextModel)
    return model


def test_texts_begin_with_the_prompt_and_end_at_their_end(text_directory: Path) -> None:
    model = text_model(text_directory)
    samples = model.generate("ab", n=60, seed=4)
    assert {len(sample.tokens) for sample in samples} > {0, 1, 6}
    for sample in samples:
        assert sample.text == "ab" + model.tokenizer.decode(sample.tokens)
        assert len(sample.text) == 2 + len(sample.tokens) <= 2 + 6
        assert sample.logprob < 0
    assert model.generate() == model.generate(n=3)[:1]
    assert [len(sample.tokens) for sample in model.generate(n=20, max_tokens=1)] != [1] * 20
    assert max(len(sample.tokens) for sample in model.generate(n=60, max_tokens=40)) > 8  # over the end of the block
    assert model.generate("abc", max_tokens=0)[0].text == "abc"
    with pytest.raises(TokenizerError, match="'x'"):
        model.generate("x")


def test_a_sample_depends_on_its_number_and_the_seed_alone(text_directory: Path) -> None:
    model = text_model(text_directory)
    few, many, others = (model.generate(n=n, seed=seed) for n, seed in ((3, 1), (9, 1), (9, 2)))
    assert few == many[:3]
    assert many != others
    assert len({sample.text for sample in many}) > 3
    assert len(set(model.generate(n=5, sampling=GREEDY))) == 1


def test_logprob_is_the_models_own_whatever_the_sampling(text_directory: Path) -> None:
    model = text_model(text_directory)
    bos = model.tokenizer.bos_id
    assert bos is not None
    for sampling in (GREEDY, Sampling(0.3), Sampling(2.0, top_k=3), Sampling(top_p=0.5)):
        for sample in model.generate("a", n=5, sampling=sampling):
            written = [*sample.tokens, bos] if len(sample.tokens) < 6 else list(sample.tokens)
            total, context = 0.0, [bos, 0]
            for token in written:
                logits = text_model_logits(model, context)
                total += float(logits[token] - np.log(np.exp(logits).sum()))
                context.append(token)
            assert sample.logprob == pytest.approx(total, abs=1e-9)


def text_model_logits(model: TextModel, context: list[int]) -> np.ndarray:
    """Fresh from the whole context, with the rule for a full block: its newest half, once more and once more."""
    from etude.engines.array import ArrayEngine

    engine = ArrayEngine(model.config, model._weights)
    logits = engine.start(context[:1])
    for token in context[1:]:
        logits = engine.step(token)
    return logits


@pytest.mark.parametrize("engine", ["scalar", "compiled", "tensor"])
def test_all_engines_write_the_same(text_directory: Path, engine: str) -> None:
    if not is_installed(engine):
        pytest.skip(f"what the engine {engine} needs is not installed")
    ours, theirs = (text_model(text_directory, name).generate("a", n=20, max_tokens=12) for name in ("array", engine))
    assert [(a.text, a.tokens) for a in ours] == [(b.text, b.tokens) for b in theirs]
    assert [a.logprob for a in ours] == pytest.approx([b.logprob for b in theirs], abs=1e-9)


def test_a_text_model_is_no_chord_model(text_directory: Path) -> None:
    with pytest.raises(ModelError, match="writes text, not chords"):
        load_chords(text_directory)
    with pytest.raises(ModelError, match="writes text, not chords"):
        etude.compose("C", text_directory)
    with pytest.raises(EngineError, match="runs in the engine array"):
        etude.load("chords", "scalar")
    with pytest.raises(EngineError, match="unknown engine"):
        etude.load(text_directory, "abacus")


def test_progressions_as_samples() -> None:
    few, many = (MODEL.samples("Gb Db Ebm", n, 4, seed=3) for n in (2, 4))
    assert few == many[:2]
    for sample in many:
        symbols = sample.text.split()
        assert symbols[:3] == ["Gb", "Db", "Ebm"]
        assert len(symbols) == 3 + len(sample.tokens) == 7
        assert not any("#" in symbol for symbol in symbols)
    likeliest = MODEL.suggest("Gb Db Ebm").candidates[0]
    greedy = MODEL.samples("Gb Db Ebm", 1, 1, GREEDY)[0]
    assert greedy.text.split()[-1] == likeliest.symbol
    assert greedy.logprob == pytest.approx(np.log(likeliest.probability))


@pytest.fixture
def bytes_directory(tmp_path: Path) -> Path:
    """GPT-2 with random weights and a token a byte; ids from 257 on are padding, which the weights prefer."""
    vocabulary = {character: i for i, character in enumerate([*alphabet(), "<|endoftext|>"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = BPETokenizer.from_files(tmp_path / "vocab.json", tmp_path / "merges.txt")
    config = GPTConfig("gpt2", 300, 16, 1, 2, 8, tie_word_embeddings=False, bos_token_id=256, eos_token_id=65)
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 1, shape).astype(np.float32) for name, shape in parameter_shapes(config).items()}
    weights["ln_f.bias"][0] = 30
    weights["lm_head.weight"][:, 0] = np.arange(300) >= 257
    save_model(tmp_path / "gpt2", config, weights, tokenizer, "")
    return tmp_path / "gpt2"


def test_gpt2_writes_only_what_its_tokenizer_can_say(bytes_directory: Path) -> None:
    model = text_model(bytes_directory)
    for sampling in (GREEDY, Sampling()):
        for sample in model.generate("na\u00efve", n=5, max_tokens=40, sampling=sampling):
            assert max(sample.tokens) < 257
            assert sample.text == "na\u00efve" + model.tokenizer.decode(sample.tokens)


def test_what_was_in_no_training_text_is_read_and_never_written(tmp_path: Path) -> None:
    """Untrained, the 256 bytes would be almost all of a text."""
    tokenizer = CharTokenizer("abc", byte_fallback=True)
    config = GPTConfig("gpt2", tokenizer.vocab_size, 8, 1, 2, 8, bos_token_id=3, eos_token_id=3)
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.5, shape).astype(np.float32) for name, shape in parameter_shapes(config).items()}
    save_model(tmp_path, config, weights, tokenizer, "")
    model = text_model(tmp_path)
    samples = [*model.generate("aé日", 5, 20), *model.generate_all(["", "é"], 2, 20, GREEDY), *model.generate(n=5)]
    assert all(token < 3 for sample in samples for token in sample.tokens)
    assert set("".join(sample.text for sample in samples)) == set("aé日bc")
    assert "".join(model.stream("aé日", 20)) == samples[0].text
    trace = model.trace("é", steps=4)
    assert all(token.id <= 3 for token in trace.tokens[3:])


def test_gpt2_stops_at_the_end_of_text(bytes_directory: Path) -> None:
    samples = text_model(bytes_directory).generate("a", n=200, max_tokens=60, sampling=Sampling(temperature=3))
    assert any(len(sample.tokens) < 60 for sample in samples)
    assert all(65 not in sample.tokens for sample in samples)
    assert len(text_model(bytes_directory).generate("a", sampling=GREEDY)[0].tokens) <= 100


def test_an_empty_prompt_of_gpt2_is_the_token_that_begins_a_text(bytes_directory: Path) -> None:
    model = text_model(bytes_directory)
    token = model.generate("", max_tokens=1, sampling=GREEDY)[0].tokens[0]
    logits = ArrayEngine(model.config, load_model(bytes_directory).weights).start([256])
    assert token == int(logits[:257].argmax())
    assert model.generate("", n=2) == model.generate(n=2)


def test_gpt2_runs_in_the_engines_that_know_it(bytes_directory: Path) -> None:
    with pytest.raises(EngineError, match="scalar does not run gpt2 models; these do: array"):
        etude.load(bytes_directory, "scalar")
    with pytest.raises(ModelError, match="writes text, not chords"):
        load_chords(bytes_directory)


RAGGED = ["", "a", "abc", "edcba", "bb", "a", "abcdeabcde"]  # one is longer than the block, one stands twice


def streamed(pieces: Generator[str, None, Sample]) -> tuple[list[str], Sample]:
    """The pieces of a stream, and the sample that it returns."""
    shown = []
    while True:
        try:
            shown.append(next(pieces))
        except StopIteration as end:
            return shown, end.value


@pytest.mark.parametrize("engine", ["array", "scalar", "compiled", "tensor"])
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(1.2), Sampling(0.9, 4, 0.9, 0.05, 1.3)])
def test_a_prompt_in_a_batch_gives_what_it_gives_alone(text_directory: Path, engine: str, sampling: Sampling) -> None:
    if not is_installed(engine):
        pytest.skip(f"what the engine {engine} needs is not installed")
    model, most = text_model(text_directory, engine), 30
    together = list(model.generate_all(RAGGED, 3, most, sampling, seed=5))
    apart = [sample for prompt in RAGGED for sample in model.generate(prompt, 3, most, sampling, seed=5)]
    assert [(a.text, a.tokens, a.finish) for a in together] == [(b.text, b.tokens, b.finish) for b in apart]
    assert [a.logprob for a in together] == pytest.approx([b.logprob for b in apart], abs=1e-9)
    if sampling == Sampling(1.2):
        assert {sample.finish for sample in together} == {"end", "length"}  # rows leave at different times
        assert max(len(sample.tokens) for sample in together) > 3 * model.config.block_size


def test_a_batch_is_as_wide_as_memory_allows_and_says_the_same(
    text_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = text_model(text_directory)
    wide = list(model.generate_all(RAGGED, 4, 9))
    widths, start = [], ArrayEngine.start_batch

    def started(engine: ArrayEngine, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        widths.append(len(prompts))
        return start(engine, prompts)

    monkeypatch.setattr(ArrayEngine, "start_batch", started)
    assert list(model.generate_all(RAGGED, 4, 9)) == wide
    assert widths == [len(set(RAGGED))]  # a prompt is read once, whatever the number of its samples
    widths.clear()
    monkeypatch.setattr(ArrayEngine, "most_rows", lambda engine, tokens: 5)
    assert list(model.generate_all(RAGGED, 4, 9)) == wide
    assert len(widths) == 6 and max(widths) == 2  # 28 rows, 5 at a time, of at most two prompts


def test_gpt2_in_a_batch(bytes_directory: Path) -> None:
    model, prompts = text_model(bytes_directory), ["", "na\u00efve", "a", "x" * 40, "the end"]
    for sampling in (GREEDY, Sampling(2.0)):
        together = list(model.generate_all(prompts, 2, 40, sampling))
        apart = [sample for prompt in prompts for sample in model.generate(prompt, 2, 40, sampling)]
        assert [sample.tokens for sample in together] == [sample.tokens for sample in apart]
        assert [sample.prompt for sample in together] == [prompt for prompt in prompts for _ in range(2)]


def test_the_prompt_that_cannot_be_said_is_told_before_anything_is_written(
    text_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etude.model.text.make_engine", None)
    with pytest.raises(PromptError, match="prompt 3: 'x'") as caught:
        text_model(text_directory).generate_all(["a", "b", "abx"])
    assert caught.value.index == 2
    with pytest.raises(PromptError, match=r"prompt 2: .*no chords"):
        MODEL.generate_all(["C G", ""])


def test_a_stream_is_the_sample_in_pieces(text_directory: Path, bytes_directory: Path) -> None:
    model = text_model(text_directory)
    for seed in range(8):
        shown, sample = streamed(model.stream("ab", 12, seed=seed))
        assert sample == model.generate("ab", 1, 12, seed=seed)[0]
        assert "".join(shown) == sample.text
        assert shown[0] == "ab"
        assert all(len(piece) == 1 for piece in shown[1:])
    gpt2 = text_model(bytes_directory)
    shown, sample = streamed(gpt2.stream("\u00e9", 50, seed=1))
    assert sample == gpt2.generate("\u00e9", 1, 50, seed=1)[0]
    assert "".join(shown) == sample.text == "\u00e9" + gpt2.tokenizer.decode(sample.tokens)
    assert len(shown) > 10
    shown, chords = streamed(MODEL.stream("Gb Db", 5, seed=3))
    assert chords == MODEL.samples("Gb Db", 1, 5, seed=3)[0]
    assert shown == ["Gb Db", *(f" {symbol}" for symbol in chords.text.split()[2:])]
    assert chords.prompt == "Gb Db"


def test_a_stream_comes_as_it_is_written(text_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, step = [], ArrayEngine.step_batch

    def stepped(engine: ArrayEngine, tokens: Sequence[int]) -> np.ndarray:
        steps.append(tokens)
        return step(engine, tokens)

    monkeypatch.setattr(ArrayEngine, "step_batch", stepped)
    pieces = text_model(text_directory).stream("a", 12, seed=2)
    assert next(pieces) == "a" and next(pieces) and steps == []
    assert next(pieces) and len(steps) == 1


def test_stop_strings_end_a_text_before_them(text_directory: Path, bytes_directory: Path) -> None:
    for model, prompt in ((text_model(text_directory), "bca"), (text_model(bytes_directory), "b\u00e9")):
        free = model.generate(prompt, 20, 40, Sampling(1.5), 1)
        added = max(free, key=lambda sample: len(sample.tokens)).text[len(prompt) :]
        stops = [added[4:8], added[12:15], "never said"]
        stopped = list(model.generate_all([prompt], 20, 40, Sampling(1.5), 1, stops))
        assert {"stop"} < {sample.finish for sample in stopped}
        for whole, sample in zip(free, stopped, strict=True):
            text, full = sample.text[len(prompt) :], whole.text[len(prompt) :]
            assert not any(stop in text for stop in stops)
            assert full.startswith(text)
            assert sample.tokens == whole.tokens[: len(sample.tokens)]
            if sample.finish == "stop":
                assert any(full[len(text) :].startswith(stop) for stop in stops)
                written = model.tokenizer.decode(sample.tokens)
                assert any(written.endswith(stop) or stop in written for stop in stops)
            else:
                assert sample == whole
        shown, last = streamed(model.stream(prompt, 40, Sampling(1.5), 1, stops))
        assert "".join(shown) == last.text == stopped[0].text
        with pytest.raises(EtudeError, match="one character at least"):
            model.generate(prompt, stop=[""])


def test_chords_stop_before_chords() -> None:
    free = MODEL.samples("C G", 12, 16, seed=2)
    added = free[0].text.split()[2:]
    at = next(i for i in range(3, 15) if added[i : i + 2] not in [added[j : j + 2] for j in range(i)])
    stop = " ".join(added[at : at + 2])
    stopped = MODEL.samples("C G", 12, 16, seed=2, stop=[stop, "Ebm7b5 A7"])
    assert stopped[0].text.split() == ["C", "G", *added[:at]]
    assert stopped[0].finish == "stop"
    assert stopped[0].tokens == free[0].tokens[: at + 2]
    assert {sample.finish for sample in stopped} == {"stop", "length"}
    for whole, sample in zip(free, stopped, strict=True):
        assert f" {stop} " not in f"{sample.text[3:]} "
        assert whole.text.startswith(sample.text)
    higher = " ".join(str(Chord.parse(symbol).transpose(2)) for symbol in stop.split())
    moved = MODEL.samples("D A", 12, 16, seed=2, stop=[higher])  # the same chords, however they are spelled
    assert [len(sample.tokens) for sample in moved] == [len(sample.tokens) for sample in stopped]
    for wrong, message in (("", "to stop at ''"), ("Hq", "cannot read 'Hq'"), ("C Am11b13", "never writes")):
        with pytest.raises(EtudeError, match=message):
            MODEL.samples("C", stop=[wrong])


def test_a_penalty_makes_repetition_rarer(text_directory: Path) -> None:
    model = text_model(text_directory)

    def repeated(penalty: float) -> float:
        """Characters that stood before, of those that were added."""
        samples = model.generate("a", 100, 4, Sampling(repetition_penalty=penalty))
        return sum(len(s.text) - len(set(s.text)) for s in samples) / sum(len(s.tokens) for s in samples)

    assert repeated(3.0) < 0.8 * repeated(1.0)
    ends = [sum(s.finish == "end" for s in model.generate("", 200, 3, Sampling(repetition_penalty=p))) for p in (1, 3)]
    assert ends[1] > 0.8 * ends[0]  # that a text has begun makes its end no less likely
    assert len({s.text for s in model.generate("a", 3, sampling=Sampling(0, repetition_penalty=2.0))}) == 1


def test_a_prompt_beyond_the_block_is_said(text_directory: Path) -> None:
    said: list[str] = []
    model = text_model(text_directory)
    model.generate("abcde", say=said.append)
    assert said == []
    model.generate("abcdea", say=said.append)
    list(model.generate_all(["abcdea", "a", "eeeeeeeee"], say=said.append))
    streamed(MODEL.stream("C G " * 900, 1, say=said.append))
    size = MODEL.config.block_size
    assert said == [
        "note: the prompt is longer than the block of 6 tokens; the model reads the newest 6",
        "note: 2 of 3 prompts are longer than the block of 6 tokens; the model reads the newest 6",
        f"note: the prompt is longer than the block of {size:,} tokens; the model reads the newest {size:,}",
    ]


def test_numbers_that_cannot_be(text_directory: Path) -> None:
    for model in (text_model(text_directory), MODEL):
        with pytest.raises(EtudeError, match="-1 tokens cannot be added"):
            list(model.generate_all(["C" if model is MODEL else "a"], max_tokens=-1))
        with pytest.raises(EtudeError, match="n must be 0 or more"):
            list(model.generate_all(["C" if model is MODEL else "a"], -1))
        assert list(model.generate_all([], 3)) == []


def test_a_model_of_text_suggests_whole_chords(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of pairs that has learnt that after `F#m` come `G` three times of five, and `A7` now and then."""
    tokenizer = CharTokenizer("".join(sorted(" #7ABDFGm")))
    names = [*tokenizer.characters, "$"]
    chances = np.full((len(names), len(names)), 1e-30)
    follows = {
        "m": {" ": 1.0},
        " ": {"G": 0.6, "A": 0.15, "m": 0.25},
        "G": {" ": 1.0},
        "A": {"7": 1.0},
        "7": {" ": 1.0},
    }
    for before, after in follows.items():
        for character, chance in after.items():
            chances[names.index(before), names.index(character)] = chance
    config = GPTConfig("lesson", len(names), block_size=32, n_layer=1, n_head=1, n_embd=len(names), rung="bigram")
    save_model(tmp_path / "pairs", config, {"wte": np.log(chances)}, tokenizer, "# Pairs\n")
    model = etude.load(tmp_path / "pairs")
    assert isinstance(model, TextModel)
    answer = model.suggest("D A Bm F#m")
    assert (str(answer.key), [str(chord) for chord in answer.prompt]) == ("D major", ["D", "A", "Bm", "F#m"])
    said = [(c.symbol, c.numeral, round(c.probability, 6)) for c in answer.candidates]
    assert said[:2] == [("G", "IV", 0.6), ("A7", "V7", 0.15)]  # `m` begins no chord, so a quarter is no chord's
    assert "subdominant" in answer.candidates[0].reason
    assert [c.symbol for c in model.suggest("D A Bm F#m " * 20, top=1).candidates] == ["G"]  # longer than a block
    monkeypatch.setattr("etude.model.text.next_chords", lambda *arguments: {})
    with pytest.raises(EtudeError, match=r"pairs: after D it says no chord that can be read"):
        model.suggest("D")
