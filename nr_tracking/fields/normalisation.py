"""Group normalisation followed by a ReLU, which is how every dense convolution here is followed.

Compiled loops do both, and the sum between, in two passes; gradients too where a network learns in bfloat16, for which
PyTorch's own take as long as all of the convolutions.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from nr_tracking.sensing.tensors import as_array, loops_with_gradients, recorded
from nr_tracking.types import Float32


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
        places = grid.movedim(1, -1).contiguous()
        others = places[:0] if beside is None else beside.movedim(1, -1).contiguous()
        given = loops, places, self.weight, self.bias, self.num_groups, self.eps, others
        if recorded(places, self.weight, self.bias, others):
            return _Looped.apply(*given).movedim(-1, 1)  # type: ignore[no-any-return]
        return _looped(*given)[0].movedim(-1, 1)

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


def _looped(
    loops: Any, places: Tensor, weight: Tensor, bias: Tensor, groups: int, epsilon: float, others: Tensor
) -> tuple[Tensor, Float32]:
    """:mod:`nr_tracking.loops.normalisation` on places (N, ..., C), plus others alike or none; with its moments."""
    found = torch.empty_like(places)
    scale, shift = as_array(weight), as_array(bias)
    return found, loops.normalised(_rows(places), scale, shift, groups, epsilon, _rows(others), _rows(found))


class _Looped(torch.autograd.Function):
    """:func:`_looped` with gradients."""

    @staticmethod
    def forward(context: Any, loops: Any, places: Tensor, weight: Tensor, *others: Any) -> Tensor:
        found, moments = _looped(loops, places, weight, *others)
        context.loops, context.moments, context.has_others = loops, moments, len(others[-1]) > 0
        context.save_for_backward(places, weight, found)
        return found

    @staticmethod
    @once_differentiable
    def backward(context: Any, change: Tensor) -> tuple[Tensor | None, ...]:
        places, weight, found = context.saved_tensors
        of_places = torch.empty_like(places)
        of_others = torch.empty_like(places) if context.has_others else places[:0]
        given = _rows(change.contiguous()), _rows(found), _rows(places), as_array(weight), context.moments
        of_weight, of_bias = context.loops.gradients(*given, _rows(of_places), _rows(of_others))
        beside = of_others if context.has_others else None
        return None, of_places, torch.from_numpy(of_weight), torch.from_numpy(of_bias), None, None, beside


def _rows(places: Tensor) -> NDArray[Any]:
    """Places (N, ..., C) as loops read them: (N, P, C)."""
    shape = places.shape
    return as_array(places).reshape(shape[0], math.prod(shape[1:-1]), shape[-1])
