"""Live, complete, tracked surfaces of deforming subjects from one depth camera.

What a program needs, in most cases::

    from nr_tracking import Tracker, load_config
    tracker = Tracker(load_config("base"))
    for frame in frames:                      # DepthFrame
        for result in tracker.push(frame):    # TrackedFrame, in order, one for each frame with a surface
            ...
    for result in tracker.flush(): ...

The names below are stable. So are :func:`~nr_tracking.data.sequence.read_sequence`, which reads recordings, and
:class:`~nr_tracking.sensing.following.SubjectFollower`, which chooses the nearest or a clicked subject.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

# The matrices of a live tracker are small: threads of numpy's BLAS wait for each other much longer than they multiply,
# most of all while PyTorch has the cores. It is read when numpy is loaded; who sets it otherwise keeps it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# oneDNN, which multiplies for PyTorch on a CPU, keeps the kernels that it makes for each shape of a matrix. A frame
# takes 80 of them, and some that are its own: a thousand kernels that are never used again would hold a gigabyte.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")
os.environ.setdefault("LRU_CACHE_CAPACITY", "128")

from nr_tracking.config import Config, ConfigError, load_config
from nr_tracking.types import DepthFrame, InputError, Intrinsics, Nodes, Patches, Surface, TrackedFrame, Tracks

if TYPE_CHECKING:
    from nr_tracking.tracking.tracker import Tracker

__version__ = "0.1.0"
__all__ = [
    "Config",
    "ConfigError",
    "DepthFrame",
    "InputError",
    "Intrinsics",
    "Nodes",
    "Patches",
    "Surface",
    "TrackedFrame",
    "Tracker",
    "Tracks",
    "load_config",
]


def __getattr__(name: str) -> Any:
    """Import the tracker, and torch with it, only when it is asked for."""
    if name == "Tracker":
        from nr_tracking.tracking.tracker import Tracker

        return Tracker
    raise AttributeError(f"module 'nr_tracking' has no attribute {name!r}")
