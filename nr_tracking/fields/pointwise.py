"""Layers of size 1 as what they are: one matrix for all places.

PyTorch's own convolutions leave the order of memory with the channels last on a CPU without bfloat16, and everything
after them has to bring it back: a fourth of the dense decoder's time. In single precision, where loops are compiled and
nothing is learnt, the product is that of :mod:`nr_tracking.fields.products`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional

from nr_tracking.fields.filters import Filters, KeepsFilters
from nr_tracking.fields.products import at_every_row


def linear(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    filters: Filters,
    order: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """``rows`` (..., I) by ``weight`` (O, I) and ``bias`` (O,): (..., O).

    ``filters`` are kept for the weight alone; ``order`` brings the weight into another order of outputs first.
    """
    found = at_every_row(rows, weight, bias, filters, order)
    if found is not None:
        return found
    return functional.linear(rows, weight if order is None else order(weight), bias)


def _at_each_place(layer: Pointwise2d | Pointwise3d, grid: Tensor) -> Tensor:
    """``grid`` (N, I, ...) -> (N, O, ...), channels last in memory."""
    return linear(grid.movedim(1, -1), layer.weight.flatten(1), layer.bias, layer._filters).movedim(-1, 1)


class Linear(KeepsFilters, nn.Linear):
    """A ``Linear`` with the same parameters."""

    def forward(self, rows: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        return linear(rows, self.weight, self.bias, self._filters)


class Pointwise2d(KeepsFilters, nn.Conv2d):
    """A ``Conv2d`` of size 1, with the same parameters."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, kernel_size=1)

    def forward(self, grid: Tensor) -> Tensor:
        """(N, I, h, w) -> (N, O, h, w)."""
        return _at_each_place(self, grid)


class Pointwise3d(KeepsFilters, nn.Conv3d):
    """A ``Conv3d`` of size 1, with the same parameters."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, kernel_size=1)

    def forward(self, grid: Tensor) -> Tensor:
        """(N, I, l, l, l) -> (N, O, l, l, l)."""
        return _at_each_place(self, grid)
