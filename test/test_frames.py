"""Results in other frames, camera poses from TF, and clicks in any frame; TF itself is stood in for."""

import sys
import threading
import time
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from fake_tracker import flat_frame, tracked
from geometry_msgs.msg import PointStamped, Quaternion, Transform, Vector3
from rclpy.clock import ClockChange
from scipy.spatial.transform import Rotation
from test_faults import Camera

from nr_tracking.ros.frames import Located, Transforms, matrix, transformed
from nr_tracking.ros.messages import frame_messages
from nr_tracking.ros.outputs import patch_poses
from nr_tracking.types import InputError

TURN = Rotation.from_euler("xyz", [0.3, -0.5, 1.1])
SHIFT = np.array([1.0, -2.0, 0.5])
TO = np.eye(4)
TO[:3, :3], TO[:3, 3] = TURN.as_matrix(), SHIFT


def ros_transform():
    x, y, z, w = TURN.as_quat()
    return Transform(translation=Vector3(x=1.0, y=-2.0, z=0.5), rotation=Quaternion(x=x, y=y, z=z, w=w))


@pytest.fixture
def tf2(monkeypatch):
    """tf2_ros with one transform, from any frame to any other; ``known`` False for none.

    Of a camera ``moving`` only what was told: stamps to transforms; as in TF itself, nothing older than what is kept.
    """
    module, listeners = ModuleType("tf2_ros"), []
    module.known, module.asked, module.listeners = True, [], listeners

    class Buffer:
        def __init__(self, cache_time):
            self.kept, self.told, self.fixed = cache_time.nanoseconds, {}, {}

        def set_transform(self, transform, authority):
            if transform.stamp_ns >= max(self.told, default=0) - self.kept:
                self.told[transform.stamp_ns] = transform

        def set_transform_static(self, transform, authority):
            self.fixed[transform.child_frame_id] = transform

        def lookup_transform(self, target, source, stamp, timeout):
            if source == "moving":
                return SimpleNamespace(transform=self.told[stamp.nanoseconds].transform)
            if source == "fixed":
                return SimpleNamespace(transform=self.fixed[source].transform)
            module.asked.append((target, source, stamp.nanoseconds))
            if not module.known:
                raise LookupError(f"{target} is not connected to {source}")
            return SimpleNamespace(transform=ros_transform())

    class TransformListener:
        def __init__(self, buffer, node):
            self.buffer = buffer
            listeners.append(self)

        def unregister(self):
            listeners.remove(self)

    module.Buffer, module.TransformListener = Buffer, TransformListener
    monkeypatch.setitem(sys.modules, "tf2_ros", module)
    return module


def test_every_part_of_a_result_is_moved_rigidly():
    frame = tracked(5, 2.0, 1.9)
    moved = transformed(frame, TO, TO)
    carry = lambda points: TURN.apply(points) + SHIFT  # noqa: E731
    np.testing.assert_allclose(moved.surface.vertices, carry(frame.surface.vertices), atol=1e-6)
    np.testing.assert_allclose(moved.tracks.positions, carry(frame.tracks.positions), atol=1e-6)
    np.testing.assert_allclose(moved.tracks.velocities, TURN.apply(frame.tracks.velocities), atol=1e-6)
    np.testing.assert_allclose(moved.previous, carry(frame.previous), atol=1e-6)
    assert moved.surface.vertices.dtype == np.float32 and moved.canonical is frame.canonical
    point, centre = np.array([0.3, 0.4, 2.2]), frame.patches.centres[0]
    there = frame.patches.rotations[0] @ (point - centre) + frame.patches.translations[0]
    ours = moved.patches.rotations[0] @ (carry(point) - moved.patches.centres[0]) + moved.patches.translations[0]
    np.testing.assert_allclose(ours, carry(there), atol=1e-5)
    np.testing.assert_array_equal(moved.nodes.ids, frame.nodes.ids)
    np.testing.assert_allclose(moved.nodes.positions, carry(frame.nodes.positions), atol=1e-6)
    np.testing.assert_allclose(moved.nodes.rotations, TURN.as_matrix() @ frame.nodes.rotations, atol=1e-6)
    np.testing.assert_allclose(matrix(ros_transform()), TO, atol=1e-12)


class Panning:
    """A camera that turns by ten degrees a frame and moves aside; ``lost`` stamps have no transform."""

    def __init__(self, *lost):
        self.lost = lost

    def look_up(self, target, source, stamp_ns):
        if stamp_ns in self.lost:
            raise InputError("no_transform", "not yet")
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_euler("y", 10 * stamp_ns, degrees=True).as_matrix()
        pose[:3, 3] = [0.1 * stamp_ns, 0, 0]
        return pose


def seen_by(camera, stamp_ns):
    """Patches at rest in the world, at (0, 0, 2) and (1, 0, 2), as the tracker gives them."""
    world = np.array([[0.0, 0, 2], [1, 0, 2]])
    poses = [camera.look_up("", "", stamp) for stamp in (stamp_ns - 1, stamp_ns)]
    before, now = [(world - pose[:3, 3]) @ pose[:3, :3] for pose in poses]
    turn = np.repeat((poses[1][:3, :3].T @ poses[0][:3, :3])[None], 2, axis=0)
    frame = tracked(stamp_ns)
    return replace(frame, previous_patches=replace(frame.patches, centres=before, rotations=turn, translations=now))


def test_patches_do_not_turn_with_a_camera_that_pans():
    located = Located(Panning(), "map", pytest.fail)
    located(tracked(0), "camera")
    for stamp in (1, 2, 3):
        frame, _ = located(seen_by(Panning(), stamp), "camera")
        np.testing.assert_allclose(frame.previous_patches.centres, [[0, 0, 2], [1, 0, 2]], atol=1e-6)
        centres, quaternions = patch_poses(frame)
        np.testing.assert_allclose(centres, [[0, 0, 2], [1, 0, 2]], atol=1e-6)
        np.testing.assert_allclose(np.abs(quaternions), [[0, 0, 0, 1]] * 2, atol=1e-6)


def test_motion_from_a_result_without_a_transform_is_left_out():
    located = Located(Panning(1), "map", lambda text: None)
    assert located(seen_by(Panning(), 1), "camera") is None
    assert located(seen_by(Panning(), 2), "camera")[0].previous_patches is None
    assert located(seen_by(Panning(), 3), "camera")[0].previous_patches is not None


def test_results_are_published_in_the_target_frame_and_never_in_a_wrong_one(ros_context, tf2):
    camera = Camera(ros_context, ros__target_frame="map")
    sent = []
    camera.node._outputs.publish = lambda frame, frame_id: sent.append((frame, frame_id))
    try:
        camera.send(0)
        camera.figures()
        ((frame, frame_id),) = sent
        assert frame_id == "map" and tf2.asked == [("map", "camera", 10**9)]
        first = camera.node._tracker.pushed[0]
        expected = TURN.apply([0.0, 0.0, float(first.depth.mean())]) + SHIFT
        np.testing.assert_allclose(frame.surface.vertices[0], expected, atol=1e-5)
        tf2.known = False
        camera.send(1, 2)
        figures = camera.figures()
        assert len(sent) == 1 and figures.tracked == 3
        assert "no transform from 'camera' to 'map'" in figures.last_error
    finally:
        camera.node.close()
    assert not tf2.listeners


def test_a_moving_camera_gets_its_pose_and_frames_without_one_are_dropped_by_name(ros_context, tf2):
    camera = Camera(ros_context, ros__fixed_frame="odom")
    try:
        camera.send(0)
        camera.figures()
        np.testing.assert_allclose(camera.node._tracker.pushed[0].pose, TO, atol=1e-12)
        tf2.known = False
        camera.send(1)
        assert camera.figures().dropped == {"no_transform": 1}
        tf2.known = True
        camera.send(2)
        assert camera.figures().tracked == 2
    finally:
        camera.node.close()


def heard(tf2, stamp_ns, frame="moving"):
    """The listener hears where a frame is at a time."""
    buffer = tf2.listeners[0].buffer
    take = buffer.set_transform_static if frame == "fixed" else buffer.set_transform
    take(SimpleNamespace(stamp_ns=stamp_ns, child_frame_id=frame, transform=ros_transform()), "somebody")


def test_a_clock_that_goes_back_leaves_what_is_under_way_its_transforms_and_begins_anew(ros_context, tf2):
    """TF refuses what is older than what it keeps: a bag that begins again would be refused."""
    camera = Camera(ros_context, ros__fixed_frame="map", ros__queue_policy="latest")
    back = SimpleNamespace(clock_change=ClockChange.ROS_TIME_NO_CHANGE)
    late, early = 100 * 10**9, 2 * 10**9
    try:
        node, transforms = camera.node, camera.node._transforms
        heard(tf2, None, "fixed")
        heard(tf2, late)
        at_work, go_on, seen = threading.Event(), threading.Event(), []

        def busy():
            at_work.set()
            assert go_on.wait(20)
            seen.append(transforms.look_up("map", "moving", late))

        node.worker._queue.command(busy)
        assert at_work.wait(20)
        node._on_clock_jump(SimpleNamespace(clock_change=ClockChange.ROS_TIME_ACTIVATED))
        node._on_clock_jump(back)
        heard(tf2, early)
        np.testing.assert_array_equal(transforms.look_up("map", "moving", early, newest=True), matrix(ros_transform()))
        go_on.set()
        assert node.worker.finish(20) and len(seen) == 1
        for frame in ("moving", "fixed"):
            np.testing.assert_array_equal(transforms.look_up("map", frame, early), matrix(ros_transform()))
        with pytest.raises(InputError, match="no transform"):
            transforms.look_up("map", "moving", late)
        node.trigger_deactivate()
        node._on_clock_jump(back)  # with nothing under way
        with pytest.raises(InputError, match="no transform"):
            transforms.look_up("map", "moving", early)
    finally:
        camera.node.close()


@pytest.mark.parametrize(("policy", "kept_s"), [("latest", 10), ("all", 120)])
def test_transforms_are_kept_for_as_long_as_frames_may_wait(ros_context, tf2, policy, kept_s):
    camera = Camera(ros_context, ros__queue_policy=policy, ros__fixed_frame="map")
    try:
        heard(tf2, 200 * 10**9)
        heard(tf2, (200 - kept_s) * 10**9)
        heard(tf2, (199 - kept_s) * 10**9)
        camera.node._transforms.look_up("map", "moving", (200 - kept_s) * 10**9)
        with pytest.raises(InputError, match="no transform"):
            camera.node._transforms.look_up("map", "moving", (199 - kept_s) * 10**9)
    finally:
        camera.node.close()


def test_nobody_listens_to_tf_who_needs_no_frame_until_somebody_may_click(ros_context, tf2):
    camera = Camera(ros_context)
    try:
        camera.send(0)
        assert camera.figures().tracked == 1 and not tf2.listeners
        camera.node._inputs._on_click_matched(SimpleNamespace(current_count_change=-1))
        assert not tf2.listeners
        for _ in range(2):
            camera.node._inputs._on_click_matched(SimpleNamespace(current_count_change=1))
            assert len(tf2.listeners) == 1
        camera.node._on_click(clicked("map"))
        assert tf2.asked == [("camera", "map", 0)] and len(tf2.listeners) == 1
        transforms = camera.node._transforms
        camera.node.trigger_deactivate(), camera.node.trigger_cleanup()
        transforms.listen()
        assert not tf2.listeners
        camera.node.start()
        camera.send(1)
        camera.node._on_click(clicked("map"))
        assert len(tf2.listeners) == 1, "a click by whomever is looked up"
    finally:
        camera.node.close()
    assert not tf2.listeners


def test_without_tf2_ros_a_camera_at_rest_works_and_frames_are_refused_by_name(ros_context, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    camera = Camera(ros_context)
    try:
        camera.send(0)
        assert camera.figures().tracked == 1
        failures = []
        transforms = Transforms(camera.node, 0.0)
        located = Located(transforms, "map", failures.append)
        assert located(tracked(0), "camera") is None and located(tracked(1), "camera") is None
        assert len(failures) == 1 and "tf2_ros is not installed" in failures[0]
        np.testing.assert_array_equal(transforms.look_up("a", "a", 0), np.eye(4))
        with pytest.raises(InputError, match="tf2_ros"):
            transforms.look_up("a", "b", 0)
    finally:
        camera.node.close()


def clicked(frame_id, x=0.1, y=0.2, z=1.5):
    message = PointStamped()
    message.header.frame_id = frame_id
    message.point.x, message.point.y, message.point.z = x, y, z
    return message


def test_a_click_before_the_first_image_waits_for_the_frame_of_the_camera(ros_context, tf2):
    camera = Camera(ros_context)
    try:
        camera.node._inputs.on_click(clicked("map"))
        assert camera.node.get_parameter("subject.choice").value == "largest"
        camera.send(0)
        expected = TURN.apply([0.1, 0.2, 1.5]) + SHIFT
        np.testing.assert_allclose(camera.node.get_parameter("subject.point_m").value, expected, atol=1e-9)
        assert tf2.asked == [("camera", "map", 0)]
        camera.send(1)
        assert len(tf2.asked) == 1, "a click is taken once"
    finally:
        camera.node.close()


def test_a_click_chooses_the_subject_and_shows_in_the_parameters(ros_context, tf2):
    camera = Camera(ros_context)
    try:
        camera.send(0)
        camera.figures()
        camera.node._on_click(clicked("camera"))
        assert camera.node.get_parameter("subject.choice").value == "clicked"
        assert list(camera.node.get_parameter("subject.point_m").value) == [0.1, 0.2, 1.5]
        assert camera.node._tracker.config.subject.choice == "clicked"
        assert "was chosen" in camera.node._diagnostics.subject
        camera.node._on_click(clicked("map"))
        expected = TURN.apply([0.1, 0.2, 1.5]) + SHIFT
        np.testing.assert_allclose(camera.node._tracker.config.subject.point_m, expected, atol=1e-9)
        tf2.known = False
        camera.node._on_click(clicked("map"))
        error = camera.node.statistics.summary(time.monotonic()).last_error
        assert "click in the frame 'camera'" in error
    finally:
        camera.node.close()


def test_a_click_is_refused_where_nobody_knows_the_frame_of_the_images(ros_context, tf2):
    camera = Camera(ros_context)
    try:
        messages = frame_messages(flat_frame(1), "")
        camera.node._inputs.on_info(messages["camera_info"])
        camera.node._inputs.on_click(clicked("map"))
        camera.node._inputs.on_image(messages["depth"])
        assert camera.node.get_parameter("subject.choice").value == "largest"
        assert "'map', and the depth images name none in header.frame_id" in camera.figures().last_error
        camera.node._inputs.on_click(clicked(""))
        assert list(camera.node.get_parameter("subject.point_m").value) == [0.1, 0.2, 1.5]
    finally:
        camera.node.close()


def test_a_click_of_before_all_time_is_looked_up_like_any_other(ros_context, tf2):
    camera = Camera(ros_context)
    try:
        camera.send(0)
        early = clicked("map")
        early.header.stamp.sec = -1
        camera.node._on_click(early)
        assert camera.node.get_parameter("subject.choice").value == "largest"
        assert "the clicked point cannot be used: no transform from 'map'" in camera.figures().last_error
    finally:
        camera.node.close()
