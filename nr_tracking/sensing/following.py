"""Stays with the subject that was chosen, among others, and says when it is lost and found.

Each image alone is enough to find the largest body, or the nearest. A subject that was clicked is another matter: it
moves away from where it was clicked, others come nearer, it leaves the view and returns. So the place where it was seen
last goes from image to image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from nr_tracking.config import SubjectConfig
from nr_tracking.sensing.camera import check_frame, thinned_points
from nr_tracking.sensing.subject import find_subject
from nr_tracking.types import DepthFrame, Float32, InputError

_REACH = 0.5  # of the subject's size: it may move so far from one image to the next
_REACH_M = 0.1
_SAMPLES = 2000


class SubjectFollower:
    """Chooses the subject of each image of one camera, in order.

    ``on_event`` hears, in words, of a subject that was lost, found again, or given up for another one.
    """

    def __init__(self, on_event: Callable[[str], None] = lambda text: None) -> None:
        self._on_event = on_event
        self.forget()

    def forget(self) -> None:
        """Choose anew with the next image."""
        self._place: Float32 | None = None  # where the subject was seen last
        self._size = 0.0
        self._seen_ns = 0
        self._lost = False
        self._chosen_by: tuple[object, ...] = ()

    def choose(self, frame: DepthFrame, config: SubjectConfig) -> tuple[DepthFrame, bool]:
        """The frame with the subject as its mask, and whether it is another subject than before.

        Frames that come with a mask, and those of choice ``largest``, are left as they are. Raises InputError
        ``subject_lost`` while the subject is out of sight, and what :func:`find_subject` raises.
        """
        if frame.mask is not None or config.choice == "largest":
            self.forget()
            return frame, False
        asked = (config.choice, config.point_m if config.choice == "clicked" else None)
        anew = asked != self._chosen_by
        if anew:
            self.forget()
            self._chosen_by = asked
        check_frame(frame)
        missing_s = (frame.stamp_ns - self._seen_ns) / 1e9
        given_up = self._place is not None and not 0 <= missing_s <= config.lost_s
        try:
            found, cloud = self._find(frame, config, given_up)
        except InputError:
            self._miss(missing_s)
            raise
        elsewhere = not self._within_reach(cloud)
        another = anew or given_up or elsewhere
        if another and self._place is not None and not given_up:
            self._miss(missing_s)
            raise InputError(
                "subject_lost",
                f"nothing is near where the subject was {missing_s:.2f} s ago; another one is chosen after "
                f"subject.lost_s = {config.lost_s} s",
            )
        if self._lost:
            what = "another subject is followed" if elsewhere else "the subject was found again"
            self._on_event(f"{what} after {missing_s:.2f} s")
        self._lost = False
        self._place, self._size = cloud.mean(axis=0), float(np.ptp(cloud, axis=0).max())
        self._seen_ns = frame.stamp_ns
        return found, another

    def _find(self, frame: DepthFrame, config: SubjectConfig, given_up: bool) -> tuple[DepthFrame, Float32]:
        """The frame with its subject as mask, and points (N, 3) of it."""
        seek = config
        if self._place is not None and (config.choice == "clicked" or not given_up):
            x, y, z = map(float, self._place)
            seek = config.model_copy(update={"choice": "clicked", "point_m": (x, y, z)})
        mask = find_subject(frame, seek)
        return replace(frame, mask=mask), thinned_points(mask, frame.depth, frame.intrinsics, _SAMPLES)

    def _within_reach(self, cloud: Float32) -> bool:
        if self._place is None:
            return True
        distance = np.linalg.norm(cloud - self._place, axis=1).min()
        return bool(distance <= max(_REACH * self._size, _REACH_M))

    def _miss(self, missing_s: float) -> None:
        if self._place is not None and not self._lost:
            self._lost = True
            self._on_event(f"the subject was lost, seen last {missing_s:.2f} s ago")
