"""A whole GPT, trained and run on the names in input.txt: 500 steps, then 20 new names. Written to be packed.

What it computes and prints, and every number that it draws, is as in the reference's program that is a prime: a block
of 8, squared ReLU, output projections that begin at zero, Adam with betas 0.9 and 0.95, a rate that falls along half a
cosine. It differs in that it downloads nothing, and in how it goes back through what it computed: a few large
operations with their slopes, each on one line, in place of many small ones.
"""

from math import cos, exp, log, pi
from operator import mul
from random import choices, gauss, seed, shuffle

seed(42)
names = [line.strip() for line in open("input.txt") if line.strip()]
shuffle(names)
print("num docs:", len(names))
letters = sorted(set("".join(names)))
end = len(letters)  # the token that stands before and after every name
print("vocab size:", end + 1)

tape = []


def value(data, inputs=0, slopes=0, /):
    """A number with a history, on the tape: [its data, its gradient, what it was made from, its slope in each].

    A parameter is made from nothing, and keeps Adam's two means in these places.
    """
    tape.append([data, 0, inputs, slopes])
    return tape[-1]


def linear(x, matrix, /):
    return [dot(row, x) for row in matrix]


def dot(a, b, /):
    left, right = [number[0] for number in a], [number[0] for number in b]
    return value(sum(map(mul, left, right)), a + b, right + left)


def norm(x, /):
    scale = (sum(a[0] ** 2 for a in x) / len(x) + 1e-5) ** -0.5
    return [value(a[0] * scale, x, [scale * (a is b) - a[0] * b[0] * scale**3 / len(x) for b in x]) for a in x]


def softmax(x, /):
    total = sum(exp(a[0]) for a in x)
    return [value(exp(a[0]) / total, x, [exp(a[0]) / total * ((a is b) - exp(b[0]) / total) for b in x]) for a in x]


def add(x, y, /):
    return [value(a[0] + b[0], (a, b), (1, 1)) for a, b in zip(x, y)]


def matrix(rows, columns=16, deviation=0.02, /):
    return [[value(gauss(0, deviation)) for _ in range(columns)] for _ in range(rows)]


wte, wpe, head = matrix(end + 1), matrix(8), matrix(end + 1)
query, key, mix, out = matrix(16), matrix(16), matrix(16), matrix(16, 16, 0)
up, down = matrix(64), matrix(16, 64, 0)
count = len(tape)
print("num params:", count)


def logits(token, position, /):
    """What comes after a token; the keys and values of those before it are in `past`."""
    x = norm(add(wte[token], wpe[position]))
    y = norm(x)
    asked = linear(y, query)
    past.append((linear(y, key), linear(y, mix)))
    mixed = []
    for start in 0, 4, 8, 12:
        shares = softmax(
            [
                value(score[0] / 2, [score], [0.5])
                for score in [dot(asked[start : start + 4], k[start : start + 4]) for k, v in past]
            ]
        )
        mixed += [dot(shares, [v[i] for k, v in past]) for i in range(start, start + 4)]
    x = add(linear(mixed, out), x)
    hidden = [value(max(0, a[0]) ** 2, [a], [2 * max(0, a[0])]) for a in linear(norm(x), up)]
    return linear(add(linear(hidden, down), x), head)


for step in range(500):
    tokens = [end, *map(letters.index, names[step % len(names)]), end]
    past = []
    losses = []
    for position in range(min(8, len(tokens) - 1)):
        right = softmax(logits(tokens[position], position))[tokens[position + 1]]
        losses.append(value(-log(right[0]), [right], [-1 / right[0]]))
    loss = sum(loss[0] for loss in losses) / len(losses)
    for last in losses:
        last[1] = 1 / len(losses)
    for _, gradient, inputs, slopes in reversed(tape[count:]):
        for number, slope in zip(inputs, slopes):
            number[1] += slope * gradient
    del tape[count:]
    for parameter in tape:
        parameter[2] += 0.1 * (parameter[1] - parameter[2])
        parameter[3] += 0.05 * (parameter[1] ** 2 - parameter[3])
        rate = 0.005 * (1 + cos(pi * step / 500))
        parameter[0] -= (
            rate * (parameter[2] / (1 - 0.9 ** (step + 1))) / ((parameter[3] / (1 - 0.95 ** (step + 1))) ** 0.5 + 1e-8)
        )
        parameter[1] = 0
    print(f"step {step + 1:4d} /  500 | loss {loss:.4f}")

print("\n--- inference ---")
for sample in range(20):
    past = []
    name = ""
    token = end
    for position in range(8):
        token = choices(range(end + 1), [exp(2 * a[0]) for a in logits(token, position)])[0]
        if token == end:
            break
        name += letters[token]
    print(f"sample {sample + 1:2d}: {name}")
