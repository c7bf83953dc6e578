"""Frames that wait for inference, and which of them are kept when the camera is faster."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from nr_tracking.ros.pairing import PairedFrame

Command = Callable[[], None]


@dataclass(frozen=True, eq=False)
class WaitingFrame:
    """A frame in the queue and when its image arrived (steady clock, seconds)."""

    frame: PairedFrame
    arrived: float

    @property
    def stamp_ns(self) -> int:
        """The stamp of the image."""
        return self.frame.stamp_ns

    @property
    def bytes(self) -> int:
        """Memory that the frame holds."""
        mask = self.frame.mask
        return len(self.frame.image.data) + (0 if mask is None else len(mask.data))


class FrameQueue:
    """A bounded queue between the camera and the inference thread.

    Policy ``latest`` holds at most ``size`` frames. When one more comes, the frame is given up whose neighbours are
    closest to each other in time, so what remains is spread evenly and always reaches up to the newest. Policy ``all``
    keeps every frame. Under either policy frames beyond ``memory`` bytes are refused, so nothing grows without end.

    Commands wait in line with the frames and are never dropped.
    """

    def __init__(self, policy: Literal["latest", "all"], size: int, memory: int) -> None:
        self._policy = policy
        self._size = size
        self._memory = memory
        self._jobs: deque[WaitingFrame | Command] = deque()
        self._held = 0
        self._closed = False
        self._last_taken: int | None = None
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """Number of waiting frames."""
        with self._changed:
            return sum(isinstance(job, WaitingFrame) for job in self._jobs)

    def put(self, frame: WaitingFrame) -> tuple[WaitingFrame, str] | None:
        """Add a frame; returns the frame that was given up for it and the reason, if any."""
        with self._changed:
            if self._closed:
                return frame, "inactive"
            if self._held + frame.bytes > self._memory:
                return frame, "queue_memory"
            self._jobs.append(frame)
            self._held += frame.bytes
            self._changed.notify()
            waiting = [job for job in self._jobs if isinstance(job, WaitingFrame)]
            if self._policy == "all" or len(waiting) <= self._size:
                return None
            surplus = waiting[self._least_missed(waiting)]
            self._jobs.remove(surplus)
            self._held -= surplus.bytes
            return surplus, "overrun"

    def command(self, command: Command, *, drop_frames: bool = False) -> list[WaitingFrame] | None:
        """Put a command in line; with ``drop_frames`` in place of all waiting frames, which are returned.

        None where the queue is closed: the command is never carried out.
        """
        with self._changed:
            if self._closed:
                return None
            dropped = self._drop_frames() if drop_frames else []
            self._jobs.append(command)
            self._changed.notify()
            return dropped

    def take(self) -> WaitingFrame | Command | None:
        """Wait for the next job; None once the queue is closed and all commands are done."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._jobs)
            if not self._jobs:
                return None
            job = self._jobs.popleft()
            if isinstance(job, WaitingFrame):
                self._held -= job.bytes
                self._last_taken = job.stamp_ns
            return job

    def close(self) -> list[WaitingFrame]:
        """Take in nothing more; returns the frames that were still there. Commands already given are carried out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            return self._drop_frames()

    def _drop_frames(self) -> list[WaitingFrame]:
        frames = [job for job in self._jobs if isinstance(job, WaitingFrame)]
        self._jobs = deque(job for job in self._jobs if not isinstance(job, WaitingFrame))
        self._held = 0
        return frames

    def _least_missed(self, waiting: list[WaitingFrame]) -> int:
        """Index of the frame whose removal leaves the smallest gap; the oldest of several, never the newest."""
        stamps = [frame.stamp_ns for frame in waiting]
        before = [stamps[0] if self._last_taken is None else self._last_taken, *stamps]
        gaps = [abs(after - ahead) for ahead, after in zip(before, stamps[1:], strict=False)]
        first = 1 if self._last_taken is None else 0  # with nothing before it, the first frame is worth keeping
        return min(range(first, len(gaps)), key=lambda index: gaps[index], default=0)
