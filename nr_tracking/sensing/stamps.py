"""The order of stamps: what goes on, what is left out, and when time has started anew."""

from __future__ import annotations

from collections import deque

import numpy as np

from nr_tracking.types import InputError


def check_stamp(stamp_ns: object) -> None:
    """Raise InputError ``wrong_type`` for a stamp that is no whole number."""
    if not isinstance(stamp_ns, int | np.integer) or isinstance(stamp_ns, bool):
        found = type(stamp_ns).__name__
        raise InputError("wrong_type", f"stamp_ns is a whole number of nanoseconds, not {stamp_ns!r}, a {found}")


class StampOrder:
    """Tells frames that go on in time from those that must be left out, and from a clock that was set back."""

    LOOP_NS = 1_000_000_000
    LOOP_FRAMES = 3

    def __init__(self) -> None:
        self._last: int | None = None
        self._earlier: deque[int] = deque(maxlen=self.LOOP_FRAMES)  # however long no frame can be used after a loop

    def forget(self) -> None:
        """Start anew with whatever stamp comes next."""
        self._last = None
        self._earlier.clear()

    def jumped_back(self, stamp_ns: int) -> bool:
        """Whether time started anew: a stamp a second or more before the last one, or the third earlier one in a row.

        Raises:
            InputError: ``stamp_repeated`` or ``stamp_out_of_order``: this frame alone has to be left out.
        """
        if self._last is None or stamp_ns > self._last:
            self._earlier.clear()
            return False
        if stamp_ns == self._last == 0:
            raise InputError(
                "stamp_repeated",
                "the depth images have no stamps (all 0): have the driver or the simulator stamp them, or republish "
                "them with the time of their arrival",
            )
        if stamp_ns == self._last:
            raise InputError(
                "stamp_repeated",
                f"two depth images have the stamp {stamp_ns / 1e9:.3f} s: does the driver run twice?",
            )
        if self._earlier and stamp_ns <= self._earlier[-1]:
            self._earlier.clear()
        self._earlier.append(stamp_ns)
        if self._last - stamp_ns >= self.LOOP_NS or len(self._earlier) >= self.LOOP_FRAMES:
            return True
        raise InputError(
            "stamp_out_of_order",
            f"the depth image of {stamp_ns / 1e9:.3f} s came after that of {self._last / 1e9:.3f} s and is left out",
        )

    def accept(self, stamp_ns: int) -> None:
        """A frame of this stamp was used."""
        self._last = stamp_ns
        self._earlier.clear()
