"""Topics and services of a tracking node as data: the reference in the docs is made from it.

A test holds a running node against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Endpoint:
    """A topic or service of a node; names are relative to it, as in its code."""

    kind: Literal["subscription", "publisher", "service"]
    name: str
    type: str
    qos: str
    meaning: str


_IMAGES = "`ros.image_reliability`, history `ros.image_history`"

ENDPOINTS = (
    Endpoint(
        "subscription",
        "depth/image_raw",
        "sensor_msgs/msg/Image",
        _IMAGES,
        "depth: 16UC1 or mono16 in units of `ros.depth_unit_m`, 32FC1 in metres",
    ),
    Endpoint(
        "subscription",
        "depth/camera_info",
        "sensor_msgs/msg/CameraInfo",
        "best effort, history `ros.image_history`",
        "paired by stamp; the last one serves where a driver latches it",
    ),
    Endpoint("subscription", "mask", "sensor_msgs/msg/Image", _IMAGES, "optional, mono8: non-zero is the subject"),
    Endpoint(
        "subscription",
        "clicked_point",
        "geometry_msgs/msg/PointStamped",
        "reliable, depth 1",
        "choose the subject at this point, as RViz's *Publish Point* sends it",
    ),
    Endpoint(
        "publisher",
        "~/mesh",
        "visualization_msgs/msg/Marker",
        "reliable, transient local, depth 1",
        "the completed surface as TRIANGLE_LIST under one stable id; colour is correspondence; deleted once nobody is "
        "there",
    ),
    Endpoint(
        "publisher",
        "~/tracks",
        "sensor_msgs/msg/PointCloud2",
        "reliable, depth 10",
        "x y z (m) vx vy vz (m/s) confidence FLOAT32, id UINT32, observed UINT8; empty once nobody is there",
    ),
    Endpoint(
        "publisher",
        "~/patches",
        "geometry_msgs/msg/PoseArray",
        "reliable, depth 10",
        "near-rigid patches, cut anew from each surface: where they are, and how they turned since the frame before",
    ),
    Endpoint(
        "publisher",
        "~/correspondences",
        "visualization_msgs/msg/Marker",
        "reliable, depth 10",
        "LINE_LIST from where each vertex was one frame ago",
    ),
    Endpoint(
        "publisher",
        "/diagnostics",
        "diagnostic_msgs/msg/DiagnosticArray",
        "reliable, depth 10",
        "once a second, in every state: rates, jitter, latency, drops by reason, last error and its mend",
    ),
    Endpoint("service", "~/reset", "std_srvs/srv/Trigger", "", "forget the subject and begin anew"),
    Endpoint(
        "service",
        "~/save",
        "std_srvs/srv/Trigger",
        "",
        "finish what was received and write the latest `ros.kept_frames` frames as [OUTPUT](formats.md) below "
        "`ros.output_folder`; the answer names the folder",
    ),
)
