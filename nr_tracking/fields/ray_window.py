"""The fields of a window whose distances are known along rays alone, with ``model.ray_share`` at 1.

Surfaces then need no network in the cube at all. Its features, by which points of different frames are associated, are
made when somebody asks for them, which is seldom: where a motion is too large for the refinement to find its way.
"""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from nr_tracking.fields.field import FieldWindow, upsample
from nr_tracking.fields.ray_prior import RayPrior
from nr_tracking.fields.rays import RayField

_BAND = 2.0  # voxels from the surface within which the grid is exact


class FeatureSource(Protocol):
    """What runs the network in the cube on request."""

    def field(self) -> FieldWindow:
        """The same frames, completed in the cube."""
        ...


class RayWindow:
    """Has what meshing, association and adaptation ask of a :class:`~nr_tracking.fields.field.FieldWindow`.

    ``rays`` of its N frames, in box coordinates of the window's cube, in which ``resolution`` voxels make a side.
    ``source`` makes features; it must not be asked by two threads at once.
    """

    def __init__(self, rays: RayField, resolution: int, source: FeatureSource) -> None:
        self.rays = rays
        self.resolution = resolution
        self._source = source

    @property
    def device(self) -> torch.device:
        """Where points are to be given."""
        return self.rays.distances.device

    def sdf(self, points: Tensor, frame: Tensor) -> Tensor:
        """Signed distance (Q,) in box sides at ``points`` (Q, 3) of ``frame`` (Q,) int64, both in the box."""
        return self.rays.sdf(points, frame)

    def embedding(self, points: Tensor, frame: Tensor) -> Tensor:
        """Unit vectors (Q, E) for associating points of different frames."""
        return self._features.embedding(points, frame)

    @torch.no_grad()
    def grid(self, frame: int) -> Tensor:
        """Signed distance (R, R, R) in box sides at all voxel centres of one frame.

        Exact within two voxels of the surface; elsewhere interpolated between every second one, to half a pixel.
        """
        if (whole := self.rays.grid_by_loops(frame, self.resolution, _BAND / self.resolution)) is not None:
            return whole
        values = upsample(self._coarse[frame], 2)
        near = (values.abs() < _BAND / self.resolution).nonzero()
        places = (near.to(values) + 0.5) / self.resolution - 0.5
        frames = torch.full((len(places),), frame, dtype=torch.int64, device=places.device)
        values[tuple(near.t())] = self.rays.sdf(places, frames)
        return values

    @cached_property
    def _coarse(self) -> Tensor:
        """Distances (N, R / 2, R / 2, R / 2) at every second voxel."""
        return RayPrior(self.rays, self.resolution // 2).whole

    @cached_property
    def _features(self) -> FieldWindow:
        return self._source.field()
