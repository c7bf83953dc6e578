"""Group normalisation and what comes after it, in two passes: the twin of :mod:`nr_tracking.fields.normalisation`.

Grids are (N, P, C): frames, places, channels; in single precision, or bfloat16 as :mod:`.bfloat16` reads it. Sums are
taken in single precision over a few places, and over all of them in double.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nr_tracking.loops.bfloat16 import stored, wide
from nr_tracking.loops.compiler import compiled
from nr_tracking.types import Float32

Real = NDArray[Any]  # float32, or bfloat16 as uint16

_BLOCK = 64  # places summed up in single precision before the sum goes to double


@compiled
def normalised(
    grid: Real, weight: Float32, bias: Float32, groups: int, epsilon: float, beside: Real, found: Real
) -> Float32:
    """``grid`` (N, P, C), normalised over places and channels of a group, plus ``beside``, where positive: ``found``.

    ``weight`` and ``bias`` are (C,); ``beside`` and ``found`` are (N, P, C), but ``beside`` may have no frames. Returns
    mean and inverse deviation (N, groups, 2).
    """
    frames, places, channels = grid.shape
    width = channels // groups
    total, square = np.empty(channels, np.float64), np.empty(channels, np.float64)
    some, some_squares = np.empty(channels, np.float32), np.empty(channels, np.float32)
    factor, shift = np.empty(channels, np.float32), np.empty(channels, np.float32)
    moments = np.empty((frames, groups, 2), np.float32)
    nothing = np.float32(0)
    for n in range(frames):
        total[:], square[:] = 0, 0
        for start in range(0, places, _BLOCK):
            some[:], some_squares[:] = 0, 0
            for p in range(start, min(start + _BLOCK, places)):
                place = grid[n, p]
                for k in range(channels):
                    value = wide(place[k])
                    some[k] += value
                    some_squares[k] += value * value
            for k in range(channels):
                total[k] += some[k]
                square[k] += some_squares[k]
        for group in range(groups):
            first, size = group * width, width * places
            mean = total[first : first + width].sum() / size
            variance = max(square[first : first + width].sum() / size - mean * mean, 0.0)
            scale = 1 / np.sqrt(variance + epsilon)
            moments[n, group, 0], moments[n, group, 1] = mean, scale
            for k in range(first, first + width):
                factor[k] = weight[k] * scale
                shift[k] = bias[k] - weight[k] * scale * mean
        for p in range(places):
            place, into = grid[n, p], found[n, p]
            if len(beside):
                other = beside[n, p]
                for k in range(channels):
                    into[k] = stored(max(wide(place[k]) * factor[k] + shift[k] + wide(other[k]), nothing), found)
            else:
                for k in range(channels):
                    into[k] = stored(max(wide(place[k]) * factor[k] + shift[k], nothing), found)
    return moments


@compiled
def gradients(
    change: Real, found: Real, grid: Real, weight: Float32, moments: Float32, of_grid: Real, of_beside: Real
) -> tuple[Float32, Float32]:
    """Gradients of :func:`normalised` by the weight and the bias (C,), by ``grid`` and by what was beside it.

    ``change`` (N, P, C) is that of ``found``. The latter two are written to ``of_grid`` and ``of_beside`` (N, P, C),
    which may have no frames.
    """
    frames, places, channels = grid.shape
    groups = moments.shape[1]
    width = channels // groups
    of_weight, of_bias = np.zeros(channels, np.float32), np.zeros(channels, np.float32)
    total, moved = np.empty(channels, np.float64), np.empty(channels, np.float64)
    some, some_moved = np.empty(channels, np.float32), np.empty(channels, np.float32)
    factor, slope = np.empty(channels, np.float32), np.empty(channels, np.float32)
    shift = np.empty(channels, np.float32)
    nothing = np.float32(0)
    for n in range(frames):
        total[:], moved[:] = 0, 0
        for start in range(0, places, _BLOCK):
            some[:], some_moved[:] = 0, 0
            for p in range(start, min(start + _BLOCK, places)):
                pull, result, place = change[n, p], found[n, p], grid[n, p]
                for k in range(channels):
                    value = wide(pull[k]) if wide(result[k]) > nothing else nothing
                    some[k] += value
                    some_moved[k] += value * wide(place[k])
            for k in range(channels):
                total[k] += some[k]
                moved[k] += some_moved[k]
        for group in range(groups):
            first, size = group * width, width * places
            mean, scale = np.float64(moments[n, group, 0]), np.float64(moments[n, group, 1])
            level = tilt = 0.0  # of the gradient by what is normalised: its mean, and that of both multiplied
            for k in range(first, first + width):
                moved[k] = scale * (moved[k] - mean * total[k])
                level += weight[k] * total[k] / size
                tilt += weight[k] * moved[k] / size
                of_bias[k] += total[k]
                of_weight[k] += moved[k]
            for k in range(first, first + width):
                factor[k] = scale * weight[k]
                slope[k] = -scale * scale * tilt
                shift[k] = scale * (scale * mean * tilt - level)
        for p in range(places):
            pull, result, place, into = change[n, p], found[n, p], grid[n, p], of_grid[n, p]
            for k in range(channels):
                value = wide(pull[k]) if wide(result[k]) > nothing else nothing
                into[k] = stored(value * factor[k] + wide(place[k]) * slope[k] + shift[k], of_grid)
            if len(of_beside):
                other = of_beside[n, p]
                for k in range(channels):
                    other[k] = pull[k] if wide(result[k]) > nothing else stored(nothing, of_beside)
    return of_weight, of_bias
