"""The 3x3x3 convolution on active voxels: neighbours gathered block by block, and multiplied while in the cache.

Its gradient with respect to the features is the same convolution with flipped and transposed weights: nothing is ever
scattered, so results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nr_tracking.fields.products import loops_for_products, multiplied, panels
from nr_tracking.loops import compiled_loops
from nr_tracking.sensing.tensors import as_array

CHUNK_BYTES = 27 << 16  # gathered at a time on a CPU: a block should still be in the cache when it is multiplied
CHUNK_CUDA = 1 << 18  # bounds the memory of one gathered block, nothing else
_MULTIPLE = 128  # rows: what fills up a product is half of that on average
_CHUNK_BFLOAT16 = 4 * _MULTIPLE  # rows: the block of the widest layer is 2.7 MB


def round_rows(count: int, features: Tensor) -> int:
    """How many rows to multiply where there are ``count``, so that sizes come again.

    For a product in bfloat16, oneDNN compiles a kernel for each size that is new to it, in more time than that takes.
    """
    return -(-count // _MULTIPLE) * _MULTIPLE if _compiles(features) else count


class NeighbourMatmul(torch.autograd.Function):
    """out[i] = bias + sum over k of features[neighbours[i, k]] @ weight[k], an absent neighbour counting as zero."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        neighbours: Tensor,
        ordered: Tensor | None = None,
    ) -> Tensor:
        """Shapes: features (M, I), weight (27, I, O), bias (O,) or none, neighbours (M, 27) int32 -> (M, O).

        ``ordered`` is the weight once more, as of :func:`panels_of_neighbours`, where :func:`multiplies_by_loops`.
        """
        ctx.save_for_backward(features, weight, neighbours)
        if ordered is not None:
            found = features.new_empty(len(features), weight.shape[2])
            multiplied(compiled_loops("products"), features[None], neighbours.numpy(), ordered, bias, found[None])
            return found
        matrix = weight.reshape(-1, weight.shape[2])
        count = features.shape[0]
        out = features.new_empty(round_rows(count, features), weight.shape[2])
        for rows, block in _gathered(features, neighbours):
            part = out[rows.start : rows.start + len(block)]
            if bias is None:
                torch.mm(block, matrix, out=part)
            else:  # while the part is in the cache
                torch.addmm(bias, block, matrix, out=part)
        return out if len(out) == count else out[:count]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        """One gather of the gradients serves both: a voxel is its neighbour's neighbour in the opposite direction."""
        features, weight, neighbours = ctx.saved_tensors
        inputs, outputs = weight.shape[1:]
        flipped = weight.flip(0).transpose(1, 2).reshape(-1, inputs)
        grad_features = torch.empty_like(features) if ctx.needs_input_grad[0] else None
        grad_weight = torch.zeros(inputs, 27 * outputs, dtype=torch.promote_types(weight.dtype, torch.float32))
        grad_weight = grad_weight.to(weight.device)
        for rows, rounded in _gathered(grad.contiguous(), neighbours):
            block = rounded[: rows.stop - rows.start]
            if grad_features is not None:
                torch.mm(block, flipped, out=grad_features[rows])
            grad_weight += features[rows].t() @ block
        grad_weight = grad_weight.view(inputs, 27, outputs).permute(1, 0, 2).flip(0).to(weight.dtype)
        return grad_features, grad_weight, grad.sum(0) if ctx.needs_input_grad[2] else None, None, None


def multiplies_by_loops(features: Tensor, weight: Tensor) -> bool:
    """Whether ``features`` are multiplied where they lie, in single precision on a CPU, without gathering them."""
    return loops_for_products(weight.shape[2], features.detach(), weight.detach()) is not None


def panels_of_neighbours(weight: Tensor) -> Tensor:
    """A weight (27, I, O) in the order of :func:`~nr_tracking.fields.products.panels`."""
    return panels(weight.flatten(0, 1)[None])


def with_absent(features: Tensor) -> Tensor:
    """``features`` (M, C) and a row of zeros, (M + 1, C): row M stands for a voxel that is not active."""
    return torch.cat([features, features.new_zeros(1, features.shape[1])])


def _compiles(features: Tensor) -> bool:
    return features.dtype == torch.bfloat16 and features.device.type == "cpu"


def _gathered(features: Tensor, neighbours: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield (rows, block) where block (B, 27 C) holds the features of the neighbours of these rows side by side.

    B is the number of rows or, as of :func:`round_rows`, more; a block is not to be kept.
    """
    if _compiles(features):
        yield from _gathered_rounded(features.contiguous(), neighbours)
        return
    padded = with_absent(features)
    row_bytes = 27 * features.shape[1] * features.element_size()
    chunk = CHUNK_CUDA if features.is_cuda else max(1, CHUNK_BYTES // row_bytes)
    for start in range(0, len(neighbours), chunk):
        rows = slice(start, min(start + chunk, len(neighbours)))
        block = padded.index_select(0, neighbours[rows].reshape(-1))
        yield rows, block.view(rows.stop - rows.start, 27 * features.shape[1])


def _gathered_rounded(features: Tensor, neighbours: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The same for a CPU and bfloat16, with rows of zeros at the end of a block, always in the same memory."""
    count, channels = len(neighbours), features.shape[1]
    loops = compiled_loops("neighbours")
    kept = features.new_empty(round_rows(min(_CHUNK_BFLOAT16, count), features), 27 * channels)
    padded = with_absent(features) if loops is None else features
    for start in range(0, count, _CHUNK_BFLOAT16):
        rows = slice(start, min(start + _CHUNK_BFLOAT16, count))
        around = neighbours[rows]
        block = kept[: round_rows(len(around), features)]
        if loops is None:
            block[: len(around)] = padded.index_select(0, around.reshape(-1)).view(len(around), -1)
            block[len(around) :] = 0
        else:
            loops.gather(as_array(padded), around.numpy(), as_array(block))
        yield rows, block
