"""Stays with the subject that was chosen, among others, and says when it is lost, found, or another one.

Each image alone is enough to find the largest body, or the nearest. A subject that was clicked is another matter: it
moves away from where it was clicked, others come nearer, it leaves the view and returns. So the place where it was seen
last goes from image to image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from nr_tracking.config import SubjectConfig
from nr_tracking.sensing.camera import check_frame, thinned_points
from nr_tracking.sensing.stamps import StampOrder
from nr_tracking.sensing.subject import find_subject
from nr_tracking.types import DepthFrame, Float32, InputError

_REACH = 0.5  # of the subject's size: it may move so far from one image to the next
_REACH_M = 0.1
_SAMPLES = 2000
_NO_SUBJECT = ("no_subject", "no_depth")


@dataclass
class Whereabouts:
    """What is known of the subject between images: all that a :class:`SubjectFollower` remembers."""

    place: Float32 | None = None
    """Where the chosen subject was seen last, (3,) metres; None for subjects that are not told apart by place."""
    size: float = 0.0
    """Longest edge of its box, metres."""
    seen_ns: int = 0
    lost: bool = False
    """Whether it has been out of sight since."""
    chosen_by: tuple[object, ...] = ()
    missing_ns: int | None = None
    """Stamp of the first of the images without any subject, up to now."""
    given_up: bool = False
    """Whether that is too long ago for the next subject to be the same."""


class SubjectFollower:
    """Chooses the subject of each image of one camera, in order.

    For each image call :meth:`choose` and then :meth:`tracked`, or :meth:`refused` with the error that either the
    choice or the tracker raised. ``on_event`` hears, in words, of a subject that was lost, found again, or given up for
    another one. ``whereabouts`` may be kept and put back, to go on another time.
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
        subject once there was none for ``lost_s``. Raises InputError ``subject_lost`` while the subject is out of
        sight, and what :func:`find_subject` raises.
        """
        frame, another = self._choose(frame, config)
        return frame, self._absent_too_long(frame.stamp_ns, config) or another

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
        anew = asked != self.whereabouts.chosen_by
        if anew:
            self.forget()
            self.whereabouts.chosen_by = asked
        check_frame(frame)
        known = self.whereabouts
        missing_ns = frame.stamp_ns - known.seen_ns
        missing_s = missing_ns / 1e9
        # The tracker will leave such an image out; one that is older still begins anew.
        late = known.place is not None and -StampOrder.LOOP_NS < missing_ns < 0
        given_up = known.place is not None and not late and not 0 <= missing_s <= config.lost_s
        try:
            found, cloud = self._find(frame, config, given_up)
        except InputError:
            self._miss(missing_s)
            raise
        elsewhere = not self._within_reach(cloud)
        another = anew or given_up or elsewhere
        if another and known.place is not None and not given_up:
            self._miss(missing_s)
            raise InputError(
                "subject_lost",
                f"nothing is near where the subject was {missing_s:.2f} s ago; another one is chosen after "
                f"subject.lost_s = {config.lost_s} s",
            )
        if known.lost:
            what = "another subject is followed" if elsewhere else "the subject was found again"
            self._on_event(f"{what} after {missing_s:.2f} s")
        known.lost = False
        known.place, known.size = cloud.mean(axis=0), float(np.ptp(cloud, axis=0).max())
        known.seen_ns = max(known.seen_ns, frame.stamp_ns) if late else frame.stamp_ns
        return found, another

    def _find(self, frame: DepthFrame, config: SubjectConfig, given_up: bool) -> tuple[DepthFrame, Float32]:
        """The frame with its subject as mask, and points (N, 3) of it."""
        seek, place = config, self.whereabouts.place
        if place is not None and (config.choice == "clicked" or not given_up):
            x, y, z = map(float, place)
            seek = config.model_copy(update={"choice": "clicked", "point_m": (x, y, z)})
        mask = find_subject(frame, seek)
        return replace(frame, mask=mask), thinned_points(mask, frame.depth, frame.intrinsics, _SAMPLES)

    def _within_reach(self, cloud: Float32) -> bool:
        known = self.whereabouts
        if known.place is None:
            return True
        distance = np.linalg.norm(cloud - known.place, axis=1).min()
        return bool(distance <= max(_REACH * known.size, _REACH_M))

    def _miss(self, missing_s: float) -> None:
        known = self.whereabouts
        if known.place is not None and not known.lost:
            known.lost = True
            self._on_event(f"the subject was lost, seen last {missing_s:.2f} s ago")
