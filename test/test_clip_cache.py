"""Windows made in plain torch from a file of clips: the distances of libigl, and windows like those of a cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from nr_tracking import cli
from nr_tracking.config import load_config
from nr_tracking.data import distance, torch_distance
from nr_tracking.data.cameras import draw_camera, with_subject_of
from nr_tracking.data.clip_cache import (
    STRIDES,
    WINDOWS_PER_CLIP,
    ClipCache,
    GeneratedWindows,
    open_windows,
    write_clips,
)
from nr_tracking.data.clips import Clip
from nr_tracking.data.objects import rest_surface
from nr_tracking.data.synthesize import CLIP_FRAMES, synthesize_clips
from nr_tracking.data.windows import make_window
from nr_tracking.sensing.camera import back_project, project
from nr_tracking.training.journal import Journal
from nr_tracking.training.trainer import Plan, Run, train
from nr_tracking.types import InputError


def coarse(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """One of the generated things with a few hundred triangles, so that brute force is quick."""
    from skimage.measure import marching_cubes

    vertices, faces = rest_surface(kind, np.random.default_rng(1))
    low, cell = vertices.min(0) - 0.1, (np.ptp(vertices, axis=0).max() + 0.2) / 14
    grid = low + np.indices((15, 15, 15)).reshape(3, -1).T * cell
    field = distance.signed_distance(grid, vertices, faces).reshape(15, 15, 15)
    vertices, faces, _, _ = marching_cubes(field.astype(float), 0.0)
    return vertices * cell + low, faces.astype(np.int32)


def torch_signed(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    parts = (torch.from_numpy(np.asarray(part, np.float32)) for part in (points, vertices))
    return torch_distance.signed_distance(*parts, torch.from_numpy(faces)).numpy()


@pytest.mark.parametrize("case", ["closed", "open", "overlapping"])
def test_distances_are_those_of_libigl(case: str) -> None:
    vertices, faces = coarse("lump")
    if case == "open":
        faces = faces[vertices[faces].mean(1)[:, 1] < np.quantile(vertices[:, 1], 0.9)]
    elif case == "overlapping":
        faces = np.concatenate([faces, faces + len(vertices)])
        vertices = np.concatenate([vertices, vertices * 0.8 + [0.1, 0, 0]])
    points = np.random.default_rng(0).uniform(-0.7, 0.7, (1500, 3))
    theirs, ours = distance.signed_distance(points, vertices, faces), torch_signed(points, vertices, faces)
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=2e-5)
    exact = distance.winding_number(points, vertices, faces)
    sure = np.abs(exact - 0.5) > 0.02
    assert sure.mean() > 0.97
    np.testing.assert_array_equal(ours[sure] < 0, theirs[sure] < 0)
    winding = torch_distance.winding_number(*(torch.from_numpy(part) for part in (points, vertices, faces)))
    np.testing.assert_allclose(winding, exact, atol=0.02)


def test_far_from_the_origin_distances_are_as_exact() -> None:
    vertices, faces = coarse("tube")
    points = np.random.default_rng(0).uniform(-0.7, 0.7, (300, 3))
    away = np.array([1.5, -1.0, 6.0])
    near, far = torch_signed(points, vertices, faces), torch_signed(points + away, vertices + away, faces)
    np.testing.assert_allclose(far, near, atol=5e-6)


def test_degenerate_triangles_are_segments_and_points() -> None:
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0.5, 0, 0]])
    faces = np.array([[0, 1, 2], [0, 0, 0]], np.int32)
    found = torch_distance.unsigned_distance(
        torch.tensor([[0.5, 2.0, 0.0], [2.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]).double(),
        *(torch.from_numpy(part) for part in (vertices, faces)),
    )
    np.testing.assert_allclose(found, [2, 1, 1], atol=1e-9)


@pytest.fixture(scope="module")
def clip() -> Clip:
    vertices, faces = coarse("tube")
    step = np.arange(13)[:, None, None] * np.array([0.02, 0.0, 0.0])
    return Clip("walk", "object", "tube", (vertices + step).astype(np.float32), faces, 30.0)


@pytest.fixture(scope="module")
def file(clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clips.safetensors"
    assert write_clips(path, [clip, clip]) == 2
    return path


def test_a_window_made_in_torch_is_the_one_made_with_libigl(clip: Clip) -> None:
    one, other = (
        make_window(clip.every(3), 3, np.random.default_rng(5), near_points=300, far_points=150, device=device)
        for device in (None, torch.device("cpu"))
    )
    np.testing.assert_allclose(np.abs(one.sdf), np.abs(other.sdf), atol=2e-5)
    assert ((one.sdf < 0) == (other.sdf < 0)).mean() > 0.999
    for name in ("depth", "points", "surface", "normals", "visible", "up"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_clips_come_back_as_they_were(clip: Clip, file: Path) -> None:
    cache = ClipCache(file)
    back = cache[1]
    assert len(cache) == 2 and (back.name, back.family, back.identity, back.fps) == ("walk", "object", "tube", 30.0)
    np.testing.assert_array_equal(back.faces, clip.faces)
    np.testing.assert_allclose(back.vertices, clip.vertices, atol=2e-5)


def test_windows_of_clips_differ_by_number_and_epoch_and_by_nothing_else(file: Path, monkeypatch) -> None:
    monkeypatch.setattr("nr_tracking.data.windows.make_window.__defaults__", (None, 60, 30, None))
    windows, again = (open_windows(file, seed=1) for _ in range(2))
    assert isinstance(windows, GeneratedWindows) and len(windows) == windows.refresh() == 2 * WINDOWS_PER_CLIP
    one = windows.drawn(3, 0)
    np.testing.assert_array_equal(one.sdf, again.drawn(3, 0).sdf)
    assert one.sdf.shape == (5, 90) and one.stride in STRIDES
    for number, epoch in ((4, 0), (3, 1)):
        assert not np.array_equal(one.up, windows.drawn(number, epoch).up)
    assert not np.array_equal(one.up, open_windows(file, seed=2).drawn(3, 0).up)


def test_a_frame_alone_is_one_of_its_clip_on_a_small_image(file: Path) -> None:
    """One frame, its truth from libigl, the subject no longer than asked for; the same draw gives the same frame."""
    windows = GeneratedWindows(file, pixels=60, frames=1)
    for number in range(4):
        sample = windows.drawn(number, epoch=1)
        assert sample.depth.shape[0] == sample.points.shape[0] == 1
        rows, columns = np.nonzero(sample.depth[0])
        assert 40 <= max(np.ptp(rows), np.ptp(columns)) <= 60
        np.testing.assert_array_equal(sample.depth, windows.drawn(number, epoch=1).depth)
        assert not np.array_equal(sample.depth, windows.drawn(number, epoch=2).depth)
        # What is seen lies on the surface, wherever pixels fall on the coarser image.
        cloud = back_project(sample.depth[0], sample.intrinsics)[sample.depth[0] > 0]
        away = cKDTree(sample.surface[0]).query(cloud)[0]
        assert np.median(away) < 0.05 * np.ptp(sample.surface[0], axis=0).max()


def test_a_coarser_image_shows_the_same_view() -> None:
    points = np.random.default_rng(0).uniform(-0.4, 0.4, (500, 3))
    camera = draw_camera(points, np.random.default_rng(3), size=(640, 480), fill=0.9)
    coarse = with_subject_of(100, points, camera)
    here, there = (project(one.to_camera(points), one.intrinsics) for one in (camera, coarse))
    factor = (coarse.intrinsics.width / 640, coarse.intrinsics.height / 480)
    np.testing.assert_allclose((here + 0.5) * factor - 0.5, there, atol=1e-9)
    assert 99 <= np.ptp(there, axis=0).max() <= 101
    assert with_subject_of(2000, points, camera).intrinsics == camera.intrinsics


def test_windows_of_clips_have_as_many_frames_as_are_asked_for(file: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("nr_tracking.data.windows.make_window.__defaults__", (None, 60, 30, None))
    sample = GeneratedWindows(file, frames=2).drawn(3, 0)
    assert sample.depth.shape[0] == 2 and sample.sdf.shape == (2, 90)
    for schedule, frames in (("completion", 3), ("rays", 1)):
        model = {"rays": True} if schedule == "rays" else {}
        config = load_config("test", model=model, training={"window_frames": 3, "workers": 0})
        run = Run(config, file, tmp_path / schedule, schedule, Plan(1, None), None, None)
        assert len(run.cache.drawn(0, 0).depth) == frames


def test_training_makes_its_windows_from_a_file_of_clips(file: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("nr_tracking.data.windows.make_window.__defaults__", (None, 200, 100, None))
    training = {"points": 60, "hidden_points": 20, "empty_points": 20, "surface_points": 20, "contrast_points": 16}
    config = load_config("test", training={**training, "workers": 0})
    train(config, file, tmp_path / "run", steps=2)
    assert len(list(Journal(tmp_path / "run" / "log.jsonl").entries("step"))) == 2


def test_a_file_of_clips_is_made_and_what_is_none_is_named(file: Path, tmp_path: Path) -> None:
    made = tmp_path / "x.safetensors"
    assert cli.main(["synthesize", str(made), "--clips", "1", "--families", "object=1", "--split", "val"]) == 0
    assert ClipCache(made)[0].vertices.shape[0] == CLIP_FRAMES and "-val-" in ClipCache(made).about[0]["identity"]
    assert isinstance(open_windows(file), GeneratedWindows)
    with pytest.raises(InputError, match="synthesize"):
        ClipCache(tmp_path / "nothing")
    with pytest.raises(InputError, match="manifest"):
        open_windows(tmp_path / "nowhere")
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(1)}, tmp_path / "other")
    with pytest.raises(InputError, match="something else"):
        ClipCache(tmp_path / "other")
    (tmp_path / "torn").write_bytes(file.read_bytes()[:500])
    with pytest.raises(InputError, match="cannot be read"):
        ClipCache(tmp_path / "torn")
    with pytest.raises(InputError, match="no clip"):
        write_clips(tmp_path / "none", [])
    with pytest.raises(InputError, match="clips = 0"):
        synthesize_clips(tmp_path / "none", clips=0)
    short = Clip("s", "object", "s", np.zeros((2, 3, 3), np.float32), np.array([[0, 1, 2]], np.int32))
    write_clips(tmp_path / "short", [short])
    with pytest.raises(InputError, match="too few"):
        open_windows(tmp_path / "short")[0]
