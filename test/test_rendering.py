"""The rasteriser against analytic depth, a brute-force ray caster, and occlusion."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import ConvexHull

from nr_tracking.data.rendering import rasterize, render_depth, visible_points
from nr_tracking.types import Intrinsics

CAMERA = Intrinsics(80, 60, 90.0, 85.0, 38.3, 29.6)


def rays(intrinsics: Intrinsics) -> np.ndarray:
    v, u = np.mgrid[: intrinsics.height, : intrinsics.width]
    x, y = (u - intrinsics.cx) / intrinsics.fx, (v - intrinsics.cy) / intrinsics.fy
    return np.stack([x, y, np.ones_like(x)], -1)


def sphere(count: int, radius: float, centre: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    k = np.arange(count) + 0.5
    polar, turn = np.arccos(1 - 2 * k / count), np.pi * (1 + 5**0.5) * k
    unit = np.stack([np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], -1)
    faces = ConvexHull(unit).simplices.copy()
    a, b, c = unit[faces[:, 0]], unit[faces[:, 1]], unit[faces[:, 2]]
    inward = (np.cross(b - a, c - a) * a).sum(-1) < 0
    faces[inward] = faces[inward][:, ::-1]
    return unit * radius + np.array(centre), faces


def brute_force(vertices: np.ndarray, faces: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
    """Moeller-Trumbore of every ray with every triangle."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    ray = rays(intrinsics).reshape(-1, 1, 3)
    side = np.cross(ray, c - a)
    det = ((b - a) * side).sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        u = (-a * side).sum(-1) / det
        q = np.cross(-a, b - a)
        v = (ray * q).sum(-1) / det
        t = ((c - a) * q).sum(-1) / det
    hit = (det != 0) & (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
    depth = np.where(hit, t, np.inf).min(1).reshape(intrinsics.height, intrinsics.width)
    return np.where(np.isfinite(depth), depth, 0)


def test_a_tilted_plane_has_its_analytic_depth_at_every_pixel() -> None:
    normal, offset = np.array([0.3, -0.2, 1.0]), 2.0
    corners = np.array([[-9.0, -9, 0], [9, -9, 0], [9, 9, 0], [-9, 9, 0]])
    corners[:, 2] = (offset - corners[:, :2] @ normal[:2]) / normal[2]
    depth = render_depth(corners, [[0, 1, 2], [0, 2, 3]], CAMERA)
    np.testing.assert_allclose(depth, offset / (rays(CAMERA) @ normal), rtol=1e-6)


def test_a_sphere_has_its_analytic_depth() -> None:
    centre, radius = np.array([0.05, -0.1, 2.0]), 0.5
    vertices, faces = sphere(20_000, radius, (0.05, -0.1, 2.0))
    depth = render_depth(vertices, faces, CAMERA)
    ray = rays(CAMERA)
    half = (ray * centre).sum(-1)
    square = (ray**2).sum(-1)
    root = half**2 - square * (centre @ centre - radius**2)
    expected = (half - np.sqrt(np.clip(root, 0, None))) / square
    inner = root > 0.02
    np.testing.assert_allclose(depth[inner], expected[inner], atol=2e-3)
    assert (depth[root < -0.01] == 0).all() and (depth[inner] > 0).all()


def test_the_nearer_mesh_hides_the_farther_one_whatever_their_order() -> None:
    near, near_faces = sphere(300, 0.2, (0.0, 0.0, 1.0))
    far, far_faces = sphere(300, 0.6, (0.0, 0.0, 2.0))
    one = rasterize(np.vstack([near, far]), np.vstack([near_faces, far_faces + 300]), CAMERA)
    two = rasterize(np.vstack([far, near]), np.vstack([far_faces, near_faces + 300]), CAMERA)
    torch.testing.assert_close(one[0], two[0])
    assert one[0][30, 38] == pytest.approx(0.8, abs=0.01)
    assert one[1][30, 38] < len(near_faces) <= two[1][30, 38] + len(near_faces)
    assert ((one[1] >= 0) == (one[0] > 0)).all()


def test_it_equals_a_brute_force_ray_caster_even_with_triangles_behind_the_camera() -> None:
    generator = np.random.default_rng(3)
    vertices = generator.normal(size=(60, 3)) * [0.8, 0.8, 0.7] + [0, 0, 1.0]
    faces = generator.integers(0, 60, size=(40, 3))
    expected = brute_force(vertices, faces, CAMERA)
    depth = render_depth(vertices, faces, CAMERA)
    assert (vertices[faces][:, :, 2].min(1) < 0).any()
    close = expected > 2e-3
    np.testing.assert_allclose(depth[close], expected[close], rtol=1e-5)
    assert (depth[expected == 0] == 0).all()


def test_chunking_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vertices, faces = sphere(400, 0.5, (0.0, 0.1, 1.2))
    whole = rasterize(vertices, faces, CAMERA)
    monkeypatch.setattr("nr_tracking.data.rendering._CANDIDATES", 50)
    parts = rasterize(vertices, faces, CAMERA)
    torch.testing.assert_close(whole[0], parts[0])
    torch.testing.assert_close(whole[1], parts[1])


def test_culling_shows_the_inside_of_the_far_wall_only_from_within() -> None:
    vertices, faces = sphere(400, 1.0, (0.0, 0.0, 0.2))
    assert rasterize(vertices, faces, CAMERA, cull=True)[0].max() == 0
    outside = sphere(400, 0.3, (0.0, 0.0, 2.0))
    torch.testing.assert_close(rasterize(*outside, CAMERA, cull=True)[0], rasterize(*outside, CAMERA)[0])


def test_nothing_to_see_is_an_empty_image() -> None:
    depth, face = rasterize(np.zeros((0, 3)), np.zeros((0, 3), int), CAMERA)
    assert depth.shape == (60, 80) and not depth.any() and (face == -1).all()


def test_visible_points_are_those_on_the_near_half_of_a_sphere() -> None:
    vertices, faces = sphere(4000, 0.5, (0.0, 0.0, 2.0))
    seen = visible_points(vertices, render_depth(vertices, faces, CAMERA), CAMERA, slack=0.02).numpy()
    facing = ((vertices - [0, 0, 2.0]) * -vertices).sum(-1) / np.linalg.norm(vertices, axis=1) / 0.5
    assert seen[facing > 0.4].all() and not seen[facing < -0.2].any()
