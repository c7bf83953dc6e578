"""What a frame gives the network by itself, made as soon as the frame is there and not when its window is full.

Most of a window's work on single frames is so done while the camera is still taking the next one, on whatever core is
free, and the frame that two windows share is worked on once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from nr_tracking.sensing.volume import Volume
from nr_tracking.tracking.parallel import Workers

Frame = TypeVar("Frame")
Made = TypeVar("Made")
Cube = TypeVar("Cube", Volume, None)


@dataclass(frozen=True)
class _Entry(Generic[Frame, Made]):
    frame: Frame
    volume: Volume | None
    made: Future[Made]


class FramesAhead(Generic[Frame, Made]):
    """Frames and what is computed from each of them in a cube, finished or not; another cube needs a new computation.

    A cube of None stands for what depends on the frame alone.
    """

    def __init__(self) -> None:
        self._entries: list[_Entry[Frame, Made]] = []

    def start(self, frame: Frame, volume: Cube, make: Callable[[Frame, Cube], Made], workers: Workers) -> None:
        """Begin with a frame whose cube is known, or guessed."""
        self._of(frame, volume, make, workers)

    def take(
        self, frames: Sequence[Frame], volume: Cube, make: Callable[[Frame, Cube], Made], workers: Workers
    ) -> list[Future[Made]]:
        """The results for ``frames`` in a cube, whose computation starts now if it has not yet; forgets all others."""
        entries = [self._of(frame, volume, make, workers) for frame in frames]
        self._entries = entries
        return [entry.made for entry in entries]

    def forget(self) -> None:
        """Forget all frames."""
        self._entries = []

    def _of(
        self, frame: Frame, volume: Cube, make: Callable[[Frame, Cube], Made], workers: Workers
    ) -> _Entry[Frame, Made]:
        for entry in self._entries:
            if entry.frame is frame and _alike(entry.volume, volume):
                return entry
        entry = _Entry(frame, volume, workers.submit(make, frame, volume))
        self._entries.append(entry)
        return entry


def _alike(first: Volume | None, second: Volume | None) -> bool:
    return first is second if first is None or second is None else first.coincides_with(second)
