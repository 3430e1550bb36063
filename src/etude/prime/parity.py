"""Reed-Solomon parity over the field of 1,024 elements: what was heard wrongly is found and put right.

A symbol is three digits, 0 to 999, and a parity symbol is any of the field's elements, sung as four digits. Symbols are
dealt to as many codewords as are needed, like cards, so that a passage heard badly falls on all of them alike. With
2t parity symbols, t wrong symbols of a codeword are mended wherever they are (Reed and Solomon 1960; the locator by
Berlekamp and Massey, its roots by Chien, the values by Forney).
"""

from __future__ import annotations

PARITY = 16  # parity symbols of a codeword: eight wrong symbols are mended
_SIZE = 1024
_ORDER = _SIZE - 1  # of the field's multiplicative group, and the longest codeword
_POLYNOMIAL = 0b10000001001  # x^10 + x^3 + 1, primitive over the field of two elements

_POWERS = [1] * (2 * _ORDER)
for _exponent in range(1, 2 * _ORDER):
    _doubled = _POWERS[_exponent - 1] << 1
    _POWERS[_exponent] = _doubled ^ _POLYNOMIAL if _doubled & _SIZE else _doubled
_LOGS = {value: exponent for exponent, value in enumerate(_POWERS[:_ORDER])}


def _times(a: int, b: int) -> int:
    return _POWERS[_LOGS[a] + _LOGS[b]] if a and b else 0


def _over(a: int, b: int) -> int:
    return _POWERS[_LOGS[a] - _LOGS[b] + _ORDER] if a else 0


def _value(polynomial: list[int], at: int) -> int:
    """Of a polynomial, highest coefficient first."""
    total = 0
    for coefficient in polynomial:
        total = _times(total, at) ^ coefficient
    return total


def codewords(symbols: int) -> int:
    """How many codewords so many symbols are dealt to."""
    return -(-symbols // (_ORDER - PARITY)) or 1


def parity_digits(digits: str) -> str:
    """What is sung after the digits: four digits for each parity symbol."""
    symbols = _symbols(digits)
    count = codewords(len(symbols))
    return "".join(f"{symbol:04d}" for deal in range(count) for symbol in _parity(symbols[deal::count]))


def parity_length(digits: int) -> int:
    """How many digits of parity follow so many digits."""
    return 4 * PARITY * codewords(-(-digits // 3))


def mended(digits: str, parity: str) -> str | None:
    """The digits as they were before some, or some of their parity, were heard wrongly; None for too many."""
    symbols = _symbols(digits)
    count = codewords(len(symbols))
    if len(parity) != 4 * PARITY * count:
        return None
    checks = [int(parity[start : start + 4]) for start in range(0, len(parity), 4)]
    for deal in range(count):
        received = symbols[deal::count] + checks[deal * PARITY : (deal + 1) * PARITY]
        corrected = _correct(received)
        if corrected is None or max(corrected[:-PARITY], default=0) > 999:
            return None
        symbols[deal::count] = corrected[:-PARITY]
    pieces = [f"{symbol:03d}" for symbol in symbols[:-1]]
    last = len(digits) - 3 * len(pieces)
    if symbols[-1] >= 10**last:
        return None
    return "".join(pieces) + f"{symbols[-1]:0{last}d}"


def _symbols(digits: str) -> list[int]:
    return [int(digits[start : start + 3]) for start in range(0, len(digits), 3)]


def _parity(message: list[int]) -> list[int]:
    """The remainder of message times x^PARITY by the product of (x - 2^i), i from 0 to PARITY - 1."""
    generator = [1]
    for exponent in range(PARITY):
        shifted = [*generator, 0]
        generator = [a ^ _times(b, _POWERS[exponent]) for a, b in zip(shifted, [0, *generator], strict=True)]
    remainder = [0] * PARITY
    for symbol in message:
        factor = symbol ^ remainder[0]
        remainder = [a ^ _times(factor, b) for a, b in zip([*remainder[1:], 0], generator[1:], strict=True)]
    return remainder


def _correct(received: list[int]) -> list[int] | None:
    """The codeword within PARITY / 2 symbols of what was received; None where there is none."""
    received = [symbol % _SIZE for symbol in received]  # a parity symbol heard as 1,024 or more is wrong anyway
    syndromes = [_value(received, _POWERS[exponent]) for exponent in range(PARITY)]
    if not any(syndromes):
        return received
    locator = _locator(syndromes)  # lowest coefficient first
    errors = len(locator) - 1
    if errors > PARITY // 2:
        return None
    highest_first = locator[::-1]
    places = [  # powers of x at which an error stands
        power for power in range(len(received)) if _value(highest_first, _POWERS[-power % _ORDER]) == 0
    ]
    if len(places) != errors:
        return None
    evaluator = [0] * PARITY
    for i, a in enumerate(locator):
        for j, b in enumerate(syndromes):
            if i + j < PARITY:
                evaluator[i + j] ^= _times(a, b)
    corrected = list(received)
    for power in places:
        inverse = _POWERS[-power % _ORDER]
        slope = 0  # the derivative keeps the odd powers, each one lower
        for exponent in range(1, len(locator), 2):
            slope ^= _times(locator[exponent], _POWERS[_LOGS[inverse] * (exponent - 1) % _ORDER])
        if slope == 0:
            return None
        size = _times(_POWERS[power], _over(_value(evaluator[::-1], inverse), slope))
        corrected[len(received) - 1 - power] ^= size
    return None if any(_value(corrected, _POWERS[exponent]) for exponent in range(PARITY)) else corrected


def _locator(syndromes: list[int]) -> list[int]:
    """The shortest recurrence that the syndromes obey (Berlekamp-Massey), lowest coefficient first."""
    current, previous = [1], [1]
    length, gap, before = 0, 1, 1
    for step, syndrome in enumerate(syndromes):
        discrepancy = syndrome
        for index in range(1, length + 1):
            if index < len(current):
                discrepancy ^= _times(current[index], syndromes[step - index])
        if discrepancy == 0:
            gap += 1
            continue
        factor = _over(discrepancy, before)
        change = [0] * gap + [_times(factor, value) for value in previous]
        size = max(len(current), len(change))
        updated = [(current[i] if i < len(current) else 0) ^ (change[i] if i < len(change) else 0) for i in range(size)]
        if 2 * length <= step:
            length, previous, before, gap = step + 1 - length, current, discrepancy, 1
        else:
            gap += 1
        current = updated
    while current and current[-1] == 0:
        current.pop()
    return current if len(current) - 1 == length else [1] + [0] * PARITY
