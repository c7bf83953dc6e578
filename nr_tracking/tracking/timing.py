"""Seconds by stage, for results, reports and diagnostics."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class StageClock:
    """Adds up the time spent in named stages: ``with clock("mesh"): ...``, by any number of threads."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time what happens inside, also where it ends in an error."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add({stage: time.perf_counter() - started})

    def add(self, seconds: dict[str, float]) -> None:
        """Add what another clock measured."""
        with self._lock:
            for stage, more in seconds.items():
                self.seconds[stage] = self.seconds.get(stage, 0.0) + more

    def share(self, parts: int) -> dict[str, float]:
        """An equal share of what was measured for each of ``parts`` frames; the clock keeps running."""
        return {stage: seconds / parts for stage, seconds in self.seconds.items()}
