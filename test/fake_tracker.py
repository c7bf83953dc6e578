"""A tracker that is quick and predictable: one tetrahedron at the mean depth of each frame."""

import threading

import numpy as np

from nr_tracking.config import load_config
from nr_tracking.sensing.stamps import StampOrder
from nr_tracking.types import DepthFrame, InputError, Intrinsics, Nodes, Patches, Surface, TrackedFrame, Tracks

CORNERS = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
QUARTER = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])  # of a turn about z
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)


def tracked(stamp_ns, depth_m=1.0, previous_m=None, first_id=0):
    """A tetrahedron whose first corner is at ``depth_m`` on the optical axis."""
    vertices = CORNERS + np.float32([0, 0, depth_m])
    previous = np.full((4, 3), np.nan, np.float32) if previous_m is None else CORNERS + np.float32([0, 0, previous_m])
    known, ids = np.ones(4, np.float32), first_id + np.arange(4)
    rotations = np.stack([np.eye(3), np.full((3, 3), np.nan)]).astype(np.float32)
    return TrackedFrame(
        stamp_ns,
        Surface(vertices, FACES, known, known > 0),
        Patches(vertices[:2], rotations, vertices[:2], np.array([0, 1, 0, 0], np.int32), np.array([[0, 1]], np.int32)),
        Tracks(ids, vertices, np.float32([0, 0, 1]) * np.ones((4, 3), np.float32), known, known > 0),
        canonical=CORNERS.copy(),
        previous=previous,
        timings={"field": 0.01},
        nodes=Nodes(np.array([3, 7]), vertices[:2], np.stack([np.eye(3), QUARTER]).astype(np.float32)),
    )


class FakeTracker:
    """Gives back a frame for each one pushed, ``lag`` frames later; refuses empty depth; ``gate`` holds it up."""

    subject_size_m = 0.0

    def __init__(self, config=None, lag=0):
        self.config = config or load_config("test")
        self.lag = lag
        self.on_ready = self.on_no_result = None
        self.windows = 0
        self.next_id = 0
        self.pushed = []
        self.resets = 0
        self.gate = threading.Event()
        self.gate.set()
        self.error = None
        self.bare = None  # whether there is no surface in the frame of a stamp
        self._order = StampOrder()
        self._pending = []
        self._last = self._first_id = None

    def push(self, frame: DepthFrame):
        self.gate.wait(30)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        restarted = self._order.jumped_back(frame.stamp_ns)
        if not (frame.depth > 0).any():
            raise InputError("no_depth", "every pixel is 0 or NaN")
        done = []
        if restarted:
            done = self.flush()
            self.reset()
        self._order.accept(frame.stamp_ns)
        self.pushed.append(frame)
        self._pending.append(frame)
        count = max(0, len(self._pending) - self.lag)
        ready, self._pending = self._pending[:count], self._pending[count:]
        return done + self._finish(ready)

    def collect(self):
        return []

    def flush(self):
        pending, self._pending = self._pending, []
        return self._finish(pending)

    def reset(self, keep_background=False):
        self.resets += 1
        self._order.forget()
        self._pending = []
        self._last = self._first_id = None

    def _finish(self, frames):
        bare = [frame for frame in frames if self.bare is not None and self.bare(frame.stamp_ns)]
        for frame in bare:
            self.on_no_result(frame.stamp_ns, InputError("no_surface", "the field is nowhere negative"))
        return [self._track(frame) for frame in frames if not any(frame is other for other in bare)]

    def _track(self, frame):
        depth = float(frame.depth[frame.depth > 0].mean())
        if self._first_id is None:
            self._first_id, self.next_id = self.next_id, self.next_id + 4
        result = tracked(frame.stamp_ns, depth, self._last, self._first_id)
        self._last = depth
        return result


CAMERA = Intrinsics(16, 12, 20.0, 20.0, 7.5, 5.5)


def flat_frame(stamp_ns, depth_m=1.0):
    """A wall in front of a small camera."""
    return DepthFrame(stamp_ns, np.full((CAMERA.height, CAMERA.width), depth_m, np.float32), CAMERA)
