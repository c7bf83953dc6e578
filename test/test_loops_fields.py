"""Compiled loops of the fields against their twins in PyTorch."""

import pytest
import torch
from twins import both, needs_loops

from nr_tracking.fields.rays import RayField, ray_depths
from nr_tracking.sensing.ray_images import FAR

pytestmark = needs_loops


@pytest.fixture
def rays():
    generator = torch.Generator().manual_seed(0)
    depths = ray_depths(24)
    front = torch.where(torch.rand(2, 32, 32, generator=generator) < 0.5, torch.rand(2, 32, 32) - 0.5, FAR)
    distances = 0.05 * torch.randn(2, 32, 32, len(depths), generator=generator)
    view = torch.tensor([[0.1, 0.05, 0.4], [0.0, 0.0, 0.3]])
    place = torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.01, 0.02, 0.0, 0.95]])
    return RayField(distances, depths, front, view, place)


@pytest.mark.parametrize("ask", [RayField.sdf, RayField.sdf_of_nearest])
def test_distances_along_rays(rays, ask):
    generator = torch.Generator().manual_seed(1)
    points = 1.2 * (torch.rand(5000, 3, generator=generator) - 0.5)  # some beside the image
    frame = torch.randint(0, 2, (5000,), generator=generator)
    compiled, plain = both(lambda: ask(rays, points, frame))
    torch.testing.assert_close(compiled, plain, rtol=0, atol=1e-6)


def test_points_that_are_no_numbers_read_nothing_beyond_the_rays(rays):
    points = torch.full((100, 3), torch.nan)
    points[::3, 2] = torch.inf
    with torch.no_grad():
        assert len(rays.sdf(points, torch.zeros(100, dtype=torch.int64))) == 100
