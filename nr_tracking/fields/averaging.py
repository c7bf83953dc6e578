"""One field from several: the same frames completed in slightly shifted and scaled cubes, and averaged.

What a network guesses about the hidden side depends a little on where voxels happen to fall. Guesses in different cubes
err independently of each other there, so their mean errs less, at the price of one more completion each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from nr_tracking.fields.field import FieldWindow, lattice
from nr_tracking.sensing.volume import Volume


@dataclass(frozen=True)
class PlacedField:
    """The fields of a window together with the cube that they were completed in."""

    field: FieldWindow
    volume: Volume


class AveragedField:
    """The mean signed distance of several placed fields, in the box coordinates of the first one's cube.

    Has what meshing asks of a field. A cube that does not contain a point has no say about it; the first always has.
    """

    def __init__(self, members: Sequence[PlacedField]) -> None:
        if not members:
            raise ValueError("an average needs at least one field")
        self.first = members[0].field
        self.resolution = self.first.resolution
        self._members = tuple(members)

    def sdf(self, points: Tensor, frame: Tensor) -> Tensor:
        """Signed distance (Q,) in sides of the first cube at ``points`` (Q, 3) of ``frame`` (Q,) int64."""
        total = self.first.sdf(points, frame)
        count = torch.ones_like(total)
        for member in self._members[1:]:
            theirs, scale = self._in_cube_of(member, points)
            inside = theirs.abs().amax(dim=1) < 0.5
            total = total + torch.where(inside, scale * member.field.sdf(theirs, frame), torch.zeros_like(total))
            count = count + inside
        return total / count

    @torch.no_grad()
    def grid(self, frame: int) -> Tensor:
        """Signed distance (R, R, R) at the voxel centres of the first cube; the others' grids are interpolated."""
        total = self.first.grid(frame).clone()
        count = torch.ones_like(total)
        points = lattice(self.resolution, total)
        for member in self._members[1:]:
            theirs, scale = self._in_cube_of(member, points)
            inside = (theirs.abs().amax(dim=1) < 0.5).view_as(total)
            # grid_sample names the axes of a (D, H, W) volume as z, y, x; this one is indexed [x, y, z].
            places = (2 * theirs).flip(1).view(1, *total.shape, 3)
            values = member.field.grid(frame)[None, None]
            resampled = functional.grid_sample(values, places, padding_mode="border", align_corners=False)[0, 0]
            total += torch.where(inside, scale * resampled, torch.zeros_like(total))
            count += inside
        return total / count

    def _in_cube_of(self, member: PlacedField, points: Tensor) -> tuple[Tensor, float]:
        """Points of the first cube in the box coordinates of another, and its side over the first one's."""
        own, other = self._members[0].volume, member.volume
        scale = other.side / own.side
        shift = torch.as_tensor((own.centre - other.centre) / other.side, dtype=points.dtype, device=points.device)
        return points / scale + shift, scale
