"""Convolutions as sums over places: compiled where they can be (:mod:`nr_tracking.loops.products`).

``found[m] = shift + sum over t of features[places[m, t]] @ weight[t]``, where places that are no row count as zero. A
sparse convolution has its neighbours as places, a dense one the pixels around each pixel, and a layer of size 1 each
row itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nr_tracking.fields.filters import Filters
from nr_tracking.loops import compiled_loops
from nr_tracking.sensing.tensors import FEW_THREADS, loops_for
from nr_tracking.types import Int32

# Where PyTorch's own products hold sixteen numbers in a register, they are as good for rows that lie in order.
_ROWS_PAY = torch.backends.cpu.get_cpu_capability() != "AVX512"
_COUNTED = threading.local()


def loops_for_products(outputs: int, *tensors: Tensor) -> Any | None:
    """The compiled loops that multiply ``tensors`` with weights of so many columns; None where PyTorch has to."""
    loops = loops_for("products", *tensors) if torch.get_num_threads() <= FEW_THREADS else None
    return loops if loops is not None and outputs % loops.LANES == 0 else None


def panels(weight: Tensor) -> Tensor:
    """Weights (B, K, O) in the order that loops multiply them in, (B, K O)."""
    loops: Any = compiled_loops("products")
    strips, column, outputs = [], 0, weight.shape[2]
    while column < outputs:
        width = loops.LANES * loops.vectors_of_panel((outputs - column) // loops.LANES)
        strips.append(weight[:, :, column : column + width].flatten(1))
        column += width
    return torch.cat(strips, dim=1).contiguous()


def multiplied(loops: Any, features: Tensor, places: Int32, weights: Tensor, shift: Tensor | None, out: Tensor) -> None:
    """Into ``out`` (B, M, O): ``features`` (B, R, I) at ``places`` (M, T), by ``weights`` as of :func:`panels`.

    ``shift`` (O,) is added. Raises RuntimeError, as PyTorch's own products do, where these do not fit together.
    """
    (batch, _, inputs), (count, taps), outputs = features.shape, places.shape, out.shape[2]
    wanted = (batch, count, outputs), taps * inputs * outputs
    if (tuple(out.shape), weights.shape[1]) != wanted or len(weights) not in (1, batch) or places.dtype != np.int32:
        raise RuntimeError(
            f"rows {tuple(features.shape)} at places {places.shape} {places.dtype} by weights {tuple(weights.shape)} "
            f"do not fit into {tuple(out.shape)}"
        )
    if (counted := getattr(_COUNTED, "operations", None)) is not None:
        counted[0] += 2 * out.numel() * taps * inputs
    shift = out.new_zeros(outputs) if shift is None else shift.detach().contiguous()
    if shift.shape != (outputs,) or shift.dtype != torch.float32:
        raise RuntimeError(f"a shift {tuple(shift.shape)} {shift.dtype} is none for {outputs} columns")
    rows, absent = features.detach().contiguous().numpy(), np.zeros(inputs, np.float32)
    loops.multiply(rows, np.ascontiguousarray(places), weights.numpy(), shift.numpy(), absent, out.numpy())


def at_every_row(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    filters: Filters,
    order: Callable[[Tensor], Tensor] | None = None,
) -> Tensor | None:
    """``rows`` (..., I) by ``weight`` (O, I) and ``bias`` (O,), (..., O); None where PyTorch has to.

    ``filters`` are those of the weight; ``order`` brings the weight into another order of columns first.
    """
    given = (rows, weight) if bias is None else (rows, weight, bias)
    loops = loops_for_products(len(weight), *given) if _ROWS_PAY and rows.shape[-1] == weight.shape[1] else None
    if loops is None or rows.numel() == 0 or torch.is_autocast_enabled("cpu"):
        return None
    features = rows.reshape(1, -1, rows.shape[-1])
    found = rows.new_empty(1, features.shape[1], len(weight))
    places = np.arange(features.shape[1], dtype=np.int32)[:, None]

    def made_of(weight: Tensor) -> Tensor:
        ordered = weight if order is None else order(weight)
        return panels(ordered.t()[None])

    multiplied(loops, features, places, filters.of("rows", weight, made_of), bias, found)
    return found.view(*rows.shape[:-1], len(weight))


@contextmanager
def counted_operations() -> Iterator[list[int]]:
    """Count what is multiplied and added here by this thread meanwhile, in the one number of the list."""
    before, counted = getattr(_COUNTED, "operations", None), [0]
    _COUNTED.operations = counted
    try:
        yield counted
    finally:
        _COUNTED.operations = before
        if before is not None:
            before[0] += counted[0]


@lru_cache(maxsize=64)
def places_around(
    sides: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], padding: tuple[int, ...]
) -> tuple[Int32, tuple[int, ...]]:
    """Which cells of a grid each result of a convolution reads, (M, T) int32, and the ``sides`` of the result.

    Cells and results are counted in the order of memory, and a cell beside the grid is as many as there are cells.
    """
    lines, results = [], []
    for side, size, step, beside in zip(sides, kernel, stride, padding, strict=True):
        count = (side + 2 * beside - size) // step + 1
        line = np.arange(count)[:, None] * step + np.arange(size) - beside  # (results, taps)
        lines.append(np.where((line >= 0) & (line < side), line, -1))
        results.append(count)
    found = np.zeros((1, 1), np.int64)
    for side, line in zip(sides, lines, strict=True):
        both = found[:, None, :, None] * side + line[None, :, None, :]
        within = (found[:, None, :, None] >= 0) & (line[None, :, None, :] >= 0)
        found = np.where(within, both, -1).reshape(len(found) * len(line), -1)
    return np.where(found >= 0, found, np.prod(sides)).astype(np.int32), tuple(results)
