"""Percentiles of many numbers without sorting them, counted into bins first."""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import clamped, compiled
from nr_tracking.types import Bool, Float32, Float64, Int64

_BINS = 512


@compiled
def percentiles_along(points: Float32, step: int, percents: Float64) -> Float64:
    """The :func:`percentiles` (K, 3) of each ``step``-th point (N, 3), axis by axis."""
    found, values = np.empty((len(percents), 3)), np.empty((3, (len(points) + step - 1) // step), np.float32)
    for i in range(values.shape[1]):
        for axis in range(3):
            values[axis, i] = points[i * step, axis]
    for axis in range(3):
        cuts = percentiles(values[axis], percents)
        for k in range(len(percents)):
            found[k, axis] = cuts[k]
    return found


@compiled
def percentile_beside(points: Float32, step: int, centre: Float64, percent: float) -> float:
    """How far a ``percent`` of each ``step``-th point (N, 3) is beside a ``centre`` (3,) at most, seen at its depth.

    In metres, along x or y, whichever is more.
    """
    values = np.empty((len(points) + step - 1) // step, np.float32)
    for i in range(len(values)):
        x, y, z = points[i * step, 0], points[i * step, 1], points[i * step, 2]
        scale = centre[2] / z
        values[i] = max(abs(x * scale - centre[0]), abs(y * scale - centre[1]))
    return percentiles(values, np.full(1, percent))[0]


@compiled
def percentiles(values: Float32, percents: Float64) -> Float64:
    """Those (K,) that ``percents`` (K,) of ``values`` (N,) lie below, as ``np.percentile`` has it; NaN where one is."""
    count, found = len(values), np.full(len(percents), np.nan)
    least, most, valid = np.float32(np.inf), np.float32(-np.inf), count > 0
    for value in values:
        valid &= value == value
        least = value if value < least else least
        most = value if value > most else most
    if not valid:
        return found
    scale, last = np.float32(_BINS) / (most - least), np.float32(_BINS - 1)
    bins = np.empty(count, np.int16)
    for i in range(count):
        bins[i] = int(clamped((values[i] - least) * scale, np.float32(0), last))
    counts = np.zeros(_BINS, np.int64)
    for i in range(count):
        counts[bins[i]] += 1
    # Only the bins with the values of the wanted ranks are sorted; the others count.
    wanted, places = np.zeros(_BINS, np.bool_), np.empty(len(percents))
    for k in range(len(percents)):
        places[k] = clamped(0.01 * percents[k] * (count - 1), 0.0, count - 1.0)
        wanted[_bin_of(counts, int(places[k]))] = True
        wanted[_bin_of(counts, min(int(places[k]) + 1, count - 1))] = True
    chosen, kept = np.empty(count, np.float32), 0
    for i in range(count):
        if wanted[bins[i]]:
            chosen[kept] = values[i]
            kept += 1
    sort(chosen, kept)
    for k in range(len(percents)):
        below = int(places[k])
        lower = chosen[_rank_in(counts, wanted, below)]
        upper = chosen[_rank_in(counts, wanted, min(below + 1, count - 1))]
        found[k] = lower + (float(upper) - float(lower)) * (places[k] - below)
    return found


@compiled
def _bin_of(counts: Int64, rank: int) -> int:
    """The bin of the value of this rank, 0 for the least one, of which ``counts`` (B,) are in each."""
    b = 0
    while rank >= counts[b]:
        rank -= counts[b]
        b += 1
    return b


@compiled
def _rank_in(counts: Int64, wanted: Bool, rank: int) -> int:
    """A value's rank among those in ``wanted`` bins (B,) alone."""
    result = rank
    for b in range(_bin_of(counts, rank)):
        if not wanted[b]:
            result -= counts[b]
    return result


@compiled
def sort(values: Float32, count: int) -> None:
    """Sort the first ``count`` of ``values`` (N,) in place, as Shell does it."""
    apart = 1
    while 3 * apart < count:
        apart = 3 * apart + 1
    while apart > 0:
        for i in range(apart, count):
            value, at = values[i], i
            while at >= apart and values[at - apart] > value:
                values[at] = values[at - apart]
                at -= apart
            values[at] = value
        apart //= 3
