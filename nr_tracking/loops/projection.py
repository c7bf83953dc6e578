"""Nearest points by a grid, and projection onto a surface: the twin of :mod:`nr_tracking.deformation.projection`."""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import clamped, compiled
from nr_tracking.types import Float64, Int32, Int64

_CROWD = 3.0  # points in an occupied cell, about
_CELLS = 64  # most cells for each point


@compiled
def grid_of(points: Float64) -> tuple[Float64, Int64, Int32, Int32, Float64]:
    """Sort ``points`` (N, 3) into cells of about the size at which a few share one.

    Returns the grid's ``place`` (4,): its lower corner and the cells in a unit of length; its ``shape`` (3,); where
    each cell starts in the order of cells (C + 1,); the numbers (N,) and the places (N, 3) of points in that order.
    """
    place, extent = np.zeros(4), np.zeros(3)
    for axis in range(3):
        low, high = np.inf, -np.inf
        for i in range(len(points)):
            if abs(points[i, axis]) < np.inf:  # what is no number lies in some cell, but is near to nothing
                low, high = min(low, points[i, axis]), max(high, points[i, axis])
        if low <= high and high - low < np.inf:
            place[axis], extent[axis] = low, high - low
    x, y, z = extent[0], extent[1], extent[2]
    # First as if the surface were a box: how crowded its cells are then tells the size they should have.
    size = np.sqrt(_CROWD * 2 * (x * y + y * z + z * x) / max(len(points), 1))
    shape, cell = np.ones(3, np.int64), np.zeros(len(points), np.int32)
    for attempt in range(2):
        size = max(size, np.cbrt(x * y * z / (_CELLS * (len(points) + 1))), 1e-3 * max(x, y, z), 1e-30)
        place[3] = 1 / size
        for axis in range(3):
            shape[axis] = 1 + int(clamped(extent[axis] * place[3], 0.0, 1000.0))
        starts = np.zeros(shape[0] * shape[1] * shape[2] + 1, np.int32)
        occupied = 0
        for i in range(len(points)):
            cell[i] = 0
            for axis in range(3):
                along = int(clamped((points[i, axis] - place[axis]) * place[3], 0.0, shape[axis] - 1.0))
                cell[i] = cell[i] * shape[axis] + along
            occupied += starts[cell[i] + 1] == 0
            starts[cell[i] + 1] += 1
        if attempt == 0:
            size *= np.sqrt(_CROWD * occupied / max(len(points), 1))
    for k in range(len(starts) - 1):
        starts[k + 1] += starts[k]
    order, sorted_points, filled = np.empty(len(points), np.int32), np.empty(points.shape), starts.copy()
    for i in range(len(points)):
        at = filled[cell[i]]
        filled[cell[i]] += 1
        order[at] = i
        for axis in range(3):
            sorted_points[at, axis] = points[i, axis]
    return place, shape, starts, order, sorted_points


@compiled
def nearest(
    place: Float64,
    shape: Int64,
    starts: Int32,
    order: Int32,
    points: Float64,
    queries: Float64,
    count: int,
    radius: float,
) -> tuple[Float64, Int64]:
    """The ``count`` nearest points within ``radius`` of each of ``queries`` (Q, 3), nearest first.

    The first five are those of :func:`grid_of`. Returns distances (Q, count) and numbers (Q, count), infinite and -1
    where there is none: so to all queries that are no numbers, or too far away to be squared. Of points at the very
    same distance, the one of the least number comes first.
    """
    distance, found = np.empty((len(queries), count)), np.empty((len(queries), count), np.int64)
    flat, home, along, size = points.reshape(-1), np.empty(3, np.int64), np.empty(3), 1 / place[3]
    near, numbers, last = np.empty(count), np.empty(count, np.int64), count - 1
    deep, wide, reach = shape[2], shape[1], np.empty(3, np.int64)
    for q in range(len(queries)):
        x, y, z = queries[q, 0], queries[q, 1], queries[q, 2]
        for k in range(count):
            near[k], numbers[k] = np.inf, -1
        outside = 0.0  # squared, from the query to the grid
        margin = 0.5  # of a cell, to the border of the one that it is in
        for axis in range(3):
            along[axis] = (queries[q, axis] - place[axis]) * place[3]
            home[axis] = int(clamped(along[axis], 0.0, shape[axis] - 1.0))
            reach[axis] = max(home[axis], shape[axis] - 1 - home[axis])  # the last ring with cells along this axis
            inside = along[axis] - home[axis]
            margin = min(margin, max(min(inside, 1 - inside), 0.0))
            away = max(-along[axis], along[axis] - shape[axis], 0.0) * size
            outside += away * away if along[axis] - along[axis] == 0 else np.inf
        worst, ring, last_ring = radius * radius, 0, max(reach[0], reach[1], reach[2], 1)
        while outside < np.inf:
            ring += 1  # the first one with what it surrounds
            # Of sides of the ring that lie beyond the grid nothing is walked.
            deeper, wider = ring == 1 or ring <= reach[2], ring == 1 or ring <= reach[1]
            for a in range(0 if deeper or wider else 2 * ring - 1, 2 * min(ring, reach[0]) + 1):
                i = home[0] + _to_and_fro(a)
                if i < 0 or i >= shape[0]:
                    continue
                aside = max(i - along[0], along[0] - i - 1, 0.0)
                if aside * aside * size * size > worst:
                    continue
                start = 0 if deeper or abs(i - home[0]) == ring else 2 * ring - 1
                for b in range(start, 2 * min(ring, reach[1]) + 1):
                    j = home[1] + _to_and_fro(b)
                    below = max(j - along[1], along[1] - j - 1, 0.0)
                    if j < 0 or j >= wide or (aside * aside + below * below) * size * size > worst:
                        continue
                    whole = ring == 1 or abs(i - home[0]) == ring or abs(j - home[1]) == ring
                    for begin in range(home[2] - ring, home[2] + ring + 1, 2 * ring):
                        end = begin + (2 * ring + 1 if whole else 1)
                        row = (i * wide + j) * deep
                        first, end = row + max(begin, 0), row + min(end, deep)
                        if first >= end:
                            continue
                        for k in range(starts[first], starts[end]):
                            dx, dy, dz = flat[3 * k] - x, flat[3 * k + 1] - y, flat[3 * k + 2] - z
                            away = dx * dx + dy * dy + dz * dz
                            if not away <= worst:
                                continue
                            at, number = last, order[k]
                            if away == worst and (numbers[last] < 0 or numbers[last] < number):
                                continue
                            while at > 0 and (
                                away < near[at - 1] or (away == near[at - 1] and number < numbers[at - 1])
                            ):
                                near[at], numbers[at] = near[at - 1], numbers[at - 1]
                                at -= 1
                            near[at], numbers[at] = away, number
                            worst = min(worst, near[last])
                        if whole:
                            break
            known = (ring + margin) * size  # nothing that is left is nearer to where the query comes to the grid
            if outside + known * known >= worst or ring >= last_ring:
                break
        for k in range(count):
            distance[q, k], found[q, k] = np.sqrt(near[k]), numbers[k]
    return distance, found


@compiled
def _to_and_fro(step: int) -> int:
    """0, 1, -1, 2, -2, ...: from where something is expected outwards."""
    return (step + 1) // 2 if step & 1 else -(step // 2)


@compiled
def project(
    apart: Float64,
    found: Int64,
    surface: Float64,
    sides: Float64,
    points: Float64,
    normals: Float64,
    cosine: float,
) -> tuple[Float64, Float64, Float64, Int64, Int64]:
    """The nearest places on a surface of vertices ``surface`` and normals ``sides`` (V, 3).

    ``found`` (Q, C) are the vertices nearest to ``points`` (Q, 3) and ``apart`` (Q, C) how far they are, as
    :func:`nearest` gives them. The rest, and what is returned, is that of
    :meth:`nr_tracking.deformation.projection.SurfaceIndex.project`.
    """
    asked, count = found.shape
    places, normal = np.full((asked, 3), np.nan), np.full((asked, 3), np.nan)
    distance, vertex = np.full(asked, np.inf), np.full(asked, -1, np.int64)
    around, mean, gap = np.full((count, asked), -1, np.int64), np.empty(3), np.empty(3)
    for q in range(asked):
        farthest = 0.0
        for k in range(count):
            v = found[q, k]
            if v < 0:
                break
            x, y, z = sides[v, 0] * normals[q, 0], sides[v, 1] * normals[q, 1], sides[v, 2] * normals[q, 2]
            if x + y + z >= cosine:
                around[k, q], farthest = v, max(farthest, apart[q, k])
                if vertex[q] < 0:
                    vertex[q] = v
        if vertex[q] < 0:
            continue
        total = planes = 0.0
        for axis in range(3):
            mean[axis] = gap[axis] = 0.0
        for k in range(count):
            v = around[k, q]
            if v < 0:
                continue
            weight = np.exp(-2.0 * (apart[q, k] / max(farthest, 1e-30)) ** 2)
            total += weight
            for axis in range(3):
                offset = surface[v, axis] - points[q, axis]
                mean[axis] += weight * sides[v, axis]
                gap[axis] += weight * offset
                planes += weight * sides[v, axis] * offset
        length = max(np.sqrt(mean[0] * mean[0] + mean[1] * mean[1] + mean[2] * mean[2]) / total, 1e-12) * total
        height = planes / total
        for axis in range(3):
            normal[q, axis] = mean[axis] / length
            height += normal[q, axis] * gap[axis] / total
        height *= 0.5
        distance[q] = abs(height)
        for axis in range(3):
            places[q, axis] = points[q, axis] + height * normal[q, axis]
    return places, normal, distance, vertex, around
