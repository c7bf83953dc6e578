"""The matrix of a Gauss-Newton step as a band, factorised by LAPACK."""

from __future__ import annotations

import numpy as np
from scipy.linalg.lapack import spbtrf, spbtrs
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import reverse_cuthill_mckee

from nr_tracking.types import Float32, Float64, Int64


class BandMatrix:
    """A symmetric matrix of 6 x 6 blocks with the given ``pattern`` (P, P), in an order that keeps it banded.

    ``place`` (P,) is that of each node. It is in single precision, in LAPACK's lower band storage, ``band[i - j, j] =
    H[i, j]``; the memory is kept from step to step: asking the system anew for as much as this takes longer than
    filling it. It is laid out by columns, as LAPACK wants it, which then factorises in place.
    """

    def __init__(self, pattern: csr_matrix) -> None:
        order = reverse_cuthill_mckee(pattern, symmetric_mode=True)
        self.place = np.empty(len(order), np.int64)
        self.place[order] = np.arange(len(order))

    def lay(self, high: Int64, low: Int64) -> None:
        """Find where each entry of each block lies, for blocks in the places ``high`` and ``low`` (K,) of two nodes."""
        inner = np.arange(6)
        i = high * 6 + inner[:, None, None]
        j = low * 6 + inner[:, None]
        i, j = np.broadcast_arrays(i, j)
        self._source = np.flatnonzero(i >= j)
        i, j = i.reshape(-1)[self._source], j.reshape(-1)[self._source]
        height = int((i - j).max()) + 1
        self._memory = np.empty((6 * len(self.place), height), np.float32)
        self._target = j * height + i - j

    def fill(self, blocks: Float32) -> None:
        """Take the values of the ``blocks`` (6, 6, K)."""
        self._memory.fill(0.0)
        self._memory.reshape(-1)[self._target] = blocks.reshape(-1)[self._source]

    def factorise(self, damping: float) -> bool:
        """Factorise the matrix, by which it is used up; false where it is not positive definite.

        ``damping`` is relative to the diagonal.
        """
        # What neither data nor an edge holds has a zero on the diagonal: keep it where it is. Turns and shifts have a
        # unit of their own each, and so a floor.
        band = self._memory.T
        diagonal = band[0].reshape(-1, 2, 3)
        floor = 1e-7 * np.maximum(diagonal.max(axis=(0, 2), keepdims=True), 1e-30)
        band[0] = ((1.0 + damping) * diagonal + floor).reshape(-1)
        self._factor, failed = spbtrf(band, lower=True, overwrite_ab=True)
        return not failed

    def solve(self, right: Float64) -> Float64:
        """Solve for a right-hand side (P, 6) by the factors."""
        ordered = np.empty(right.shape, np.float32)
        ordered[self.place] = right
        solution, _ = spbtrs(self._factor, ordered.reshape(-1, 1), lower=True, overwrite_b=True)
        increments: Float64 = solution.reshape(-1, 6)[self.place].astype(np.float64)
        return increments

    def dense(self) -> Float64:
        """The matrix (6P, 6P) in the order of the nodes, before it is used up."""
        size, height = self._memory.shape
        lower = np.zeros((size, size))
        for offset in range(height):
            np.fill_diagonal(lower[offset:], self._memory[: size - offset, offset])
        return of_lower(lower, self.place)


def of_lower(lower: Float64, place: Int64) -> Float64:
    """A symmetric matrix (6P, 6P) in the order of the nodes, of its lower triangle in the order of their places."""
    full = np.tril(lower) + np.tril(lower, -1).T
    rows = (place[:, None] * 6 + np.arange(6)).reshape(-1)
    return full[np.ix_(rows, rows)]
