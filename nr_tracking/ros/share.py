"""Where launch files, settings and profiles lie: in a source tree, or below share/ of an installation."""

from __future__ import annotations

import os
import sys
from pathlib import Path


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


def use_fastdds_profile() -> None:
    """Have Fast DDS load the profile in this process, before ``rclpy.init``; somebody's own profile stays."""
    os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(fastdds_profile()))
