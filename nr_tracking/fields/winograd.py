"""3 x 3 convolutions with a quarter of the multiplications: Winograd's minimal filtering, F(4 x 4, 3 x 3).

A tile of 4 x 4 results takes 36 products for each pair of channels instead of 144 (Lavin and Gray 2016, *Fast
Algorithms for Convolutional Neural Networks*). They are 36 matrix products of all tiles at once; what goes before and
after them are loops over memory (:mod:`nr_tracking.loops.winograd`). Of three dimensions, two go through tiles, and the
slices before and behind are added up. Results are a few millionths of the largest off those of a plain convolution.
"""

from __future__ import annotations

import math
import threading
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nr_tracking.fields.products import multiplied, panels
from nr_tracking.types import Int32

LEAST_CHANNELS = 32  # with fewer, making tiles takes longer than it saves
LEAST_ROWS = 16  # of each matrix product: with fewer, reading 36 matrices takes longer than a plain convolution
_SCRATCH = threading.local()  # memory between the steps: to get it anew would take as long as they do
_G = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24


def suits(grid: Tensor) -> bool:
    """Whether a (N, I, H, W) or (N, I, D, H, W) has whole tiles, and enough of them for this to pay."""
    together = grid.shape[2] if grid.dim() == 5 else grid.shape[0]  # slices of a frame, or all images
    height, width = grid.shape[-2:]
    enough = grid.shape[1] >= LEAST_CHANNELS and together * height * width >= 16 * LEAST_ROWS
    return enough and len(grid) > 0 and height % 4 == width % 4 == 0


def filters(weight: Tensor) -> Tensor:
    """Weights (O, I, 3, 3) or (O, I, K, 3, 3), K = 3, at the 36 points of a tile: :func:`panels` of (36, K I, O)."""
    slices = weight.detach().double().reshape(*weight.shape[:2], -1, 3, 3)
    g = torch.from_numpy(_G)
    at_points = torch.einsum("ay,bx,oizyx->abzio", g, g, slices).to(weight.dtype)
    return panels(at_points.flatten(2, 3).flatten(0, 1))


def convolved(loops: tuple[Any, Any], grid: Tensor, at_points: Tensor, bias: Tensor | None, outputs: int) -> Tensor:
    """``grid`` (N, I, H, W) or (N, I, D, H, W) with zeros around, convolved: (N, O, ...), channels last in memory.

    ``at_points`` are the :func:`filters` of weights with O ``outputs``; ``loops`` are those named ``winograd`` and
    ``products``.
    """
    images = grid.movedim(1, -1).contiguous()
    found = grid.new_empty(*images.shape[:-1], outputs)
    shift = found.new_zeros(outputs) if bias is None else bias.detach()
    frames = [(images, found)] if grid.dim() == 4 else zip(images, found, strict=True)
    slices_each = 1 if grid.dim() == 4 else 3
    for slices, into in frames:
        _convolve(loops, slices, at_points, shift, slices_each, into)
    return found.movedim(-1, 1)


def _convolve(
    loops: tuple[Any, Any], slices: Tensor, at_points: Tensor, shift: Tensor, depth: int, found: Tensor
) -> None:
    """``slices`` (D, H, W, I), each with those before and behind it if ``depth`` is 3, into ``found`` (D, H, W, O)."""
    count, inputs, outputs = slices.shape[:3].numel() // 16, slices.shape[3], found.shape[3]
    tiles, products = _scratch("tiles", (36, count, inputs)), _scratch("products", (36, count, outputs))
    loops[0].into_tiles(slices.numpy(), tiles.numpy())
    multiplied(loops[1], tiles, _tiles_of(len(slices), count, depth), at_points, None, products)
    loops[0].from_tiles(products.numpy(), shift.numpy(), found.numpy())


@lru_cache(maxsize=64)
def _tiles_of(slices: int, count: int, depth: int) -> Int32:
    """Which of ``count`` tiles in so many slices are added up in each, those beside it among them: (M, K) int32."""
    places = np.arange(count)[:, None] + (np.arange(depth) - depth // 2) * (count // slices)
    return np.where((places >= 0) & (places < count), places, count).astype(np.int32)


def _scratch(name: str, shape: tuple[int, ...]) -> Tensor:
    """Memory of this thread, single precision, that holds anything, until it is asked for by the same name again."""
    kept, size = getattr(_SCRATCH, name, None), math.prod(shape)
    if kept is None or len(kept) < size:
        with torch.inference_mode(False):  # or it could not be written to outside of that mode
            kept = torch.empty(size, dtype=torch.float32)
        setattr(_SCRATCH, name, kept)
    return kept[:size].view(shape)
