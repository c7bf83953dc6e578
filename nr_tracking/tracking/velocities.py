"""How fast tracked points move, and where they will be shortly: live and for whole recordings.

    estimator = MotionEstimator()
    estimator.observe(ids, positions, stamp_ns)             # once a frame
    estimator.velocities                                    # (N, 3) m/s
    places, error = estimator.predict(stamp_ns + 100_000_000)

    velocities = velocities_of(positions, stamps_ns)        # (T, N, 3) of a recording, from both sides of each frame

Both fit low polynomials of time to a few frames (Savitzky and Golay 1964, for any stamps and with gaps). How many
frames are best, and whether a line or a parabola, depends on how the subject moves and on how noisy its tracks are; so
the live estimator runs a handful of such fits beside each other and believes, for each point, the one that later frames
have borne out best so far. How much of a foretold step comes true within a tenth of a second, and how far off it is, is
learnt from past predictions as well.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from nr_tracking.loops import compiled_loops
from nr_tracking.types import Bool, Float32, Float64, InputError, Int64

_TERMS = 3  # terms of a parabola
_WINDOW = 9  # frames that a live fit looks back on
_FITS = ((0, 1e-3), (1, 1e-3), (1, 0.3), (1, 0.6), (1, 0.8), (2, 1e-2), (2, 0.4), (2, 0.7))
"""Degree of each live fit, and the weight of a position over that of the one after it."""
_FIRST_FIT = 1  # the line through the last two positions: what is believed before anything is known

_HORIZON_S = 0.1  # the time ahead for which predictions are calibrated
_KEPT_SCORE, _KEPT_GAIN, _KEPT_ERROR = 0.85, 0.95, 0.9  # what stays of the past from frame to frame
_COMMON = 0.3  # weight of the mean over all points beside a point's own record
_PRIOR_GAINS = np.array([0.8, 0.2])  # shares of a step by velocity and by acceleration that come true
_PRIOR_WEIGHT = 0.3

_HALF_WINDOW = 2  # frames on either side in the fit of a recording


@dataclass(frozen=True)
class _Estimate:
    """One frame's estimate: ``place``, ``speed`` (m/s) and ``half_acceleration`` (m/s^2), (3, N) each."""

    stamp_ns: int
    place: Float32
    speed: Float32
    half_acceleration: Float32

    def steps(self, ahead_s: float) -> Float32:
        """What speed and acceleration alone would add within a time, (2, 3, N)."""
        return np.stack((ahead_s * self.speed, ahead_s**2 * self.half_acceleration))


class MotionEstimator:
    """Velocities and short extrapolation of tracked points, frame by frame.

    Points are told apart by their ids and may come and go. Memory is bounded: the last few frames.
    """

    # Points come last in all arrays inside, (3, N), because sums over the three coordinates are much faster so.

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget all points."""
        self._ids = np.empty(0, np.int64)
        self._stamps: deque[int] = deque(maxlen=_WINDOW)
        self._offset = np.empty((3, 0), np.float32)
        self._history = np.empty((0, 3, 0), np.float32)
        self._tangents = np.empty((len(_FITS), 2, 3, 0), np.float32)  # place and speed by each fit
        self._score = np.empty((len(_FITS), 0), np.float32)
        self._squared = np.empty(0, np.float32)
        self._known = np.empty(0, np.float32)
        self._past: deque[_Estimate] = deque()
        self._moments, self._products = np.zeros((2, 2)), np.zeros(2)

    @property
    def velocities(self) -> Float32:
        """Velocities (N, 3) m/s of the points last observed; zero where a point has been seen once only."""
        if not self._past:
            return np.empty((0, 3), np.float32)
        return np.ascontiguousarray(self._past[-1].speed.T)

    def observe(self, ids: Int64, positions: np.ndarray, stamp_ns: int, since_last: np.ndarray | None = None) -> None:
        """Take the positions (N, 3) metres of one frame; NaN for a point that is not seen but still wanted.

        ``ids`` (N,) are distinct. ``since_last`` (N, 3) m/s are mean velocities since the frame before, for a tracker
        that knows them better than by the difference of positions, which also holds what projection onto a surface and
        corrections of drift have moved. Raises :class:`InputError` ("stamp_order") for a stamp that is not later than
        the last.
        """
        if self._stamps and stamp_ns <= self._stamps[-1]:
            raise InputError(
                "stamp_order", f"stamp {stamp_ns} ns is not later than the last one, {self._stamps[-1]} ns"
            )
        if not np.array_equal(ids, self._ids):
            self._rearrange(np.asarray(ids, np.int64))
        places = self._along_path(positions, since_last, stamp_ns)
        if self._past:
            self._judge_fits(places, stamp_ns)
            self._judge_predictions(places, stamp_ns)
        self._stamps.append(stamp_ns)
        self._history = np.concatenate((self._history[-(_WINDOW - 1) :], places[None]))
        common = _COMMON * self._score.sum(axis=1) / np.float32(max(len(ids), 1))
        if not self._past:
            common = np.where(np.arange(len(_FITS)) == _FIRST_FIT, common, np.float32(np.inf))
        self._past.append(self._best_fit(common, stamp_ns))
        # Of those older than the horizon, the newest may be the closest to it in the next frame, the others never.
        while len(self._past) > 2 and 1e-9 * (stamp_ns - self._past[1].stamp_ns) >= _HORIZON_S:
            self._past.popleft()

    def predict(self, stamp_ns: int) -> tuple[Float32, Float32]:
        """Where the points will be at a stamp, (N, 3) metres, and the root-mean-square error to be expected, (N,).

        The error is that of past predictions a tenth of a second ahead, in proportion to the time ahead; NaN before
        there were any. It is against where points were tracked later, so it does not know of drift. Nothing is
        foretold, N = 0, before anything was observed.
        """
        if not self._past:
            return np.empty((0, 3), np.float32), np.empty(0, np.float32)
        newest = self._past[-1]
        ahead = 1e-9 * (stamp_ns - newest.stamp_ns)
        reach = min(max(ahead, 0.0) / _HORIZON_S, 1.0)
        gains = (1.0 + reach * (self._gains() - 1.0)).astype(np.float32)
        places = newest.place + self._offset + np.tensordot(gains, newest.steps(ahead), axes=1)
        total = self._known.sum()
        if total == 0:
            return places.T, np.full(places.shape[1], np.nan, np.float32)
        common = self._squared.sum() / total
        error = np.sqrt((self._squared + _COMMON * common) / (self._known + _COMMON))
        return places.T, (error * abs(ahead) / _HORIZON_S).astype(np.float32)

    def _along_path(self, positions: np.ndarray, since_last: np.ndarray | None, stamp_ns: int) -> Float32:
        """The positions (N, 3) without what did not belong to the motion, (3, N); that is kept in ``_offset``.

        NaN throughout where a point is not seen.
        """
        if (loops := compiled_loops("velocities")) is not None:
            positions, moved = np.ascontiguousarray(positions, np.float32), since_last is not None and bool(self._past)
            speeds = np.ascontiguousarray(since_last if moved else positions, np.float32)
            last = self._past[-1] if moved else _Estimate(stamp_ns, self._offset, self._offset, self._offset)
            elapsed = 1e-9 * (stamp_ns - last.stamp_ns)
            along: Float32 = loops.along_path(positions, speeds, moved, last.place, elapsed, self._offset)
            return along
        places = np.ascontiguousarray(np.asarray(positions, np.float32).T)
        path = places - self._offset
        if since_last is not None and self._past:
            elapsed = 1e-9 * (stamp_ns - self._past[-1].stamp_ns)
            carried = self._past[-1].place + np.float32(elapsed) * np.asarray(since_last, np.float32).T
            path = np.where(np.isfinite(carried) & np.isfinite(places), carried, path)
            self._offset = np.where(np.isfinite(places), places - path, self._offset)
        path[:, ~np.isfinite(path.sum(axis=0))] = np.nan
        return path

    def _best_fit(self, common: Float32, stamp_ns: int) -> _Estimate:
        """The fit to the history that does best by its record with each point and the ``common`` one (F,)."""
        times = np.array([1e-9 * (stamp - stamp_ns) for stamp in self._stamps])
        if (loops := compiled_loops("velocities")) is not None:
            patterns, pattern = loops.patterns_of(self._history)
            present = (patterns >> np.arange(len(times))[:, None]) & 1 == 1
            operators = np.ascontiguousarray(_operators(times, present, _FITS))
            known = self._history, patterns, pattern, operators, self._score, common
            self._tangents, *best = loops.fitted(*known)
            return _Estimate(stamp_ns, *best)
        fits = _fit_polynomials(self._history, times, _FITS)
        self._tangents = fits[:, :2]
        chosen = (self._score + common[:, None]).argmin(axis=0)
        flat = fits.reshape(len(_FITS), 3 * _TERMS, len(chosen))
        best = np.take_along_axis(flat, chosen[None, None], axis=0)
        smoothed, speed, half_acceleration = best.reshape(_TERMS, 3, -1)
        # The tracked place itself is where a prediction starts: smoothing it would only make it late.
        places = self._history[-1]
        return _Estimate(stamp_ns, np.where(np.isnan(places), smoothed, places), speed, half_acceleration)

    def _judge_fits(self, places: Float32, stamp_ns: int) -> None:
        """Hold the tangent of each fit against where the points are, and against the difference across its frame."""
        last, before = self._past[-1], self._past[-min(2, len(self._past))]
        elapsed, across = (1e-9 * (stamp_ns - past.stamp_ns) for past in (last, before))
        if (loops := compiled_loops("velocities")) is not None:
            loops.judge_fits(self._tangents, places, before.place, elapsed, across, self._score, _KEPT_SCORE)
            return
        place, speed = self._tangents[:, 0], self._tangents[:, 1]
        foretold = speed + (place - places) / np.float32(elapsed)
        present = speed - (places - before.place) / np.float32(across)
        # What foretells best lags behind least, but is also damped; the difference across a frame is neither.
        squared = 0.25 * (foretold**2).sum(axis=1) + (present**2).sum(axis=1)
        self._score = np.where(np.isfinite(squared), _KEPT_SCORE * self._score + squared, self._score)

    def _judge_predictions(self, places: Float32, stamp_ns: int) -> None:
        """Hold what was foretold about a tenth of a second ago against where the points are."""
        ages = 1e-9 * (stamp_ns - np.array([past.stamp_ns for past in self._past]))
        closest = int(np.abs(ages - _HORIZON_S).argmin())
        past, age = self._past[closest], float(ages[closest])
        # Errors grow about in proportion to the time ahead; frame rates differ from the calibrated horizon.
        growth = (_HORIZON_S / age) ** 2
        if (loops := compiled_loops("velocities")) is not None:
            known = past.place, past.speed, past.half_acceleration, places, age, self._gains(), growth, _KEPT_ERROR
            moments, products = loops.judge_predictions(*known, self._squared, self._known)
            self._moments = _KEPT_GAIN * self._moments + moments
            self._products = _KEPT_GAIN * self._products + products
            return
        steps, moved = past.steps(age), places - past.place
        sound = np.isfinite(moved.sum(axis=0) + steps.sum(axis=(0, 1)))
        flat = np.where(sound, steps, np.float32(0.0)).reshape(2, -1)
        goal = np.where(sound, moved, np.float32(0.0)).reshape(-1)
        miss = (goal - self._gains().astype(np.float32) @ flat).reshape(3, -1)
        squared = (miss**2).sum(axis=0) * np.float32(growth)
        self._squared = _KEPT_ERROR * self._squared + squared
        self._known = _KEPT_ERROR * self._known + sound
        self._moments = _KEPT_GAIN * self._moments + flat @ flat.T
        self._products = _KEPT_GAIN * self._products + flat @ goal

    def _gains(self) -> Float64:
        """Shares of the steps by velocity and acceleration that come true within the horizon, (2,)."""
        pull = np.diag(_PRIOR_WEIGHT * np.diag(self._moments) + 1e-12)
        gains: Float64 = np.linalg.solve(self._moments + pull, self._products + pull @ _PRIOR_GAINS)
        return gains

    def _rearrange(self, ids: Int64) -> None:
        """Bring everything into the order of new ids; points that were not there before have no past."""
        if (np.diff(np.sort(ids)) == 0).any():
            raise ValueError("ids of tracked points must be distinct")
        order = np.argsort(self._ids, kind="stable")
        source = np.append(order, 0)[np.searchsorted(self._ids, ids, sorter=order)]
        known = self._ids[source] == ids if len(order) else np.zeros(len(ids), bool)
        new = np.flatnonzero(~known)
        loops, column = compiled_loops("velocities"), np.where(known, source, -1)

        def taken(values: Float32, missing: float) -> Float32:
            if loops is not None:
                rows: Float32 = loops.taken(values.reshape(prod(values.shape[:-1]), len(order)), column, missing)
                return rows.reshape(*values.shape[:-1], len(ids))
            found = values.take(source, axis=-1) if len(order) else np.empty((*values.shape[:-1], len(ids)), np.float32)
            found[..., new] = missing
            return found

        self._history, self._tangents = taken(self._history, np.nan), taken(self._tangents, np.nan)
        self._offset, self._score = taken(self._offset, 0.0), taken(self._score, 0.0)
        self._squared, self._known = taken(self._squared, 0.0), taken(self._known, 0.0)
        for index, past in enumerate(self._past):
            places, speed = taken(past.place, np.nan), taken(past.speed, np.nan)
            self._past[index] = _Estimate(past.stamp_ns, places, speed, taken(past.half_acceleration, np.nan))
        self._ids = ids


def velocities_of(positions: np.ndarray, stamps_ns: Int64) -> Float32:
    """Velocities (T, N, 3) m/s float32 of the tracks of a recording, from two frames on either side of each.

    ``positions`` (T, N, 3) metres, NaN where not tracked; ``stamps_ns`` (T,) ascending. A parabola is fitted to the
    five frames around each, a line where only two of them have a position; NaN where a track has no position, or no
    second one nearby. Raises :class:`InputError` ("bad_tracks") for shapes that do not agree.
    """
    values = np.asarray(positions, np.float32)
    if values.ndim != 3 or values.shape[2] != 3 or np.shape(stamps_ns) != (len(values),):
        raise InputError("bad_tracks", f"positions {values.shape} and stamps {np.shape(stamps_ns)} do not go together")
    if np.any(np.diff(stamps_ns) <= 0):
        raise InputError("bad_tracks", "the stamps of tracks must ascend")
    result = np.full(values.shape, np.nan, np.float32)
    if values.shape[1] == 0:
        return result
    for frame in range(len(values)):
        # At the ends of a recording the window is as wide, but not centred.
        start = max(0, min(frame - _HALF_WINDOW, len(values) - 2 * _HALF_WINDOW - 1))
        window = np.ascontiguousarray(values[start : start + 2 * _HALF_WINDOW + 1].transpose(0, 2, 1))
        times = (np.asarray(stamps_ns, np.int64)[start : start + len(window)] - int(stamps_ns[frame])).astype(
            np.float64
        )
        seen = np.isfinite(window.sum(axis=1))
        wanted = seen[frame - start] & (seen.sum(axis=0) > 1)
        result[frame, wanted] = _fit_polynomials(window, 1e-9 * times, ((2, 1.0),))[0, 1].T[wanted]
    return result


def _fit_polynomials(history: Float32, times: Float64, fits: Sequence[tuple[int, float]]) -> Float32:
    """Fit F polynomials to each track by weighted least squares: coefficients (F, 3, 3, N) of 1, t and t^2.

    ``history`` (n, 3, N), NaN in gaps; ``times`` (n,) seconds. Each of ``fits`` is a degree, less where there are too
    few positions, and the weight of a position over that of the next one. A track without any position has no place
    (NaN) and stands still.
    """
    frames, _, tracks = history.shape
    present = np.isfinite(history.sum(axis=1))
    # Tracks that are present in the same frames have the same operator, and almost all are present in all.
    codes = (1 << np.arange(frames, dtype=np.int32)) @ present
    whole = (1 << frames) - 1
    others = np.flatnonzero(codes != whole)
    latest = history[-1].copy()
    if len(others):
        last_seen = frames - 1 - present[::-1, others].argmax(axis=0)
        latest[:, others] = history[last_seen, :, others].T
    # Counted from the last position, so that single precision loses nothing.
    relative = history - latest
    everywhere = _operators(times, np.ones((frames, 1), bool), fits)[0]
    flat = everywhere.reshape(-1, frames) @ relative.reshape(frames, -1)
    result: Float32 = flat.reshape(len(fits), _TERMS, 3, tracks)
    if len(others):
        _, first, kind = np.unique(codes[others], return_index=True, return_inverse=True)
        operators = _operators(times, present[:, others[first]], fits)
        rows = operators[kind.reshape(-1)].reshape(len(others), -1, frames)
        some = rows @ np.nan_to_num(relative[:, :, others]).transpose(2, 0, 1)
        result[..., others] = some.reshape(len(others), len(fits), _TERMS, 3).transpose(1, 2, 3, 0)
    result[:, 0] += latest
    return result


def _operators(times: Float64, present: Bool, fits: Sequence[tuple[int, float]]) -> Float32:
    """Matrices (G, F, 3, n) that turn positions into coefficients, for G patterns of presence (n, G)."""
    degrees, decays = np.array([degree for degree, _ in fits]), np.array([decay for _, decay in fits])
    # Weights go by how many positions came later, not by how long ago, so that a gap leaves no fit with nothing.
    later: Int64 = np.cumsum(present[::-1], axis=0)[::-1] - present
    weight = decays[:, None, None] ** later * present  # (F, n, G)
    scale = max(float(np.ptp(times)), 1e-9)  # in units of the window, the normal equations are well conditioned
    powers = (times / scale)[:, None] ** np.arange(_TERMS)
    degree = np.minimum(degrees[:, None], present.sum(axis=0) - 1)  # (F, G)
    used = np.arange(_TERMS) <= degree[..., None]  # (F, G, 3)
    right = np.einsum("nk,fng->fgkn", powers, weight) * used[..., None]
    normal = (right @ powers) * used[..., None, :]
    # Two stamps may be all but the same: a trace of damping keeps that solvable.
    normal[..., np.arange(_TERMS), np.arange(_TERMS)] *= 1.0 + 1e-10
    normal[..., np.arange(_TERMS), np.arange(_TERMS)] += ~used
    solved = np.linalg.solve(normal, right) / scale ** np.arange(_TERMS)[:, None]
    result: Float32 = solved.transpose(1, 0, 2, 3).astype(np.float32)
    return result
