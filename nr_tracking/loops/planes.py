"""The search for planes, point by point: twins of :mod:`nr_tracking.sensing.planes`.

A plane is flat, (4,), until the best one is found, which becomes a row of 22 numbers: see
:mod:`nr_tracking.loops.bends`. Points (N, 3) are in metres; how far they stand before a plane is in units of their
``tolerance`` (N,).
"""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.bends import bend_row, lower_heights
from nr_tracking.loops.compiler import compiled
from nr_tracking.loops.extents import axes_of, moments
from nr_tracking.types import Float32, Int64


@compiled
def next_plane(
    cloud: Float32,
    tolerance: Float32,
    left: Int64,
    triples: Int64,
    judges: Int64,
    finalists: int,
    steps: int,
    limit: float,
    ratio: float,
    ridge: float,
) -> tuple[Float32, float, Float32, int, Int64]:
    """The largest plane of those points (N, 3) that are ``left`` (L,), tried through ``triples`` (H, 3) of these.

    ``judges`` (2,) points judge all of them, and the ``finalists``; on the latter the plane is bent in so many
    ``steps``, by up to ``limit`` tolerances and a ``ratio`` of half its width. Returns its row (22,), what it bends by
    at most, the heights of all points (N,), how many of those left lie on it, and those that do not; none and no plane
    where all triples are in a line.
    """
    row, heights = np.zeros(22, np.float32), np.empty(len(cloud), np.float32)
    hypotheses = _hypotheses(cloud, left, triples)
    if len(hypotheses) == 0:
        return row, 0.0, heights, -1, left
    normal = hypotheses[_best(cloud, tolerance, left, hypotheses, judges, finalists)]
    width = _fit(cloud, tolerance, left, normal, row)
    most = ratio * width
    more = max(1, len(left) // judges[1])
    bend_row(cloud, tolerance, left, more, row, np.float32(most), steps, np.float32(limit), ridge)
    block = np.empty((4, len(cloud)), np.float32)
    for i in range(len(cloud)):
        block[0, i], block[1, i], block[2, i] = cloud[i, 0], cloud[i, 1], cloud[i, 2]
        block[3, i] = np.float32(1) / tolerance[i]
        heights[i] = np.inf
    lower_heights(block, len(cloud), row, np.float32(most), np.float32(limit), heights)
    rest, kept = np.empty(len(left), np.int64), 0
    for i in range(len(left)):
        if not abs(heights[left[i]]) < 1:
            rest[kept] = left[i]
            kept += 1
    return row, most, heights, len(left) - kept, rest[:kept]


@compiled
def _hypotheses(cloud: Float32, left: Int64, triples: Int64) -> Float32:
    """Normal and offset (H', 4) of the planes through triples of points that are not in a line."""
    found, result = 0, np.empty((len(triples), 4), np.float32)
    for h in range(len(triples)):
        a, b, c = left[triples[h, 0]], left[triples[h, 1]], left[triples[h, 2]]
        px, py, pz = cloud[b, 0] - cloud[a, 0], cloud[b, 1] - cloud[a, 1], cloud[b, 2] - cloud[a, 2]
        qx, qy, qz = cloud[c, 0] - cloud[a, 0], cloud[c, 1] - cloud[a, 1], cloud[c, 2] - cloud[a, 2]
        x, y, z = py * qz - pz * qy, pz * qx - px * qz, px * qy - py * qx
        length = np.sqrt(x * x + y * y + z * z)
        if length > 1e-9:
            x, y, z = x / length, y / length, z / length
            result[found, 0], result[found, 1], result[found, 2] = x, y, z
            result[found, 3] = x * cloud[a, 0] + y * cloud[a, 1] + z * cloud[a, 2]
            found += 1
    return result[:found]


@compiled
def _best(cloud: Float32, tolerance: Float32, left: Int64, planes: Float32, judges: Int64, finalists: int) -> int:
    """The plane of (H, 4) that most points lie on: of the ``finalists``, among which the first of equals counts."""
    every = np.arange(len(planes))
    votes = _votes(cloud, tolerance, left, max(1, len(left) // judges[0]), planes, every)
    chosen = _descending(votes, len(cloud))[:finalists]
    votes, best = _votes(cloud, tolerance, left, max(1, len(left) // judges[1]), planes, chosen), 0
    for k in range(len(chosen)):
        best = k if votes[k] > votes[best] else best
    return chosen[best]


@compiled
def _votes(cloud: Float32, tolerance: Float32, left: Int64, step: int, planes: Float32, chosen: Int64) -> Int64:
    """How many of each ``step``-th point left lie on the ``chosen`` (K,) of ``planes`` (H, 4)."""
    count = (len(left) + step - 1) // step
    x, y, z = np.empty(count, np.float32), np.empty(count, np.float32), np.empty(count, np.float32)
    reach = np.empty(count, np.float32)
    for i in range(count):
        point = left[i * step]
        x[i], y[i], z[i], reach[i] = cloud[point, 0], cloud[point, 1], cloud[point, 2], tolerance[point]
    votes = np.empty(len(chosen), np.int64)
    for k in range(len(chosen)):
        h = chosen[k]
        a, b, c, offset = planes[h, 0], planes[h, 1], planes[h, 2], planes[h, 3]
        inside = np.int32(0)
        for i in range(count):
            inside += np.int32(abs(a * x[i] + b * y[i] + c * z[i] - offset) < reach[i])
        votes[k] = inside
    return votes


@compiled
def _descending(counts: Int64, most: int) -> Int64:
    """Indices (K,) of ``counts`` (K,) up to ``most`` from the greatest to the least, equals in their order."""
    starts = np.zeros(most + 2, np.int64)
    for count in counts:
        starts[most - count + 1] += 1
    for k in range(most + 1):
        starts[k + 1] += starts[k]
    order = np.empty(len(counts), np.int64)
    for i in range(len(counts)):
        order[starts[most - counts[i]]] = i
        starts[most - counts[i]] += 1
    return order


@compiled
def _fit(cloud: Float32, tolerance: Float32, left: Int64, plane: Float32, row: Float32) -> float:
    """Fill the ``row`` (22,) with the flat plane through the points near another one (4,); half of its width."""
    near = np.zeros(len(cloud), np.bool_)
    for point in left:
        x, y, z = cloud[point, 0], cloud[point, 1], cloud[point, 2]
        near[point] = abs(x * plane[0] + y * plane[1] + z * plane[2] - plane[3]) < tolerance[point]
    centre, squares, _ = moments(cloud, near)
    axes = axes_of(squares)
    reach = np.full(2, 1e-6)
    for i in range(len(cloud)):
        if near[i]:
            for k in range(2):
                place = 0.0
                for axis in range(3):
                    place += (cloud[i, axis] - centre[axis]) * axes[axis, k + 1]
                reach[k] = max(reach[k], abs(place))
    offset = 0.0
    for axis in range(3):
        offset += axes[axis, 0] * centre[axis]
    row[3] = abs(offset)
    row[10] = row[11] = 0
    for axis in range(3):
        row[axis] = axes[axis, 0] if offset >= 0 else -axes[axis, 0]
        for k in range(2):
            row[4 + 3 * k + axis] = axes[axis, k + 1] / reach[k]
            row[10 + k] += centre[axis] * axes[axis, k + 1] / reach[k]
    return min(reach[0], reach[1])
