"""Stays with the subject that was chosen, among others, and says when it is lost, found, or another one.

Each image alone is enough to find the largest body, or the nearest. A subject that was clicked is another matter: it
moves away from where it was clicked, others come nearer, it leaves the view and returns. So the place where it was seen
last goes from image to image, brought to where a camera that moved meanwhile sees it. And whoever is found in an image,
by whatever means, is held against where the subject can have got to: see :class:`Sighting`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from nr_tracking.config import SubjectConfig
from nr_tracking.sensing.background import BackgroundModel
from nr_tracking.sensing.camera import check_frame, thinned_points
from nr_tracking.sensing.passers import Known
from nr_tracking.sensing.rigid import change_of_view, check_pose
from nr_tracking.sensing.stamps import StampOrder
from nr_tracking.sensing.subject import find_subject
from nr_tracking.sensing.walls import longest_edge, thinned
from nr_tracking.types import DepthFrame, Float32, Float64, InputError

_REACH = 0.5  # of the subject's size: it may move so far from one image to the next
_REACH_M = 0.1
_SAMPLES = 2000
NO_SUBJECT = ("no_subject", "no_depth")
"""Reasons of the errors by which an image without a subject is refused."""
_NEAR = 0.1  # of the subject's size: so far beside where it was it is still the same one
_NEAR_M = 0.1
_SPEED = 5.0  # m/s: a runner
_ACCELERATION = 10.0  # m/s^2: of whoever starts, stops or turns
_CORE = 0.5  # of what is seen, where the subject could have got to: less of it is another one
_HIDDEN = 0.7  # of what was seen of it lately: where less is seen, the rest is hidden
_LARGEST_M = 3.0  # longer than people and most animals
_LARGE_AGAIN = 0.8  # of that: once it was so small again, it is told anew
_FORGOTTEN_S = 1.0  # after which half is forgotten of how much was seen of a subject that somebody hides


@dataclass(frozen=True)
class Sighting:
    """Where the subject was in the newest image that showed it; the subject of the next image is compared with this.

    Methods that take a ``pose`` (4, 4) answer in the frame of a camera at that pose.
    """

    cloud: Float32
    """Points (N, 3) of it, metres."""
    pose: Float64 | None
    """Of the camera, (4, 4) to a fixed frame; None for one that stands still."""
    stamp_ns: int
    place: Float32
    """The middle of it, (3,)."""
    velocity: Float64 | None = None
    """Of its place since the image before, (3,) m/s in the camera's frame; None for the first one."""
    looked_ns: int = 0
    """Stamp of the newest image, whether or not it showed the subject."""
    area: float = 0.0
    """What was seen of it lately at most, square metres across the view; 0 where that is not known."""
    core: Float32 | None = None
    """Points (M, 3) of the cloud where the subject can have moved to, without those of a body that touches it."""
    hidden: Float32 | None = None
    """Points (L, 3) where it was before another body hid a part of it, and may reappear; None while it is in sight."""

    @classmethod
    def of(
        cls, cloud: Float32, pose: Float64 | None, stamp_ns: int, before: Sighting | None, area: float = 0.0
    ) -> Sighting:
        """What an image shows, of an ``area`` in square metres, and how it moved since the one ``before``."""
        core, hidden, velocity = cloud, None, None
        if before is not None and (known := before.known_for(pose, stamp_ns)) is not None:
            sampled = thinned(cloud, _SAMPLES)  # as many as are kept: all of them take 8 ms an image
            inside = known.holds(sampled)
            share = np.count_nonzero(inside) / len(sampled)
            if share >= _CORE:
                core, area = sampled[inside], area * share
                hidden = known.cloud if area < _HIDDEN * known.area else None
        place = core.mean(axis=0)
        if before is not None:
            area = max(area, before.area * 0.5 ** (before._since_s(before.stamp_ns, stamp_ns) / _FORGOTTEN_S))
            moved = place.astype(np.float64) - before.place_for(pose)
            velocity = moved / max(1e-9 * (stamp_ns - before.stamp_ns), 1e-9)
        return cls(cloud, pose, stamp_ns, place, velocity, stamp_ns, area, core, hidden)

    @property
    def size_m(self) -> float:
        """Longest edge of its box, metres, see :func:`~nr_tracking.sensing.walls.longest_edge`."""
        return longest_edge(thinned(self.cloud, _SAMPLES))

    def missed(self, stamp_ns: int) -> Sighting:
        """The sighting after one more image, in which there was no subject."""
        return replace(self, looked_ns=stamp_ns)

    def place_for(self, pose: Float64 | None) -> Float32:
        """Where a camera at ``pose`` sees the place, (3,)."""
        change = change_of_view(self.pose, pose)
        return self.place if change is None else change.points(self.place[None])[0].astype(np.float32)

    def distance(self, cloud: Float32, pose: Float64 | None, stamp_ns: int) -> float:
        """How far ``cloud`` (N, 3) stays, in metres, from where the subject was and where it was going."""
        change, known, velocity = change_of_view(self.pose, pose), self.cloud, self.velocity
        if change is not None:
            known = change.points(known).astype(np.float32)
            velocity = None if velocity is None else change.vectors(velocity)
        way = np.zeros(3) if velocity is None else velocity * self._since_s(self.stamp_ns, stamp_ns)
        lower = known.min(axis=0) + np.minimum(way, 0.0)
        upper = known.max(axis=0) + np.maximum(way, 0.0)
        beyond = np.maximum(np.maximum(lower - cloud, cloud - upper), 0.0)
        return float(np.linalg.norm(beyond, axis=1).min())

    def known_for(self, pose: Float64 | None, stamp_ns: int) -> Known | None:
        """What tells the subject from others in the image of a camera at ``pose``; None if its area is not known."""
        if self.area == 0 or self.core is None:
            return None
        change, cloud = change_of_view(self.pose, pose), thinned(self.core, _SAMPLES)
        if self.hidden is not None:
            cloud = np.concatenate((cloud, thinned(self.hidden, _SAMPLES)))
        if change is not None:
            cloud = change.points(cloud).astype(np.float32)
        return Known(cloud, self.reach(stamp_ns), self.area)

    def reach(self, stamp_ns: int) -> float:
        """How far the subject can have got from there, in metres.

        The reach grows with the time since the last image, at the speed of a runner and, where the velocity is known,
        with a bounded acceleration. It does not grow over images without a subject: a subject that reappears elsewhere
        cannot be told from another one, and its tracks cannot be continued there.
        """
        unwatched = self._since_s(self.looked_ns, stamp_ns)
        run = _SPEED * unwatched
        if self.velocity is not None:
            run = min(run, _ACCELERATION * unwatched**2)
        return max(_NEAR * float(np.ptp(self.cloud, axis=0).max()), _NEAR_M) + run

    def _since_s(self, before_ns: int, stamp_ns: int) -> float:
        return max(0.0, 1e-9 * (stamp_ns - before_ns))


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
    large: bool = False
    """Whether it was too large for a subject lately, and that has been told."""
    unmasked: bool = False
    """Whether images have come since then that had no mask, though others have."""
    newest_ns: int | None = None
    """Stamp of the newest image; None before the first one."""
    background: BackgroundModel = field(default_factory=BackgroundModel)
    """Of the camera, where the subject is chosen here."""

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
    another one, or that is too large for one. The subject is looked for where a camera that moved sees it, if its
    frames have their poses.
    ``whereabouts`` may be kept and put back, to go on another time.
    """

    def __init__(self, on_event: Callable[[str], None] = lambda text: None) -> None:
        self._on_event = on_event
        self.whereabouts = Whereabouts()

    def forget(self) -> None:
        """Choose anew with the next image."""
        self.whereabouts = replace(self.whereabouts, place=None, pose=None, size=0.0, lost_ns=None, chosen_by=())

    def forget_background(self) -> None:
        """What comes next may be another recording, of another place."""
        self.whereabouts.background.forget()

    def choose(self, frame: DepthFrame, config: SubjectConfig) -> tuple[DepthFrame, bool]:
        """The frame with the subject as its mask, and whether it is another subject than before.

        Frames that come with a mask, and those of choice ``largest``, are left as they are; with these it is another
        subject once there was none for ``lost_s``, and whether it is one that is elsewhere the tracker finds out.
        Absence counts from the first image that does not show the subject: images that are far apart lose nobody. Where
        stamps go back by a second or more, it counts anew from there, and the background is forgotten.
        Raises InputError ``subject_lost`` while the subject is out of sight,
        ``bad_pose``, and what :func:`check_frame` and :func:`find_subject` raise.
        """
        self._go_on_to(frame.stamp_ns)
        frame, another = self._choose(frame, config)
        absent = self.gives_up(frame.stamp_ns, config) or self._unmasked_too_long(frame.stamp_ns, config)
        another = absent or another
        self._found(frame.stamp_ns, another)
        return frame, another

    def tracked(self, stamp_ns: int, size_m: float = 0.0) -> None:
        """The image could be used; it had a subject, whose box is ``size_m`` metres long."""
        known = self.whereabouts
        known.unmasked = False
        if size_m > _LARGEST_M and not known.large:
            self._on_event(
                f"the subject is {size_m:.1f} m long: a wall or furniture may be taken for a part of it; "
                "subject.depth_max_m or a region box leave them out"
            )
        known.large = size_m > _LARGEST_M or (known.large and size_m > _LARGE_AGAIN * _LARGEST_M)
        if known.missing_ns is not None:
            gone_s = max(0.0, (stamp_ns - known.missing_ns) / 1e9)  # unless the clock was set back meanwhile
            self._on_event(f"there is a subject again after {gone_s:.2f} s")
            known.missing_ns, known.given_up = None, False

    def refused(self, stamp_ns: int, error: InputError) -> None:
        """The image could not be used."""
        if error.reason in NO_SUBJECT and self.whereabouts.missing_ns is None:
            self.whereabouts.missing_ns = stamp_ns
            self._on_event(f"no subject: {error}")

    def gives_up(self, stamp_ns: int, config: SubjectConfig) -> bool:
        """Whether there has been no subject for so long, up to this image, that the next one is another; once."""
        known = self.whereabouts
        if known.missing_ns is None or known.given_up:
            return False
        gone_s = (stamp_ns - known.missing_ns) / 1e9
        known.given_up = gone_s >= config.lost_s
        if known.given_up:
            self._on_event(f"no subject for {gone_s:.2f} s: the next one is a new one")
        return known.given_up

    def left_unmasked(self) -> None:
        """An image came without a mask where others have one: whoever masks subjects may have seen none."""
        self.whereabouts.unmasked = True

    def _go_on_to(self, stamp_ns: int) -> None:
        """Take up the time of the next image, whether it goes on or a recording has begun again."""
        known = self.whereabouts
        if known.newest_ns is None or stamp_ns > known.newest_ns:
            known.newest_ns = stamp_ns
        elif stamp_ns <= known.newest_ns - StampOrder.LOOP_NS:
            known.newest_ns = stamp_ns
            self.forget_background()
            # From a stamp of before, absence would be negative until time has caught up with it.
            known.missing_ns = None if known.missing_ns is None else stamp_ns
            known.lost_ns = None if known.lost_ns is None else stamp_ns

    def _unmasked_too_long(self, stamp_ns: int, config: SubjectConfig) -> bool:
        """Whether images had no mask for so long, up to this one, that its subject is another."""
        known = self.whereabouts
        gone_s = (stamp_ns - known.seen_ns) / 1e9
        if not known.unmasked or known.given_up or gone_s < config.lost_s:
            return False
        known.unmasked = False
        self._on_event(f"no mask for {gone_s:.2f} s: the next subject is a new one")
        return True

    def _choose(self, frame: DepthFrame, config: SubjectConfig) -> tuple[DepthFrame, bool]:
        if frame.mask is not None or config.choice == "largest":
            self.forget()
            return frame, False
        asked = (config.choice, config.point_m if config.choice == "clicked" else None)
        if asked != self.whereabouts.chosen_by:
            self.forget()
            self.whereabouts.chosen_by = asked
            self.forget_background()  # somebody else may have stood in it
        check_pose(frame.pose)
        known, place = self.whereabouts, self.whereabouts.place_for(frame.pose)
        restarted = place is not None and frame.stamp_ns - known.seen_ns <= -StampOrder.LOOP_NS
        given_up = restarted or self._lost_too_long(frame.stamp_ns, config)
        try:
            frame = check_frame(frame)
            found, cloud = self._find(frame, config, place, given_up)
        except InputError as error:
            if error.reason in NO_SUBJECT:
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
        mask = find_subject(frame, seek, background=self.whereabouts.background)
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
