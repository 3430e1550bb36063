"""A trained GPT of the architecture `micro` that writes: what `etude generate` prints, without anything but Python.

It is a template. What stands between the two lines below is put there by `etude.prime.models`: the sizes, the letters,
one scale a matrix, and the weights as text, a character a weight. A character's code less 63 is a whole number from -28
to 28; times its matrix's scale it is the weight. Numbers near 0 are common, and what compresses the program gives a
common character few bits, so that a weight takes less than three.
"""

from math import exp
from operator import mul

# model {
letters = "ab"
layers, heads, width, block = 1, 1, 2, 4
scales = 1, 1, 1, 1, 1, 1, 1
weights = "?" * 68
seed, samples, temperature = 0, 2, 1
# }

end = len(letters)  # the token that stands before and after every text
scales, weights = iter(scales), iter(weights)


def matrix(rows, columns=width, /):
    scale = next(scales)
    return [[scale * (ord(next(weights)) - 63) for _ in range(columns)] for _ in range(rows)]


def linear(rows, x, /):
    return [sum(map(mul, row, x)) for row in rows]


def norm(x, /):
    return [a * (sum(map(mul, x, x)) / len(x) + 1e-5) ** -0.5 for a in x]


def add(x, y, /):
    return [*map(sum, zip(x, y))]


wte, wpe, head = matrix(end + 1), matrix(block), matrix(end + 1)
stack = [(matrix(3 * width), matrix(width), matrix(4 * width), matrix(width, 4 * width)) for _ in range(layers)]


def logits(token, position, /):
    """What comes after a token; each layer's queries, keys and values of it and those before it are in `past`."""
    x = norm(add(wte[token], wpe[position]))
    for memory, (attention, out, up, down) in zip(past, stack):
        memory.append(linear(attention, norm(x)))
        mixed = []
        for start in range(0, width, width // heads):
            head_size = width // heads
            query = memory[-1][start : start + head_size]
            shares = [exp(sum(map(mul, query, each[width + start :])) * head_size**-0.5) for each in memory]
            for i in range(2 * width + start, 2 * width + start + head_size):
                mixed.append(sum(share * each[i] for share, each in zip(shares, memory)) / sum(shares))
        x = add(x, linear(out, mixed))
        x = add(x, linear(down, [max(0, a) for a in linear(up, norm(x))]))
    return linear(head, x)


def hashing(constant, factor, /):
    """Numbers into others that look random, by a constant that changes each time (NumPy's `SeedSequence`)."""

    def hashed(number, /):
        nonlocal constant
        number ^= constant
        constant = constant * factor % 2**32
        number = number * constant % 2**32
        return number ^ number >> 16

    return hashed


def random(index, /):
    """One number to be left out, then what `numpy.random.default_rng((seed, index)).random()` gives, again and again.

    NumPy's generator is PCG64 (O'Neill 2014).
    """
    hashed = hashing(0x43B0D7E5, 0x931E8875)
    pool = [*map(hashed, (seed, index, 0, 0))]
    for source in range(4):
        for target in range(4):
            if source != target:
                number = (0xCA01F9DD * pool[target] - 0x4973F715 * hashed(pool[source])) % 2**32
                pool[target] = number ^ number >> 16
    a, b, c, d, e, f, g, h = map(hashing(0x8B51F9DD, 0x58F38DED), pool * 2)
    step = 2 * (h << 32 | g | e << 64 | f << 96) + 1
    state = (d << 32 | c | a << 64 | b << 96) + step
    while 1:
        state = (state * 0x2360ED051FC65DA44385DF649FCCF645 + step) % 2**128
        number = state >> 64 ^ state % 2**64
        turn = state >> 122
        yield ((number >> turn | number << 64 - turn) % 2**64 >> 11) / 2**53


for index in range(samples):
    past = [[] for _ in stack]
    text = ""
    token = end
    uniforms = random(index)
    next(uniforms)
    for position, uniform in zip(range(block), uniforms):
        likely = [exp(a / temperature) for a in logits(token, position)]
        rest = uniform * sum(likely)
        for token in sorted(range(end + 1), key=lambda token: -likely[token]):
            rest -= likely[token]
            if rest < 0:
                break
        if token == end:
            break
        text += letters[token]
    print(text)
