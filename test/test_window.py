"""Windows: where they start, what is new in them, what a flush leaves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nr_tracking.tracking.window import SlidingWindow, Window


def windows_of(count: int, length: int, stride: int) -> list[Window[int]]:
    sliding: SlidingWindow[int] = SlidingWindow(length, stride)
    made = [sliding.push(i) for i in range(count)] + [sliding.flush()]
    return [window for window in made if window is not None]


def test_17_frames_are_tiled_by_four_windows_with_one_shared_frame():
    windows = windows_of(17, 5, 4)
    assert [w.start for w in windows] == [0, 4, 8, 12]
    assert [w.new for w in windows] == [5, 4, 4, 4]
    assert windows[1].items == (4, 5, 6, 7, 8)


def test_a_short_tail_is_covered_by_a_window_shifted_back():
    windows = windows_of(11, 5, 4)
    assert [w.start for w in windows] == [0, 4, 6]
    assert windows[-1].items == (6, 7, 8, 9, 10)
    assert windows[-1].new == 2


def test_stride_one_hands_out_every_frame_as_it_comes():
    windows = windows_of(8, 5, 1)
    assert [w.items[-1] for w in windows] == [4, 5, 6, 7]
    assert [w.new for w in windows] == [5, 1, 1, 1]


def test_fewer_frames_than_a_window_still_come_out():
    (window,) = windows_of(3, 5, 4)
    assert window.items == (0, 1, 2)
    assert window.new == 3


@given(count=st.integers(0, 60), length=st.integers(2, 9), data=st.data())
def test_every_frame_is_new_exactly_once_and_in_order(count: int, length: int, data: st.DataObject):
    stride = data.draw(st.integers(1, length - 1))
    windows = windows_of(count, length, stride)
    new = [item for w in windows for item in w.items[len(w.items) - w.new :]]
    assert new == list(range(count))
    for window in windows:
        assert list(window.items) == list(range(window.start, window.start + len(window.items)))
        assert len(window.items) == min(length, count)


def test_clear_starts_again_from_nothing():
    sliding: SlidingWindow[int] = SlidingWindow(5, 4)
    for i in range(7):
        sliding.push(i)
    sliding.clear()
    assert sliding.flush() is None
    assert sliding.push(1) is None


@pytest.mark.parametrize("stride", [0, 5, -1])
def test_a_stride_that_skips_or_repeats_frames_is_refused(stride: int):
    with pytest.raises(ValueError, match=r"window\.stride"):
        SlidingWindow(5, stride)
