"""Surfaces without a network against shapes whose backs are known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from ball_recording import CONFIG, ball_frames, ball_truth, write_ball

from nr_tracking.commands.evaluate import evaluate_baselines, write_scores
from nr_tracking.data.clips import is_closed
from nr_tracking.data.rendering import render_depth
from nr_tracking.data.sequence import read_sequence
from nr_tracking.evaluation import classical_tracking, error_maps, metrics
from nr_tracking.evaluation.classical_surfaces import inflated_surface, observed_surface, poisson_surface
from nr_tracking.evaluation.classical_tracking import METHODS, classical_candidate
from nr_tracking.evaluation.metrics import Mesh
from nr_tracking.types import DepthFrame, InputError, Intrinsics

CAMERA = Intrinsics(width=200, height=150, fx=180.0, fy=180.0, cx=99.5, cy=74.5)


def cylinder(radius: float = 0.12, height: float = 0.9, centre: tuple[float, float, float] = (0, 0, 1.6)) -> Mesh:
    """An upright cylinder: along the y axis of the camera."""
    shape = trimesh.creation.cylinder(radius=radius, height=height, sections=64)
    vertices = np.asarray(shape.vertices)[:, [0, 2, 1]] * np.array([1, -1, 1]) + np.asarray(centre)
    return Mesh(vertices.astype(np.float32), shape.faces.astype(np.int32))


def seen(*shapes: Mesh) -> tuple[np.ndarray, np.ndarray]:
    vertices = np.concatenate([shape.vertices for shape in shapes])
    offsets = np.cumsum([0, *(len(shape.vertices) for shape in shapes[:-1])])
    faces = np.concatenate([shape.faces + offset for shape, offset in zip(shapes, offsets, strict=True)])
    depth = render_depth(vertices, faces, CAMERA)
    return depth, depth > 0


def iou(first: Mesh, second: Mesh) -> float:
    points = metrics.cube_points(second.vertices, 20_000, np.random.default_rng(0))
    return metrics.intersection_over_union(first, second, points)


def test_the_observed_sheet_lies_on_the_depth_and_faces_the_camera() -> None:
    depth, subject = seen(cylinder())
    sheet = observed_surface(depth, subject, CAMERA)
    column = np.round(sheet.vertices[:, 0] / sheet.vertices[:, 2] * CAMERA.fx + CAMERA.cx).astype(int)
    row = np.round(sheet.vertices[:, 1] / sheet.vertices[:, 2] * CAMERA.fy + CAMERA.cy).astype(int)
    np.testing.assert_allclose(sheet.vertices[:, 2], depth[row, column], rtol=1e-5)
    samples = metrics.sample(sheet, 2000, np.random.default_rng(0))
    assert ((samples.normals * samples.points).sum(axis=1) < 0).all()


def test_depth_that_jumps_tears_the_sheet() -> None:
    near, far = cylinder(0.05, centre=(0.05, 0, 1.2)), cylinder(0.12, centre=(0, 0, 2.0))
    sheet = observed_surface(*seen(near, far), CAMERA)
    assert np.ptp(sheet.vertices[:, 2][sheet.faces], axis=1).max() < 0.1
    assert sheet.vertices[:, 2].min() < 1.2 and sheet.vertices[:, 2].max() > 1.9


def test_an_inflated_cylinder_is_the_cylinder() -> None:
    truth = cylinder()
    surface = inflated_surface(*seen(truth), CAMERA)
    assert is_closed(surface.faces)
    assert iou(surface, truth) > 0.85
    deepest = surface.vertices[:, 2].max()
    assert deepest == pytest.approx(1.6 + 0.12, abs=0.02)
    # The back stays within the silhouette.
    assert not (render_depth(surface.vertices, surface.faces, CAMERA)[~seen(truth)[1]] > 0).any()


def test_a_poisson_surface_is_closed_meets_the_front_and_encloses_the_middle() -> None:
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.3)
    truth = Mesh((np.asarray(ball.vertices) + np.array([0, 0, 1.5])).astype(np.float32), ball.faces.astype(np.int32))
    depth, subject = seen(truth)
    surface = poisson_surface(depth, subject, CAMERA)
    assert is_closed(surface.faces)
    middle = np.array([[0, 0, 1.35], [0, 0, 0.9], [0.5, 0, 1.5], [0, 0, 2.4]])
    assert metrics.contains(surface, middle).tolist() == [True, False, False, False]
    front = metrics.sample(observed_surface(depth, subject, CAMERA), 2000, np.random.default_rng(0))
    inner = front.points[:, 2] < 1.35  # away from the rim, where the two part
    distance = metrics.sample(surface, 20_000, np.random.default_rng(1)).tree.query(front.points[inner])[0]
    assert np.median(distance) < 0.02


def test_too_little_to_make_a_surface_is_said() -> None:
    depth = np.zeros((CAMERA.height, CAMERA.width), np.float32)
    depth[40, 50:53] = 1.0
    for complete, _ in METHODS.values():
        with pytest.raises(InputError, match="do not make a triangle"):
            complete(depth, depth > 0, CAMERA)


def test_points_are_followed_on_classical_surfaces_but_not_on_a_sheet() -> None:
    frames = ball_frames(3)
    moved = np.linalg.norm(ball_truth(3).vertices[2].mean(axis=0) - ball_truth(3).vertices[0].mean(axis=0))
    graph = classical_candidate("inflated, graph", frames, CONFIG)
    assert all(mesh is not None for mesh in graph.meshes) and graph.seconds > 0
    step = np.linalg.norm(graph.tracks[2] - graph.tracks[0], axis=1)
    assert np.nanmedian(step) == pytest.approx(moved, rel=0.3)
    empty = DepthFrame(frames[1].stamp_ns, np.zeros_like(frames[1].depth), frames[1].intrinsics)
    sheet = classical_candidate("observed only", [frames[0], empty, frames[2]], CONFIG)
    assert [mesh is None for mesh in sheet.meshes] == [False, True, False] and sheet.tracks.shape == (3, 0, 3)


def test_the_time_of_a_method_is_its_own_and_not_that_of_reading_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(classical_tracking.time, "perf_counter", lambda: clock[0])

    def completed(*seen):
        clock[0] += 0.25
        return inflated_surface(*seen)

    def read():
        for frame in (*ball_frames(2), None):
            clock[0] += 8.0
            yield frame

    monkeypatch.setitem(METHODS, "slow", (completed, False))
    assert classical_candidate("slow", read(), CONFIG).seconds == pytest.approx(2 * 0.25 / 3)


def test_baselines_are_scored_on_the_same_subsequences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_maps, "TILE", 24)
    ball = read_sequence(write_ball(tmp_path / "ball", 6))
    scores = evaluate_baselines([ball], CONFIG, length=3, start_stride=3, points=500)
    assert [(item.method, item.start) for item in scores] == [(method, start) for method in METHODS for start in (0, 3)]
    means = {item.method: item.mean() for item in scores}
    assert means["inflated, graph"]["iou"] > 0.5 and means["inflated, graph"]["corr"] < 0.1
    assert np.isnan(means["observed only"]["corr"]) and means["observed only"]["chamfer_l1"] > 0
    ours = [replace(item, method="nr_tracking") for item in scores[:2]]
    folder = write_scores(tmp_path / "scores", ours, CONFIG, scores)
    stored = json.loads((folder / "scores.json").read_text())
    assert [item["method"] for item in stored["baselines"]] == [item.method for item in scores]
    assert stored["mean"]["iou"] == np.mean([item.mean()["iou"] for item in ours]) and len(stored["sequences"]) == 2
    rows = (folder / "scores.csv").read_text().splitlines()
    assert len(rows) == 1 + 3 * (2 + 6) and rows[-1].endswith('"Poisson, graph",ball')
