"""When a new subject begins: by the stamps of frames and results, and by masks that stayed away."""

from __future__ import annotations

from nr_tracking.sensing.stamps import StampOrder


class Beginnings:
    """What the inference thread knows of the order in which frames go in and results come out.

    The tracker starts anew by itself, with a recording that begins again or with another subject; its results of before
    are still to come then. And frames of a recording that begins again may overtake the clock that says so. All stamps
    are in nanoseconds. :meth:`was_unmasked` may be called on another thread than the rest.
    """

    def __init__(self) -> None:
        self._taken_ns: int | None = None  # stamp of the newest frame that was pushed
        self._again_ns: int | None = None  # stamp at which a recording began again, as its frames told
        self._shown_ns: int | None = None  # stamp of the newest result
        self._another_ns: int | None = None  # stamp of the first frame of another subject, until it has a result
        self._masked: tuple[int, int] | None = None  # stamp of the last frame with a mask, and how many had none then

    def goes_back(self, stamp_ns: int) -> bool:
        """Whether a frame is earlier than the newest that was taken; the tracker refuses it unless it starts anew."""
        return self._taken_ns is not None and stamp_ns < self._taken_ns

    def took(self, stamp_ns: int, went_back: bool) -> None:
        """The tracker took a frame, of which :meth:`goes_back` said this before."""
        if went_back:
            self._again_ns = stamp_ns
        self._taken_ns = stamp_ns

    def has_just_begun_again(self) -> bool:
        """Whether a recording began again by the stamps of its frames, a moment ago."""
        if self._again_ns is None or self._taken_ns is None:
            return False
        return self._taken_ns - self._again_ns < StampOrder.LOOP_NS

    def clock_jumped_back(self) -> None:
        """The clock has said so, too: the next time that it does is another one."""
        self._again_ns = None

    def another_from(self, stamp_ns: int) -> None:
        """The tracker found another subject in the frame of this stamp."""
        self._another_ns = stamp_ns

    def begins_with(self, stamp_ns: int) -> bool:
        """Whether a result is the first one after the tracker started anew by itself."""
        again = self._shown_ns is not None and stamp_ns <= self._shown_ns
        return again or (self._another_ns is not None and stamp_ns >= self._another_ns)

    def new_subject(self) -> None:
        """Results are those of a new subject from the next one on."""
        self._shown_ns = self._another_ns = None

    def showed(self, stamp_ns: int) -> None:
        """A result came out."""
        self._shown_ns = stamp_ns

    def reset(self) -> None:
        """The tracker was reset: nothing was taken since, and the next result is that of a new subject."""
        self._taken_ns = self._again_ns = None
        self.new_subject()

    def was_unmasked(self, stamp_ns: int, unmasked: int, lost_s: float) -> bool:
        """Whether images without a mask came before this one with a mask, for so long that the subject is lost.

        They never get here: those who wait for their masks give them up and count them, ``unmasked`` in all so far.
        """
        last, self._masked = self._masked, (stamp_ns, unmasked)
        if last is None or unmasked == last[1]:
            return False
        return stamp_ns - last[0] >= 1e9 * lost_s
