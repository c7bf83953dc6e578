"""A ROS 2 node that follows a point of a moving body: click on it in RViz, and its pose is published from then on.

python3 examples/follow_point.py, beside a running tracking node. It takes the track that is nearest to a
PointStamped on ``/clicked_point``, in the frame of the tracks, and publishes a PoseStamped on ``~/pose``. A track is a
point: the orientation is that of its frame. After a cloud without tracks all ids are new: click again then.

The tracking node hears the same click, and from then on follows the body that was clicked. To go back to the largest:
``ros2 param set /nr_tracking subject.choice largest``; ``~/reset`` does not.
"""

import numpy as np
import rclpy
from geometry_msgs.msg import PointStamped, PoseStamped
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2

from nr_tracking.ros.outputs import TRACK_FIELDS

FARTHEST_M = 0.1  # a click farther from all tracks than this is not on the body


def nearest_track(tracks: np.ndarray, point: tuple[float, float, float]) -> int | None:
    """The id of the track that is nearest to ``point``, metres; None where the body is somewhere else."""
    if not len(tracks):
        return None
    distance = np.linalg.norm(np.stack([tracks[axis] for axis in "xyz"], axis=1) - np.array(point), axis=1)
    return int(tracks["id"][distance.argmin()]) if distance.min() <= FARTHEST_M else None


def track_position(tracks: np.ndarray, track_id: int) -> tuple[float, float, float] | None:
    """Where the track of that id is, metres; None where it is not tracked."""
    found = tracks[tracks["id"] == track_id]
    return tuple(float(found[axis][0]) for axis in "xyz") if len(found) else None


class FollowPoint(Node):
    """Publishes where the clicked point is with every cloud of tracks, and logs when it is lost and found."""

    def __init__(self, **options: object) -> None:
        super().__init__("follow_point", **options)
        self.tracks, self.frame = np.empty(0, TRACK_FIELDS), ""
        self.followed: int | None = None
        self.lost = False
        self.poses = self.create_publisher(PoseStamped, "~/pose", 10)
        self.create_subscription(PointCloud2, "/nr_tracking/tracks", self.on_tracks, 10)
        self.create_subscription(PointStamped, "/clicked_point", self.on_click, 10)

    def on_click(self, click: PointStamped) -> None:
        """Choose the track at the click."""
        if click.header.frame_id != self.frame:
            self.get_logger().error(f"the click is in {click.header.frame_id!r}, the tracks are in {self.frame!r}")
            return
        chosen = nearest_track(self.tracks, (click.point.x, click.point.y, click.point.z))
        if chosen is None:
            self.get_logger().warning(f"no track within {FARTHEST_M} m of the click")
            return
        self.followed, self.lost = chosen, False
        self.get_logger().info(f"following track {self.followed}")

    def on_tracks(self, cloud: PointCloud2) -> None:
        """Publish where the chosen track is now."""
        self.tracks, self.frame = np.frombuffer(bytes(cloud.data), TRACK_FIELDS), cloud.header.frame_id
        if self.followed is None:
            return
        if not len(self.tracks):  # nobody is there any more, and whoever comes next has new ids
            self.get_logger().warning(f"track {self.followed} is gone for good; click again")
            self.followed, self.lost = None, False
            return
        position = track_position(self.tracks, self.followed)
        if self.lost != (position is None):
            self.lost = position is None
            self.get_logger().warning(f"track {self.followed} is {'lost' if self.lost else 'found again'}")
        if position is not None:
            pose = PoseStamped(header=cloud.header)
            pose.pose.position.x, pose.pose.position.y, pose.pose.position.z = position
            self.poses.publish(pose)


def main() -> None:
    """Run until Ctrl-C."""
    rclpy.init()
    try:
        rclpy.spin(FollowPoint())
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
