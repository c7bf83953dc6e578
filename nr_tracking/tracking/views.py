"""Recordings of a moving camera, all of them as their first frame's camera would have seen them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nr_tracking.sensing.rigid import Rigid, fixed_frame
from nr_tracking.types import Float32


def views_of_first(poses: Sequence[np.ndarray]) -> list[Rigid]:
    """From the camera of each of ``poses`` (4, 4) to that of the first one.

    Far from the origin of the fixed frame, points would be too coarse in single precision; there they are not.
    """
    first = fixed_frame(poses[0]).inverse()
    return [first.after(fixed_frame(pose)) for pose in poses]


def seen_from_first(views: Sequence[Rigid], points: np.ndarray) -> Float32:
    """Points (T, N, 3) as each of T cameras has them, where they are for the first one: :func:`views_of_first`."""
    return np.stack([view.points(row) for view, row in zip(views, points, strict=True)]).astype(np.float32)
