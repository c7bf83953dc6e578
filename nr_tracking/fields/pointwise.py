"""Convolutions of size 1 as what they are: one matrix for all places.

PyTorch's own leave the order of memory with the channels last on a CPU without bfloat16, and everything after them has
to bring it back: a fourth of the dense decoder's time.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional


def at_each_place(grid: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """``grid`` (N, I, ...), ``weight`` (O, I, 1, ...), ``bias`` (O,) -> (N, O, ...), channels last in memory."""
    return functional.linear(grid.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)


class Pointwise2d(nn.Conv2d):
    """A ``Conv2d`` of size 1, with the same parameters."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, kernel_size=1)

    def forward(self, grid: Tensor) -> Tensor:
        """(N, I, h, w) -> (N, O, h, w)."""
        return at_each_place(grid, self.weight, self.bias)


class Pointwise3d(nn.Conv3d):
    """A ``Conv3d`` of size 1, with the same parameters."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, kernel_size=1)

    def forward(self, grid: Tensor) -> Tensor:
        """(N, I, l, l, l) -> (N, O, l, l, l)."""
        return at_each_place(grid, self.weight, self.bias)
