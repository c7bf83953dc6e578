"""Memory that was freed goes back to the system.

The allocator of glibc keeps what large arrays leave behind between small ones that live on; over minutes a node would
hold several times of what it uses.
"""

from __future__ import annotations

import time

from nr_tracking.allocator import ARENA_MAX, tell_allocator, trim_function

_PERIOD_S = 10.0
_ARENAS = 1


def share_heaps() -> None:
    """Have all threads of this process share one heap. Call it first: once eight heaps exist it is too late.

    Each thread otherwise frees into a heap of its own, from which no other takes: with three of them a node held twice
    of what it used. What is allocated is mostly large arrays, so threads hardly ever wait for each other.
    """
    tell_allocator(ARENA_MAX, _ARENAS)


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
