"""Percentiles of many numbers without sorting them, counted into bins first."""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import clamped, compiled
from nr_tracking.types import Float32, Float64

_BINS = 512


@compiled
def percentiles(values: Float32, percents: Float64) -> Float64:
    """Those (K,) that ``percents`` (K,) of ``values`` (N,) lie below, as ``np.percentile`` has it; NaN where one is."""
    found = np.full(len(percents), np.nan)
    least, most = np.float32(np.inf), np.float32(-np.inf)
    for value in values:
        if np.isnan(value):
            return found
        least, most = min(least, value), max(most, value)
    if len(values) == 0:
        return found
    scale = _BINS / max(float(most) - float(least), 1e-30)
    counts = np.zeros(_BINS, np.int64)
    bins = np.empty(len(values), np.int16)
    for i in range(len(values)):
        b = int(clamped((float(values[i]) - float(least)) * scale, 0.0, _BINS - 1.0))
        bins[i] = b
        counts[b] += 1
    for k in range(len(percents)):
        place = clamped(0.01 * percents[k] * (len(values) - 1), 0.0, len(values) - 1.0)
        below = int(place)
        lower = _in_order(values, bins, counts, below)
        upper = _in_order(values, bins, counts, min(below + 1, len(values) - 1))
        found[k] = lower + (upper - lower) * (place - below)
    return found


@compiled
def _in_order(values: Float32, bins: np.ndarray, counts: np.ndarray, rank: int) -> float:
    """The value (N,) of that rank, 0 for the least one."""
    b = 0
    while rank >= counts[b]:
        rank -= counts[b]
        b += 1
    inside, found = np.empty(counts[b], np.float32), 0
    for i in range(len(values)):
        if bins[i] == b:
            inside[found] = values[i]
            found += 1
    inside.sort()
    return float(inside[rank])
