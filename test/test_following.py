"""One of several bodies is chosen and stayed with; that it was lost and found is said."""

from dataclasses import replace

import numpy as np
import pytest
from test_subject import CAMERA, ball, frame

from nr_tracking.config import SubjectConfig
from nr_tracking.sensing.following import SubjectFollower
from nr_tracking.sensing.subject import find_subject
from nr_tracking.types import InputError

BIG, SMALL = (-0.6, 0.0, 3.0), (0.6, 0.0, 2.0)
SECOND = 10**9


def scene(*bodies, stamp=0.0):
    layers = [ball(centre, radius) for centre, radius in bodies]
    return replace(frame(*layers), stamp_ns=round(stamp * SECOND))


def two(big=BIG, small=SMALL, stamp=0.0):
    return scene((big, 0.4), (small, 0.12), stamp=stamp)


def where(mask):
    """Mean column of a mask, over the width of the image."""
    return np.nonzero(mask)[1].mean() / CAMERA.width


@pytest.mark.parametrize(
    ("settings", "left"),
    [
        ({}, True),
        ({"choice": "nearest"}, False),
        ({"choice": "clicked", "point_m": SMALL}, False),
        ({"choice": "clicked", "point_m": (-0.5, 0.1, 2.8)}, True),
    ],
)
def test_the_chosen_one_of_two_bodies_is_found(settings, left):
    image = two()
    mask = find_subject(image, SubjectConfig(**settings))
    alone = scene((BIG, 0.4)).depth > 0 if left else scene((SMALL, 0.12)).depth > 0
    assert not (mask & ~alone).any()
    assert mask.sum() > 0.99 * alone.sum()  # single pixels at a silhouette are torn off by the step beside them


def test_the_largest_stays_the_subject_while_another_one_is_not_twice_as_large():
    """Two who pass each other."""
    place = np.array(BIG, np.float32)
    for radius, still in ((0.36, True), (0.4, True), (0.55, False)):
        image = scene((BIG, 0.4), (SMALL, radius))
        assert where(find_subject(image, SubjectConfig())) > 0.5
        assert (where(find_subject(image, SubjectConfig(), place)) < 0.5) == still
    gone = scene((SMALL, 0.4))
    assert where(find_subject(gone, SubjectConfig(), place)) > 0.5


def test_a_speck_near_the_camera_is_not_the_nearest_subject():
    image = scene((BIG, 0.4), (SMALL, 0.12), ((0.1, 0.1, 0.5), 0.006))
    assert where(find_subject(image, SubjectConfig(choice="nearest", minimum_pixels=10))) > 0.6


def test_a_clicked_subject_is_followed_though_others_come_where_it_was():
    """The two change places, one passing well behind the other."""
    events = []
    follower = SubjectFollower(events.append)
    config = SubjectConfig(choice="clicked", point_m=SMALL)
    for step in np.linspace(0, 1, 25):
        big = np.array(BIG) + step * np.array([1.2, 0.0, 0.5])
        small = np.array(SMALL) + step * np.array([-1.2, 0.0, -0.3])
        image = two(big, small, stamp=step)
        found, another = follower.choose(image, config)
        assert another == (step == 0)
        points = np.count_nonzero(found.mask)
        assert np.median(image.depth[found.mask]) == pytest.approx(small[2] - 0.08, abs=0.08) and points > 50
    assert not events


def test_a_late_image_does_not_make_the_subject_another_one():
    follower, config = SubjectFollower(), SubjectConfig(choice="nearest")
    stamps = (1.0, 1.033, 1.066, 1.05, 1.1)
    assert [follower.choose(two(stamp=stamp), config)[1] for stamp in stamps] == [True, False, False, False, False]
    assert follower.choose(two(stamp=0.0), config)[1]  # the recording began again


def test_a_lost_subject_is_waited_for_and_found_again():
    events = []
    follower = SubjectFollower(events.append)
    config = SubjectConfig(choice="clicked", point_m=SMALL, lost_s=1.0)
    follower.choose(two(), config)
    for stamp in (0.2, 0.4):
        with pytest.raises(InputError) as caught:
            follower.choose(scene((BIG, 0.4), stamp=stamp), config)
        assert caught.value.reason == "subject_lost"
    found, another = follower.choose(two(stamp=0.6), config)
    assert not another and where(found.mask) > 0.6
    assert len(events) == 2 and "lost" in events[0] and "found again after 0.60 s" in events[1]


@pytest.mark.parametrize("choice", ["clicked", "nearest"])
def test_after_a_while_another_subject_takes_its_place_and_that_is_said(choice):
    events = []
    follower = SubjectFollower(events.append)
    config = SubjectConfig(choice=choice, point_m=SMALL, lost_s=0.5)
    follower.choose(two(), config)
    with pytest.raises(InputError, match="lost_s"):
        follower.choose(scene((BIG, 0.4), stamp=0.3), config)
    found, another = follower.choose(scene((BIG, 0.4), stamp=0.9), config)
    assert another and where(found.mask) < 0.4
    assert "another subject is followed after 0.90 s" in events[-1]


def test_what_comes_back_to_its_place_after_a_while_is_a_new_subject():
    follower = SubjectFollower()
    config = SubjectConfig(choice="nearest", lost_s=0.5)
    follower.choose(two(), config)
    assert not follower.choose(two(stamp=0.4), config)[1]
    assert follower.choose(two(stamp=1.0), config)[1]


def test_an_empty_view_says_lost_once_and_a_new_click_chooses_anew():
    events = []
    follower = SubjectFollower(events.append)
    config = SubjectConfig(choice="clicked", point_m=SMALL)
    follower.choose(two(), config)
    for stamp in (0.1, 0.2):
        with pytest.raises(InputError, match="pixels"):
            follower.choose(scene(((0.0, 0.0, 9.0), 0.1), stamp=stamp), config)
    assert len(events) == 1
    found, another = follower.choose(two(stamp=0.3), SubjectConfig(choice="clicked", point_m=BIG))
    assert another and where(found.mask) < 0.4


def test_masks_and_the_largest_are_left_as_they_are():
    follower = SubjectFollower()
    image = two()
    assert follower.choose(image, SubjectConfig()) == (image, False)
    masked = replace(image, mask=image.depth > 2.5)
    assert follower.choose(masked, SubjectConfig(choice="nearest")) == (masked, False)


def test_a_clock_that_was_set_back_chooses_anew():
    follower = SubjectFollower()
    config = SubjectConfig(choice="nearest")
    follower.choose(two(stamp=100.0), config)
    _, another = follower.choose(scene((BIG, 0.4), stamp=1.0), config)
    assert another


def test_a_node_stays_with_what_was_clicked_and_says_when_it_is_lost_found_or_given_up(ros_context):
    from geometry_msgs.msg import PointStamped
    from test_faults import Camera

    from nr_tracking.ros.messages import frame_messages

    camera = Camera(ros_context, subject__lost_s=0.5)
    node = camera.node

    def see(image):
        messages = frame_messages(image, "optical")
        node._inputs.on_info(messages["camera_info"])
        node._inputs.on_image(messages["depth"])
        return camera.figures()

    try:
        see(two(stamp=1.0))
        assert where(node._tracker.pushed[-1].depth > 0) < 0.5 and node._tracker.pushed[-1].mask is None
        click = PointStamped()
        click.header.frame_id = "optical"
        click.point.x, click.point.y, click.point.z = SMALL
        node._on_click(click)
        assert "was chosen" in node._diagnostics.subject
        for stamp in (1.1, 1.2):
            see(two(stamp=stamp))
            assert where(node._tracker.pushed[-1].mask) > 0.6
        resets = node._tracker.resets
        assert see(scene((BIG, 0.4), stamp=1.3)).dropped == {"subject_lost": 1}
        assert "the subject was lost" in node._diagnostics.subject
        see(two(stamp=1.5))
        assert "found again after 0.30 s" in node._diagnostics.subject
        assert where(node._tracker.pushed[-1].mask) > 0.6 and node._tracker.resets == resets  # under the same ids
        see(scene((BIG, 0.4), stamp=1.6))
        assert see(scene((BIG, 0.4), stamp=2.2)).dropped == {"subject_lost": 2}
        assert "another subject is followed after 0.70 s" in node._diagnostics.subject
        assert where(node._tracker.pushed[-1].mask) < 0.4 and node._tracker.resets == resets + 1
    finally:
        node.close()
