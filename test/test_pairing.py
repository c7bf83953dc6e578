"""What waits for its other half is bounded in number and in bytes, and what is still needed is kept."""

from dataclasses import replace

import numpy as np
from fake_tracker import flat_frame

from nr_tracking.ros.messages import frame_messages
from nr_tracking.ros.pairing import FramePairing, Waiting

PERIOD_NS = 33_333_333
IMAGE, MASK = 16 * 12 * 2, 16 * 12  # bytes


def recorded(count):
    frames = [replace(flat_frame(PERIOD_NS * i), mask=np.ones((12, 16), bool)) for i in range(count)]
    return [frame_messages(frame, "camera") for frame in frames]


def stamps(outcomes):
    return [round(outcome.stamp_ns / PERIOD_NS) for outcome in outcomes]


def test_images_that_wait_are_bounded_by_their_bytes():
    pairing, messages = FramePairing(expects_mask=True, memory=10 * IMAGE), recorded(20)
    pairing.info(messages[0]["camera_info"])
    outcomes = [outcome for message in messages for outcome in pairing.image(message["depth"])]
    assert [outcome.reason for outcome in outcomes] == ["no_mask"] * 10
    assert pairing.waiting == Waiting(10, "mask")
    assert stamps(outcome for message in messages for outcome in pairing.mask(message["mask"])) == [*range(10, 20)]
    assert pairing.waiting == Waiting(0, "")


def test_masks_that_wait_are_bounded_and_the_ones_that_images_wait_for_stay():
    pairing, messages = FramePairing(memory=10 * MASK), recorded(40)
    pairing.image(messages[0]["depth"])
    for message in messages:
        pairing.mask(message["mask"])
    assert pairing.waiting == Waiting(1, "camera info")
    outcomes = pairing.info(messages[0]["camera_info"])
    outcomes += [outcome for message in messages[31:] for outcome in pairing.image(message["depth"])]
    assert stamps(outcomes) == [0, *range(31, 40)]
    assert pairing._masks_held == MASK * len(pairing._masks)


def test_every_image_gets_its_own_camera_info_though_its_mask_comes_late():
    """Infos come with each image and, from another stream of the camera, between images."""
    pairing, messages, outcomes = FramePairing(expects_mask=True, capacity=200), recorded(200), []
    for index, message in enumerate(messages):
        outcomes += pairing.image(message["depth"]) + pairing.info(message["camera_info"])
        between = frame_messages(flat_frame(PERIOD_NS * index + 1000), "camera")
        outcomes += pairing.info(between["camera_info"])
        if index >= 150:
            outcomes += pairing.mask(messages[index - 150]["mask"])
    assert stamps(outcomes) == [*range(50)]
    own = [outcome.info.header.stamp == outcome.image.header.stamp for outcome in outcomes]
    assert all(own)


def test_an_image_too_large_to_wait_is_still_taken_when_it_need_not():
    pairing, messages = FramePairing(memory=IMAGE - 1), recorded(2)
    pairing.info(messages[0]["camera_info"])
    assert stamps(pairing.image(messages[0]["depth"])) == [0]
    assert pairing._images_held == 0 and not pairing._stamps
