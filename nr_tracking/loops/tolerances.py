"""How much depth may differ by noise at one pixel: the twin of :func:`nr_tracking.sensing.planes.depth_tolerance`."""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import inlined


@inlined
def tolerance_at(depth: np.float32, near: np.float32, scale: np.float32) -> np.float32:
    """In metres: ``near``, and more by the square of ``depth`` times ``scale`` where that is above 1."""
    share = depth * scale
    return near * max(np.float32(1), share * share)
