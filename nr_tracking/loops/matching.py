"""Matches sought from both sides by a grid: the twin of :mod:`nr_tracking.deformation.matching`."""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import clamped, compiled
from nr_tracking.loops.projection import nearest
from nr_tracking.types import Float64, Int32, Int64

Grid = tuple[Float64, Int64, Int32, Int32, Float64]


@compiled
def nearest_similar(
    grid: Grid, sides: Float64, points: Float64, normals: Float64, radius: float, cosine: float, candidates: int
) -> Int64:
    """For each of ``points`` (Q, 3) the nearest point of a grid on a similar side, -1 where none is near.

    ``grid`` is that of :func:`~nr_tracking.loops.projection.grid_of`, ``sides`` (N, 3) are the normals of its points
    and ``normals`` (Q, 3) those of the query. Only the nearest ``candidates`` within ``radius`` are tried.
    """
    place, shape, starts, order, sorted_points = grid
    found, open_queries, again = np.empty(len(points), np.int64), np.arange(len(points)), points
    for attempt in range(2):  # most are content with the nearest: only the others ask for more
        last = candidates if attempt else 1
        few = nearest(place, shape, starts, order, sorted_points, again, last, radius)[1]
        count = 0
        for k in range(len(few)):
            q = open_queries[k]
            found[q] = -1
            for c in range(last):
                if few[k, c] >= 0 and _product(sides, few[k, c], normals, q) >= cosine:
                    found[q] = few[k, c]
                    break
            if found[q] < 0 <= few[k, 0]:
                open_queries[count] = q
                count += 1
        again = np.empty((count, 3))
        for k in range(count):
            for axis in range(3):
                again[k, axis] = points[open_queries[k], axis]
    return found


@compiled
def joined(
    there: Int64, back: Int64, seeking: Int64, surface: Float64, sides: Float64
) -> tuple[Int64, Float64, Float64, int]:
    """Both directions in one list, as :class:`~nr_tracking.deformation.matching.Matches` has them.

    ``there`` (S,) gives points of the ``surface`` with normals ``sides`` (T, 3) by sample, and ``back`` (M,) samples by
    ``seeking`` point (M,); -1 for none.
    """
    count = 0
    for s in range(len(there)):
        count += there[s] >= 0
    forward = count
    for m in range(len(back)):
        count += back[m] >= 0
    sample, place, normal = np.empty(count, np.int64), np.empty((count, 3)), np.empty((count, 3))
    n = 0
    for s in range(len(there)):
        if there[s] >= 0:
            sample[n] = s
            for axis in range(3):
                place[n, axis], normal[n, axis] = surface[there[s], axis], sides[there[s], axis]
            n += 1
    for m in range(len(back)):
        if back[m] >= 0:
            sample[n] = back[m]
            for axis in range(3):
                place[n, axis], normal[n, axis] = surface[seeking[m], axis], sides[seeking[m], axis]
            n += 1
    return sample, place, normal, forward


@compiled
def _product(first: Float64, i: int, second: Float64, j: int) -> float:
    """The inner product of two rows."""
    return first[i, 0] * second[j, 0] + first[i, 1] * second[j, 1] + first[i, 2] * second[j, 2]


@compiled
def space_order(points: Float64) -> Int64:
    """Indices that sort ``points`` (N, 3) along a space-filling curve of 30 bits; what has no number comes anywhere."""
    count, low, widest = len(points), np.empty(3), 1e-30
    for axis in range(3):
        least, most = np.inf, -np.inf
        for n in range(count):
            least, most = min(least, points[n, axis]), max(most, points[n, axis])
        low[axis], widest = least, max(widest, most - least)
    scale = 1023.0 / widest
    code = np.zeros(count, np.int64)
    for n in range(count):
        for axis in range(3):
            cell = int(clamped((points[n, axis] - low[axis]) * scale, 0.0, 1023.0))
            # Its ten bits are spread to every third place, so that those of the three axes interleave.
            cell = (cell | (cell << 16)) & 0x30000FF
            cell = (cell | (cell << 8)) & 0x300F00F
            cell = (cell | (cell << 4)) & 0x30C30C3
            code[n] |= ((cell | (cell << 2)) & 0x9249249) << axis
    order, other, starts = np.arange(count), np.empty(count, np.int64), np.empty(1025, np.int64)
    for shift in range(0, 30, 10):  # sorted by ten bits at a time, the lowest first
        starts[:] = 0
        for n in range(count):
            starts[((code[n] >> shift) & 1023) + 1] += 1
        for k in range(1024):
            starts[k + 1] += starts[k]
        for n in range(count):
            digit = (code[order[n]] >> shift) & 1023
            other[starts[digit]] = order[n]
            starts[digit] += 1
        order, other = other, order
    return order
