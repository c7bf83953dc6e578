"""Scores against analytic answers and against a second implementation that shares no code with the first."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from nr_tracking.data.sequence import GroundTruth
from nr_tracking.deformation.matching import space_order
from nr_tracking.evaluation import baselines, metrics
from nr_tracking.evaluation.metrics import Mesh
from nr_tracking.evaluation.protocol import Candidate, Scores, score, subsequences, summary
from nr_tracking.types import InputError, Intrinsics

COUNT = 20_000


def sphere(radius: float = 0.5, centre: tuple[float, float, float] = (0, 0, 0), subdivisions: int = 4) -> Mesh:
    shape = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return Mesh((shape.vertices + centre).astype(np.float32), shape.faces.astype(np.int32))


def box(extents: tuple[float, float, float], centre: tuple[float, float, float] = (0, 0, 0)) -> Mesh:
    shape = trimesh.creation.box(extents).subdivide().subdivide()
    return Mesh((shape.vertices + centre).astype(np.float32), shape.faces.astype(np.int32))


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# A second implementation, as slow and as plain as it can be: ray parity, brute-force distances.


def plain_contains(mesh: Mesh, points: np.ndarray) -> np.ndarray:
    """Parity of crossings of a ray in a skewed direction, every ray against every triangle (Moeller, Trumbore 1997)."""
    direction = np.array([0.317, 0.241, 0.917])
    a, b, c = (mesh.vertices[mesh.faces[:, corner]].astype(np.float64) for corner in range(3))
    cross = np.cross(direction, c - a)
    determinant = np.einsum("ij,ij->i", b - a, cross)
    inside = []
    for point in points:
        offset = point - a
        u = np.einsum("ij,ij->i", offset, cross) / determinant
        q = np.cross(offset, b - a)
        v = q @ direction / determinant
        along = np.einsum("ij,ij->i", c - a, q) / determinant
        inside.append(np.count_nonzero((u >= 0) & (v >= 0) & (u + v <= 1) & (along > 0)) % 2 == 1)
    return np.array(inside)


def plain_nearest(queries: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    squared = ((queries[:, None] - targets[None]) ** 2).sum(axis=-1)
    return np.sqrt(squared.min(axis=1)), squared.argmin(axis=1)


def test_second_implementation_agrees_on_containment_and_iou() -> None:
    first, second = sphere(subdivisions=2), box((0.9, 0.6, 0.7), (0.1, 0.05, -0.08))
    points = metrics.cube_points(first.vertices, 1500, rng())
    for mesh in (first, second):
        np.testing.assert_array_equal(metrics.contains(mesh, points), plain_contains(mesh, points))
    a, b = plain_contains(first, points), plain_contains(second, points)
    assert metrics.intersection_over_union(first, second, points) == pytest.approx((a & b).sum() / (a | b).sum())


def test_second_implementation_agrees_on_chamfer_distances() -> None:
    ours, theirs = metrics.sample(sphere(), 700, rng(1)), metrics.sample(sphere(0.505), 800, rng(2))
    accuracy, to_true = plain_nearest(ours.points, theirs.points)
    completeness, to_ours = plain_nearest(theirs.points, ours.points)
    result = metrics.compare_samples(ours, theirs)
    assert result["accuracy"] == pytest.approx(accuracy.mean())
    assert result["completeness"] == pytest.approx(completeness.mean())
    assert result["chamfer_l1"] == pytest.approx((accuracy.mean() + completeness.mean()) / 2)
    assert result["chamfer_squared"] == pytest.approx((accuracy**2).mean() + (completeness**2).mean())
    agreement = [
        np.abs((ours.normals * theirs.normals[to_true]).sum(axis=1)).mean(),
        np.abs((theirs.normals * ours.normals[to_ours]).sum(axis=1)).mean(),
    ]
    assert result["normal_consistency"] == pytest.approx(np.mean(agreement))
    precision, recall = (accuracy < 0.01).mean(), (completeness < 0.01).mean()
    assert result["f_score"] == pytest.approx(2 * precision * recall / (precision + recall))


def test_iou_of_shifted_spheres_is_the_lens() -> None:
    radius, shift = 0.5, 0.2
    lens = np.pi * (4 * radius + shift) * (2 * radius - shift) ** 2 / 12
    whole = 4 / 3 * np.pi * radius**3
    points = metrics.cube_points(sphere().vertices, 100_000, rng())
    # The cube of points holds the first sphere whole; widen it so that the union is covered too.
    found = metrics.intersection_over_union(
        sphere(subdivisions=5), sphere(centre=(shift, 0, 0), subdivisions=5), 1.5 * points
    )
    assert found == pytest.approx(lens / (2 * whole - lens), abs=0.008)


def test_iou_points_fill_the_cube_of_side_1_1_around_the_box() -> None:
    bar = box((2.0, 0.5, 0.5), (3.0, 1.0, -1.0))
    points = metrics.cube_points(bar.vertices, COUNT, rng())
    np.testing.assert_allclose(points.min(axis=0), np.array([3, 1, -1]) - 1.1, atol=2e-3)
    np.testing.assert_allclose(points.max(axis=0), np.array([3, 1, -1]) + 1.1, atol=2e-3)


@pytest.mark.parametrize("scale", [0.8, 0.95])
def test_iou_of_a_scaled_cube_is_the_ratio_of_volumes(scale: float) -> None:
    whole = box((1, 1, 1))
    points = metrics.cube_points(whole.vertices, 100_000, rng())
    found = metrics.intersection_over_union(Mesh(whole.vertices * np.float32(scale), whole.faces), whole, points)
    assert found == pytest.approx(scale**3, abs=0.006)


def test_chamfer_of_parallel_planes_is_their_distance() -> None:
    # Two slabs whose broad sides dominate, one thicker by 2 d: each sample is d away from the other surface.
    distance = 0.02
    thin, thick = box((1, 1, 0.2)), box((1, 1, 0.2 + 2 * distance))
    flat = [
        Mesh(mesh.vertices, mesh.faces[np.ptp(mesh.vertices[mesh.faces][:, :, 2], axis=1) < 1e-6])
        for mesh in (thin, thick)
    ]
    result = metrics.compare_samples(metrics.sample(flat[0], 50_000, rng(1)), metrics.sample(flat[1], 50_000, rng(2)))
    assert result["chamfer_l1"] == pytest.approx(distance, rel=0.02)
    assert result["chamfer_squared"] == pytest.approx(2 * distance**2, rel=0.04)
    assert result["normal_consistency"] == pytest.approx(1.0)
    assert result["f_score"] == 0.0


def test_a_surface_against_itself_is_perfect_and_at_the_floor() -> None:
    shape = sphere()
    result = metrics.score_surface(shape, shape, COUNT, rng())
    floor = baselines.chamfer_floor(metrics.sample(shape, COUNT, rng(8)), shape, COUNT, rng(9))
    assert result.iou == 1.0
    assert result.chamfer_l1 == pytest.approx(floor, rel=0.02)
    # Mean distance to the nearest of n independent points on an area A is 0.5 sqrt(A / n).
    assert floor == pytest.approx(0.5 * np.sqrt(np.pi / COUNT), rel=0.03)


def test_correspondence_is_not_nearest_distance_on_a_turning_bar() -> None:
    # A square bar turned by 90 degrees about its axis looks the same; its points do not stay.
    bar = box((0.2, 0.2, 1.0))
    turn = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]], np.float32)
    points = baselines.corresponding_points(np.stack([bar.vertices, bar.vertices @ turn.T]), bar.faces, 5000, rng())
    moved = np.sqrt(2) * np.linalg.norm(points[0][:, :2], axis=1).mean()  # a chord of 90 degrees
    assert baselines.static_error(points)[1] == pytest.approx(moved)
    poses = [
        metrics.sample(Mesh(vertices, bar.faces), 5000, rng()) for vertices in (bar.vertices, bar.vertices @ turn.T)
    ]
    chain = baselines.nearest_neighbour_chain_error(points, poses)
    assert chain[1] == pytest.approx(moved, rel=0.01)  # the chain sees no motion at all


def test_curve_order_keeps_every_point_and_puts_neighbours_together() -> None:
    points = rng(5).random((4096, 3))
    order = space_order(points)
    np.testing.assert_array_equal(np.sort(order), np.arange(4096))
    steps = np.linalg.norm(np.diff(points[order], axis=0), axis=1)
    assert np.median(steps) < 0.2 * np.median(np.linalg.norm(np.diff(points, axis=0), axis=1))


def test_an_empty_surface_holds_nothing_and_cannot_be_sampled() -> None:
    empty = Mesh(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32))
    points = rng().random((10, 3))
    assert not metrics.contains(empty, points).any()
    with pytest.raises(InputError, match="no area"):
        metrics.sample(empty, 10, rng())


def moving_sphere(frames: int = 3, size: float = 0.4) -> GroundTruth:
    shape = sphere(radius=size / 2, centre=(0.3, -0.1, 2.0))
    vertices = np.stack([shape.vertices + np.float32([0.1 * size * frame, 0, 0]) for frame in range(frames)])
    return GroundTruth(vertices.astype(np.float32), shape.faces)


def perfect(truth: GroundTruth) -> Candidate:
    return Candidate([Mesh(frame, truth.faces) for frame in truth.vertices], truth.vertices)


def scored(candidate: Candidate, truth: GroundTruth, **options: int) -> Scores:
    return score("clip", candidate, truth, count=5000, **options)


def figures(scores: Scores) -> np.ndarray:
    """Every score of every frame, (T, scores), but the share of tracks that are there."""
    return np.array([[value for key, value in frame.as_dict().items() if key != "tracked"] for frame in scores.frames])


def test_scores_are_in_units_of_the_first_frames_longest_edge() -> None:
    for size in (0.4, 3.0):
        truth = moving_sphere(size=size)
        result = scored(perfect(truth), truth)
        assert [frame.static_corr for frame in result.frames] == pytest.approx([0, 0.1, 0.2], abs=1e-5)
        assert result.mean()["iou"] == pytest.approx(1.0)
        assert result.mean()["chamfer_l1"] == pytest.approx(result.chamfer_floor, rel=0.05)
        # Tracks are tied to samples that lie within half a sample's distance of them.
        assert result.mean()["corr"] < 0.02


def test_static_tracks_score_what_the_static_baseline_says() -> None:
    truth = moving_sphere()
    still = Candidate(perfect(truth).meshes, np.repeat(truth.vertices[:1], 3, axis=0))
    result = scored(still, truth).mean()
    assert result["corr"] == pytest.approx(result["static_corr"], rel=0.05)


def test_a_dropped_frame_is_scored_with_the_surface_before_it() -> None:
    truth = moving_sphere()
    meshes: list[Mesh | None] = list(perfect(truth).meshes)
    meshes[2] = None
    tracks = truth.vertices.copy()
    tracks[2] = np.nan
    held = scored(Candidate(meshes, tracks), truth)
    same = scored(Candidate([meshes[0], meshes[1], meshes[1]], np.stack([*tracks[:2], tracks[1]])), truth)
    np.testing.assert_array_equal(figures(held), figures(same))
    assert held.missing == [2]
    assert held.frames[2].surface is not None and held.frames[2].surface.iou < 0.9


def test_the_worst_frame_shows_what_is_there_and_what_is_missing() -> None:
    near, far = sphere(0.2, (0, 0, 2)), sphere(0.2, (0.6, 0, 2))
    vertices = np.concatenate([near.vertices, far.vertices])
    truth = GroundTruth(np.stack([vertices] * 3), np.concatenate([near.faces, far.faces + len(near.vertices)]))
    candidate = perfect(truth)
    candidate.meshes[1] = near
    worst = scored(candidate, truth).worst
    assert worst is not None and worst.frame == 1 and worst.surface is near
    half = len(near.vertices)
    assert worst.error.max() < 0.03 and worst.missed[:half].max() < 0.03
    # The centres are 0.6 of the longest edge apart; the nearest of the other ball's surface is 0.2 of it away.
    assert worst.missed[half:].min() == pytest.approx(0.2, abs=0.03) and worst.missed[half:].max() > 0.55


def test_a_truth_whose_faces_look_inwards_is_turned() -> None:
    truth = moving_sphere()
    inwards = GroundTruth(truth.vertices, truth.faces[:, ::-1])
    found, expected = (figures(scored(perfect(truth), true)) for true in (inwards, truth))
    np.testing.assert_allclose(found, expected, rtol=0.02, atol=1e-6)
    lens = Intrinsics(width=64, height=48, fx=60.0, fy=60.0, cx=31.5, cy=23.5)
    scans = [Mesh(vertices, inwards.faces) for vertices in truth.vertices]
    seen = scored(perfect(truth), inwards, intrinsics=lens).mean()
    assert 0 <= seen["visible_error"] < 0.05 and 0 <= seen["hidden_error"] < 0.05
    assert 0 <= scored(perfect(truth), inwards, intrinsics=lens, scans=scans).mean()["hidden_error"] < 0.05


def test_a_vertex_that_belongs_to_no_face_is_not_in_the_box() -> None:
    mesh = sphere(0.2, (0, 0, 2))
    stray = Mesh(np.concatenate([mesh.vertices, [[9.0, 9.0, 9.0]]]).astype(np.float32), mesh.faces)
    scores = [metrics.score_surface(mesh, true, 2000, np.random.default_rng(0)) for true in (mesh, stray)]
    assert scores[0].iou == scores[1].iou == 1.0


def test_no_surface_at_all_scores_zero_not_nothing() -> None:
    truth = moving_sphere()
    nothing = scored(Candidate([None] * 3, np.full((3, 4, 3), np.nan, np.float32)), truth).mean()
    assert nothing["iou"] == 0.0
    assert np.isnan(nothing["corr"]) and np.isnan(nothing["chamfer_l1"])


def test_scores_are_the_same_for_a_seed_and_differ_between_seeds() -> None:
    truth = moving_sphere()
    first, again, other = (figures(scored(perfect(truth), truth, seed=seed)) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other, equal_nan=True)


def test_rows_that_do_not_match_are_refused() -> None:
    truth = moving_sphere()
    with pytest.raises(InputError, match="2 meshes, 3 rows of tracks, 3 true frames"):
        scored(Candidate(perfect(truth).meshes[:2], truth.vertices), truth)


def test_subsequences_and_their_mean() -> None:
    assert list(subsequences(35)) == [0, 17]
    assert list(subsequences(35, stride=1, offset=15)) == [15, 16, 17, 18]
    with pytest.raises(InputError, match="16 frames"):
        list(subsequences(16))
    truth = moving_sphere()
    results = [scored(perfect(truth), truth, seed=seed) for seed in (1, 2)]
    assert summary(results)["corr"] == pytest.approx(np.mean([item.mean()["corr"] for item in results]))


def test_a_camera_that_moves_is_no_motion_of_the_subject() -> None:
    """What is seen by a moving camera scores as it does for one that stands where the first image was taken."""
    truth = moving_sphere()
    lost = truth.vertices.copy()
    lost[2, ::3] = np.nan
    meshes: list[Mesh | None] = [*perfect(truth).meshes[:2], None]
    poses = np.stack([np.eye(4)] * 3)
    for frame in range(3):
        angle = 0.3 * frame
        poses[frame, :3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
        poses[frame, :3, 3] = 0.2 * frame, 0.5, -0.1 * frame

    def seen(points: np.ndarray, frame: int) -> np.ndarray:
        world = points @ poses[0, :3, :3].T + poses[0, :3, 3]
        return ((world - poses[frame, :3, 3]) @ poses[frame, :3, :3]).astype(np.float32)

    moving = GroundTruth(np.stack([seen(row, frame) for frame, row in enumerate(truth.vertices)]), truth.faces)
    tracks = np.stack([seen(row, frame) for frame, row in enumerate(lost)])
    found = [None if mesh is None else Mesh(seen(mesh.vertices, t), mesh.faces) for t, mesh in enumerate(meshes)]
    standing = scored(Candidate(meshes, lost, np.ones(lost.shape[:2], np.float32)), truth)
    carried = scored(Candidate(found, tracks, np.ones(lost.shape[:2], np.float32)), moving, poses=poses)
    np.testing.assert_allclose(figures(carried), figures(standing), atol=2e-3)
    assert scored(Candidate(found, tracks), moving).mean()["static_corr"] > 2 * standing.mean()["static_corr"]
    with pytest.raises(InputError, match="2 poses of the camera for 3 true frames"):
        scored(Candidate(found, tracks), moving, poses=poses[:2])
