"""The matrix of a Gauss-Newton step as panels, factorised by compiled loops."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from nr_tracking.deformation.banded import of_lower
from nr_tracking.loops import compiled_loops
from nr_tracking.types import Float32, Float64, Int64


class PanelMatrix:
    """A symmetric matrix of 6 x 6 blocks with the given ``pattern`` (P, P), in an order that fills little.

    Filled less than a band, it takes a third of the time. ``place`` (P,) is that of each node, ``memory`` holds
    the panels of :mod:`nr_tracking.loops.panels`, in single precision; blocks lie there at ``begin`` (K,), with their
    columns ``stride`` (K,) apart.
    """

    def __init__(self, pattern: csr_matrix) -> None:
        loops = _loops()
        structure = pattern.indptr.astype(np.int32, copy=False), pattern.indices.astype(np.int32, copy=False)
        self.place, self._starts, self._rows = loops.least_fill(*structure)
        self._products = loops.products(self._starts, self._rows)
        self.memory: Float32 = np.empty(36 * len(self._rows), np.float32)

    def lay(self, high: Int64, low: Int64) -> None:
        """Find where each block lies, for blocks in the places ``high`` and ``low`` (K,) of two nodes."""
        self.begin, self.stride = _loops().located(self._starts, self._rows, high, low)
        if (self.begin < 0).any():
            raise ValueError(f"{np.count_nonzero(self.begin < 0)} of {len(high)} blocks lie in none of the panels")

    def factorise(self, damping: float) -> bool:
        """Factorise the matrix, by which it is used up; false where it is not positive definite.

        ``damping`` is relative to the diagonal.
        """
        return bool(_loops().factorise(self.memory, self._starts, self._rows, *self._products, float(damping)))

    def solve(self, right: Float64) -> Float64:
        """Solve for a right-hand side (P, 6) by the factors."""
        increments: Float64 = _loops().solved(self.memory, self._starts, self._rows, self.place, right)
        return increments

    def dense(self) -> Float64:
        """The matrix (6P, 6P) in the order of the nodes, before it is used up."""
        lower = np.zeros((6 * len(self.place),) * 2)
        for column, (first, last) in enumerate(zip(self._starts[:-1], self._starts[1:], strict=True)):
            rows = (6 * self._rows[first:last, None] + np.arange(6)).reshape(-1)
            lower[rows, 6 * column : 6 * column + 6] = self.memory[36 * first : 36 * last].reshape(6, -1).T
        return of_lower(lower, self.place)


def _loops() -> Any:
    """The compiled loops, without which there are no panels; asked for each time, so that checkpoints hold none."""
    loops = compiled_loops("panels")
    assert loops is not None
    return loops
