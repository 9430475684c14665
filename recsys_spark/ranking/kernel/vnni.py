"""The processor's product of 8-bit codes, for the compiled loops: AVX-512 VNNI by way of numba's LLVM.

One `vpdpbusd` multiplies 64 pairs of bytes and adds them by fours to 16 sums: four times what a float32
instruction of the same width does. No compiler finds it in a plain loop, so the innermost block is written
out here: ROWS items × LANES users, their sums in registers from the first dimension to the last.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, vol. 2, VPDPBUSD.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic
from numba.np import arrayobj

ROWS = 12  # items of a block
LANES = 32  # users of a block: two vectors of 16 sums; 24 of the 32 registers hold sums
WIDTH = 16
BYTES_SINCE = 22  # the LLVM from which on the instruction's operands are vectors of bytes
MULTIPLY = "llvm.x86.avx512.vpdpbusd.512"


def is_supported() -> bool:
    """Whether this processor has the instruction, and numba compiles for it with an LLVM that takes bytes."""
    if llvm.llvm_version_info[0] < BYTES_SINCE:
        return False
    features = llvm.get_host_cpu_features()
    return not config.CPU_NAME and all(features.get(name) for name in ("avx512f", "avx512bw", "avx512vnni"))


@intrinsic
def block_above(  # type: ignore[no-untyped-def]
    typing_context,  # noqa: ANN001, ARG001
    item_codes,  # noqa: ANN001
    item_at,  # noqa: ANN001
    starts,  # noqa: ANN001
    start_at,  # noqa: ANN001
    user_codes,  # noqa: ANN001
    user_at,  # noqa: ANN001
    steps,  # noqa: ANN001
    bars,  # noqa: ANN001
    above,  # noqa: ANN001
) -> Any:
    """Whether any sum of a block of ROWS items × LANES users exceeds its user's bar; only then above is set.

    All arrays are flat and contiguous. Nothing is checked.

    typing_context: numba's.
    item_codes: int8, from item_at on [steps, ROWS, 4].
    item_at: where the block's items begin.
    starts: int32, from start_at on [ROWS]: what each item's sums begin with.
    start_at: where the block's starts begin.
    user_codes: uint8, from user_at on [steps, LANES, 4].
    user_at: where the block's users begin.
    steps: fours of dimensions.
    bars: int32 [LANES], what a user's sums must exceed.
    above: uint32 [ROWS]: bit l of row r is set where the sum of item r and user l is more than bars[l].

    Source: Intel's manual, see the module's first lines.
    """
    operands = item_codes, item_at, starts, start_at, user_codes, user_at, steps, bars, above
    return types.boolean(*operands), _write_above


@intrinsic
def block_largest(  # type: ignore[no-untyped-def]
    typing_context,  # noqa: ANN001, ARG001
    item_codes,  # noqa: ANN001
    item_at,  # noqa: ANN001
    starts,  # noqa: ANN001
    start_at,  # noqa: ANN001
    user_codes,  # noqa: ANN001
    user_at,  # noqa: ANN001
    steps,  # noqa: ANN001
    largest,  # noqa: ANN001
    number,  # noqa: ANN001
) -> Any:
    """Write each user's largest sum of a block of ROWS items × LANES users.

    All arrays are contiguous, codes and starts flat. Nothing is checked.

    typing_context: numba's.
    item_codes: int8, from item_at on [steps, ROWS, 4].
    item_at: where the block's items begin.
    starts: int32, from start_at on [ROWS]: what each item's sums begin with.
    start_at: where the block's starts begin.
    user_codes: uint8, from user_at on [steps, LANES, 4].
    user_at: where the block's users begin.
    steps: fours of dimensions.
    largest: int32 [n, LANES], written.
    number: the row of largest to write.

    Source: Intel's manual, see the module's first lines.
    """
    operands = item_codes, item_at, starts, start_at, user_codes, user_at, steps, largest, number
    return types.none(*operands), _write_largest


@intrinsic
def lowest_bit(typing_context, bits):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, ARG001
    """The number of the lowest bit that is set, of a uint32 that is not 0."""

    def write(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.zext(builder.cttz(args[0], ir.Constant(ir.IntType(1), 1)), _LONG)

    return types.int64(types.uint32), write


@intrinsic
def fetch(typing_context, rows, number):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, ARG001
    """Ask for a row of a contiguous float32 matrix, so that it is in the cache when it is read."""

    def write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        matrix = arrayobj.make_array(signature.args[0])(context, builder, args[0])
        width = builder.mul(cgutils.unpack_tuple(builder, matrix.shape)[1], _LONG(4))
        row = builder.gep(builder.bitcast(matrix.data, _BYTE.as_pointer()), [builder.mul(args[1], width)])
        kinds = ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), _INT, _INT, _INT])
        prefetch = cgutils.get_or_insert_function(builder.module, kinds, "llvm.prefetch.p0")
        with cgutils.for_range_slice(builder, _LONG(0), width, _LONG(64)) as (offset, _):
            builder.call(prefetch, [builder.gep(row, [offset]), _INT(0), _INT(3), _INT(1)])
        return context.get_dummy_value()

    return types.none(rows, types.int64), write


def _write_above(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    block = _Block(context, builder, signature, args)
    return block.compared(block.sums(), block.pointer(7), block.pointer(8))


def _write_largest(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    block = _Block(context, builder, signature, args)
    block.store_largest(block.sums(), block.moved(7, builder.mul(args[8], _LONG(LANES))))
    return context.get_dummy_value()


_BYTE, _INT, _LONG = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_VECTOR, _BYTES = ir.VectorType(_INT, WIDTH), ir.VectorType(_BYTE, 4 * WIDTH)


class _Block:
    """Writes the instructions of one block."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self.context, self.builder, self.kinds, self.args = context, builder, signature.args, args
        kinds = ir.FunctionType(_VECTOR, [_VECTOR, _BYTES, _BYTES])
        self.multiply = cgutils.get_or_insert_function(builder.module, kinds, MULTIPLY)

    def pointer(self, number: int) -> Any:
        """To the first element of the operand, an array."""
        return arrayobj.make_array(self.kinds[number])(self.context, self.builder, self.args[number]).data

    def moved(self, number: int, by: Any) -> Any:
        """To the operand's element number `by`."""
        return self.builder.gep(self.pointer(number), [by])

    def _at(self, pointer: Any, kind: Any, offset: Any) -> Any:
        """A pointer to the kind's element number `offset` (int or value)."""
        number = _LONG(offset) if isinstance(offset, int) else offset
        return self.builder.gep(self.builder.bitcast(pointer, kind.as_pointer()), [number])

    def _load(self, pointer: Any, kind: Any, offset: Any, element: Any = None) -> Any:
        """A value of the kind that begins at the element number `offset`."""
        place = self._at(pointer, element or kind, offset)
        value = self.builder.load(self.builder.bitcast(place, kind.as_pointer()))
        value.align = 4
        return value

    def _splat(self, value: Any) -> Any:
        undefined = ir.Constant(_VECTOR, ir.Undefined)
        one = self.builder.insert_element(undefined, value, _INT(0))
        return self.builder.shuffle_vector(one, undefined, ir.Constant(_VECTOR, [0] * WIDTH))

    def sums(self) -> list[list[Any]]:
        """A row of vectors for each item."""
        builder, halves = self.builder, range(LANES // WIDTH)
        items, starts, users = (self.moved(n, self.args[n + 1]) for n in (0, 2, 4))
        first = [self._splat(self._load(starts, _INT, row)) for row in range(ROWS)]
        before = builder.block
        loop, after = builder.append_basic_block("dimensions"), builder.append_basic_block("summed")
        builder.branch(loop)
        builder.position_at_end(loop)
        step = builder.phi(_LONG)
        sums = [[builder.phi(_VECTOR) for _ in halves] for _ in range(ROWS)]
        user_at = builder.mul(step, _LONG(LANES))
        vectors = [
            builder.bitcast(self._load(users, _VECTOR, builder.add(user_at, _LONG(WIDTH * n)), _INT), _BYTES)
            for n in halves
        ]
        item_at = builder.mul(step, _LONG(ROWS))
        following = builder.add(step, _LONG(1))
        step.add_incoming(_LONG(0), before)
        step.add_incoming(following, loop)
        added: list[list[Any]] = []
        for row in range(ROWS):
            four = self._load(items, _INT, builder.add(item_at, _LONG(row)))
            item = builder.bitcast(self._splat(four), _BYTES)
            added.append([builder.call(self.multiply, [sums[row][n], vectors[n], item]) for n in halves])
            for n in halves:
                sums[row][n].add_incoming(first[row], before)
                sums[row][n].add_incoming(added[row][n], loop)
        builder.cbranch(builder.icmp_signed("<", following, self.args[6]), loop, after)
        builder.position_at_end(after)
        return added

    def compared(self, sums: list[list[Any]], bars: Any, above: Any) -> Any:
        """Whether any sum is above its bar; then the bits are written."""
        builder, mask = self.builder, ir.IntType(WIDTH)
        levels = [self._load(bars, _VECTOR, WIDTH * n, _INT) for n in range(LANES // WIDTH)]
        bits = [[builder.icmp_signed(">", value, levels[n]) for n, value in enumerate(row)] for row in sums]
        some = bits[0][0]
        for flag in [flag for row in bits for flag in row][1:]:
            some = builder.or_(some, flag)
        is_any = builder.icmp_unsigned("!=", builder.bitcast(some, mask), mask(0))
        with builder.if_then(is_any, likely=False):
            for r, row in enumerate(bits):
                for n, flag in enumerate(row):
                    place = self._at(above, mask, len(row) * r + n)
                    builder.store(builder.bitcast(flag, mask), place).align = 2
        return is_any

    def store_largest(self, sums: list[list[Any]], into: Any) -> None:
        """Write the largest sum of each user."""
        builder = self.builder
        for n in range(LANES // WIDTH):
            largest = sums[0][n]
            for row in sums[1:]:
                largest = builder.select(builder.icmp_signed(">", row[n], largest), row[n], largest)
            place = builder.bitcast(self._at(into, _INT, WIDTH * n), _VECTOR.as_pointer())
            builder.store(largest, place).align = 4
