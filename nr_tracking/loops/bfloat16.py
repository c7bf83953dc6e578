"""Numbers of eight significant bits in loops, which know them as the 16 bits they are: the upper half of a float32.

A loop that reads with :func:`wide` and writes with :func:`stored` does either: both are written out for the type of
the array that is read or written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from nr_tracking.loops.compiler import inlined

_HALF = np.uint32(16)


def wide(value: Any) -> Any:
    """A number of an array as a float32."""
    raise NotImplementedError("for loops alone")


@overload(wide, inline="always", strict=False)  # lambdas bear no types
def _wide(value: Any) -> Any:
    if value == types.uint16:
        return lambda value: np.uint32(np.uint32(value) << _HALF).view(np.float32)
    return lambda value: value


def stored(value: Any, array: Any) -> Any:
    """A float32 as ``array`` holds it: in bfloat16 the nearest, of two the even one."""
    raise NotImplementedError("for loops alone")


@overload(stored, inline="always", strict=False)  # lambdas bear no types
def _stored(value: Any, array: Any) -> Any:
    if array.dtype == types.uint16:
        return lambda value, array: _rounded(np.float32(value).view(np.uint32))
    return lambda value, array: value


@inlined
def _rounded(bits: Any) -> Any:
    """The upper half of a float32's ``bits``, rounded; the one NaN that arithmetic makes stays one."""
    return np.uint16(np.uint32(bits + np.uint32(0x7FFF) + np.uint32(np.uint32(bits >> _HALF) & np.uint32(1))) >> _HALF)
