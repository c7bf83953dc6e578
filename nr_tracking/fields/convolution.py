"""Dense convolutions, sooner than PyTorch does them by itself on a CPU, for networks that learn no more.

In single precision those of size 3 go through tiles (:mod:`nr_tracking.fields.winograd`) where loops are compiled. What
is left in three dimensions goes to oneDNN: PyTorch asks that by itself only if an input is large or has several frames,
and else has an operation of its own, which takes three times as long for a latent grid. In bfloat16 weights are brought
into the order that oneDNN multiplies in once, instead of at each call, which takes up to twice as long as to multiply.
Elsewhere, and where gradients are wanted, all is as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self, cast

import torch
from torch import Tensor, nn

from nr_tracking.fields import winograd
from nr_tracking.loops import compiled_loops
from nr_tracking.sensing.tensors import cpu_has_bfloat16

_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch, "mkldnn_convolution")
# What PyTorch's own compiler calls; it documents no other way to keep weights in order.
_PACKS = _HAS_ONEDNN and all(
    hasattr(torch.ops.mkldnn, name) for name in ("_reorder_convolution_weight", "_convolution_pointwise")
)


class _Filters:
    """What is computed from weights before anything is multiplied with them, until they are other ones.

    Changes that PyTorch does not count, of ``weight.data`` in place or by a fused optimiser, are not seen before
    ``train()`` is called. Copies begin anew.
    """

    def __init__(self) -> None:
        self._made: tuple[Tensor, int, Tensor] | None = None

    def __reduce__(self) -> tuple[type[_Filters], tuple[()]]:
        return _Filters, ()

    def of(self, weight: Tensor, made_of: Callable[[Tensor], Tensor]) -> Tensor:
        """``made_of(weight)``; a layer asks for one kind alone."""
        made = self._made
        if made is None or made[0].data_ptr() != weight.data_ptr() or made[1] != weight._version:
            # Beside the weights themselves: while they are held, no others can come to lie where they lie.
            made = self._made = weight.detach(), weight._version, made_of(weight)
        return made[2]


class _Dense(nn.Module):
    """A convolution that keeps its filters."""

    def __init__(self, inputs: int, outputs: int, **options: int | bool) -> None:
        super().__init__(inputs, outputs, **options)
        self._filters = _Filters()

    def train(self, mode: bool = True) -> Self:
        """As of any module; what was computed from the weights is forgotten."""
        self._filters = _Filters()
        return super().train(mode)


class DenseConv2d(_Dense, nn.Conv2d):
    """A ``Conv2d`` with the same parameters."""

    def forward(self, grid: Tensor) -> Tensor:
        """(N, I, h, w) -> (N, O, h, w)."""
        found = _sooner(self, grid, self._filters)
        return super().forward(grid) if found is None else found


class DenseConv3d(_Dense, nn.Conv3d):
    """A ``Conv3d`` with the same parameters."""

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


def _sooner(layer: nn.Conv2d | nn.Conv3d, grid: Tensor, filters: _Filters) -> Tensor | None:
    """The convolution of ``grid`` with what is kept of the weights; None where that is of no use."""
    if _is_brief(layer, grid):
        return _packed(layer, grid, filters)
    return _through_tiles(layer, grid, filters) if _learns_no_more(layer, grid) else None


def _only_asked(layer: nn.Conv2d | nn.Conv3d, grid: Tensor) -> bool:
    """Whether this is a batch for the layer on a CPU, where nothing is learnt."""
    return (
        grid.device.type == "cpu"
        and grid.ndim == layer.weight.ndim
        and grid.shape[1] == layer.in_channels
        and layer.padding_mode == "zeros"
        and not torch.is_grad_enabled()
    )


def _learns_no_more(layer: nn.Conv2d | nn.Conv3d, grid: Tensor) -> bool:
    """Whether it is one in single precision."""
    single = grid.dtype == layer.weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return single and _only_asked(layer, grid)


def _through_tiles(layer: nn.Conv2d | nn.Conv3d, grid: Tensor, filters: _Filters) -> Tensor | None:
    """The convolution of ``grid`` by Winograd's tiles; None where it is of another kind, or too small for it."""
    ones = (1,) * (grid.dim() - 2)
    of_size_3 = layer.kernel_size == (3,) * len(ones) and layer.stride == layer.padding == layer.dilation == ones
    if not (of_size_3 and layer.groups == 1 and winograd.suits(grid)) or layer.weight.is_inference():
        return None
    if (loops := compiled_loops("winograd")) is None:
        return None
    return winograd.convolved(loops, grid, filters.of(layer.weight, winograd.filters), layer.bias)


def _is_brief(layer: nn.Conv2d | nn.Conv3d, grid: Tensor) -> bool:
    """Whether it is one for weights that are held in bfloat16, which this processor multiplies."""
    held = layer.weight.dtype == torch.bfloat16 and not layer.weight.is_inference()
    asked = grid.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
    able = _PACKS and bool(torch.backends.mkldnn.enabled) and cpu_has_bfloat16()
    return held and asked and able and not isinstance(layer.padding, str) and _only_asked(layer, grid)


def _packed(layer: nn.Conv2d | nn.Conv3d, grid: Tensor, filters: _Filters) -> Tensor:
    """The convolution of ``grid`` in bfloat16, with weights in oneDNN's order."""
    shape = cast(tuple[int, ...], layer.padding), layer.stride, layer.dilation, layer.groups
    grid = grid.bfloat16()
    order = torch.ops.mkldnn._reorder_convolution_weight
    weight = filters.of(layer.weight, lambda weight: order(weight.detach(), *shape, list(grid.shape)))
    bias = None if layer.bias is None else layer.bias.bfloat16()
    found: Tensor = torch.ops.mkldnn._convolution_pointwise(grid, weight, bias, *shape, "none", [], "")
    return found
