"""Group normalisation and what comes after it, in two passes: the twin of :mod:`nr_tracking.fields.normalisation`."""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import compiled
from nr_tracking.types import Float32

_BLOCK = 64  # places summed up in single precision before the sum goes to double


@compiled
def normalised(
    grid: Float32, weight: Float32, bias: Float32, groups: int, epsilon: float, beside: Float32, found: Float32
) -> None:
    """``grid`` (N, P, C), normalised over places and channels of a group, plus ``beside``, where positive: ``found``.

    ``weight`` and ``bias`` are (C,); ``beside`` and ``found`` are (N, P, C), but ``beside`` may have no frames.
    """
    frames, places, channels = grid.shape
    width = channels // groups
    total, square = np.empty(channels, np.float64), np.empty(channels, np.float64)
    some, some_squares = np.empty(channels, np.float32), np.empty(channels, np.float32)
    factor, shift = np.empty(channels, np.float32), np.empty(channels, np.float32)
    nothing = np.float32(0)
    for n in range(frames):
        total[:], square[:] = 0, 0
        for start in range(0, places, _BLOCK):
            some[:], some_squares[:] = 0, 0
            for p in range(start, min(start + _BLOCK, places)):
                place = grid[n, p]
                for k in range(channels):
                    value = place[k]
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
            for k in range(first, first + width):
                factor[k] = weight[k] * scale
                shift[k] = bias[k] - weight[k] * scale * mean
        for p in range(places):
            place, into = grid[n, p], found[n, p]
            if len(beside):
                other = beside[n, p]
                for k in range(channels):
                    into[k] = max(place[k] * factor[k] + shift[k] + other[k], nothing)
            else:
                for k in range(channels):
                    into[k] = max(place[k] * factor[k] + shift[k], nothing)
