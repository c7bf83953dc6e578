"""Scores of tracks against known motion and against a second implementation that goes point by point."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from nr_tracking.data.sequence import GroundTruth
from nr_tracking.evaluation import track_metrics
from nr_tracking.evaluation.metrics import Mesh
from nr_tracking.evaluation.protocol import Candidate, FrameScores, Scores, by_family, score, summary
from nr_tracking.evaluation.track_metrics import TiedTracks, tie_tracks
from nr_tracking.types import Intrinsics

CAMERA = Intrinsics(width=160, height=120, fx=150.0, fy=150.0, cx=79.5, cy=59.5)
_SHAPE = trimesh.creation.icosphere(subdivisions=3, radius=0.3)
BALL = np.asarray(_SHAPE.vertices, np.float64)
FACES = _SHAPE.faces.astype(np.int32)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def tied_sample(seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Tracks with losses, births and returns, their true points, and what is visible of those."""
    generator = rng(seed)
    start = generator.random((400, 3))
    steps = generator.normal(size=(6, 400, 3)) * np.where(np.arange(400) % 2, 0.02, 0.0005)[:, None]
    true_points = start + np.cumsum(steps, axis=0)
    tracks = true_points[:, :60] + 0.03 * generator.random((6, 60, 3))
    tracks[3:, :10] = np.nan  # lost
    tracks[2, 10:20] = np.nan  # lost and found
    tracks[:2, 20:25] = np.nan  # begun later: not scored
    return tracks, true_points, generator.random((6, 400)) < 0.4


# A second implementation: one track after the other, one frame after the other.


def plain_scores(tracks: np.ndarray, true_points: np.ndarray, visible: np.ndarray) -> dict[str, list[float]]:
    followed = []
    for track in tracks.transpose(1, 0, 2):
        if not np.isnan(track[0]).any():
            partner = min(range(true_points.shape[1]), key=lambda k: float(((true_points[0, k] - track[0]) ** 2).sum()))
            followed.append((track, partner))
    result: dict[str, list[float]] = {name: [] for name in ("corr", "visible", "hidden", "tracked", "jitter")}
    for frame in range(len(tracks)):
        errors: list[float] = []
        seen: list[float] = []
        unseen: list[float] = []
        steps: list[float] = []
        there = 0
        for track, partner in followed:
            last = next(track[t] for t in range(frame, -1, -1) if not np.isnan(track[t]).any())
            error = float(np.linalg.norm(last - true_points[frame, partner]))
            errors.append(error)
            (seen if visible[frame, partner] else unseen).append(error)
            there += not np.isnan(track[frame]).any()
            if frame and not np.isnan(track[frame - 1 : frame + 1]).any():
                moved = true_points[frame, partner] - true_points[frame - 1, partner]
                if np.linalg.norm(moved) < track_metrics.STATIC_STEP:
                    steps.append(float(np.linalg.norm(track[frame] - track[frame - 1] - moved)))
        for name, values in (("corr", errors), ("visible", seen), ("hidden", unseen), ("jitter", steps)):
            result[name].append(float(np.mean(values)) if values else float("nan"))
        result["tracked"].append(there / len(followed))
    return result


def test_second_implementation_agrees_on_tracks_that_come_and_go() -> None:
    tracks, true_points, visible = tied_sample()
    expected = plain_scores(tracks, true_points, visible)
    tied = tie_tracks(tracks, true_points)
    seen, hidden = track_metrics.end_point_error(tied, visible[:, tied.partners])
    np.testing.assert_allclose(track_metrics.correspondence_error(tied), expected["corr"])
    np.testing.assert_allclose(seen, expected["visible"])
    np.testing.assert_allclose(hidden, expected["hidden"])
    np.testing.assert_allclose(track_metrics.share_tracked(tied), expected["tracked"])
    np.testing.assert_allclose(track_metrics.jitter(tied), expected["jitter"])
    assert np.isfinite(expected["jitter"][1:]).all()  # the sample has points that stand still
    assert len(tied.columns) == 55 and expected["tracked"][2] == pytest.approx(45 / 55)


def test_visible_and_hidden_errors_make_up_the_correspondence_error() -> None:
    tracks, true_points, visible = tied_sample()
    tied = tie_tracks(tracks, true_points)
    mask = visible[:, tied.partners]
    seen, hidden = track_metrics.end_point_error(tied, mask)
    share = mask.mean(axis=1)
    np.testing.assert_allclose(share * seen + (1 - share) * hidden, track_metrics.correspondence_error(tied))


def test_a_shifted_sphere_is_off_by_the_shift_and_by_nothing_from_itself() -> None:
    points = np.stack([BALL + np.array([0, 0.01 * frame, 0]) for frame in range(5)])
    np.testing.assert_allclose(track_metrics.correspondence_error(tie_tracks(points, points)), 0)
    still = tie_tracks(np.repeat(points[:1], 5, axis=0), points)
    np.testing.assert_allclose(track_metrics.correspondence_error(still), 0.01 * np.arange(5), atol=1e-6)


def test_jitter_is_that_of_points_at_rest_and_blind_to_a_constant_error() -> None:
    frames, rest = 9, rng(1).random((500, 3))
    truth = np.repeat(rest[None], frames, axis=0)
    truth[:, :200] += 0.05 * np.arange(frames)[:, None, None]  # these move, and do not count
    shake = 0.004 * np.where(np.arange(frames) % 2, 1.0, -1.0)[:, None, None] * np.array([1.0, 0, 0])
    everywhere = np.ones(truth.shape[:2], bool)
    names = np.arange(500)
    steady = TiedTracks(truth + 0.03, truth, everywhere, names, names)
    np.testing.assert_allclose(track_metrics.jitter(steady)[1:], 0, atol=1e-12)
    shaken = truth + shake
    shaken[:, :200] += 0.5 * rng(2).random((frames, 200, 3))
    np.testing.assert_allclose(track_metrics.jitter(TiedTracks(shaken, truth, everywhere, names, names))[1:], 0.008)
    moving = TiedTracks(truth[:, :200], truth[:, :200], everywhere[:, :200], names[:200], names[:200])
    assert np.isnan(track_metrics.jitter(moving)).all()


def test_no_tracks_at_all_have_no_scores() -> None:
    tied = tie_tracks(np.full((4, 7, 3), np.nan), rng().random((4, 30, 3)))
    for values in (track_metrics.correspondence_error(tied), track_metrics.share_tracked(tied)):
        assert values.shape == (4,) and np.isnan(values).all()


def test_a_camera_sees_the_near_cap_of_a_sphere() -> None:
    distance, radius = 1.5, 0.3
    vertices = (BALL + np.array([0, 0, distance])).astype(np.float32)[None]
    points = vertices.astype(np.float64)
    seen = track_metrics.visible_truth(points, [Mesh(vertices[0], FACES)], CAMERA, 0.006)[0]
    # A point is seen where its normal faces the camera: everything nearer than the circle of tangents.
    outward = points[0] - np.array([0, 0, distance])
    facing = -(outward * points[0]).sum(axis=1) / (radius * np.linalg.norm(points[0], axis=1))
    assert seen[facing > 0.3].all() and not seen[facing < -0.12].any()  # but for the pixel at the rim


def test_what_hides_part_of_the_truth_hides_its_points() -> None:
    near = BALL * 0.4 + np.array([0, 0, 1.0])
    far = BALL + np.array([0, 0, 2.0])
    vertices = np.concatenate([near, far]).astype(np.float32)[None]
    faces = np.concatenate([FACES, FACES + len(near)]).astype(np.int32)
    seen = track_metrics.visible_truth(far[None], [Mesh(vertices[0], faces)], CAMERA, 0.01)[0]
    front = far[:, 2] < 1.9
    across = np.linalg.norm(far[:, :2], axis=1)
    # The small ball covers directions up to tan = 0.12 / sqrt(1 - 0.12 ** 2).
    direction = across / far[:, 2]
    assert not seen[direction < 0.115].any()
    assert seen[front & (direction > 0.135) & (across < 0.25)].all()


def turning_ball(frames: int = 5) -> GroundTruth:
    """A ball that turns about the vertical by 0.25 radians a frame, so that points go out of sight and come back."""
    angles = 0.25 * np.arange(frames)
    turns = np.stack([[[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]] for a in angles])
    vertices = np.einsum("tij,vj->tvi", turns, BALL) + np.array([0.05, 0, 1.5])
    return GroundTruth(vertices.astype(np.float32), FACES)


def scored(tracks: np.ndarray, truth: GroundTruth, confidence: np.ndarray | None = None, family: str = "") -> Scores:
    meshes: list[Mesh | None] = [Mesh(frame, truth.faces) for frame in truth.vertices]
    candidate = Candidate(meshes, tracks, confidence)
    return score("ball", candidate, truth, count=3000, intrinsics=CAMERA, family=family)


def test_errors_of_what_is_hidden_do_not_count_as_errors_of_what_is_seen() -> None:
    truth = turning_ball()
    tracks = truth.vertices.copy()
    surfaces = [Mesh(vertices, FACES) for vertices in truth.vertices]
    seen = track_metrics.visible_truth(truth.vertices.astype(np.float64), surfaces, CAMERA, 0.006)
    tracks[1:][~seen[1:]] += np.float32([0, 0.12, 0])  # 0.2 of the longest edge
    result = scored(tracks, truth)
    for frame in result.frames[1:]:
        assert frame.hidden_error == pytest.approx(0.2, abs=0.03)
        assert frame.visible_error < 0.04
    assert result.mean()["tracked"] == 1.0


def test_births_are_not_scored_and_deaths_are_held() -> None:
    truth = turning_ball()
    born = np.full((5, 50, 3), np.nan, np.float32)
    born[2:] = 9.0  # far away from everything
    died = truth.vertices.copy()
    died[3:, ::2] = np.nan
    plain, mixed = scored(died, truth), scored(np.concatenate([born, died], axis=1), truth)
    assert [frame.corr for frame in plain.frames] == [frame.corr for frame in mixed.frames]
    assert [frame.tracked for frame in mixed.frames] == pytest.approx([1, 1, 1, 0.5, 0.5], abs=0.01)
    held = died.copy()
    held[3:, ::2] = died[2, ::2]
    assert scored(held, truth).frames[4].corr == pytest.approx(mixed.frames[4].corr)


def test_confidences_are_held_against_metric_errors() -> None:
    truth = turning_ball()
    bad = np.zeros(truth.vertices.shape[:2], bool)
    bad[1:, ::4] = True
    tracks = truth.vertices + np.where(bad[..., None], np.float32([0, 0.1, 0]), np.float32(0))
    honest = scored(tracks, truth, np.where(bad, 0.05, 0.95).astype(np.float32)).reliability
    boasting = scored(tracks, truth, np.full(bad.shape, 0.95, np.float32)).reliability
    assert honest is not None and boasting is not None
    assert honest.auroc > 0.94 and honest.gap < 0.08  # a few are tied to a point that is a limit away
    assert boasting.gap == pytest.approx(0.15, abs=0.03)
    assert scored(tracks, truth).reliability is None


def test_means_skip_frames_without_a_measure_but_not_frames_that_failed() -> None:
    lost = FrameScores(None, corr=float("nan"), static_corr=0.1, chain_corr=0.1)
    rows = [FrameScores(None, 0.1, 0.1, 0.1, visible_error=error) for error in (0.2, float("nan"), 0.4)]
    assert Scores("a", 0, rows, 0.001, 10).mean()["visible_error"] == pytest.approx(0.3)
    assert np.isnan(Scores("a", 0, [*rows, lost], 0.001, 10).mean()["corr"])


def test_scores_are_grouped_by_kind() -> None:
    truth = turning_ball(3)
    scores = [scored(truth.vertices, truth, family=family) for family in ("animal", "person", "animal")]
    groups = by_family(scores)
    assert list(groups) == ["animal", "person"] and len(groups["animal"]) == 2
    assert summary(groups["person"])["corr"] == scores[1].mean()["corr"]
