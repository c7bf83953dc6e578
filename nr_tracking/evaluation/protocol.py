"""The protocol of the tables: sub-sequences of 17 frames, scored in the units of their first frame.

Each sub-sequence is scaled so that the longest edge of the true surface's box in its first frame is 1 (Niemeyer et
al. 2019). IoU and CD compare the surface of each frame with the true one; Corr follows the tracks of its first frame.
A score is the mean over the frames, the first one included, then over the sub-sequences.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nr_tracking.data.sequence import GroundTruth
from nr_tracking.evaluation import baselines
from nr_tracking.evaluation.metrics import Mesh, SurfaceScores, correspondence_error, score_surface
from nr_tracking.types import Float32, Float64, InputError

LENGTH = 17
COUNT = 100_000
"""Points for IoU, samples on each surface and points for Corr, per frame."""


@dataclass(frozen=True)
class Candidate:
    """What is to be scored: metric, camera optical frame, one entry a frame.

    ``meshes``: the surface of each frame, None where there is none; ``tracks`` (T, K, 3), NaN where not tracked.
    """

    meshes: list[Mesh | None]
    tracks: Float32


@dataclass(frozen=True)
class FrameScores:
    """Scores of one frame; ``surface`` is None before the first surface came out."""

    surface: SurfaceScores | None
    corr: float
    static_corr: float
    chain_corr: float

    def as_dict(self) -> dict[str, float]:
        """All scores by name; without a surface IoU is 0 and the rest NaN."""
        names = SurfaceScores.__dataclass_fields__
        surface = self.surface.as_dict() if self.surface else dict.fromkeys(names, np.nan) | {"iou": 0.0}
        return surface | {"corr": self.corr, "static_corr": self.static_corr, "chain_corr": self.chain_corr}


@dataclass(frozen=True)
class Scores:
    """Scores of one sub-sequence: by frame, and the sampling floor of CD in its first frame."""

    name: str
    start: int
    frames: list[FrameScores]
    chamfer_floor: float
    count: int
    missing: list[int] = field(default_factory=list)

    def mean(self) -> dict[str, float]:
        """Mean over the frames of every score, and ``chamfer_floor``; NaN where a frame could not be scored."""
        rows = [frame.as_dict() for frame in self.frames]
        return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]} | {
            "chamfer_floor": self.chamfer_floor
        }

    def as_dict(self) -> dict[str, Any]:
        """Everything, for JSON."""
        return {
            "name": self.name,
            "start": self.start,
            "points": self.count,
            "missing": self.missing,
            "mean": self.mean(),
            "frames": [frame.as_dict() for frame in self.frames],
        }


def subsequences(frames: int, length: int = LENGTH, stride: int = LENGTH, offset: int = 0) -> Iterator[int]:
    """Starts of the sub-sequences of a recording; the tables use ``stride`` 1 and ``offset`` 15."""
    if frames - offset < length:
        raise InputError("too_short", f"{frames} frames from {offset} on hold no sub-sequence of {length}")
    yield from range(offset, frames - length + 1, stride)


def score(
    name: str, candidate: Candidate, truth: GroundTruth, *, start: int = 0, count: int = COUNT, seed: int = 0
) -> Scores:
    """Score one sub-sequence; ``truth`` covers the same frames as ``candidate``.

    A frame without a surface is scored with the last one before it, as a lost track is: that is what a user of the
    results would have had to go by.
    """
    frames = len(truth.vertices)
    if len(candidate.meshes) != frames or len(candidate.tracks) != frames:
        raise InputError(
            "wrong_length",
            f"{name}: {len(candidate.meshes)} meshes, {len(candidate.tracks)} rows of tracks, {frames} true frames",
        )
    rng = np.random.default_rng(seed)
    origin, unit = _normalisation(truth)
    vertices = (truth.vertices - origin) / unit
    tracks = (candidate.tracks - origin) / unit
    points = baselines.corresponding_points(vertices, truth.faces, count, rng)
    corr = correspondence_error(tracks, points)
    static = baselines.static_error(points)
    chain = baselines.nearest_neighbour_chain_error(points, vertices, truth.faces, rng)
    floor = baselines.chamfer_floor(Mesh(vertices[0], truth.faces), count, rng)
    rows: list[FrameScores] = []
    surface: Mesh | None = None
    for frame, mesh in enumerate(candidate.meshes):
        surface = mesh if mesh is not None and len(mesh.faces) else surface
        scores = None
        if surface is not None:
            scaled = Mesh((surface.vertices - origin) / unit, surface.faces)
            scores = score_surface(scaled, Mesh(vertices[frame], truth.faces), count, rng)
        rows.append(FrameScores(scores, float(corr[frame]), float(static[frame]), float(chain[frame])))
    missing = [frame for frame, mesh in enumerate(candidate.meshes) if mesh is None]
    return Scores(name, start, rows, floor, count, missing)


def summary(scores: list[Scores]) -> dict[str, float]:
    """Mean over sub-sequences of every score."""
    means = [item.mean() for item in scores]
    return {key: float(np.mean([row[key] for row in means])) for key in means[0]} if means else {}


def _normalisation(truth: GroundTruth) -> tuple[Float64, float]:
    """Centre (3,) and longest edge of the true surface's box in the first frame."""
    used = truth.vertices[0, np.unique(truth.faces)].astype(np.float64)
    lower, upper = used.min(axis=0), used.max(axis=0)
    return (lower + upper) / 2, float((upper - lower).max())
