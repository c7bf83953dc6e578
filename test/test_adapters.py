"""Published datasets, as tiny files of the same layout."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import trimesh
from ball_recording import ball_tracker
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nr_tracking import cli
from nr_tracking.commands.evaluate import evaluate, family_of, find_sequences
from nr_tracking.config import load_config
from nr_tracking.data.adapters.cape import Cape
from nr_tracking.data.adapters.catalogue import open_dataset
from nr_tracking.data.adapters.dataset import MeshSequence, choose
from nr_tracking.data.adapters.deforming_things import DeformingThings, read_anime
from nr_tracking.data.adapters.dfaust import SPLITS, DynamicFaust
from nr_tracking.data.adapters.human_outfit import HumanOutfit, read_obj
from nr_tracking.data.adapters.recordings import _camera_within_range, record_dataset
from nr_tracking.data.rendering import render_depth
from nr_tracking.data.scans import read_scans
from nr_tracking.data.sequence import read_sequence
from nr_tracking.types import InputError, Surface

BALL = trimesh.creation.icosphere(subdivisions=1, radius=0.3)
FACES = np.asarray(BALL.faces, np.int32)
MOVED = np.stack([np.asarray(BALL.vertices) + np.array([0.02 * frame, 0, 0]) for frame in range(5)]).astype(np.float32)


def write_anime(path: Path, vertices: np.ndarray, faces: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    header = struct.pack("<3i", len(vertices), vertices.shape[1], len(faces))
    parts = [vertices[0].astype("<f4"), faces.astype("<i4"), (vertices[1:] - vertices[0]).astype("<f4")]
    path.write_bytes(header + b"".join(part.tobytes() for part in parts))
    return path


def write_dfaust(root: Path, names: list[str], file: str = "registrations_m.hdf5") -> None:
    h5py = pytest.importorskip("h5py")
    root.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / file, "w") as archive:
        archive["faces"] = FACES.astype(np.uint32)
        for name in names:
            archive[name] = np.moveaxis(MOVED, 0, 2)


def write_cape(root: Path, name: str = "00032/shortlong_hips", numbers: tuple[int, ...] = (1, 2, 3, 4, 5)) -> Path:
    (root / "misc").mkdir(parents=True, exist_ok=True)
    np.save(root / "misc" / "smpl_tris.npy", FACES.astype(np.uint32))
    folder = root / "sequences" / name
    folder.mkdir(parents=True)
    for number in numbers:
        posed = MOVED[number % 5].astype(np.float64)
        arrays = {"v_posed": posed, "v_cano": MOVED[0], "pose": np.zeros(72), "transl": np.zeros(3)}
        np.savez(folder / f"{folder.name}.{number:06d}.npz", **arrays)
    return folder


def write_outfit(root: Path, name: str = "sue-cos-walk") -> Path:
    """Scans with another triangulation in every frame, and fitted bodies that correspond."""
    for frame in range(5):
        folder = root / name.split("-")[0] / name / f"{frame:06d}"
        folder.mkdir(parents=True)
        scan = trimesh.creation.icosphere(subdivisions=1 + frame % 2, radius=0.3)
        lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in np.asarray(scan.vertices) + np.array([0.02 * frame, 0, 0])]
        lines += ["vt 0.5 0.5", *(f"f {a + 1}/1 {b + 1}/1 {c + 1}/1" for a, b, c in scan.faces)]
        (folder / "scan.obj").write_text("# a scan\nmtllib scan.mtl\n" + "\n".join(lines) + "\n")
    (root / "fits").mkdir()
    np.savez(root / "fits" / f"{name}.npz", vertices=MOVED, faces=FACES)
    return root / "fits" / f"{name}.npz"


def test_animals_are_read_turned_upright_and_scaled(tmp_path: Path) -> None:
    tall = MOVED * np.float32([1, 1, 4]) + np.float32([0, 0, 7])  # z up, longest along z
    write_anime(tmp_path / "animals" / "bear3EP_Attack" / "bear3EP_Attack.anime", tall, FACES)
    vertices, faces = read_anime(tmp_path / "animals" / "bear3EP_Attack" / "bear3EP_Attack.anime")
    np.testing.assert_allclose(vertices, tall, atol=1e-6)
    np.testing.assert_array_equal(faces, FACES)
    dataset = DeformingThings(tmp_path)
    assert dataset.sequences() == ["bear3EP_Attack"]
    motion = dataset.read("bear3EP_Attack")
    extent = np.ptp(motion.vertices[0], axis=0)
    assert extent[1] == pytest.approx(1.0) and extent[1] > 3 * max(extent[0], extent[2])
    # Turned, not mirrored: the faces still look outwards.
    body = trimesh.Trimesh(motion.vertices[0], motion.faces, process=False)
    assert body.volume > 0


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_animation_is_an_error_or_a_sound_mesh(tmp_path: Path, data: st.DataObject) -> None:
    path = write_anime(tmp_path / "a" / "a.anime", MOVED[:3], FACES)
    whole = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        place = data.draw(st.one_of(st.integers(0, 11), st.integers(0, len(whole) - 1)))
        whole[place] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(whole[: data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))]))
    try:
        vertices, faces = read_anime(path)
    except InputError as error:
        assert str(path) in str(error)
        return
    assert np.isfinite(vertices).all() and 0 <= faces.min() <= faces.max() < vertices.shape[1]


@given(header=st.tuples(*[st.integers(3, 2**31 - 1)] * 3), body=st.binary(max_size=64))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_header_that_promises_more_than_there_is_takes_no_memory(
    tmp_path: Path, header: tuple[int, int, int], body: bytes
) -> None:
    path = tmp_path / "huge.anime"
    path.write_bytes(struct.pack("<3i", *header) + body)
    with pytest.raises(InputError, match=r"huge\.anime"):
        read_anime(path)


def test_dfaust_is_read_in_order_of_time(tmp_path: Path) -> None:
    write_dfaust(tmp_path, ["50002_knees", "50021_knees"])
    write_dfaust(tmp_path, ["50020_hips"], "registrations_f.hdf5")
    dataset = DynamicFaust(tmp_path)
    assert dataset.sequences() == ["50002_knees", "50020_hips", "50021_knees"]
    assert dataset.splits["train"] == ("50002_knees",)
    motion = dataset.read("50020_hips")
    np.testing.assert_array_equal(motion.vertices, MOVED)
    np.testing.assert_array_equal(motion.faces, FACES)
    assert motion.faces.dtype == np.int32 and motion.fps == 60
    with pytest.raises(InputError, match="10 of 11 sequences are not there: 50021_chicken_wings"):
        choose(dataset, "unseen_individual")
    (tmp_path / "registrations_m.hdf5").write_bytes(b"not hdf5")
    with pytest.raises(InputError, match=r"registrations_m\.hdf5 is no readable HDF5"):
        dataset.sequences()


def test_the_published_folds_of_dfaust_do_not_overlap() -> None:
    names = [name for fold in SPLITS.values() for name in fold]
    assert len(set(names)) == len(names) == 9 + 11 + 5
    assert all(name.startswith("50021_") == (name in SPLITS["unseen_individual"]) for name in names)


def test_cape_is_read_as_its_longest_run_of_frames(tmp_path: Path) -> None:
    folder = write_cape(tmp_path, numbers=(1, 2, 5, 6, 7, 9))
    motion = Cape(tmp_path).read("00032/shortlong_hips")
    np.testing.assert_array_equal(motion.vertices, MOVED[[0, 1, 2]])  # frames 5, 6, 7
    (folder / f"{folder.name}.000006.npz").write_bytes(b"PK damaged")
    np.testing.assert_array_equal(Cape(tmp_path).read("00032/shortlong_hips", frames=1).vertices, MOVED[[0]])
    with pytest.raises(InputError, match=r"000006\.npz cannot be read"):
        Cape(tmp_path).read("00032/shortlong_hips")
    (tmp_path / "misc" / "smpl_tris.npy").unlink()
    with pytest.raises(InputError, match=r"smpl_tris\.npy is not there.*cape\.is\.tue\.mpg\.de"):
        Cape(tmp_path).read("00032/shortlong_hips")


def test_scans_come_with_the_bodies_fitted_to_them(tmp_path: Path) -> None:
    fits = write_outfit(tmp_path)
    dataset = HumanOutfit(tmp_path)
    assert dataset.sequences() == ["sue-cos-walk"]
    motion = dataset.read("sue-cos-walk")
    assert [len(vertices) for vertices, _ in motion.scans] == [42, 162, 42, 162, 42]
    np.testing.assert_allclose(motion.scans[2][0].mean(axis=0), [0.04, 0, 0], atol=1e-6)
    np.testing.assert_array_equal(motion.vertices, MOVED)
    last = tmp_path / "sue" / "sue-cos-walk" / "000004" / "scan.obj"
    whole, _ = last.read_text(), last.write_text("damaged")
    first = dataset.read("sue-cos-walk", frames=2)
    assert len(first) == len(first.scans) == 2, "what lies behind the frames asked for is not read"
    last.write_text(whole)
    np.savez(fits, vertices=MOVED[:4], faces=FACES)
    with pytest.raises(InputError, match="5 scans"):
        dataset.read("sue-cos-walk", frames=2)
    fits.unlink()
    with pytest.raises(InputError, match=r"sue-cos-walk\.npz is not there.*smpl\.is\.tue\.mpg\.de"):
        dataset.read("sue-cos-walk")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 4\n", "faces name vertices 0 to 3"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 1 1 0\nf 1 2 3 4\n", "1 faces are no triangles"),
        ("v 0 0 zero\nf 1 1 1\n", "could not convert"),
        ("v 0 0 inf\nf 1 1 1\n", "not finite"),
        ("f -1 -2 -3\n", "1 faces are no triangles"),
        ("", "vertices"),
    ],
)
def test_a_scan_that_cannot_be_used_is_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "scan.obj").write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        read_obj(tmp_path / "scan.obj")
    assert "scan.obj" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "site"), [("cape", "cape.is.tue"), ("4dhumanoutfit", "kinovis"), ("dt4d", "rabbityl")]
)
def test_what_is_not_there_is_said_with_where_to_get_it(tmp_path: Path, name: str, site: str) -> None:
    with pytest.raises(InputError, match=site):
        open_dataset(name, tmp_path).sequences()
    with pytest.raises(InputError, match="no folder"):
        open_dataset(name, tmp_path / "nowhere")


def test_missing_registrations_of_dfaust_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"registrations_f\.hdf5.*dfaust\.is\.tue\.mpg\.de"):
        DynamicFaust(tmp_path).sequences()


def test_a_list_names_the_sequences_of_a_split_that_is_not_published(tmp_path: Path) -> None:
    write_cape(tmp_path / "cape")
    dataset = Cape(tmp_path / "cape")
    listed = tmp_path / "subset.txt"
    listed.write_text("# three subjects\n\n00032/shortlong_hips  # one\n")
    assert choose(dataset, listed=listed) == ["00032/shortlong_hips"]
    with pytest.raises(InputError, match="none published: give its sequences by --list"):
        choose(dataset, "unseen_motion")
    listed.write_text("00096/nothing\n")
    with pytest.raises(InputError, match="1 of 1 sequences are not there: 00096/nothing"):
        choose(dataset, listed=listed)
    listed.write_text("# nothing\n")
    with pytest.raises(InputError, match="names no sequence"):
        choose(dataset, listed=listed)


def test_recordings_show_the_truth_and_say_what_they_are(tmp_path: Path) -> None:
    write_cape(tmp_path / "cape")
    names: list[str] = []
    dataset = Cape(tmp_path / "cape")
    made = record_dataset(dataset, dataset.sequences(), tmp_path / "out", fold="subset", frames=3, report=names.append)
    assert [path.name for path in made] == ["00032_shortlong_hips"] and names == ["00032_shortlong_hips: 3 frames"]
    sequence = read_sequence(made[0])
    truth = sequence.ground_truth()
    assert truth is not None and len(sequence) == 3 and sequence.fps == 60
    for index in range(3):
        rendered = render_depth(truth.vertices[index], truth.faces, sequence.intrinsics)
        np.testing.assert_allclose(sequence.frame(index).depth, rendered, atol=1.1e-4)
        assert (rendered > 0).mean() > 0.05
    step = np.linalg.norm(np.diff(truth.vertices, axis=0), axis=-1)
    np.testing.assert_allclose(step[1], 0.02, atol=1e-5)  # lengths are kept
    assert family_of(made[0]) == "cape subset" and not list(made[0].glob(".*"))
    kept = (made[0] / "camera.json").stat().st_mtime_ns
    record_dataset(dataset, dataset.sequences(), tmp_path / "out", fold="subset", frames=3, report=names.append)
    assert (made[0] / "camera.json").stat().st_mtime_ns == kept and len(names) == 1


def test_surfaces_are_scored_against_scans_and_tracks_against_fits(tmp_path: Path) -> None:
    fits = write_outfit(tmp_path / "data")
    # Bodies much thinner than what the camera saw: IoU must not be theirs.
    centres = MOVED.mean(axis=1, keepdims=True)
    np.savez(fits, vertices=centres + 0.5 * (MOVED - centres), faces=FACES)
    dataset = HumanOutfit(tmp_path / "data")
    (path,) = record_dataset(dataset, dataset.sequences(), tmp_path / "out", report=lambda line: None)
    scans = read_scans(path, range(5))
    assert scans is not None and [len(vertices) for vertices, _ in scans] == [42, 162, 42, 162, 42]
    assert find_sequences([tmp_path / "out"]) == [path]
    config = load_config("test")
    (scores,) = evaluate([read_sequence(path)], config, length=5, points=1500, trackers=lambda _: scan_tracker(scans))
    assert scores.mean()["iou"] == 1.0
    (path / "surfaces" / "000003.npz").unlink()
    with pytest.raises(InputError, match=r"000003\.npz"):
        read_scans(path, range(5))


def scan_tracker(scans: list[tuple[np.ndarray, np.ndarray]]):
    """A tracker that gives back the scans."""
    tracker, name = ball_tracker(load_config("test"))
    follow = tracker._track
    waiting = iter(scans)

    def track(frame):
        vertices, faces = next(waiting)
        known = np.ones(len(vertices), np.float32)
        return replace(follow(frame), surface=Surface(vertices, faces, known, known > 0))

    tracker._track = track
    tracker.reset = lambda: None
    return tracker, name


def test_one_command_makes_the_recordings_of_a_fold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_anime(tmp_path / "dt4d" / "fox_Run" / "fox_Run.anime", MOVED, FACES)
    (tmp_path / "unseen_motion.txt").write_text("fox_Run\n")
    request = ["synthesize", str(tmp_path / "out"), "--dataset", "dt4d", "--root", str(tmp_path / "dt4d")]
    assert cli.main([*request, "--list", str(tmp_path / "unseen_motion.txt"), "--frames", "2"]) == 0
    assert "1 recording in" in capsys.readouterr().out
    assert family_of(tmp_path / "out" / "fox_Run") == "dt4d unseen_motion"
    for wrong, says in (
        (["synthesize", str(tmp_path / "x"), "--dataset", "dt4d"], "--root"),
        ([*request, "--split", "unseen_motion"], "none published"),
        ([*request, "--frames", "0"], "at least one"),
        ([*request, "--fits", str(tmp_path)], "takes no --fits"),
        (["synthesize", str(tmp_path / "x"), "--split", "trian"], "train, val and test"),
    ):
        assert cli.main(wrong) == 2
        assert says in capsys.readouterr().err


def outside(path: Path) -> np.ndarray:
    """How far from the middle of the image, over the way to the border, each true point of a recording is (T, V)."""
    sequence = read_sequence(path)
    truth, lens = sequence.ground_truth(), sequence.intrinsics
    assert truth is not None and truth.vertices[..., 2].min() > 0
    place = truth.vertices[..., :2] / truth.vertices[..., 2:] * (lens.fx, lens.fy) + (lens.cx, lens.cy)
    return np.abs((place + 0.5) / (lens.width, lens.height) * 2 - 1).max(-1)


class Walks:
    """A dataset of somebody who walks so many metres, as the name of the sequence says."""

    name = "walks"
    splits: ClassVar[dict[str, tuple[str, ...]]] = {}

    def sequences(self) -> list[str]:
        return ["1", "4.0", "4.1", "16", "90", "2"]

    def read(self, name: str, frames: int | None = None) -> MeshSequence:
        steps = np.linspace(0, float(name), 4)[:, None, None] * [0, 0, 1]
        return MeshSequence(name, (MOVED[:1] * [0.7, 2.8, 0.7] + steps).astype(np.float32), FACES, 30.0)


@pytest.mark.parametrize("noisy", [False, True])
def test_a_subject_stays_in_the_image_wherever_it_walks(tmp_path: Path, noisy: bool) -> None:
    lines: list[str] = []
    made = record_dataset(Walks(), Walks().sequences(), tmp_path, noisy=noisy, report=lines.append)
    assert [path.name for path in made] == Walks().sequences()
    for path in made:
        assert outside(path).max() == pytest.approx(0.7, abs=1e-4)
        sequence, truth = read_sequence(path), read_sequence(path).ground_truth()
        assert sequence.depth_unit_m == pytest.approx(max(0.0002, truth.vertices[..., 2].max() / 65_000))
        assert (sequence.frame(0).depth > 0).any()
    assert "raise subject.depth_max_m" in lines[3] and "raise" not in lines[2]
    steps = [read_sequence(path).depth_unit_m > 0.0002 for path in made]
    assert steps == [False, False, False, True, True, False]


def test_recordings_of_an_older_version_are_made_again(tmp_path: Path) -> None:
    (path,) = record_dataset(Walks(), ["1"], tmp_path, report=len)
    about = json.loads((path / "meta.json").read_text())
    about.pop("generator")
    (path / "meta.json").write_text(json.dumps(about))
    lines: list[str] = []
    for _ in range(2):
        record_dataset(Walks(), ["1"], tmp_path, report=lines.append)
    assert len(lines) == 1


def test_a_subject_that_walks_stays_within_the_range_that_is_looked_at() -> None:
    body = np.random.default_rng(0).uniform([-0.3, 0, -0.3], [0.3, 1.75, 0.3], (200, 3))
    for length, possible in ((4.0, True), (30.0, False)):
        walk = (body + np.linspace(0, length, 9)[:, None, None] * [1.0, 0, 0]).astype(np.float32)
        drawn = [_camera_within_range(walk, np.random.default_rng(seed)) for seed in range(20)]
        assert all((farthest <= 6.0) == possible for _, farthest in drawn)
        for camera, farthest in drawn:
            assert camera.to_camera(walk)[..., 2].max() == pytest.approx(farthest)
            assert len({camera.intrinsics.fx for camera, _ in drawn}) == 20, "each its own"
