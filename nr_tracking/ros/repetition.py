"""Failures that come again and again: told in full once, and then as a count now and then."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable

_PERIOD_S = 10.0


class RepeatedFailures:
    """Tells ``tell`` of failures, without a flood of them.

    The first one is told with its traceback. Those that follow and are the same, of one kind and from one line of the
    code, are counted, and told in a line every ten seconds at most.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._told: dict[tuple[object, ...], tuple[float, int]] = {}  # when, and how many have come since then

    def happened(self, error: Exception) -> None:
        """A failure, which has been caught just now."""
        kind, now = _kind(error), time.monotonic()
        if kind not in self._told:
            self._told[kind] = now, 0
            self._tell("".join(traceback.format_exception(error)))
            return
        told_at, count = self._told[kind]
        count += 1
        if now - told_at >= _PERIOD_S:
            self._tell(f"{type(error).__name__}: {error}: so {count} more times in {now - told_at:.0f} s")
            told_at, count = now, 0
        self._told[kind] = told_at, count


def _kind(error: Exception) -> tuple[object, ...]:
    """What failures that are the same have in common."""
    frames = traceback.extract_tb(error.__traceback__)
    return (type(error), *((frames[-1].filename, frames[-1].lineno) if frames else ()))
