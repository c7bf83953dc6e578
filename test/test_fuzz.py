"""Whatever a camera sends, the node stays active, counts it by reason, and reconstructs correctly right afterwards.

The normal run takes a sample; ``NR_TRACKING_FUZZ=10000`` asks for as many messages.
"""

import os
import struct
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from ball_recording import CAMERA, BallTracker, ball_frames
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rclpy.parameter import Parameter
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, Image

from nr_tracking.config import load_config
from nr_tracking.ros.messages import frame_messages
from nr_tracking.ros.tracking_node import TrackingNode
from nr_tracking.ros.typestore import encode
from nr_tracking.sensing.stamps import StampOrder
from nr_tracking.tracking.reconstruction import observe

MESSAGES = int(os.environ.get("NR_TRACKING_FUZZ", "600"))
BATCH = 20
GOOD = ball_frames(5)
SECOND = 10**9
REASONS = {
    "unknown_encoding", "wrong_step", "wrong_size", "size_mismatch", "zero_focal_length", "wrong_roi", "no_depth",
    "unknown_distortion", "wrong_distortion", "mask_size", "mask_encoding", "no_subject", "stamp_repeated",
    "stamp_out_of_order", "no_camera_info", "no_mask", "no_result",
}  # fmt: skip
CLASSES = {"depth": Image, "camera_info": CameraInfo, "mask": Image}


class SensingBall:
    """Senses as the real tracker does, and knows that everything is a ball."""

    windows = 0
    on_ready = None

    subject_size_m = 0.0

    def __init__(self, config):
        self.config = config
        self.reset()

    def reset(self, keep_background=False):
        self._ball, self._order = BallTracker(window=1), StampOrder()

    def push(self, frame):
        restarted = self._order.jumped_back(frame.stamp_ns)
        view = observe(frame, self.config.subject)
        if restarted:
            self.reset()
        self._order.accept(frame.stamp_ns)
        return self._ball.push(replace(view.frame, depth=view.subject_depth))

    def flush(self):
        return []


odd_numbers = st.sampled_from([0, 1, 2, 47, 48, 49, 63, 64, 65, 128, 640, 65535, 2**31 - 1, 2**32 - 1])
odd_floats = st.sampled_from([0.0, -0.0, 1e-300, -1.0, 60.0, 1e9, 1e308, float("nan"), float("inf"), -float("inf")])
stamps = st.one_of(
    st.integers(-(2**31), 2**31 - 1).map(lambda second: second * SECOND),  # decades apart
    st.integers(0, 40).map(lambda frame: 10 * SECOND + frame * 33_333_333),  # doubled and out of order
)
contents = st.sampled_from(["ball", "zero", "saturated", "noise", "nan", "inf", "negative", "huge", "tiny"])
images = st.fixed_dictionaries(
    {"content": contents},
    optional={
        "width": odd_numbers,
        "height": odd_numbers,
        "step": odd_numbers,
        "encoding": st.sampled_from(["16UC1", "32FC1", "mono16", "rgb8", "", "16UC", "\u00e9", "mono8"]),
        "is_bigendian": st.sampled_from([1, 255]),
        "length": odd_numbers.filter(lambda number: number < 10**6),
        "frame_id": st.sampled_from(["", "/", "other", "x" * 300]),
    },
)
infos = st.fixed_dictionaries(
    {},
    optional={
        "width": odd_numbers,
        "height": odd_numbers,
        "k": st.lists(odd_floats, min_size=9, max_size=9),
        "d": st.lists(odd_floats, max_size=9),
        "distortion_model": st.sampled_from(["plumb_bob", "rational_polynomial", "equidistant", "fov", ""]),
        "binning_x": odd_numbers,
        "binning_y": odd_numbers,
        "roi": st.tuples(odd_numbers, odd_numbers, odd_numbers, odd_numbers),
    },
)
events = st.tuples(
    stamps,
    st.sampled_from(range(len(GOOD))),
    st.one_of(st.none(), images),
    st.one_of(st.none(), infos),
    st.one_of(st.none(), images),
    st.permutations(["depth", "camera_info", "mask"]),
)


def spoiled_image(message, changes):
    changes = dict(changes)
    content, length = changes.pop("content"), changes.pop("length", None)
    frame_id = changes.pop("frame_id", None)
    data = message.data
    size = len(data) // 4
    numbers = {
        "nan": np.nan, "inf": np.inf, "negative": -1.0, "huge": 3e38, "tiny": 1e-40,
    }  # fmt: skip
    if content in numbers:
        message = replace(message, encoding="32FC1", step=2 * message.step)
        data = np.full(2 * size, numbers[content], np.float32).view(np.uint8)
    elif content == "noise":
        data = np.frombuffer(np.random.default_rng(size).bytes(len(data)), np.uint8)
    elif content in ("zero", "saturated"):
        data = np.full(len(data), 255 if content == "saturated" else 0, np.uint8)
    if length is not None:
        data = np.resize(data, length)
    if frame_id is not None:
        message = replace(message, header=replace(message.header, frame_id=frame_id))
    return replace(message, data=data, **changes)


def spoiled_info(message, changes):
    changes = {name: np.array(value) if name in "kd" else value for name, value in changes.items()}
    if "roi" in changes:
        names = ("x_offset", "y_offset", "width", "height")
        changes["roi"] = replace(message.roi, **dict(zip(names, changes["roi"], strict=True)))
    return replace(message, **changes)


def messages_of(event):
    stamp, index, depth, info, mask, order = event
    frame = replace(GOOD[index], stamp_ns=stamp, mask=None if mask is None else GOOD[index].depth > 0)
    made = frame_messages(frame, "camera", "16UC1")
    if depth is not None:
        made["depth"] = spoiled_image(made["depth"], depth)
    if info is not None:
        made["camera_info"] = spoiled_info(made["camera_info"], info)
    if mask is not None:
        made["mask"] = spoiled_image(made["mask"], mask)
    return [(kind, made[kind]) for kind in order if kind in made]


@pytest.fixture(scope="module")
def node(ros_context):
    overrides = [Parameter("ros.queue_policy", value="all"), Parameter("ros.kept_frames", value=4)]
    node = TrackingNode(SensingBall, context=ros_context, parameter_overrides=overrides)
    node.start()
    yield node
    node.close()


def give(node, kind, message):
    take = {"depth": node._inputs.on_image, "camera_info": node._inputs.on_info, "mask": node._inputs.on_mask}
    take[kind](deserialize_message(encode(kind, message), CLASSES[kind]))


sent, expected = Counter(), [r for f in GOOD for r in SensingBall(load_config("lite")).push(f)]


@settings(
    max_examples=max(1, MESSAGES // BATCH),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(batch=st.lists(events, min_size=BATCH // 2, max_size=BATCH // 2))
def test_no_message_stops_the_node_and_good_ones_are_tracked_right_afterwards(node, batch):
    for event in batch:
        for kind, message in messages_of(event):
            try:
                give(node, kind, message)
            except (struct.error, OverflowError):
                continue  # what cannot be serialised cannot be sent
            sent[kind] += 1
    assert node.worker.finish(60)
    results = []
    node._keeper.keep, keep = lambda frame, source: results.append(frame), node._keeper.keep
    begin = (int(time.time()) + sum(sent.values())) * SECOND
    for index, frame in enumerate(GOOD):
        for kind, message in frame_messages(replace(frame, stamp_ns=begin + index * 33_333_333), "camera").items():
            give(node, kind, message)
    assert node.worker.finish(60)
    node._keeper.keep = keep
    assert len(results) == len(GOOD)
    for result, truth in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result.surface.vertices, truth.surface.vertices)
    summary = node.statistics.summary(time.monotonic())
    assert set(summary.dropped) <= REASONS, summary.last_error
    assert node._state_machine.current_state[1] == "active"
    assert node.worker.waiting == 0


def test_everything_that_came_is_accounted_for(node):
    """Runs after the one above, on the same node."""
    summary = node.statistics.summary(time.monotonic())
    assert sum(sent.values()) >= MESSAGES
    unpaired = len(node._inputs._pairing._images)
    assert summary.received == summary.tracked + summary.dropped_total + unpaired
    assert len(summary.dropped) >= 8
    print(dict(sent), summary.tracked, summary.dropped)


def test_the_camera_of_the_good_frames_is_the_one_that_the_messages_describe():
    assert (CAMERA.width, CAMERA.height) == (64, 48)
    distance = np.linalg.norm(expected[0].surface.vertices.mean(axis=0) - np.array([-0.1, 0.05, 1.5]))
    assert distance < 0.02
