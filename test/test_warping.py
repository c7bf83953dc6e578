"""Windows in warped space: what was true of rays, insides and correspondences stays true."""

from dataclasses import replace

import numpy as np
import pytest
from bending_body import bending_window

from nr_tracking.sensing.camera import back_project
from nr_tracking.training.warping import RayWarp, warped


@pytest.fixture(scope="module")
def window():
    return bending_window(0)


def pixels_of(points, camera):
    u = np.rint(points[:, 0] / points[:, 2] * camera.fx + camera.cx).astype(int)
    v = np.rint(points[:, 1] / points[:, 2] * camera.fy + camera.cy).astype(int)
    assert ((u >= 0) & (u < camera.width) & (v >= 0) & (v < camera.height)).all()
    return v, u


@pytest.mark.parametrize("seed", range(5))
def test_directions_are_mapped_there_and_back(seed):
    rng = np.random.default_rng(seed)
    warp = RayWarp(np.array([0.1, -0.2]), 0.6, 1.5, rng)
    directions = np.array([0.1, -0.2]) + 0.6 * (rng.random((500, 2)) - 0.5)
    assert np.abs(warp.target(warp.source(directions)) - directions).max() < 1e-4


@pytest.fixture(scope="module")
def observed(window):
    """The window with what its own images show in place of its points: on the surface, and before it."""
    rng = np.random.default_rng(0)
    fronts = []
    for image in window.depth:
        cloud = back_project(image, window.intrinsics)[image > 0]
        fronts.append(cloud[rng.choice(len(cloud), 400)])
    surface = np.stack(fronts).astype(np.float32)
    before = surface * rng.uniform(0.6, 0.97, (*surface.shape[:2], 1)).astype(np.float32)
    return replace(window, surface=surface, normals=np.zeros_like(surface) + 1, points=before)


@pytest.mark.parametrize("seed", range(4))
def test_seen_points_stay_on_the_depth_image(observed, seed):
    other = warped(observed, np.random.default_rng(seed))
    for frame in range(len(other.depth)):
        v, u = pixels_of(other.surface[frame], other.intrinsics)
        depth = other.depth[frame, v, u]
        assert (depth > 0).mean() > 0.9  # a pixel of rounding, on an outline of some 150 pixels
        assert np.median(np.abs(depth - other.surface[frame, :, 2])[depth > 0]) < 0.01


@pytest.mark.parametrize("seed", range(4))
def test_space_before_the_surface_stays_before_it(observed, seed):
    other = warped(observed, np.random.default_rng(seed))
    for frame in range(len(other.depth)):
        v, u = pixels_of(other.points[frame], other.intrinsics)
        depth = other.depth[frame, v, u]
        assert (other.points[frame, :, 2] < depth)[depth > 0].mean() > 0.97


def test_it_is_another_body(window):
    """Shape changes by more than what a turn can explain, and two draws differ."""
    first, second = (warped(window, np.random.default_rng(seed)) for seed in (1, 2))
    original = window.surface[0] - window.surface[0].mean(0)
    moved = first.surface[0] - first.surface[0].mean(0)
    left, _, right = np.linalg.svd(moved.T @ original)
    rest = moved - original @ (left @ right).T
    assert np.linalg.norm(rest, axis=1).mean() > 0.01 * np.ptp(original, axis=0).max()
    assert not np.allclose(first.surface, second.surface)
    np.testing.assert_allclose(np.linalg.norm(first.normals, axis=-1), 1, atol=1e-3)
    np.testing.assert_array_equal(first.sdf, window.sdf)
