"""Which row of an OUTPUT a result belongs to, and why a row has none.

Results come out of a tracker some frames after their images went in, and not every image gives one. Every image asked
for has its row all the same.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from nr_tracking.types import Int64, TrackedFrame

NO_STAMP = -1
"""Stamp of a row whose image could not even be decoded."""
_NOTHING_FOUND = "no surface was found in the frame"


@dataclass
class Rows:
    """Rows in the order in which images arrived; ``dropped`` maps rows without a result to the reason."""

    stamps: list[int] = field(default_factory=list)
    dropped: dict[int, str] = field(default_factory=dict)
    _waiting: deque[int] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self.stamps)

    def ask(self, stamp_ns: int) -> int:
        """Open the row of an image that goes into the tracker."""
        self.stamps.append(stamp_ns)
        self._waiting.append(len(self.stamps) - 1)
        return len(self.stamps) - 1

    def refuse(self, reason: str, stamp_ns: int = NO_STAMP) -> int:
        """Open a row for an image that cannot be used."""
        self.stamps.append(stamp_ns)
        self.dropped[len(self.stamps) - 1] = reason
        return len(self.stamps) - 1

    def drop(self, row: int, reason: str) -> None:
        """Close a row that was asked for: the tracker refused its image."""
        self._waiting.remove(row)
        self.dropped[row] = reason

    def miss(self, stamp_ns: int, reason: str) -> None:
        """Close the row of an image that the tracker took, and that has no result."""
        row = next((row for row in self._waiting if self.stamps[row] == stamp_ns), None)
        if row is not None:
            self.drop(row, reason)

    def place(self, result: TrackedFrame) -> int:
        """The row of a result; rows before it that still wait get none any more.

        A tracker finishes what it was given before it starts anew, so there was nothing to be found in their images.
        """
        while self._waiting:
            row = self._waiting.popleft()
            if self.stamps[row] == result.stamp_ns:
                return row
            self.dropped[row] = _NOTHING_FOUND
        raise ValueError(f"a result of stamp {result.stamp_ns}, but no image of that stamp is waiting for one")

    def placed(self) -> list[int]:
        """The rows that have their result."""
        without = self.dropped.keys() | set(self._waiting)
        return [row for row in range(len(self.stamps)) if row not in without]

    def finish(self) -> Int64:
        """Close what still waits, once the tracker has finished what it was given; the stamps (T,) of all rows."""
        for row in self._waiting:
            self.dropped[row] = _NOTHING_FOUND
        self._waiting.clear()
        self.dropped = dict(sorted(self.dropped.items()))
        return np.array(self.stamps, np.int64)
