"""What those who run a tracker need of it, so that another one can take its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from nr_tracking.config import Config
from nr_tracking.types import DepthFrame, InputError, TrackedFrame


class TrackerLike(Protocol):
    """What :class:`nr_tracking.Tracker` does for a node and the commands; live settings reach it through ``config``."""

    config: Config
    windows: int
    next_id: int
    on_ready: Callable[[], None] | None
    on_another: Callable[[str], None] | None
    on_no_result: Callable[[int, InputError], None] | None

    @property
    def subject_size_m(self) -> float:
        """How long the subject is, metres."""

    def push(self, frame: DepthFrame) -> list[TrackedFrame]:
        """Take a frame; returns what is finished. Raises :class:`InputError` for one that cannot be used."""

    def collect(self) -> list[TrackedFrame]:
        """What has been finished meanwhile."""

    def flush(self) -> list[TrackedFrame]:
        """Finish the frames that were pushed."""

    def reset(self, keep_background: bool = False) -> None:
        """Forget the subject, and its surroundings unless they are to be kept."""
