"""What vertices of a surface share with the tracks beside them: the twin of :mod:`nr_tracking.tracking.tracks`."""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import compiled
from nr_tracking.types import Bool, Float64, Int64


@compiled
def nearest_around(around: Int64, wanted: Bool, places: Float64, vertices: Float64) -> Int64:
    """For each of ``vertices`` (V, 3) the nearest ``wanted`` (Q,) point at ``places`` (Q, 3) that has it ``around``.

    ``around`` (C, Q) are vertices, -1 for none; so is a vertex that no wanted point has around it.
    """
    nearest, least = np.full(len(vertices), -1, np.int64), np.full(len(vertices), np.inf)
    for slot in range(len(around)):
        for q in range(len(places)):
            v = around[slot, q]
            if v < 0 or not wanted[q]:
                continue
            squared = 0.0
            for axis in range(3):
                squared += (vertices[v, axis] - places[q, axis]) ** 2
            if squared <= least[v]:
                least[v], nearest[v] = squared, q
    return nearest


@compiled
def gone_along(
    near: Int64,
    index: Int64,
    weight: Float64,
    turns: Float64,
    back: bool,
    places: Float64,
    before: Float64,
    after: Float64,
) -> Float64:
    """Where ``places`` (V, 3) go with the points ``near`` (V,) them, which go from ``before`` to ``after`` (N, 3).

    What leads to a place from its point turns as the point does, by the mean of the rotations ``turns`` (P, 3, 3) of
    its nodes ``index`` (N, B), weighted by ``weight`` (N, B); or ``back`` by that.
    """
    gone, turn, offset = np.empty((len(places), 3)), np.empty(9), np.empty(3)
    flat = turns.reshape(-1)
    for v in range(len(places)):
        q = near[v]
        for entry in range(9):
            turn[entry] = 0.0
        for s in range(index.shape[1]):
            share, first = weight[q, s], 9 * index[q, s]
            for entry in range(9):
                turn[entry] += share * flat[first + entry]
        for axis in range(3):
            offset[axis] = places[v, axis] - before[q, axis]
        for i in range(3):
            row, step = (i, 3) if back else (3 * i, 1)
            led = turn[row] * offset[0] + turn[row + step] * offset[1] + turn[row + 2 * step] * offset[2]
            gone[v, i] = after[q, i] + led
    return gone
