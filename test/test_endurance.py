import numpy as np
import pytest
from moving_shapes import capsule_distance, mesh_of

from nr_tracking.data.sequence import GroundTruth, write_sequence
from nr_tracking.evaluation.endurance import Mark, endurance, main, remeshed
from nr_tracking.normals import vertex_normals
from nr_tracking.types import DepthFrame, InputError, Intrinsics, Tracks


def tracks_at(positions, ids):
    count = len(ids)
    return Tracks(
        np.asarray(ids, np.int64), np.asarray(positions, np.float32), np.zeros((count, 3), np.float32),
        np.ones(count, np.float32), np.ones(count, np.bool_),
    )  # fmt: skip


def test_marks_are_the_median_error_and_the_share_that_is_kept():
    truth = np.zeros((6, 4, 3)) + np.arange(4)[:, None] + 10 * np.arange(6)[:, None, None]
    seen = [(0, tracks_at(truth[0], [0, 1, 2, 3])), (2, tracks_at(truth[2, 1:] + [0.5, 0, 0], [1, 2, 9]))]
    seen.append((4, tracks_at(truth[4, :1] + [0, 0.25, 0], [0])))
    assert endurance(seen, truth, (1, 3, 4, 5, 90)) == [
        Mark(1, 0.0, 1.0), Mark(3, 0.5, 0.5), Mark(3, 0.5, 0.5), Mark(5, 0.25, 0.25)
    ]  # fmt: skip


def test_a_remeshed_surface_is_another_mesh_of_the_same():
    vertices, faces = mesh_of(lambda points: np.linalg.norm(points, axis=-1) - 0.4, 96)
    found, corners = remeshed(vertices.astype(float), faces, np.random.default_rng(0))
    again, _ = remeshed(vertices.astype(float), faces, np.random.default_rng(1))
    assert 100 < len(found) < len(vertices) and corners.max() == len(found) - 1
    assert found.shape != again.shape or not np.allclose(found, again)
    assert np.abs(np.linalg.norm(found, axis=1) - 0.4).max() < 0.004
    outward = (vertex_normals(found, corners) * found).sum(axis=1) / np.linalg.norm(found, axis=1)
    assert np.median(outward) > 0.95


def test_the_table_has_a_row_for_each_recording_stride_and_refiner(tmp_path, capsys):
    vertices, faces = mesh_of(lambda points: capsule_distance(points, (-0.2, 0, 0), (0.2, 0.1, 0), 0.1), 48)
    truth = np.stack([vertices + np.array([0.02 * frame, 0, 2]) for frame in range(7)]).astype(np.float32)
    intrinsics = Intrinsics(16, 12, 16.0, 16.0, 7.5, 5.5)
    frames = [DepthFrame(33_000_000 * (1 + one), np.ones((12, 16), np.float32), intrinsics) for one in range(7)]
    write_sequence(tmp_path / "capsule", frames, fps=30.0, ground_truth=GroundTruth(truth, faces))
    main([str(tmp_path / "capsule"), "--strides", "1", "2", "--frames", "3", "7", "90", "--refiner", "on", "off"])
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [[cell.strip() for cell in row[1:4]] for row in rows] == [
        ["capsule", stride, refiner] for stride in "12" for refiner in ("on", "off")
    ]
    for row in rows:
        error = float(row[5].split(" mm")[0])
        assert (error < 15) if row[3].strip() == "on" else (error > 50)
        assert row[6].strip() == "-"


def test_a_recording_without_truth_is_refused(tmp_path):
    intrinsics = Intrinsics(16, 12, 16.0, 16.0, 7.5, 5.5)
    frames = [DepthFrame(33_000_000, np.ones((12, 16), np.float32), intrinsics)]
    write_sequence(tmp_path / "bare", frames, fps=30.0)
    with pytest.raises(InputError, match=r"ground_truth\.npz"):
        main([str(tmp_path / "bare")])
