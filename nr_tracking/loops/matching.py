"""Matches sought from both sides by a grid: the twin of :mod:`nr_tracking.deformation.matching`."""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import clamped, compiled
from nr_tracking.loops.projection import grid_of, nearest
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
    found = nearest(place, shape, starts, order, sorted_points, points, 1, radius)[1].reshape(-1)
    again, count = np.empty(len(points), np.int64), 0
    for q in range(len(points)):
        if found[q] >= 0 and not _product(sides, found[q], normals, q) >= cosine:
            again[count] = q
            count += 1
    others = np.empty((count, 3))
    for k in range(count):
        for axis in range(3):
            others[k, axis] = points[again[k], axis]
    few = nearest(place, shape, starts, order, sorted_points, others, candidates, radius)[1]
    for k in range(count):  # most are content with the nearest: only these asked for more
        q = again[k]
        found[q] = -1
        for c in range(1, candidates):
            if few[k, c] >= 0 and _product(sides, few[k, c], normals, q) >= cosine:
                found[q] = few[k, c]
                break
    return found


@compiled
def matches(
    grid: Grid,
    surface: Float64,
    sides: Float64,
    seeking: Int64,
    points: Float64,
    normals: Float64,
    radius: float,
    cosine: float,
    candidates: int,
) -> tuple[Int64, Float64, Float64, int]:
    """Match ``points`` with ``normals`` (S, 3) to a ``surface`` with normals ``sides`` (T, 3), from both sides.

    ``grid`` holds the surface, of which the points ``seeking`` (M,) look for the others. Returns what
    :class:`~nr_tracking.deformation.matching.Matches` holds.
    """
    there = nearest_similar(grid, sides, points, normals, radius, cosine, candidates)
    sought, sought_sides = np.empty((len(seeking), 3)), np.empty((len(seeking), 3))
    for m in range(len(seeking)):
        for axis in range(3):
            sought[m, axis], sought_sides[m, axis] = surface[seeking[m], axis], sides[seeking[m], axis]
    back = nearest_similar(grid_of(points), normals, sought, sought_sides, radius, cosine, candidates)
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
                place[n, axis], normal[n, axis] = sought[m, axis], sought_sides[m, axis]
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
