"""How well points are followed: as a mean, where the camera sees them and where it does not, and how steadily.

All of it is about the tracks of frame 0. Each one is tied to the nearest true point there, as for the correspondence
error of Occupancy Flow (Niemeyer et al. 2019, ``im2mesh/eval.py``), and compared with that point ever after. A lost
track is scored at its last position; a track that begins later is not scored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from nr_tracking.data.rendering import NEAREST_DEPTH_M, render_depth
from nr_tracking.evaluation.metrics import Mesh
from nr_tracking.types import Bool, Float32, Float64, Int64, Intrinsics

STATIC_STEP = 0.002
"""A true point that moves less than this from one frame to the next stands still; first longest edge = 1."""

VISIBLE_SLACK = 0.01
"""How far a true point may lie behind the rendered depth and count as seen, in the same unit."""


@dataclass(frozen=True)
class TiedTracks:
    """The K tracks of frame 0, each with its true point.

    ``positions`` (T, K, 3), lost tracks held at their last position; ``truth`` (T, K, 3) where they ought to be;
    ``tracked`` (T, K), whether a track was there; ``columns`` (K,) and ``partners`` (K,) say which columns of the
    tracks and of the true points these are.
    """

    positions: Float64
    truth: Float64
    tracked: Bool
    columns: Int64
    partners: Int64

    @property
    def error(self) -> Float64:
        """Distance (T, K) of each track from where it ought to be."""
        return np.linalg.norm(self.positions - self.truth, axis=-1)


def tie_tracks(tracks: Float32 | Float64, true_points: Float32 | Float64) -> TiedTracks:
    """Tie ``tracks`` (T, K, 3), NaN where not tracked, to ``true_points`` (T, N, 3) in correspondence over time."""
    columns = np.flatnonzero(np.all(np.isfinite(tracks[0]), axis=1))
    chosen = tracks[:, columns].astype(np.float64)
    partners = np.empty(0, np.int64)
    if len(columns):
        partners = np.asarray(cKDTree(true_points[0]).query(chosen[0], workers=-1)[1], np.int64)
    tracked = np.all(np.isfinite(chosen), axis=-1)
    truth = np.asarray(true_points, np.float64)[:, partners]
    return TiedTracks(hold_last(chosen), truth, tracked, columns, partners)


def correspondence_error(tied: TiedTracks) -> Float64:
    """Corr: mean error of all tracks, frame by frame (T,); Euclidean, not squared. NaN without tracks."""
    return masked_mean(tied.error, np.ones_like(tied.tracked))


def end_point_error(tied: TiedTracks, visible: Bool) -> tuple[Float64, Float64]:
    """Mean error (T,) of the tracks whose true points are visible, and of the others; NaN where there are none.

    ``visible`` (T, K). Weighted by their numbers, the two make up the correspondence error.
    """
    error = tied.error
    return masked_mean(error, visible), masked_mean(error, ~visible)


def share_tracked(tied: TiedTracks) -> Float64:
    """Share (T,) of the tracks of frame 0 that are still there under their id; NaN where there were none."""
    return masked_mean(tied.tracked.astype(np.float64), np.ones_like(tied.tracked))


def jitter(tied: TiedTracks, static_step: float = STATIC_STEP) -> Float64:
    """Motion that is not there: mean error of the step from the frame before, of points that stand still, (T,).

    A point stands still where its true step is shorter than ``static_step``. NaN in frame 0, and where no tracked
    point stands still.
    """
    step = np.diff(tied.truth, axis=0)
    still = np.linalg.norm(step, axis=-1) < static_step
    still &= tied.tracked[1:] & tied.tracked[:-1]
    error = np.linalg.norm(np.diff(tied.positions, axis=0) - step, axis=-1)
    return np.concatenate([[np.nan], masked_mean(error, still)])


def visible_truth(true_points: Float64, surfaces: Sequence[Mesh], intrinsics: Intrinsics, slack: float) -> Bool:
    """Which of ``true_points`` (T, N, 3) a camera sees of the T true ``surfaces``, (T, N) bool.

    Metric, camera optical frame. The true surface is rendered; a point is seen where it lies not more than ``slack``
    metres behind the deepest of the four pixels around its projection: a surface seen at a grazing angle changes its
    depth by much from pixel to pixel, and what hides a point is nearer in all of them. What stands in front of the
    subject is not known here and hides nothing.
    """
    return np.stack([_seen(*pair, intrinsics, slack) for pair in zip(true_points, surfaces, strict=True)])


def _seen(points: Float64, surface: Mesh, intrinsics: Intrinsics, slack: float) -> Bool:
    depth = np.pad(render_depth(surface.vertices, surface.faces, intrinsics), 1)
    deepest = np.maximum.reduce([depth[:-1, :-1], depth[1:, :-1], depth[:-1, 1:], depth[1:, 1:]])
    z = np.maximum(points[:, 2], NEAREST_DEPTH_M)
    column = np.floor(points[:, 0] / z * intrinsics.fx + intrinsics.cx).astype(np.int64) + 1  # the padding's pixel
    row = np.floor(points[:, 1] / z * intrinsics.fy + intrinsics.cy).astype(np.int64) + 1
    height, width = deepest.shape
    inside = (column >= 0) & (row >= 0) & (column < width) & (row < height) & (points[:, 2] > NEAREST_DEPTH_M)
    there = deepest[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
    return inside & (there > 0) & (points[:, 2] < there + slack)


def hold_last(tracks: Float64) -> Float64:
    """Fill what is NaN in (T, K, 3) with the last position before it; row 0 must be known."""
    known = np.all(np.isfinite(tracks), axis=-1)
    last = np.maximum.accumulate(np.where(known, np.arange(len(tracks))[:, None], 0), axis=0)
    return tracks[last, np.arange(tracks.shape[1])]


def masked_mean(values: Float64, mask: Bool) -> Float64:
    """Mean over K of ``values`` (T, K) where ``mask`` (T, K) holds; NaN in rows where it holds nowhere."""
    count = mask.sum(axis=1)
    total = np.where(mask, values, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
