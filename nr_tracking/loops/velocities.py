"""How fast points move, point by point: the twin of :class:`nr_tracking.tracking.velocities.MotionEstimator`'s arrays.

As there, points come last in all arrays, (3, N).
"""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import compiled
from nr_tracking.types import Float32, Float64, Int64

_BLOCK = 256  # points whose coefficients are found together: what they need stays in the nearest cache


@compiled
def taken(values: Float32, source: Int64, missing: float) -> Float32:
    """The columns ``source`` (N,) of ``values`` (D, M), (D, N); ``missing`` where that is -1."""
    found = np.empty((len(values), len(source)), np.float32)
    for d in range(len(values)):
        for i in range(len(source)):
            found[d, i] = values[d, source[i]] if source[i] >= 0 else missing
    return found


@compiled
def along_path(
    positions: Float32, since_last: Float32, moved: bool, place: Float32, elapsed: float, offset: Float32
) -> Float32:
    """``positions`` (N, 3) without ``offset`` (3, N), as (3, N); NaN throughout where a point is not seen.

    If ``moved``, they follow from the last ``place`` (3, N) by the speeds ``since_last`` (N, 3), and ``offset`` is what
    that leaves out.
    """
    count, step = len(positions), np.float32(elapsed)
    path = np.empty((3, count), np.float32)
    for i in range(count):
        for c in range(3):
            path[c, i] = positions[i, c] - offset[c, i]
            if moved and np.isfinite(positions[i, c]):
                carried = place[c, i] + step * since_last[i, c]
                if np.isfinite(carried):
                    path[c, i] = carried
                offset[c, i] = positions[i, c] - path[c, i]
        if not np.isfinite(path[0, i] + path[1, i] + path[2, i]):
            path[0, i] = path[1, i] = path[2, i] = np.nan
    return path


@compiled
def judge_fits(
    tangents: Float32, places: Float32, before: Float32, elapsed: float, across: float, score: Float32, kept: float
) -> None:
    """Add to ``score`` (F, N), of which ``kept`` stays, how far ``tangents`` (F, 2, 3, N) are off at ``places`` (3, N).

    They are held against the places, ``elapsed`` seconds later, and against the difference to those ``before`` (3, N),
    ``across`` seconds ago.
    """
    onward, over = np.float32(1 / elapsed), np.float32(1 / across)
    stays, quarter = np.float32(kept), np.float32(0.25)
    for f in range(len(tangents)):
        for i in range(places.shape[1]):
            foretold = present = np.float32(0)
            for c in range(3):
                speed, here = tangents[f, 1, c, i], places[c, i]
                ahead = speed + (tangents[f, 0, c, i] - here) * onward
                along = speed - (here - before[c, i]) * over
                foretold += ahead * ahead
                present += along * along
            squared = quarter * foretold + present
            if np.isfinite(squared):
                score[f, i] = stays * score[f, i] + squared


@compiled
def judge_predictions(
    place: Float32,
    speed: Float32,
    half_acceleration: Float32,
    places: Float32,
    age: float,
    gains: Float64,
    growth: float,
    kept: float,
    squared: Float32,
    known: Float32,
) -> tuple[Float64, Float64]:
    """Add to ``squared`` and ``known`` (N,), of which ``kept`` stays, how far a prediction was off.

    It started from ``place``, ``speed`` and ``half_acceleration`` (3, N), ``age`` seconds before the points came to
    ``places`` (3, N); ``gains`` (2,) are the shares of its steps that were believed. Errors count ``growth`` times.
    Returns the moments (2, 2) of the steps by speed and acceleration, and their products (2,) with what came true.
    """
    by_speed, by_change = np.float32(age), np.float32(age * age)
    one, other = np.float32(gains[0]), np.float32(gains[1])
    stays, grown = np.float32(kept), np.float32(growth)
    a = b = c = d = e = 0.0  # sums over all points, and over the coordinates of one
    for i in range(places.shape[1]):
        missed = np.float32(0)
        aa = bb = cc = dd = ee = 0.0
        for axis in range(3):
            moved = places[axis, i] - place[axis, i]
            first, second = by_speed * speed[axis, i], by_change * half_acceleration[axis, i]
            miss = moved - (one * first + other * second)
            missed += miss * miss
            aa, bb, cc = aa + first * first, bb + first * second, cc + second * second
            dd, ee = dd + first * moved, ee + second * moved
        squared[i] *= stays
        known[i] *= stays
        if np.isfinite(missed):
            squared[i] += grown * missed
            known[i] += 1
            a, b, c, d, e = a + aa, b + bb, c + cc, d + dd, e + ee
    return np.array([[a, b], [b, c]]), np.array([d, e])


@compiled
def patterns_of(history: Float32) -> tuple[Int64, Int64]:
    """In which frames of ``history`` (n, 3, N) points are present, as bits: patterns (G,), and that of each (N,)."""
    frames, _, count = history.shape
    code, number = np.zeros(count, np.int64), np.full(1 << frames, -1, np.int64)
    for t in range(frames):
        for i in range(count):
            if np.isfinite(history[t, 0, i] + history[t, 1, i] + history[t, 2, i]):
                code[i] |= 1 << t
    patterns, found = np.empty(1 << frames, np.int64), 0
    for i in range(count):
        if number[code[i]] < 0:
            number[code[i]], patterns[found] = found, code[i]
            found += 1
        code[i] = number[code[i]]
    return patterns[:found].copy(), code


@compiled
def fitted(
    history: Float32,
    patterns: Int64,
    pattern: Int64,
    operators: Float32,
    score: Float32,
    common: Float32,
) -> tuple[Float32, Float32, Float32, Float32]:
    """Polynomials through ``history`` (n, 3, N): places and speeds by all fits (F, 2, 3, N), and by the best of each.

    ``patterns`` (G,) and ``pattern`` (N,) are those of :func:`patterns_of`; ``operators`` (G, F, 3, n) turn positions
    into coefficients; the best fit has the least ``score`` (F, N) plus ``common`` (F,). Returns its place, which is the
    last one where that is known, speed and half acceleration (3, N).
    """
    frames, _, count = history.shape
    fits = len(common)
    tangents = np.empty((fits, 2, 3, count), np.float32)
    place, speed = np.empty((3, count), np.float32), np.empty((3, count), np.float32)
    half = np.zeros((3, count), np.float32)
    latest, relative = np.empty((3, _BLOCK), np.float32), np.empty((frames, 3, _BLOCK), np.float32)
    total, best = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.int64)
    begin = 0
    while begin < count:
        # Points that are present in the same frames have the same operators, and almost all are present in all.
        kind, wide = pattern[begin], 1
        while wide < _BLOCK and begin + wide < count and pattern[begin + wide] == kind:
            wide += 1
        present, last = patterns[kind], frames - 1
        while last > 0 and not (present >> last) & 1:
            last -= 1
        last = last if (present >> last) & 1 else frames - 1
        for c in range(3):
            for i in range(wide):
                latest[c, i] = history[last, c, begin + i]
            # Counted from the last position, so that single precision loses nothing.
            for t in range(frames):
                if (present >> t) & 1:
                    for i in range(wide):
                        relative[t, c, i] = history[t, c, begin + i] - latest[c, i]
        for f in range(fits):
            for k in range(2):
                for c in range(3):
                    for i in range(wide):
                        total[i] = latest[c, i] if k == 0 else np.float32(0)
                    for t in range(frames):
                        share = operators[kind, f, k, t]
                        if (present >> t) & 1:
                            for i in range(wide):
                                total[i] += share * relative[t, c, i]
                    for i in range(wide):
                        tangents[f, k, c, begin + i] = total[i]
        for i in range(wide):
            best[i], least = 0, np.float32(np.inf)
            for f in range(fits):
                cost = score[f, begin + i] + common[f]
                if cost < least:
                    best[i], least = f, cost
        for c in range(3):
            for i in range(wide):
                at = begin + i
                place[c, at] = latest[c, i] if last == frames - 1 else tangents[best[i], 0, c, at]
                speed[c, at] = tangents[best[i], 1, c, at]
            for t in range(frames):
                if (present >> t) & 1:
                    for i in range(wide):
                        half[c, begin + i] += operators[kind, best[i], 2, t] * relative[t, c, i]
        begin += wide
    return tangents, place, speed, half
