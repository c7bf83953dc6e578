"""The optional CUDA backend of the 3x3x3 submanifold convolution: spconv, where it can be imported.

It is never used on the CPU, where spconv's results depend on the threads. The weights stay in this package's layout
(27, I, O); spconv's own is (O, 3, 3, 3, I).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from nr_tracking.fields.sparse import SparseGrid


@lru_cache(maxsize=1)
def _library() -> Any:
    """The PyTorch module of spconv, or None where it is not installed or does not load."""
    try:
        import spconv.pytorch as spconv
    except ImportError:
        return None
    return spconv


def usable(features: Tensor) -> bool:
    """Whether ``features`` live where spconv is the faster and a correct way."""
    return features.is_cuda and features.shape[0] > 0 and _library() is not None


def submanifold(features: Tensor, weight: Tensor, grid: SparseGrid) -> Tensor:
    """3x3x3 submanifold convolution of ``features`` (M, I) with ``weight`` (27, I, O) on ``grid`` -> (M, O)."""
    spconv = _library()
    inputs, outputs = weight.shape[1:]
    tensor = spconv.SparseConvTensor(
        features.contiguous(),
        grid.coords.contiguous(),
        [grid.resolution] * 3,
        grid.frames,
        indice_dict=grid.spconv_indices,
    )
    layer = spconv.SubMConv3d(inputs, outputs, 3, bias=False, indice_key="neighbours").to(features.device)
    del layer.weight  # a plain tensor takes its place, so that gradients reach the caller's parameter
    layer.weight = weight.reshape(3, 3, 3, inputs, outputs).permute(4, 0, 1, 2, 3).contiguous()
    return layer(tensor).features
