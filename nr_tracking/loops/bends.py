"""Planes that bend, and the heights of points over them: twins of :mod:`nr_tracking.sensing.planes`.

A bent plane is a row of 22 numbers: its normal (3), its offset, two axes (3 each), where its middle lies along them
(2), and the ten coefficients of its cubic; how far it may depart from itself is a number beside them, in metres.
Points (N, 3) are in metres; how far they stand before a plane is in units of their ``tolerance`` (N,).
"""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import compiled
from nr_tracking.types import Float32, Float64, Int64

_BLOCK = 1024


@compiled
def heights_over(
    cloud: Float32, planes: Float32, most: Float32, near: float, noise_depth: float, limit: float
) -> Float32:
    """The least height (N,) of points over all ``planes`` (P, 22) that bend by ``most`` (P,) metres at most.

    The tolerance is ``near`` metres up to ``noise_depth``, and grows with the square of depth from there. A bend counts
    up to ``limit`` tolerances.
    """
    result = np.full(len(cloud), np.inf, np.float32)
    block = np.empty((4, _BLOCK), np.float32)  # coordinates apart from each other, for several points at a time
    one, scale, bend = np.float32(1), np.float32(1 / noise_depth), np.float32(limit)
    for begin in range(0, len(cloud), _BLOCK):
        count = min(_BLOCK, len(cloud) - begin)
        for i in range(count):
            x, y, z = cloud[begin + i, 0], cloud[begin + i, 1], cloud[begin + i, 2]
            share = z * scale
            block[0, i], block[1, i], block[2, i] = x, y, z
            block[3, i] = one / (np.float32(near) * max(one, share * share))
        for p in range(len(planes)):
            lower_heights(block, count, planes[p], most[p], bend, result[begin : begin + count])
    return result


@compiled
def lower_heights(
    block: Float32, count: int, row: Float32, most: np.float32, limit: np.float32, heights: Float32
) -> None:
    """Lower ``heights`` (N,) to those over a plane, in place: of ``count`` points x, y, z, 1 / tolerance (4, N).

    What is far from the plane is not bent. Without branches, so that several points are done at once.
    """
    one, none, wide = np.float32(1), np.float32(0), limit + np.float32(3)
    nx, ny, nz, offset = row[0], row[1], row[2], row[3]
    ux, uy, uz, vx, vy, vz, um, vm = row[4], row[5], row[6], row[7], row[8], row[9], row[10], row[11]
    c, cu, cv, cuu, cuv, cvv = row[12], row[13], row[14], row[15], row[16], row[17]
    cuuu, cuuv, cuvv, cvvv = row[18], row[19], row[20], row[21]
    for i in range(count):
        x, y, z, scale = block[0, i], block[1, i], block[2, i], block[3, i]
        flat = (offset - (x * nx + y * ny + z * nz)) * scale
        u = min(max(x * ux + y * uy + z * uz - um, -one), one)
        v = min(max(x * vx + y * vy + z * vz - vm, -one), one)
        bend = (cuuu * u + (cuuv * v + cuu)) * u + ((cuvv * v + cuv) * v + cu)
        bend = bend * u + (((cvvv * v + cvv) * v + cv) * v + c)
        reach = min(limit, most * scale)
        bend = min(max(bend, -reach), reach)
        heights[i] = min(heights[i], flat - (bend if abs(flat) < wide else none))


@compiled
def bend_row(
    cloud: Float32,
    tolerance: Float32,
    left: Int64,
    step: int,
    row: Float32,
    most: np.float32,
    steps: int,
    limit: np.float32,
    ridge: float,
) -> None:
    """Bend the plane of a ``row`` (22,) to each ``step``-th of the points left that are near it, in so many steps.

    The normal equations are kept from one step to the next, in which but few points come to be near or cease to be.
    """
    count = (len(left) + step - 1) // step
    terms, flat, reach = np.empty((count, 10)), np.empty(count, np.float32), np.empty(count, np.float32)
    one = np.float32(1)
    for i in range(count):
        point = left[i * step]
        x, y, z = cloud[point, 0], cloud[point, 1], cloud[point, 2]
        flat[i] = (row[3] - (x * row[0] + y * row[1] + z * row[2])) / tolerance[point]
        reach[i] = min(limit, most / tolerance[point])
        u = min(max(x * row[4] + y * row[5] + z * row[6] - row[10], -one), one)
        v = min(max(x * row[7] + y * row[8] + z * row[9] - row[11], -one), one)
        uu, vv = u * u, v * v
        terms[i, 0], terms[i, 1], terms[i, 2], terms[i, 3], terms[i, 4] = one, u, v, uu, u * v
        terms[i, 5], terms[i, 6], terms[i, 7], terms[i, 8], terms[i, 9] = vv, uu * u, uu * v, u * vv, vv * v
    near, total = np.zeros(count, np.bool_), 0
    squares, right, bend = np.zeros((10, 10)), np.zeros(10), np.zeros(10, np.float32)
    for _ in range(steps):
        for i in range(count):
            departs = np.float32(0)
            for k in range(10):
                departs += np.float32(terms[i, k]) * bend[k]
            now = abs(flat[i] - min(max(departs, -reach[i]), reach[i])) < 2
            if now == near[i]:
                continue
            near[i] = now
            sign = 1.0 if now else -1.0
            total += 1 if now else -1
            for a in range(10):
                scaled = sign * terms[i, a]
                right[a] += scaled * flat[i]
                for b in range(a + 1):
                    squares[a, b] += scaled * terms[i, b]
        _solve(squares, right, ridge * max(total, 1), bend)
    for k in range(10):
        row[12 + k] = bend[k]


@compiled
def _solve(squares: Float64, right: Float64, ridge: float, solution: Float32) -> None:
    """``squares`` (K, K), whose lower half is there, with a ``ridge``, times ``solution`` (K,) = ``right`` (K,)."""
    size = len(right)
    lower, found = np.zeros((size, size)), np.empty(size)
    for a in range(size):
        for b in range(a + 1):
            value = squares[a, b]
            for k in range(b):
                value -= lower[a, k] * lower[b, k]
            lower[a, b] = np.sqrt(max(value + ridge, 1e-30)) if a == b else value / lower[b, b]
    for a in range(size):
        value = right[a]
        for k in range(a):
            value -= lower[a, k] * found[k]
        found[a] = value / lower[a, a]
    for back in range(size):
        a = size - 1 - back
        for k in range(a + 1, size):
            found[a] -= lower[k, a] * found[k]
        found[a] /= lower[a, a]
        solution[a] = found[a]
