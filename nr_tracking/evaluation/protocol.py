"""The protocol of the tables: sub-sequences of 17 frames, scored in the units of their first frame.

Each sub-sequence is scaled so that the longest edge of the true surface's box in its first frame is 1 (Niemeyer et
al. 2019). IoU and CD compare the surface of each frame with the true one; Corr follows the tracks of its first frame.
A score is the mean over the frames, the first one included, then over the sub-sequences.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nr_tracking.data.sequence import GroundTruth
from nr_tracking.evaluation import baselines, track_metrics
from nr_tracking.evaluation.metrics import Mesh, Samples, SurfaceScores, sample, score_surface
from nr_tracking.evaluation.reliability import Reliability, reliability
from nr_tracking.sensing.camera import rectified_camera
from nr_tracking.sensing.rigid import Rigid
from nr_tracking.tracking.confidence import error_limit
from nr_tracking.tracking.views import seen_from_first, views_of_first
from nr_tracking.types import Float32, Float64, InputError, Intrinsics

LENGTH = 17
COUNT = 100_000
"""Points for IoU, samples on each surface and points for Corr, per frame."""


@dataclass(frozen=True)
class Candidate:
    """What is to be scored: metric, camera optical frame, one entry a frame.

    ``meshes``: the surface of each frame, None where there is none; ``tracks`` (T, K, 3), NaN where not tracked;
    ``confidence`` (T, K) of the tracks and ``seconds`` a frame where they are known; ``method`` says what made it;
    ``dropped`` says why frames have no surface, where that is known.
    """

    meshes: list[Mesh | None]
    tracks: Float32
    confidence: Float32 | None = None
    seconds: float = float("nan")
    method: str = "nr_tracking"
    dropped: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FrameScores:
    """Scores of one frame; ``surface`` is None before the first surface came out.

    ``corr`` of the tracks, ``static_corr`` and ``chain_corr`` of the baselines; ``visible_error`` and
    ``hidden_error`` of the tracks whose true points the camera sees, and of the others; ``jitter`` of points that
    stand still; ``tracked``, the share of the tracks of frame 0 that are there. NaN where there is nothing to measure.
    """

    surface: SurfaceScores | None
    corr: float
    static_corr: float
    chain_corr: float
    visible_error: float = float("nan")
    hidden_error: float = float("nan")
    jitter: float = float("nan")
    tracked: float = float("nan")

    def as_dict(self) -> dict[str, float]:
        """All scores by name; without a surface IoU is 0 and the rest NaN."""
        names = SurfaceScores.__dataclass_fields__
        surface = self.surface.as_dict() if self.surface else dict.fromkeys(names, np.nan) | {"iou": 0.0}
        return surface | {name: getattr(self, name) for name in TRACK_SCORES}


TRACK_SCORES = tuple(name for name in FrameScores.__dataclass_fields__ if name != "surface")

OPTIONAL = frozenset({"visible_error", "hidden_error", "jitter"})
"""Scores that some frames do not have, for no fault of the tracker: their means are over the frames that do."""


@dataclass(frozen=True)
class Specimen:
    """One frame to look at: a surface beside the true one, metric, in the optical frame of the first frame's camera.

    ``error`` (V,) is the distance of each of its vertices from the true surface, and ``missed`` (V',) that of each true
    vertex from the surface, first longest edge = 1; ``frame`` counts from the start of the sub-sequence.
    """

    frame: int
    surface: Mesh
    truth: Mesh
    error: Float64
    missed: Float64


@dataclass(frozen=True)
class Scores:
    """Scores of one sub-sequence: by frame, and the sampling floor of CD in its first frame.

    ``family`` is the kind of subject, empty where it is not known; ``worst`` the frame with the largest CD;
    ``reliability`` holds the stated confidences of the tracks against their errors, where there were any.
    """

    name: str
    start: int
    frames: list[FrameScores]
    chamfer_floor: float
    count: int
    missing: list[int] = field(default_factory=list)
    family: str = ""
    method: str = "nr_tracking"
    seconds: float = float("nan")
    reliability: Reliability | None = field(default=None, compare=False)
    worst: Specimen | None = field(default=None, compare=False)

    def mean(self) -> dict[str, float]:
        """Mean over the frames of every score, and ``chamfer_floor``; NaN where a frame could not be scored."""
        rows = [frame.as_dict() for frame in self.frames]
        columns = {key: np.array([row[key] for row in rows]) for key in rows[0]}
        means = {
            key: _mean(values[np.isfinite(values)] if key in OPTIONAL else values) for key, values in columns.items()
        }
        return means | {"chamfer_floor": self.chamfer_floor}

    def as_dict(self) -> dict[str, Any]:
        """Everything but pictures, for JSON."""
        return {
            "name": self.name,
            "family": self.family,
            "method": self.method,
            "start": self.start,
            "points": self.count,
            "seconds_per_frame": self.seconds,
            "missing": self.missing,
            "mean": self.mean(),
            "reliability": self.reliability.as_dict() if self.reliability else None,
            "frames": [frame.as_dict() for frame in self.frames],
        }


def subsequences(frames: int, length: int = LENGTH, stride: int = LENGTH, offset: int = 0) -> Iterator[int]:
    """Starts of the sub-sequences of a recording; the tables use ``stride`` 1 and ``offset`` 15."""
    if length < 1 or stride < 1 or offset < 0:
        raise InputError(
            "bad_request",
            f"sub-sequences of {length} frames that start every {stride} from {offset} on: "
            "give a length and a stride of 1 or more and an offset of 0 or more",
        )
    if frames - offset < length:
        raise InputError("too_short", f"{frames} frames from {offset} on hold no sub-sequence of {length}")
    yield from range(offset, frames - length + 1, stride)


def check_points(count: int, seed: int = 0) -> None:
    """Raise an :class:`InputError` for a number of points, or a seed, that :func:`score` cannot take."""
    if count < 1 or seed < 0:
        raise InputError("bad_request", f"{count} points with seed {seed}: give 1 point and a seed of 0, or more")


def score(
    name: str,
    candidate: Candidate,
    truth: GroundTruth,
    *,
    start: int = 0,
    count: int = COUNT,
    seed: int = 0,
    family: str = "",
    intrinsics: Intrinsics | None = None,
    scans: list[Mesh] | None = None,
    poses: Float64 | None = None,
) -> Scores:
    """Score one sub-sequence; ``truth`` covers the same frames as ``candidate``.

    Of a camera that moves, ``poses`` (T, 4, 4) camera -> world: everything is compared where it is for the camera of
    the first frame, so that what stands still in the world does not move.

    A frame without a surface is scored with the last one before it, as a lost track is: that is what a user of the
    results would have had to go by. What the camera of ``intrinsics`` sees of the truth divides the errors into
    visible and hidden; without it they are not divided. ``scans``: the true surfaces, one a frame, where those of
    ``truth`` only say where points go. True surfaces whose faces look inwards are turned: nothing else can be meant.
    """
    check_points(count, seed)
    frames = len(truth.vertices)
    scans = _outward(scans or [Mesh(vertices, truth.faces) for vertices in truth.vertices])
    if len(candidate.meshes) != frames or len(candidate.tracks) != frames:
        raise InputError(
            "wrong_length",
            f"{name}: {len(candidate.meshes)} meshes, {len(candidate.tracks)} rows of tracks, {frames} true frames",
        )
    views = _views(poses, frames)
    seen = scans  # as each camera saw them
    if views is not None:
        scans = [Mesh(view.points(scan.vertices), scan.faces) for view, scan in zip(views, scans, strict=True)]
        truth = GroundTruth(seen_from_first(views, truth.vertices), truth.faces)
        candidate = _candidate_of_first_camera(candidate, views)
    rng = np.random.default_rng(seed)
    units = _Units.of(scans[0])
    true = [units.of_mesh(scan) for scan in scans]
    points = baselines.corresponding_points(units.of_points(truth.vertices), truth.faces, count, rng)
    samples = [sample(mesh, count, rng) for mesh in true]
    tied = track_metrics.tie_tracks(units.of_points(candidate.tracks), points)
    true_points = units.metric(tied.truth)
    if views is not None:
        true_points = np.stack([view.inverse().points(row) for view, row in zip(views, true_points, strict=True)])
    by_track = _track_scores(tied, points, samples)
    if intrinsics is not None and len(tied.columns):
        slack = track_metrics.VISIBLE_SLACK * units.edge
        visible = track_metrics.visible_truth(true_points, seen, rectified_camera(intrinsics), slack)
        by_track["visible_error"], by_track["hidden_error"] = track_metrics.end_point_error(tied, visible)
    shown = _shown(candidate.meshes)
    by_surface = [
        None if surface is None else score_surface(units.of_mesh(surface), true[frame], count, rng, samples[frame])
        for frame, surface in enumerate(shown)
    ]
    floor = baselines.chamfer_floor(samples[0], true[0], count, rng)
    return Scores(
        name,
        start,
        [
            FrameScores(surface, **{key: float(values[frame]) for key, values in by_track.items()})
            for frame, surface in enumerate(by_surface)
        ],
        chamfer_floor=floor,
        count=count,
        missing=[frame for frame, mesh in enumerate(candidate.meshes) if mesh is None],
        family=family,
        method=candidate.method,
        seconds=candidate.seconds,
        reliability=_reliability(candidate, tied, units.edge, true_points[..., 2]),
        worst=_worst(by_surface, shown, scans, samples, units, rng),
    )


@dataclass(frozen=True)
class _Units:
    """Those of the scores: ``origin`` (3,) and ``edge``, centre and longest edge of the first true surface's box."""

    origin: Float64
    edge: float

    @classmethod
    def of(cls, first: Mesh) -> _Units:
        used = first.vertices[np.unique(first.faces)].astype(np.float64)
        lower, upper = used.min(axis=0), used.max(axis=0)
        return cls((lower + upper) / 2, float((upper - lower).max()))

    def of_points(self, points: NDArray[np.floating]) -> Float64:
        """Metric points (..., 3) in these units."""
        scaled: Float64 = (points - self.origin) / self.edge
        return scaled

    def of_mesh(self, mesh: Mesh) -> Mesh:
        """A metric surface in these units."""
        return Mesh(self.of_points(mesh.vertices), mesh.faces)

    def metric(self, points: Float64) -> Float64:
        """Points (..., 3) in these units in metres."""
        return points * self.edge + self.origin


def _track_scores(tied: track_metrics.TiedTracks, points: Float64, samples: list[Samples]) -> dict[str, Float64]:
    """Scores of tracks, (T,) each, and of the baselines beside them; ``points`` (T, K, 3) correspond over time."""
    return {
        "corr": track_metrics.correspondence_error(tied),
        "static_corr": baselines.static_error(points),
        "chain_corr": baselines.nearest_neighbour_chain_error(points, samples),
        "jitter": track_metrics.jitter(tied),
        "tracked": track_metrics.share_tracked(tied),
    }


def _shown(meshes: list[Mesh | None]) -> list[Mesh | None]:
    """The surface of each frame or, where it has none, the last one before it; None before the first one."""
    shown: list[Mesh | None] = []
    for mesh in meshes:
        there = mesh is not None and len(mesh.faces) > 0
        shown.append(mesh if there else shown[-1] if shown else None)
    return shown


def _worst(
    scores: list[SurfaceScores | None],
    shown: list[Mesh | None],
    true: list[Mesh],
    samples: list[Samples],
    units: _Units,
    rng: np.random.Generator,
) -> Specimen | None:
    """The frame with the largest CD; ``shown`` and ``true`` are metric, ``samples`` of the true ones are not."""
    chamfer = [-1.0 if surface is None else np.nan_to_num(surface.chamfer_l1, nan=-1.0) for surface in scores]
    frame = int(np.argmax(chamfer))
    surface = shown[frame]
    if surface is None or chamfer[frame] < 0:
        return None
    scaled = units.of_mesh(surface)
    error = _distance(scaled, samples[frame])
    missed = _distance(units.of_mesh(true[frame]), sample(scaled, len(samples[frame].points), rng))
    # A copy: a part of an array would keep the whole of it, and there may be thousands of sub-sequences.
    return Specimen(frame, surface, Mesh(true[frame].vertices.copy(), true[frame].faces), error, missed)


def summary(scores: list[Scores]) -> dict[str, float]:
    """Mean of every score over the sub-sequences that have it; :func:`unscored` says how many have not."""
    by_score = columns(scores)
    return {key: mean_of_known(values) for key, values in by_score.items()}


def unscored(scores: list[Scores]) -> dict[str, int]:
    """How many sub-sequences lack a score that each should have, by score: a frame had no surface, or no track."""
    missing = {key: int((~np.isfinite(values)).sum()) for key, values in columns(scores).items()}
    return {key: count for key, count in missing.items() if count and key not in OPTIONAL}


def mean_of_known(values: Float64) -> float:
    """The mean of those ``values`` (N,) that are not NaN; NaN where all are."""
    return _mean(values[np.isfinite(values)])


def columns(scores: list[Scores]) -> dict[str, Float64]:
    """Means by score, an entry for each sub-sequence."""
    means = [item.mean() for item in scores]
    return {key: np.array([row[key] for row in means]) for key in means[0]} if means else {}


def by_family(scores: list[Scores]) -> dict[str, list[Scores]]:
    """Scores grouped by the kind of subject, in the order in which the kinds come."""
    groups: dict[str, list[Scores]] = {}
    for item in scores:
        groups.setdefault(item.family, []).append(item)
    return groups


def _mean(values: Float64) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _distance(mesh: Mesh, samples: Samples) -> Float64:
    """Distance (V,) of the vertices of a mesh from samples of a surface."""
    return np.asarray(samples.tree.query(mesh.vertices, workers=-1)[0], np.float64)


def _reliability(
    candidate: Candidate, tied: track_metrics.TiedTracks, unit: float, depth: Float64
) -> Reliability | None:
    """Stated confidences of tracks that are there, against their metric errors at a true ``depth`` (T, K)."""
    if candidate.confidence is None or not len(tied.columns):
        return None
    stated = np.where(tied.tracked, candidate.confidence[:, tied.columns], np.nan)
    return reliability(stated, tied.error * unit, error_limit(depth))


def _views(poses: Float64 | None, frames: int) -> list[Rigid] | None:
    """From the camera of each frame to that of the first one; None for a camera that stands still."""
    if poses is None:
        return None
    if len(poses) != frames:
        raise InputError("wrong_length", f"{len(poses)} poses of the camera for {frames} true frames")
    return views_of_first(list(poses))


def _candidate_of_first_camera(candidate: Candidate, views: list[Rigid]) -> Candidate:
    meshes = [
        None if mesh is None else Mesh(view.points(mesh.vertices), mesh.faces)
        for view, mesh in zip(views, candidate.meshes, strict=True)
    ]
    return replace(candidate, meshes=meshes, tracks=seen_from_first(views, candidate.tracks))


def _outward(surfaces: list[Mesh]) -> list[Mesh]:
    """Surfaces with their faces turned to the outside, if those of the first one look inwards."""
    first = surfaces[0]
    corners = (first.vertices - first.vertices.mean(axis=0)).astype(np.float64)[first.faces]
    volume = np.einsum("fi,fi->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2]))
    if volume >= 0:
        return surfaces
    # As arrays of their own: torch takes none that is read backwards.
    return [Mesh(mesh.vertices, np.ascontiguousarray(mesh.faces[:, ::-1])) for mesh in surfaces]
