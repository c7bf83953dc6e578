"""The cube around the subject: the similarity between the metric camera frame and box coordinates.

The cube is aligned with the camera and fitted to what the camera sees of the subject, with room for what it cannot see.
It follows a subject that walks in whole eighths of its side, so that the voxels of two successive cubes coincide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from nr_tracking.config import VolumeConfig
from nr_tracking.loops import compiled_loops
from nr_tracking.types import Float64, InputError

Points = TypeVar("Points", NDArray[np.floating], torch.Tensor)

_MEASURED_POINTS = 20_000  # percentiles of an evenly thinned cloud are as good, and six times faster at 640x480
_CELLS = 8  # steps of a moving cube along its side: whole voxels on every level of the field
_DEAD_BAND = 0.65  # of a cell: more than half, so that a subject standing between two positions does not toggle
_SHRINK_PATIENCE = 1.25  # a subject that curls up will stretch again: shrinking waits longer than growing

_BEHIND_COUNTS = 0.3  # of the depth assumed behind the subject makes the cube larger
_RIM = 0.03  # of the side: the seen front keeps so far from the border

_NEIGHBOUR_SHIFT = 1 / 64  # of the side
_NEIGHBOURS = (
    ((1.0, 1.0, 1.0), 0.97),
    ((-1.0, 1.0, -1.0), 0.95),
    ((1.0, -1.0, -1.0), 0.93),
    ((-1.0, -1.0, 1.0), 0.99),
)


@dataclass(frozen=True)
class Volume:
    """A camera-aligned cube. ``centre`` (3,) float64 metres in the camera optical frame; ``side`` in metres.

    Box coordinates are ``(x - centre) / side`` and span [-0.5, 0.5]; lengths scale by ``1 / side``.
    """

    centre: Float64
    side: float

    def to_box(self, points: Points) -> Points:
        """Metric points (..., 3), numpy or torch, in box coordinates; dtype and device are kept."""
        return (points - _like(self.centre, points)) / self.side

    def to_metric(self, points: Points) -> Points:
        """Points (..., 3) in box coordinates, numpy or torch, in metres in the camera optical frame."""
        return points * self.side + _like(self.centre, points)

    def coincides_with(self, other: Volume) -> bool:
        """Whether both are the same cube, to the last bit."""
        return self is other or (self.side == other.side and bool((self.centre == other.centre).all()))


def fit_volume(points: NDArray[np.floating], config: VolumeConfig) -> Volume:
    """Fit the cube to one partial cloud.

    ``points`` (N, 3), the subject's back-projected pixels in metres in the camera optical frame. Outliers are cut off
    at a percentile. A camera sees the front of things only, so the cube is centred as if the box went on away from it
    by ``depth_prior`` of the shorter edge seen across the view, or of the edge along the view where that is longer: a
    horse seen head-on. Its margin has room for most of that, so it is hardly larger: voxels that are as wide as a leg
    lose it. Raises InputError ``no_subject`` where there is nothing to fit.
    """
    lower, upper = _extent(points, config)
    edges = upper - lower
    behind = config.depth_prior * max(edges[2], min(edges[0], edges[1]))
    side = config.margin * float(max(edges[0], edges[1], edges[2] + _BEHIND_COUNTS * behind))
    upper[2] += min(behind, max((1 - 2 * _RIM) * side - edges[2], 0.0))
    if not side > 0.0:
        raise InputError("no_subject", "the subject's points all coincide; a cube cannot be fitted around them")
    return Volume(centre=(lower + upper) / 2.0, side=side)


def follow(volume: Volume, points: NDArray[np.floating], config: VolumeConfig) -> Volume:
    """The cube for a later frame of the same subject.

    Returns ``volume`` itself while the subject stays near its centre; else the cube moved along each axis by whole
    eighths of its side; else, where the subject outgrew the cube or shrank far below it, a cube fitted anew.
    """
    target = fit_volume(points, config)
    growth = target.side / volume.side
    if growth > config.rescale_ratio or growth < 1.0 / (_SHRINK_PATIENCE * config.rescale_ratio):
        return target
    cell = volume.side / _CELLS
    offset = target.centre - volume.centre
    allowed = max(config.recentre_ratio * volume.side, _DEAD_BAND * cell)
    steps = np.where(np.abs(offset) > allowed, np.round(offset / cell), 0.0)
    if not steps.any():
        return volume
    return Volume(centre=volume.centre + steps * cell, side=volume.side)


def neighbouring_cubes(volume: Volume, count: int) -> list[Volume]:
    """``volume`` first, then others shifted by up to a sixty-fourth of the side along each axis and a little smaller.

    Completions in them differ by where voxels fall, not by what is in view. Raises ValueError for more than are known.
    """
    if not 1 <= count <= len(_NEIGHBOURS) + 1:
        raise ValueError(f"{count} cubes: from 1 to {len(_NEIGHBOURS) + 1} are known")
    step = _NEIGHBOUR_SHIFT * volume.side
    moved = [Volume(volume.centre + step * np.array(way), volume.side * scale) for way, scale in _NEIGHBOURS]
    return [volume, *moved[: count - 1]]


def _extent(points: NDArray[np.floating], config: VolumeConfig) -> tuple[Float64, Float64]:
    """Lower and upper corner (3,) of the cloud without its outermost ``percentile`` at each end."""
    if len(points) == 0:
        raise InputError("no_subject", "no points of the subject; check depth range, region box and mask")
    step, ends = max(1, len(points) // _MEASURED_POINTS), (config.percentile, 100.0 - config.percentile)
    if points.dtype == np.float32 and (loops := compiled_loops("percentiles")) is not None:
        cuts = loops.percentiles_along(np.ascontiguousarray(points), step, np.array(ends))
    else:
        cuts = np.percentile(points[::step], ends, axis=0).astype(np.float64)
    return cuts[0], cuts[1]


def _like(vector: Float64, points: Points) -> Points:
    if isinstance(points, torch.Tensor):
        return torch.as_tensor(vector, dtype=points.dtype, device=points.device)
    return vector.astype(points.dtype)
