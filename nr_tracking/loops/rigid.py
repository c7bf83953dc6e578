"""Rigid motions of groups of points: the twin of :func:`nr_tracking.deformation.rotations.fit_rigid`."""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import compiled
from nr_tracking.loops.jacobi import turn
from nr_tracking.types import Float64, Int32

_SWEEPS = 30  # of rotations in which a matrix becomes diagonal, at most; five or six are enough
_NEGLIGIBLE = 1e-32  # what is left beside the diagonal, squared, over all


@compiled
def fit_rigid(before: Float64, after: Float64, group: Int32, count: int, pivots: Float64) -> tuple[Float64, Float64]:
    """Fit one rigid motion ``x -> R_k (x - pivot_k) + t_k`` to each of ``count`` groups, by least squares.

    ``before`` and ``after`` (V, 3), ``group`` (V,), ``pivots`` (count, 3). Returns R (count, 3, 3) and t (count, 3).
    """
    members, middle, goal = np.zeros(count), np.zeros((count, 3)), np.zeros((count, 3))
    for v in range(len(before)):
        k = group[v]
        members[k] += 1
        for axis in range(3):
            middle[k, axis] += before[v, axis]
            goal[k, axis] += after[v, axis]
    for k in range(count):
        for axis in range(3):
            middle[k, axis] = middle[k, axis] / members[k] if members[k] else pivots[k, axis]
            goal[k, axis] = goal[k, axis] / members[k] if members[k] else pivots[k, axis]
    spread = np.zeros((count, 3, 3))
    for v in range(len(before)):
        k = group[v]
        for i in range(3):
            for j in range(3):
                spread[k, i, j] += (after[v, i] - goal[k, i]) * (before[v, j] - middle[k, j])
    rotations, translations = np.empty((count, 3, 3)), np.empty((count, 3))
    matrix, vectors = np.empty((4, 4)), np.empty((4, 4))
    for k in range(count):
        total = 0.0
        for i in range(3):
            for j in range(3):
                total += spread[k, i, j] ** 2
        # A vanishing pull towards the identity settles what the points leave open.
        for i in range(3):
            spread[k, i, i] += 1e-6 * np.sqrt(total) + 1e-30
        _nearest_rotation(spread, k, matrix, vectors, rotations)
        for i in range(3):
            translations[k, i] = goal[k, i]
            for j in range(3):
                translations[k, i] += rotations[k, i, j] * (pivots[k, j] - middle[k, j])
    return rotations, translations


@compiled
def _nearest_rotation(spread: Float64, k: int, matrix: Float64, vectors: Float64, rotations: Float64) -> None:
    """Write into ``rotations`` (K, 3, 3) the one nearest to the ``k``-th of ``spread`` (K, 3, 3).

    Its quaternion is the leading eigenvector of a symmetric ``matrix`` (4, 4) made of that (Horn 1987); all of its
    ``vectors`` (4, 4) are found by Jacobi's method.
    """
    xx, xy, xz = spread[k, 0, 0], spread[k, 0, 1], spread[k, 0, 2]
    yx, yy, yz = spread[k, 1, 0], spread[k, 1, 1], spread[k, 1, 2]
    zx, zy, zz = spread[k, 2, 0], spread[k, 2, 1], spread[k, 2, 2]
    matrix[0, 0], matrix[1, 1], matrix[2, 2], matrix[3, 3] = xx + yy + zz, xx - yy - zz, yy - xx - zz, zz - xx - yy
    matrix[0, 1] = matrix[1, 0] = zy - yz
    matrix[0, 2] = matrix[2, 0] = xz - zx
    matrix[0, 3] = matrix[3, 0] = yx - xy
    matrix[1, 2] = matrix[2, 1] = xy + yx
    matrix[1, 3] = matrix[3, 1] = xz + zx
    matrix[2, 3] = matrix[3, 2] = yz + zy
    total = 0.0
    for i in range(4):
        for j in range(4):
            vectors[i, j] = 1.0 if i == j else 0.0
            total += matrix[i, j] * matrix[i, j]
    for _ in range(_SWEEPS):
        beside = 0.0
        for i in range(3):
            for j in range(i + 1, 4):
                beside += matrix[i, j] * matrix[i, j]
        if not beside > _NEGLIGIBLE * total:
            break
        for i in range(3):
            for j in range(i + 1, 4):
                if matrix[i, j] != 0:
                    turn(matrix, vectors, i, j)
    best = 0
    for i in range(1, 4):
        if matrix[i, i] > matrix[best, best]:
            best = i
    w, x, y, z = vectors[0, best], vectors[1, best], vectors[2, best], vectors[3, best]
    rotations[k, 0, 0], rotations[k, 1, 1] = w * w + x * x - y * y - z * z, w * w - x * x + y * y - z * z
    rotations[k, 2, 2] = w * w - x * x - y * y + z * z
    rotations[k, 0, 1], rotations[k, 1, 0] = 2 * (x * y - w * z), 2 * (x * y + w * z)
    rotations[k, 0, 2], rotations[k, 2, 0] = 2 * (x * z + w * y), 2 * (x * z - w * y)
    rotations[k, 1, 2], rotations[k, 2, 1] = 2 * (y * z - w * x), 2 * (y * z + w * x)
