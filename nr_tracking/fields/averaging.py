"""One field from several: the same frames completed in slightly shifted and scaled cubes, and averaged.

What a network guesses about the hidden side depends a little on where voxels happen to fall. Guesses in different cubes
err independently of each other there, so their mean errs less, at the price of one more completion each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nr_tracking.fields.field import FieldWindow, cubic_shares, interpolate_dense
from nr_tracking.fields.ray_window import RayWindow
from nr_tracking.sensing.volume import Volume

CompletedField = FieldWindow | RayWindow


@dataclass(frozen=True)
class PlacedField:
    """The fields of a window together with the cube that they were completed in."""

    field: CompletedField
    volume: Volume


class AveragedField:
    """The mean signed distance of several placed fields, in the box coordinates of the first one's cube.

    Has what meshing asks of a field. The mean is taken of the fields' grids; between voxel centres it is the first
    field plus the interpolated difference, because where a surface lies is a matter for the mean, and what happens
    within a voxel differs little. A cube that does not contain a point has no say about it; the first always has.
    """

    def __init__(self, members: Sequence[PlacedField]) -> None:
        if not members:
            raise ValueError("an average needs at least one field")
        self.first = members[0].field
        self.resolution = self.first.resolution
        self._members = tuple(members)
        self._grids: dict[int, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def sdf(self, points: Tensor, frame: Tensor) -> Tensor:
        """Signed distance (Q,) in sides of the first cube at ``points`` (Q, 3) of ``frame`` (Q,) int64."""
        total = self.first.sdf(points, frame)
        if len(self._members) == 1:
            return total
        for index in torch.unique(frame).tolist():
            chosen = (frame == index).nonzero()[:, 0]
            _, difference = self._mean(index)
            here = interpolate_dense(difference[None, ..., None], points[chosen], torch.zeros_like(chosen))
            total[chosen] += here[:, 0]
        return total

    def grid(self, frame: int) -> Tensor:
        """Signed distance (R, R, R) at the voxel centres of the first cube."""
        return self._mean(frame)[0] if len(self._members) > 1 else self.first.grid(frame)

    @torch.no_grad()
    def _mean(self, frame: int) -> tuple[Tensor, Tensor]:
        """The mean of the grids of a frame and its difference from the first one, (R, R, R) each."""
        if frame not in self._grids:
            own = self.first.grid(frame)
            total, count = own.clone(), torch.ones_like(own)
            for member in self._members[1:]:
                values, inside = self._resampled(member, frame)
                total += values
                count += inside
            mean = total / count
            self._grids[frame] = mean, mean - own
        return self._grids[frame]

    def _resampled(self, member: PlacedField, frame: int) -> tuple[Tensor, Tensor]:
        """A member's grid at the voxel centres of the first cube, 0 outside its own, and where it is inside.

        Cubes differ by a shift and a scale, so each axis is interpolated on its own.
        """
        values = member.field.grid(frame)
        own, other, count = self._members[0].volume, member.volume, self.resolution
        scale = other.side / own.side
        steps = torch.arange(count, dtype=values.dtype, device=values.device)
        inside = torch.ones_like(values)
        for axis, shift in enumerate((own.centre - other.centre) / other.side):
            theirs = ((steps + 0.5) / count - 0.5) / scale + shift
            shares = cubic_shares((theirs + 0.5) * count - 0.5, count)
            within = (theirs.abs() < 0.5).to(values.dtype)
            shape = [count if other_axis == axis else 1 for other_axis in range(3)]
            inside = inside * within.view(shape)
            values = torch.tensordot(values, shares, dims=([0], [1]))  # takes the first axis away, appends the new one
        return scale * inside * values, inside
