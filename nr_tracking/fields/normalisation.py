"""Group normalisation followed by a ReLU, which is how every dense convolution here is followed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nr_tracking.sensing.tensors import loops_for


class NormReLU(nn.GroupNorm):
    """relu(norm(x)), or relu(norm(x) + y), with the parameters of a ``GroupNorm`` (Wu and He 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__(norm_groups(channels), channels)

    def forward(self, grid: Tensor, beside: Tensor | None = None) -> Tensor:
        """``grid`` and ``beside`` (N, C, ...) -> (N, C, ...)."""
        loops = loops_for("normalisation", grid, self.weight, self.bias, *(() if beside is None else (beside,)))
        fits = grid.dim() > 2 and grid.shape[1] == self.num_channels and (beside is None or beside.shape == grid.shape)
        if loops is None or not fits or torch.is_autocast_enabled("cpu"):
            normed = super().forward(grid)
            return functional.relu(normed if beside is None else normed + beside)
        rows = _rows(grid)
        others = rows[:0] if beside is None else _rows(beside)
        found = torch.empty_like(rows)
        weight, bias = (part.detach().numpy() for part in (self.weight, self.bias))
        loops.normalised(rows.numpy(), weight, bias, self.num_groups, self.eps, others.numpy(), found.numpy())
        return found.view(len(grid), *grid.shape[2:], self.num_channels).movedim(-1, 1)


def norm_relu(channels: int) -> tuple[nn.Module, nn.Module]:
    """A :class:`NormReLU` for a ``Sequential``, and what keeps the number that an activation of its own had there."""
    return NormReLU(channels), nn.Identity()


def norm_groups(channels: int) -> int:
    """Groups of a GroupNorm: the largest of 8, 4, 2, 1 that divides ``channels`` into groups of four or more."""
    return next((groups for groups in (8, 4, 2) if channels % groups == 0 and channels // groups >= 4), 1)


def _rows(grid: Tensor) -> Tensor:
    """A grid (N, C, ...) as (N, P, C)."""
    return grid.movedim(1, -1).contiguous().flatten(1, -2)
