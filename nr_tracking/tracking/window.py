"""The sliding window: which frames are reconstructed together, and which of them are new.

Windows of N frames start every ``stride`` frames; with stride N - 1 two neighbours share one frame, so 17 frames are
tiled by windows of 5 that start at 0, 4, 8 and 12 (Merrouche et al. 2024, section 4). A shared frame belongs to the
window that saw it first. What is left at the end is covered by a last window shifted back to full length.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Window(Generic[T]):
    """Consecutive items; the last ``new`` of them have not been in a window before. ``start`` counts from 0."""

    start: int
    items: tuple[T, ...]
    new: int

    @property
    def fresh(self) -> tuple[T, ...]:
        """The new items."""
        return self.items[len(self.items) - self.new :]


class SlidingWindow(Generic[T]):
    """Collects items and hands out each window as soon as its last item is there. Holds at most ``length`` items."""

    def __init__(self, length: int, stride: int) -> None:
        if not 1 <= stride < length:
            raise ValueError(f"window.stride is {stride}: it must be from 1 to {length - 1}, one less than the length")
        self.length = length
        self.stride = stride
        self._items: deque[T] = deque(maxlen=length)
        self._count = 0
        self._fresh = 0

    def push(self, item: T) -> Window[T] | None:
        """Add an item; returns the window that it completes, if any."""
        self._items.append(item)
        self._count += 1
        self._fresh += 1
        first = self._count <= self.length
        due = self._count == self.length if first else self._fresh == self.stride
        return self._take() if due else None

    def flush(self) -> Window[T] | None:
        """The window of what is left, shifted back to full length; shorter only if fewer items ever came."""
        return self._take() if self._fresh else None

    def clear(self) -> None:
        """Forget everything."""
        self._items.clear()
        self._count = self._fresh = 0

    def _take(self) -> Window[T]:
        window = Window(self._count - len(self._items), tuple(self._items), self._fresh)
        self._fresh = 0
        return window
