"""Group normalisation followed by a ReLU, which is how every dense convolution here is followed.

Compiled loops do both, and the sum between, in two passes; gradients too where a network learns in bfloat16, for which
PyTorch's own take as long as all of the convolutions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from nr_tracking.sensing.tensors import as_array, loops_with_gradients


class NormReLU(nn.GroupNorm):
    """relu(norm(x)), or relu(norm(x) + y), with the parameters of a ``GroupNorm`` (Wu and He 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__(norm_groups(channels), channels)

    def forward(self, grid: Tensor, beside: Tensor | None = None) -> Tensor:
        """``grid`` and ``beside`` (N, C, ...) -> (N, C, ...)."""
        loops = loops_with_gradients("normalisation", grid, self.weight, self.bias)
        if loops is None or not self._fits(grid, beside):
            normed = super().forward(grid)
            return functional.relu(normed if beside is None else normed + beside)
        rows = _rows(grid)
        others = rows[:0] if beside is None else _rows(beside)
        found: Tensor = _Looped.apply(loops, rows, self.weight, self.bias, self.num_groups, self.eps, others)
        return found.view(len(grid), *grid.shape[2:], self.num_channels).movedim(-1, 1)

    def _fits(self, grid: Tensor, beside: Tensor | None) -> bool:
        if grid.dim() < 3 or grid.shape[1] != self.num_channels:
            return False
        return beside is None or (beside.shape == grid.shape and beside.dtype == grid.dtype)


def norm_relu(channels: int) -> tuple[nn.Module, nn.Module]:
    """A :class:`NormReLU` for a ``Sequential``, and what keeps the number that an activation of its own had there."""
    return NormReLU(channels), nn.Identity()


def norm_groups(channels: int) -> int:
    """Groups of a GroupNorm: the largest of 8, 4, 2, 1 that divides ``channels`` into groups of four or more."""
    return next((groups for groups in (8, 4, 2) if channels % groups == 0 and channels // groups >= 4), 1)


class _Looped(torch.autograd.Function):
    """:mod:`nr_tracking.loops.normalisation` on rows (N, P, C), plus others alike or none."""

    @staticmethod
    def forward(
        context: Any, loops: Any, rows: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, others: Tensor
    ) -> Tensor:
        found = torch.empty_like(rows)
        grid, scale, shift, beside, into = (as_array(part) for part in (rows, weight, bias, others, found))
        moments = loops.normalised(grid, scale, shift, groups, eps, beside, into)
        context.loops, context.moments, context.has_others = loops, moments, len(others) > 0
        context.save_for_backward(rows, weight, found)
        return found

    @staticmethod
    @once_differentiable
    def backward(context: Any, change: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, found = context.saved_tensors
        of_rows = torch.empty_like(rows)
        of_others = torch.empty_like(rows) if context.has_others else rows[:0]
        arrays = [as_array(part) for part in (change.contiguous(), found, rows, weight)]
        of_weight, of_bias = context.loops.gradients(*arrays, context.moments, as_array(of_rows), as_array(of_others))
        beside = of_others if context.has_others else None
        return None, of_rows, torch.from_numpy(of_weight), torch.from_numpy(of_bias), None, None, beside


def _rows(grid: Tensor) -> Tensor:
    """A grid (N, C, ...) as (N, P, C)."""
    return grid.movedim(1, -1).contiguous().flatten(1, -2)
