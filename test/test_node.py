"""The node over real DDS, in this process, with a quick tracker in place of the network."""

import time
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy")

import gc
import logging
import signal
import subprocess
import sys
import threading

import rclpy.time
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from fake_tracker import CAMERA, FakeTracker, flat_frame
from geometry_msgs.msg import PoseArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Log
from rcl_interfaces.srv import SetParameters
from rclpy.executors import MultiThreadedExecutor
from rclpy.parameter import Parameter
from ros_peer import LATCHED, RELIABLE, Peer, Spinner
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_srvs.srv import Trigger
from visualization_msgs.msg import Marker

from nr_tracking.data.png import metres_to_units
from nr_tracking.ros import publishers
from nr_tracking.ros.compressed import compress_png
from nr_tracking.ros.core_log import CoreLog
from nr_tracking.ros.messages import frame_messages
from nr_tracking.ros.outputs import TRACK_FIELDS
from nr_tracking.ros.tracking_node import TrackingNode
from nr_tracking.ros.typestore import encode
from nr_tracking.tracking.result import read_output
from nr_tracking.types import DepthFrame, InputError

PERIOD_NS = 33_333_333


def stamp(index):
    return 10**9 + index * PERIOD_NS


@pytest.fixture
def peer(ros_context):
    peer = Peer(ros_context)
    yield peer
    peer.close()


@pytest.fixture
def start_node(ros_context, tmp_path):
    running = []

    def start(factory=FakeTracker, active=True, cli_args=None, **given):
        given = {"ros__image_reliability": "reliable", "ros__image_history": 100, "ros__queue_policy": "all", **given}
        given.setdefault("ros__save_report", False)
        given.setdefault("ros__output_folder", str(tmp_path / "saved"))
        overrides = [Parameter(name.replace("__", "."), value=value) for name, value in given.items()]
        node = TrackingNode(factory, context=ros_context, parameter_overrides=overrides, cli_args=cli_args)
        if active:
            node.start()
        running.append((Spinner(node, MultiThreadedExecutor(4, context=ros_context), ros_context), node))
        return node

    yield start
    while running:
        ended(*running.pop())
    # A node that is collected later takes its name's place on /rosout away from the node of the next test.
    gc.collect()


def ended(spinner, node):
    spinner.stop()
    node.close()


def figures(node):
    return node.statistics.summary(time.monotonic())


def through(peer, node, count):
    """Wait until ``count`` images were received and everything that was received is through."""
    peer.until(lambda: figures(node).received >= count)
    assert node.worker.finish(120)


def change_state(peer, transition):
    return peer.call(
        ChangeState, "/nr_tracking/change_state", ChangeState.Request(transition=Transition(id=transition))
    )


def state(peer):
    return peer.call(GetState, "/nr_tracking/get_state", attempts=10).current_state.label


def test_values_arrive_with_the_stamps_and_frame_of_the_input(start_node, peer):
    node = start_node()
    mesh, tracks = peer.listen(Marker, "/nr_tracking/mesh"), peer.listen(PointCloud2, "/nr_tracking/tracks")
    motion, patches = (
        peer.listen(Marker, "/nr_tracking/correspondences"),
        peer.listen(PoseArray, "/nr_tracking/patches"),
    )
    peer.inputs_matched()
    peer.until(lambda: all(node.count_subscribers(f"/nr_tracking/{t}") for t in ("mesh", "tracks", "patches")))
    peer.until(lambda: node.count_subscribers("/nr_tracking/correspondences"))
    depths = [1.0 + 0.001 * i for i in range(30)]
    for index, depth in enumerate(depths):
        peer.send(flat_frame(stamp(index), depth), "optical")
    last = mesh.wait(lambda got: got and got[-1].header.stamp.nanosec == stamp(29) % 10**9)[-1]
    assert last.header.frame_id == "optical" and last.type == Marker.TRIANGLE_LIST
    assert last.points[0].z == pytest.approx(depths[-1], abs=1e-6)
    clouds = tracks.wait(lambda got: len(got) == 30)
    seen = [np.frombuffer(bytes(cloud.data), TRACK_FIELDS)["z"][0] for cloud in clouds]
    np.testing.assert_allclose(seen, depths, atol=1e-6)
    line = motion.wait(lambda got: len(got) == 29)[-1]
    assert line.points[1].z - line.points[0].z == pytest.approx(0.001, abs=1e-5)
    assert len(patches.wait(lambda got: len(got) == 30)[0].poses) == 2
    assert figures(node).tracked == 30 and not figures(node).dropped


def test_late_joiner_gets_the_last_mesh_though_nobody_listened(start_node, peer):
    node = start_node()
    peer.inputs_matched()
    for index in range(5):
        peer.send(flat_frame(stamp(index), 1.0 + index))
    through(peer, node, 5)
    message = peer.listen(Marker, "/nr_tracking/mesh", LATCHED).wait(lambda got: got)[0]
    assert message.points[0].z == pytest.approx(5.0)


def test_nobody_stays_to_be_seen_who_was_given_up_reset_or_switched_off(start_node, peer):
    node = start_node(subject__lost_s=0.2)
    mesh, tracks = peer.listen(Marker, "/nr_tracking/mesh"), peer.listen(PointCloud2, "/nr_tracking/tracks")
    patches = peer.listen(PoseArray, "/nr_tracking/patches")
    peer.inputs_matched()
    peer.until(lambda: all(node.count_subscribers(f"/nr_tracking/{t}") for t in ("mesh", "tracks", "patches")))

    def nobody(count):
        """Wait until it has been said so many times in all; returns the stamp of the last time."""
        deleted = [m for m in mesh.wait(lambda got: sum(m.action == Marker.DELETE for m in got) == count) if m.action]
        empty = [m for m in tracks.wait(lambda got: sum(not m.width for m in got) == count) if not m.width]
        patches.wait(lambda got: sum(not m.poses for m in got) == count)
        assert deleted[-1].header == empty[-1].header and deleted[-1].header.frame_id == "optical"
        assert (deleted[-1].ns, deleted[-1].id) == (mesh.messages[0].ns, mesh.messages[0].id)
        return deleted[-1].header.stamp.nanosec + 10**9 * deleted[-1].header.stamp.sec

    peer.send(flat_frame(stamp(0)), "optical")
    for index in range(1, 20):
        peer.send(flat_frame(stamp(index), 0.0), "optical")
    through(peer, node, 20)
    assert nobody(1) == stamp(8), "once for the loss, with the image in which the subject was given up"
    late = peer.listen(Marker, "/nr_tracking/mesh", LATCHED)
    assert late.wait(lambda got: got)[0].action == Marker.DELETE
    peer.send(flat_frame(stamp(20)), "optical")
    through(peer, node, 21)
    assert mesh.wait(lambda got: got[-1].action == Marker.ADD) and peer.call(Trigger, "/nr_tracking/reset").success
    assert nobody(2) == stamp(20)
    peer.send(flat_frame(stamp(21)), "optical")
    through(peer, node, 22)
    assert change_state(peer, Transition.TRANSITION_DEACTIVATE).success
    assert nobody(3) == stamp(21)
    assert change_state(peer, Transition.TRANSITION_ACTIVATE).success
    assert peer.call(Trigger, "/nr_tracking/reset").success
    assert len(late.messages) <= 6, "nobody is told twice that nobody is there"


def test_mesh_rate_is_limited_and_can_change_while_active(start_node, peer):
    node = start_node(ros__mesh_rate_hz=5.0)
    mesh, tracks = peer.listen(Marker, "/nr_tracking/mesh"), peer.listen(PointCloud2, "/nr_tracking/tracks")
    peer.inputs_matched()
    peer.until(lambda: node.count_subscribers("/nr_tracking/mesh") and node.count_subscribers("/nr_tracking/tracks"))
    for index in range(30):
        peer.send(flat_frame(stamp(index)))
    tracks.wait(lambda got: len(got) == 30)
    assert len(mesh.messages) in (5, 6)  # one second at 5 Hz
    request = SetParameters.Request(
        parameters=[
            Parameter("ros.mesh_rate_hz", value=30.0).to_parameter_msg(),
            Parameter("subject.depth_max_m", value=2.5).to_parameter_msg(),
            Parameter("refinement.iterations", value=3).to_parameter_msg(),
        ]
    )
    live, depth, fixed = peer.call(SetParameters, "/nr_tracking/set_parameters", request).results
    assert live.successful and depth.successful and node._tracker.config.subject.depth_max_m == 2.5
    assert not fixed.successful and "refinement.iterations" in fixed.reason
    before = len(mesh.messages)
    for index in range(30, 40):
        peer.send(flat_frame(stamp(index)))
    mesh.wait(lambda got: len(got) == before + 10)


def test_every_bad_input_is_counted_by_name_and_tracking_goes_on(start_node, peer):
    node = start_node()
    peer.inputs_matched()
    good = [0, 10, 20]
    peer.send(flat_frame(stamp(0)))
    peer.send(flat_frame(stamp(1)), camera_info=lambda m: replace(m, k=np.zeros(9)))
    peer.send(flat_frame(stamp(2)), depth=lambda m: replace(m, encoding="bgr8"))
    peer.send(flat_frame(stamp(3)), depth=lambda m: replace(m, step=1))
    peer.send(flat_frame(stamp(4)), depth=lambda m: replace(m, data=m.data[:-1]))
    peer.send(flat_frame(stamp(5)), depth=lambda m: replace(m, height=0))
    peer.send(flat_frame(stamp(6), 0.0))
    peer.send(DepthFrame(stamp(7), np.full((CAMERA.height, CAMERA.width), np.nan, np.float32), CAMERA))
    peer.send(flat_frame(stamp(10)))
    peer.send(flat_frame(stamp(10)))
    peer.send(flat_frame(stamp(9)))
    peer.send(flat_frame(stamp(20)))
    through(peer, node, 12)
    assert figures(node).dropped == {
        "zero_focal_length": 1,
        "unknown_encoding": 1,
        "wrong_step": 1,
        "wrong_size": 1,
        "size_mismatch": 1,
        "no_depth": 2,
        "stamp_repeated": 1,
        "stamp_out_of_order": 1,
    }
    assert [frame.stamp_ns for frame in node._tracker.pushed] == [stamp(i) for i in good]
    assert state(peer) == "active"


def test_image_without_camera_info_waits_for_it(start_node, peer):
    node = start_node()
    peer.inputs_matched()
    for index in range(3):
        peer.send(flat_frame(stamp(index)), camera_info=None)
    through(peer, node, 3)
    assert figures(node).tracked == 0
    peer.send(flat_frame(stamp(3)))
    through(peer, node, 4)
    assert figures(node).tracked == 4


def test_camera_info_that_was_sent_once_before_the_node_came_is_asked_for(start_node, peer):
    latched = peer.node.create_publisher(CameraInfo, "depth/camera_info", LATCHED)
    latched.publish(encode("camera_info", frame_messages(flat_frame(1), "camera")["camera_info"]))
    node = start_node()
    peer.inputs_matched()
    for index in range(3):
        peer.send(flat_frame(stamp(index)), camera_info=None)
    peer.until(lambda: figures(node).tracked == 3)
    assert not figures(node).dropped
    node._inputs.destroy()
    assert not list(node.subscriptions) or all(each.topic != "/depth/camera_info" for each in node.subscriptions)


def test_compressed_depth_is_taken_bit_for_bit_and_what_is_lossy_is_refused(start_node, peer):
    node = start_node(ros__image_transport="compressedDepth")
    images = peer.node.create_publisher(CompressedImage, "depth/image_raw/compressedDepth", RELIABLE)
    peer.until(images.get_subscription_count)
    peer.until(peer._inputs["camera_info"].get_subscription_count)
    for index, encoding in enumerate(("16UC1", "16UC1", "32FC1")):
        frame = flat_frame(stamp(index), 1.0 + index)
        image = CompressedImage(format=f"{encoding}; compressedDepth png")
        image.header.frame_id, image.header.stamp = "optical", rclpy.time.Time(nanoseconds=frame.stamp_ns).to_msg()
        image.data = compress_png(metres_to_units(frame.depth, 0.001))
        images.publish(image)
        peer.send(frame, "optical", depth=None)
    peer.until(lambda: figures(node).tracked + sum(figures(node).dropped.values()) == 3)
    assert figures(node).dropped == {"lossy_depth": 1}
    for index, frame in enumerate(node._tracker.pushed):
        np.testing.assert_array_equal(frame.depth, np.full((CAMERA.height, CAMERA.width), 1.0 + index, np.float32))


@pytest.mark.parametrize(
    ("remapped", "topic"),
    [
        ([], "/depth/image_raw/compressedDepth"),
        (["depth/image_raw:=/camera/depth"], "/camera/depth/compressedDepth"),
        (["depth/image_raw:=/camera/depth", "depth/image_raw/compressedDepth:=/packed"], "/packed"),
    ],
)
def test_compressed_depth_lies_below_wherever_the_raw_topic_is_remapped_to(start_node, remapped, topic):
    arguments = ["--ros-args", *(part for rule in remapped for part in ("-r", rule))]
    node = start_node(ros__image_transport="compressedDepth", cli_args=arguments if remapped else None)
    assert node._inputs.depth_topic == topic
    assert topic in {each.topic_name for each in node.subscriptions}


def test_what_nobody_listens_to_is_not_built(start_node, peer, monkeypatch):
    built = []
    for name in ("mesh_marker", "motion_marker", "patches_message", "tracks_cloud"):
        make = getattr(publishers, name)
        monkeypatch.setattr(
            publishers, name, lambda *given, name=name, make=make: [built.append(name), make(*given)][1]
        )
    node = start_node()
    peer.inputs_matched()
    peer.send(flat_frame(stamp(0)))
    through(peer, node, 1)
    assert not built
    tracks = peer.listen(PointCloud2, "/nr_tracking/tracks")
    peer.until(lambda: node._outputs._tracks.get_subscription_count())
    peer.send(flat_frame(stamp(1)))
    tracks.wait(lambda got: got)
    through(peer, node, 2)
    assert built == ["tracks_cloud"]


def test_masks_are_used(start_node, peer):
    node = start_node()
    peer.with_masks().inputs_matched()
    mask = np.zeros((CAMERA.height, CAMERA.width), bool)
    mask[2:5, 3:9] = True
    peer.send(replace(flat_frame(stamp(0)), mask=mask))
    through(peer, node, 1)
    peer.until(lambda: figures(node).tracked == 1)
    np.testing.assert_array_equal(node._tracker.pushed[0].mask, mask)


def test_images_wait_for_masks_of_a_topic_that_was_remapped(start_node, peer):
    node = start_node(cli_args=["--ros-args", "-r", "mask:=/segmentation/mask"])
    masks = peer.node.create_publisher(Image, "/segmentation/mask", RELIABLE)
    peer.inputs_matched()
    peer.until(lambda: node.count_publishers("/segmentation/mask") and masks.get_subscription_count())
    mask = np.zeros((CAMERA.height, CAMERA.width), bool)
    mask[2:5, 3:9] = True
    frame = replace(flat_frame(stamp(0)), mask=mask)
    peer.send(frame, mask=None)
    through(peer, node, 1)
    assert figures(node).tracked == 0
    masks.publish(encode("mask", frame_messages(frame, "camera")["mask"]))
    peer.until(lambda: figures(node).tracked == 1)
    np.testing.assert_array_equal(node._tracker.pushed[0].mask, mask)


def test_save_finishes_the_window_and_writes_an_output(start_node, peer, tmp_path):
    node = start_node(lambda config: FakeTracker(config, lag=3))
    peer.inputs_matched()
    assert not peer.call(Trigger, "/nr_tracking/save").success
    for index in range(6):
        peer.send(flat_frame(stamp(index), 1.0 + index))
    through(peer, node, 6)
    answer = peer.call(Trigger, "/nr_tracking/save")
    assert answer.success and answer.message.startswith(str(tmp_path / "saved"))
    output = read_output(type(tmp_path)(answer.message))
    np.testing.assert_array_equal(output.stamps_ns, [stamp(i) for i in range(6)])
    np.testing.assert_allclose(output.positions[:, 0, 2], np.arange(6) + 1.0)
    assert (output.path / "timings.json").is_file() and not (output.path / "report.html").exists()
    assert peer.call(Trigger, "/nr_tracking/save").message != answer.message


def test_kept_frames_are_bounded(start_node, peer, tmp_path):
    node = start_node(ros__kept_frames=4)
    peer.inputs_matched()
    for index in range(9):
        peer.send(flat_frame(stamp(index)))
    through(peer, node, 9)
    output = read_output(type(tmp_path)(peer.call(Trigger, "/nr_tracking/save").message))
    np.testing.assert_array_equal(output.stamps_ns, [stamp(i) for i in range(5, 9)])


def test_reset_service_and_looped_stamps_start_anew(start_node, peer):
    node = start_node()
    peer.inputs_matched()
    peer.send(flat_frame(stamp(0)))
    through(peer, node, 1)
    assert peer.call(Trigger, "/nr_tracking/reset").success
    assert node._tracker.resets == 1
    peer.send(flat_frame(stamp(90)))
    peer.send(flat_frame(stamp(5)))  # nearly three seconds earlier: the recording began again
    through(peer, node, 3)
    assert node._tracker.resets == 2 and figures(node).tracked == 3


def test_simulated_clock_that_jumps_back_starts_anew_without_losing_a_frame(start_node, peer):
    node = start_node(lambda config: FakeTracker(config, lag=2), use_sim_time=True)
    clock = peer.node.create_publisher(Clock, "/clock", 10)
    peer.inputs_matched()
    peer.until(lambda: clock.get_subscription_count() > 0)

    def at(seconds):
        clock.publish(Clock(clock=Time(sec=seconds)))
        peer.until(lambda: node.get_clock().now().nanoseconds == seconds * 10**9)

    at(9)
    for index in range(5):
        peer.send(flat_frame(stamp(index)))
    through(peer, node, 5)
    at(8)
    peer.until(lambda: node._tracker.resets == 1)
    for index in range(5):  # 0.13 s earlier: too little to tell from frames that are late
        peer.send(flat_frame(stamp(index)))
    through(peer, node, 10)
    assert figures(node).tracked == 10 and not figures(node).dropped


def test_wrong_kind_of_publisher_is_named(start_node, peer, ros_domain):
    peer.node.destroy_publisher(peer._inputs.pop("depth"))
    elsewhere = rclpy.Context()  # one participant cannot have two types on a topic
    rclpy.init(context=elsewhere, domain_id=ros_domain)
    other = rclpy.create_node("colour_camera", context=elsewhere)
    try:
        other.create_publisher(Marker, "depth/image_raw", 1)
        start_node(ros__silence_s=0.1)
        status = peer.listen(DiagnosticArray, "/diagnostics")
        status.wait(lambda got: any("carries visualization_msgs/msg/Marker" in m.status[0].message for m in got))
    finally:
        other.destroy_node()
        rclpy.try_shutdown(context=elsewhere)


def test_services_and_diagnostics_answer_while_a_window_is_computed(start_node, peer):
    node = start_node(ros__queue_policy="latest", ros__queue_size=3)
    status = peer.listen(DiagnosticArray, "/diagnostics")
    peer.inputs_matched()
    node._tracker.gate.clear()
    for index in range(20):
        peer.send(flat_frame(stamp(index)))
    peer.until(lambda: figures(node).received == 20)
    assert state(peer) == "active"
    reports = status.wait(lambda got: any("20" in value(m, "frames received") for m in got))
    waiting = [int(value(m, "frames waiting")) for m in reports]
    assert max(waiting) <= 3
    node._tracker.gate.set()
    assert node.worker.finish(120)
    summary = figures(node)
    assert summary.received == 20 == summary.tracked + summary.dropped["overrun"]


def value(array, key):
    return next((entry.value for status in array.status for entry in status.values if entry.key == key), "")


def test_diagnostics_say_why_there_is_no_depth(start_node, peer):
    other = peer.node.create_publisher(Image, "/other/depth", 1)
    peer.node.destroy_publisher(peer._inputs.pop("depth"))
    start_node(ros__silence_s=0.1)
    status = peer.listen(DiagnosticArray, "/diagnostics")
    report = status.wait(lambda got: any("/other/depth" in m.status[0].message for m in got))[-1].status[0]
    assert report.level == b"\x02" and "nobody publishes /depth/image_raw" in report.message
    peer.node.destroy_publisher(other)


def test_camera_that_vanishes_is_missed_and_taken_up_again(start_node, peer):
    node = start_node(ros__silence_s=0.2)
    status = peer.listen(DiagnosticArray, "/diagnostics")
    said = peer.listen(Log, "/rosout")
    peer.inputs_matched()
    peer.send(flat_frame(stamp(0)))
    through(peer, node, 1)
    for name in ("depth", "camera_info"):
        peer.node.destroy_publisher(peer._inputs.pop(name))
    # Three reports are some seconds of silence, which is said once, as was that before the first image, if any.
    status.wait(lambda got: sum("nobody publishes /depth/image_raw" in m.status[0].message for m in got) >= 3)
    said.wait(lambda got: any("no depth for" in m.msg for m in got))
    assert sum("no depth for" in m.msg and m.level == Log.WARN for m in said.messages) <= 2
    assert state(peer) == "active"
    peer.publish_inputs().inputs_matched()
    for index in range(30, 35):
        peer.send(flat_frame(stamp(index)))
    through(peer, node, 6)
    assert figures(node).tracked == 6 and not figures(node).dropped
    # Once for each silence, and not once a second: six images leave seven of them at most, on a busy processor.
    assert sum("no depth for" in m.msg and m.level == Log.WARN for m in said.messages) <= 7


def test_slow_subscriber_holds_up_neither_inference_nor_others(start_node, peer, ros_domain):
    node = start_node()
    elsewhere, held = rclpy.Context(), threading.Event()
    rclpy.init(context=elsewhere, domain_id=ros_domain)
    slow = rclpy.create_node("slow", context=elsewhere)
    spinner = Spinner(slow, MultiThreadedExecutor(1, context=elsewhere), elsewhere)
    try:
        for topic, kind in (("tracks", PointCloud2), ("mesh", Marker)):
            slow.create_subscription(kind, f"/nr_tracking/{topic}", lambda _: held.wait(600), 1)
        tracks = peer.listen(PointCloud2, "/nr_tracking/tracks")
        peer.inputs_matched()
        peer.until(lambda: node.count_subscribers("/nr_tracking/tracks") == 2)
        for index in range(60):
            peer.send(flat_frame(stamp(index)))
        through(peer, node, 60)
        tracks.wait(lambda got: len(got) == 60)
        assert figures(node).tracked == 60
    finally:
        held.set()
        spinner.stop()
        slow.destroy_node()
        rclpy.try_shutdown(context=elsewhere)


def test_diagnostics_carry_figures_and_reasons(start_node, peer):
    node = start_node()
    status = peer.listen(DiagnosticArray, "/diagnostics")
    peer.inputs_matched()
    peer.send(flat_frame(stamp(0)))
    peer.send(flat_frame(stamp(1), 0.0))
    through(peer, node, 2)
    report = status.wait(lambda got: got and value(got[-1], "dropped: no_depth") == "1")[-1]
    assert value(report, "frames tracked") == "1" and value(report, "tracks") == "4"
    assert "no_depth" in value(report, "last error") and float(value(report, "latency p95 [s]")) > 0
    assert float(value(report, "memory [MB]")) > 10 and value(report, "stage field [s]") == "0.01"


def test_what_the_core_logs_reaches_rosout_while_the_node_lives(start_node, peer):
    core = logging.getLogger("nr_tracking")
    before = list(core.handlers)
    node = start_node()
    said = peer.listen(Log, "/rosout")
    peer.until(lambda: node.count_subscribers("/rosout"))
    logging.getLogger("nr_tracking.tracking.tracker").warning("no result for stamp %.3f s", 1.5)
    logging.getLogger("nr_tracking.tracking.tracker").error("worse")
    said.wait(lambda got: any(m.msg == "worse" and m.level == Log.ERROR for m in got))
    assert any(m.msg == "no result for stamp 1.500 s" and m.level == Log.WARN for m in said.messages)
    assert {m.name for m in said.messages if m.msg == "worse"} == {"nr_tracking"}
    other = CoreLog(node.get_logger())
    logging.getLogger("nr_tracking").warning("once")
    logging.getLogger("nr_tracking").error("last")
    said.wait(lambda got: any(m.msg == "last" for m in got))
    assert sum(m.msg == "once" for m in said.messages) == 1, "with several nodes, too"
    other.close()
    node.close()
    assert core.handlers == before


def test_lifecycle_from_outside(start_node, peer):
    node = start_node(active=False, ros__autostart=False)
    assert state(peer) == "unconfigured"
    request = SetParameters.Request(parameters=[Parameter("refinement.iterations", value=3).to_parameter_msg()])
    assert peer.call(SetParameters, "/nr_tracking/set_parameters", request).results[0].successful
    for transition, label in [
        (Transition.TRANSITION_CONFIGURE, "inactive"),
        (Transition.TRANSITION_ACTIVATE, "active"),
        (Transition.TRANSITION_DEACTIVATE, "inactive"),
        (Transition.TRANSITION_ACTIVATE, "active"),
    ]:
        assert change_state(peer, transition).success and state(peer) == label
    assert node._tracker.config.refinement.iterations == 3
    peer.inputs_matched()
    peer.send(flat_frame(stamp(0)))
    through(peer, node, 1)
    assert figures(node).tracked == 1
    assert change_state(peer, Transition.TRANSITION_DEACTIVATE).success
    assert change_state(peer, Transition.TRANSITION_CLEANUP).success and state(peer) == "unconfigured"
    assert node._tracker is None
    assert change_state(peer, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN).success and state(peer) == "finalized"


@pytest.mark.parametrize(
    ("error", "complaint"),
    [
        (InputError("no_weights", "preset 'lite' has no weights: train them"), "configured: preset 'lite' has no"),
        (RuntimeError("no CUDA device"), "configured: RuntimeError: no CUDA device"),
    ],
)
def test_node_that_cannot_load_stays_unconfigured_and_says_why(start_node, peer, error, complaint):
    def factory(config):
        raise error

    start_node(factory)
    assert state(peer) == "unconfigured"
    status = peer.listen(DiagnosticArray, "/diagnostics")
    assert complaint in status.wait(lambda got: got)[0].status[0].message


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_the_process_cleanly(ros_domain, peer, number):
    command = [sys.executable, "-m", "nr_tracking.ros.tracking_node", "--ros-args", "-p", "ros.autostart:=false"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert state(peer) == "unconfigured"
        process.send_signal(number)
        _, complaints = process.communicate(timeout=300)
        assert process.returncode == 0, complaints
        assert "Traceback" not in complaints
    finally:
        process.kill()


def test_interrupts_that_come_again_and_again_end_the_process_cleanly(ros_domain, peer):
    """The terminal sends one to the whole group, whoever launched the node another, and then somebody is impatient."""
    main = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "  # not ignored, as here
    main += "from nr_tracking.ros.tracking_node import main; sys.exit(main())"
    command = [sys.executable, "-c", main, "--ros-args", "-p", "ros.autostart:=false"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        assert state(peer) == "unconfigured"
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        _, complaints = process.communicate(timeout=60)
        assert process.returncode == 0 and "Traceback" not in complaints, complaints
    finally:
        process.kill()


def test_unknown_parameter_ends_the_process_with_its_name(ros_domain):
    command = [sys.executable, "-m", "nr_tracking.ros.tracking_node", "--ros-args", "-p", "mesh.upsampel:=2"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 2
    assert "unknown parameter 'mesh.upsampel'; did you mean 'mesh.upsample'" in ended.stderr
