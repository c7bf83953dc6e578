"""TF itself, where ROS 2 is installed: a moving tree over DDS, with the node among those who listen and who tell."""

import time

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("tf2_ros")

import tf2_ros
from geometry_msgs.msg import PointStamped, PoseArray, TransformStamped
from rclpy.duration import Duration
from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.time import Time
from ros_peer import RELIABLE, Inbox, Spinner
from sensor_msgs.msg import PointCloud2
from test_faults import PERIOD_NS, Camera

from nr_tracking.ros.outputs import TRACK_FIELDS

FRAME = "camera"
SPEED = 0.5
"""m/s at which the camera moves along the x axis of the map, turned about z by a quarter."""


def stamp_ns(index):
    return 10**9 + index * PERIOD_NS


def camera_in_map(at_ns):
    message = TransformStamped(child_frame_id=FRAME)
    message.header.frame_id = "map"
    message.header.stamp = Time(nanoseconds=at_ns).to_msg()
    message.transform.translation.x = SPEED * (at_ns - stamp_ns(0)) / 1e9
    message.transform.rotation.z = message.transform.rotation.w = np.sqrt(0.5)
    return message


class World:
    """A node of its own that tells where the camera is and listens to TF and to what the tracking node says."""

    def __init__(self, context):
        self.node = Node("world", context=context)
        self.broadcaster = tf2_ros.TransformBroadcaster(self.node)
        self.buffer = tf2_ros.Buffer()
        self.listener = tf2_ros.TransformListener(self.buffer, self.node)
        self.tracks, self.patches = Inbox(), Inbox()
        self.node.create_subscription(PointCloud2, "/nr_tracking/tracks", self.tracks, RELIABLE)
        self.node.create_subscription(PoseArray, "/nr_tracking/patches", self.patches, RELIABLE)
        self.spinner = Spinner(self.node, SingleThreadedExecutor(context=context), context)

    def close(self):
        self.spinner.stop()
        self.listener.unregister()
        self.node.destroy_node()


@pytest.fixture
def world(ros_context):
    world = World(ros_context)
    yield world
    world.close()


@pytest.fixture
def start(ros_context):
    running = []

    def make(**given):
        camera = Camera(ros_context, ros__tf_timeout_s=5.0, **given)
        running.append((Spinner(camera.node, MultiThreadedExecutor(4, context=ros_context), ros_context), camera))
        return camera

    yield make
    for spinner, camera in running:
        spinner.stop()
        camera.node.close()


def until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def told(world, camera, *indices):
    """Tell where the camera was, and wait until the node's buffer has it."""
    until(lambda: world.node.count_subscribers("/tf") >= 2)
    for index in indices:
        world.broadcaster.sendTransform(camera_in_map(stamp_ns(index)))
    buffer, last = camera.node._transforms._buffer, Time(nanoseconds=stamp_ns(indices[-1]))
    until(lambda: buffer.can_transform("map", FRAME, last))


def test_results_are_in_the_target_frame_at_the_stamp_of_their_image(world, start):
    camera = start(ros__target_frame="map")
    until(lambda: camera.node._outputs._tracks.get_subscription_count())
    told(world, camera, 0, 10)
    camera.send(0, 4, 10)  # the one in the middle is interpolated
    clouds = world.tracks.wait(lambda got: len(got) == 3)
    for cloud, index in zip(clouds, (0, 4, 10), strict=True):
        first = np.frombuffer(bytes(cloud.data), TRACK_FIELDS)[1]  # at (1, 0, 1) in the camera's frame
        assert cloud.header.frame_id == "map"
        x = SPEED * index * PERIOD_NS / 1e9
        np.testing.assert_allclose([first["x"], first["y"], first["z"]], [x, 1.0, 1.0], atol=1e-5)


def test_without_a_transform_nothing_is_published_and_that_is_said(world, start):
    camera = start(ros__target_frame="map", ros__mesh_rate_hz=30.0)
    camera.node._transforms._timeout = Duration(seconds=0.05)
    until(lambda: camera.node._outputs._tracks.get_subscription_count())
    camera.send(0, 1)
    assert camera.figures().tracked == 2 and not world.tracks.messages
    assert "no transform from 'camera' to 'map'" in camera.figures().last_error
    told(world, camera, 0, 10)
    camera.send(5)
    assert len(world.tracks.wait(lambda got: got)) == 1
    camera.send(40)  # beyond what TF knows
    assert camera.figures().tracked == 4 and len(world.tracks.messages) == 1
    assert "no_transform" in camera.figures().last_error


def test_a_camera_that_moves_takes_its_pose_from_tf(world, start):
    camera = start(ros__fixed_frame="map")
    told(world, camera, 0, 10)
    camera.send(0, 10)
    camera.figures()
    poses = [frame.pose for frame in camera.node._tracker.pushed]
    np.testing.assert_allclose(poses[1][:3, 3] - poses[0][:3, 3], [SPEED * 10 * PERIOD_NS / 1e9, 0, 0], atol=1e-9)
    np.testing.assert_allclose(poses[0][:3, :3] @ [1, 0, 0], [0, 1, 0], atol=1e-9)


def test_a_click_in_the_map_chooses_what_is_there(world, start):
    camera = start()
    camera.send(0)
    clicks = world.node.create_publisher(PointStamped, "/clicked_point", RELIABLE)
    until(clicks.get_subscription_count)
    told(world, camera, 0)
    point = PointStamped()
    point.header.frame_id, point.header.stamp = "map", Time(nanoseconds=stamp_ns(0)).to_msg()
    point.point.x, point.point.y, point.point.z = 0.0, 1.0, 2.0
    clicks.publish(point)
    until(lambda: camera.node.config.subject.choice == "clicked")
    np.testing.assert_allclose(camera.node.config.subject.point_m, [1.0, 0.0, 2.0], atol=1e-9)


def test_nodes_are_frames_that_others_look_up(world, start):
    camera = start(ros__publish_tf=True)
    camera.send(0)
    camera.figures()
    until(lambda: world.buffer.can_transform(FRAME, "nr_tracking/patch_7", Time(nanoseconds=stamp_ns(0))))
    found = world.buffer.lookup_transform(FRAME, "nr_tracking/patch_7", Time(nanoseconds=stamp_ns(0)))
    place = found.transform.translation
    np.testing.assert_allclose([place.x, place.y, place.z], [1.0, 0.0, 1.0], atol=1e-6)


def test_lifecycles_leave_no_listener_behind(world, start):
    camera = start(ros__target_frame="map")
    before = len(list(camera.node.subscriptions))
    for _ in range(10):
        camera.node.trigger_deactivate(), camera.node.trigger_cleanup()
        camera.node.start()
    assert len(list(camera.node.subscriptions)) == before
