"""Several cameras in one process: a tracking node for each, in a namespace of its own, and one set of weights.

    ros2 run nr_tracking cameras_node front rear --ros-args -p preset:=lite

listens to ``/front/depth/image_raw`` and ``/rear/depth/image_raw`` and publishes ``/front/nr_tracking/mesh`` and so on.
Parameters given with ``-p`` hold for all; a file can give each its own below ``/front/nr_tracking``.
"""

from __future__ import annotations

import sys

import rclpy

from nr_tracking.config import ConfigError
from nr_tracking.ros.arguments import answered, camera_namespaces
from nr_tracking.ros.running import run
from nr_tracking.ros.tracking_node import TrackingNode


def main(args: list[str] | None = None) -> int:
    """Run a tracking node for each namespace named until SIGINT or SIGTERM."""
    args = sys.argv if args is None else args
    code = answered("cameras_node", args, names="NAMESPACE...")
    if code is not None:
        return code
    try:
        names = camera_namespaces(rclpy.utilities.remove_ros_args(args)[1:])
    except ConfigError as error:
        print(f"cameras_node: {error}: cameras_node NAMESPACE... [--ros-args ...]", file=sys.stderr)
        return 2
    return run(lambda: [TrackingNode(namespace=name) for name in names], args)


if __name__ == "__main__":
    sys.exit(main())
