"""A trained GPT of the architecture `micro` that writes: what `etude generate` prints, without anything but Python.

It is a template. What stands between the two lines below is put there by `etude.prime.models`: the letters, the sizes
(of the block, of the residual stream and of a head), the matrices (scale, rows, columns), and the weights as text, a
character a weight. A character's code less 63 is a whole number from -28 to 28; times its matrix's scale it is the
weight. Numbers near 0 are common, and what compresses the program gives a common character few bits, so that a weight
takes some three.
"""

from math import exp
from operator import mul

# model {
letters = "ab"
block, width, size = 4, 2, 1
shapes = (1, 3, 2), (1, 4, 2), (1, 3, 2), (1, 6, 2), (1, 2, 2), (1, 8, 2), (1, 2, 8)
weights = "?" * 68
seed, samples, temperature = 0, 2, 1
# }

end = len(letters)  # the token that stands before and after every text
code = iter(weights)
wte, wpe, head, *layers = [
    [[scale * (ord(next(code)) - 63) for _ in range(columns)] for _ in range(rows)] for scale, rows, columns in shapes
]


def dot(a, b, /):
    return sum(map(mul, a, b))


def linear(rows, x, /):
    return [dot(row, x) for row in rows]


def norm(x, /):
    return [a * (dot(x, x) / width + 1e-5) ** -0.5 for a in x]


def add(x, y, /):
    return [*map(sum, zip(x, y))]


def logits(token, position, /):
    """What comes after a token; each layer's queries, keys and values of it and those before it are in `past`."""
    x = norm(add(wte[token], wpe[position]))
    for memory, attention, out, up, down in zip(past, layers[::4], layers[1::4], layers[2::4], layers[3::4]):
        memory.append(linear(attention, norm(x)))
        mixed = []
        for start in range(0, width, size):
            query = memory[-1][start : start + size]
            shares = [exp(dot(query, each[width + start :]) * size**-0.5) for each in memory]
            for i in range(start, start + size):
                mixed.append(dot(shares, [each[2 * width + i] for each in memory]) / sum(shares))
        x = add(x, linear(out, mixed))
        x = add(x, linear(down, [max(0, a) for a in linear(up, norm(x))]))
    return linear(head, x)


def hashed(number, /):
    """A number as another that looks random, by a constant that changes each time (NumPy's `SeedSequence`)."""
    global constant
    number ^= constant
    constant = constant * factor % 2**32
    number = number * constant % 2**32
    return number ^ number >> 16


for index in range(samples):
    # What numpy.random.default_rng((seed, index)) begins with: PCG64 (O'Neill 2014).
    constant, factor = 0x43B0D7E5, 0x931E8875
    pool = [*map(hashed, (seed, index, 0, 0))]
    for i in range(16):
        if i % 5:  # from number i // 4 to the three others
            number = (0xCA01F9DD * pool[i % 4] - 0x4973F715 * hashed(pool[i // 4])) % 2**32
            pool[i % 4] = number ^ number >> 16
    constant, factor = 0x8B51F9DD, 0x58F38DED
    a, b, c, d, e, f, g, h = map(hashed, pool * 2)
    step = 2 * (h << 32 | g | e << 64 | f << 96) + 1
    state = (d << 32 | c | a << 64 | b << 96) + step
    state = (state * 0x2360ED051FC65DA44385DF649FCCF645 + step) % 2**128
    past = [[] for _ in layers]
    token = end
    for position in range(block):
        state = (state * 0x2360ED051FC65DA44385DF649FCCF645 + step) % 2**128
        number = state >> 64 ^ state % 2**64
        uniform = ((number << 64 | number) >> (state >> 122)) % 2**64 // 2**11 / 2**53
        likely = [exp(a / temperature) for a in logits(token, position)]
        rest = uniform * sum(likely)
        for weight, token in sorted((-a, token) for token, a in enumerate(likely)):
            rest += weight
            if rest < 0:
                break
        if token == end:
            break
        print(end=letters[token])
    print()
