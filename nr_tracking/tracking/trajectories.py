"""Whole trajectories: tracks with gaps and noise become smooth functions of time.

    trajectory = DCTTrajectory.fit(positions, stamps_ns)         # (T, N, 3) metres, NaN where not tracked
    filled = trajectory.positions(stamps_ns)                     # (T, N, 3) metres, no gaps
    speed = trajectory.velocities([stamp_ns])                    # (1, N, 3) m/s

A trajectory is a constant, a straight line and cosines of time. Cosines alone, as in the trajectory fields of Wang et
al., "Neural Trajectory Fields for Dynamic Novel View Synthesis" (arXiv 2105.05994), stand still at both ends, because
they repeat their signal mirrored; here the straight line takes the place of the first cosine, so that a point may
arrive and leave with a speed. K = T terms reproduce T positions exactly, a constant velocity needs two.

All tracks are fitted together. One Cholesky factorisation of a track's normal equations holds those of every smaller
number of terms as well, so the number is chosen for each track from the errors of all of them at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nr_tracking.types import Bool, Float64, InputError, Int64

_CHUNK_NUMBERS = 4_000_000  # normal equations of so many numbers are held at a time
_BENDING = 1e-9  # penalty on the k-th cosine, times k^4: settles what a long gap leaves open
_DEFAULT_TERMS = 32


@dataclass(frozen=True)
class DCTTrajectory:
    """Trajectories of N points from ``first_ns`` on, ``coefficients`` (K, N, 3) float64 metres.

    ``period_s`` is the mean time between frames and ``frames`` their number T; ``terms`` (N,) int64 how many of the K
    terms each track uses, 0 for a track without any position; ``residual`` (N,) metres, the root mean square of what
    the fit leaves over at the given positions.
    """

    first_ns: int
    period_s: float
    frames: int
    coefficients: Float64
    terms: Int64
    residual: Float64

    @classmethod
    def fit(
        cls,
        positions: np.ndarray,
        stamps_ns: np.ndarray,
        weights: np.ndarray | None = None,
        terms: int | None = None,
        most_terms: int = _DEFAULT_TERMS,
    ) -> DCTTrajectory:
        """Fit tracks by weighted least squares.

        ``positions`` (T, N, 3) metres, NaN where a track has none; ``stamps_ns`` (T,) ascending, evenly spaced or not;
        ``weights`` (T, N), how much each position counts, as confidence does. ``terms`` fixes the number of terms;
        without it each track takes the one of least generalised cross-validation score (Golub, Heath and Wahba 1979),
        at most ``most_terms``. A track never uses more terms than it has positions. Raises :class:`InputError`
        ("bad_tracks") for shapes that do not agree or stamps that do not rise.
        """
        values, present, weight = _checked(positions, stamps_ns, weights)
        frames, tracks = present.shape
        first, period = int(stamps_ns[0]), _period(stamps_ns)
        count = min(terms if terms is not None else most_terms, frames)
        if count < 1:
            raise ValueError(f"a trajectory needs at least one term, not {count}")
        basis, _ = _basis(_phase(stamps_ns, first, period, frames), count, 1.0)
        coefficients = np.zeros((count, tracks, 3))
        used, residual = np.zeros(tracks, np.int64), np.full(tracks, np.nan)
        # Tracks that are seen in the same frames, with the same weights, share their normal equations.
        patterns, pattern = np.unique(weight, axis=1, return_inverse=True)
        pattern = pattern.reshape(-1)
        order = np.argsort(pattern, kind="stable")
        step = max(1, _CHUNK_NUMBERS // (count * max(count, 3)))
        for begin in range(0, tracks, step):
            chosen = order[begin : begin + step]
            kinds, kind = np.unique(pattern[chosen], return_inverse=True)
            found = _fit_group(
                basis, values[:, chosen], present[:, chosen], patterns[:, kinds], kind.reshape(-1), terms
            )
            coefficients[:, chosen], used[chosen], residual[chosen] = found
        return cls(first, period, frames, coefficients, used, residual)

    def positions(self, stamps_ns: np.ndarray | Sequence[int]) -> Float64:
        """Where the points are at each stamp, (Q, N, 3) metres; beyond the ends they go on as they arrived.

        NaN for a track that had no position at all.
        """
        inside, outside_s = self._locate(stamps_ns)
        values, slopes = _basis(inside, len(self.coefficients), self._rate)
        rows = values + slopes * outside_s[:, None]
        return self._evaluated(rows)

    def velocities(self, stamps_ns: np.ndarray | Sequence[int]) -> Float64:
        """How fast they are, (Q, N, 3) m/s: the derivative of :meth:`positions`."""
        inside, _ = self._locate(stamps_ns)
        return self._evaluated(_basis(inside, len(self.coefficients), self._rate)[1])

    @property
    def _rate(self) -> float:
        """Phase per second."""
        return 1.0 / (self.frames * self.period_s)

    def _locate(self, stamps_ns: np.ndarray | Sequence[int]) -> tuple[Float64, Float64]:
        """Phase of each stamp, held between the first and the last frame, and how far beyond it is in seconds."""
        phase = _phase(np.asarray(stamps_ns, np.int64), self.first_ns, self.period_s, self.frames)
        half = 0.5 / self.frames
        inside = np.clip(phase, half, 1.0 - half)
        return inside, (phase - inside) / self._rate

    def _evaluated(self, rows: Float64) -> Float64:
        count, tracks, _ = self.coefficients.shape
        result = (rows @ self.coefficients.reshape(count, -1)).reshape(len(rows), tracks, 3)
        result[:, self.terms == 0] = np.nan
        return result


def _checked(positions: np.ndarray, stamps_ns: np.ndarray, weights: np.ndarray | None) -> tuple[Float64, Bool, Float64]:
    """Positions with zeros for gaps, where they are given (T, N), and their weights (T, N)."""
    values = np.asarray(positions, np.float64)
    if values.ndim != 3 or values.shape[2] != 3 or len(values) == 0:
        raise InputError("bad_tracks", f"positions have the shape {values.shape}; (T, N, 3) with T >= 1 is needed")
    if np.shape(stamps_ns) != (len(values),) or np.any(np.diff(stamps_ns) <= 0):
        raise InputError("bad_tracks", f"{len(values)} ascending stamps are needed, one for each frame of positions")
    weight = np.ones(values.shape[:2]) if weights is None else np.asarray(weights, np.float64)
    if weight.shape != values.shape[:2] or np.nanmin(weight, initial=0.0) < 0:
        raise InputError("bad_tracks", f"weights must be {values.shape[:2]} numbers that are not negative")
    weight = np.where(np.isfinite(values).all(axis=2), np.nan_to_num(weight), 0.0)
    present = weight > 0
    return np.where(present[:, :, None], values, 0.0), present, weight


def _period(stamps_ns: np.ndarray) -> float:
    """Mean time between frames in seconds; one second where there is a single frame."""
    return 1e-9 * float(stamps_ns[-1] - stamps_ns[0]) / (len(stamps_ns) - 1) if len(stamps_ns) > 1 else 1.0


def _phase(stamps_ns: np.ndarray, first_ns: int, period_s: float, frames: int) -> Float64:
    """Time as a share of the whole: (i + 1/2) / T at frame i of T that are evenly spaced."""
    return (1e-9 * (np.asarray(stamps_ns, np.int64) - first_ns) / period_s + 0.5) / frames


def _basis(phase: Float64, count: int, rate: float) -> tuple[Float64, Float64]:
    """The terms (Q, K) at phases (Q,), and their derivatives by time, ``rate`` being phase per second."""
    order = np.arange(count, dtype=np.float64)
    values: Float64 = np.cos(np.pi * order * phase[:, None])
    slopes: Float64 = -(np.pi * order) * np.sin(np.pi * order * phase[:, None])
    if count > 1:
        values[:, 1], slopes[:, 1] = 1.0 - 2.0 * phase, -2.0
    return values, rate * slopes


def _fit_group(
    basis: Float64, values: Float64, present: Bool, weight: Float64, kind: Int64, terms: int | None
) -> tuple[Float64, Int64, Float64]:
    """Coefficients (K, N, 3), terms used (N,) and residuals (N,) of tracks ``values`` (T, N, 3).

    ``weight`` (T, G) are the kinds of weights that occur, ``kind`` (N,) is that of each track.
    """
    frames, count = basis.shape
    seen = present.sum(axis=0)
    total = np.maximum(weight.sum(axis=0), 1e-300)
    weight = weight / total * np.maximum((weight > 0).sum(axis=0), 1)  # mean 1 over the positions that are given
    # A track is centred first: then what is squared below is its motion, not its place.
    mean = np.einsum("tn,tni->ni", weight[:, kind], values) / np.maximum(seen, 1)[:, None]
    centred = np.where(present[:, :, None], values - mean, 0.0)

    products = (basis[:, :, None] * basis[:, None, :]).reshape(frames, -1)
    gram = (weight.T @ products).reshape(-1, count, count)
    floor = _BENDING * np.arange(count) ** 4.0 + 1e-12
    gram[:, np.arange(count), np.arange(count)] += floor * np.maximum((weight > 0).sum(axis=0), 1)[:, None]
    inverse = np.linalg.inv(np.linalg.cholesky(gram))[kind]
    weighted = weight[:, kind, None] * centred
    right = np.tensordot(basis, weighted, axes=(0, 0)).transpose(1, 0, 2)  # (N, K, 3)
    reduced = inverse @ right
    # With L L^T the matrix of K terms, its leading block is that of k terms, and so is that of L: the first k of
    # L^-1 b say how much of the sum of squares k terms explain.
    explained = np.cumsum((reduced**2).sum(axis=2), axis=1)
    left = np.maximum((weighted * centred).sum(axis=(0, 2))[:, None] - explained, 0.0)
    order = np.arange(1, count + 1)
    usable = order <= np.maximum(seen, 1)[:, None]
    if terms is None:
        freedom = seen[:, None] - order
        score = np.where(freedom > 0, left / np.maximum(freedom, 1) ** 2, np.inf)
        # Two positions are joined by a line: nothing is left over there by which a line could be judged.
        used = np.where(seen > 2, score.argmin(axis=1) + 1, np.minimum(seen, count))
    else:
        used = np.minimum(usable.sum(axis=1), count)
    used = np.where(seen > 0, used, 0)
    reduced = np.where(np.arange(count)[None, :, None] < used[:, None, None], reduced, 0.0)
    coefficients = (np.swapaxes(inverse, 1, 2) @ reduced).transpose(1, 0, 2)
    remaining = left[np.arange(len(used)), np.maximum(used, 1) - 1] / np.maximum(seen, 1)
    coefficients[0] += np.where(seen[:, None] > 0, mean, 0.0)
    return coefficients, used, np.where(seen > 0, np.sqrt(remaining), np.nan)
