"""What launch files need besides ``launch_ros``: nothing here imports it, since pip does not bring it."""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import Mapping
from typing import Any

import yaml

from nr_tracking.config import PRESETS
from nr_tracking.presets import PRESET_MEANING
from nr_tracking.ros.share import share_folder

_WHICH = "/**/nr_tracking"  # tracking nodes in every namespace
_SHOWN = ("mesh", "tracks", "patches", "correspondences")  # outputs of the node in config/tracking.rviz
_RESPAWN_DELAY_S = 2.0
_TOPICS = {  # arguments, and what they remap
    "depth_topic": "depth/image_raw",
    "camera_info_topic": "depth/camera_info",
    "mask_topic": "mask",
    "clicked_point_topic": "clicked_point",
}
_SETTINGS = {  # arguments, and the parameters that they set unless they are empty
    "preset": "preset",
    "device": "device",
    "target_frame": "ros.target_frame",
    "fixed_frame": "ros.fixed_frame",
}


def shared_arguments() -> list[dict[str, Any]]:
    """The arguments that every launch file has, as keywords of ``DeclareLaunchArgument``."""
    truths, topic = ["true", "false"], _TOPICS
    own = "empty: as params_file says"
    return [
        _argument("preset", "", PRESET_MEANING, ["", *PRESETS]),
        _argument("device", "", "where it runs", ["", "cpu", "cuda"]),
        _argument("depth_topic", topic["depth_topic"], "sensor_msgs/Image with depth"),
        _argument("camera_info_topic", topic["camera_info_topic"], "its CameraInfo"),
        _argument("mask_topic", topic["mask_topic"], "sensor_msgs/Image mono8, non-zero on the subject; optional"),
        _argument(
            "clicked_point_topic",
            topic["clicked_point_topic"],
            "geometry_msgs/PointStamped that chooses the subject, as RViz's Publish Point sends it",
        ),
        _argument("namespace", "", "namespace of the nodes, and of topics without a leading slash"),
        _argument("target_frame", "", f"TF frame of the outputs; {own}"),
        _argument("fixed_frame", "", f"TF frame that does not move, for a camera that does; {own}"),
        _argument("rviz", "false", "an RViz for each tracking node", truths),
        _argument("rviz_fixed_frame", "camera_depth_optical_frame", "TF frame in which RViz shows it"),
        _argument(
            "params_file",
            str(share_folder() / "config" / "tracking.yaml"),
            "YAML with parameters, for all nodes or below a namespace; preset, device, target_frame, fixed_frame and "
            "use_sim_time win where they are given",
        ),
        _argument("use_sim_time", "", f"time of /clock; {own}", ["", *truths]),
        _argument("respawn", "false", "start a tracking node anew when it ends", truths),
        _argument(
            "log_level",
            "info",
            "least severity that tracking nodes log",
            ["debug", "info", "warn", "error", "fatal"],
        ),
    ]


def _argument(name: str, default: str, description: str, choices: list[str] | None = None) -> dict[str, Any]:
    return {"name": name, "default_value": default, "description": description, "choices": choices}


def remappings(given: Mapping[str, str]) -> dict[str, str]:
    """From a tracking node's names of its inputs to those that launch arguments give them."""
    return {name: given[argument] for argument, name in _TOPICS.items()}


def tracking_options(given: Mapping[str, str], values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What launch arguments ask of a process with tracking nodes, as keywords of ``launch_ros``'s ``Node``.

    ``values`` are parameters besides, which win over the params file, but not over arguments. The last of the
    ``parameters`` is the path of an :func:`overriding_file`, for the caller to remove.
    """
    chosen: dict[str, Any] = {name: given[argument] for argument, name in _SETTINGS.items() if given[argument]}
    if given["use_sim_time"]:
        chosen["use_sim_time"] = given["use_sim_time"] == "true"
    return {
        "package": "nr_tracking",
        "output": "screen",
        "parameters": [given["params_file"], overriding_file({**(values or {}), **chosen})],
        "remappings": list(remappings(given).items()),
        "ros_arguments": ["--log-level", given["log_level"]],
        "respawn": given["respawn"] == "true",
        "respawn_delay": _RESPAWN_DELAY_S,
    }


def overriding_file(values: Mapping[str, Any]) -> str:
    """A params file whose values hold for all tracking nodes, whatever files before it say.

    Sections are applied in the order in which their names first appear: values that come later, but under a name that
    an earlier file has as well, are overruled by what that file says in its other sections. Whoever launches the
    nodes removes the file when they have ended.
    """
    with tempfile.NamedTemporaryFile("w", prefix="nr_tracking_", suffix=".yaml", delete=False) as file:
        yaml.safe_dump({_WHICH: {"ros__parameters": dict(values)}}, file)
    return file.name


def viewer_options(given: Mapping[str, str], namespace: str) -> dict[str, Any]:
    """RViz beside the tracking node in ``namespace``, which may be empty, as keywords of ``launch_ros``'s ``Node``."""
    inputs = remappings(given)
    return {
        "package": "rviz2",
        "executable": "rviz2",
        "arguments": ["-d", str(share_folder() / "config" / "tracking.rviz"), "-f", given["rviz_fixed_frame"]],
        "parameters": [{"use_sim_time": given["use_sim_time"] == "true"}],
        "remappings": viewer_remappings(
            namespace.strip("/"), {name: inputs[name] for name in ("depth/image_raw", "clicked_point")}
        ),
    }


def viewer_remappings(namespace: str, topics: Mapping[str, str]) -> list[tuple[str, str]]:
    """From the names in ``config/tracking.rviz`` to those of a tracking node in ``namespace``, which may be empty.

    ``topics`` maps inputs of the node that RViz shows or publishes, such as ``clicked_point``, to what they are
    remapped to: names without a leading slash are in the namespace.
    """
    outputs = {f"/nr_tracking/{name}": f"nr_tracking/{name}" for name in _SHOWN}
    inputs = {f"/{name}": given for name, given in topics.items()}
    return [(name, posixpath.join("/", namespace, given)) for name, given in (outputs | inputs).items()]
