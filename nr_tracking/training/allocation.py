"""Memory that a step frees is kept for the next one.

A step needs the same arrays of tens of megabytes as the one before. The allocator of glibc hands each of them back to
the system and gets it anew, and every page of it is cleared at first use: that took over half of a step along rays.
"""

from __future__ import annotations

from nr_tracking.allocator import MMAP_MAX, TRIM_THRESHOLD, tell_allocator


def keep_freed_memory() -> None:
    """Tell the allocator of this process to keep what is freed; does nothing where it is not glibc's."""
    tell_allocator(MMAP_MAX, 0)
    tell_allocator(TRIM_THRESHOLD, 2**31 - 1)
