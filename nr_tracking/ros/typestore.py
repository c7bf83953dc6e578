"""Messages as CDR bytes and back without ROS, and what a replay makes of recorded ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_typestore

from nr_tracking.ros.compressed import raw_image
from nr_tracking.ros.messages import MESSAGE_TYPES, Kind, image_message
from nr_tracking.types import InputError

TYPES = get_typestore(Stores.ROS2_KILTED)
COMPRESSED = "sensor_msgs/msg/CompressedImage"


def encode(kind: Kind, message: Any) -> bytes:
    """A message as CDR bytes."""
    return bytes(TYPES.serialize_cdr(message, MESSAGE_TYPES[kind]))


def unpacked(data: bytes) -> bytes:
    """A CompressedImage of lossless depth as an Image, both as CDR bytes; faults are :class:`InputError`."""
    raw = raw_image(decode(Path("the recording"), data, COMPRESSED))
    return encode("depth", image_message(raw.header, raw.data.view("<u2").reshape(raw.height, raw.width), raw.encoding))


def without_lens(data: bytes) -> bytes:
    """The CameraInfo of rectified images as one of a camera that takes such images, both as CDR bytes."""
    info = decode(Path("the recording"), data, MESSAGE_TYPES["camera_info"])
    p = np.asarray(info.p, np.float64)
    k = p[[0, 1, 2, 4, 5, 6, 8, 9, 10]] if p[0] and p[5] else info.k
    return encode("camera_info", replace(info, k=k, d=np.zeros(0), distortion_model=""))


def decode(path: Path, data: bytes, message_type: str) -> Any:
    """A message of a recording at ``path`` from its CDR bytes; ``corrupt_bag`` where they are not of this type."""
    try:
        return TYPES.deserialize_cdr(data, message_type)
    except Exception as error:
        raise InputError("corrupt_bag", f"{path}: a {message_type} cannot be decoded ({error})") from error
