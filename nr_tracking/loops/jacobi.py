"""A turn of Jacobi's method for the eigenvectors of a small symmetric matrix, which nothing upsets."""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import inlined
from nr_tracking.types import Float64


@inlined
def turn(matrix: Float64, vectors: Float64, i: int, j: int) -> None:
    """Bring the entry (i, j), which is not 0, of a symmetric ``matrix`` (D, D) to 0, and turn ``vectors`` (D, D) along.

    Both in place; i < j. Turn after turn the matrix becomes diagonal, and vectors that began as the identity hold its
    eigenvectors, by columns.
    """
    slope = (matrix[j, j] - matrix[i, i]) / (2 * matrix[i, j])
    tangent = (1.0 if slope >= 0 else -1.0) / (abs(slope) + np.sqrt(slope * slope + 1))
    cosine = 1 / np.sqrt(tangent * tangent + 1)
    sine = tangent * cosine
    for r in range(len(matrix)):
        one, other = matrix[r, i], matrix[r, j]
        matrix[r, i], matrix[r, j] = cosine * one - sine * other, sine * one + cosine * other
    for r in range(len(matrix)):
        one, other = matrix[i, r], matrix[j, r]
        matrix[i, r], matrix[j, r] = cosine * one - sine * other, sine * one + cosine * other
        one, other = vectors[r, i], vectors[r, j]
        vectors[r, i], vectors[r, j] = cosine * one - sine * other, sine * one + cosine * other
