"""Messages to frames and back.

The functions here read fields by name and never import a message package: they take the messages of ``rclpy`` and of
``rosbags`` alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, cast

import numpy as np

from nr_tracking.ros.compressed import TRANSPORT, CompressedImage, claimed_size, raw_image
from nr_tracking.sensing.camera import decode_depth, intrinsics_from_info
from nr_tracking.types import Bool, DepthFrame, InputError, Intrinsics

NANOSECONDS = 1_000_000_000
MASK_ENCODINGS = ("mono8", "8UC1")


class Time(Protocol):
    """builtin_interfaces/Time."""

    sec: int
    nanosec: int


class Header(Protocol):
    """std_msgs/Header."""

    stamp: Time
    frame_id: str


class Image(Protocol):
    """sensor_msgs/Image."""

    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: Any


class Region(Protocol):
    """sensor_msgs/RegionOfInterest."""

    x_offset: int
    y_offset: int
    width: int
    height: int


class CameraInfo(Protocol):
    """sensor_msgs/CameraInfo."""

    header: Header
    height: int
    width: int
    distortion_model: str
    d: Sequence[float]
    k: Sequence[float]
    p: Sequence[float]
    binning_x: int
    binning_y: int
    roi: Region


def stamp_ns(message: Image | CompressedImage | CameraInfo) -> int:
    """The stamp of a message's header in nanoseconds."""
    stamp = message.header.stamp
    return int(stamp.sec) * NANOSECONDS + int(stamp.nanosec)


def intrinsics(info: CameraInfo, rectified: bool = False) -> Intrinsics:
    """The camera of a CameraInfo, for the image as it is published: after its region of interest and binning.

    A ``rectified`` image is that of the camera P, without a lens; a driver that leaves P empty means K.
    """
    roi, k, lens = info.roi, [float(value) for value in info.k], (str(info.distortion_model), list(map(float, info.d)))
    if rectified:
        p, lens = [float(value) for value in info.p], ("", [])
        k = [*p[0:3], *p[4:7], *p[8:11]] if p[0] and p[5] else k
    return intrinsics_from_info(
        int(info.width),
        int(info.height),
        k,
        *lens,
        (int(roi.x_offset), int(roi.y_offset), int(roi.width), int(roi.height)) if roi.width and roi.height else None,
        (max(int(info.binning_x), 1), max(int(info.binning_y), 1)),
    )


Rectified = Literal["auto", "always", "never"]
"""Whether images are free of the lens, as ``ros.image_rectified`` says it; auto goes by the name of their topic."""


def is_rectified(topic: str, said: Rectified = "auto") -> bool:
    """Whether images of a topic are free of the lens: as ``said``, or by names of image_proc such as image_rect_raw."""
    if said != "auto":
        return said == "always"
    return topic.removesuffix(f"/{TRANSPORT}").rsplit("/", 1)[-1].startswith("image_rect")


def depth_frame(
    image: Image | CompressedImage,
    info: CameraInfo,
    mask: Image | None = None,
    unit_m: float = 0.001,
    rectified: bool = False,
) -> DepthFrame:
    """Decode a depth image, raw or compressed, its camera and, where there is one, its mask.

    ``rectified`` as in :func:`intrinsics`; ``unit_m`` is the unit of integer depth in metres, while 32FC1 is in metres
    already. Raises :class:`InputError` for whatever cannot be a depth image.
    """
    camera = intrinsics(info, rectified)
    compressed = cast(CompressedImage, image) if hasattr(image, "format") else None
    raw = cast(Image, image)
    width, height = claimed_size(compressed) if compressed else (int(raw.width), int(raw.height))
    if (width, height) != (camera.width, camera.height):  # before anything is unpacked
        raise InputError(
            "size_mismatch",
            f"the depth image has {width} x {height} pixels but its camera info describes "
            f"{camera.width} x {camera.height}: check that both come from the same camera and stream",
        )
    pixels = raw_image(compressed) if compressed else raw
    depth = decode_depth(
        pixels.data,
        width=int(pixels.width),
        height=int(pixels.height),
        step=int(pixels.step),
        encoding=str(pixels.encoding),
        big_endian=bool(pixels.is_bigendian),
        unit_m=unit_m,
    )
    return DepthFrame(stamp_ns(image), depth, camera, None if mask is None else mask_pixels(mask, camera))


def mask_pixels(image: Image, camera: Intrinsics) -> Bool:
    """The subject's pixels, (H, W) bool, of a mono8 image: everything that is not 0."""
    height, width, step = int(image.height), int(image.width), int(image.step)
    if image.encoding not in MASK_ENCODINGS:
        raise InputError(
            "mask_encoding", f"the mask's encoding is {image.encoding!r}; expected {' or '.join(MASK_ENCODINGS)}"
        )
    if (width, height) != (camera.width, camera.height):
        raise InputError(
            "mask_size", f"the mask has {width} x {height} pixels, the depth image {camera.width} x {camera.height}"
        )
    data = np.frombuffer(image.data, np.uint8)
    if step < width or len(data) < height * step:
        raise InputError(
            "mask_size", f"the mask's {len(data)} bytes do not hold {height} rows of {step} bytes for {width} pixels"
        )
    return data[: height * step].reshape(height, step)[:, :width] != 0
