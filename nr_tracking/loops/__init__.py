"""Loops over pixels, voxels and points, compiled by numba where that is installed.

What array operations do in a dozen passes over memory, a loop does in one. Every function here has a twin of array
operations, beside whoever uses it, which gives the same up to rounding:

    if (loops := compiled_loops("rays")) is not None:
        return loops.along_four_rays(...)
    ...  # the same in numpy or PyTorch

Without numba, or with ``NR_TRACKING_LOOPS=0``, the twins do all of the work. A loop is compiled when it is first
called, and the machine code kept beside the source, or in the user's cache where that cannot be written to.
"""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from typing import Any

SWITCH = "NR_TRACKING_LOOPS"


def compiled_loops(name: str) -> Any | None:
    """The module ``nr_tracking.loops.<name>``; None where loops cannot be compiled or are not wanted."""
    return _module(name) if are_compiled() else None


@cache
def _module(name: str) -> Any:
    return import_module(f"{__name__}.{name}")


@cache
def are_compiled() -> bool:
    """Whether loops are compiled here; found out once."""
    if os.environ.get(SWITCH) == "0":
        return False
    try:
        import numba  # noqa: F401
    except ImportError:  # none, or one that does not go with the numpy that is installed
        return False
    return True
