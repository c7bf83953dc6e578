"""Frames as messages, built without ROS: what recordings hold and what a replay of files publishes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rosbags.typesys.stores import ros2_kilted as ros

from nr_tracking.data.png import metres_to_units, units_to_metres
from nr_tracking.types import DepthFrame, InputError, Intrinsics

Kind = Literal["depth", "camera_info", "mask"]
DepthEncoding = Literal["16UC1", "32FC1"]
MESSAGE_TYPES: dict[Kind, str] = {
    "depth": "sensor_msgs/msg/Image",
    "camera_info": "sensor_msgs/msg/CameraInfo",
    "mask": "sensor_msgs/msg/Image",
}
_MILLIMETRE = 0.001


def frame_messages(frame: DepthFrame, frame_id: str, encoding: DepthEncoding | None = None) -> dict[Kind, Any]:
    """The messages of one frame: camera info, depth image and, where there is one, the mask.

    ``encoding`` None takes 16UC1 where the depth is in whole millimetres, exactly, and 32FC1 elsewhere.
    """
    header = ros.std_msgs__msg__Header(
        ros.builtin_interfaces__msg__Time(*divmod(frame.stamp_ns, 1_000_000_000)), frame_id
    )
    messages: dict[Kind, Any] = {
        "camera_info": _camera_info(header, frame.intrinsics),
        "depth": image_message(header, *_encoded(frame, encoding)),
    }
    if frame.mask is not None:
        messages["mask"] = image_message(header, np.where(frame.mask, np.uint8(255), np.uint8(0)), "mono8")
    return messages


def _encoded(frame: DepthFrame, encoding: DepthEncoding | None) -> tuple[NDArray[Any], DepthEncoding]:
    if encoding == "16UC1":
        return metres_to_units(frame.depth, _MILLIMETRE), encoding
    if encoding is None:
        try:
            units = metres_to_units(frame.depth, _MILLIMETRE)
        except InputError:  # beyond 65.5 m
            return frame.depth, "32FC1"
        if np.array_equal(units_to_metres(units, _MILLIMETRE), frame.depth):
            return units, "16UC1"
    return frame.depth, "32FC1"


def image_message(
    header: ros.std_msgs__msg__Header, pixels: NDArray[Any], encoding: str
) -> ros.sensor_msgs__msg__Image:
    """A sensor_msgs/Image of pixels (H, W) without padding."""
    height, width = pixels.shape
    data = np.ascontiguousarray(pixels).view(np.uint8).reshape(-1)
    return ros.sensor_msgs__msg__Image(header, height, width, encoding, 0, width * pixels.dtype.itemsize, data)


def _camera_info(header: ros.std_msgs__msg__Header, camera: Intrinsics) -> ros.sensor_msgs__msg__CameraInfo:
    k = np.array([camera.fx, 0, camera.cx, 0, camera.fy, camera.cy, 0, 0, 1], np.float64)
    projection = np.array([camera.fx, 0, camera.cx, 0, 0, camera.fy, camera.cy, 0, 0, 0, 1, 0], np.float64)
    undistorted = camera.distortion_model == "none"
    return ros.sensor_msgs__msg__CameraInfo(
        header=header,
        height=camera.height,
        width=camera.width,
        distortion_model="plumb_bob" if undistorted else camera.distortion_model,
        d=np.zeros(5) if undistorted else np.array(camera.distortion, np.float64),
        k=k,
        r=np.eye(3).reshape(-1),
        p=projection,
        binning_x=0,
        binning_y=0,
        roi=ros.sensor_msgs__msg__RegionOfInterest(0, 0, 0, 0, False),
    )
