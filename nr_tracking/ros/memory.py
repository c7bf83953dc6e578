"""Memory that was freed goes back to the system.

The allocator of glibc keeps what large arrays leave behind between small ones that live on; over minutes a node would
hold several times of what it uses.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable

_PERIOD_S = 10.0
_ARENAS = 2
_M_ARENA_MAX = -8  # of malloc.h


def share_heaps() -> None:
    """Have all threads of this process free into two heaps. Call it first: once eight heaps exist it is too late.

    Each thread otherwise frees into a heap of its own, of 64 MB each, which no other takes from.
    """
    # Not every system has glibc's allocator.
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


class MemoryReturner:
    """Gives freed memory back, every ten seconds at most; does nothing where the allocator cannot."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._trim: Callable[[int], int] | None
        try:
            self._trim = ctypes.CDLL(None).malloc_trim
        except (AttributeError, OSError):  # not glibc
            self._trim = None

    def __call__(self) -> None:
        """Call often; it costs nothing in between."""
        now = time.monotonic()
        if self._trim is not None and now - self._last >= _PERIOD_S:
            self._last = now
            self._trim(0)
