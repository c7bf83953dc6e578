"""OUTPUT: every frame asked for has its row, files are what they say, and nothing half written is ever seen."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from ball_recording import BallTracker, ball_frames, emptied

from nr_tracking.tracking.colours import canonical_box, correspondence_colours
from nr_tracking.tracking.ply import read_ply, write_ply
from nr_tracking.tracking.result import Run, read_output, write_output
from nr_tracking.tracking.rows import Rows
from nr_tracking.types import InputError, TrackedFrame

TRIANGLE = (
    np.arange(9, dtype=np.float32).reshape(3, 3),
    np.array([[0, 1, 2]], np.int32),
    np.arange(9, dtype=np.uint8).reshape(3, 3),
    np.array([0.25, 0.5, 1.0], np.float32),
    np.array([False, True, True]),
)


def results(count: int = 5) -> list[TrackedFrame]:
    return [BallTracker.push(tracker, frame)[0] for tracker in [BallTracker(window=1)] for frame in ball_frames(count)]


def stamps(count: int = 5) -> np.ndarray:
    return 33_333_333 * np.arange(count)


def write(path: Path, rows: dict[int, TrackedFrame], count: int = 5) -> Path:
    return write_output(path, stamps(count), rows.items(), Run(frames=count))


def test_meshes_are_binary_ply_in_metres_that_others_read(tmp_path: Path) -> None:
    frame = results(1)[0]
    output = write(tmp_path / "out", {0: frame}, 1)
    file = output / "meshes" / "000000.ply"
    assert file.read_bytes().startswith(b"ply\nformat binary_little_endian 1.0\n")
    mesh = trimesh.load(file, process=False)
    np.testing.assert_array_equal(mesh.vertices.astype(np.float32), frame.surface.vertices)
    np.testing.assert_array_equal(mesh.faces, frame.surface.faces)
    colours = correspondence_colours(frame.canonical, *canonical_box(frame.canonical))
    np.testing.assert_array_equal(mesh.visual.vertex_colors[:, :3], colours)
    for ours, theirs in zip(read_ply(file), (frame.surface.vertices, frame.surface.faces, colours), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    known = mesh.metadata["_ply_raw"]["vertex"]["data"]
    np.testing.assert_array_equal(known["confidence"], frame.surface.confidence)
    np.testing.assert_array_equal(known["observed"], frame.surface.observed)


def test_meshes_that_do_not_say_what_was_seen_are_read(tmp_path: Path) -> None:
    """As the first version wrote them."""
    write_ply(tmp_path / "a.ply", *TRIANGLE)
    data = (tmp_path / "a.ply").read_bytes()
    end = data.index(b"end_header\n") + len(b"end_header\n")
    header = data[:end].replace(b"property float confidence\nproperty uchar observed\n", b"")
    rows = [data[end + 20 * row : end + 20 * row + 15] for row in range(3)]
    (tmp_path / "b.ply").write_bytes(header + b"".join(rows) + data[end + 60 :])
    for ours, theirs in zip(read_ply(tmp_path / "b.ply"), TRIANGLE[:3], strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:40], lambda data: b"", lambda data: data + b"x"]
)
def test_a_damaged_mesh_is_an_error(tmp_path: Path, damage) -> None:
    write_ply(tmp_path / "a.ply", *TRIANGLE)
    (tmp_path / "a.ply").write_bytes(damage((tmp_path / "a.ply").read_bytes()))
    with pytest.raises(InputError, match="cut short"):
        read_ply(tmp_path / "a.ply")


def test_rows_hold_what_was_tracked_and_nan_elsewhere(tmp_path: Path) -> None:
    frames = results()
    later = replace(frames[4].tracks, ids=frames[4].tracks.ids + 1)  # id 0 is lost, a new one appears
    rows = {0: frames[0], 1: frames[1], 4: replace(frames[4], tracks=later)}
    output = read_output(write(tmp_path / "out", rows))
    count = len(frames[0].tracks.ids)
    assert output.positions.shape == (5, count + 1, 3) and output.positions.dtype == np.float32
    np.testing.assert_array_equal(output.ids, np.arange(count + 1))
    np.testing.assert_array_equal(output.stamps_ns, stamps())
    np.testing.assert_array_equal(output.positions[1, :count], frames[1].tracks.positions)
    np.testing.assert_array_equal(output.positions[4, 1:], later.positions)
    assert np.isnan(output.positions[[2, 3]]).all() and np.isnan(output.positions[4, 0]).all()
    assert not output.observed[[2, 3]].any() and not output.confidence[[2, 3]].any()
    assert output.mesh(2) is None and output.mesh(4) is not None
    assert output.velocities.shape == output.positions.shape
    step = (frames[1].tracks.positions - frames[0].tracks.positions) / (stamps()[1] - stamps()[0]) * 1e9
    np.testing.assert_allclose(output.velocities[0, 0], step[0], atol=1e-4)  # id 0 has these two places only
    assert np.isnan(output.velocities[2:4]).all()


def test_a_turning_camera_gives_points_at_rest_no_velocity(tmp_path: Path) -> None:
    """Positions are those that each camera sees; velocities those in the fixed frame, which is far from its origin."""
    first = results(1)[0]
    rows, there = {}, np.array([1000.0, -2000.0, 300.0])
    for index, stamp in enumerate(stamps()):
        angle = 0.02 * index
        turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        seen = ((first.tracks.positions - [0.1 * index, 0, 0]) @ turn).astype(np.float32)
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = turn, there + 0.1 * index * np.array([1, 0, 0])
        rows[index] = replace(first, stamp_ns=int(stamp), tracks=replace(first.tracks, positions=seen), pose=pose)
    still = read_output(write(tmp_path / "still", rows))
    assert np.abs(still.velocities).max() < 1e-3
    blind = read_output(write(tmp_path / "blind", {row: replace(frame, pose=None) for row, frame in rows.items()}))
    assert np.abs(blind.velocities).max() > 2
    np.testing.assert_array_equal(still.positions, blind.positions)


def test_patches_are_padded_with_nan_and_the_last_row_is_nan(tmp_path: Path) -> None:
    frames = results()
    two = replace(
        frames[1].patches,
        centres=np.ones((2, 3), np.float32),
        rotations=np.ones((2, 3, 3), np.float32),
        translations=np.ones((2, 3), np.float32),
    )
    rows = dict(enumerate(frames)) | {1: replace(frames[1], patches=two)}
    with np.load(write(tmp_path / "out", rows) / "patches.npz") as patches:
        shapes = {name: patches[name].shape for name in patches.files}
        assert shapes == {"centres": (5, 2, 3), "rotations": (5, 2, 3, 3), "translations": (5, 2, 3)}
        for name in patches.files:
            assert np.isfinite(patches[name][0, 0]).all() and np.isnan(patches[name][0, 1]).all()
            assert (patches[name][1] == 1).all()
            assert np.isnan(patches[name][4]).all()


def test_motion_that_was_known_only_with_the_next_frame_completes_its_row(tmp_path: Path) -> None:
    frames = results(3)
    known = frames[0].patches
    unknown = replace(known, rotations=np.full_like(known.rotations, np.nan), translations=known.translations * np.nan)
    rows = {0: replace(frames[0], patches=unknown), 2: replace(frames[2], previous_patches=known)}
    with np.load(write(tmp_path / "out", rows, 3) / "patches.npz") as patches:
        np.testing.assert_array_equal(patches["rotations"][0], known.rotations)
        np.testing.assert_array_equal(patches["translations"][0], known.translations)
        assert np.isnan(patches["centres"][1:]).all()


def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write(tmp_path / name, dict(enumerate(results()))) for name in "ab")
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert [path.name for path in files] == [f"{i:06d}.ply" for i in range(5)] + [
        "patches.npz",
        "run.json",
        "tracks.npz",
    ]
    assert all((first / file).read_bytes() == (second / file).read_bytes() for file in files)


def test_a_point_keeps_its_colour_and_neighbours_differ_little() -> None:
    first, second = results(2)
    box = canonical_box(first.canonical)
    colours = correspondence_colours(first.canonical, *box)
    np.testing.assert_array_equal(colours, correspondence_colours(second.canonical, *box))
    edges = colours[first.surface.faces[:, :2]].astype(int)
    assert np.abs(edges[:, 0] - edges[:, 1]).max() < 90
    assert np.ptp(colours.astype(int), axis=0).min() > 80
    unknown = np.full((2, 3), np.nan, np.float32)
    assert len(np.unique(correspondence_colours(unknown, *box))) == 1


def test_an_existing_output_is_replaced_whole_and_only_at_the_end(tmp_path: Path) -> None:
    output = write(tmp_path / "out", dict(enumerate(results())))
    before = {file: file.read_bytes() for file in output.rglob("*") if file.is_file()}

    def failing():
        yield 0, results(1)[0]
        assert {file: file.read_bytes() for file in output.rglob("*") if file.is_file()} == before
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_output(output, stamps(1), failing(), Run())
    assert {file: file.read_bytes() for file in output.rglob("*") if file.is_file()} == before
    write(output, dict(enumerate(results(2))), 2)
    assert len(list((output / "meshes").iterdir())) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_is_no_output_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"")
    for name in ("photos", "photos/a.jpg"):
        with pytest.raises(InputError):
            write(tmp_path / name, dict(enumerate(results(1))), 1)
    assert (tmp_path / "photos" / "a.jpg").exists()


def test_reading_something_else_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no OUTPUT"):
        read_output(tmp_path)
    output = write(tmp_path / "out", dict(enumerate(results(1))), 1)
    (output / "run.json").write_text(json.dumps({"dropped": {}, "colour": "blue"}))
    with pytest.raises(InputError, match=r"run\.json"):
        read_output(output)


def test_rows_match_results_to_images_through_drops_and_resets() -> None:
    frames, rows, tracker = ball_frames(7), Rows(), BallTracker(window=2)
    placed = []
    for index, frame in enumerate(frames):
        if index == 1:
            rows.refuse("cannot be read", frame.stamp_ns)
            continue
        row = rows.ask(frame.stamp_ns)
        if index == 2:
            with pytest.raises(InputError):
                tracker.push(emptied(frame))
            rows.drop(row, "no depth")
            continue
        if index == 4:
            tracker.reset()
        placed += [rows.place(result) for result in tracker.push(frame)]
    # 0 and 3 make a window; then a reset, 4 and 5 make one; 6 never gets a result.
    assert placed == [0, 3, 4, 5]
    np.testing.assert_array_equal(rows.finish(), [frame.stamp_ns for frame in frames])
    assert rows.dropped == {1: "cannot be read", 2: "no depth", 6: "no surface was found in the frame"}


def test_rows_refuse_results_of_images_that_were_never_asked_for() -> None:
    rows = Rows()
    rows.ask(5)
    with pytest.raises(ValueError, match="no image of that stamp"):
        rows.place(results(1)[0])


def test_folders_are_replaced_where_the_system_cannot_exchange_them(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("nr_tracking.atomic._exchange", lambda first, second: False)
    write(tmp_path / "out", dict(enumerate(results(1))), 1)
    write(tmp_path / "out", dict(enumerate(results(2))), 2)
    assert len(read_output(tmp_path / "out")) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
