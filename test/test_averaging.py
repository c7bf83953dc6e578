"""The mean of fields completed in different cubes, against a field that is known everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nr_tracking.config import VolumeConfig
from nr_tracking.fields.averaging import AveragedField, PlacedField
from nr_tracking.fields.field import lattice
from nr_tracking.sensing.volume import Volume, neighbouring_cubes

VOLUME = Volume(np.array([0.1, -0.2, 1.8]), 1.6)
CENTRE = torch.tensor([0.15, -0.1, 1.75])


class Ball:
    """A ball of radius 0.4 m around CENTRE, as completed in one cube; ``error`` metres too large."""

    resolution = 32

    def __init__(self, volume: Volume, error: float = 0.0) -> None:
        self.volume, self.error = volume, error

    def sdf(self, points, frame):
        metric = self.volume.to_metric(points)
        return ((metric - CENTRE.to(points)).norm(dim=1) - 0.4 - self.error) / self.volume.side

    def grid(self, frame):
        points = lattice(self.resolution, torch.zeros(1))
        return self.sdf(points, None).view((self.resolution,) * 3)


def averaged(errors: list[float]) -> AveragedField:
    cubes = neighbouring_cubes(VOLUME, len(errors))
    return AveragedField([PlacedField(Ball(cube, e), cube) for cube, e in zip(cubes, errors, strict=True)])


def test_fields_that_agree_are_not_changed_by_averaging():
    field, alone = averaged([0.0, 0.0, 0.0]), Ball(VOLUME)
    points = 0.88 * (torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) - 0.5)
    near = alone.sdf(points, None) > -0.1
    torch.testing.assert_close(
        field.sdf(points, torch.zeros(500).long())[near],
        alone.sdf(points, None)[near],
        atol=0.1 / Ball.resolution,
        rtol=0,
    )
    # Grids are interpolated between voxel centres: good away from the ball's centre, where the distance has its kink,
    # and from the cubes' outermost voxels.
    difference = (field.grid(0) - alone.grid(0)).abs()
    within = (lattice(Ball.resolution, difference).abs().amax(1) < 0.44).view_as(difference)
    assert difference[within & (alone.grid(0) > -0.1)].max() < 0.1 / Ball.resolution


def test_errors_that_cancel_are_gone():
    field, alone = averaged([0.03, -0.05, 0.02]), Ball(VOLUME)
    points = 0.8 * (torch.rand(500, 3, generator=torch.Generator().manual_seed(1)) - 0.5)
    found = field.sdf(points, torch.zeros(500).long())
    near = alone.sdf(points, None).abs() < 3 / Ball.resolution
    assert near.sum() > 30
    # Of what the errors leave, the curvature of the ball within a voxel is all: its radius is 6.4 voxels.
    torch.testing.assert_close(found[near], alone.sdf(points, None)[near], atol=0.05 / Ball.resolution, rtol=0)


def test_only_the_first_cube_speaks_of_points_that_it_alone_contains():
    field = averaged([0.01, 0.5])
    corner = torch.tensor([[-0.499, -0.499, -0.499]])
    torch.testing.assert_close(field.sdf(corner, torch.zeros(1).long()), Ball(VOLUME, 0.01).sdf(corner, None))


def test_neighbouring_cubes_begin_with_the_cube_itself_and_stay_close():
    cubes = neighbouring_cubes(VOLUME, 5)
    assert cubes[0] is VOLUME and len(cubes) == 5
    for cube in cubes[1:]:
        assert np.abs(cube.centre - VOLUME.centre).max() < VOLUME.side / 32
        assert 0.9 < cube.side / VOLUME.side < 1.0
    with pytest.raises(ValueError, match="cubes"):
        neighbouring_cubes(VOLUME, 6)


def test_every_count_that_the_configuration_allows_is_known():
    limits = {type(m).__name__: m for m in VolumeConfig.model_fields["cubes"].metadata}
    assert len(neighbouring_cubes(VOLUME, limits["Le"].le)) == limits["Le"].le
