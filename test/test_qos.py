"""Quality of service can be chosen for every topic, and a mismatch is named."""

import math
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml

pytest.importorskip("rclpy")

import rclpy
from fake_tracker import FakeTracker, flat_frame
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from test_faults import Camera

from nr_tracking import cli
from nr_tracking.config import load_config
from nr_tracking.ros.diagnostics import gpu_memory
from nr_tracking.ros.messages import frame_messages
from nr_tracking.ros.settings import settings
from nr_tracking.ros.statistics import Statistics
from nr_tracking.ros.tracking_node import TrackingNode
from nr_tracking.types import InputError

OUTPUTS = ("mesh", "tracks", "patches", "correspondences")
INPUTS = ("/depth/image_raw", "/depth/camera_info", "/mask", "/clicked_point")


@pytest.fixture
def node_of(ros_context):
    nodes = []

    def make(**given):
        overrides = [Parameter(name, value=value) for name, value in given.items()]
        nodes.append(TrackingNode(FakeTracker, context=ros_context, parameter_overrides=overrides))
        nodes[-1].start()
        return nodes[-1]

    yield make
    for node in nodes:
        node.close()


def qos_of(node, topic, owner="nr_tracking"):
    """The quality that the graph shows: a new endpoint takes a moment to be known, its name longer."""
    start = time.monotonic()
    while True:
        waited = time.monotonic() - start
        names = (owner,) if waited < 10.0 else (owner, "_NODE_NAME_UNKNOWN_")
        endpoints = node.get_publishers_info_by_topic(topic) + node.get_subscriptions_info_by_topic(topic)
        found = [each.qos_profile for each in endpoints if each.node_name in names]
        if found or waited > 30.0:
            assert found, f"no endpoint of {topic}"
            return found[0]
        time.sleep(0.02)


def test_reliability_and_history_of_images_by_name(node_of):
    node = node_of(**{"ros.image_reliability": "reliable", "ros.image_history": 7})
    names = {
        p: node.get_parameter(f"qos_overrides./depth/image_raw.subscription.{p}").value
        for p in ("reliability", "depth")
    }
    assert names == {"reliability": "reliable", "depth": 7}


def test_every_topic_can_be_overridden_and_stays_so_over_lifecycles(node_of):
    given = {f"qos_overrides.{topic}.subscription.depth": 3 for topic in INPUTS}
    given |= {f"qos_overrides.{topic}.subscription.reliability": "reliable" for topic in INPUTS}
    given |= {f"qos_overrides./nr_tracking/{name}.publisher.reliability": "best_effort" for name in OUTPUTS}
    given["qos_overrides./diagnostics.publisher.reliability"] = "best_effort"
    node = node_of(**given)
    for _ in range(2):
        assert all(qos_of(node, topic).reliability == ReliabilityPolicy.RELIABLE for topic in INPUTS)
        for topic in (*(f"/nr_tracking/{name}" for name in OUTPUTS), "/diagnostics"):
            assert qos_of(node, topic).reliability == ReliabilityPolicy.BEST_EFFORT
        node.trigger_deactivate(), node.trigger_cleanup(), node.start()


@pytest.mark.parametrize(("topic", "other"), [("/mask", "/depth/image_raw"), ("/depth/image_raw", "/mask")])
def test_an_override_for_masks_or_depth_leaves_the_other_as_it_is(node_of, topic, other):
    node = node_of(**{f"qos_overrides.{topic}.subscription.reliability": "reliable"})
    assert qos_of(node, topic).reliability == ReliabilityPolicy.RELIABLE
    assert qos_of(node, other).reliability == ReliabilityPolicy.BEST_EFFORT


def test_overrides_of_one_node_are_not_those_of_the_next(node_of):
    topic = "/nr_tracking/tracks"
    first = node_of(**{f"qos_overrides.{topic}.publisher.reliability": "best_effort"})
    assert qos_of(first, topic).reliability == ReliabilityPolicy.BEST_EFFORT
    first.close()
    second = node_of()
    assert qos_of(second, topic).reliability == ReliabilityPolicy.RELIABLE


@pytest.mark.parametrize(
    ("wrong", "state", "said"),
    [
        ("qos_overrides./nr_tracking/mesh.publisher.reliability", "unconfigured", "cannot be configured"),
        ("qos_overrides./depth/image_raw.subscription.reliability", "unconfigured", "cannot be activated"),
    ],
)
def test_quality_that_does_not_exist_is_said_and_frees_everything(node_of, wrong, state, said):
    """rclpy keeps to itself what a transition raises."""
    node = node_of(**{wrong: "sometimes"})
    assert node._state_machine.current_state[1] == state
    last = node.statistics.summary(0.0).last_error
    assert said in last and "sometimes" in last
    assert node._tracker is None and node.worker is None and node._outputs is None


def test_reliability_and_history_that_are_set_while_unconfigured_hold_from_then_on(node_of):
    node = node_of()
    assert qos_of(node, "/depth/image_raw").reliability == ReliabilityPolicy.BEST_EFFORT
    node.trigger_deactivate(), node.trigger_cleanup()
    changes = Parameter("ros.image_reliability", value="reliable"), Parameter("ros.image_history", value=55)
    assert all(result.successful for result in node.set_parameters(changes))
    node.start()
    assert node._inputs.subscribed["depth"].reliability == "reliable"
    assert node.get_parameter("qos_overrides./depth/image_raw.subscription.depth").value == 55


@pytest.mark.parametrize(
    "wrong", ["/depth/image_raw.subscription", "/mask.subscription", "/nr_tracking/tracks.publisher"]
)
def test_transitions_that_fail_leave_no_endpoint_behind(node_of, wrong):
    node = node_of(**{f"qos_overrides.{wrong}.reliability": "sometimes"})

    def endpoints():
        return sorted(each.topic_name for each in (*node.subscriptions, *node.publishers))

    before = endpoints()
    assert not {"/depth/camera_info", "/nr_tracking/mesh"} & set(before)
    for _ in range(2):
        node.start()
        assert endpoints() == before


def test_parameters_as_dumped_are_what_the_command_prints(node_of, capsys):
    """`ros2 param dump` asks for all parameters; `nr_tracking config` prints the tree."""
    node = node_of(preset="test", **{"mesh.upsample": 3})
    dumped = {name: each.value for name, each in node.get_parameters_by_prefix("").items()}
    assert cli.main(["config", "--preset", "test", "--set", "mesh.upsample=3"]) == 0
    config = load_config(yaml.safe_load(capsys.readouterr().out))
    for setting in settings(config):
        value = dumped[setting.name]
        assert (value if isinstance(value, bool | int | float | str) else list(value)) == setting.value, setting.name


def test_live_settings_change_while_active_and_others_are_refused_with_the_reason(node_of):
    node = node_of()
    for setting in settings(node.config):
        value = list(setting.value) if isinstance(setting.value, list) else setting.value
        result = node.set_parameters([Parameter(setting.name, value=value)])[0]
        assert result.successful == setting.live, setting.name
        assert setting.live or "unconfigured" in result.reason or "read-only" in result.reason


@pytest.mark.parametrize(
    ("setting", "override", "quality_is_wrong"),
    [
        ("reliable", None, True),
        ("best_effort", "reliable", True),
        ("reliable", "best_effort", False),
    ],
)
def test_why_no_image_arrives_names_publisher_quality_and_mend(
    node_of, ros_context, setting, override, quality_is_wrong
):
    camera = Node("camera_driver", context=ros_context)
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT, durability=DurabilityPolicy.VOLATILE)
    publisher = camera.create_publisher(Image, "/depth/image_raw", best_effort)
    try:
        given = {"ros.image_reliability": setting, "ros.silence_s": 0.001}
        if override:
            given["qos_overrides./depth/image_raw.subscription.reliability"] = override
        node = node_of(**given)
        level, said = node._diagnostics._verdict(node.statistics.summary(1e9))
        assert level == b"\x02" and "on /depth/image_raw: camera_driver (BEST_EFFORT, VOLATILE)" in said
        assert ("ros.image_reliability: best_effort" in said) == quality_is_wrong
    finally:
        camera.destroy_publisher(publisher)
        camera.destroy_node()


def test_images_that_are_no_depth_are_named_with_their_encoding(ros_context):
    camera = Camera(ros_context, ros__silence_s=0.001)
    try:
        messages = frame_messages(flat_frame(1), "camera")
        camera.node._inputs.on_info(messages["camera_info"])
        camera.node._inputs.on_image(replace(messages["depth"], encoding="rgb8"))
        summary = camera.figures()
        _, said = camera.node._diagnostics._verdict(replace(summary, since_last_frame_s=0.0, since_last_result_s=3.0))
        assert said.startswith("no usable depth for 3.0 s: nobody publishes /depth/image_raw")
        assert "unknown_encoding" in said and "'rgb8'" in said
    finally:
        camera.node.close()


class Stuck(FakeTracker):
    """Says that it has begun with a frame."""

    def __init__(self, config):
        super().__init__(config)
        self.begun = threading.Event()

    def push(self, frame):
        self.begun.set()
        return super().push(frame)


def after_silence(node, **changes):
    """What diagnostics say when images came just now, and the last result three seconds ago."""
    summary = node.statistics.summary(time.monotonic())
    summary = replace(summary, **{"since_last_frame_s": 0.0, "since_last_result_s": 3.0, **changes})
    return *node._diagnostics._verdict(summary), node._diagnostics._values(summary)


def test_inference_that_hangs_is_told_with_what_waits_for_it(ros_context):
    camera = Camera(ros_context, Stuck)
    tracker = camera.node._tracker
    try:
        tracker.gate.clear()
        camera.send(0)
        assert tracker.begun.wait(60)
        camera.send(1, 2, 3, 4)
        level, said, values = after_silence(camera.node, result_rate_hz=9.0, result_gap_s=0.1)
        assert (level, said) == (b"\x01", "no result for 3.0 s: 4 images wait for inference")
        assert values["result rate [Hz]"] == "-" and values["frames waiting"] == "4"
    finally:
        tracker.gate.set()
        camera.node.close()


def test_results_are_missed_that_take_longer_than_they_usually_do(ros_context):
    camera = Camera(ros_context)
    try:
        camera.send(0)
        camera.figures()
        slow = {"result_rate_hz": 0.2, "result_gap_s": 5.0}
        level, said, values = after_silence(camera.node, **slow, since_last_result_s=14.0)
        assert (level, said, values["result rate [Hz]"]) == (b"\x00", "tracking at 0.2 Hz", "0.2")
        level, said, values = after_silence(camera.node, **slow, since_last_result_s=16.0)
        assert (level, said) == (b"\x01", "no result for 16.0 s, though images arrive")
        assert values["result rate [Hz]"] == "-"
        assert after_silence(camera.node)[1] == "waiting for the first windows"
    finally:
        camera.node.close()


def test_an_empty_room_is_no_fault_as_long_as_images_come(ros_context):
    camera = Camera(ros_context)
    try:
        camera.send(0)
        camera.figures()
        camera.node._tracker.error = InputError("no_subject", "nobody stands before the walls")
        camera.send(1)
        camera.figures()
        level, said, _ = after_silence(camera.node, since_last_result_s=60.0)
        assert level == b"\x00" and said.startswith("nobody in view for 60.0 s; no_subject: ")
        level, said, _ = after_silence(camera.node, since_last_result_s=60.0, since_last_frame_s=9.0)
        assert level == b"\x02" and said.startswith("no depth for 9.0 s")
        # Somebody has come since: what is late is late from then on.
        level, said, _ = after_silence(camera.node, since_last_result_s=60.0, since_last_drop_s=9.0)
        assert (level, said) == (b"\x00", "waiting for the first windows")
        level, said, _ = after_silence(camera.node, since_last_result_s=60.0, since_last_drop_s=11.0)
        assert (level, said) == (b"\x01", "no result for 11.0 s, though images arrive")
    finally:
        camera.node.close()


def test_a_covered_camera_is_an_error_and_no_empty_room(ros_context):
    camera = Camera(ros_context)
    try:
        empty = frame_messages(flat_frame(2 * 10**9, 0.0), "camera")
        camera.node._inputs.on_info(empty["camera_info"])
        camera.node._inputs.on_image(empty["depth"])
        camera.figures()
        level, said, _ = after_silence(camera.node, since_last_result_s=60.0)
        assert level == b"\x02" and said.startswith("no usable depth for 60.0 s") and "no_depth: " in said
    finally:
        camera.node.close()


def test_images_that_are_left_out_by_policy_are_told_and_are_no_fault(ros_context):
    camera = Camera(ros_context, Stuck, ros__queue_policy="latest", ros__queue_size=2)
    node, tracker = camera.node, camera.node._tracker
    try:
        camera.send(0)
        camera.figures()
        tracker.begun.clear(), tracker.gate.clear()
        camera.send(1)
        assert tracker.begun.wait(60)
        camera.send(*range(2, 7))
        level, said, values = after_silence(node, since_last_result_s=0.5, result_rate_hz=9.8)
        assert level == b"\x00"
        assert said == "tracking at 9.8 Hz; 3 images of the last second were left out (overrun)"
        assert values["dropped: overrun"] == "3" and values["last error"] == ""
        level, said, _ = after_silence(node, result_rate_hz=9.8, result_gap_s=0.1)
        assert (level, said) == (b"\x01", "no result for 3.0 s: 2 images wait for inference")
    finally:
        tracker.gate.set()
        node.close()


def test_the_frames_that_were_lost_are_named_and_not_what_cost_none(ros_context):
    camera = Camera(ros_context)
    try:
        messages = frame_messages(flat_frame(10**9), "camera")
        camera.node._inputs.on_info(messages["camera_info"])
        camera.node._inputs.on_image(replace(messages["depth"], encoding="rgb8"))
        camera.send(1)
        camera.figures()
        camera.node._failed("the clicked point cannot be used")
        level, said, values = after_silence(camera.node, since_last_result_s=0.1)
        assert level == b"\x01" and said.startswith("1 frame dropped in the last second; unknown_encoding: ")
        assert values["last error"] == "the clicked point cannot be used"
    finally:
        camera.node.close()


def test_frames_without_a_surface_and_no_result_at_all_are_told(ros_context):
    camera = Camera(ros_context)
    try:
        assert after_silence(camera.node, since_last_result_s=9.0)[:2] == (b"\x00", "waiting for the first windows")
        level, said, _ = after_silence(camera.node, since_last_result_s=11.0)
        assert (level, said) == (b"\x01", "no result for 11.0 s, though images arrive")
        camera.node._tracker.bare = lambda stamp_ns: True
        camera.send(0, 1)
        assert camera.figures().dropped == {"no_surface": 2}
        level, said, _ = after_silence(camera.node)
        assert level == b"\x01"
        assert said.startswith("no result for 3.0 s, though images arrive; no_surface: at 1.033 s: ")
    finally:
        camera.node.close()


def test_inference_that_fails_and_fails_is_an_error(ros_context):
    camera = Camera(ros_context)
    try:
        for index in range(30):
            level, said, _ = after_silence(camera.node)
            assert level == (b"\x01" if index else b"\x00"), said
            camera.node._tracker.error = ZeroDivisionError("no number left")
            camera.send(index)
            camera.figures()
        level, said, _ = after_silence(camera.node)
        assert level == b"\x02" and said.startswith(
            "inference failed 30 times in a row, without a result: failure: ZeroDivisionError: no number left"
        )
        camera.send(31)
        camera.figures()
        assert after_silence(camera.node, since_last_result_s=0.0)[0] != b"\x02"
    finally:
        camera.node.close()


def test_rate_and_jitter_of_a_camera_that_is_silent_are_none(ros_context):
    camera = Camera(ros_context)
    try:
        camera.send(*range(9))
        camera.figures()
        values = after_silence(camera.node)[2]
        assert float(values["input rate [Hz]"]) > 0 and float(values["input jitter [s]"]) >= 0
        values = after_silence(camera.node, since_last_frame_s=2.5)[2]
        assert values["input rate [Hz]"] == values["input jitter [s]"] == "-"
    finally:
        camera.node.close()


def test_hardware_is_the_frame_of_the_camera_or_its_topic_until_that_is_known(ros_context):
    camera = Camera(ros_context)
    try:
        assert camera.node._diagnostics._hardware() == "/depth/image_raw"
        camera.send(0)
        assert camera.node._diagnostics._hardware() == "camera"
        camera.node.trigger_deactivate()
        assert camera.node._diagnostics._hardware() == "camera"
    finally:
        camera.node.close()


def test_parameters_that_somebody_else_refuses_change_nothing(node_of):
    node = node_of()
    refuse = lambda changed: SetParametersResult(successful=False, reason="not today")  # noqa: E731
    node._on_set_parameters_callbacks.append(refuse)  # asked after the node itself
    change = Parameter("subject.depth_max_m", value=2.5)
    assert node.set_parameters([change])[0].reason == "not today"
    assert node.config.subject.depth_max_m == node._tracker.config.subject.depth_max_m == 6.0
    node._on_set_parameters_callbacks.remove(refuse)
    assert node.set_parameters([change])[0].successful
    assert node.config.subject.depth_max_m == node._tracker.config.subject.depth_max_m == 2.5


def test_parameters_are_taken_up_where_ros_tells_of_them_only_beforehand(ros_context, monkeypatch):
    monkeypatch.delattr(Node, "add_post_set_parameters_callback")
    node = TrackingNode(FakeTracker, context=ros_context)
    try:
        node.start()
        assert node.set_parameters([Parameter("ros.mesh_rate_hz", value=5.0)])[0].successful
        assert node.config.ros.mesh_rate_hz == node._outputs.config.mesh_rate_hz == 5.0
    finally:
        node.close()


def test_time_between_results_is_the_usual_one(monkeypatch):
    times = iter([0.0, 1.0, 61.0, 63.0])
    monkeypatch.setattr("nr_tracking.ros.statistics.time", SimpleNamespace(monotonic=lambda: next(times)))
    figures = Statistics(0.0)
    assert math.isnan(figures.summary(0.0).result_gap_s)
    for _ in range(4):
        figures.finished(8, 1)
    assert figures.summary(64.0).result_gap_s == 2.0


@pytest.mark.parametrize(
    ("kind", "reliability", "why"),
    [
        (Image, "RELIABLE", "segmenter (RELIABLE, VOLATILE) publishes /mask"),
        (Image, "BEST_EFFORT", "segmenter (BEST_EFFORT, VOLATILE) publishes /mask but nothing arrives: "),
        (CameraInfo, "RELIABLE", "/mask carries sensor_msgs/msg/CameraInfo, not sensor_msgs/msg/Image: remap mask"),
    ],
)
def test_masks_that_do_not_come_are_told_with_what_keeps_them_away(ros_context, ros_domain, kind, reliability, why):
    elsewhere = rclpy.Context()  # within one process a topic has one type
    rclpy.init(context=elsewhere, domain_id=ros_domain)
    segmenter = Node("segmenter", context=elsewhere)
    quality = QoSProfile(depth=1, reliability=ReliabilityPolicy[reliability], durability=DurabilityPolicy.VOLATILE)
    publisher = segmenter.create_publisher(kind, "/mask", quality)
    camera = Camera(ros_context, ros__image_reliability="reliable", ros__silence_s=2.5)
    try:
        qos_of(camera.node, "/mask", "segmenter")
        camera.send(*range(70))
        level, said, values = after_silence(camera.node)
        assert level == b"\x02" and said.startswith(f"no result for 3.0 s: 70 images wait for a mask: {why}")
        assert ("set ros.image_reliability: best_effort" in said) == (reliability == "BEST_EFFORT")
        assert values["frames unpaired"] == "70" and values["frames waiting"] == "0"
        camera.send(*range(70, 301))
        assert camera.figures().dropped == {"no_mask": 1} and "no mask has come at all" in camera.figures().last_error
        assert f"300 images wait for a mask: {why}" in after_silence(camera.node)[1]
    finally:
        segmenter.destroy_publisher(publisher)
        segmenter.destroy_node()
        rclpy.shutdown(context=elsewhere)
        camera.node.close()


def test_camera_infos_that_do_not_come_are_told(ros_context):
    camera = Camera(ros_context)
    try:
        camera.node._inputs.on_image(frame_messages(flat_frame(1), "camera")["depth"])
        level, said, _ = after_silence(camera.node)
        assert level == b"\x02"
        assert said == "no result for 3.0 s: 1 image waits for a camera info: nobody publishes /depth/camera_info"
    finally:
        camera.node.close()


def test_latency_counts_the_wait_for_a_camera_info(ros_context, monkeypatch):
    camera, now = Camera(ros_context), time.monotonic()
    try:
        messages = frame_messages(flat_frame(1), "camera")
        monkeypatch.setattr("nr_tracking.ros.inputs.time", SimpleNamespace(monotonic=lambda: now - 100.0))
        camera.node._inputs.on_image(messages["depth"])
        monkeypatch.undo()
        camera.node._inputs.on_info(messages["camera_info"])
        assert camera.figures().latency_p50_s > 100.0
    finally:
        camera.node.close()


def test_what_is_wrong_is_logged_when_it_begins_and_when_it_ends(ros_context, capfd):
    camera = Camera(ros_context)
    try:
        for wrong, message in ((True, "gone 1 s"), (True, "gone 2 s"), (False, "here"), (False, "here still")):
            camera.node._diagnostics._log(wrong, message)
    finally:
        camera.node.close()
    said = capfd.readouterr().err
    assert said.count("gone 1 s") == 1 and said.count("here") == 1 and "gone 2 s" not in said


def test_memory_of_the_gpu_is_told_where_it_is_used(monkeypatch):
    cuda = SimpleNamespace(
        is_available=lambda: True,
        is_initialized=lambda: True,
        memory_allocated=lambda: 3 << 20,
        max_memory_allocated=lambda: 5 << 20,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert gpu_memory() == {"GPU memory [MB]": "3", "GPU memory peak [MB]": "5"}
    cuda.is_initialized = lambda: False
    assert gpu_memory() == {}
    monkeypatch.delitem(sys.modules, "torch")
    assert gpu_memory() == {}
