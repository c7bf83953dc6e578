"""How likely it is that a track is where it says: a calibrated probability from what is known about it.

A logistic function of the evidence below, fitted to the tracks of 13 recordings of the training split (17 frames, nine
without and four with a sensor's noise, the base preset) by :mod:`nr_tracking.evaluation.calibration`, which does so
again when the weights of the network have changed. The probability is that of lying within 3 cm at a distance of 2 m,
and in proportion elsewhere (:mod:`nr_tracking.evaluation.reliability`). docs/tracks.md says how far to believe it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nr_tracking.types import Bool, Float32, Float64

LIMIT_PER_DISTANCE = 0.015
"""The error that the confidence is about, over the distance from the camera: 3 cm at 2 m."""

_BIAS = 1.653
_WEIGHTS = (-2.694, -1.396, 3.945, -7.955, -0.768)


@dataclass(frozen=True)
class Evidence:
    """What is known about each of K points; lengths are shares of the limit that the confidence is about.

    ``distance`` (K,) to the surface before projection, infinite where there is none nearby; ``observed`` (K,) bool,
    seen by the camera; ``surface`` (K,) in [0, 1], confidence of the surface there; ``strain`` (K,), how far the nodes
    that move a point are apart about where it goes; ``age`` (K,) frames since it was laid or confirmed by a keyframe.
    """

    distance: Float64
    observed: Bool
    surface: Float64
    strain: Float64
    age: Float64

    def of(self, chosen: Bool) -> Evidence:
        """The evidence about the points ``chosen`` (K,) alone."""
        return Evidence(
            self.distance[chosen], self.observed[chosen], self.surface[chosen], self.strain[chosen], self.age[chosen]
        )

    def features(self) -> Float64:
        """The inputs (K, 5) of the logistic function, scaled to the order of one."""
        return np.stack(
            (
                np.minimum(self.distance, 4.0),
                self.observed.astype(np.float64),
                self.surface,
                np.minimum(self.strain, 4.0),
                np.log1p(self.age),
            ),
            axis=1,
        )


def error_limit(depth: NDArray[np.floating]) -> Float64:
    """The error (...) that the confidence is about, and above which a point counts as wrong, metres.

    ``depth`` (...) is its z in the camera frame; within 10 cm of the camera the limit is that at 10 cm.
    """
    return LIMIT_PER_DISTANCE * np.maximum(np.asarray(depth, np.float64), 0.1)


def states(features: Float64, bias: float, weights: np.ndarray) -> Float64:
    """The probability (K,) that a logistic function of ``features`` (K, F) states."""
    stated: Float64 = 1.0 / (1.0 + np.exp(-(features @ weights + bias)))
    return stated


def calibrated(evidence: Evidence) -> Float32:
    """The probability (K,) that each point is within the limit; 0 where there is no surface nearby."""
    probability = states(evidence.features(), _BIAS, np.array(_WEIGHTS))
    return np.where(np.isfinite(evidence.distance), probability, 0.0).astype(np.float32)
