"""How far points spread, and along which axes."""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import compiled
from nr_tracking.loops.jacobi import turn
from nr_tracking.types import Bool, Float32, Float64


@compiled
def moments(cloud: Float32, taken: Bool) -> tuple[Float64, Float64, int]:
    """Mean (3,) of the points (N, 3) that are ``taken`` (N,), their squares (3, 3) about it, and their number."""
    centre, squares, count = np.zeros(3), np.zeros((3, 3)), 0
    for i in range(len(cloud)):
        if taken[i]:
            count += 1
            for a in range(3):
                centre[a] += cloud[i, a]
    for a in range(3):
        centre[a] /= max(count, 1)
    for i in range(len(cloud)):
        if taken[i]:
            x, y, z = cloud[i, 0] - centre[0], cloud[i, 1] - centre[1], cloud[i, 2] - centre[2]
            squares[0, 0] += x * x
            squares[0, 1] += x * y
            squares[0, 2] += x * z
            squares[1, 1] += y * y
            squares[1, 2] += y * z
            squares[2, 2] += z * z
    for a in range(3):
        for b in range(a):
            squares[a, b] = squares[b, a]
    return centre, squares, count


@compiled
def axes_of(squares: Float64) -> Float64:
    """Eigenvectors, by columns, of a symmetric matrix (3, 3), that of the least eigenvalue first: by Jacobi's turns."""
    matrix, vectors = np.empty((3, 3)), np.zeros((3, 3))
    for a in range(3):
        vectors[a, a] = 1
        for b in range(3):
            matrix[a, b] = squares[a, b]
    for number in range(24):  # eight sweeps; four are enough for double precision
        a, b = (number % 3) & 1, min(number % 3 + 1, 2)
        if matrix[a, b] != 0:
            turn(matrix, vectors, a, b)
    first, last = 0, 0
    for k in range(1, 3):
        first = k if matrix[k, k] < matrix[first, first] else first
        last = k if matrix[k, k] >= matrix[last, last] else last
    if first == last:  # of what are no numbers
        first, last = 0, 2
    ordered = np.empty((3, 3))
    for k in range(3):
        ordered[k, 0] = vectors[k, first]
        ordered[k, 1] = vectors[k, 3 - first - last]
        ordered[k, 2] = vectors[k, last]
    return ordered
