"""Memory that was freed is used again, and what a node does not need goes back to the system every ten seconds.

The allocator of glibc keeps what large arrays leave behind between small ones that live on; over minutes a node would
hold several times of what it uses. And it gives each large array back at once, only to get it anew for the next image.
"""

from __future__ import annotations

import time

from nr_tracking.allocator import ARENA_MAX, MMAP_THRESHOLD, TRIM_THRESHOLD, tell_allocator, trim_function

_PERIOD_S = 10.0
_ARENAS = 1
_OF_THE_HEAP = 32 << 20  # bytes up to which arrays come from the heap; glibc takes no larger threshold
_KEPT = 128 << 20  # bytes of freed memory that stay for the next frame


def share_heaps() -> None:
    """Have all threads of this process share one heap, large arrays too; call it first: of eight none would go away.

    Each thread otherwise frees into a heap of its own, from which no other takes: with three of them a node held twice
    of what it used. What is allocated is mostly large arrays, so threads hardly ever wait for each other. And a depth
    image is copied thrice on its way in; into fresh pages, each of which the system clears first, that took 2 of 5 ms.
    """
    tell_allocator(ARENA_MAX, _ARENAS)
    tell_allocator(MMAP_THRESHOLD, _OF_THE_HEAP)
    tell_allocator(TRIM_THRESHOLD, _KEPT)


class MemoryReturner:
    """Gives freed memory back, every ten seconds at most; does nothing where the allocator cannot."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._trim = trim_function()

    def __call__(self) -> None:
        """Call often; it costs nothing in between."""
        now = time.monotonic()
        if self._trim is not None and now - self._last >= _PERIOD_S:
            self._last = now
            self._trim(0)
