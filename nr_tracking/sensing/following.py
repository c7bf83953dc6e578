"""Stays with the subject that was chosen, among others, and says when it is lost, found, or another one.

Each image alone is enough to find the largest body, or the nearest. A subject that was clicked is another matter: it
moves away from where it was clicked, others come nearer, it leaves the view and returns. So the place where it was seen
last goes from image to image, brought to where a camera that moved meanwhile sees it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from nr_tracking.config import SubjectConfig
from nr_tracking.sensing.camera import check_frame, thinned_points
from nr_tracking.sensing.rigid import change_of_view, check_pose
from nr_tracking.sensing.stamps import StampOrder
from nr_tracking.sensing.subject import find_subject
from nr_tracking.types import DepthFrame, Float32, Float64, InputError

_REACH = 0.5  # of the subject's size: it may move so far from one image to the next
_REACH_M = 0.1
_SAMPLES = 2000
_NO_SUBJECT = ("no_subject", "no_depth")


@dataclass
class Whereabouts:
    """What is known of the subject between images: all that a :class:`SubjectFollower` remembers."""

    place: Float32 | None = None
    """Where the chosen subject was seen last, (3,) metres; None for subjects that are not told apart by place."""
    pose: Float64 | None = None
    """Of the camera that saw it there, (4, 4) to a fixed frame; None where that is not known."""
    size: float = 0.0
    """Longest edge of its box, metres."""
    seen_ns: int = 0
    lost_ns: int | None = None
    """Stamp of the first of the images since then in which it was missing; None while it is in sight."""
    chosen_by: tuple[object, ...] = ()
    missing_ns: int | None = None
    """Stamp of the first of the images without any subject, up to now."""
    given_up: bool = False
    """Whether that is too long ago for the next subject to be the same."""

    def place_for(self, pose: Float64 | None) -> Float32 | None:
        """Where a camera at ``pose`` (4, 4) sees ``place``, (3,) metres; None where there is none."""
        change = change_of_view(self.pose, pose)
        if self.place is None or change is None:
            return self.place
        return change.points(self.place).astype(np.float32)


class SubjectFollower:
    """Chooses the subject of each image of one camera, in order.

    For each image call :meth:`choose` and then :meth:`tracked`, or :meth:`refused` with the error that either the
    choice or the tracker raised. ``on_event`` hears, in words, of a subject that was lost, found again, or given up for
    another one. The subject is looked for where a camera that moved sees it, if its frames have their poses.
    ``whereabouts`` may be kept and put back, to go on another time.
    """

    def __init__(self, on_event: Callable[[str], None] = lambda text: None) -> None:
        self._on_event = on_event
        self.whereabouts = Whereabouts()

    def forget(self) -> None:
        """Choose anew with the next image."""
        known = self.whereabouts
        self.whereabouts = Whereabouts(missing_ns=known.missing_ns, given_up=known.given_up)

    def choose(self, frame: DepthFrame, config: SubjectConfig) -> tuple[DepthFrame, bool]:
        """The frame with the subject as its mask, and whether it is another subject than before.

        Frames that come with a mask, and those of choice ``largest``, are left as they are; with these it is another
        subject once there was none for ``lost_s``. Absence counts from the first image that does not show the subject:
        images that are far apart lose nobody. Raises InputError ``subject_lost`` while the subject is out of sight,
        ``bad_pose``, and what :func:`check_frame` and :func:`find_subject` raise.
        """
        frame, another = self._choose(frame, config)
        another = self._absent_too_long(frame.stamp_ns, config) or another
        self._found(frame.stamp_ns, another)
        return frame, another

    def tracked(self, stamp_ns: int) -> None:
        """The image could be used; it had a subject."""
        known = self.whereabouts
        if known.missing_ns is not None:
            gone_s = max(0.0, (stamp_ns - known.missing_ns) / 1e9)  # unless the clock was set back meanwhile
            self._on_event(f"there is a subject again after {gone_s:.2f} s")
            known.missing_ns, known.given_up = None, False

    def refused(self, stamp_ns: int, error: InputError) -> None:
        """The image could not be used."""
        if error.reason in _NO_SUBJECT and self.whereabouts.missing_ns is None:
            self.whereabouts.missing_ns = stamp_ns
            self._on_event(f"no subject: {error}")

    def _absent_too_long(self, stamp_ns: int, config: SubjectConfig) -> bool:
        """Whether there has been no subject for so long, up to this image, that the next one is another; once."""
        known = self.whereabouts
        if known.missing_ns is None or known.given_up:
            return False
        gone_s = (stamp_ns - known.missing_ns) / 1e9
        known.given_up = gone_s >= config.lost_s
        if known.given_up:
            self._on_event(f"no subject for {gone_s:.2f} s: the next one is a new one")
        return known.given_up

    def _choose(self, frame: DepthFrame, config: SubjectConfig) -> tuple[DepthFrame, bool]:
        if frame.mask is not None or config.choice == "largest":
            self.forget()
            return frame, False
        asked = (config.choice, config.point_m if config.choice == "clicked" else None)
        if asked != self.whereabouts.chosen_by:
            self.forget()
            self.whereabouts.chosen_by = asked
        check_pose(frame.pose)
        known, place = self.whereabouts, self.whereabouts.place_for(frame.pose)
        restarted = place is not None and frame.stamp_ns - known.seen_ns <= -StampOrder.LOOP_NS
        given_up = restarted or self._lost_too_long(frame.stamp_ns, config)
        try:
            check_frame(frame)
            found, cloud = self._find(frame, config, place, given_up)
        except InputError as error:
            if error.reason in _NO_SUBJECT:
                self._miss(frame.stamp_ns)
            raise
        elsewhere = place is not None and not self._within_reach(cloud, place)
        if elsewhere and not given_up:
            self._miss(frame.stamp_ns)
            raise InputError(
                "subject_lost",
                f"nothing is near where the subject was {self._unseen_s(frame.stamp_ns):.2f} s ago; another one is "
                f"chosen after subject.lost_s = {config.lost_s} s",
            )
        known.place, known.size = cloud.mean(axis=0), float(np.ptp(cloud, axis=0).max())
        known.pose = None if frame.pose is None else np.array(frame.pose, np.float64)
        return found, place is None or given_up

    def _find(
        self, frame: DepthFrame, config: SubjectConfig, place: Float32 | None, given_up: bool
    ) -> tuple[DepthFrame, Float32]:
        """The frame with its subject as mask, and points (N, 3) of it; it is sought at ``place`` (3,)."""
        seek = config
        if place is not None and (config.choice == "clicked" or not given_up):
            x, y, z = map(float, place)
            seek = config.model_copy(update={"choice": "clicked", "point_m": (x, y, z)})
        mask = find_subject(frame, seek)
        return replace(frame, mask=mask), thinned_points(mask, frame.depth, frame.intrinsics, _SAMPLES)

    def _within_reach(self, cloud: Float32, place: Float32) -> bool:
        distance = np.linalg.norm(cloud - place, axis=1).min()
        return bool(distance <= max(_REACH * self.whereabouts.size, _REACH_M))

    def _lost_too_long(self, stamp_ns: int, config: SubjectConfig) -> bool:
        """Whether the chosen subject has been out of sight for so long that another one may be chosen."""
        lost_ns = self.whereabouts.lost_ns
        # The tracker will leave an image out that is older than the last one.
        return lost_ns is not None and not self._late(stamp_ns) and stamp_ns - lost_ns >= 1e9 * config.lost_s

    def _late(self, stamp_ns: int) -> bool:
        """Whether the image is older than the one that showed the subject last, but no recording that began again."""
        return -StampOrder.LOOP_NS < stamp_ns - self.whereabouts.seen_ns < 0

    def _unseen_s(self, stamp_ns: int) -> float:
        """Time since the subject was seen last; 0 where the clock was set back meanwhile."""
        return max(0.0, (stamp_ns - self.whereabouts.seen_ns) / 1e9)

    def _miss(self, stamp_ns: int) -> None:
        """The image does not show the chosen subject."""
        known = self.whereabouts
        if known.place is not None and known.lost_ns is None:
            known.lost_ns = stamp_ns
            self._on_event(f"the subject was lost, seen last {self._unseen_s(stamp_ns):.2f} s ago")

    def _found(self, stamp_ns: int, another: bool) -> None:
        """The image shows the subject, or ``another`` one that is followed from now on."""
        known = self.whereabouts
        if known.lost_ns is not None:
            what = "another subject is followed" if another else "the subject was found again"
            self._on_event(f"{what} after {self._unseen_s(stamp_ns):.2f} s")
        known.lost_ns = None
        if not self._late(stamp_ns):
            known.seen_ns = stamp_ns
