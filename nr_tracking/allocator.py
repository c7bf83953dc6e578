"""The C library's allocator, where it is that of glibc."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

# Of malloc.h.
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -3, -4, -8


def tell_allocator(option: int, value: int) -> None:
    """Set an option of ``mallopt`` for this process; does nothing where the allocator has none."""
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(option, value)


def trim_function() -> Callable[[int], int] | None:
    """What gives freed memory back to the system but for so many bytes; None where the allocator cannot."""
    return _function("malloc_trim")


def _function(name: str) -> Callable[..., int] | None:
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError):  # not glibc
        return None
    return found
