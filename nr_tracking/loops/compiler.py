"""How loops are compiled: without the interpreter's lock, and kept for the next process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numba
from numba.core import event

_LOG = logging.getLogger(__name__)


class _Notice(event.Listener):
    """Says once why nothing seems to happen, the first time on a machine."""

    def __init__(self) -> None:
        self._said = False

    def on_start(self, event: event.Event) -> None:
        if not self._said:
            _LOG.warning("compiling loops for this processor; kept for next time, so it happens once")
            self._said = True

    def on_end(self, event: event.Event) -> None:
        """Nothing to say."""


event.register("numba:compile", _Notice())


def compiled(loop: Callable[..., Any]) -> Any:
    """``loop`` compiled for the types that it is called with; division by zero gives what it gives in numpy.

    It holds no lock, so threads run loops side by side, and one thread runs each.
    """
    try:
        return numba.njit(nogil=True, error_model="numpy", cache=True)(loop)
    except RuntimeError:  # nowhere to keep it: neither the source's folder nor a home can be written to
        return numba.njit(nogil=True, error_model="numpy")(loop)


def inlined(part: Callable[..., Any]) -> Any:
    """A part of loops, written out wherever it is called: handing arrays on to a call counts their references."""
    return numba.njit(inline="always", error_model="numpy")(part)


@compiled
def clamped(value: float, low: float, high: float) -> float:
    """``value`` within ``low`` and ``high``; ``low`` if it is no number, which as an index would read anywhere."""
    if not value > low:
        return low
    return min(value, high)
