"""The SEQUENCE folder: exact round trips, nothing read that was not asked for, and an error for each fault."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nr_tracking.commands.recordings import open_recordings
from nr_tracking.data.sequence import GroundTruth, read_sequence, write_sequence
from nr_tracking.types import DepthFrame, InputError, Intrinsics

CAMERA = Intrinsics(width=12, height=9, fx=14.0, fy=14.5, cx=5.5, cy=4.25)
TRIANGLES = np.array([[0, 1, 2], [1, 3, 2]], np.int32)


def units(count: int = 4) -> np.ndarray:
    values = np.random.default_rng(1).integers(0, 65536, (count, 9, 12), dtype=np.uint16)
    values[:, 0, :3] = [0, 1, 65535]
    return values


def make_frames(count: int = 4, unit: float = 0.001) -> list[DepthFrame]:
    pose = np.eye(4)
    pose[:3, 3] = [0.1, 0.2, 0.3]
    return [
        DepthFrame(
            stamp_ns=7_000_000_000 + 33_333_333 * index,
            depth=(image * np.float64(unit)).astype(np.float32),
            intrinsics=CAMERA,
            mask=image > 30_000,
            pose=pose,
        )
        for index, image in enumerate(units(count))
    ]


def make_truth(count: int = 4) -> GroundTruth:
    return GroundTruth(np.random.default_rng(2).random((count, 4, 3)).astype(np.float32), TRIANGLES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_sequence(tmp_path / "clip", make_frames(), fps=30.0, ground_truth=make_truth())


@pytest.mark.parametrize("unit", [0.001, 0.000125, 0.0002])
def test_a_recording_comes_back_to_the_bit(tmp_path: Path, unit: float) -> None:
    written = make_frames(unit=unit)
    sequence = read_sequence(write_sequence(tmp_path / "a", written, fps=30.0, depth_unit_m=unit))
    assert len(sequence) == 4
    for ours, theirs in zip(written, sequence.frames(), strict=True):
        assert ours.stamp_ns == theirs.stamp_ns
        assert ours.intrinsics == theirs.intrinsics
        assert theirs.depth.dtype == np.float32
        np.testing.assert_array_equal(ours.depth, theirs.depth)
        np.testing.assert_array_equal(ours.mask, theirs.mask)
        np.testing.assert_array_equal(ours.pose, theirs.pose)


def test_sixteen_bit_png_is_exact_and_is_what_other_programs_see(folder: Path) -> None:
    for index, image in enumerate(units()):
        stored = imageio.imread(folder / "depth" / f"{index:06d}.png")
        assert stored.dtype == np.uint16
        np.testing.assert_array_equal(stored, image)


def test_ground_truth_follows_the_span(folder: Path) -> None:
    sequence = read_sequence(folder)
    truth = sequence.ground_truth(start=1, count=2)
    assert truth is not None
    np.testing.assert_array_equal(truth.vertices, make_truth().vertices[1:3])
    np.testing.assert_array_equal(truth.faces, TRIANGLES)


def test_lens_distortion_survives(tmp_path: Path) -> None:
    camera = replace(CAMERA, distortion_model="plumb_bob", distortion=(0.1, -0.2, 0.001, 0.002, 0.03))
    frames = [replace(frame, intrinsics=camera) for frame in make_frames()]
    assert read_sequence(write_sequence(tmp_path / "a", frames, fps=30.0)).intrinsics == camera


def test_nothing_but_the_frames_asked_for_is_read(folder: Path) -> None:
    for index in (0, 3):
        (folder / "depth" / f"{index:06d}.png").write_bytes(b"not an image")
    sequence = read_sequence(folder)
    asked = list(sequence.frames(start=1, count=2))
    assert [frame.stamp_ns for frame in asked] == sequence.stamps_ns[1:3].tolist()
    with pytest.raises(InputError, match=r"000003\.png"):
        list(sequence.frames(start=1))


def test_a_picture_that_cannot_be_read_costs_no_other(folder: Path) -> None:
    for index in (0, 2):
        (folder / "depth" / f"{index:06d}.png").write_bytes(b"not an image")
    sequence, errors = read_sequence(folder), []
    frames = list(sequence.frames(on_drop=errors.append))
    assert [frame.stamp_ns for frame in frames] == sequence.stamps_ns[[1, 3]].tolist()
    assert ["000000.png" in str(errors[0]), "000002.png" in str(errors[1])] == [True] * len(errors)
    with pytest.raises(InputError, match=r"000000\.png"):
        list(sequence.frames())


def test_a_span_ends_with_the_recording_and_must_begin_in_it(folder: Path) -> None:
    sequence = read_sequence(folder)
    assert list(sequence.span(2, 100)) == [2, 3]
    for start, count in ((4, None), (-1, None), (0, 0)):
        with pytest.raises(InputError):
            sequence.span(start, count)


def test_stamps_come_from_fps_where_there_are_none(folder: Path) -> None:
    (folder / "stamps.npy").unlink()
    assert read_sequence(folder).stamps_ns.tolist() == [0, 33_333_333, 66_666_667, 100_000_000]


def edit_camera(**changes: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        values = json.loads((folder / "camera.json").read_text())
        for key, value in changes.items():
            if value is None:
                del values[key]
            else:
                values[key] = value
        (folder / "camera.json").write_text(json.dumps(values))

    return edit


def put(name: str, value: np.ndarray) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        if name.endswith(".png"):
            imageio.imwrite(folder / name, value)
        else:
            np.save(folder / name, value)

    return save


def put_truth(**arrays: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: np.savez(folder / "ground_truth.npz", **arrays)


def unknown(frame: int) -> np.ndarray:
    """True vertices of which one is not known in a frame."""
    vertices = VERTICES.copy()
    vertices[frame, 2, 1] = np.nan
    return vertices


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def no_images(folder: Path) -> None:
    for file in (folder / "depth").iterdir():
        file.unlink()


def cut(path: Path, bytes_less: int) -> None:
    path.write_bytes(path.read_bytes()[:-bytes_less])


def flip_bit(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


VERTICES = make_truth().vertices
FAULTS: list[tuple[str, Callable[[Path], object], str, str]] = [
    ("no camera info", remove("camera.json"), "no_camera", "camera.json is missing"),
    ("camera not JSON", lambda f: (f / "camera.json").write_text("{width: 3"), "bad_camera", "not valid JSON"),
    ("camera a list", lambda f: (f / "camera.json").write_text("[1]"), "bad_camera", "one JSON object"),
    ("camera lacks a key", edit_camera(cx=None), "bad_camera", "cx is missing"),
    ("a slip of the pen", edit_camera(distorsion=[0.1]), "bad_camera", "did you mean 'distortion'?"),
    ("another name", edit_camera(distortion_coefficients=[0.1]), "bad_camera", "did you mean 'distortion"),
    ("a capital letter", edit_camera(Fps=30, fps=None), "bad_camera", "did you mean 'fps'?"),
    ("zero focal length", edit_camera(fy=0), "zero_focal_length", "fy is 0"),
    ("a word for a number", edit_camera(fx="wide"), "bad_camera", "fx is 'wide'"),
    ("half a pixel", edit_camera(width=12.5), "bad_camera", "12.5"),
    ("unit of zero", edit_camera(depth_unit_m=0), "bad_camera", "must be positive"),
    ("no frames", no_images, "no_frames", "no depth images"),
    ("gap in the numbers", remove("depth/000002.png"), "missing_frame", r"000002\.png is missing"),
    ("no number", put("depth/first.png", units()[0]), "bad_file_name", "frame number"),
    ("wrong type", put("depth/000001.png", units()[0].astype(np.uint8)), "bad_image", "uint8.*expected.*uint16"),
    ("colour image", put("depth/000001.png", np.zeros((9, 12, 3), np.uint8)), "bad_image", "one channel"),
    ("wrong size", put("depth/000001.png", np.zeros((12, 9), np.uint16)), "wrong_size", "9 x 12.*12 x 9"),
    ("cut short", lambda f: (f / "depth/000001.png").write_bytes(b"\x89PNG\r\n\x1a\n"), "bad_image", "000001"),
    ("a mask lacks", remove("mask/000003.png"), "missing_mask", r"000003\.png"),
    ("cut after whole rows", lambda f: cut(f / "depth/000001.png", 20), "bad_image", "before its last chunk"),
    ("a bit flipped", lambda f: flip_bit(f / "depth/000001.png", 60), "bad_image", "000001.*checksum"),
    ("mask of 16 bits", put("mask/000001.png", units()[0]), "bad_image", "expected one channel of uint8"),
    ("too few stamps", put("stamps.npy", np.arange(3)), "bad_stamps", r"\(3,\).*\(4,\)"),
    ("stamps in seconds", put("stamps.npy", np.arange(4) / 30), "bad_stamps", "float64.*int64"),
    ("stamps no array", lambda f: (f / "stamps.npy").write_bytes(b"x"), "bad_file", "stamps.npy"),
    ("poses of 3 x 4", put("poses.npy", np.zeros((4, 3, 4))), "bad_poses", r"\(4, 3, 4\)"),
    ("poses of NaN", put("poses.npy", np.full((4, 4, 4), np.nan)), "bad_poses", "not finite"),
    ("truth lacks faces", put_truth(vertices=VERTICES), "bad_ground_truth", "faces missing"),
    ("truth of 2 frames", put_truth(vertices=VERTICES[:2], faces=TRIANGLES), "bad_ground_truth", r"\(4, V, 3\)"),
    ("faces beyond", put_truth(vertices=VERTICES, faces=TRIANGLES + 1), "bad_ground_truth", "there are 4"),
    ("truth without faces", put_truth(vertices=VERTICES, faces=TRIANGLES[:0]), "bad_ground_truth", "no faces"),
    ("truth unknown", put_truth(vertices=unknown(2), faces=TRIANGLES), "bad_ground_truth", "frame 2 has vertices"),
    ("truth a point", put_truth(vertices=0 * VERTICES, faces=TRIANGLES), "bad_ground_truth", "frame 0 are in one"),
    (
        "truth of words",
        put_truth(vertices=VERTICES.astype(str), faces=TRIANGLES),
        "bad_ground_truth",
        "vertices are <U",
    ),
    ("truth complex", put_truth(vertices=VERTICES + 1j, faces=TRIANGLES), "bad_ground_truth", "are complex"),
    ("truth no archive", lambda f: (f / "ground_truth.npz").write_bytes(b"PK"), "bad_ground_truth", "cannot be read"),
]


@pytest.mark.parametrize(("fault", "reason", "says"), [case[1:] for case in FAULTS], ids=[case[0] for case in FAULTS])
def test_each_fault_is_named(folder: Path, fault: Callable[[Path], object], reason: str, says: str) -> None:
    fault(folder)
    with pytest.raises(InputError, match=says) as caught:
        sequence = read_sequence(folder)
        sequence.ground_truth()
        list(sequence.frames())
    assert caught.value.reason == reason
    assert str(folder) in str(caught.value)


def test_what_other_tools_wrote_into_the_camera_stops_nobody_and_is_named(folder: Path) -> None:
    assert read_sequence(folder).notices == ()
    edit_camera(height_m=1.2, resolution="VGA", serial="F0245", coeffs=[0, 0])(folder)
    sequence = read_sequence(folder)
    assert sequence.notices == ("camera.json: height_m, resolution, serial, coeffs not known, and of no effect",)
    assert open_recordings(folder)[0].notices == list(sequence.notices), "which track tells, and evaluate"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(["width", "height", "fx", "fy", "cx", "cy", "depth_unit_m", "fps", "distortion"]),
        st.none() | st.booleans() | st.floats() | st.integers(-2, 20) | st.text(max_size=3) | st.lists(st.integers()),
    )
)
def test_any_camera_file_is_used_or_refused_clearly(folder: Path, values: dict[str, object]) -> None:
    (folder / "camera.json").write_text(json.dumps(values))
    try:
        camera = read_sequence(folder).intrinsics
    except InputError:
        return
    assert camera.fx > 0 and camera.fy > 0 and camera.width >= 1 and camera.height >= 1


def test_an_interrupted_writer_leaves_what_was_there(folder: Path) -> None:
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}

    def frames() -> object:
        yield make_frames()[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sequence(folder, frames(), fps=30.0)
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_a_folder_that_is_no_sequence_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="left alone"):
        write_sequence(tmp_path, make_frames(), fps=30.0)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("depth", [66.0, -0.5])
def test_depth_that_does_not_fit_is_refused(tmp_path: Path, depth: float) -> None:
    frame = replace(make_frames()[0], depth=np.full((9, 12), depth, np.float32))
    with pytest.raises(InputError, match="does not fit 16 bits"):
        write_sequence(tmp_path / "a", [frame], fps=30.0)


def test_what_cannot_be_written_truly_is_refused(tmp_path: Path) -> None:
    frames = make_frames()
    with pytest.raises(InputError, match="intrinsics differ"):
        write_sequence(tmp_path / "a", [frames[0], replace(frames[1], intrinsics=replace(CAMERA, fx=20.0))], fps=30.0)
    with pytest.raises(InputError, match="1 of 2 frames have a mask"):
        write_sequence(tmp_path / "a", [frames[0], replace(frames[1], mask=None)], fps=30.0)
    with pytest.raises(InputError, match="no frame to write"):
        write_sequence(tmp_path / "a", [], fps=30.0)
    with pytest.raises(InputError, match="ground truth of 3 frames"):
        write_sequence(tmp_path / "a", frames, fps=30.0, ground_truth=make_truth(3))


def test_a_vertex_that_no_face_names_may_be_anything(folder: Path) -> None:
    stray = np.full((len(VERTICES), 1, 3), np.nan, np.float32)
    put_truth(vertices=np.concatenate([VERTICES, stray], axis=1), faces=TRIANGLES)(folder)
    truth = read_sequence(folder).ground_truth(1, 2)
    assert truth is not None and np.isfinite(truth.vertices).all()
    np.testing.assert_array_equal(truth.vertices[:, :-1], VERTICES[1:3])
