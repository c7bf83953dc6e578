"""A recording played over DDS arrives as it was recorded."""

import re
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

import rclpy
from fake_tracker import FakeTracker, flat_frame
from rclpy.executors import MultiThreadedExecutor
from rclpy.parameter import Parameter
from ros_peer import Inbox, Peer, Spinner
from rosgraph_msgs.msg import Clock

from nr_tracking.data.sequence import write_sequence
from nr_tracking.ros import replay_node
from nr_tracking.ros.bags import RecordedMessage, write_bag
from nr_tracking.ros.conversions import intrinsics
from nr_tracking.ros.messages import MESSAGE_TYPES
from nr_tracking.ros.replay_node import ReplayNode, clipped
from nr_tracking.ros.tracking_node import TrackingNode
from nr_tracking.ros.typestore import TYPES
from nr_tracking.types import DepthFrame, InputError, Intrinsics

CAMERA = Intrinsics(64, 48, 70.0, 70.0, 31.5, 23.5)
PERIOD_NS = 20_000_000


def noisy_frames(count):
    generator = np.random.default_rng(5)
    for index in range(count):
        depth = (generator.integers(0, 5000, (48, 64)) * np.float64(0.001)).astype(np.float32)
        yield DepthFrame(10**9 + index * PERIOD_NS, depth, CAMERA, depth > 2)


@pytest.fixture(params=["sequence", "mcap", "sqlite3"])
def recording(request, tmp_path):
    if request.param == "sequence":
        return write_sequence(tmp_path / "recording", noisy_frames(20), fps=50)
    return write_bag(tmp_path / "recording", noisy_frames(20), request.param)


@pytest.fixture
def replay(ros_context):
    nodes = []

    def make(path, **given):
        overrides = [Parameter(name, value=value) for name, value in {"input": str(path), **given}.items()]
        nodes.append(ReplayNode(context=ros_context, parameter_overrides=overrides))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()


@pytest.fixture
def tracking(ros_context):
    given = {"ros.image_reliability": "reliable", "ros.image_history": 200, "ros.queue_policy": "all"}
    overrides = [Parameter(name, value=value) for name, value in given.items()]
    node = TrackingNode(FakeTracker, context=ros_context, parameter_overrides=overrides)
    node.start()
    spinner = Spinner(node, MultiThreadedExecutor(4, context=ros_context), ros_context)
    yield node
    spinner.stop()
    node.close()


def received(node, count):
    """Wait for ``count`` images; returns what the tracker was given."""
    pause = threading.Event()
    for _ in range(2000):
        if node.statistics.summary(0.0).received >= count:
            break
        pause.wait(0.01)
    assert node.worker.finish(20)
    return node._tracker.pushed


def test_node_gets_the_very_frames_of_the_recording(replay, tracking, recording):
    started = time.monotonic()
    assert replay(recording, wait=True).play() == 20
    assert time.monotonic() - started >= 19 * PERIOD_NS / 1e9  # at the rate of the recording, not faster
    frames = received(tracking, 20)
    expected = list(noisy_frames(20))
    assert [frame.stamp_ns for frame in frames] == [frame.stamp_ns for frame in expected]
    for frame, original in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(frame.depth, original.depth)
        np.testing.assert_array_equal(frame.mask, original.mask)
        assert frame.intrinsics == original.intrinsics


def test_rate_start_and_duration(replay, tracking, tmp_path):
    bag = write_bag(tmp_path / "recording", noisy_frames(20))
    started = time.monotonic()
    assert replay(bag, wait=True, rate=4.0, start=0.1, duration=0.2).play() == 10
    assert time.monotonic() - started < 2.0
    stamps = [frame.stamp_ns for frame in received(tracking, 10)]
    assert stamps == [10**9 + index * PERIOD_NS for index in range(5, 15)]


def test_clock_runs_with_the_recording(replay, tracking, ros_context, tmp_path):
    peer = Peer(ros_context)
    try:
        clock = peer.listen(Clock, "/clock", 100)
        node = replay(write_bag(tmp_path / "recording", noisy_frames(20)), wait=True)
        peer.until(lambda: node._clock_topic.get_subscription_count() > 0)
        node.play()
        last = 10**9 + 19 * PERIOD_NS
        ticks = clock.wait(lambda got: got and stamp(got[-1]) == last)
        times = [stamp(tick) for tick in ticks]
        assert times == sorted(times) and times[0] >= 10**9
    finally:
        peer.close()


def stamp(clock):
    return clock.clock.sec * 10**9 + clock.clock.nanosec


def test_loop_begins_again_until_shutdown(replay, tracking, tmp_path):
    frames = [flat_frame(10**9 + index * 400_000_000) for index in range(4)]
    node = replay(write_bag(tmp_path / "recording", frames), wait=True, rate=100.0, loop=True)
    playing = threading.Thread(target=node.play, daemon=True)
    playing.start()
    stamps = [frame.stamp_ns for frame in received(tracking, 12)]
    assert stamps[:8] == [frame.stamp_ns for frame in frames] * 2
    assert tracking._tracker.resets >= 2
    node._loop = False
    playing.join(20)


def test_missing_recording_is_named(replay, tmp_path):
    for path, reason in (("", "no_input"), (tmp_path / "nothing", "no_such_path")):
        with pytest.raises(InputError) as caught:
            replay(path).play()
        assert caught.value.reason == reason


def test_whole_numbers_are_rates_and_the_current_folder_is_a_recording(replay, tmp_path, monkeypatch):
    write_sequence(tmp_path / "recording", noisy_frames(2), fps=50)
    monkeypatch.chdir(tmp_path / "recording")
    assert replay(".", rate=4, duration=1).play() == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("rate:=20000", r"rate: 20000 is no number of 0\.001 to 1000"),
        ("rate:=20000.0", r"rate: .*out of range"),
        ("rate:=fast", "rate: 'fast' is no number"),
        ("loop:=1", "loop: 1 is no true or false"),
        ("input:=20240501", "input: 20240501 is no text; in quotes"),
        ("inputt:=FOLDER", "unknown parameter 'inputt'; did you mean 'input'"),
        ("xyz:=1", "unknown parameter 'xyz'; there are input, depth_topic, .*wait"),
        ("image_rectified:=rarely", "image_rectified: 'rarely' is none of auto, always, never"),
    ],
)
def test_parameters_that_are_not_allowed_are_told_in_a_line(given, said, capfd):
    assert replay_node.main(["replay_node", "--ros-args", "-p", given]) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("replay_node: ")]
    assert len(lines) == 1 and re.search(said, lines[0])


def test_it_says_which_topics_of_a_recording_it_plays(replay, tmp_path, monkeypatch):
    node, said = replay(write_bag(tmp_path / "recording", noisy_frames(1))), Inbox()
    monkeypatch.setattr(node, "get_logger", lambda: SimpleNamespace(info=said))
    assert node.play() == 1
    (text,) = said.wait(lambda got: got)
    assert re.search(r"playing \S*/depth/image_raw with \S*/depth/camera_info of .*recording", text)


def test_it_can_be_told_that_images_are_free_of_the_lens(tmp_path):
    lens = replace(CAMERA, distortion_model="plumb_bob", distortion=(0.1, 0.0, 0.0, 0.0, 0.0))
    bag = write_bag(tmp_path / "recording", [replace(frame, intrinsics=lens) for frame in noisy_frames(1)])
    for rectified, expected in (("auto", lens), ("always", CAMERA)):
        messages = replay_node.open_source(bag, rectified=rectified).messages()
        info = next(message.data for message in messages if message.kind == "camera_info")
        assert intrinsics(TYPES.deserialize_cdr(info, MESSAGE_TYPES["camera_info"])) == expected


def test_a_subscriber_is_waited_for_as_long_as_it_takes_and_that_is_said(replay, request, tmp_path, monkeypatch):
    node, said, sent = replay(write_bag(tmp_path / "recording", noisy_frames(3)), wait=True), Inbox(), []
    monkeypatch.setattr(replay_node, "_WAIT_S", 0.1)
    monkeypatch.setattr(node, "get_logger", lambda: SimpleNamespace(info=said))
    playing = threading.Thread(target=lambda: sent.append(node.play()), daemon=True)
    playing.start()
    texts = said.wait(lambda got: len(got) >= 3)
    assert texts[0] == "waiting until somebody subscribes to /depth/image_raw and /depth/camera_info"
    monkeypatch.setattr(replay_node, "_WAIT_S", 30.0)
    assert len(received(request.getfixturevalue("tracking"), 3)) == 3
    playing.join(60)
    assert sent == [3]


def test_shutdown_ends_the_wait_for_a_subscriber(ros_domain, tmp_path, monkeypatch):
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    given = {"input": str(write_bag(tmp_path / "recording", noisy_frames(1))), "wait": True}
    overrides = [Parameter(name, value=value) for name, value in given.items()]
    node = ReplayNode(context=context, parameter_overrides=overrides)
    monkeypatch.setattr(replay_node, "_WAIT_S", 0.0)
    monkeypatch.setattr(node, "get_logger", lambda: SimpleNamespace(info=lambda text: context.shutdown()))
    assert node.play() == 0
    node.destroy_node()


def test_span_brings_the_last_camera_info_along():
    kinds = [("camera_info", 0), ("depth", 0), ("depth", 1), ("depth", 2), ("depth", 3)]
    messages = [RecordedMessage(kind, second * 10**9, b"") for kind, second in kinds]
    span = list(clipped(iter(messages), 1.5, 1.0))
    assert [(message.kind, message.stamp_ns // 10**9) for message in span] == [("camera_info", 2), ("depth", 2)]
    assert list(clipped(iter(messages), 0.0, 0.0)) == messages
    assert not list(clipped(iter([]), 0.0, 0.0))


def test_the_clock_never_goes_back_within_a_recording(replay, tmp_path, monkeypatch):
    """Chunks of a recording overlap by a little; a clock that went back would make the tracker begin anew each time."""
    recorded = [1_000_300_000, 1_000_100_000, 1_000_500_000, 1_000_400_000]
    node, told = replay(tmp_path, rate=1000.0), []
    node._topics, node._reliable = {"depth": None}, False
    monkeypatch.setattr(node, "_send", lambda publisher, data: None)
    monkeypatch.setattr(node._clock_topic, "publish", lambda clock: told.append(stamp(clock)))
    for _ in range(2):  # the next pass begins where the recording does
        told.clear()
        assert node._play_once(iter([RecordedMessage("depth", stamp_ns, b"") for stamp_ns in recorded])) == 4
        assert told == sorted(told) and told[0] == recorded[0] and told[-1] == max(recorded)
