"""The optional CUDA backend of the 3x3x3 submanifold convolution: spconv, where it can be imported.

It is never used on the CPU, where spconv's results depend on the threads. Weights stay in this package's layout
(27, I, O); spconv's own is (O, 3, 3, 3, I). It computes in float32: spconv knows no bfloat16, and under autocast it
would take float16, whose range the features were not trained for.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from nr_tracking.fields.sparse import SparseGrid


@lru_cache(maxsize=1)
def _library() -> Any:
    """The PyTorch module of spconv, or None where it is not installed or does not load."""
    try:
        import spconv.pytorch as spconv
    except ModuleNotFoundError:
        return None
    except Exception as error:  # it loads compiled libraries, which fail in many ways on a foreign CUDA
        logging.getLogger(__name__).warning("spconv does not load, the plain convolution is used instead: %s", error)
        return None
    return spconv


def usable(features: Tensor) -> bool:
    """Whether ``features`` live where spconv is the faster and a correct way."""
    return features.is_cuda and features.shape[0] > 0 and _library() is not None


def submanifold(features: Tensor, weight: Tensor, grid: SparseGrid) -> Tensor:
    """3x3x3 submanifold convolution of ``features`` (M, I) with ``weight`` (27, I, O) on ``grid`` -> (M, O)."""
    spconv = _library()
    inputs, outputs = weight.shape[1:]
    with torch.random.fork_rng(devices=[]):  # the layer draws weights that are never used
        layer = spconv.SubMConv3d(inputs, outputs, 3, bias=False, indice_key="neighbours").to(features.device)
    del layer.weight  # a plain tensor takes its place, so that gradients reach the caller's parameter
    layer.weight = weight.float().reshape(3, 3, 3, inputs, outputs).permute(4, 0, 1, 2, 3).contiguous()
    with torch.autocast(features.device.type, enabled=False):
        tensor = spconv.SparseConvTensor(
            features.float().contiguous(),
            grid.coords.contiguous(),
            [grid.resolution] * 3,
            grid.frames,
            indice_dict=dict(grid.spconv_indices),
        )
        result = layer(tensor)
    grid.spconv_indices.update(result.indice_dict)
    return result.features.to(features.dtype)
