"""What a running node publishes, in the rerun viewer."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2
from visualization_msgs.msg import Marker

from nr_tracking.ros.cdr import read_marker
from nr_tracking.ros.outputs import TRACK_FIELDS
from nr_tracking.ros.share import use_fastdds_profile

_LAST = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_ALL = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE)
_SEEN, _COMPLETED = np.array([(80, 200, 120), (230, 150, 60)], np.uint8)


class LiveView(Node):
    """Hands meshes, tracks and motion of the node ``source`` on to ``rerun``, each at its stamp."""

    def __init__(self, source: str, rerun: Any, **node_options: Any) -> None:
        super().__init__("nr_tracking_view", **node_options)
        self._rerun = rerun
        self._frames: set[str] = set()
        # Serialised: meshes of many triangles are read by numpy and never become Python objects.
        self.create_subscription(Marker, f"{source}/mesh", self.on_mesh, _LAST, raw=True)
        self.create_subscription(Marker, f"{source}/correspondences", self.on_motion, _ALL, raw=True)
        self.create_subscription(PointCloud2, f"{source}/tracks", self.on_tracks, _ALL)

    def on_mesh(self, message: bytes) -> None:
        """Show a surface."""
        stamp_ns, frame_id, points, colours = read_marker(message)
        faces = np.arange(len(points), dtype=np.uint32).reshape(-1, 3)
        self._log(
            stamp_ns,
            f"{frame_id}/surface",
            self._rerun.Mesh3D(vertex_positions=points, triangle_indices=faces, vertex_colors=_bytes(colours)),
        )

    def on_motion(self, message: bytes) -> None:
        """Show where vertices came from."""
        stamp_ns, frame_id, points, colours = read_marker(message)
        lines = self._rerun.LineStrips3D(points.reshape(-1, 2, 3), colors=_bytes(colours)[::2])
        self._log(stamp_ns, f"{frame_id}/motion", lines)

    def on_tracks(self, message: PointCloud2) -> None:
        """Show tracks: green where the camera sees them, orange where they are completed."""
        tracks = np.frombuffer(bytes(message.data), TRACK_FIELDS)
        points = np.stack([tracks[axis] for axis in "xyz"], axis=1)
        colours = np.where(tracks["observed"][:, None] != 0, _SEEN, _COMPLETED)
        stamp_ns = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        shown = self._rerun.Points3D(points, colors=colours, radii=0.002)
        self._log(stamp_ns, f"{message.header.frame_id}/tracks", shown)

    def _log(self, stamp_ns: int, path: str, shown: Any) -> None:
        frame_id = path.rpartition("/")[0]
        if frame_id not in self._frames and "optical" in frame_id:  # otherwise the viewer takes z for up
            self._rerun.log(frame_id, self._rerun.ViewCoordinates.RDF, static=True)
        self._frames.add(frame_id)
        self._rerun.set_time("stamp", timestamp=stamp_ns / 1e9)
        self._rerun.log(path, shown)


def show(source: str, rerun: Any) -> None:
    """Show a node until SIGINT or SIGTERM."""
    use_fastdds_profile()
    rclpy.init()
    view = LiveView(source, rerun)
    executor = SingleThreadedExecutor()
    executor.add_node(view)
    try:
        with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
            executor.spin()
    finally:
        executor.shutdown()
        view.destroy_node()
        rclpy.try_shutdown()


def _bytes(colours: Any) -> Any:
    """(N, 4) in [0, 1] as bytes."""
    return np.round(np.clip(colours, 0, 1) * 255).astype(np.uint8)
