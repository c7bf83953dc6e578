"""Depth to space: each cell of a grid becomes 2 x 2 rays, which is the end of the network that completes along rays."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nr_tracking.sensing.tensors import as_array, loops_with_gradients, recorded


def four_rays_each(places: Tensor, bias: Tensor, scale: float) -> Tensor:
    """``scale`` times the sum of ``places`` (N, h, w, 4 D) and ``bias`` (4 D,), as rays (N, 2 h, 2 w, D).

    They have the type of the bias. The four pixels of a place lie one after the other, row by row, with the depths of a
    pixel side by side.
    """
    if (loops := loops_with_gradients("quarters", places, bias)) is not None:
        given = loops, places.contiguous(), bias.contiguous(), scale
        return _Looped.apply(*given) if recorded(places, bias) else _looped(*given)  # type: ignore[no-any-return]
    frames, height, width, channels = places.shape
    steps = channels // 4
    quarters = places.unflatten(3, (2, 2, steps)).transpose(2, 3).to(bias.dtype)
    rays = (quarters + bias.reshape(2, 1, 2, steps)).mul_(scale)
    return rays.reshape(frames, 2 * height, 2 * width, steps)


def _looped(loops: Any, places: Tensor, bias: Tensor, scale: float) -> Tensor:
    """:mod:`nr_tracking.loops.quarters`."""
    frames, height, width, channels = places.shape
    rays = bias.new_empty((frames, 2 * height, 2 * width, channels // 4))
    loops.spread(as_array(places), as_array(bias), scale, as_array(rays))
    return rays


class _Looped(torch.autograd.Function):
    """:func:`_looped` with gradients."""

    @staticmethod
    def forward(context: Any, loops: Any, places: Tensor, bias: Tensor, scale: float) -> Tensor:
        context.loops, context.scale, context.places = loops, scale, (places.shape, places.dtype)
        return _looped(loops, places, bias, scale)

    @staticmethod
    @once_differentiable
    def backward(context: Any, change: Tensor) -> tuple[Tensor | None, ...]:
        shape, dtype = context.places
        of_places = change.new_empty(shape, dtype=dtype)
        of_bias = context.loops.gathered(as_array(change.contiguous()), context.scale, as_array(of_places))
        return None, of_places, torch.from_numpy(of_bias), None
