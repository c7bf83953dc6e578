"""Percentiles of measured times, and the exponent by which a cost grows with the work."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PERCENTILES = (50, 95, 99)


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """``p50``, ``p95`` and ``p99`` of times; nothing of none."""
    if not len(seconds):
        return {}
    values = np.percentile(seconds, PERCENTILES)
    return {f"p{share}": float(value) for share, value in zip(PERCENTILES, values, strict=True)}


def exponent(work: Sequence[float], seconds: Sequence[float]) -> float:
    """The b of the power law ``seconds = a work^b`` that fits best, in logarithms; NaN for one amount of work."""
    x, y = np.log(np.asarray(work, float)), np.log(np.asarray(seconds, float))
    if len(x) < 2 or np.ptp(x) == 0:
        return float("nan")
    return float(np.polyfit(x, y, 1)[0])
