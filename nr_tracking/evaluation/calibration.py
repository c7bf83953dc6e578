"""Fit the confidence of tracks to recordings with ground truth, and hold it against others.

    python -m nr_tracking.evaluation.calibration --fit SEQUENCE... --check SEQUENCE... [--preset base]

Prints the bias and the weights for :mod:`nr_tracking.tracking.confidence`, and how far what they state is from what is
true: on the recordings of the fit, and on those of ``--check`` one row for each folder that holds some. Recordings
count alike, so that large or crowded ones do not outweigh the others. To be repeated when the weights of the network or
the settings of the tracks have changed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.spatial import cKDTree

from nr_tracking.config import Config, load_config
from nr_tracking.data.sequence import read_sequence
from nr_tracking.evaluation.endurance import true_points
from nr_tracking.evaluation.protocol import LENGTH
from nr_tracking.evaluation.reliability import Reliability, reliability
from nr_tracking.tracking.confidence import Evidence, error_limit, states
from nr_tracking.tracking.tracker import Tracker
from nr_tracking.types import Bool, Float64, Tracks


@dataclass(frozen=True)
class Observations:
    """What was known about K tracks of a recording and how they fared, frame by frame.

    ``features`` (K, F) of :class:`Evidence`; ``lost`` (K,), no surface nearby; ``good`` (K,), within the limit.
    """

    features: Float64
    lost: Bool
    good: Bool


@dataclass(frozen=True)
class Calibration:
    """A logistic function of F features: ``weights`` (F,) and a ``bias``."""

    bias: float
    weights: Float64

    @staticmethod
    def fitted(recordings: Iterable[Observations], ridge: float = 1e-4) -> Calibration:
        """The one under which what happened is likeliest, each recording counting alike."""
        known = list(recordings)
        features = np.concatenate([one.features[~one.lost] for one in known])
        good = np.concatenate([one.good[~one.lost] for one in known])
        share = np.concatenate([np.full((~one.lost).sum(), 1.0 / max((~one.lost).sum(), 1)) for one in known])
        share /= share.sum()
        extended = np.concatenate((np.ones((len(features), 1)), features), axis=1)
        sign = np.where(good, 1.0, -1.0)

        def cost(unknown: Float64) -> tuple[float, Float64]:
            margin = sign * (extended @ unknown)
            slope = extended.T @ (-share * sign / (1.0 + np.exp(np.minimum(margin, 500.0))))
            return float(share @ np.logaddexp(0.0, -margin) + ridge * unknown @ unknown), slope + 2 * ridge * unknown

        found = minimize(cost, np.zeros(extended.shape[1]), jac=True, method="L-BFGS-B").x
        return Calibration(float(found[0]), np.asarray(found[1:]))

    def held_against(self, recordings: Iterable[Observations]) -> Reliability:
        """How what this states compares with what happened."""
        known = list(recordings)
        stated = [np.where(one.lost, 0.0, states(one.features, self.bias, self.weights)) for one in known]
        good = np.concatenate([one.good for one in known])
        return reliability(np.concatenate(stated), np.where(good, 0.0, 2.0), 1.0)


class _Watched(Tracker):
    """A tracker that keeps what its confidences are made of."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._tracks.watch = self._seen
        self.evidence: list[Evidence] = []

    def _seen(self, evidence: Evidence) -> None:
        self.evidence.append(evidence)


def observe(path: Path, config: Config, frames: int = LENGTH) -> Observations:
    """Track the first ``frames`` of a recording and compare the points of its first frame with the truth."""
    sequence, tracker = read_sequence(path), _Watched(config)
    found = [one.tracks for index in range(min(frames, len(sequence))) for one in tracker.push(sequence.frame(index))]
    found += [one.tracks for one in tracker.flush()]
    truth = true_points(sequence, frames)
    partner = cKDTree(truth[0]).query(found[0].positions)[1]
    rows = [_compared(found[0], *row, partner) for row in zip(found, tracker.evidence, truth, strict=True)]
    return Observations(*(np.concatenate(part) for part in zip(*rows, strict=True)))


def _compared(
    first: Tracks, now: Tracks, evidence: Evidence, truth: Float64, partner: np.ndarray
) -> tuple[Float64, Bool, Bool]:
    """Features, whether lost and whether good, of the points of the ``first`` frame that are still tracked."""
    _, old, new = np.intersect1d(first.ids, now.ids, assume_unique=True, return_indices=True)
    goal = truth[partner[old]]
    good = np.linalg.norm(now.positions[new] - goal, axis=1) <= error_limit(goal[:, 2])
    return evidence.features()[new], ~np.isfinite(evidence.distance[new]), good


def main(arguments: list[str] | None = None) -> None:
    """Fit, check and print, as the docstring of the module describes."""
    parser = argparse.ArgumentParser(
        prog="python -m nr_tracking.evaluation.calibration",
        description="Fit the confidence of tracks to recordings with ground truth, and print the constants for "
        "nr_tracking/tracking/confidence.py and how well the fit predicts which tracks are right.",
    )
    parser.add_argument(
        "--fit", nargs="+", type=Path, required=True, metavar="SEQUENCE", help="recordings that the fit uses"
    )
    parser.add_argument(
        "--check",
        nargs="+",
        type=Path,
        default=[],
        metavar="SEQUENCE",
        help="other recordings that the fit is tested on; one row for each folder that holds some of them",
    )
    parser.add_argument("--preset", default="base", help="preset of the tracker; default: %(default)s")
    chosen = parser.parse_args(arguments)
    config = load_config(chosen.preset)
    fitted = [observe(path, config) for path in chosen.fit]
    calibration = Calibration.fitted(fitted)
    print(f"_BIAS = {calibration.bias:.3f}\n_WEIGHTS = ({', '.join(f'{one:.3f}' for one in calibration.weights)})\n")
    print("| recordings | points | within the limit | AUROC | largest distance from the diagonal | mean distance |")
    print("|---|---|---|---|---|---|")
    print(_row(f"fitted on these {len(fitted)}", calibration.held_against(fitted)))
    for folder, paths in groupby(chosen.check, key=lambda path: path.parent):
        print(_row(folder.name, calibration.held_against(observe(path, config) for path in paths)), flush=True)


def _row(label: str, curve: Reliability) -> str:
    values = curve.share_within, curve.auroc, curve.largest_gap, curve.gap
    return f"| {label} | {curve.counts.sum():,} | {' | '.join(f'{value:.3f}' for value in values)} |"


if __name__ == "__main__":
    main()
