"""Dense convolutions that run faster on a CPU than PyTorch's own, for inference.

In single precision, where loops are compiled, those of size 3 go through tiles (:mod:`nr_tracking.fields.winograd`) and
others are sums over places (:mod:`nr_tracking.fields.products`). What is left in three dimensions goes to oneDNN:
PyTorch asks that by itself only if an input is large or has several frames, and else has an operation of its own, which
takes three times as long for a latent grid. In bfloat16 weights are brought into the order that oneDNN multiplies in
once, instead of at each call, which takes up to twice as long as to multiply. Elsewhere, and where gradients are
wanted, all is as usual.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from nr_tracking.fields import winograd
from nr_tracking.fields.filters import Filters, KeepsFilters
from nr_tracking.fields.products import loops_for_products, multiplied, panels, places_around
from nr_tracking.loops import compiled_loops
from nr_tracking.sensing.tensors import cpu_has_bfloat16
from nr_tracking.types import Int32

_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch, "mkldnn_convolution")
# What PyTorch's own compiler calls; it documents no other way to keep weights in order.
_PACKS = _HAS_ONEDNN and all(
    hasattr(torch.ops.mkldnn, name) for name in ("_reorder_convolution_weight", "_convolution_pointwise")
)


class DenseConv2d(KeepsFilters, nn.Conv2d):
    """A ``Conv2d`` with the same parameters."""

    def forward(self, grid: Tensor) -> Tensor:
        """(N, I, h, w) -> (N, O, h, w)."""
        found = _sooner(self, grid, self._filters)
        return super().forward(grid) if found is None else found


class DenseConv3d(KeepsFilters, nn.Conv3d):
    """A ``Conv3d`` with the same parameters.

    Its first ``scattered`` channels are zero in most cells, and are multiplied only in those where they are not.
    """

    def __init__(self, *of: Any, scattered: int = 0, **options: Any) -> None:
        super().__init__(*of, **options)
        self.scattered = scattered

    def forward(self, grid: Tensor) -> Tensor:
        """(N, I, d, h, w) -> (N, O, d, h, w)."""
        padding = self.padding
        if (found := _sooner(self, grid, self._filters)) is not None:
            return found
        if isinstance(padding, str) or not _learns_no_more(self, grid):
            return super().forward(grid)
        if not (_HAS_ONEDNN and torch.backends.mkldnn.enabled):
            return super().forward(grid)
        return torch.mkldnn_convolution(grid, self.weight, self.bias, padding, self.stride, self.dilation, self.groups)


def _sooner(layer: nn.Conv2d | nn.Conv3d, grid: Tensor, filters: Filters) -> Tensor | None:
    """The convolution of ``grid`` by the fastest method that applies; None where PyTorch's own is to run."""
    if _is_brief(layer, grid):
        return _packed(layer, grid, filters)
    if not _learns_no_more(layer, grid):
        return None
    found = _through_tiles(layer, grid, filters)
    return _from_places(layer, grid, filters) if found is None else found


def _only_asked(layer: nn.Conv2d | nn.Conv3d, grid: Tensor) -> bool:
    """Whether ``grid`` is a batch that suits the layer, on a CPU and without gradients."""
    return (
        grid.device.type == "cpu"
        and grid.ndim == layer.weight.ndim
        and grid.shape[1] == layer.in_channels
        and layer.padding_mode == "zeros"
        and not torch.is_grad_enabled()
    )


def _learns_no_more(layer: nn.Conv2d | nn.Conv3d, grid: Tensor) -> bool:
    """Whether this is inference on a CPU in single precision."""
    single = grid.dtype == layer.weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return single and _only_asked(layer, grid)


def _through_tiles(layer: nn.Conv2d | nn.Conv3d, grid: Tensor, filters: Filters) -> Tensor | None:
    """The convolution of ``grid`` by Winograd's tiles; None where it is of another kind, or too small for it."""
    ones = (1,) * (grid.dim() - 2)
    of_size_3 = layer.kernel_size == (3,) * len(ones) and layer.stride == layer.padding == layer.dilation == ones
    if not (of_size_3 and layer.groups == 1 and winograd.suits(grid)) or layer.weight.is_inference():
        return None
    loops, products = compiled_loops("winograd"), loops_for_products(layer.out_channels, grid, layer.weight)
    if loops is None or products is None:
        return None
    at_points = filters.of("tiles", layer.weight, winograd.filters)
    return winograd.convolved((loops, products), grid, at_points, layer.bias, layer.out_channels)


def _from_places(layer: nn.Conv2d | nn.Conv3d, grid: Tensor, filters: Filters) -> Tensor | None:
    """The convolution of ``grid`` as sums over places; None where there are no loops for it."""
    padding, dense = layer.padding, layer.groups == 1 and set(layer.dilation) == {1}
    loops = loops_for_products(layer.out_channels, grid, layer.weight)
    if loops is None or isinstance(padding, str) or not dense or len(grid) == 0:
        return None
    around = tuple(side + 2 * beside for side, beside in zip(grid.shape[2:], padding, strict=True))
    if any(side < size for side, size in zip(around, layer.kernel_size, strict=True)):
        return None
    places, sides = places_around(tuple(grid.shape[2:]), layer.kernel_size, layer.stride, padding)
    features = grid.movedim(1, -1).flatten(1, -2)
    found = grid.new_empty(len(grid), len(places), layer.out_channels)
    scattered = getattr(layer, "scattered", 0)
    weights = filters.of("places", layer.weight, lambda weight: _by_place(weight[:, scattered:]))
    multiplied(loops, features[..., scattered:], places, weights, layer.bias, found)
    if scattered:
        few = filters.of("scattered", layer.weight, lambda weight: _by_place(weight[:, :scattered]))
        for frame, into in zip(features[..., :scattered], found, strict=True):
            into += _of_scattered(loops, frame, places, few, layer.out_channels)
    return found.unflatten(1, sides).movedim(-1, 1)


def _of_scattered(loops: Any, features: Tensor, places: Int32, weights: Tensor, outputs: int) -> Tensor:
    """Sums (M, O) over ``places`` (M, T) of ``features`` (R, I), of which those that are zero count as absent."""
    there = np.append(features.numpy().any(axis=1), False)
    absent = np.int32(len(features))
    found = features.new_empty(1, len(places), outputs)
    multiplied(loops, features[None], np.where(there[places], places, absent), weights, None, found)
    return found[0]


def _by_place(weight: Tensor) -> Tensor:
    """Weights (O, I, ...) as :func:`panels` of what each place is multiplied with."""
    return panels(weight.movedim((0, 1), (-1, -2)).flatten(0, -2)[None])


def _is_brief(layer: nn.Conv2d | nn.Conv3d, grid: Tensor) -> bool:
    """Whether this is inference on a CPU with weights in bfloat16, which the processor multiplies in hardware."""
    held = layer.weight.dtype == torch.bfloat16 and not layer.weight.is_inference()
    asked = grid.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
    able = _PACKS and bool(torch.backends.mkldnn.enabled) and cpu_has_bfloat16()
    return held and asked and able and not isinstance(layer.padding, str) and _only_asked(layer, grid)


def _packed(layer: nn.Conv2d | nn.Conv3d, grid: Tensor, filters: Filters) -> Tensor:
    """The convolution of ``grid`` in bfloat16, with weights in oneDNN's order."""
    shape = cast(tuple[int, ...], layer.padding), layer.stride, layer.dilation, layer.groups
    grid = grid.bfloat16()
    order = torch.ops.mkldnn._reorder_convolution_weight
    weight = filters.of("onednn", layer.weight, lambda weight: order(weight.detach(), *shape, list(grid.shape)))
    bias = None if layer.bias is None else layer.bias.bfloat16()
    found: Tensor = torch.ops.mkldnn._convolution_pointwise(grid, weight, bias, *shape, "none", [], "")
    return found
