"""Dense convolutions, sooner than PyTorch does them by itself on a CPU, for networks that learn no more.

Those of size 3 go through tiles (:mod:`nr_tracking.fields.winograd`) where loops are compiled. What is left in three
dimensions goes to oneDNN: PyTorch asks that by itself only if an input is large or has several frames, and else has an
operation of its own, which takes three times as long for a latent grid. All of it in single precision; elsewhere, and
where gradients are wanted, all is as usual.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nr_tracking.fields import winograd
from nr_tracking.loops import compiled_loops

_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch, "mkldnn_convolution")


class _Filters:
    """What is computed from weights before tiles are multiplied with them, until they are other ones."""

    def __init__(self) -> None:
        self._made: tuple[Tensor, int, Tensor] | None = None

    def of(self, weight: Tensor) -> Tensor:
        """The :func:`winograd.filters` of ``weight``."""
        made = self._made
        if made is None or made[0].data_ptr() != weight.data_ptr() or made[1] != weight._version:
            # Beside the weights themselves: while they are held, no others can come to lie where they lie.
            made = self._made = weight.detach(), weight._version, winograd.filters(weight)
        return made[2]


class DenseConv2d(nn.Conv2d):
    """A ``Conv2d`` with the same parameters."""

    def __init__(self, inputs: int, outputs: int, **options: int | bool) -> None:
        super().__init__(inputs, outputs, **options)  # type: ignore[arg-type]
        self._filters = _Filters()

    def forward(self, grid: Tensor) -> Tensor:
        """(N, I, h, w) -> (N, O, h, w)."""
        found = _through_tiles(self, grid, self._filters) if _learns_no_more(self, grid) else None
        return super().forward(grid) if found is None else found


class DenseConv3d(nn.Conv3d):
    """A ``Conv3d`` with the same parameters."""

    def __init__(self, inputs: int, outputs: int, **options: int | bool) -> None:
        super().__init__(inputs, outputs, **options)  # type: ignore[arg-type]
        self._filters = _Filters()

    def forward(self, grid: Tensor) -> Tensor:
        """(N, I, d, h, w) -> (N, O, d, h, w)."""
        padding = self.padding
        if isinstance(padding, str) or not _learns_no_more(self, grid):
            return super().forward(grid)
        if (found := _through_tiles(self, grid, self._filters)) is not None:
            return found
        if not (_HAS_ONEDNN and torch.backends.mkldnn.enabled):
            return super().forward(grid)
        return torch.mkldnn_convolution(grid, self.weight, self.bias, padding, self.stride, self.dilation, self.groups)


def _learns_no_more(layer: nn.Conv2d | nn.Conv3d, grid: Tensor) -> bool:
    """Whether this is a batch in single precision on a CPU, where nothing is learnt."""
    return (
        grid.device.type == "cpu"
        and grid.dtype == layer.weight.dtype == torch.float32
        and grid.ndim == layer.weight.ndim
        and layer.padding_mode == "zeros"
        and not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"))
    )


def _through_tiles(layer: nn.Conv2d | nn.Conv3d, grid: Tensor, filters: _Filters) -> Tensor | None:
    """The convolution of ``grid`` by Winograd's tiles; None where it is of another kind, or too small for it."""
    ones = (1,) * (grid.dim() - 2)
    of_size_3 = layer.kernel_size == (3,) * len(ones) and layer.stride == layer.padding == layer.dilation == ones
    if not (of_size_3 and layer.groups == 1 and winograd.suits(grid)):
        return None
    if (loops := compiled_loops("winograd")) is None:
        return None
    return winograd.convolved(loops, grid, filters.of(layer.weight), layer.bias)
