"""Publishes tracked frames. A message that nobody listens to is not built."""

from __future__ import annotations

import threading
from collections.abc import Callable
from copy import copy
from typing import Any

from geometry_msgs.msg import PoseArray
from rclpy.event_handler import PublisherEventCallbacks, QoSPublisherMatchedInfo
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import PointCloud2
from visualization_msgs.msg import Marker

from nr_tracking.config import RosConfig
from nr_tracking.ros.outputs import (
    mesh_marker,
    motion_marker,
    no_mesh,
    no_motion,
    no_patches,
    no_tracks,
    patches_message,
    tracks_cloud,
)
from nr_tracking.ros.patch_frames import PatchFrames
from nr_tracking.tracking.colours import canonical_box, correspondence_colours
from nr_tracking.types import Float64, TrackedFrame

# A late joiner gets the last mesh; robots that follow tracks want all of them.
_LAST = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_ALL = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
_ON_TIME = 0.9  # a mesh that comes this share of its period after the last one is not too early: cameras jitter


class Publishers:
    """The outputs of a node while it is configured. ``on_failure`` hears of messages that could not be sent."""

    def __init__(self, node: LifecycleNode, config: RosConfig, on_failure: Callable[[str], None]) -> None:
        self.config = config
        self._node = node
        self._on_failure = on_failure
        self._lock = threading.Lock()
        self._latest: tuple[TrackedFrame, str] | None = None
        self._mesh_stamp: int | None = None  # of the last mesh that was sent
        self._colour_box: tuple[Float64, Float64] | None = None
        self._shown: dict[Any, str] = {}  # publishers whose last message shows somebody, and the frame that it is in
        self._frames = PatchFrames(node)
        self._publishers: list[Any] = []
        try:
            self._mesh = self._create(Marker, "~/mesh", _LAST, self._on_mesh_subscriber)
            self._motion = self._create(Marker, "~/correspondences", _ALL)
            self._patches = self._create(PoseArray, "~/patches", _ALL)
            self._tracks = self._create(PointCloud2, "~/tracks", _ALL)
        except BaseException:
            self.destroy()
            raise

    def publish(self, frame: TrackedFrame, frame_id: str) -> None:
        """Send a frame to whoever listens."""
        try:
            self._publish_mesh(frame, frame_id)
            self._publish_rest(frame, frame_id)
        except rclpy_implementation.RCLError as error:
            if self._node.context.ok():  # otherwise a signal has ended it all in the meantime
                self._on_failure(f"results could not be published: {error}")

    def _publish_mesh(self, frame: TrackedFrame, frame_id: str) -> None:
        with self._lock:
            if self._colour_box is None:
                self._colour_box = canonical_box(frame.canonical)
            self._latest = (frame, frame_id)
            if self._mesh.get_subscription_count() and self._mesh_due(frame.stamp_ns):
                self._send_mesh(frame, frame_id)

    def _publish_rest(self, frame: TrackedFrame, frame_id: str) -> None:
        if self._motion.get_subscription_count():
            motion = motion_marker(frame, frame_id, self.config.mesh_max_triangles)
            if motion is not None:
                self._send(self._motion, motion, frame_id)
        if self._patches.get_subscription_count():
            self._send(self._patches, patches_message(frame, frame_id), frame_id)
        if self._tracks.get_subscription_count():
            self._send(self._tracks, tracks_cloud(frame.stamp_ns, frame_id, frame.tracks), frame_id)
        if self.config.publish_tf:
            self._frames.publish(frame, frame_id)

    def reset(self) -> None:
        """The next frame begins a new subject, with colours of its own."""
        with self._lock:
            self._latest = self._mesh_stamp = self._colour_box = None

    def clear(self, stamp_ns: int) -> None:
        """Take back what is shown, for nobody is there any more in the image of that stamp.

        Once, and only on topics on which somebody was shown: markers are deleted, tracks and patches are empty.
        """
        if not self._node.context.ok():  # a signal has ended it all
            return
        empty = {self._mesh: no_mesh, self._motion: no_motion, self._patches: no_patches, self._tracks: no_tracks}
        with self._lock:
            self._latest = self._mesh_stamp = None  # whoever joins late is shown nobody either
            shown, self._shown = self._shown, {}
            for publisher, frame_id in shown.items():
                self._publish(publisher, empty[publisher](stamp_ns, frame_id))

    def destroy(self) -> None:
        """Take the topics away."""
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers = []
        self._frames.destroy()

    def _create(
        self,
        kind: type[Any],
        topic: str,
        qos: QoSProfile,
        matched: Callable[[QoSPublisherMatchedInfo], None] | None = None,
    ) -> Any:
        overriding = QoSOverridingOptions.with_default_policies()
        # No callbacks that only log a subscriber of another quality: the executor would wait for each of them anew with
        # every image, which takes it longer than anything else.
        publisher = self._node.create_lifecycle_publisher(
            kind,
            topic,
            copy(qos),  # what a parameter overrides is written into it, and other nodes of the process have their own
            event_callbacks=PublisherEventCallbacks(matched=matched, use_default_callbacks=False),
            qos_overriding_options=overriding,
        )
        self._publishers.append(publisher)
        return publisher

    def _mesh_due(self, stamp_ns: int) -> bool:
        period = 1e9 / self.config.mesh_rate_hz
        return self._mesh_stamp is None or not 0 <= stamp_ns - self._mesh_stamp < _ON_TIME * period

    def _send_mesh(self, frame: TrackedFrame, frame_id: str) -> None:
        assert self._colour_box is not None
        colours = correspondence_colours(frame.canonical, *self._colour_box)
        self._send(self._mesh, mesh_marker(frame, frame_id, colours, self.config.mesh_max_triangles), frame_id)
        self._mesh_stamp = frame.stamp_ns

    def _on_mesh_subscriber(self, event: QoSPublisherMatchedInfo) -> None:
        """Build the last mesh for whoever joins when nobody listened as it came."""
        with self._lock:
            if event.current_count_change > 0 and self._latest and self._latest[0].stamp_ns != self._mesh_stamp:
                self._send_mesh(*self._latest)

    def _send(self, publisher: Any, message: bytes, frame_id: str) -> None:
        """Send what shows somebody in a frame."""
        if publisher.is_activated:
            self._shown[publisher] = frame_id
            self._publish(publisher, message)

    def _publish(self, publisher: Any, message: bytes) -> None:
        try:
            publisher.publish(message)
        except rclpy_implementation.RCLError as error:  # a reliable flood that a subscriber cannot take
            self._on_failure(f"a message on {publisher.topic_name} could not be sent: {error}")
