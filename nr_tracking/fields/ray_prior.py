"""What completion along rays tells the network on the cube: its distances at the voxels of every scale."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from nr_tracking.fields.field import lattice
from nr_tracking.fields.rays import LIMIT, RayField
from nr_tracking.fields.sparse import SparseGrid


class RayPrior:
    """A :class:`RayField` read on grids of the cube; ``resolution`` is that of the finest whole grid, R / 2.

    Distances are in box sides; hints, the same in units of those that rays tell apart, are inputs of networks.
    """

    def __init__(self, field: RayField, resolution: int) -> None:
        self.field = field
        self.frames = len(field.front)
        self.resolution = resolution

    @cached_property
    def whole(self) -> Tensor:
        """Distance (N, R/2, R/2, R/2) at all voxel centres, [x, y, z], without gradients, to half a pixel."""
        points = lattice(self.resolution, self.field.distances)
        frame = torch.arange(self.frames, device=points.device).repeat_interleave(len(points))
        with torch.no_grad():
            values = self.field.sdf_of_nearest(points.repeat(self.frames, 1), frame)
        return values.view(self.frames, *(self.resolution,) * 3)

    @property
    def blocks(self) -> Tensor:
        """Hints (N, 8, R/4, R/4, R/4): the eight voxels of R / 2 in each one of R / 4."""
        half = self.resolution // 2
        split = self._hint(self.whole).view(self.frames, half, 2, half, 2, half, 2)
        return split.permute(0, 2, 4, 6, 1, 3, 5).reshape(self.frames, 8, half, half, half)

    def mixed_with(self, coarse: Tensor) -> Tensor:
        """The whole grid mixed with distances (N, r, r, r) at the voxel centres of R / 4, interpolated."""
        coarse = functional.interpolate(coarse[:, None], scale_factor=2, mode="trilinear")[:, 0]
        return self.field.mixed(coarse, self.whole)

    def hint(self, grid: SparseGrid) -> Tensor:
        """Hint (M, 1) at active voxels."""
        return self._hint(self.field.sdf_of_nearest(grid.centres, grid.frame_index))[:, None]

    @torch.no_grad()
    def mixed_at_children(self, grid: SparseGrid, distance: Tensor) -> Tensor:
        """``distance`` (M, 8) at the centres of active voxels' children, by octant, mixed with that along rays."""
        along = self.field.children_by_loops(grid.coords, grid.resolution)
        if along is None:
            children = SparseGrid(grid.children(), 2 * grid.resolution, grid.frames)
            along = self.field.sdf_of_nearest(children.centres, children.frame_index).view(-1, 8)
        return self.field.mixed(distance, along)

    @staticmethod
    def _hint(distance: Tensor) -> Tensor:
        return (distance / LIMIT).clamp(-1, 1)
