"""The `scalar` engine: a whole GPT, trained and run, in plain Python. Every number is an object with a history.

This file imports nothing of the package and runs by itself on any text file that has one document a line:

    python scalar.py names.txt

It learns to write more such lines, and says its loss at every step. The other engines compute the same numbers, faster.
In the comments d is n_embd, the count of numbers that stand for a token, and V is the size of the vocabulary.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterable, Sequence
from itertools import chain, count, pairwise
from operator import attrgetter, mul


class Value:
    """A number that knows which operation made it, from which inputs, and how fast it changes with each of them."""

    __slots__ = ("age", "data", "grad", "inputs", "operation", "slopes")
    _ages = count()

    def __init__(
        self, data: float, operation: str = "given", inputs: Sequence[Value] = (), slopes: Sequence[float] = ()
    ) -> None:
        self.data = data
        self.operation = operation
        self.inputs = inputs
        self.slopes = slopes  # d self / d input, one for each input
        self.grad = 0.0  # d result / d self, once result.backward() was called
        self.age = next(Value._ages)

    def __repr__(self) -> str:
        return f"Value({self.data:.6g}, {self.operation!r}, {len(self.inputs)} inputs, grad {self.grad:.6g})"

    def __add__(self, other: Value | float) -> Value:
        other = other if isinstance(other, Value) else Value(other)
        return Value(self.data + other.data, "+", (self, other), (1.0, 1.0))

    def __mul__(self, other: Value | float) -> Value:
        other = other if isinstance(other, Value) else Value(other)
        return Value(self.data * other.data, "*", (self, other), (other.data, self.data))

    __radd__, __rmul__ = __add__, __mul__

    def __pow__(self, exponent: float) -> Value:
        return Value(self.data**exponent, f"**{exponent:g}", (self,), (exponent * self.data ** (exponent - 1),))

    def __sub__(self, other: Value | float) -> Value:
        other = other if isinstance(other, Value) else Value(other)
        return Value(self.data - other.data, "-", (self, other), (1.0, -1.0))

    def exp(self) -> Value:
        e = math.exp(self.data)
        return Value(e, "exp", (self,), (e,))

    def log(self) -> Value:
        return Value(math.log(self.data), "log", (self,), (1 / self.data,))

    def relu(self) -> Value:
        return Value(max(0.0, self.data), "relu", (self,), (float(self.data > 0),))

    def backward(self) -> None:
        """Add d self / d value to the `grad` of every given value that this number depends on, by the chain rule.

        Called twice, it adds twice. What stands between is counted afresh each time.
        """
        history, newest = {self}, {self}
        while newest:
            newest = set(chain.from_iterable(value.inputs for value in newest)) - history
            history |= newest
        made = [value for value in history if value.inputs]
        for value in made:
            value.grad = 0.0
        self.grad += 1.0
        # A number is younger than its inputs: going from young to old, each grad is complete before it is passed on.
        for value in sorted(made, key=attrgetter("age"), reverse=True):
            for input, slope in zip(value.inputs, value.slopes, strict=True):
                input.grad += slope * value.grad


Vector = list[Value]
Matrix = list[Vector]  # one row an output: used as W·x


def dot(a: Vector, b: Vector) -> Value:
    """a[0]·b[0] + a[1]·b[1] + ..., as one number: the slope of each factor is the other one."""
    left, right = [value.data for value in a], [value.data for value in b]
    return Value(sum(map(mul, left, right)), "dot", (*a, *b), (*right, *left))


def total(values: Vector) -> Value:
    """The sum, as one number."""
    return Value(sum(value.data for value in values), "total", values, (1.0,) * len(values))


def add(a: Vector, b: Vector) -> Vector:
    """[d], [d] -> [d]"""
    return [x + y for x, y in zip(a, b, strict=True)]


def linear(x: Vector, matrix: Matrix) -> Vector:
    """[in], [out, in] -> [out]"""
    return [dot(row, x) for row in matrix]


def rms_norm(x: Vector) -> Vector:
    """x over the root of its mean square (Zhang and Sennrich 2019), without weights."""
    scale = (dot(x, x) * (1 / len(x)) + 1e-5) ** -0.5
    return [value * scale for value in x]


def softmax(x: Vector) -> Vector:
    """Positive numbers in the proportions of e^x that sum to one; taking the largest away first changes nothing."""
    largest = max(value.data for value in x)
    powers = [(value - largest).exp() for value in x]
    scale = total(powers) ** -1
    return [power * scale for power in powers]


def cross_entropy(logits: Vector, target: int) -> Value:
    """-log softmax(logits)[target], in nats."""
    largest = max(value.data for value in logits)
    powers = [(value - largest).exp() for value in logits]
    return total(powers).log() - (logits[target] - largest)


def initial_weights(
    rng: random.Random, vocab_size: int, block_size: int, n_layer: int, n_embd: int, std: float = 0.08
) -> dict[str, list[list[float]]]:
    """Random matrices [out, in], drawn row by row in this order."""
    v, d = vocab_size, n_embd
    shapes = {"wte": (v, d), "wpe": (block_size, d), "lm_head": (v, d)}
    for layer in range(n_layer):
        shapes[f"h.{layer}.attn.c_attn"] = (3 * d, d)  # queries, keys and values
        shapes[f"h.{layer}.attn.c_proj"] = (d, d)
        shapes[f"h.{layer}.mlp.c_fc"] = (4 * d, d)
        shapes[f"h.{layer}.mlp.c_proj"] = (d, 4 * d)
    return {name: [[rng.gauss(0, std) for _ in range(i)] for _ in range(o)] for name, (o, i) in shapes.items()}


class GPT:
    """Token after token: what comes next? Each token looks back at those before it through their keys and values."""

    def __init__(self, weights: dict[str, list[list[float]]], n_head: int) -> None:
        self.weights = {name: [[Value(w) for w in row] for row in rows] for name, rows in weights.items()}
        self.block_size, self.n_embd = len(weights["wpe"]), len(weights["wpe"][0])
        self.n_layer, self.n_head = sum(name.endswith("c_attn") for name in weights), n_head
        self.start_all([])

    def parameters(self) -> Vector:
        """Every weight, matrix by matrix, row by row."""
        return [value for matrix in self.weights.values() for row in matrix for value in row]

    def start(self, prompt: Sequence[int]) -> list[float]:
        """Forget everything, read the prompt, return the logits [V] of the token after it."""
        return self.start_all(prompt)[-1]

    def start_all(self, prompt: Sequence[int]) -> list[list[float]]:
        """As `start`, with the logits after each of the prompt's tokens: [t, V]. At most block_size are read."""
        self.tokens: list[int] = []
        self.past: list[list[tuple[Vector, Vector]]] = [[] for _ in range(self.n_layer)]  # keys and values
        return [[value.data for value in self.forward(token)] for token in prompt[-self.block_size :]]

    def step(self, token: int) -> list[float]:
        """Add a token, return the logits [V] of the next one. A full block goes on with its newest half."""
        if len(self.tokens) == self.block_size:
            return self.start([*self.tokens[len(self.tokens) - self.block_size // 2 :], token])
        return [value.data for value in self.forward(token)]

    def forward(self, token: int) -> Vector:
        """The logits [V] after one more token."""
        x = rms_norm(add(self.weights["wte"][token], self.weights["wpe"][len(self.tokens)]))  # [d]
        for layer in range(self.n_layer):
            x = add(x, self.attention(layer, rms_norm(x)))  # [d]
            x = add(x, self.mlp(layer, rms_norm(x)))  # [d]
        self.tokens.append(token)
        return linear(x, self.weights["lm_head"])  # [d] -> [V]

    def attention(self, layer: int, x: Vector) -> Vector:
        """Each head asks all tokens so far with a query, and takes of their values as much as their keys answer."""
        d, past = self.n_embd, self.past[layer]
        qkv = linear(x, self.weights[f"h.{layer}.attn.c_attn"])  # [d] -> [3d]
        query = qkv[:d]
        past.append((qkv[d : 2 * d], qkv[2 * d :]))
        mixed: Vector = []
        for head in range(self.n_head):
            start, end = d // self.n_head * head, d // self.n_head * (head + 1)
            scores = [dot(query[start:end], key[start:end]) * (end - start) ** -0.5 for key, _ in past]  # [t]
            shares = softmax(scores)  # [t]
            mixed += [dot(shares, [value[i] for _, value in past]) for i in range(start, end)]  # [t] -> [d / n_head]
        return linear(mixed, self.weights[f"h.{layer}.attn.c_proj"])  # [d] -> [d]

    def mlp(self, layer: int, x: Vector) -> Vector:
        hidden = [value.relu() for value in linear(x, self.weights[f"h.{layer}.mlp.c_fc"])]  # [d] -> [4d]
        return linear(hidden, self.weights[f"h.{layer}.mlp.c_proj"])  # [4d] -> [d]

    def loss(self, documents: Iterable[Sequence[int]]) -> Value:
        """The mean, over all tokens but each document's first, of the nats that the model needs to say them."""
        losses: Vector = []
        for tokens in documents:
            self.start_all([])
            losses += [cross_entropy(self.forward(token), target) for token, target in pairwise(tokens)]
        return total(losses) * (1 / len(losses))


class Adam:
    """Steps of about equal size for every parameter, whatever the size of its gradient (Kingma and Ba 2015)."""

    def __init__(self, parameters: Vector, learning_rate: float, beta1: float, beta2: float, epsilon: float) -> None:
        self.parameters, self.learning_rate = parameters, learning_rate
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.first = [0.0] * len(parameters)  # running mean of each gradient
        self.second = [0.0] * len(parameters)  # running mean of its square

    def step(self, step: int, steps: int) -> None:
        """Move every parameter against its gradient and forget the gradient. `step` counts from 0 to steps - 1."""
        rate = self.learning_rate * (1 - step / steps)
        seen1, seen2 = 1 - self.beta1 ** (step + 1), 1 - self.beta2 ** (step + 1)  # the means began at zero
        for i, parameter in enumerate(self.parameters):
            self.first[i] += (1 - self.beta1) * (parameter.grad - self.first[i])
            self.second[i] += (1 - self.beta2) * (parameter.grad**2 - self.second[i])
            parameter.data -= rate * (self.first[i] / seen1) / (math.sqrt(self.second[i] / seen2) + self.epsilon)
            parameter.grad = 0.0


def sample(model: GPT, rng: random.Random, bos: int, temperature: float = 0.5) -> list[int]:
    """The tokens of a new document, at most block_size of them. Below temperature 1 the likely become likelier."""
    tokens = [bos]
    while len(tokens) <= model.block_size:
        logits = model.step(tokens[-1]) if len(tokens) > 1 else model.start(tokens)
        largest = max(logits)
        weights = [math.exp((logit - largest) / temperature) for logit in logits]
        tokens += rng.choices(range(len(logits)), weights)
        if tokens[-1] == bos:
            return tokens[1:-1]
    return tokens[1:]


def main(path: str, steps: int = 1000, block_size: int = 16) -> None:
    """Train on a file of documents, one a line, and print twenty new ones."""
    rng = random.Random(42)
    try:
        with open(path, encoding="utf-8-sig") as file:
            documents = [line.strip() for line in file if line.strip()]
    except (OSError, UnicodeError) as error:
        sys.exit(f"{path}: cannot be read as text ({error})")
    if not documents:
        sys.exit(f"{path}: no text in it; give a file with one document a line")
    rng.shuffle(documents)
    characters = sorted(set("".join(documents)))
    bos = len(characters)  # stands before and after every document
    model = GPT(initial_weights(rng, len(characters) + 1, block_size, n_layer=1, n_embd=16), n_head=4)
    adam = Adam(model.parameters(), learning_rate=0.01, beta1=0.85, beta2=0.99, epsilon=1e-8)
    print(f"num docs: {len(documents)}\nvocab size: {len(characters) + 1}\nnum params: {len(adam.parameters)}")
    for step in range(steps):
        document = documents[step % len(documents)]
        tokens = [bos, *map(characters.index, document), bos][: block_size + 1]
        loss = model.loss([tokens])
        loss.backward()
        adam.step(step, steps)
        print(f"step {step + 1:4d} / {steps:4d} | loss {loss.data:.4f}")
    for number in range(20):
        print(f"sample {number + 1:2d}: {''.join(characters[token] for token in sample(model, rng, bos))}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scalar.py FILE, a text file with one document a line, such as names")
    try:
        main(sys.argv[1])
    except BrokenPipeError:  # the reader of the output went away, as `head` does
        sys.stderr.close()
