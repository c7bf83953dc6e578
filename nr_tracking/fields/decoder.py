"""From fused latent grids to the field: a dense decoder to R / 4, then sparse refinement near the surface to R."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from nr_tracking.fields.convolution import DenseConv3d
from nr_tracking.fields.encoder import DenseResidual, SparseResidual
from nr_tracking.fields.field import DistanceMLP, interpolate_dense, lattice
from nr_tracking.fields.normalisation import norm_relu
from nr_tracking.fields.pointwise import Pointwise3d
from nr_tracking.fields.sparse import (
    SparseGrid,
    SubmanifoldConv,
    UpConv,
    coords_of_keys,
    keys_of_marks,
    linear_keys,
    select_rows,
)
from nr_tracking.sensing.tensors import as_array, loops_for

MARKED = 1 << 24  # voxels of a dense array up to which marking and reading it back is faster than sorting


class DenseDecoder(nn.Module):
    """Latent grid -> features at r = R / 4, one trilinear step and one convolution an octave, skips added.

    ``blocks`` residual blocks come before each step, at the coarser side of it.
    """

    def __init__(self, latent: int, channels: tuple[int, int], skip_channels: list[int], blocks: int) -> None:
        super().__init__()
        octaves = len(skip_channels)
        widths = [max(channels[1], channels[0] >> i) for i in range(octaves)] + [channels[1]]
        self.entry = _normed(DenseConv3d(latent, widths[0], kernel_size=3, padding=1))
        self.blocks = nn.ModuleList(
            nn.Sequential(*(DenseResidual(widths[i]) for _ in range(blocks))) for i in range(octaves)
        )
        self.narrow = nn.ModuleList(Pointwise3d(widths[i], widths[i + 1]) for i in range(octaves))
        self.skips = nn.ModuleList(Pointwise3d(skip_channels[octaves - 1 - i], widths[i + 1]) for i in range(octaves))
        self.convs = nn.ModuleList(_normed(DenseConv3d(width, width, kernel_size=3, padding=1)) for width in widths[1:])

    def forward(self, latent: Tensor, skips: list[Tensor]) -> Tensor:
        """(N, L, l, l, l) and the skips of the dense encoder, finest first -> (N, D, r, r, r)."""
        grid = self.entry(latent)
        levels = zip(self.blocks, self.narrow, self.skips, self.convs, reversed(skips), strict=True)
        for blocks, narrow, project, conv, skip in levels:
            # Narrowing before the interpolation is the same function as after it, and eight times cheaper.
            grid = functional.interpolate(narrow(blocks(grid)), scale_factor=2, mode="trilinear") + project(skip)
            grid = grid + conv(grid)
        return grid


def _normed(conv: nn.Conv3d) -> nn.Sequential:
    """The convolution followed by GroupNorm and ReLU."""
    return nn.Sequential(conv, *norm_relu(conv.out_channels))


class MiddleDecoder(nn.Module):
    """Dense features at R / 4, read at active voxels of R / 2, with the encoder's skip -> features (M, C)."""

    def __init__(self, inputs: int, skip: int, channels: int, convolutions: int) -> None:
        super().__init__()
        self.entry = SubmanifoldConv(inputs + skip, channels)
        self.blocks = nn.ModuleList(SparseResidual(channels) for _ in range(convolutions))

    def forward(self, coarse: Tensor, grid: SparseGrid, skip: Tensor) -> Tensor:
        """``coarse`` (N, r, r, r, D), active ``grid`` of R / 2, ``skip`` (M, C1) at its voxels -> (M, C)."""
        read = interpolate_dense(coarse, grid.centres, grid.frame_index)
        features = self.entry(torch.cat([read, skip.to(read.dtype)], dim=1), grid)
        for block in self.blocks:
            features = block(features, grid)
        return features


class FineDecoder(nn.Module):
    """Features at R / 2, handed to their active children at R, with the encoder's skip -> features (M, C)."""

    def __init__(self, inputs: int, skip: int, channels: int, convolutions: int) -> None:
        super().__init__()
        self.up = UpConv(inputs, channels)
        self.entry = SubmanifoldConv(channels + skip, channels)
        self.blocks = nn.ModuleList(SparseResidual(channels) for _ in range(convolutions))

    def forward(self, middle: tuple[SparseGrid, Tensor], grid: SparseGrid, skip: Tensor) -> Tensor:
        """``middle`` (grid of R / 2, (M', I)), active ``grid`` of R, ``skip`` (M, C0) at its voxels -> (M, C)."""
        up = self.up(middle[1], middle[0], grid)
        features = self.entry(torch.cat([up, skip.to(up.dtype)], dim=1), grid)
        for block in self.blocks:
            features = block(features, grid)
        return features


def read_skip(skip: tuple[SparseGrid, Tensor], grid: SparseGrid) -> Tensor:
    """The encoder's features (M, C) at the voxels of ``grid``, zeros where it has none."""
    return select_rows(skip[1], skip[0].rows(grid.coords))


@torch.no_grad()
def distances_of_coarse(coarse: Tensor, distance: DistanceMLP) -> Tensor:
    """Signed distance (N, r, r, r) in box sides of the field ``coarse`` (N, r, r, r, C) at its voxel centres."""
    frames, r = coarse.shape[:2]
    rows = coarse.reshape(-1, coarse.shape[-1])
    return distance(rows, lattice(r, rows).repeat(frames, 1)).view(frames, r, r, r)


@torch.no_grad()
def near_surface_of_coarse(distances: Tensor, resolution: int, tau: float, cap: int) -> Tensor:
    """Voxels (K, 4) of ``resolution`` within ``tau`` box sides of the zero level of ``distances`` (N, r, r, r).

    The distance at a voxel's centre is interpolated between those at the coarser voxels' centres. At most ``cap``
    voxels of a frame are returned, the nearest to the surface.
    """
    away = distances
    if resolution != len(distances[0]):
        factor = resolution // len(distances[0])
        away = functional.interpolate(distances[:, None], scale_factor=factor, mode="trilinear")[:, 0]
    away = away.abs()
    near = (away < tau).nonzero()
    return nearest(near.int(), away[tuple(near.t())], len(distances), cap)


@torch.no_grad()
def distances_of_children(grid: SparseGrid, features: Tensor, distance: DistanceMLP) -> Tensor:
    """Signed distance (M, 8) in box sides at the centres of the children of active voxels, by octant.

    It is interpolated between the distances at the centres of the active voxels around each child.
    """
    own = distance(features, grid.centres)
    if (loops := loops_for("grids", own)) is not None:
        return torch.from_numpy(loops.children_between(as_array(own.contiguous()), grid.neighbours.numpy()))
    around = select_rows(own[:, None], grid.neighbours.reshape(-1)).view(-1, 27)
    matrix = _children_of_neighbours(around)
    return (around @ matrix) / ((grid.neighbours < len(grid)).to(around.dtype) @ matrix).clamp(min=1e-6)


@torch.no_grad()
def near_surface_of_middle(grid: SparseGrid, distances: Tensor, tau: float, cap: int) -> Tensor:
    """Voxels (K, 4) of R, children of the active ones of R / 2, within ``tau`` box sides of the zero level.

    ``distances`` (M, 8) are those of :func:`distances_of_children`. At most ``cap`` voxels of a frame are returned, the
    nearest to the surface.
    """
    away = distances.reshape(-1).abs()
    near = (away < tau).nonzero()[:, 0]
    return nearest(grid.some_children(near), away[near], grid.frames, cap)


def _children_of_neighbours(like: Tensor) -> Tensor:
    """Trilinear weights (27, 8) of a voxel's neighbourhood at the centres of its eight children."""
    axis = like.new_tensor([[0.25, 0.75, 0.0], [0.0, 0.75, 0.25]])  # of the lower and the upper child
    return torch.einsum("ax,by,cz->xyzabc", axis, axis, axis).reshape(27, 8)


def nearest(coords: Tensor, away: Tensor, frames: int, cap: int) -> Tensor:
    """``coords`` (M, 4), of each frame at most the ``cap`` with the least ``away`` (M,)."""
    frame = coords[:, 0].long()
    counts = torch.bincount(frame, minlength=frames)
    if len(coords) == 0 or int(counts.max()) <= cap:
        return coords
    order = torch.argsort(away, stable=True)
    order = order[torch.argsort(frame[order], stable=True)]  # by frame, and by distance within each
    rank = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[frame[order]]
    return coords[order[rank < cap]]


def united(parts: list[Tensor], resolution: int, frames: int) -> SparseGrid:
    """The grid of all voxels in ``parts``, each (K, 4) int."""
    coords = torch.cat([part.int() for part in parts])
    if frames * resolution**3 > MARKED:
        return SparseGrid.from_coords(coords, resolution, frames)
    marks = torch.zeros(frames * resolution**3, dtype=torch.bool, device=coords.device)
    marks[linear_keys(coords, resolution)] = True
    return SparseGrid(coords_of_keys(keys_of_marks(marks), resolution), resolution, frames)
