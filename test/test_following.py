"""One of several bodies is chosen and stayed with; that it was lost and found is said."""

from dataclasses import replace

import numpy as np
import pytest
from test_subject import CAMERA, ball, frame

from nr_tracking.config import SubjectConfig
from nr_tracking.sensing.following import Sighting, SubjectFollower
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


@pytest.mark.parametrize("gone", ["another is there", "nobody is there", "the camera is covered"])
def test_what_comes_back_to_its_place_after_a_while_is_a_new_subject_and_called_so(gone):
    events = []
    follower = SubjectFollower(events.append)
    config = SubjectConfig(choice="nearest", lost_s=0.5)
    follower.choose(two(), config)
    assert not follower.choose(two(stamp=0.4), config)[1]
    image = scene((BIG, 0.4) if gone == "another is there" else ((0.0, 0.0, 9.0), 0.1), stamp=0.5)
    if gone == "the camera is covered":
        image = replace(image, depth=np.zeros_like(image.depth))
    with pytest.raises(InputError) as caught:
        follower.choose(image, config)
    follower.refused(image.stamp_ns, caught.value)
    assert follower.choose(two(stamp=1.0), config)[1]
    assert "another subject is followed after 0.60 s" in events[-1] and "found again" not in " ".join(events)
    assert not follower.choose(two(stamp=1.1), config)[1]


@pytest.mark.parametrize("choice", ["clicked", "nearest"])
@pytest.mark.parametrize("lost_s", [0.0, 0.5])
def test_images_that_are_far_apart_lose_nobody(choice, lost_s):
    follower = SubjectFollower()
    config = SubjectConfig(choice=choice, point_m=SMALL, lost_s=lost_s)
    assert [follower.choose(two(stamp=stamp), config)[1] for stamp in (0.0, 0.6, 3.0, 60.0)] == [True] + 3 * [False]
    with pytest.raises(InputError, match="lost_s"):
        follower.choose(scene((BIG, 0.4), stamp=90.0), config)
    found, another = follower.choose(scene((BIG, 0.4), stamp=90.5), config)
    assert another and where(found.mask) < 0.4


def test_a_click_on_an_image_without_depth_still_chooses_anew():
    follower, config = SubjectFollower(), SubjectConfig(choice="clicked", point_m=SMALL)
    with pytest.raises(InputError):
        follower.choose(replace(two(), depth=np.zeros((CAMERA.height, CAMERA.width), np.float32)), config)
    assert follower.choose(two(stamp=0.1), config)[1]


TWINS = np.array([[0.0, 0.0, 2.0], [-0.9, 0.0, 2.0]])  # in the fixed frame; the camera turns from one to the other


def turned(index):
    """Two bodies that stand still, with the pose of a camera that turns by 15 degrees an image, two a second."""
    angle, pose = np.deg2rad(-15.0 * index), np.eye(4)
    pose[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    image = scene(*((place, 0.25) for place in TWINS @ pose[:3, :3]), stamp=0.5 * index)
    return replace(image, pose=pose)


def followed(frame):
    """Which of the two bodies a mask is on."""
    v, u = (pixels.mean() for pixels in np.nonzero(frame.mask))
    z = float(frame.depth[frame.mask].mean())
    seen = np.array([(u - CAMERA.cx) / CAMERA.fx * z, (v - CAMERA.cy) / CAMERA.fy * z, z])
    return int(np.linalg.norm(TWINS @ frame.pose[:3, :3] - seen, axis=1).argmin())


@pytest.mark.parametrize("settings", [{"choice": "clicked", "point_m": tuple(TWINS[0])}, {"choice": "nearest"}])
def test_a_subject_is_stayed_with_while_the_camera_turns(settings):
    events = []
    follower, config = SubjectFollower(events.append), SubjectConfig(**settings)
    first = follower.choose(turned(0), config)[0]
    pose = np.eye(4)
    for index in (1, 2):
        image = turned(index)
        pose[:] = image.pose  # a caller may fill one matrix anew
        found, another = follower.choose(replace(image, pose=pose), config)
        assert not another and followed(found) == followed(first) == 0
    with pytest.raises(InputError) as caught:  # out of the view, and the other one is where it was in the image
        follower.choose(turned(4), config)
    assert caught.value.reason == "subject_lost"
    found, another = follower.choose(turned(2.5), config)
    assert not another and followed(found) == 0 and "found again" in events[-1]


def test_a_pose_that_is_none_is_refused_by_name():
    with pytest.raises(InputError) as caught:
        SubjectFollower().choose(replace(two(), pose=np.ones((4, 4))), SubjectConfig(choice="nearest"))
    assert caught.value.reason == "bad_pose"


def test_a_node_stays_with_its_subject_while_the_camera_turns():
    from test_worker import Bench

    from nr_tracking.ros.messages import frame_messages
    from nr_tracking.ros.pairing import PairedFrame

    images = {image.stamp_ns: image for image in map(turned, range(4))}

    def locate(source):
        if source.stamp_ns == 3 * SECOND // 2:
            raise InputError("no_transform", "TF is late")
        return images[source.stamp_ns].pose

    bench = Bench(locate=locate, policy="all")
    subject = SubjectConfig(choice="clicked", point_m=tuple(TWINS[0]))
    bench.tracker.config = bench.tracker.config.model_copy(update={"subject": subject})
    try:
        for stamp, image in images.items():
            messages = frame_messages(image, "optical")
            bench.submit(PairedFrame(stamp, messages["depth"], messages["camera_info"], None))
        assert bench.stamps() == [0, SECOND // 2, SECOND]
        assert [followed(frame) for frame in bench.tracker.pushed] == [0, 0, 0]
        assert bench.dropped() == {"no_transform": 1} and bench.tracker.resets == 1
    finally:
        bench.worker.stop()


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


@pytest.mark.parametrize(("gone_s", "another"), [(0.9, False), (1.1, True)])
@pytest.mark.parametrize("unmasked", [True, False])
def test_a_subject_is_lost_when_images_had_no_mask_for_long(gone_s, another, unmasked):
    events = []
    follower, config = SubjectFollower(events.append), SubjectConfig(lost_s=1.0)

    def see(stamp):
        image = two(stamp=stamp)
        return follower.choose(replace(image, mask=image.depth > 2.5), config)[1], follower.tracked(image.stamp_ns)

    assert not see(3.0)[0]
    if unmasked:
        follower.left_unmasked()
    assert see(3.0 + gone_s)[0] == (another and unmasked)
    assert events == (["no mask for 1.10 s: the next subject is a new one"] if another and unmasked else [])
    assert not see(60.0)[0]  # images that are far apart lose nobody


def kept(path, rate, missed=0, eye=None):
    """Whether a body of the size of a person is the same one all along a ``path`` (N, 3), seen ``rate`` times a second.

    The last of these is seen later, after ``missed`` images that showed nobody. ``eye`` are the camera's poses.
    """
    box = np.random.default_rng(0).uniform(-0.5, 0.5, (500, 3)) * (0.5, 1.7, 0.3)
    seen, same = None, []
    for index, place in enumerate(path):
        pose = None if eye is None else eye[index]
        cloud = box + place if pose is None else (box + place - pose[:3, 3]) @ pose[:3, :3]
        stamp = round(SECOND * index / rate)
        if index == len(path) - 1:
            for _ in range(missed):
                seen, stamp = seen.missed(stamp), stamp + round(SECOND / rate)
        same += [] if seen is None else [seen.distance(cloud, pose, stamp) <= seen.reach(stamp)]
        seen = Sighting.of(cloud.astype(np.float32), pose, stamp, seen)
    return all(same)


def steps(*along):
    return np.stack([along, np.zeros(len(along)), np.full(len(along), 3.0)], axis=1)


def test_whoever_is_fast_stays_the_subject():
    assert kept(steps(0, 0, 0, 0.75, 1.75, 2.75, 3.75, 4.0, 4.0), rate=5)
    assert kept(steps(0, 1, 2), rate=5), "nobody knows how fast one is who was seen once"
    assert kept(steps(0, 0.05, 1.5), rate=1), "without an image for a second"
    assert kept(steps(0, 0.1, 0.2, 1.0), rate=15, missed=10), "behind a pillar"
    assert kept(steps(0, 0, 0), rate=15, missed=10) and kept(steps(0, 0, 0.4), rate=15, missed=10)


def test_whoever_is_elsewhere_is_another():
    for rate in (5, 15, 30):
        assert not kept(steps(0, 0, 0, 1.2), rate), "those who stood there do not run at once"
    assert not kept(steps(0, 0, 0, 1.1), rate=15, missed=10)


def test_a_camera_that_looks_aside_at_once_loses_nobody_if_its_poses_are_known():
    eye = np.stack([np.eye(4)] * 4)
    eye[3, :3, :3] = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]
    path = steps(0, 0, 0, 0)
    assert kept(path, 15, eye=eye)
    assert not kept([*path[:3], path[3] @ eye[3, :3, :3]], 15)


def test_a_clock_that_was_set_back_chooses_anew():
    follower = SubjectFollower()
    config = SubjectConfig(choice="nearest")
    follower.choose(two(stamp=100.0), config)
    _, another = follower.choose(scene((BIG, 0.4), stamp=1.0), config)
    assert another


@pytest.mark.parametrize("choice", ["largest", "nearest", "clicked"])
def test_who_is_missing_where_a_recording_begins_again_is_given_up_there(choice):
    """Its last image and its first two seconds are empty: from the last stamp, absence would be negative."""
    events = []
    follower = SubjectFollower(events.append)
    config = SubjectConfig(choice=choice, point_m=SMALL, lost_s=1.0)

    def see(image):
        """Whether the subject is another one from this image on; as who runs a tracker goes about it."""
        another = False
        try:
            frame, another = follower.choose(image, config)
            find_subject(frame, config)
        except InputError as error:
            follower.refused(image.stamp_ns, error)
            return another or follower.gives_up(image.stamp_ns, config)
        follower.tracked(image.stamp_ns)
        return another

    for stamp in np.arange(8.0, 9.9, 0.1):
        see(two(stamp=stamp))
    empty = [scene(((0.0, 0.0, 9.0), 0.1), stamp=stamp) for stamp in (10.0, *np.arange(0.0, 2.0, 0.1))]
    assert [image.stamp_ns for image in empty if see(image)] == [SECOND]
    assert "no subject for 1.00 s: the next one is a new one" in events
    see(two(stamp=2.0))
    assert "there is a subject again after 2.00 s" in events


def test_a_recording_that_begins_again_may_show_another_place():
    follower, config = SubjectFollower(), SubjectConfig(choice="nearest")
    for stamp in np.arange(8.0, 10.0, 0.1):
        follower.choose(two(stamp=stamp), config)
    with pytest.raises(InputError):
        follower.choose(scene((BIG, 0.4), stamp=10.0), config)
    for stamp in (0.0, 0.1):  # what held still beside the subject of before is the subject now
        found, another = follower.choose(scene((BIG, 0.4), stamp=stamp), config)
        assert where(found.mask) < 0.4 and another == (stamp == 0.0)


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


def test_a_subject_that_is_too_large_for_one_is_told_once() -> None:
    heard: list[str] = []
    follower = SubjectFollower(heard.append)
    for stamp, size in enumerate((1.7, 2.9, 3.8, 3.9, 2.7, 3.1, 1.8, 4.2)):
        follower.tracked(stamp, size)
    assert [text.split(":")[0] for text in heard] == ["the subject is 3.8 m long", "the subject is 4.2 m long"]
    assert "subject.depth_max_m" in heard[0]
