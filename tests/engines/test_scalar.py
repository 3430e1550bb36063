"""The scalar engine: its slopes against differences and PyTorch, its run by itself against the reference."""

from __future__ import annotations

import ast
import gc
import math
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from etude.engines import scalar
from etude.engines.scalar import GPT, Adam, Value, cross_entropy, dot, initial_weights, rms_norm, sample, softmax, total
from etude.gpt.config import GPTConfig, parameter_shapes

FILE = Path(scalar.__file__)
CONFIG = GPTConfig("micro", vocab_size=5, block_size=6, n_layer=2, n_head=2, n_embd=6)
WEIGHTS = initial_weights(random.Random(1), 5, 6, n_layer=2, n_embd=6, std=0.4)
DOCUMENTS = [[4, 0, 1, 2, 3, 0, 4], [4, 2, 4], [4, 3, 3, 1]]

# What each operation is to compute, from two numbers. Its own derivative is nowhere here.
OPERATIONS: dict[str, tuple[Callable[[Any, Any], Value], Callable[[float, float], float]]] = {
    "+": (lambda x, y: x + y, lambda x, y: x + y),
    "+ float": (lambda x, _: x + 2.5, lambda x, _: x + 2.5),
    "-": (lambda x, y: x - y, lambda x, y: x - y),
    "- float": (lambda x, _: x - 2.5, lambda x, _: x - 2.5),
    "*": (lambda x, y: x * y, lambda x, y: x * y),
    "* float": (lambda _, y: y * -3, lambda _, y: y * -3),
    "**3": (lambda x, _: x**3, lambda x, _: x**3),
    "**-0.5": (lambda x, y: (x * x + y * y) ** -0.5, lambda x, y: 1 / math.hypot(x, y)),
    "exp": (lambda x, _: x.exp(), lambda x, _: math.exp(x)),
    "log": (lambda x, y: (x * x + y * y).log(), lambda x, y: 2 * math.log(math.hypot(x, y))),
    "relu": (lambda x, _: x.relu(), lambda x, _: x if x > 0 else 0.0),
    "dot": (lambda x, y: dot([x, y, x], [y, y, x]), lambda x, y: x * y + y * y + x * x),
    "total": (lambda x, y: total([x, y, x]), lambda x, y: 2 * x + y),
    "rms_norm": (lambda x, y: rms_norm([x, y])[1], lambda x, y: y / math.sqrt((x * x + y * y) / 2 + 1e-5)),
    "softmax": (lambda x, y: softmax([x, y])[0], lambda x, y: 1 / (1 + math.exp(y - x))),
    "cross_entropy": (lambda x, y: cross_entropy([x, y], 1), lambda x, y: math.log(1 + math.exp(x - y))),
}
numbers = st.floats(-4, 4)


def slope(function: Callable[[float], float], x: float, step: float = 1e-5) -> float:
    return (function(x + step) - function(x - step)) / (2 * step)


@pytest.mark.parametrize("name", OPERATIONS)
@given(x=numbers, y=numbers)
@settings(max_examples=40, deadline=None)
def test_every_operation_knows_its_value_and_its_slopes(name: str, x: float, y: float) -> None:
    assume(abs(x) > 0.2 and abs(y) > 0.2)  # no kink, no pole
    of_values, of_floats = OPERATIONS[name]
    a, b = Value(x), Value(y)
    result = of_values(a, b)
    result.backward()
    assert result.data == pytest.approx(of_floats(x, y), rel=1e-12, abs=1e-12)
    assert a.grad == pytest.approx(slope(lambda x: of_floats(x, y), x), rel=1e-6, abs=1e-6)
    assert b.grad == pytest.approx(slope(lambda y: of_floats(x, y), y), rel=1e-6, abs=1e-6)


def test_relu_is_flat_at_zero_and_below() -> None:
    for data in (0.0, -0.0, -3.0):
        x = Value(data)
        y = x.relu()
        y.backward()
        assert (y.data, x.grad) == (0.0, 0.0)


@given(numbers)
def test_a_shared_number_gets_a_share_from_each_use(data: float) -> None:
    x = Value(data)
    square = x * x
    (square * square + square + x).backward()
    assert x.grad == pytest.approx(4 * data**3 + 2 * data + 1, abs=1e-9)


def test_backward_called_twice_adds_twice_at_given_values_only() -> None:
    x, y = Value(3.0), Value(-2.0)
    product = x * y
    result = product * product + x
    result.backward()
    once = (x.grad, y.grad)
    assert once == (2 * 3 * 4 + 1, 2 * -2 * 9)
    result.backward()
    assert (x.grad, y.grad) == (2 * once[0], 2 * once[1])
    assert (result.grad, product.grad) == (1, -12)
    (x * 5).backward()  # another result of the same number
    assert x.grad == 2 * once[0] + 5


def test_a_given_value_is_a_result_too() -> None:
    x = Value(3.0)
    x.backward()
    x.backward()
    assert x.grad == 2


def test_a_long_history_overflows_no_stack() -> None:
    x = Value(0.5)
    y = x * 2
    for _ in range(100_000):
        y = y + x
    y.backward()
    assert y.data == 50_001
    assert x.grad == 100_002
    del y
    gc.collect()  # freeing a long chain is a recursion of its own


def test_a_value_says_what_it_is() -> None:
    assert repr(Value(2)) == "Value(2, 'given', 0 inputs, grad 0)"
    x, y = Value(2.0), Value(3.0)
    product = x * y
    product.backward()
    assert repr(x) == "Value(2, 'given', 0 inputs, grad 3)"
    assert repr(product) == "Value(6, '*', 2 inputs, grad 1)"
    assert repr(x**-0.5) == "Value(0.707107, '**-0.5', 1 inputs, grad 0)"
    operations = [x + y, x - y, x.exp(), x.log(), x.relu(), dot([x, x], [y, y]), total([x, y, x])]
    assert [value.operation for value in operations] == ["+", "-", "exp", "log", "relu", "dot", "total"]
    assert [len(value.inputs) for value in operations] == [2, 2, 1, 1, 1, 4, 3]


def test_a_loss_can_be_followed_back_to_what_was_given() -> None:
    """Every number is what its operation makes of its inputs, and every weight that has a slope is reached."""
    again: dict[str, Callable[..., float]] = {
        "+": lambda x, y: x + y, "-": lambda x, y: x - y, "*": lambda x, y: x * y, "exp": math.exp, "log": math.log,
        "relu": lambda x: max(x, 0.0), "**-0.5": lambda x: x**-0.5, "**-1": lambda x: 1 / x,
        "total": lambda *x: sum(x),
        "dot": lambda *x: sum(a * b for a, b in zip(x[: len(x) // 2], x[len(x) // 2 :], strict=True)),
    }  # fmt: skip
    model = GPT(WEIGHTS, CONFIG.n_head)
    loss = model.loss(DOCUMENTS)
    loss.backward()
    seen, stack = {loss}, [loss]
    while stack:
        value = stack.pop()
        if value.inputs:
            recomputed = again[value.operation](*(each.data for each in value.inputs))
            assert value.data == pytest.approx(recomputed, rel=1e-12)
            assert all(each.age < value.age for each in value.inputs)
        else:
            assert value.operation == "given"
        stack += set(value.inputs) - seen
        seen |= set(value.inputs)
    assert seen >= {value for value in model.parameters() if value.grad}
    for name, rows in model.weights.items():  # each weight counts, but for what a neuron at rest hides
        idle = sum(value.grad == 0 for row in rows for value in row)
        assert idle == 0 or (".mlp." in name and idle <= 0.4 * len(rows) * len(rows[0])), name


def test_the_slope_of_the_loss_in_every_matrix() -> None:
    """Along a random direction in each matrix, so that every number of it counts."""
    model = GPT(WEIGHTS, CONFIG.n_head)
    model.loss(DOCUMENTS).backward()
    rng = np.random.default_rng(0)
    assert {name: (len(rows), len(rows[0])) for name, rows in WEIGHTS.items()} == parameter_shapes(CONFIG)
    for name, rows in model.weights.items():
        direction = rng.normal(size=(len(rows), len(rows[0])))

        def loss_at(distance: float, name: str = name, direction: Any = direction) -> float:
            moved = np.array(WEIGHTS[name]) + distance * direction
            return GPT(WEIGHTS | {name: moved.tolist()}, CONFIG.n_head).loss(DOCUMENTS).data

        gradient = np.array([[value.grad for value in row] for row in rows])
        wanted = slope(loss_at, 0.0, 1e-6)
        assert abs(wanted) > 1e-3
        assert (gradient * direction).sum() == pytest.approx(wanted, rel=1e-5), name


def test_loss_and_gradients_equal_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="the tensor engine needs PyTorch (the train extra)")
    from etude.engines.tensor_micro import MicroGPT

    model = GPT(WEIGHTS, CONFIG.n_head)
    loss = model.loss(DOCUMENTS)
    loss.backward()
    theirs: Any = MicroGPT(CONFIG)
    theirs.adopt({name: np.array(rows) for name, rows in WEIGHTS.items()})
    costs = []
    for tokens in DOCUMENTS:
        logits = theirs(torch.tensor([tokens[:-1]]))[0]
        costs.append(torch.nn.functional.cross_entropy(logits, torch.tensor(tokens[1:]), reduction="none"))
    wanted = torch.cat(costs).mean()
    wanted.backward()
    assert loss.data == pytest.approx(wanted.item(), abs=1e-12)
    gradients = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters()}
    assert gradients.keys() == model.weights.keys()
    for name, rows in model.weights.items():
        ours = np.array([[value.grad for value in row] for row in rows])
        assert np.abs(ours).max() > 1e-4
        assert np.abs(ours - gradients[name]).max() < 1e-12, name


def test_huge_logits_do_not_overflow() -> None:
    logits = [Value(x) for x in (10_000.0, -10_000.0, 9_999.0)]
    shares = softmax(logits)
    e = math.exp(-1)
    assert [share.data for share in shares] == pytest.approx([1 / (1 + e), 0, e / (1 + e)])
    loss = cross_entropy(logits, 1)
    assert loss.data == pytest.approx(20_000 + math.log(1 + e))
    loss.backward()
    assert [logit.grad for logit in logits] == pytest.approx([1 / (1 + e), -1, e / (1 + e)])


@given(st.lists(numbers, min_size=1, max_size=8), st.integers(0, 7))
@settings(deadline=None)
def test_softmax_shares_out_one_and_cross_entropy_is_its_logarithm(data: list[float], target: int) -> None:
    target %= len(data)
    shares = softmax([Value(x) for x in data])
    assert sum(share.data for share in shares) == pytest.approx(1)
    assert cross_entropy([Value(x) for x in data], target).data == pytest.approx(-math.log(shares[target].data))
    logits = [Value(x) for x in data]
    cross_entropy(logits, target).backward()
    wanted = [share.data - (i == target) for i, share in enumerate(shares)]
    assert [logit.grad for logit in logits] == pytest.approx(wanted, abs=1e-12)


def test_adams_first_step_is_as_long_as_the_rate_whatever_the_gradient() -> None:
    gradients = [1e-3, -1.0, 1e3, 0.0]
    parameters = [Value(1.0) for _ in gradients]
    adam = Adam(parameters, learning_rate=0.25, beta1=0.85, beta2=0.99, epsilon=1e-8)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    adam.step(0, 10)
    assert [parameter.data for parameter in parameters] == pytest.approx([0.75, 1.25, 0.75, 1.0], rel=1e-4)
    assert [parameter.grad for parameter in parameters] == [0, 0, 0, 0]


def test_adam_remembers_gradients_and_its_rate_falls_to_a_tenth_in_the_last_of_ten_steps() -> None:
    parameter = Value(1.0)
    adam = Adam([parameter], learning_rate=0.25, beta1=0.85, beta2=0.99, epsilon=1e-8)
    for gradient in (-1.0, 2.0):
        parameter.grad = gradient
        before = parameter.data
        adam.step(9, 10)
    first = (0.15 * 0.85 * -1 + 0.15 * 2) / (1 - 0.85**10)
    second = (0.01 * 0.99 * 1 + 0.01 * 4) / (1 - 0.99**10)
    assert parameter.data - before == pytest.approx(-0.025 * first / math.sqrt(second))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.integers(1, 6))
@settings(max_examples=20, deadline=None)
def test_start_start_all_and_step_give_the_same_numbers(ids: list[int], split: int) -> None:
    model = GPT(WEIGHTS, CONFIG.n_head)
    whole = model.start_all(ids)
    assert (len(whole), len(whole[0])) == (len(ids), CONFIG.vocab_size)
    assert model.tokens == ids
    split = min(split, len(ids))
    assert [model.start(ids[:split]), *(model.step(token) for token in ids[split:])] == whole[split - 1 :]


def test_a_full_block_goes_on_with_its_newest_half() -> None:
    ids = [0, 1, 2, 3, 4, 0]
    model = GPT(WEIGHTS, CONFIG.n_head)
    model.start(ids)
    assert model.step(2) == GPT(WEIGHTS, CONFIG.n_head).start([3, 4, 0, 2])
    assert model.tokens == [3, 4, 0, 2]
    assert model.start_all([1, 1, *ids]) == model.start_all(ids)  # of a prompt too long, the end


def saying(logits: list[float], block_size: int) -> GPT:
    """A model of no layers that gives the same logits everywhere: x is 1, but for what RMSNorm adds."""
    column = [[logit * math.sqrt(1 + 1e-5)] for logit in logits]
    return GPT({"wte": [[1.0]] * len(logits), "wpe": [[0.0]] * block_size, "lm_head": column}, 1)


def test_samples_end_at_bos_or_with_the_block() -> None:
    rng = random.Random(0)
    assert sample(saying([0.0, 90.0, 0.0], 7), rng, bos=2) == [1] * 7
    assert sample(saying([0.0, 0.0, 90.0], 7), rng, bos=2) == []
    lengths = [len(sample(saying([0.0, -90.0, 0.0], 7), rng, bos=2, temperature=1.0)) for _ in range(400)]
    assert lengths.count(0) == pytest.approx(200, abs=40)
    assert lengths.count(7) == pytest.approx(400 / 2**7, abs=6)


@pytest.mark.parametrize(("temperature", "odds"), [(1.0, 3.0), (0.5, 9.0)])
def test_below_temperature_1_the_likely_become_likelier(temperature: float, odds: float) -> None:
    tokens = sample(saying([0.0, math.log(3), -1e5], 4000), random.Random(1), 2, temperature)
    assert len(tokens) == 4000
    assert tokens.count(1) / tokens.count(0) == pytest.approx(odds, rel=0.1)


def run_file(*arguments: str | Path, isolated: bool = True) -> subprocess.CompletedProcess[str]:
    """The file by itself; isolated, nothing that is installed can be imported, so neither can the package."""
    command = [sys.executable, *(["-I", "-S"] if isolated else []), str(FILE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


def test_the_file_alone_trains_and_writes(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a\n\n  a \t\na")
    result = run_file(tmp_path / "names.txt")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    # 2 rows of wte, 16 of wpe, 2 of lm_head, 3 + 1 + 4 + 4 squares of 16
    assert lines[:3] == ["num docs: 3", "vocab size: 2", f"num params: {16 * (2 + 16 + 2 + 12 * 16)}"]
    steps, samples = lines[3:1003], lines[1003:]
    for step, line in enumerate(steps, 1):
        assert re.fullmatch(rf"step {step:4d} / 1000 \| loss \d\.\d{{4}}", line)
    assert 0.4 < float(steps[0][-6:]) < 1.0  # about ln 2: it knows nothing
    assert float(steps[-1][-6:]) < 0.001
    assert samples == [f"sample {number:2d}: a" for number in range(1, 21)]


def test_the_file_begins_as_the_reference(shared_names: Path) -> None:
    command = [sys.executable, "-I", "-S", "-u", str(FILE), str(shared_names)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().rstrip("\n") for _ in range(13)]
        process.kill()
    assert lines[:3] == ["num docs: 32033", "vocab size: 27", "num params: 4192"]
    losses = {1: "3.3660", 2: "3.4243", 3: "3.1778", 10: "3.2229"}
    for step, loss in losses.items():
        assert lines[2 + step] == f"step {step:4d} / 1000 | loss {loss}"


def test_the_file_imports_the_standard_library_alone() -> None:
    modules: list[str] = []
    for node in ast.walk(ast.parse(FILE.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            modules.append(str(node.module))
    assert "math" in modules
    assert {module.partition(".")[0] for module in modules} <= sys.stdlib_module_names


@pytest.mark.parametrize("isolated", [True, False])
def test_the_file_says_in_a_line_what_it_cannot_read(tmp_path: Path, isolated: bool) -> None:
    (tmp_path / "latin.txt").write_bytes("Zoë\n".encode("latin-1"))
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "blank.txt").write_bytes(b"\n  \n\t\n")
    cases: list[tuple[list[Path], str]] = [
        ([], "usage: python scalar.py FILE"),
        ([tmp_path / "empty.txt", tmp_path / "blank.txt"], "usage: python scalar.py FILE"),
        ([tmp_path / "missing.txt"], "missing.txt: cannot be read as text"),
        ([tmp_path], f"{tmp_path.name}: cannot be read as text"),
        ([tmp_path / "latin.txt"], "latin.txt: cannot be read as text"),
        ([tmp_path / "empty.txt"], "empty.txt: no text in it"),
        ([tmp_path / "blank.txt"], "blank.txt: no text in it"),
    ]
    for arguments, message in cases:
        result = run_file(*arguments, isolated=isolated)
        assert (result.returncode, result.stdout) == (1, "")
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1
