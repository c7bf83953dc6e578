"""Generated bodies and things: closed, corresponding, moving."""

from __future__ import annotations

import numpy as np
import pytest

from nr_tracking.data.character import Character
from nr_tracking.data.clips import (
    Clip,
    boundary_loops,
    edge_use,
    is_closed,
    sample_surface,
    static_correspondence_error,
)
from nr_tracking.data.distance import nearest_point, signed_distance, winding_number
from nr_tracking.data.objects import KINDS, object_clip
from nr_tracking.data.procedural import draw_person, procedural_clip
from nr_tracking.data.remeshing import cap_holes, carry, smooth, surface_of_field, wrap
from nr_tracking.data.skeleton import Skeleton, rotation_between, rotations, skin, weights_by_distance


def volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


def ball(radius: float = 0.5, cell: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    return surface_of_field(lambda q: np.linalg.norm(q, axis=1) - radius, np.full(3, -radius), np.full(3, radius), cell)


@pytest.mark.parametrize("kind", ["person", "quadruped"])
def test_a_generated_body_is_closed_outward_and_moves(kind: str) -> None:
    clip = procedural_clip(np.random.default_rng(4), 17, kind=kind)
    assert clip.vertices.shape == (17, clip.faces.max() + 1, 3) and clip.vertices.dtype == np.float32
    assert is_closed(clip.faces)
    assert all(volume(frame.astype(float), clip.faces) > 1e-3 for frame in clip.vertices[::8])
    assert static_correspondence_error(clip.vertices) > 0.01
    height = np.ptp(clip.vertices[0], axis=0).max()
    assert 0.3 < height < 2.5
    speed = np.linalg.norm(np.diff(clip.vertices, axis=0), axis=-1).max()
    assert speed < 0.35 * height, "a vertex jumped between frames"


def test_a_seed_gives_the_same_clip_and_another_seed_another_body() -> None:
    first, again = (procedural_clip(np.random.default_rng(7), 3, kind="person") for _ in range(2))
    other = procedural_clip(np.random.default_rng(8), 3, kind="person")
    np.testing.assert_array_equal(first.vertices, again.vertices)
    assert first.vertices.shape != other.vertices.shape


@pytest.mark.parametrize("kind", KINDS)
def test_things_are_closed_and_deform_beyond_rigid_motion(kind: str) -> None:
    clip = object_clip(np.random.default_rng(2), 17, kind=kind)
    assert is_closed(clip.faces) and clip.family == "object"
    edges = clip.faces[:, :2]
    lengths = np.linalg.norm(clip.vertices[:, edges[:, 0]] - clip.vertices[:, edges[:, 1]], axis=-1)
    assert np.abs(lengths / lengths[:1] - 1).max() > 0.05


def test_a_family_must_be_known() -> None:
    with pytest.raises(ValueError, match="none of"):
        Clip("x", "robot", "y", np.zeros((1, 3, 3), np.float32), np.zeros((1, 3), np.int32))


def test_signed_distance_of_a_ball_is_the_analytic_one() -> None:
    vertices, faces = ball(0.5, 0.02)
    points = np.random.default_rng(0).uniform(-0.8, 0.8, (3000, 3))
    expected = np.linalg.norm(points, axis=1) - 0.5
    np.testing.assert_allclose(signed_distance(points, vertices, faces), expected, atol=2e-3)


def test_an_open_and_a_doubly_covered_shape_have_an_inside() -> None:
    vertices, faces = ball()
    opened = faces[vertices[faces].mean(1)[:, 1] < 0.45]
    assert not is_closed(opened)
    two, twice = np.vstack([vertices, np.add(vertices, [0.3, 0, 0])]), np.vstack([faces, faces + len(vertices)])
    for mesh in ((vertices, opened), (two, twice)):
        signs = signed_distance(np.array([[0.15, 0, 0], [0, 0, 0], [2.0, 0, 0]]), *mesh) < 0
        assert signs.tolist() == [True, True, False]
    assert winding_number(np.array([[0.15, 0, 0]]), two, twice) == pytest.approx(2, abs=0.05)


def test_wrapping_makes_one_closed_skin_around_overlapping_and_open_parts() -> None:
    vertices, faces = ball(0.5, 0.04)
    opened = faces[vertices[faces].mean(1)[:, 1] < 0.48]
    soup = np.vstack([vertices, vertices * 0.6 + [0.5, 0, 0]])
    skin_vertices, skin_faces = wrap(soup, np.vstack([opened, faces + len(vertices)]), 0.03)
    assert is_closed(skin_faces)
    assert nearest_point(skin_vertices, soup, np.vstack([faces, faces + len(vertices)]))[0].max() < 0.03
    inner = nearest_point(np.array([[0.21, 0.0, 0.0]]), skin_vertices, skin_faces)[0]
    assert inner > 0.15, "the small ball's hidden wall must not be part of the skin"
    shade = carry(soup, soup, np.vstack([faces, faces + len(vertices)]), skin_vertices)
    assert np.abs(shade - skin_vertices).max() < 0.03


def test_holes_are_capped_by_fans() -> None:
    vertices, faces = ball()
    kept = faces[np.abs(vertices[faces].mean(1)[:, 1]) < 0.3]
    assert len(boundary_loops(kept)) == 2
    closed_vertices, closed, rims = cap_holes(vertices, kept)
    assert is_closed(closed) and len(rims) == 2 and (edge_use(closed) == 2).all()
    assert volume(closed_vertices, closed) > 0


def test_smoothing_takes_noise_away_and_keeps_the_size() -> None:
    vertices, faces = ball(0.5, 0.04)
    rough = vertices + np.random.default_rng(0).normal(size=vertices.shape) * 0.005
    even = smooth(rough, faces, 10)
    radius = np.linalg.norm(even, axis=1)
    assert radius.std() < 0.4 * np.linalg.norm(rough, axis=1).std()
    assert radius.mean() == pytest.approx(0.5, rel=0.01)


def test_points_are_drawn_evenly_by_area() -> None:
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 3], [3, 0, 3], [0, 3, 3]])
    face, weights = sample_surface(vertices, np.array([[0, 1, 2], [3, 4, 5]]), 5000, np.random.default_rng(0))
    assert (face == 1).mean() == pytest.approx(0.9, abs=0.02)
    assert (weights >= 0).all() and np.allclose(weights.sum(1), 1)
    np.testing.assert_allclose(weights.mean(0), 1 / 3, atol=0.02)


def arm() -> Skeleton:
    heads = np.array([[0.0, 1, 0], [1.0, 1, 0]])
    return Skeleton(("upper", "lower"), (-1, 0), heads, np.add(heads, [1.0, 0, 0]))


def test_skinning_turns_what_hangs_on_a_joint_about_it() -> None:
    skeleton = arm()
    world = np.broadcast_to(np.eye(3), (1, 2, 3, 3)).copy()
    world[0, 1] = rotations(np.array([0.0, 0, np.pi / 2]))
    points = np.array([[0.5, 1, 0], [2.0, 1, 0]])
    moved = skin(points, np.eye(2), skeleton, world, np.array([[0.0, 1, 5]]))
    np.testing.assert_allclose(moved[0], [[0.5, 1, 5], [1, 2, 5]], atol=1e-6)


def test_weights_follow_the_nearest_bone_and_sum_to_one() -> None:
    weights = weights_by_distance(np.array([[0.2, 1, 0.1], [1.0, 1, 0.1], [1.8, 1, 0.1]]), arm(), np.full(2, 0.1), 0.1)
    np.testing.assert_allclose(weights.sum(1), 1)
    assert weights[0, 0] > 0.99 and weights[2, 1] > 0.99 and weights[1, 0] == pytest.approx(0.5)


def test_a_child_before_its_parent_is_refused() -> None:
    with pytest.raises(ValueError, match="before its parent"):
        Skeleton(("a", "b"), (1, -1), np.zeros((2, 3)), np.zeros((2, 3)))


def test_shortest_rotations_even_between_opposite_directions() -> None:
    source = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    target = np.array([[0.0, 1, 0], [0, -1, 0], [0, 0, 1]])
    turn = rotation_between(source, target)
    np.testing.assert_allclose(np.einsum("nab,nb->na", turn, source), target, atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(turn), 1)
    np.testing.assert_allclose(turn[2], np.eye(3), atol=1e-9)


def test_a_skirt_swings_more_than_the_body_that_wears_it() -> None:
    for seed in range(20):
        body = draw_person(np.random.default_rng(seed))
        if (body.looseness > 0.5).mean() > 0.02:
            break
    world = np.broadcast_to(np.eye(3), (25, len(body.skeleton.names), 3, 3)).copy()
    turn = rotations(np.linspace(0, 3, 25)[:, None] * [0.0, 1, 0])
    world = turn[:, None] @ world
    root = np.repeat(body.skeleton.heads[:1], 25, 0)
    clip = body.posed("turn", world, root, 30.0, np.random.default_rng(0))
    stiff = Character(**{**vars(body), "looseness": np.zeros(len(body.vertices))})
    difference = np.linalg.norm(
        clip.vertices - stiff.posed("turn", world, root, 30.0, np.random.default_rng(0)).vertices, axis=-1
    )
    assert difference[:, body.looseness == 0].max() < 1e-6
    assert difference[-1, body.looseness > 0.5].mean() > 0.003
