"""Sparse voxel grids and the convolutions that run on them, in plain PyTorch.

A :class:`SparseGrid` is a set of active voxels in several frames. Features travel beside it as a (M, C) tensor, one row
for each voxel. Three layers move them:

* :class:`SubmanifoldConv` 3x3x3, output voxels = input voxels (Graham et al. 2018, Submanifold sparse convolution);
* :class:`DownConv` 2x2x2 with stride 2, from children to their parents;
* :class:`UpConv` 2x2x2 with stride 2, from parents to given children.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nr_tracking.fields import spconv_backend
from nr_tracking.fields.filters import KeepsFilters
from nr_tracking.fields.neighbours import (
    NeighbourMatmul,
    multiplies_by_loops,
    panels_of_neighbours,
    round_rows,
    with_absent,
)


class SparseGrid:
    """Active voxels of a cubic grid, in several frames.

    ``coords`` (M, 4) int32 rows [frame, x, y, z], unique and in lexicographic order (see :meth:`from_coords`);
    ``resolution`` R voxels along a side; ``frames`` the number of frames N. Tables are built on first use and kept.
    """

    def __init__(self, coords: Tensor, resolution: int, frames: int) -> None:
        self.coords = coords
        self.resolution = resolution
        self.frames = frames

    @classmethod
    def from_coords(cls, coords: Tensor, resolution: int, frames: int) -> SparseGrid:
        """Sort ``coords`` (K, 4) int and drop duplicates."""
        keys = torch.unique(linear_keys(coords, resolution))
        return cls(coords_of_keys(keys, resolution), resolution, frames)

    def __len__(self) -> int:
        return self.coords.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the coordinates are."""
        return self.coords.device

    @cached_property
    def table(self) -> Tensor:
        """(N * (R+2)^3,) int32: the row of each voxel of the grid padded by one, or M where it is not active."""
        side = self.resolution + 2
        table = torch.full((self.frames * side**3,), len(self), dtype=torch.int32, device=self.device)
        rows = torch.arange(len(self), dtype=torch.int32, device=self.device)
        return table.index_copy_(0, self._padded_keys, rows)

    @cached_property
    def _padded_keys(self) -> Tensor:
        """(M,) int64 positions of the active voxels in ``table``."""
        frame, x, y, z = self.coords.long().unbind(1)
        side = self.resolution + 2
        return ((frame * side + x + 1) * side + y + 1) * side + z + 1

    @cached_property
    def neighbours(self) -> Tensor:
        """(M, 27) int32 rows of the neighbours in lexicographic order of (dx, dy, dz); M where there is none."""
        side = self.resolution + 2
        step = torch.arange(-1, 2, device=self.device, dtype=torch.int32)
        offsets = (step[:, None, None] * side * side + step[:, None] * side + step).reshape(27)
        keys = self._padded_keys.int()[:, None] + offsets
        return self.table.index_select(0, keys.reshape(-1)).view(-1, 27)

    @cached_property
    def centres(self) -> Tensor:
        """(M, 3) float32 box coordinates of the voxel centres."""
        return (self.coords[:, 1:].float() + 0.5) / self.resolution - 0.5

    @cached_property
    def frame_index(self) -> Tensor:
        """(M,) int64 frame of each voxel."""
        return self.coords[:, 0].long()

    @cached_property
    def octant(self) -> Tensor:
        """(M,) int64: which of the 8 children of its parent a voxel is, 4 (x & 1) + 2 (y & 1) + (z & 1)."""
        bits = self.coords[:, 1:].long() & 1
        return bits[:, 0] * 4 + bits[:, 1] * 2 + bits[:, 2]

    @cached_property
    def spconv_indices(self) -> dict[str, Any]:
        """Index pairs that the CUDA backend keeps between the convolutions on this grid."""
        return {}

    def rows(self, coords: Tensor) -> Tensor:
        """Rows (K,) int32 of the voxels ``coords`` (K, 4); M where a voxel is not active."""
        frame, x, y, z = coords.int().unbind(1)
        side = self.resolution + 2
        return self.table.index_select(0, ((frame * side + x + 1) * side + y + 1) * side + z + 1)

    def parents(self) -> SparseGrid:
        """The grid of half the resolution that covers this one."""
        coords = torch.cat([self.coords[:, :1], self.coords[:, 1:] // 2], dim=1)
        return SparseGrid.from_coords(coords, self.resolution // 2, self.frames)

    def children(self) -> Tensor:
        """Coordinates (8 M, 4) int32 of all children at twice the resolution, in the order of the octants."""
        bit = torch.arange(2, dtype=torch.int32, device=self.device)
        octants = torch.stack(torch.meshgrid(bit, bit, bit, indexing="ij"), dim=-1).reshape(1, 8, 3)
        places = self.coords[:, None, 1:] * 2 + octants
        return torch.cat([self.coords[:, None, :1].expand(-1, 8, 1), places], dim=2).reshape(-1, 4)

    def some_children(self, numbers: Tensor) -> Tensor:
        """The rows (K, 4) of :meth:`children` with these ``numbers`` (K,) int64."""
        octant = (numbers % 8).int()
        bits = torch.stack([octant // 4, octant // 2 % 2, octant % 2], dim=1)
        parents = self.coords.index_select(0, numbers // 8)
        return torch.cat([parents[:, :1], parents[:, 1:] * 2 + bits], dim=1)

    def dense(self, features: Tensor) -> Tensor:
        """Scatter ``features`` (M, C) into a dense (N, C, R, R, R) tensor in channels-last order, 0 elsewhere."""
        side = self.resolution
        keys = linear_keys(self.coords, side)
        grid = features.new_zeros(self.frames * side**3, features.shape[1]).index_copy(0, keys, features)
        return grid.view(self.frames, side, side, side, -1).permute(0, 4, 1, 2, 3)


def linear_keys(coords: Tensor, resolution: int) -> Tensor:
    """(K,) int64 positions of ``coords`` (K, 4) in a dense (N, R, R, R) array."""
    frame, x, y, z = coords.long().unbind(1)
    return ((frame * resolution + x) * resolution + y) * resolution + z


def keys_of_marks(marks: Tensor) -> Tensor:
    """Positions (K,) int64 of what is True in ``marks`` (N R R R,) bool; numpy finds them five times as fast."""
    return torch.from_numpy(np.flatnonzero(marks.numpy())) if marks.device.type == "cpu" else marks.nonzero()[:, 0]


def coords_of_keys(keys: Tensor, resolution: int) -> Tensor:
    """The inverse of :func:`linear_keys`: (K, 4) int32."""
    z = keys % resolution
    rest = keys // resolution
    y = rest % resolution
    rest = rest // resolution
    return torch.stack([rest // resolution, rest % resolution, y, z], dim=1).int()


def select_rows(features: Tensor, rows: Tensor) -> Tensor:
    """Rows (K, C) of ``features`` (M, C); zeros where ``rows`` (K,) is M."""
    return with_absent(features).index_select(0, rows)


class SubmanifoldConv(KeepsFilters):
    """3x3x3 convolution on the active voxels.

    ``weight`` (27, I, O), the kernel positions in lexicographic order of (dx, dy, dz); ``bias`` (O,). Equal to
    ``conv3d(padding=1)`` of the zero-filled dense grid, read at the active voxels.
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(27, inputs, outputs) * (2.0 / (27 * inputs)) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, features: Tensor, grid: SparseGrid) -> Tensor:
        """(M, I) -> (M, O) on ``grid``."""
        features, weight = _autocast(features, self.weight)
        bias = None if self.bias is None else self.bias.to(features.dtype)
        if spconv_backend.usable(features):
            out = spconv_backend.submanifold(features, weight, grid)
            return out if bias is None else out + bias
        ordered = None
        if multiplies_by_loops(features, weight):
            ordered = self._filters.of("neighbours", self.weight, panels_of_neighbours)
        return NeighbourMatmul.apply(features, weight, bias, grid.neighbours, ordered)  # type: ignore[no-any-return]


class DownConv(nn.Module):
    """2x2x2 convolution with stride 2: a parent gathers its active children. ``weight`` (8 I, O), ``bias`` (O,)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8 * inputs, outputs) * (2.0 / (4 * inputs)) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, features: Tensor, grid: SparseGrid, parents: SparseGrid) -> Tensor:
        """(M, I) on ``grid`` -> (M', O) on ``parents``, which must cover ``grid``."""
        features, weight = _autocast(features, self.weight)
        slots = _parent_rows(grid, parents) * 8 + grid.octant
        rows = round_rows(len(parents), features)
        gathered = features.new_zeros(rows * 8, features.shape[1]).index_copy(0, slots, features)
        return (gathered.view(rows, weight.shape[0]) @ weight)[: len(parents)] + self.bias.to(weight.dtype)


class UpConv(nn.Module):
    """2x2x2 transposed convolution with stride 2: a child reads its parent. ``weight`` (I, 8 O), ``bias`` (O,)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, 8 * outputs) * (1.0 / inputs) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, features: Tensor, grid: SparseGrid, children: SparseGrid) -> Tensor:
        """(M, I) on ``grid`` -> (M', O) on ``children``, all of which must have their parent in ``grid``."""
        features, weight = _autocast(features, self.weight)
        slots = _parent_rows(children, grid) * 8 + children.octant
        outputs = self.bias.shape[0]
        if more := round_rows(len(features), features) - len(features):
            features = functional.pad(features, (0, 0, 0, more))
        return (features @ weight).view(-1, outputs).index_select(0, slots) + self.bias.to(weight.dtype)


def _parent_rows(grid: SparseGrid, parents: SparseGrid) -> Tensor:
    """(M,) int64 row in ``parents`` of the parent of each voxel of ``grid``."""
    return parents.rows(torch.cat([grid.coords[:, :1], grid.coords[:, 1:] // 2], dim=1)).long()


def _autocast(features: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Features and weight in the type that autocast asks for, or in the weight's own."""
    kind = features.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    return features.to(dtype), weight.to(dtype)
