"""Lower bounds of the signed distance from observed empty space: never too large, and useful where it counts."""

import numpy as np
import pytest
import torch

from nr_tracking.sensing.emptiness import EmptySpace, empty_bound
from nr_tracking.sensing.volume import Volume
from nr_tracking.types import Intrinsics

CAMERA = Intrinsics(width=320, height=240, fx=260.0, fy=260.0, cx=159.5, cy=119.5)
CENTRE, RADIUS = torch.tensor([0.1, -0.05, 1.0]), 0.25
VOLUME = Volume(centre=np.array([0.1, -0.05, 1.02]), side=0.75)


def scene(background: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth of a ball, before a wall at this depth or before nothing at 0, and the ball's mask."""
    v, u = torch.meshgrid(torch.arange(240.0), torch.arange(320.0), indexing="ij")
    rays = torch.stack(((u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, torch.ones_like(u)), dim=-1)
    a, b = (rays**2).sum(-1), rays @ CENTRE
    under_root = b * b - a * (CENTRE @ CENTRE - RADIUS**2)
    ball = under_root > 0
    return torch.where(ball, (b - under_root.clamp(min=0).sqrt()) / a, background), ball


def random_points(count: int = 40_000) -> tuple[torch.Tensor, torch.Tensor]:
    """Points of the cube in box coordinates, and their true signed distance to the ball in box units."""
    points = torch.rand((count, 3), generator=torch.Generator().manual_seed(0)) - 0.5
    return points, ((VOLUME.to_metric(points) - CENTRE).norm(dim=1) - RADIUS) / VOLUME.side


@pytest.mark.parametrize("background", [0.0, 1.28, 2.5])
@pytest.mark.parametrize("masked", [False, True])
def test_the_bound_never_exceeds_the_distance(background, masked):
    """The wall counts as subject where there is no mask, so only the masked scene is asked behind the ball."""
    depth, ball = scene(background)
    points, distance = random_points()
    bound = empty_bound(points, depth, ball if masked else None, CAMERA, VOLUME)
    if not masked and background:
        distance = torch.minimum(distance, (background - VOLUME.to_metric(points)[:, 2]) / VOLUME.side)
        bound[distance < 0] = -torch.inf
    assert (bound <= distance + 1e-4).all()


def test_empty_space_is_recognised_from_every_side_that_the_camera_sees():
    depth, ball = scene(2.5)
    points, distance = random_points()
    metric = VOLUME.to_metric(points)
    bound = empty_bound(points, depth, ball, CAMERA, VOLUME)
    pictured = ((metric[:, :2] / metric[:, 2:] * 260).abs() < torch.tensor([158.0, 118.0])).all(dim=1)
    before_ball = (metric[:, 2] < 0.7) & (distance > 0.05) & pictured
    assert (bound[before_ball] > 0).all()
    beside = torch.linalg.norm(metric[:, :2] / metric[:, 2:] - CENTRE[:2] / CENTRE[2], dim=1)
    beyond_silhouette = beside > 1.15 * RADIUS / CENTRE[2]
    assert (bound[beyond_silhouette & pictured] > 0).all()
    # Straight before the surface, where nothing else is near, the bound is worth half the distance at least.
    axis = torch.linspace(0.0, 0.2, 21)[1:, None]
    ahead = CENTRE * (1 - (RADIUS + axis) / CENTRE.norm())
    bound = empty_bound(VOLUME.to_box(ahead), depth, ball, CAMERA, VOLUME) * VOLUME.side
    assert (bound[:6] > 0.5 * axis[:6, 0]).all()


def test_behind_its_surface_the_subject_is_at_most_as_deep_as_the_ray_went_in():
    depth, ball = scene(2.5)
    inside = CENTRE * (1 - (RADIUS - torch.tensor([[0.01], [0.05], [0.2]])) / CENTRE.norm())
    bound = empty_bound(VOLUME.to_box(inside), depth, ball, CAMERA, VOLUME) * VOLUME.side
    np.testing.assert_allclose(bound, [-0.01, -0.05, -0.2], atol=0.002)
    assert torch.isinf(empty_bound(VOLUME.to_box(inside), depth, torch.zeros_like(ball), CAMERA, VOLUME)).all()


def test_pixels_without_return_and_points_outside_the_picture_tell_nothing():
    depth, _ = scene(0.0)
    asked = torch.tensor([[0.1, -0.34, 1.0], [5.0, 0.0, 1.0], [0.0, 0.0, -1.0]])
    assert torch.equal(empty_bound(VOLUME.to_box(asked), depth, None, CAMERA, VOLUME), torch.full((3,), -torch.inf))


def test_tolerance_moves_the_bound_towards_the_camera():
    depth, ball = scene(2.5)
    points, _ = random_points(2000)
    exact, lenient = (EmptySpace(depth, ball, CAMERA, VOLUME, tolerance)(points) for tolerance in (0.0, 0.02))
    seen = lenient > -torch.inf
    assert (lenient[seen] <= exact[seen]).all()
    at_surface = VOLUME.to_box((CENTRE * (1 - (RADIUS + 0.01) / CENTRE.norm()))[None])
    assert (
        EmptySpace(depth, ball, CAMERA, VOLUME, 0.02)(at_surface)
        < 0
        < empty_bound(at_surface, depth, ball, CAMERA, VOLUME)
    )
