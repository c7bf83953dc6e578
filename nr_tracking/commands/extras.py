"""Which packages are optional, and how each one is installed."""

from __future__ import annotations

_EXTRAS = {
    "igl": "data",
    "h5py": "data",
    "trimesh": "data",
    "embreex": "data",
    "rerun": "view",
    "rclpy": "ros",
    "rosbags": "ros",
    "ray": "cluster",
    "sensor_msgs": "ros",
}
"""Which extra of the package brings an import that is not there."""


def how_to_install(package: str) -> str:
    """The command that brings an import; ``nr_tracking`` is on no index, so its extras come from the checkout."""
    extra = _EXTRAS.get(package.split(".")[0])
    return f"pip install '.[{extra}]' in the checkout of nr_tracking" if extra else f"pip install {package}"
