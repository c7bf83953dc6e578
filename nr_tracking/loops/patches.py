"""Geodesic patches, edge by edge: the twin of what :mod:`nr_tracking.deformation.patches` does by sparse matrices."""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import clamped, compiled
from nr_tracking.types import Float64, Int32, Int64


@compiled
def edges_of(faces: Int32) -> Int32:
    """Each edge (E, 2) of ``faces`` (F, 3) once, smaller index first, sorted."""
    low, high = np.empty(3 * len(faces), np.int32), np.empty(3 * len(faces), np.int32)
    span = 0
    for f in range(len(faces)):
        for c in range(3):
            one, other = faces[f, c], faces[f, (c + 1) % 3]
            low[3 * f + c], high[3 * f + c] = min(one, other), max(one, other)
            span = max(span, one + 1)
    return _sorted_pairs(low, high, span)


@compiled
def adjacent(owner: Int32, edges: Int32) -> Int32:
    """Pairs (P, 2) of owners (V,) that one of ``edges`` (E, 2) joins, once each, smaller number first, sorted."""
    low, high = np.empty(len(edges), np.int32), np.empty(len(edges), np.int32)
    span = found = 0
    for e in range(len(edges)):
        one, other = owner[edges[e, 0]], owner[edges[e, 1]]
        if one != other:
            low[found], high[found] = min(one, other), max(one, other)
            span = max(span, high[found] + 1)
            found += 1
    return _sorted_pairs(low[:found], high[:found], span)


@compiled
def _sorted_pairs(low: Int32, high: Int32, span: int) -> Int32:
    """Pairs (K,) of numbers below ``span``, each once, sorted (E, 2)."""
    starts = np.zeros(span + 1, np.int64)
    for k in range(len(low)):
        starts[low[k] + 1] += 1
    for v in range(span):
        starts[v + 1] += starts[v]
    filled, rows = starts.copy(), np.empty(len(low), np.int32)
    for k in range(len(low)):
        rows[filled[low[k]]] = high[k]
        filled[low[k]] += 1
    pairs, found = np.empty((len(low), 2), np.int32), 0
    for v in range(span):
        first = found
        for k in range(starts[v], starts[v + 1]):
            place = found  # by insertion: few numbers share a row
            while place > first and pairs[place - 1, 1] > rows[k]:
                place -= 1
            if place > first and pairs[place - 1, 1] == rows[k]:
                continue
            for after in range(found, place, -1):
                pairs[after, 1] = pairs[after - 1, 1]
            pairs[found, 0], pairs[place, 1] = v, rows[k]
            found += 1
    return pairs[:found].copy()


@compiled
def cells(points: Float64, edges: Int32, count: int) -> tuple[Int32, Int32]:
    """Seeds (P,), and the seed that each of ``points`` (V, 3) belongs to along ``edges`` (E, 2); P is about ``count``.

    Every connected part gets a seed. Of seeds at the very same distance, the first is the nearest.
    """
    starts, beside, lengths = _graph(points, edges)
    pieces, piece = _parts(starts, beside)
    seeds = _thinned(points, max(count - (pieces - 1), 1))
    bare = np.full(pieces, -1, np.int64)
    for v in range(len(points) - 1, -1, -1):
        bare[piece[v]] = v
    for s in seeds:
        bare[piece[s]] = -1
    chosen, found = np.empty(len(seeds) + pieces, np.int64), 0
    for s in seeds:
        chosen[found] = s
        found += 1
    for s in bare:
        if s >= 0:
            chosen[found] = s
            found += 1
    seeds = chosen[:found]
    seeds = _middle(points, _nearest(starts, beside, lengths, seeds), found)
    return seeds.astype(np.int32), _nearest(starts, beside, lengths, seeds)


@compiled
def _graph(points: Float64, edges: Int32) -> tuple[Int64, Int32, Float64]:
    """Where the neighbours of each point start (V + 1,), the neighbours (2E,) and how far they are (2E,)."""
    starts = np.zeros(len(points) + 1, np.int64)
    for e in range(len(edges)):
        starts[edges[e, 0] + 1] += 1
        starts[edges[e, 1] + 1] += 1
    for v in range(len(points)):
        starts[v + 1] += starts[v]
    filled = starts.copy()
    beside, lengths = np.empty(2 * len(edges), np.int32), np.empty(2 * len(edges))
    for e in range(len(edges)):
        one, other = edges[e, 0], edges[e, 1]
        # As with the sparse matrix, coincident vertices stay apart by a tiny length.
        length = max(np.sqrt(_squared(points, one, points, other)), 1e-12)
        beside[filled[one]], lengths[filled[one]] = other, length
        filled[one] += 1
        beside[filled[other]], lengths[filled[other]] = one, length
        filled[other] += 1
    return starts, beside, lengths


@compiled
def _parts(starts: Int64, beside: Int32) -> tuple[int, Int32]:
    """How many connected parts there are, and the part of each point (V,), in the order of their first points."""
    count = len(starts) - 1
    part, stack, parts = np.full(count, -1, np.int32), np.empty(count, np.int32), 0
    for first in range(count):
        if part[first] >= 0:
            continue
        part[first], stack[0], waiting = parts, first, 1
        while waiting:
            waiting -= 1
            v = stack[waiting]
            for k in range(starts[v], starts[v + 1]):
                if part[beside[k]] < 0:
                    part[beside[k]], stack[waiting] = parts, beside[k]
                    waiting += 1
        parts += 1
    return parts, part


@compiled
def _thinned(points: Float64, count: int) -> Int64:
    """At most ``count`` points, close to it: one in each occupied voxel, the voxel size found by bisection."""
    low = np.full(3, np.inf)
    extent = 0.0
    for axis in range(3):
        high = -np.inf
        for v in range(len(points)):
            low[axis], high = min(low[axis], points[v, axis]), max(high, points[v, axis])
        extent = max(extent, high - low[axis])
    if not extent > 0:
        extent = 1.0
    fewest, most = 1.0, 256.0
    best = np.zeros(1, np.int64)
    for _ in range(9):
        cells_along = np.sqrt(fewest * most)
        side = int(cells_along) + 1
        scale = cells_along / (extent * 1.000001)
        table, taken = np.full(side**3, -1, np.int32), 0
        for v in range(len(points)):
            cell = 0
            for axis in range(3):
                cell = cell * side + int(clamped((points[v, axis] - low[axis]) * scale, 0.0, side - 1.0))
            taken += table[cell] < 0
            table[cell] = v
        if taken > count:
            most = cells_along
            continue
        fewest = cells_along
        if taken > len(best):
            best, found = np.empty(taken, np.int64), 0
            for cell in range(len(table)):
                if table[cell] >= 0:
                    best[found] = table[cell]
                    found += 1
        if taken >= 0.97 * count:
            break
    return best


@compiled
def _nearest(starts: Int64, beside: Int32, lengths: Float64, seeds: Int64) -> Int32:
    """The position in ``seeds`` (P,) of the seed nearest to each point along the edges (V,).

    Distances are put right until none can be shorter, in the order in which points are reached: between many seeds
    hardly any is put right twice, so this takes fewer steps than to keep them in a heap.
    """
    count = len(starts) - 1
    distance, nearest = np.full(count, np.inf), np.zeros(count, np.int32)
    ring, waits = np.empty(count, np.int32), np.zeros(count, np.bool_)
    head, waiting = 0, len(seeds)
    for s in range(len(seeds)):
        v = seeds[s]
        distance[v], nearest[v], ring[s], waits[v] = 0.0, s, v, True
    while waiting:
        v = ring[head]
        head, waiting, waits[v] = head + 1 if head + 1 < count else 0, waiting - 1, False
        for k in range(starts[v], starts[v + 1]):
            w, far = beside[k], distance[v] + lengths[k]
            if far < distance[w] or (far == distance[w] and nearest[v] < nearest[w]):
                distance[w], nearest[w] = far, nearest[v]
                if not waits[w]:
                    tail = head + waiting
                    waits[w], ring[tail if tail < count else tail - count] = True, w
                    waiting += 1
    return nearest


@compiled
def _middle(points: Float64, owner: Int32, count: int) -> Int64:
    """For each of ``count`` cells the member nearest to the mean of its members."""
    mean, members = np.zeros((count, 3)), np.zeros(count)
    for v in range(len(points)):
        members[owner[v]] += 1
        for axis in range(3):
            mean[owner[v], axis] += points[v, axis]
    for p in range(count):
        for axis in range(3):
            mean[p, axis] /= members[p]
    least, middle = np.full(count, np.inf), np.zeros(count, np.int64)
    for v in range(len(points)):
        p = owner[v]
        squared = _squared(points, v, mean, p)
        if squared < least[p]:
            least[p], middle[p] = squared, v
    return middle


@compiled
def widths(centres: Float64, neighbours: Int32, points: Float64, owner: Int32) -> Float64:
    """Mean distance of ``centres`` (P, 3) to the adjacent ones (P,); without any, to the points that they own."""
    count = len(centres)
    total, degree = np.zeros(count), np.zeros(count)
    for e in range(len(neighbours)):
        one, other = neighbours[e, 0], neighbours[e, 1]
        gap = np.sqrt(_squared(centres, one, centres, other))
        for p in (one, other):
            total[p] += gap
            degree[p] += 1
    reach, members = np.zeros(count), np.zeros(count)
    for v in range(len(points)):
        reach[owner[v]] += np.sqrt(_squared(points, v, centres, owner[v]))
        members[owner[v]] += 1
    result = np.empty(count)
    for p in range(count):
        mean = total[p] / degree[p] if degree[p] > 0 else reach[p] / members[p]
        result[p] = max(mean, 1e-9)
    return result


@compiled
def _squared(points: Float64, v: int, others: Float64, w: int) -> float:
    """Squared distance between a row of ``points`` (V, 3) and one of ``others`` (W, 3)."""
    x, y, z = points[v, 0] - others[w, 0], points[v, 1] - others[w, 1], points[v, 2] - others[w, 2]
    return x * x + y * y + z * z
