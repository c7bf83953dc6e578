"""Whether a stated confidence can be believed.

    curve = reliability(confidence, error, error_limit(depth))
    curve.stated, curve.measured        # of points with about the same confidence: what was said, what was true
    curve.gap, curve.auroc              # how far the two are apart; how well good points are told from bad ones

A confidence is the stated probability that a point lies within a limit of where it truly is: 3 cm at a distance of 2 m,
and in proportion, because the noise of depth cameras and the size of what they resolve grow with distance. The limit is
:func:`nr_tracking.tracking.confidence.error_limit`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from nr_tracking.types import Float64, InputError, Int64


@dataclass(frozen=True)
class Reliability:
    """A reliability curve of B bins of equal width, and what it comes to.

    ``bins`` (B + 1,) edges from 0 to 1; ``stated`` (B,) mean confidence and ``measured`` (B,) share of points within
    the limit, NaN in empty bins; ``counts`` (B,); ``auroc`` the probability that a point within the limit has more
    confidence than one beyond it (0.5: chance), NaN where all points are of one kind.
    """

    bins: Float64
    stated: Float64
    measured: Float64
    counts: Int64
    auroc: float

    @property
    def gap(self) -> float:
        """Mean of |stated - measured| over the points, the expected calibration error; NaN without points."""
        return self._mean(np.abs(self.stated - self.measured))

    @property
    def largest_gap(self) -> float:
        """The largest |stated - measured| among the bins that hold 1 % of the points at least; NaN without points."""
        held = self.counts >= max(1.0, 0.01 * self.counts.sum())
        return float(np.abs(self.stated - self.measured)[held].max()) if held.any() else float("nan")

    @property
    def share_within(self) -> float:
        """Share of all points that are within the limit; NaN without points."""
        return self._mean(self.measured)

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON; NaN where a bin is empty."""
        fields = {key: np.asarray(value).tolist() for key, value in asdict(self).items()}
        return fields | {"gap": self.gap, "largest_gap": self.largest_gap, "share_within": self.share_within}

    def _mean(self, values: Float64) -> float:
        filled = self.counts > 0
        if not filled.any():
            return float("nan")
        return float(np.average(values[filled], weights=self.counts[filled]))


def reliability(
    confidence: NDArray[np.floating],
    error: NDArray[np.floating],
    threshold: float | NDArray[np.floating],
    bins: int = 10,
) -> Reliability:
    """Hold ``confidence`` against ``error``, both of one shape; ``threshold``, of the same unit, broadcasts to it.

    Points without a confidence or an error (NaN) do not count. Raises :class:`InputError` ("bad_confidence") where a
    confidence is not within [0, 1].
    """
    if bins < 1:
        raise ValueError(f"a curve of {bins} bins: it needs one at least")
    stated = np.asarray(confidence, np.float64)
    good = np.asarray(error, np.float64) <= threshold
    known = np.isfinite(stated) & np.isfinite(error) & np.isfinite(threshold)
    stated, good = stated[known], good[known]
    if len(stated) and not 0 <= stated.min() <= stated.max() <= 1:
        raise InputError("bad_confidence", f"confidences run from {stated.min()} to {stated.max()}, not within 0 and 1")
    which = np.minimum((stated * bins).astype(np.int64), bins - 1)
    counts = np.bincount(which, minlength=bins)
    filled = np.where(counts > 0, counts, np.nan)
    return Reliability(
        np.linspace(0, 1, bins + 1),
        np.bincount(which, stated, minlength=bins) / filled,
        np.bincount(which, good, minlength=bins) / filled,
        counts,
        _auroc(stated, good),
    )


def _auroc(score: Float64, good: NDArray[np.bool_]) -> float:
    """Area under the receiver operating characteristic, by ranks (Mann and Whitney); ties count one half."""
    positive, negative = int(good.sum()), int((~good).sum())
    if positive == 0 or negative == 0:
        return float("nan")
    return float((rankdata(score)[good].sum() - positive * (positive + 1) / 2) / (positive * negative))
