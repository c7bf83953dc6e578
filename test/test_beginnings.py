"""When a new subject begins, told from stamps alone."""

import pytest

from nr_tracking.ros.beginnings import Beginnings

SECOND = 10**9


def took(beginnings, *stamps):
    for stamp in stamps:
        beginnings.took(stamp, beginnings.goes_back(stamp))


def test_only_frames_that_went_back_begin_a_recording_again():
    beginnings = Beginnings()
    assert not beginnings.goes_back(0) and not beginnings.has_just_begun_again()
    took(beginnings, 0, SECOND, 2 * SECOND)
    assert not beginnings.has_just_begun_again() and not beginnings.goes_back(3 * SECOND)
    assert beginnings.goes_back(SECOND)
    took(beginnings, 0)
    assert beginnings.has_just_begun_again()


@pytest.mark.parametrize(("later", "just"), [(SECOND - 1, True), (SECOND, False)])
def test_a_recording_has_just_begun_again_for_a_second(later, just):
    beginnings = Beginnings()
    took(beginnings, 5 * SECOND, 0, later)
    assert beginnings.has_just_begun_again() == just


@pytest.mark.parametrize("told", ["clock_jumped_back", "reset"])
def test_one_jump_of_the_clock_is_met_once(told):
    beginnings = Beginnings()
    took(beginnings, 5 * SECOND, 0)
    getattr(beginnings, told)()
    assert not beginnings.has_just_begun_again()


def test_a_result_that_is_no_later_is_the_first_of_a_new_subject():
    beginnings = Beginnings()
    begun = []
    for stamp in (0, 1, 2, 0, 1, 1):
        begun.append(beginnings.begins_with(stamp))
        beginnings.showed(stamp)
    assert begun == [False, False, False, True, False, True]


def test_another_subject_begins_with_the_first_result_of_its_own():
    beginnings = Beginnings()
    beginnings.another_from(4)
    begun = []
    for stamp in range(7):
        begun.append(beginnings.begins_with(stamp))
        if begun[-1]:
            beginnings.new_subject()
        beginnings.showed(stamp)
    assert begun == [False] * 4 + [True] + [False] * 2


def test_after_a_reset_the_next_result_is_no_beginning_of_its_own():
    beginnings = Beginnings()
    beginnings.showed(9)
    beginnings.another_from(5)
    beginnings.reset()
    assert not beginnings.begins_with(0) and not beginnings.begins_with(5) and not beginnings.goes_back(0)


def test_masks_that_stayed_away_for_long_lose_the_subject_once():
    beginnings = Beginnings()
    given = ((0, 3), (1, 3), (2, 4), (9, 4), (12, 5), (13, 5))  # seconds, and images that had no mask so far
    lost = [beginnings.was_unmasked(second * SECOND, unmasked, lost_s=2.0) for second, unmasked in given]
    assert lost == [False, False, False, False, True, False]
