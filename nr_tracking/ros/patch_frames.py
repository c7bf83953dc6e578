"""Nodes of the deformation graph as TF frames that stay on the subject, where tf2_msgs is installed."""

from __future__ import annotations

import importlib
from typing import Any

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Quaternion, Transform, TransformStamped, Vector3
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from scipy.spatial.transform import Rotation

from nr_tracking.types import TrackedFrame


class PatchFrames:
    """Sends ``nr_tracking/patch_0``, ... as children of the camera frame; without tf2_msgs it says so once.

    A number always is the same place of the same subject: patches are cut anew from each surface, and these frames are
    not theirs but those of the graph that carries the tracks. Names begin with the node's namespace, as frames of
    several cameras share one tree.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._publisher: Any = None
        try:
            self._message: Any = importlib.import_module("tf2_msgs.msg").TFMessage
        except ImportError:  # the wheels of ROS from pip do not include it
            self._message = None

    def publish(self, frame: TrackedFrame, frame_id: str) -> None:
        """Send the pose of every node: where it is, turned as it turned since the first surface of its subject."""
        if self._message is None:
            self._node.get_logger().warning("ros.publish_tf needs the package tf2_msgs", once=True)
            return
        nodes = frame.nodes
        if nodes is None:
            return
        turns = Rotation.from_matrix(nodes.rotations).as_quat()
        if self._publisher is None:
            self._publisher = self._node.create_publisher(
                self._message,
                "/tf",
                QoSProfile(depth=100),
                qos_overriding_options=QoSOverridingOptions.with_default_policies(),
            )
        seconds, nanoseconds = divmod(frame.stamp_ns, 1_000_000_000)
        name = self._node.get_fully_qualified_name().lstrip("/")
        transforms = []
        for number, place, rotation in zip(nodes.ids, nodes.positions, turns, strict=True):
            transform = TransformStamped(child_frame_id=f"{name}/patch_{number}")
            transform.header.stamp = Time(sec=seconds, nanosec=nanoseconds)
            transform.header.frame_id = frame_id
            x, y, z, w = map(float, rotation)
            transform.transform = Transform(
                translation=Vector3(**dict(zip("xyz", map(float, place), strict=True))),
                rotation=Quaternion(x=x, y=y, z=z, w=w),
            )
            transforms.append(transform)
        self._publisher.publish(self._message(transforms=transforms))

    def destroy(self) -> None:
        """Take the topic away."""
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)
            self._publisher = None
