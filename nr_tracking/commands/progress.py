"""A line on stderr that says how far a long job has come."""

from __future__ import annotations

import sys
import time
from types import TracebackType

_QUIET_S = 10.0
_ENOUGH = 3  # the first ones take longer, as loops are compiled: they say nothing of the rest


class Progress:
    """Counts frames, or other things: one line that renews itself on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, what: str, total: int | None = None, unit: str = "frame") -> None:
        self._what, self._total, self._unit = what, total, unit
        self._done = 0
        self._begun = self._shown = time.monotonic()
        self._live = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live and self._done:
            print(file=sys.stderr)

    def advance(self) -> None:
        """Count one more frame."""
        self._done += 1
        now = time.monotonic()
        if not self._live and now - self._shown < _QUIET_S:
            return
        self._shown = now
        rate = self._done / max(now - self._begun, 1e-9)
        total = "" if self._total is None else f" of {self._total}"
        line = f"{self._what}: {self._unit} {self._done}{total}, {rate:.2g} {self._unit}s/s"
        if self._total and _ENOUGH <= self._done < self._total:
            line += f", {(self._total - self._done) / rate:.0f} s left"
        print(f"\r{line}\033[K" if self._live else line, end="" if self._live else "\n", file=sys.stderr, flush=True)
