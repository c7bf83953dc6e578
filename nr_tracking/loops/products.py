"""Matrix products of rows that lie anywhere: what is left of every convolution once its weights are in order.

PyTorch's products want both matrices side by side in memory. A convolution has its input scattered, a few dozen
columns, and the same weights each time, so a third to two thirds of its time went to copying rows together and weights
into order. Here sums of six rows by sixteen columns are held in registers while rows are read from where they are (a
microkernel as of Goto and van de Geijn 2008, *Anatomy of High-Performance Matrix Multiplication*; rows by their
addresses as of Dukhan 2019, *The Indirect Convolution Algorithm*). numba itself keeps no array in registers, so the
innermost part is written in LLVM's own language, for vectors of eight numbers: two registers where they hold four.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from nr_tracking.loops.compiler import compiled
from nr_tracking.types import Float32, Int32

LANES = 8  # numbers of a vector: columns come in multiples of it
_FLOAT, _INDEX, _WORD = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)


def _word(value: int) -> ir.Constant:
    return ir.Constant(_WORD, value)


def _vector_at(builder: Any, pointer: Any, offset: Any) -> Any:
    """Where a vector begins in memory; a caller says that it is aligned as single numbers are."""
    return builder.bitcast(builder.gep(pointer, [offset]), _VECTOR.as_pointer())


def _loaded(builder: Any, pointer: Any, offset: Any) -> Any:
    vector = builder.load(_vector_at(builder, pointer, offset))
    vector.align = 4
    return vector


def _repeated(builder: Any, number: Any) -> Any:
    """A vector of one ``number``."""
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(nothing, number, ir.Constant(_INDEX, 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_INDEX, LANES), [0] * LANES))


def _block(rows: int, vectors: int) -> Any:
    """The product for so many ``rows`` and ``vectors`` of columns, at addresses that are numbers.

    found[m, c] = shift[c] + sum over t, k of features[places[m, t], k] * panel[t, k, c] for the rows m from ``first``
    on, the ``last`` one again where there are no more. A place that is none of ``count`` reads ``zeros``, and what no
    row has a place for is passed over.
    """

    @intrinsic
    def multiplied(
        typing: Any, features: Any, count: Any, zeros: Any, places: Any, taps: Any, inputs: Any, panel: Any, shift: Any,
        found: Any, outputs: Any, first: Any, last: Any,
    ) -> Any:  # fmt: skip
        def generated(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _generate(builder, rows, vectors, *arguments)
            return context.get_dummy_value()

        return types.void(*([types.int64] * 12)), generated

    return multiplied


def _generate(
    builder: Any, rows: int, vectors: int, features: Any, count: Any, zeros: Any, places: Any, taps: Any, inputs: Any,
    panel: Any, shift: Any, found: Any, outputs: Any, first: Any, last: Any,
) -> None:  # fmt: skip
    """Write a :func:`_block` out; sums are variables of their own, which LLVM keeps in registers."""
    features, zeros, panel, shift, found = (
        builder.inttoptr(address, _FLOAT.as_pointer()) for address in (features, zeros, panel, shift, found)
    )
    places = builder.inttoptr(places, _INDEX.as_pointer())
    # As one operation where the processor has it, and else as two.
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    fused = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32")
    sums, own = [], []
    for row in range(rows):
        number = builder.add(first, _word(row))
        own.append(builder.select(builder.icmp_signed("<", number, last), number, last))
        begin = [_loaded(builder, shift, _word(LANES * v)) for v in range(vectors)]
        sums.append([cgutils.alloca_once_value(builder, vector) for vector in begin])
    with cgutils.for_range(builder, taps) as tap:
        sources, known = [], []
        for row in own:
            place = builder.load(builder.gep(places, [builder.add(builder.mul(row, taps), tap.index)]))
            place = builder.sext(place, _WORD)
            there = builder.gep(features, [builder.mul(place, inputs)])
            known.append(builder.icmp_unsigned("<", place, count))
            sources.append(builder.select(known[-1], there, zeros))
        of_tap = builder.gep(panel, [builder.mul(builder.mul(tap.index, inputs), _word(LANES * vectors))])
        with builder.if_then(reduce(builder.or_, known)), cgutils.for_range(builder, inputs) as channel:
            at = builder.mul(channel.index, _word(LANES * vectors))
            weights = [_loaded(builder, of_tap, builder.add(at, _word(LANES * v))) for v in range(vectors)]
            for source, of_row in zip(sources, sums, strict=True):
                feature = _repeated(builder, builder.load(builder.gep(source, [channel.index])))
                for weight, kept in zip(weights, of_row, strict=True):
                    builder.store(builder.call(fused, [feature, weight, builder.load(kept)]), kept)
    for number, of_row in zip(own, sums, strict=True):
        into = builder.gep(found, [builder.mul(number, outputs)])
        for v, kept in enumerate(of_row):
            stored = builder.store(builder.load(kept), _vector_at(builder, into, _word(LANES * v)))
            stored.align = 4


# With 16 registers, twelve sums leave room for the weights and a feature, and are enough to hide how long each takes.
_SIX_BY_TWO, _FOUR_BY_TWO, _FOUR_BY_THREE, _SIX_BY_ONE = _block(6, 2), _block(4, 2), _block(4, 3), _block(6, 1)


@compiled
def vectors_of_panel(left: int) -> int:
    """How many vectors of columns the next panel has where ``left`` are left: two, or three or one for an odd rest."""
    if left % 2:
        return 3 if left >= 3 else 1
    return 2


@compiled
def multiply(
    features: Float32, places: Int32, panels: Float32, shift: Float32, absent: Float32, found: Float32
) -> None:
    """``found`` (B, M, O) = ``shift`` (O,) + sum over t of ``features`` (B, R, I) at ``places`` (M, T) by weights.

    What is no row of a ``features[b]``, such as R, reads ``absent`` (I,): zeros, which the caller holds, since nothing
    here would hold what is known by its address alone. ``panels`` (B or 1, T I O) are weights (T I, O) cut into strips
    of columns, one after the other, each (T I, W) with W by :func:`vectors_of_panel`; O is a multiple of ``LANES``. All
    of them lie in one piece. Shapes are not looked at.
    """
    (count, taps), inputs, outputs = places.shape, features.shape[2], found.shape[2]
    nothing, at, known = absent.ctypes.data, places.ctypes.data, features.shape[1]
    for b in range(len(found)):
        source, into = features[b].ctypes.data, found[b].ctypes.data
        panel = panels[min(b, len(panels) - 1)].ctypes.data
        column = 0
        while column < outputs:
            vectors = vectors_of_panel((outputs - column) // LANES)
            start, goal, row = shift.ctypes.data + 4 * column, into + 4 * column, 0
            while row < count:
                what = (source, known, nothing, at, taps, inputs, panel, start, goal, outputs, row, count - 1)
                left = count - row
                if vectors == 3:
                    _FOUR_BY_THREE(*what)
                    row += 4
                elif vectors == 1:
                    _SIX_BY_ONE(*what)
                    row += 6
                elif left == 5 or left == 6 or left > 8:
                    _SIX_BY_TWO(*what)
                    row += 6
                else:
                    _FOUR_BY_TWO(*what)
                    row += 4
            panel += 4 * LANES * vectors * taps * inputs
            column += LANES * vectors
