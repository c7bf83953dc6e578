"""Training windows, their cache, the split, and recordings."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nr_tracking import cli
from nr_tracking.data import contact_sheet, splits, synthesize
from nr_tracking.data.cache import (
    WindowCache,
    WindowSample,
    pack_depth,
    pack_points,
    read_manifest,
    unpack_depth,
    unpack_points,
    write_manifest,
    write_shard,
)
from nr_tracking.data.cameras import IMAGE_SIZES, Camera, draw_camera, draw_close_up
from nr_tracking.data.clips import Clip, static_correspondence_error
from nr_tracking.data.distance import signed_distance
from nr_tracking.data.families import FAMILIES, available_families
from nr_tracking.data.objects import object_clip, rest_surface
from nr_tracking.data.recordings import make_recordings, record
from nr_tracking.data.sequence import read_sequence
from nr_tracking.data.splits import split_of_character, split_of_clothes, split_of_motion
from nr_tracking.data.windows import make_window
from nr_tracking.types import InputError

SMALL = {"procedural": 0.0, "object": 1.0}


@pytest.fixture(scope="module")
def ball_window() -> WindowSample:
    """A ball of radius 0.45 / 1.2 to 0.45 that walks 0.1 m a frame."""
    vertices, faces = rest_surface("ball", np.random.default_rng(0))
    vertices = vertices / np.linalg.norm(vertices, axis=1, keepdims=True) * 0.4
    steps = np.arange(5)[:, None, None] * [0.1, 0, 0]
    clip = Clip("walk", "object", "ball", (vertices + steps).astype(np.float32), faces, 30.0)
    return make_window(clip, 2, np.random.default_rng(1), near_points=900, far_points=600)


def centres(window: WindowSample) -> np.ndarray:
    return window.surface.astype(float).mean(1)


def test_a_window_knows_the_distance_to_the_surface(ball_window: WindowSample) -> None:
    # The ball is a polyhedron: its faces lie a little inside the sphere.
    for frame, points in enumerate(ball_window.points):
        centre = np.linalg.lstsq(
            np.c_[2 * ball_window.surface[frame], np.ones(1500)], (ball_window.surface[frame] ** 2).sum(1), rcond=None
        )[0][:3]
        expected = np.linalg.norm(points - centre, axis=1) - 0.4
        np.testing.assert_allclose(ball_window.sdf[frame], expected, atol=2e-3)


def test_a_windows_points_lie_around_the_surface_and_throughout_the_cube(ball_window: WindowSample) -> None:
    near, far = ball_window.sdf[:, : ball_window.near], ball_window.points[:, ball_window.near :]
    assert np.median(np.abs(near)) < 0.03 and np.abs(near).max() < 0.4
    side = np.ptp(far.reshape(-1, 3), axis=0)
    np.testing.assert_allclose(side, side[0], rtol=0.02)
    assert (far.min(1) < ball_window.surface.min((0, 1))).all(), "the cube holds the whole ball in all frames"
    assert (far.max(1) > ball_window.surface.max((0, 1))).all()


def test_a_windows_images_show_the_surface_points_that_it_calls_visible(ball_window: WindowSample) -> None:
    camera = ball_window.intrinsics
    assert ball_window.depth.shape[1:] == (camera.height, camera.width)
    for frame in range(5):
        points = ball_window.surface[frame]
        facing = (ball_window.normals[frame] * points).sum(1) / np.linalg.norm(points, axis=1)
        np.testing.assert_allclose(np.linalg.norm(ball_window.normals[frame], axis=1), 1, atol=1e-3)
        assert not ball_window.visible[frame][facing > 0.2].any()
        u = points[:, 0] / points[:, 2] * camera.fx + camera.cx
        v = points[:, 1] / points[:, 2] * camera.fy + camera.cy
        inside = (u > 1) & (v > 1) & (u < camera.width - 2) & (v < camera.height - 2)
        assert ball_window.visible[frame][(facing < -0.5) & inside].all()
        seen = ball_window.visible[frame] & inside
        there = ball_window.depth[frame][np.rint(v[seen]).astype(int), np.rint(u[seen]).astype(int)]
        assert np.median(np.abs(there - points[seen, 2])) < 0.01


def test_surface_points_correspond_over_time(ball_window: WindowSample) -> None:
    steps = np.diff(ball_window.surface, axis=0)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=-1), 0.1, atol=1e-4)
    np.testing.assert_allclose(steps - steps[:, :1], 0, atol=1e-4)


def test_what_is_hardly_seen_is_no_window() -> None:
    vertices, faces = rest_surface("tube", np.random.default_rng(0))
    clip = Clip("still", "object", "tube", np.repeat(vertices[None], 2, 0).astype(np.float32), faces)
    rng = np.random.default_rng(0)
    away = draw_camera(clip.vertices, rng, size=(320, 240), fill=0.02)
    with pytest.raises(InputError, match="pixels on the subject"):
        make_window(clip, 1, rng, away)


def test_cameras_stand_all_around_and_hold_the_subject() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (50, 3)) * [0.3, 0.9, 0.3]
    ups, sides = [], []
    for seed in range(60):
        camera = draw_camera(points, np.random.default_rng(seed), fill=0.6, aim_off=0.0)
        np.testing.assert_allclose(camera.rotation @ camera.rotation.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(camera.rotation) == pytest.approx(1)
        seen = camera.to_camera(points)
        lens = camera.intrinsics
        u = seen[:, 0] / seen[:, 2] * lens.fx + lens.cx
        v = seen[:, 1] / seen[:, 2] * lens.fy + lens.cy
        assert seen[:, 2].min() > 0.25 and (lens.width, lens.height) in IMAGE_SIZES
        assert (np.abs(u - lens.width / 2) < 0.55 * lens.width).all()
        assert (np.abs(v - lens.height / 2) < 0.55 * lens.height).all()
        ups.append(camera.up)
        sides.append(np.arctan2(*camera.rotation[2, [0, 2]]))
    assert (np.array(ups)[:, 1] < -0.6).all(), "up in the world is up in the image"
    assert np.ptp(sides) > 5


def test_a_close_up_shows_a_part_and_nothing_comes_behind_the_camera() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (2, 400, 3)) * [0.25, 0.9, 0.15]
    shown, heights = [], []
    for seed in range(100):
        camera = draw_close_up(points, np.random.default_rng(seed))
        lens, seen = camera.intrinsics, camera.to_camera(points.reshape(-1, 3))
        assert seen[:, 2].min() > 0.29 and camera.place[1] > points[..., 1].min() + 0.04
        u = seen[:, 0] / seen[:, 2] * lens.fx + lens.cx
        v = seen[:, 1] / seen[:, 2] * lens.fy + lens.cy
        inside = (u > -0.5) & (u < lens.width - 0.5) & (v > -0.5) & (v < lens.height - 0.5)
        shown.append(inside.mean())
        heights.append(points.reshape(-1, 3)[inside, 1].mean())
    assert 0.2 < np.mean(shown) < 0.6 and min(shown) > 0 and np.mean(np.array(shown) < 0.9) > 0.9
    assert 0.02 < np.mean(heights) < 0.5, "more often the upper half"


def test_points_around_the_surface_of_a_close_up_lie_where_the_picture_is() -> None:
    vertices, faces = rest_surface("tube", np.random.default_rng(0))
    clip = Clip("still", "object", "tube", np.repeat(vertices[None], 1, 0).astype(np.float32), faces)
    near = {}
    for close_up in (False, True):
        camera = draw_close_up(clip.vertices, np.random.default_rng(4))
        window = make_window(
            clip, 1, np.random.default_rng(1), camera, near_points=900, far_points=600, close_up=close_up
        )
        far = window.points[0, window.near :]
        low, high = far.min(0), far.max(0)
        near[close_up] = ((window.points[0, :900] > low) & (window.points[0, :900] < high)).all(1).mean()
        inside = signed_distance(window.points[0], camera.to_camera(clip.vertices[0].astype(np.float64)), faces)
        np.testing.assert_allclose(window.sdf[0], inside, atol=1e-5)
    assert near[True] > 0.9 and near[False] < 0.8


def test_no_camera_stands_below_the_floor_and_each_takes_as_many_random_numbers() -> None:
    points = np.random.default_rng(0).uniform(-1, 1, (50, 3)) * [0.3, 0.4, 0.9]
    raised = 0
    for seed in range(200):
        rng, on_a_hill = np.random.default_rng(seed), np.random.default_rng(seed)
        camera = draw_camera(points, rng)
        assert camera.place[1] > points[:, 1].min() + 0.05
        # With a well under the subject no camera is raised.
        draw_camera(np.concatenate([points, [[0, -9.0, 0]]]), on_a_hill)
        assert rng.random() == on_a_hill.random()
        looks_down = -camera.rotation[2, 1]
        raised += looks_down < 0.1
    assert 10 < raised < 100, "some look up or level still"


def test_packing_keeps_points_and_depth_closer_than_any_sensor() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(3, 200, 3)) * [0.5, 1, 0.5] + [0, 0, 2]
    assert np.abs(unpack_points(*pack_points(points)) - points).max() < 1e-4
    depth = np.where(rng.random((3, 40, 50)) < 0.5, rng.uniform(1, 3, (3, 40, 50)), 0).astype(np.float32)
    back = unpack_depth(*pack_depth(depth), depth.shape)
    assert ((back > 0) == (depth > 0)).all() and np.abs(back - depth).max() < 5e-5
    empty = np.zeros((1, 4, 4), np.float32)
    np.testing.assert_array_equal(unpack_depth(*pack_depth(empty), empty.shape), empty)


def test_the_cache_gives_back_what_was_written(tmp_path: Path, ball_window: WindowSample) -> None:
    entry = write_shard(tmp_path, 0, [ball_window, ball_window])
    write_manifest(tmp_path, {"format": 1, "shards": [entry]})
    cache = WindowCache(tmp_path)
    assert len(cache) == 2 and cache.families == ["object", "object"]
    back = cache[1]
    for key in (field.name for field in fields(WindowSample)):
        old, new = getattr(ball_window, key), getattr(back, key)
        if isinstance(old, np.ndarray):
            assert new.shape == old.shape and new.dtype == old.dtype, key
            np.testing.assert_allclose(new, old, atol={"normals": 0.01, "sdf": 5e-4}.get(key, 1e-4), err_msg=key)
        elif key != "intrinsics":
            assert new == old, key
    assert back.intrinsics.fx == pytest.approx(ball_window.intrinsics.fx)
    write_manifest(tmp_path, {"format": 1, "shards": [entry, write_shard(tmp_path, 1, [ball_window])]})
    assert cache.refresh() == 3 and cache[2].clip == "walk"


def test_a_contact_sheet_shows_which_side_was_seen(tmp_path: Path, ball_window: WindowSample) -> None:
    entry = write_shard(tmp_path, 0, [ball_window])
    write_manifest(tmp_path, {"format": 1, "shards": [entry]})
    tile = contact_sheet._TILE
    sheet = np.asarray(Image.open(contact_sheet.write_contact_sheet(tmp_path)).convert("RGB"))
    side = sheet[14 : 14 + tile, 2 * tile : 3 * tile].astype(int)
    orange = (side[..., 0] > side[..., 2] + 100) & (side[..., 1] > side[..., 2] + 50)
    blue = side[..., 2] > side[..., 0] + 50
    assert orange.sum() > 2000 and blue.sum() > 2000, "large enough to be seen"
    assert np.nonzero(orange)[1].mean() < tile / 2 < np.nonzero(blue)[1].mean(), "the camera is on the left"
    grey = side @ [0.299, 0.587, 0.114]
    assert 50 < grey[blue].mean() + 50 < grey[orange].mean() < 200, "also where it is printed in grey"


def test_a_missing_damaged_or_foreign_cache_is_named(tmp_path: Path, ball_window: WindowSample) -> None:
    with pytest.raises(InputError, match="synthesize"):
        WindowCache(tmp_path)
    for text, match in (("{", "damaged"), ('{"format": 99, "shards": []}', "format 99")):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(InputError, match=match):
            WindowCache(tmp_path)
    write_manifest(tmp_path, {"format": 1, "shards": [write_shard(tmp_path, 0, [ball_window])]})
    cache = WindowCache(tmp_path)
    (tmp_path / "shard_00000.npz").write_bytes(b"PK nothing")
    with pytest.raises(InputError, match=r"shard_00000\.npz is damaged"):
        cache[0]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two windows a shard, few points, in this process."""

    def made(folder: Path, recipe: dict, numbers: list[int], processes: int, nice: int) -> object:
        for number in numbers:
            yield synthesize._shard((str(folder), recipe, number))

    monkeypatch.setattr(synthesize, "_made", made)
    monkeypatch.setattr(synthesize, "SHARD_WINDOWS", 2)
    monkeypatch.setattr("nr_tracking.data.windows.make_window.__defaults__", (None, 200, 100, None))


@pytest.mark.usefixtures("quick")
def test_a_stopped_synthesis_goes_on_and_ends_alike(tmp_path: Path) -> None:
    whole = synthesize.synthesize(tmp_path / "whole", windows=6, seed=3, families=SMALL, report=lambda _: None)

    class StopError(Exception):
        pass

    def stop(line: str) -> None:
        if "00001" in line:
            raise StopError

    with pytest.raises(StopError):
        synthesize.synthesize(tmp_path / "parts", windows=6, seed=3, families=SMALL, report=stop)
    assert len(WindowCache(tmp_path / "parts")) == 4
    (tmp_path / "parts" / "shard_00000.npz").unlink()
    lines: list[str] = []
    parts = synthesize.synthesize(tmp_path / "parts", windows=6, seed=3, families=SMALL, report=lines.append)
    assert len(lines) == 2, "the shard that is still there is not made again"
    hashes = [[(s["file"], s["sha256"]) for s in read_manifest(folder)["shards"]] for folder in (whole, parts)]
    assert hashes[0] == hashes[1] and len(hashes[0]) == 3, "in the same order, by which windows have their numbers"
    assert (parts / "contact_sheet.png").stat().st_size > 1000
    with pytest.raises(InputError, match="another folder"):
        synthesize.synthesize(parts, windows=6, seed=4, families=SMALL)


@pytest.mark.usefixtures("quick")
def test_a_folder_of_other_settings_is_refused_by_what_differs_alone(tmp_path: Path) -> None:
    request = {"windows": 2, "seed": 3, "report": lambda _: None}
    synthesize.synthesize(tmp_path, **request, families={"object": 1.0})
    with pytest.raises(InputError, match=r"made with seed 3, not 4: choose"):
        synthesize.synthesize(tmp_path, **request | {"seed": 4}, families={"object": 1.0})
    with pytest.raises(InputError, match=r"made with object 1\.0, not 2\.0; procedural none, not 1\.0: choose"):
        synthesize.synthesize(tmp_path, **request, families={"object": 2.0, "procedural": 1.0})


@pytest.mark.usefixtures("quick")
def test_windows_come_in_whole_shards_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    synthesize.synthesize(tmp_path, windows=1, families={"object": 1.0}, report=lines.append)
    assert lines[0] == "2 windows: a shard holds 2" and len(WindowCache(tmp_path)) == 2
    synthesize.synthesize(tmp_path, windows=2, families={"object": 1.0}, report=lines.append)
    assert len(lines) == 2, "nothing was rounded, and nothing is left to do"
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit, match="0"):
        cli.main(["synthesize", "--help"])
    assert "rounded up to shards of 16" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_a_shard_that_is_made_again_leaves_every_window_its_number(tmp_path: Path) -> None:
    request = {"seed": 3, "families": SMALL}
    folder = synthesize.synthesize(tmp_path, windows=6, **request, report=lambda _: None)
    before = [WindowCache(folder)[number].points for number in range(6)]
    (folder / "shard_00000.npz").unlink()
    (folder / "shard_00002.npz").unlink()
    seen: list[int] = []
    lines: list[str] = []

    def report(line: str) -> None:
        lines.append(line)
        seen.append(len(WindowCache(folder)))  # as a training run meets the folder meanwhile

    synthesize.synthesize(folder, windows=4, **request, report=report)
    assert seen == [4, 6] and "4 of 6" in lines[0] and "shard_00002" in lines[1]
    for number, points in enumerate(before):
        np.testing.assert_array_equal(WindowCache(folder)[number].points, points)


def test_worker_processes_make_the_same_windows_in_the_same_order(tmp_path: Path) -> None:
    recipe = {"seed": 1, "split": "val", "families": {"object": 1.0}, "length": 5, "shard": 1}
    tmp_path.joinpath("here").mkdir()
    here = synthesize._shard((str(tmp_path / "here"), recipe, 0))
    there = list(synthesize._made(tmp_path, recipe, [0, 1, 2], 2, 0))
    assert [entry["file"] for entry in there] == [f"shard_{number:05d}.npz" for number in range(3)]
    assert here["sha256"] == there[0]["sha256"] and here["identities"][0].split("-")[1] == "val"


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"split": "training"}, "split 'training'"),
        ({"windows": 0}, "windows = 0"),
        ({"families": {"robot": 1.0}}, "family 'robot'"),
        ({"families": {"object": -1.0}}, "share -1"),
        ({"families": {"object": 0.0}}, "no family"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, settings: dict, match: str) -> None:
    with pytest.raises(InputError, match=match):
        synthesize.synthesize(tmp_path, **settings)


def test_without_data_only_what_needs_none_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NR_TRACKING_DATA", raising=False)
    assert available_families() == ("procedural", "object", "cloth", "hand")
    with pytest.raises(InputError, match="NR_TRACKING_DATA"):
        synthesize.synthesize(tmp_path, families={"animal": 1.0})
    monkeypatch.setenv("NR_TRACKING_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="no folder"):
        available_families()


def test_splits_share_neither_characters_nor_motions_nor_clothes_nor_seeds() -> None:
    for table in (splits._CHARACTERS, splits._MOTIONS, splits._CLOTHES):
        assert table["val"] and table["test"] and not table["val"] & table["test"]
    assert split_of_character("Smooth_Female_Dress") == split_of_character("Female_Dress") == "val"
    assert split_of_character("ZombieSmooth") == split_of_character("Zombie") == "test"
    assert split_of_character("Wolf") == "train"
    same = ("Man_Jump", "AnimalArmature|Jump", "Triceratops_Jump", "jump", "humanoid3d_jump")
    assert {split_of_motion(name) for name in same} == {"val"}
    assert split_of_motion("humanoid3d_walk") == "train" and split_of_motion("01_01") == "test"
    assert split_of_clothes("male_casualsuit05") == "val" and split_of_clothes("shoes01") == "train"
    seeds = [tuple(splits.body_seed(split, family, 3)) for split in splits.SPLITS for family in FAMILIES]
    assert len(set(seeds)) == len(seeds)


def test_the_test_recordings_have_a_thing_and_no_recording_depends_on_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NR_TRACKING_DATA", raising=False)
    monkeypatch.setattr("nr_tracking.data.recordings._SIZE", (80, 60))
    lines: list[str] = []
    both = make_recordings(tmp_path / "both", split="test", frames=17, report=lines.append)
    assert [path.name for path in both] == ["procedural_0", "object_0", "cloth_0", "hand_0"]
    assert lines[1].startswith("object_0: ball-test-")
    (alone,) = make_recordings(tmp_path / "one", split="test", counts={"procedural": 1}, frames=17, report=lines.append)
    one, other = (read_sequence(path).ground_truth() for path in (both[0], alone))
    assert one is not None and other is not None
    np.testing.assert_array_equal(one.vertices, other.vertices)
    val = make_recordings(tmp_path / "val", split="val", frames=17, report=len)
    assert [path.name for path in val] == ["procedural_0", "cloth_0", "hand_0"]


def test_a_folder_of_recordings_is_completed_and_never_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NR_TRACKING_DATA", raising=False)
    monkeypatch.setattr("nr_tracking.data.recordings._SIZE", (80, 60))
    monkeypatch.setattr("nr_tracking.data.recordings._moving_clip", lambda family, rng, *given: object_clip(rng, 17))
    folder, written = tmp_path / "set", []

    def made(folder: Path = folder, count: int = 2, **named: object) -> list[Path]:
        return make_recordings(folder, counts={"object": count}, frames=17, report=written.append, **named)

    (first,) = made(count=1)
    (first / "notes.txt").write_text("somebody's")
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*")}
    assert [path.name for path in made()] == ["object_0", "object_1"]
    assert {path: path.stat().st_mtime_ns for path in first.rglob("*")} == before, "what is there stays as it is"
    assert [line.endswith("there already") for line in written] == [False, True, False]
    whole = {path.name: path.read_bytes() for path in folder.rglob("*.png")}
    for other in ({"noisy": True}, {"seed": 1}, {"split": "test"}, {"occluded": True}, {"cluttered": True}):
        with pytest.raises(InputError, match="choose another folder") as caught:
            made(**other)
        assert caught.value.reason == "other_recipe"
        ((name, value),) = other.items()
        usual = {"seed": 0, "split": "val"}.get(name, False)
        assert f"was made with {name} {usual}, not {value}: choose" in str(caught.value), "and nothing else"
    assert {path.name: path.read_bytes() for path in folder.rglob("*.png")} == whole
    image = first / "depth" / "000003.png"
    image.write_bytes(image.read_bytes()[:40])
    with pytest.raises(InputError, match="object_0 is not whole: delete it"):
        made()
    (folder / "recordings.json").unlink()
    with pytest.raises(InputError, match=r"object_0 is there, and no recordings\.json"):
        made()
    (folder / "recordings.json").write_text("{")
    with pytest.raises(InputError, match=r"recordings\.json cannot be read"):
        made()
    assert (first / "notes.txt").read_text() == "somebody's"


def test_no_camera_looks_at_a_room_from_under_its_floor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NR_TRACKING_DATA", raising=False)
    monkeypatch.setattr("nr_tracking.data.recordings._SIZE", (80, 60))
    above: dict[bool, list[float]] = {False: [], True: []}
    cameras: dict[bool, list[bytes]] = {False: [], True: []}

    def recorded(clip: Clip, camera: Camera, *given: object, cluttered: bool, **named: object) -> tuple:
        foot = camera.to_camera(np.array([0, clip.vertices[..., 1].min(), 0]))
        above[cluttered].append(float(-foot @ camera.up))  # of the camera, which is at 0, over the floor
        cameras[cluttered].append(camera.rotation.tobytes() + camera.translation.tobytes())
        return record(clip, camera, *given, cluttered=cluttered, **named)

    monkeypatch.setattr("nr_tracking.data.recordings.record", recorded)
    for cluttered in (False, True):
        place, counts = tmp_path / str(cluttered), {"object": 2}
        make_recordings(place, counts=counts, seed=12, frames=17, cluttered=cluttered, report=len)
    assert min(above[False] + above[True]) > 0
    same = [one == other for one, other in zip(cameras[False], cameras[True], strict=True)]
    assert same == [height > 0 for height in above[False]], "the others stay where they are"


def test_recordings_move_and_carry_their_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NR_TRACKING_DATA", raising=False)
    monkeypatch.setattr("nr_tracking.data.recordings._SIZE", (160, 120))
    clean, noisy = (
        make_recordings(tmp_path / name, counts={"object": 1}, frames=17, noisy=noisy, report=lambda _: None)[0]
        for name, noisy in (("clean", False), ("noisy", True))
    )
    sequence = read_sequence(clean)
    truth = sequence.ground_truth()
    assert len(sequence) == 17 and truth is not None and sequence.fps == 30
    assert 0.06 <= static_correspondence_error(truth.vertices) <= 0.16
    np.testing.assert_array_equal(truth.vertices, read_sequence(noisy).ground_truth().vertices)  # type: ignore[union-attr]
    one, other = (read_sequence(path).frame(3).depth for path in (clean, noisy))
    assert (one > 0).sum() > 300 and (one != other).any()
    lens = sequence.intrinsics
    near = truth.vertices[3]
    u, v = near[:, 0] / near[:, 2] * lens.fx + lens.cx, near[:, 1] / near[:, 2] * lens.fy + lens.cy
    inside = (u > 0) & (v > 0) & (u < 159) & (v < 119)
    there = one[np.rint(v[inside]).astype(int), np.rint(u[inside]).astype(int)]
    assert ((there > 0) & (there > near[inside, 2] + 0.03)).mean() < 0.02, "nothing true stands before the image"
    assert json.loads((clean / "camera.json").read_text())["depth_unit_m"] == 0.0002
    (hidden,) = make_recordings(tmp_path / "hidden", counts={"object": 1}, frames=17, occluded=True, report=len)
    shots = read_sequence(hidden)
    np.testing.assert_allclose(
        np.ptp(shots.ground_truth().vertices, axis=1),
        np.ptp(truth.vertices, axis=1),
        atol=1e-4,  # type: ignore[union-attr]
    )
    frame = shots.frame(3)
    assert frame.mask is not None and frame.mask.any() and (frame.depth[frame.mask] > 0).all()
    assert ((frame.depth > 0) & ~frame.mask).sum() > 10, "what stands before the subject is in no mask"
    with pytest.raises(InputError, match="frames = 5"):
        make_recordings(tmp_path / "short", frames=5)
