"""Where launch files, settings and profiles lie: in a source tree, or below share/ of an installation."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_NAME = "FASTDDS_DEFAULT_PROFILES_FILE"
_OLD_NAME = "FASTRTPS_DEFAULT_PROFILES_FILE"  # the only one that Fast DDS 2 reads; Kilted's node layer still does
_FAST_DDS_2 = ("humble", "iron", "jazzy")  # values of ROS_DISTRO, which pip's wheels of Kilted leave unset


def share_folder() -> Path:
    """The folder that holds ``launch/``, ``config/`` and ``models/``."""
    package = Path(__file__).resolve().parents[1]
    if (package.parent / "package.xml").is_file():
        return package.parent
    # PREFIX/lib/python3.x/site-packages/nr_tracking, of a virtual environment and of a colcon workspace alike.
    prefixes = [str(package.parents[3]), *os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    for prefix in filter(None, prefixes):
        share = Path(prefix) / "share" / "nr_tracking"
        if share.is_dir():
            return share
    raise FileNotFoundError(f"no share/nr_tracking below any of {', '.join(filter(None, prefixes))}: install again")


def fastdds_profile() -> Path:
    """The Fast DDS profile with room for images in shared memory."""
    return share_folder() / "config" / "fastdds.xml"


def fastdds_environment() -> dict[str, str]:
    """The environment variable, if any is missing, with which the Fast DDS of this ROS distribution loads a profile.

    Kilted and later read ``FASTDDS_DEFAULT_PROFILES_FILE``, Jazzy and earlier ``FASTRTPS_DEFAULT_PROFILES_FILE``. A
    profile that the environment names already, under either name, stays the one that is loaded.
    """
    is_old = os.environ.get("ROS_DISTRO") in _FAST_DDS_2
    if _OLD_NAME in os.environ or (_NAME in os.environ and not is_old):
        return {}
    return {_OLD_NAME if is_old else _NAME: os.environ.get(_NAME, str(fastdds_profile()))}


def use_fastdds_profile() -> None:
    """Have Fast DDS load the profile in this process, before ``rclpy.init``; somebody's own profile stays."""
    os.environ.update(fastdds_environment())
