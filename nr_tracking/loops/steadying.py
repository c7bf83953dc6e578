"""Corrections of tracks, point by point: the twin of :mod:`nr_tracking.tracking.steadying`'s arrays.

``index`` (N, B) and ``weight`` (N, B) are the nodes that move each point and their shares; ``edges`` (E, 2) tie the P
nodes to their neighbours.
"""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import compiled
from nr_tracking.types import Float64, Int32, Int64


@compiled
def steps(
    index: Int64,
    weight: Float64,
    edges: Int32,
    nodes: int,
    places: Float64,
    before: Float64,
    last: Float64,
    turned: Float64,
    longer: float,
) -> tuple[Float64, Float64, Float64]:
    """The steps (N, 3) from ``before`` to ``places`` (N, 3), their changes from the ``last`` ones, and what is alike.

    The last ones count as ``longer`` times as long; they changed by ``turned`` (N, 3) themselves. Alike are, as means
    over each node and its neighbours (P, 5): the step, and by how much changes were turned back, of what points about
    a node share and of single points.
    """
    count, slots = index.shape
    step, change = np.empty((count, 3)), np.empty((count, 3))
    sums, mass = np.zeros((nodes, 10)), np.zeros(nodes)
    for i in range(count):
        back = 0.0
        for c in range(3):
            step[i, c] = places[i, c] - before[i, c]
            change[i, c] = step[i, c] - last[i, c] * longer
            back += change[i, c] * turned[i, c]
        for s in range(slots):
            p, share = index[i, s], weight[i, s]
            mass[p] += share
            sums[p, 9] += share * back
            for c in range(3):
                sums[p, c] += share * step[i, c]
                sums[p, 3 + c] += share * change[i, c]
                sums[p, 6 + c] += share * turned[i, c]
    alike = np.zeros((nodes, 5))
    for p in range(nodes):
        whole = max(mass[p], 1e-9)
        for c in range(3):
            alike[p, c] = sums[p, c] / whole
            alike[p, 3] += sums[p, 3 + c] / whole * (sums[p, 6 + c] / whole)
        alike[p, 3] /= -12.0
        alike[p, 4] = sums[p, 9] / whole / -12.0
    return step, change, _around(edges, alike)


@compiled
def off(
    index: Int64, weight: Float64, edges: Int32, shown: Float64, drift: Float64, places: Float64
) -> tuple[Float64, Float64, Float64]:
    """Where points ``shown`` (N, 3) are expected by the ``drift`` (P, 3) of their nodes, and how far off they are.

    ``places`` (N, 3) are where they came to be. Returns two (N, 3), and the latter's means over each node and its
    neighbours (P, 3).
    """
    count, slots = index.shape
    expected, missed = np.empty((count, 3)), np.empty((count, 3))
    sums, mass = np.zeros(drift.shape), np.zeros(len(drift))
    for i in range(count):
        for c in range(3):
            expected[i, c] = shown[i, c]
        for s in range(slots):
            for c in range(3):
                expected[i, c] += weight[i, s] * drift[index[i, s], c]
        for c in range(3):
            missed[i, c] = places[i, c] - expected[i, c]
        for s in range(slots):
            mass[index[i, s]] += weight[i, s]
            for c in range(3):
                sums[index[i, s], c] += weight[i, s] * missed[i, c]
    for p in range(len(sums)):
        for c in range(3):
            sums[p, c] /= max(mass[p], 1e-9)
    return expected, missed, _around(edges, sums)


@compiled
def _around(edges: Int32, values: Float64) -> Float64:
    """Means of ``values`` (P, D) over each node and those that an edge ties to it."""
    total, tied = values.copy(), np.ones(len(values))
    for e in range(len(edges)):
        one, other = edges[e, 0], edges[e, 1]
        tied[one] += 1
        tied[other] += 1
        for d in range(values.shape[1]):
            total[one, d] += values[other, d]
            total[other, d] += values[one, d]
    for p in range(len(values)):
        for d in range(values.shape[1]):
            total[p, d] /= tied[p]
    return total


@compiled
def followed(
    index: Int64,
    weight: Float64,
    common: Float64,
    way: Float64,
    noise: Float64,
    expected: Float64,
    missed: Float64,
    mean: Float64,
    frames: Float64,
    strength: float,
    at_once: float,
    share: float,
    least: float,
) -> tuple[Float64, Float64, Float64]:
    """Where to show points that are ``expected`` (N, 3) and ``missed`` (N, 3) their places.

    Nodes are off by ``common`` (P, 3) and go on by ``way`` (P, 3); ``noise`` (P,) is that of single points about them,
    as a variance. ``mean`` (N, 3) and ``frames`` (N, 1) are what corrections have been, as a ``_Trust`` has them; it
    goes on as there, with ``strength``, ``at_once`` of it, a ``share`` of the mean and the ``least`` share of a
    correction. Returns the places, the mean and the frames.
    """
    count, slots = index.shape
    shown, running, counted, own = np.empty((count, 3)), np.empty((count, 3)), np.empty((count, 1)), np.empty(3)
    for i in range(count):
        spread = squared = squared_mean = 0.0
        for s in range(slots):
            spread += weight[i, s] * noise[index[i, s]]
        for c in range(3):
            own[c] = missed[i, c]
            shown[i, c] = expected[i, c]
            for s in range(slots):
                own[c] -= weight[i, s] * common[index[i, s], c]
                shown[i, c] += weight[i, s] * way[index[i, s], c]
            running[i, c] = mean[i, c] + share * (own[c] - mean[i, c])
            squared += own[c] * own[c]
            squared_mean += running[i, c] * running[i, c]
        now = frames[i, 0] + 1
        jump = _beyond(squared, spread, at_once * strength)
        slide = _beyond(squared_mean, spread * (share / (2 - share)), strength)
        slowly = max(1 / (now + 1), least)
        for c in range(3):
            rest = slide * running[i, c] + (1 - slide) * slowly * own[c]
            shown[i, c] += jump * own[c] + (1 - jump) * rest
            running[i, c] *= (1 - jump) * (1 - slide)
        counted[i, 0] = (1 - jump) * (now + slide * (1 / share - now))
    return shown, running, counted


@compiled
def _beyond(squared: float, noise: float, strength: float) -> float:
    """From 0 to 1: whether a vector of ``squared`` length is longer than ``strength`` deviations of the ``noise``."""
    square, limit = squared * squared, (3 * strength * strength * noise) ** 2
    return square / max(square + limit, 1e-300)
