"""Dense convolutions of a single frame, as fast as those of many.

On a CPU without bfloat16, PyTorch gives a convolution to oneDNN only if its input is large or has several frames, and
else to one of its own, which takes three times as long for a latent grid: 69 instead of 25 ms for the dense decoder of
``base``. But a window that goes on by one frame has one frame to complete. What is asked here is the operation that
PyTorch itself would go on to; where it is not to be had, or does not suit, all is as usual.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch, "mkldnn_convolution")


class DenseConv3d(nn.Conv3d):
    """A ``Conv3d`` with the same parameters."""

    def forward(self, grid: Tensor) -> Tensor:
        """(N, I, ...) -> (N, O, ...)."""
        padding = self.padding
        if isinstance(padding, str) or not self._suits_onednn(grid):
            return super().forward(grid)
        return torch.mkldnn_convolution(grid, self.weight, self.bias, padding, self.stride, self.dilation, self.groups)

    def _suits_onednn(self, grid: Tensor) -> bool:
        """Whether oneDNN can be asked straight away: single precision on a CPU, where nothing is learnt."""
        return (
            _HAS_ONEDNN
            and bool(torch.backends.mkldnn.enabled)
            and grid.device.type == "cpu"
            and grid.dtype == self.weight.dtype == torch.float32
            and grid.ndim == 5
            and self.padding_mode == "zeros"
            and not (torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"))
        )
