"""The background of a camera that stands still: the depth that it sees where the subject is not, learnt as it goes.

One image has to guess what is a room and what is a body, by planes and by gaps. The images before know more: what lay
there before the subject came, and lies there still, is no part of it, however close it sits to that; what has come
before it is no floor, however flat it lies; and of two things one of which moves, the other may be furniture.

This is background subtraction by a running mean of each pixel's depth, with two rules of its own. What is taken for the
subject does not become background, so somebody who holds still stays. And beside a subject that moves, whatever else
holds still becomes it at once, though it was taken for a part of the subject before.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nr_tracking.loops import compiled_loops
from nr_tracking.sensing.planes import NOISE_DEPTH_M, depth_tolerance
from nr_tracking.sensing.rigid import change_of_view
from nr_tracking.types import Bool, DepthFrame, Float32, Float64

_ALIKE = 1.5  # tolerances by which the depth of one surface may differ from image to image
_APART = 3.0  # tolerances by which another surface is nearer or farther
_KNOWN_S = 0.7  # so long a surface must have been seen to be known
_MOST_S = 2.0  # longer counts no more
_COVERED = 0.1  # of the time that something else is seen counts against it: after 7 to 20 s that takes its place
_STEP_S = 0.25  # an image counts for so much time at most
_SHARE = 0.1  # of an image in the running mean
COME = 0.3  # of what moves, at least, has come before what was seen
_GONE = 0.05  # of the background: when so much is farther away at once, it is the camera that has moved
_AHEAD_M = 2.0  # a point so far before a camera tells how far its pose has changed
_MOVED_M = 0.01


class Change(NamedTuple):
    """What an image shows of what was there before, (H, W) bool each; a pixel may be nothing of all that."""

    background: Bool
    """It is there still, and was not the subject."""
    still: Bool
    """It is there still, be it the subject or not."""
    come: Bool
    """Something else has come before it."""

    def moves(self, subject: Bool) -> bool:
        """Whether a good part of a ``subject`` (H, W) stands before what was seen there: it has come, or turned."""
        return bool(self.come[subject].sum() >= COME * np.count_nonzero(subject))


class BackgroundModel:
    """What one camera knows of the depth behind its subject; it is empty until the camera has stood still for a while.

    For each image call :meth:`change`, find the subject, and then :meth:`learn` what is the subject and what is not. A
    tolerance is ``near`` metres, beyond ``noise_depth`` metres more: see
    :func:`~nr_tracking.sensing.planes.depth_tolerance`.
    """

    def __init__(self) -> None:
        self._depth: Float32 | None = None  # (H, W) metres, 0 where nothing was seen
        self._seconds: Float32 | None = None  # (H, W, 2): for how long that has been seen; and was not the subject
        self._pose: Float64 | None = None
        self._stamp_ns = 0

    def forget(self) -> None:
        """Begin anew: it is another camera, or another recording."""
        self._depth = self._seconds = self._pose = None

    def change(self, frame: DepthFrame, near: float, noise_depth: float = NOISE_DEPTH_M) -> Change | None:
        """What has changed in an image (H, W); None where nothing is known yet, or the camera has moved."""
        if self._depth is None or self._seconds is None or self._depth.shape != frame.depth.shape:
            return None
        if self._has_moved(frame):
            self.forget()
            return None
        depth = np.ascontiguousarray(frame.depth, np.float32)
        if (loops := compiled_loops("background")) is not None:
            limits = _KNOWN_S, _ALIKE, _APART
            *images, known, gone = loops.change(depth, self._depth, self._seconds, near, noise_depth, limits)
            change = Change(*images)
        else:
            ahead = (self._depth - depth) / depth_tolerance(depth, near, noise_depth)
            seen, free = (
                (seconds >= np.float32(_KNOWN_S)) & (depth > 0) for seconds in np.moveaxis(self._seconds, 2, 0)
            )
            still = seen & (np.abs(ahead) <= _ALIKE)
            change = Change(still & free, still, seen & (ahead > _APART))
            known, gone = np.count_nonzero(free), np.count_nonzero(free & (ahead < -_APART))
        if gone > _GONE * known:
            self.forget()
            return None
        return change

    def learn(
        self,
        frame: DepthFrame,
        subject: Bool | None,
        near: float,
        noise_depth: float = NOISE_DEPTH_M,
        moves: bool = False,
    ) -> None:
        """Take in an image with its ``subject`` (H, W); None where there is none in it.

        Beside one that ``moves``, what holds still is background at once, though it was taken for the subject before.
        """
        depth = np.ascontiguousarray(frame.depth, np.float32)
        if self._depth is None or self._seconds is None or self._depth.shape != depth.shape:
            self._depth, self._seconds = np.zeros_like(depth), np.zeros((*depth.shape, 2), np.float32)
            self._stamp_ns = int(frame.stamp_ns)
            self._pose = None if frame.pose is None else np.array(frame.pose, np.float64)
        step = np.float32(np.clip(1e-9 * (int(frame.stamp_ns) - self._stamp_ns), 0.0, _STEP_S))
        self._stamp_ns = int(frame.stamp_ns)
        mask = np.zeros(depth.shape, bool) if subject is None else np.ascontiguousarray(subject)
        if (loops := compiled_loops("background")) is not None:
            limits, rates = (_MOST_S, _ALIKE, _APART), (step, np.float32(_COVERED) * step, np.float32(_SHARE))
            loops.learn(depth, mask, self._depth, self._seconds, near, noise_depth, moves, limits, rates)
            return
        ahead = (self._depth - depth) / depth_tolerance(depth, near, noise_depth)
        measured, (still, free) = depth > 0, np.moveaxis(self._seconds, 2, 0)
        alike, gone = measured & (np.abs(ahead) <= _ALIKE), measured & (ahead < -_APART)
        self._depth[alike] += np.float32(_SHARE) * (depth - self._depth)[alike]
        self._seconds[alike] = np.minimum(self._seconds[alike] + step, np.float32(_MOST_S))
        self._seconds[measured & ~alike & ~gone & ~mask] -= np.float32(_COVERED) * step
        free[alike & mask] = 0
        if moves:
            free[alike & ~mask] = still[alike & ~mask]
        fresh = gone | (still < 0)
        self._depth[fresh], self._seconds[fresh] = depth[fresh], 0

    def _has_moved(self, frame: DepthFrame) -> bool:
        """Whether the camera's pose says so."""
        if (self._pose is None) != (frame.pose is None):
            return True
        change = change_of_view(self._pose, frame.pose)
        if change is None:
            return False
        ahead = np.array((0.0, 0.0, _AHEAD_M))
        return bool(np.linalg.norm(change.points(ahead) - ahead) > _MOVED_M)
