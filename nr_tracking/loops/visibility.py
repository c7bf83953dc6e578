"""What the camera saw of a surface, point by point: the twin of :mod:`nr_tracking.sensing.visibility`."""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import compiled
from nr_tracking.types import Bool, Float32

_BLOCK = 64


@compiled
def depth_at(points: Float32, depth: Float32, fx: float, fy: float, cx: float, cy: float) -> Float32:
    """Depth (N,) of the pixel of an image (H, W) that each point (N, 3) falls on, 0 outside it."""
    result, (height, width) = np.zeros(len(points), np.float32), depth.shape
    for i in range(len(points)):
        z = points[i, 2]
        if not z > np.float32(1e-6):
            continue
        column = np.rint(points[i, 0] * (np.float32(fx) / z) + np.float32(cx))
        row = np.rint(points[i, 1] * (np.float32(fy) / z) + np.float32(cy))
        if column >= 0 and column < width and row >= 0 and row < height:
            result[i] = depth[int(row), int(column)]
    return result


@compiled
def confidence_of(points: Float32, observed: Bool, measured: Float32, voxel: float, most: int) -> Float32:
    """How far points (N, 3) are worth believing, (N,), of which some are ``observed`` (N,), ``measured`` (N,) deep.

    The others are worth less the farther they are from the nearest one of these, thinned to ``most`` or a few more.
    """
    count, seen = len(points), 0
    for i in range(count):
        seen += observed[i]
    step = max(1, seen // most)
    evidence, nth, found = np.empty((3, (seen + step - 1) // step), np.float32), 0, 0
    hidden, result = np.empty(count - seen, np.int32), np.empty(count, np.float32)
    asked = 0
    for i in range(count):
        if observed[i]:
            residual = float(points[i, 2] - measured[i]) if measured[i] > 0 else 0.0
            result[i] = np.exp(-0.5 * (residual / (1.5 * voxel)) ** 2)
            if nth == 0:
                evidence[0, found], evidence[1, found], evidence[2, found] = points[i, 0], points[i, 1], points[i, 2]
                found += 1
                nth = step
            nth -= 1
        else:
            hidden[asked] = i
            asked += 1
    # A block of hidden points at a time against all evidence: they lie beside each other in a register.
    x, y, z = np.zeros(_BLOCK, np.float32), np.zeros(_BLOCK, np.float32), np.zeros(_BLOCK, np.float32)
    least = np.empty(_BLOCK, np.float32)
    for begin in range(0, asked, _BLOCK):
        block = min(_BLOCK, asked - begin)
        for k in range(block):
            i = hidden[begin + k]
            x[k], y[k], z[k] = points[i, 0], points[i, 1], points[i, 2]
        least[:] = np.inf
        for e in range(found):
            a, b, c = evidence[0, e], evidence[1, e], evidence[2, e]
            for k in range(_BLOCK):
                p, q, r = x[k] - a, y[k] - b, z[k] - c
                square = p * p + q * q + r * r
                least[k] = square if square < least[k] else least[k]
        for k in range(block):
            away = np.sqrt(float(least[k]))
            result[hidden[begin + k]] = 0.5 * np.exp(-away / (10.0 * voxel)) if found else 0.0
    return result
