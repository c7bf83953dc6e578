"""3 x 3 convolutions with a quarter of the multiplications: Winograd's minimal filtering, F(4 x 4, 3 x 3).

A tile of 4 x 4 results takes 36 products for each pair of channels instead of 144 (Lavin and Gray 2016, *Fast
Algorithms for Convolutional Neural Networks*). They are 36 matrix products of all tiles at once; what goes before and
after them are loops over memory (:mod:`nr_tracking.loops.winograd`). Of three dimensions, two go through tiles, and the
slices before and behind are added up. Results are a few millionths of the largest off those of a plain convolution.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
    """Weights (O, I, 3, 3) or (O, I, K, 3, 3), K = 3, at the 36 points of a tile, by slice: (K, 36, I, O)."""
    slices = weight.detach().double().reshape(*weight.shape[:2], -1, 3, 3)
    g = torch.from_numpy(_G)
    return torch.einsum("ay,bx,oizyx->zabio", g, g, slices).flatten(1, 2).to(weight.dtype).contiguous()


def convolved(loops: Any, grid: Tensor, at_points: Tensor, bias: Tensor | None) -> Tensor:
    """``grid`` (N, I, H, W) or (N, I, D, H, W) with zeros around, convolved: (N, O, ...), channels last in memory.

    ``at_points`` are the weights' :func:`filters`, ``loops`` those of :mod:`nr_tracking.loops.winograd`.
    """
    images = grid.movedim(1, -1).contiguous()
    found = grid.new_empty(*images.shape[:-1], at_points.shape[-1])
    shift = found.new_zeros(found.shape[-1]) if bias is None else bias.detach()
    frames = [(images, found)] if grid.dim() == 4 else zip(images, found, strict=True)
    for slices, into in frames:
        _convolve(loops, slices, at_points, shift, into)
    return found.movedim(-1, 1)


def _convolve(loops: Any, slices: Tensor, at_points: Tensor, shift: Tensor, found: Tensor) -> None:
    """``slices`` (D, H, W, I), each with those before and behind it if K is 3, into ``found`` (D, H, W, O)."""
    count, (depth, _, inputs, outputs) = slices.shape[:3].numel() // 16, at_points.shape
    each = count // len(slices)
    before = depth // 2 * each
    tiles = _scratch("tiles", (36, count + 2 * before, inputs))
    products = _scratch("products", (36, count, outputs))
    tiles[:, :before] = tiles[:, before + count :] = 0
    loops.into_tiles(slices.numpy(), tiles[:, before : before + count].numpy())
    torch.bmm(tiles[:, :count], at_points[0], out=products)
    for k in range(1, depth):
        products.baddbmm_(tiles[:, k * each : k * each + count], at_points[k])
    loops.from_tiles(products.numpy(), shift.numpy(), found.numpy())


def _scratch(name: str, shape: tuple[int, ...]) -> Tensor:
    """Memory of this thread, single precision, that holds anything, until it is asked for by the same name again."""
    kept, size = getattr(_SCRATCH, name, None), math.prod(shape)
    if kept is None or len(kept) < size:
        with torch.inference_mode(False):  # or it could not be written to outside of that mode
            kept = torch.empty(size, dtype=torch.float32)
        setattr(_SCRATCH, name, kept)
    return kept[:size].view(shape)
