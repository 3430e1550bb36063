"""The inner loops of a product with a matrix, written in vectors of 16 lanes instead of loops, for Numba.

A compiler makes vectors of most loops by itself. These it made slower by a fifth or more: it does not know that rows
follow one another, that four products of an int4 group may wait for their scale, or how to add up 16 sums at once.
It still chooses the instructions: what is written here is LLVM's own language, which knows no particular processor.

Arguments are addresses. Rows come in whole groups of 64 numbers. Each function adds up in one order, always.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils as untyped

from etude.gpt.config import GROUP

from .kernels import instructions

_LANES = 16
_AHEAD = 2048  # bytes that are fetched ahead; the processor's own guess stops at the end of each page
cgutils: Any = untyped
_I8, _I16, _I32, _I64 = map(ir.IntType, (8, 16, 32, 64))
_F32 = ir.FloatType()
_CONTRACT = ("contract",)  # a product and a sum in one instruction


class _Block:
    """A builder of instructions, and the few that the loops below are made of."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def at(self, address: Any, *offsets: Any) -> Any:
        """An address further on, by numbers or by values of the program."""
        for offset in offsets:
            step = ir.Constant(_I64, offset) if isinstance(offset, int) else offset
            address = self.builder.add(address, step)
        return address

    def times(self, value: Any, factor: int) -> Any:
        return self.builder.mul(value, ir.Constant(_I64, factor))

    def load(self, address: Any, kind: Any, count: int) -> Any:
        """A vector from memory; it need not lie at a multiple of its size."""
        vector = ir.VectorType(kind, count)
        loaded = self.builder.load(self.builder.inttoptr(address, vector.as_pointer()))
        loaded.align = kind.width // 8 if kind != _F32 else 4
        return loaded

    def store(self, vector: Any, address: Any) -> None:
        stored = self.builder.store(vector, self.builder.inttoptr(address, vector.type.as_pointer()))
        stored.align = 4

    def fetch(self, address: Any) -> None:
        """Tell the processor what will be read soon; an address outside the matrix does no harm."""
        kind = ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
        fetch = self.builder.module.declare_intrinsic("llvm.prefetch.p0", fnty=kind)
        place = self.builder.inttoptr(self.at(address, _AHEAD), _I8.as_pointer())
        self.builder.call(fetch, [place, _I32(0), _I32(2), _I32(1)])

    def zeros(self, kind: Any) -> Any:
        """A sum that begins at zero, in each lane."""
        return cgutils.alloca_once_value(self.builder, ir.Constant(ir.VectorType(kind, _LANES), [0] * _LANES))

    def add_product(self, total: Any, a: Any, b: Any) -> None:
        """total += a * b, in each lane."""
        product = self.builder.fmul(a, b, flags=_CONTRACT)
        self.builder.store(self.builder.fadd(self.builder.load(total), product, flags=_CONTRACT), total)

    def shuffle(self, a: Any, places: list[int], b: Any = None) -> Any:
        mask = ir.Constant(ir.VectorType(_I32, len(places)), places)
        return self.builder.shuffle_vector(a, ir.Constant(a.type, ir.Undefined) if b is None else b, mask)

    def broadcast(self, address: Any) -> Any:
        """The float at an address, in each lane."""
        one = self.load(address, _F32, 1)
        return self.shuffle(one, [0] * _LANES)

    def products(self, a: Any, b: Any) -> Any:
        """Sums [16] int32 of two neighbouring products each of 32 int16, in a form that becomes one instruction."""
        wide = ir.VectorType(_I32, 2 * _LANES)
        both = self.builder.mul(self.builder.sext(a, wide), self.builder.sext(b, wide), flags=("nsw",))
        even, odd = list(range(0, 2 * _LANES, 2)), list(range(1, 2 * _LANES, 2))
        return self.builder.add(self.shuffle(both, even), self.shuffle(both, odd))

    def sums(self, vectors: list[Any]) -> Any:
        """The sums over the lanes of 16 vectors, in a lane each.

        Two vectors become one with half of each, their neighbours added: after four rounds each lane is one sum.
        """
        even, odd = list(range(0, 2 * _LANES, 2)), list(range(1, 2 * _LANES, 2))
        while len(vectors) > 1:
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [self.builder.fadd(self.shuffle(a, even, b), self.shuffle(a, odd, b)) for a, b in pairs]
        return vectors[0]


@instructions
def largest(context: Any, x: Any, groups: Any) -> Any:
    """The largest magnitude among float32 x [k]; a loop would stay one, as what is no number might be among them."""

    def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, groups = arguments
        block = _Block(builder)
        bits = ir.VectorType(_I32, _LANES)
        most = [block.zeros(_I32) for _ in range(GROUP // _LANES)]
        with cgutils.for_range(builder, groups) as loop:
            for quarter, total in enumerate(most):
                place = block.at(x, block.times(loop.index, 4 * GROUP), 4 * _LANES * quarter)
                # Without their sign, floats are in the same order as the integers of their bits.
                size = builder.and_(block.load(place, _I32, _LANES), ir.Constant(bits, [0x7FFFFFFF] * _LANES))
                before = builder.load(total)
                builder.store(builder.select(builder.icmp_signed(">", size, before), size, before), total)
        vectors = [builder.load(total) for total in most]
        while len(vectors) > 1 or vectors[0].type.count > 1:
            if len(vectors) == 1:
                half = vectors[0].type.count // 2
                vectors = [block.shuffle(vectors[0], list(range(at, at + half))) for at in (0, half)]
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [builder.select(builder.icmp_signed(">", a, b), a, b) for a, b in pairs]
        return builder.bitcast(builder.extract_element(vectors[0], ir.Constant(_I32, 0)), _F32)

    return types.float32(types.int64, types.int64), generate


def _dots(kind: Any) -> Any:
    """The products of 16 rows of `kind` with x. Sums stay in lanes until all rows are through."""
    row_bytes, width = {"float32": (4 * GROUP, 4), "int8": (GROUP, 2), "int4": (GROUP // 2, 2)}[kind]
    half = GROUP // 2

    def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows, scales, x, groups, out = arguments
        block = _Block(builder)
        lines = cgutils.alloca_once(builder, ir.VectorType(_F32, _LANES), size=_LANES)
        with cgutils.for_range(builder, ir.Constant(_I64, _LANES)) as each_row:
            row = block.at(rows, builder.mul(each_row.index, block.times(groups, row_bytes)))
            own = block.at(scales, builder.mul(each_row.index, block.times(groups, 4)))  # of int4
            # A single sum would wait for itself at every addition.
            totals = [
                block.zeros(_I32 if kind == "int8" else _F32) for _ in range({"float32": 4, "int8": 2, "int4": 1}[kind])
            ]
            for total in totals:
                builder.store(ir.Constant(total.type.pointee, [0] * _LANES), total)
            with cgutils.for_range(builder, groups) as loop:
                begin, other = (
                    block.at(row, block.times(loop.index, row_bytes)),
                    block.at(x, block.times(loop.index, width * GROUP)),
                )
                if kind == "float32":
                    for quarter, total in enumerate(totals):
                        at = 4 * _LANES * quarter
                        block.fetch(block.at(begin, at))
                        numbers = block.load(block.at(begin, at), _F32, _LANES)
                        block.add_product(total, numbers, block.load(block.at(other, at), _F32, _LANES))
                else:
                    block.fetch(begin)
                    if kind == "int8":
                        parts = [block.load(block.at(begin, at), _I8, half) for at in (0, half)]
                    else:
                        pairs = block.load(begin, _I8, half)
                        upper = ir.Constant(pairs.type, [-16] * half)
                        four = ir.Constant(ir.VectorType(_I16, half // 2), [4] * (half // 2))
                        moved = builder.bitcast(builder.shl(builder.bitcast(pairs, four.type), four), pairs.type)
                        parts = [builder.and_(moved, upper), builder.and_(pairs, upper)]
                    sums = [
                        block.products(
                            builder.sext(part, ir.VectorType(_I16, half)), block.load(block.at(other, at), _I16, half)
                        )
                        for part, at in zip(parts, (0, GROUP), strict=True)
                    ]
                    if kind == "int8":
                        for total, added in zip(totals, sums, strict=True):
                            builder.store(builder.add(builder.load(total), added), total)
                    else:
                        both = builder.sitofp(builder.add(*sums), ir.VectorType(_F32, _LANES))
                        block.add_product(totals[0], both, block.broadcast(block.at(own, block.times(loop.index, 4))))
            loaded = [builder.load(total) for total in totals]
            add = builder.add if kind == "int8" else builder.fadd
            while len(loaded) > 1:
                loaded = [add(a, b) for a, b in zip(loaded[::2], loaded[1::2], strict=True)]
            line = loaded[0] if kind != "int8" else builder.sitofp(loaded[0], ir.VectorType(_F32, _LANES))
            builder.store(line, builder.gep(lines, [each_row.index]))
        sums = block.sums([builder.load(builder.gep(lines, [ir.Constant(_I64, i)])) for i in range(_LANES)])
        if kind == "int8":
            sums = builder.fmul(sums, block.load(scales, _F32, _LANES))
        block.store(sums, out)
        return ir.Constant(_I64, 0)

    return types.int64(*[types.int64] * 5), generate


@instructions
def dots_float32(context: Any, rows: Any, scales: Any, x: Any, groups: Any, out: Any) -> Any:
    """out [16] = rows [16, k] x [k], all float32; scales are not read."""
    return _dots("float32")


@instructions
def dots_int8(context: Any, rows: Any, scales: Any, codes: Any, groups: Any, out: Any) -> Any:
    """out [16] = rows [16, k] of int8, times their scales [16], by int16 codes [k]. A lane's sum must fit 31 bits."""
    return _dots("int8")


@instructions
def dots_int4(context: Any, rows: Any, scales: Any, codes: Any, groups: Any, out: Any) -> Any:
    """out [16] = 16 times rows [16, k] of int4, times the scales [16, groups] of their groups, by int16 codes [k].

    Byte i of a group's 32 holds number i in its lower half and number 32 + i in its upper one, where an int4 is 16
    times itself as an int8.
    """
    return _dots("int4")


def _square(kind: Any) -> Any:
    """The sums of products of 4 rows by 4, of `kind` (float32 or int16) numbers."""
    width = 4 if kind == _F32 else 2  # bytes
    lanes = 64 // width

    def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, x_stride, rows, stride, groups, out = arguments
        block, four = _Block(builder), range(4)
        totals = [[block.zeros(_F32 if kind == _F32 else _I32) for _ in four] for _ in four]
        starts = [
            [block.at(begin, block.times(step, i)) for i in four] for begin, step in ((x, x_stride), (rows, stride))
        ]
        with cgutils.for_range(builder, block.times(groups, GROUP // lanes)) as loop:
            offset = block.times(loop.index, 64)
            a, b = ([block.load(block.at(start, offset), kind, lanes) for start in side] for side in starts)
            for t in four:
                for j in four:
                    if kind == _F32:
                        block.add_product(totals[t][j], a[t], b[j])
                    else:
                        added = builder.add(builder.load(totals[t][j]), block.products(a[t], b[j]))
                        builder.store(added, totals[t][j])
        sums = [builder.load(totals[t][j]) for t in four for j in four]
        if kind != _F32:
            sums = [builder.sitofp(each, ir.VectorType(_F32, _LANES)) for each in sums]
        block.store(block.sums(sums), out)
        return ir.Constant(_I64, 0)

    return types.int64(*[types.int64] * 6), generate


@instructions
def square_float32(context: Any, x: Any, x_stride: Any, rows: Any, stride: Any, groups: Any, out: Any) -> Any:
    """out [4, 4] = x [4, k] rows [4, k].T in float32; strides are bytes from one row to the next."""
    return _square(_F32)


@instructions
def square_int16(context: Any, x: Any, x_stride: Any, rows: Any, stride: Any, groups: Any, out: Any) -> Any:
    """As `square_float32` for int16 with float32 sums. The k / 16 products in a lane must fit into 31 bits."""
    return _square(_I16)


@instructions
def scores16(context: Any, q: Any, keys: Any, size: Any, factor: Any, out: Any) -> Any:
    """out [16] = factor times the products of q [size] with 16 keys [size, 16]."""

    def generate(_: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        q, keys, size, factor, out = arguments
        block = _Block(builder)
        totals = [block.zeros(_F32) for _ in range(4)]

        def add(index: Any, step: int, total: Any) -> None:
            row = block.at(keys, block.times(index, 4 * _LANES), 4 * _LANES * step)
            place = block.at(q, block.times(index, 4), 4 * step)
            block.add_product(total, block.load(row, _F32, _LANES), block.broadcast(place))

        fours = builder.and_(size, ir.Constant(_I64, -4))
        with cgutils.for_range_slice(builder, ir.Constant(_I64, 0), fours, ir.Constant(_I64, 4)) as (index, _count):
            for step, total in enumerate(totals):
                add(index, step, total)
        with cgutils.for_range_slice(builder, fours, size, ir.Constant(_I64, 1)) as (index, _count):
            add(index, 0, totals[0])
        sums = [builder.load(total) for total in totals]
        total = builder.fadd(builder.fadd(sums[0], sums[1]), builder.fadd(sums[2], sums[3]))
        one = builder.insert_element(ir.Constant(ir.VectorType(_F32, 1), ir.Undefined), factor, ir.Constant(_I32, 0))
        block.store(builder.fmul(total, block.shuffle(one, [0] * _LANES)), out)
        return ir.Constant(_I64, 0)

    return types.int64(types.int64, types.int64, types.int64, types.float32, types.int64), generate
