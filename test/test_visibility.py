"""What the camera saw of a surface, against a sphere before a wall."""

from __future__ import annotations

import numpy as np
import pytest

from nr_tracking.sensing.visibility import confidence_of, depth_at, observed_points
from nr_tracking.types import DepthFrame, Intrinsics


@pytest.fixture
def sphere() -> tuple[DepthFrame, np.ndarray]:
    """A sphere of radius 0.5 m at 2 m, and 2,000 points on it."""
    k = Intrinsics(160, 120, 150.0, 150.0, 80.0, 60.0)
    v, u = np.mgrid[0:120, 0:160]
    ray = np.stack([(u - k.cx) / k.fx, (v - k.cy) / k.fy, np.ones_like(u)], -1).astype(float)
    b, a = ray @ [0, 0, 2.0], (ray**2).sum(-1)
    root = b**2 - a * (4 - 0.25)
    depth = np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, 0).astype(np.float32)
    normals = np.random.default_rng(0).normal(size=(2000, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    points = (normals * 0.5 + [0, 0, 2.0]).astype(np.float32)
    return DepthFrame(0, depth, k), points


def test_the_front_of_a_sphere_is_observed_and_its_back_is_not(sphere):
    frame, points = sphere
    seen = observed_points(points, frame.depth, frame, 0.02)
    facing = ((points - [0, 0, 2]) * points).sum(1)
    clearly_front, clearly_back = facing < -0.4, facing > 0.1
    assert seen[clearly_front].mean() > 0.98
    assert not seen[clearly_back].any()


def test_confidence_is_high_where_seen_and_falls_with_the_distance_from_evidence(sphere):
    frame, points = sphere
    seen = observed_points(points, frame.depth, frame, 0.02)
    confidence = confidence_of(points, seen, frame.depth, frame, voxel=0.03)
    assert confidence.min() >= 0 and confidence.max() <= 1
    assert np.median(confidence[seen]) > 0.9
    back = points[:, 2] > 2.45
    rim = ~seen & (points[:, 2] < 2.1)
    assert confidence[back].mean() < confidence[rim].mean() <= 0.5


def test_points_behind_the_camera_and_beside_the_image_have_no_depth(sphere):
    frame, _ = sphere
    points = np.float32([[0, 0, -1], [0, 0, 0], [50, 0, 2], [np.nan, 0, 1]])
    assert (depth_at(points, frame.depth, frame) == 0).all()
