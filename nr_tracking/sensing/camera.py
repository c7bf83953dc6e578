"""From the bytes of a depth image and a camera's calibration to metric points.

Depth is z, which no lens changes: removing its distortion (:mod:`~nr_tracking.sensing.distortion`) only moves pixels.
"""

from __future__ import annotations

import dataclasses
import math
from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray

from nr_tracking.loops import compiled_loops
from nr_tracking.sensing.distortion import checked_distortion, lens_of, reach, undistorted
from nr_tracking.types import Bool, DepthFrame, Float32, Float64, InputError, Int64, Intrinsics

Octets = Union[bytes, bytearray, memoryview, "array[int]", NDArray[np.uint8]]

_ENCODINGS: dict[str, np.dtype[Any]] = {
    "16UC1": np.dtype(np.uint16),
    "mono16": np.dtype(np.uint16),
    "32FC1": np.dtype(np.float32),
}
DEPTH_ENCODINGS = tuple(_ENCODINGS)
"""Encodings of images that are depth, by their names in ROS."""
_WIDEST = math.tan(math.radians(60.0))  # where rectified images end: towards 90 degrees they would be without bounds
_LARGEST = 4  # times as many pixels as the original one a rectified image may have
_TIPS = 0.0025  # of the original's pixels that may lie beyond each of its sides
_FIELD = 129  # pixels along each side on which the field of a lens is judged


def decode_depth(
    data: Octets,
    *,
    width: int,
    height: int,
    step: int,
    encoding: str,
    big_endian: bool,
    unit_m: float = 0.001,
) -> Float32:
    """Decode the fields of a ``sensor_msgs/Image`` to (height, width) float32 metres, 0 where there is no depth.

    ``step`` is the length of a row in bytes, padding included. 16UC1 and mono16 count in ``unit_m`` metres; 32FC1 is in
    metres, and its NaN, infinite and negative values become 0. Raises InputError ``unknown_encoding``, ``wrong_step``
    or ``wrong_size``.
    """
    dtype = _ENCODINGS.get(encoding)
    if dtype is None:
        raise InputError(
            "unknown_encoding",
            f"depth images are encoded as {', '.join(_ENCODINGS)}, not {encoding!r}; remap the topic",
        )
    if width <= 0 or height <= 0:
        raise InputError("wrong_size", f"a depth image of {width} x {height} pixels is empty")
    row = width * dtype.itemsize
    if step < row:
        raise InputError("wrong_step", f"a row of {width} pixels of {encoding} takes {row} bytes, but step is {step}")
    octets = np.frombuffer(data, np.uint8)
    if len(octets) != step * height:
        raise InputError(
            "wrong_size", f"{height} rows of {step} bytes make {step * height} bytes, but the image holds {len(octets)}"
        )
    pixels = np.ascontiguousarray(octets.reshape(height, step)[:, :row])
    units = pixels.view(dtype.newbyteorder(">" if big_endian else "<"))
    if dtype.kind == "u":
        return (units * np.float64(unit_m)).astype(np.float32)  # rounded once, as files are
    values = units.astype(np.float32)
    values[~((values > 0) & (values < np.inf))] = 0.0
    return values


def intrinsics_from_info(
    width: int,
    height: int,
    k: Sequence[float],
    distortion_model: str = "",
    d: Sequence[float] = (),
    roi: tuple[int, int, int, int] | None = None,
    binning: tuple[int, int] = (1, 1),
) -> Intrinsics:
    """Intrinsics of the delivered image from the fields of a ``sensor_msgs/CameraInfo``.

    ``width``, ``height`` and the row-major 3 x 3 matrix ``k`` describe the full sensor. ``roi`` (x_offset, y_offset,
    width, height) is in full-resolution pixels, all zeros or None for the whole image; ``binning`` divides what it
    leaves, 0 being the same as 1. The principal point is scaled as image_geometry does, so that points agree with
    those of other ROS nodes. Coefficients that are all zero are no distortion. Raises InputError ``zero_focal_length``,
    ``wrong_size``, ``wrong_roi``, ``unknown_distortion`` or ``wrong_distortion``.
    """
    if len(k) != 9:
        raise InputError("zero_focal_length", f"the camera matrix K has 9 entries, not {len(k)}")
    left, top, region_width, region_height = roi or (0, 0, 0, 0)
    if region_width == 0 or region_height == 0:
        left, top, region_width, region_height = 0, 0, width, height
    if left < 0 or top < 0 or left + region_width > width or top + region_height > height:
        raise InputError("wrong_roi", f"the region of interest {roi} leaves the image of {width} x {height} pixels")
    across, down = max(1, binning[0]), max(1, binning[1])
    model, coefficients = checked_distortion(distortion_model, d)
    intrinsics = Intrinsics(
        width=region_width // across,
        height=region_height // down,
        fx=float(k[0]) / across,
        fy=float(k[4]) / down,
        cx=(float(k[2]) - left) / across,
        cy=(float(k[5]) - top) / down,
        distortion_model=model,
        distortion=coefficients,
    )
    check_intrinsics(intrinsics)
    return intrinsics


def check_intrinsics(intrinsics: Intrinsics) -> None:
    """Raise InputError ``zero_focal_length``, ``wrong_size``, ``unknown_distortion`` or ``wrong_distortion``."""
    k = intrinsics
    if not (k.fx > 0 and k.fy > 0 and all(map(math.isfinite, (k.fx, k.fy, k.cx, k.cy)))):
        raise InputError(
            "zero_focal_length",
            f"focal lengths {k.fx}, {k.fy} and principal point {k.cx}, {k.cy} are no camera; is it calibrated?",
        )
    if k.width <= 0 or k.height <= 0:
        raise InputError("wrong_size", f"the camera info describes an image of {k.width} x {k.height} pixels")
    checked_distortion(k.distortion_model, k.distortion)


def normalised(frame: DepthFrame) -> DepthFrame:
    """The frame with depth as contiguous float32 and mask as contiguous bool, whatever floats and truths they were.

    Both are copies, and so is the pose: whoever made the frame may fill its arrays anew for the next one.

    Raises InputError ``wrong_type`` for depth that is not of floats, such as millimetres that were not yet multiplied
    by their unit, for a mask that is neither of booleans nor of integers, and where there is no camera.
    """
    depth, mask = frame.depth, frame.mask
    if not isinstance(frame.intrinsics, Intrinsics):
        raise InputError("wrong_type", f"a frame has the Intrinsics of its camera, not {frame.intrinsics!r}")
    if not (isinstance(depth, np.ndarray) and depth.dtype.kind == "f"):
        found = f"{depth.dtype} numbers" if isinstance(depth, np.ndarray) else type(depth).__name__
        raise InputError(
            "wrong_type", f"depth is a numpy array of floats in metres, not {found}; multiply integers by their unit"
        )
    if mask is not None and not (isinstance(mask, np.ndarray) and mask.dtype.kind in "bui"):
        found = f"{mask.dtype} values" if isinstance(mask, np.ndarray) else type(mask).__name__
        raise InputError(
            "wrong_type", f"a mask is a numpy array of bool or uint8, True or non-zero on the subject, not {found}"
        )
    with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, as what did not return
        metres = np.array(depth, np.float32, order="C")
    truth = None if mask is None else np.ascontiguousarray(mask != 0)
    pose = None if frame.pose is None else np.array(frame.pose, np.float64)
    return dataclasses.replace(frame, depth=metres, mask=truth, pose=pose)


def check_frame(frame: DepthFrame) -> DepthFrame:
    """The frame, with 0 where depth is NaN or infinite: so drivers mark what did not return. Its arrays stay.

    Raises InputError for a frame that cannot be used, whatever is in it: ``wrong_size`` where depth, mask and camera
    disagree; ``no_depth`` without any positive finite pixel; ``invalid_depth`` for negative ones among them; and what
    :func:`check_intrinsics` raises.
    """
    check_intrinsics(frame.intrinsics)
    expected = (frame.intrinsics.height, frame.intrinsics.width)
    for name, image in (("depth", frame.depth), ("mask", frame.mask)):
        if image is not None and image.shape != expected:
            raise InputError(
                "wrong_size", f"the {name} image has shape {image.shape}, but its camera info says {expected}"
            )
    measured, invalid = _kinds_of_depth(frame.depth)
    if not measured:
        raise InputError("no_depth", "every pixel is 0 or NaN; is the camera covered, or the subject out of its range?")
    if not invalid:
        return frame
    returned = np.isfinite(frame.depth)
    if (frame.depth[returned] < 0).any():
        raise InputError("invalid_depth", "the depth image holds negative values; set them to 0")
    return dataclasses.replace(frame, depth=np.where(returned, frame.depth, np.float32(0.0)))


def _kinds_of_depth(depth: Float32) -> tuple[int, int]:
    """How many pixels have a positive finite depth, and how many have one that is not 0 either."""
    if (loops := compiled_loops("clouds")) is not None and depth.dtype == np.float32:
        found: tuple[int, int] = loops.kinds_of_depth(np.ascontiguousarray(depth).reshape(-1))
        return found
    measured = int(((depth > 0) & (depth < np.inf)).sum())
    return measured, depth.size - measured - int((depth == 0).sum())


def project(points: NDArray[np.floating], intrinsics: Intrinsics) -> Float64:
    """Pixels (N, 2) [u, v] of metric points (N, 3), lens distortion included; NaN behind the camera."""
    z = np.where(points[:, 2] > 0, points[:, 2], np.nan).astype(np.float64)
    x, y = lens_of(intrinsics)(points[:, 0] / z, points[:, 1] / z)
    return np.stack((x * intrinsics.fx + intrinsics.cx, y * intrinsics.fy + intrinsics.cy), axis=1)


def back_project(depth: Float32, intrinsics: Intrinsics) -> Float32:
    """Metric points (H, W, 3) of a depth image (H, W), lens distortion undone.

    Pixels without depth become (0, 0, 0), and so do the corners of a lens whose model does not reach them.
    """
    return _rays(intrinsics) * depth[..., None]


def points_at(pixels: Int64, depth: Float32, intrinsics: Intrinsics) -> Float32:
    """Those of :func:`back_project` at ``pixels`` (N,), flat indices of the image: (N, 3)."""
    return pixel_rays(intrinsics).take(pixels, axis=0) * depth.reshape(-1).take(pixels)[:, None]


def thinned_points(mask: Bool, depth: Float32, intrinsics: Intrinsics, count: int) -> Float32:
    """Those at the pixels of ``mask`` (H, W), evenly thinned to less than twice ``count``: (N, 3)."""
    pixels = np.flatnonzero(mask)
    return points_at(pixels[:: max(1, len(pixels) // count)], depth, intrinsics)


def pixel_rays(intrinsics: Intrinsics) -> Float32:
    """Rays (H * W, 3) with z = 1 of all pixels, read-only; (0, 0, 0) where the lens has no inverse."""
    return _rays(intrinsics).reshape(-1, 3)


def rectify(frame: DepthFrame) -> DepthFrame:
    """The frame as the camera of :func:`rectified_camera` would have seen it.

    Takes the nearest pixel: interpolation would invent points between a subject and its background. Pixels that look
    past the original image have no depth. A frame without distortion is returned as it is.
    """
    if frame.intrinsics.distortion_model == "none":
        return frame
    source = _source_pixels(frame.intrinsics)
    depth = np.append(frame.depth.ravel(), np.float32(0.0))[source]
    mask = None if frame.mask is None else np.append(frame.mask.ravel(), False)[source]
    return dataclasses.replace(frame, depth=depth, mask=mask, intrinsics=rectified_camera(frame.intrinsics))


@lru_cache(maxsize=8)
def rectified_camera(intrinsics: Intrinsics) -> Intrinsics:
    """The camera of rectified images: without distortion, of the same focal lengths, and as wide as its lens sees.

    Its image is the original one with margins of whole pixels on the sides where the lens sees more than a pinhole.
    They leave out what is farther off the axis than 60 degrees, to either side, up or down. They leave out the tips of
    the corners as well, no more than a hundredth of the pixels: a barrel lens draws them out so long that most of the
    image's border would be empty, and no floor would reach it. And where all that would make more than four times the
    pixels of the original image, all margins are shortened alike.
    """
    k = intrinsics
    if k.distortion_model == "none":
        return k
    u, v = (np.unique(np.linspace(0, side - 1, _FIELD).round()) for side in (k.width, k.height))
    x, y = undistorted(*np.meshgrid((u - k.cx) / k.fx, (v - k.cy) / k.fy), k)
    known = ~np.isnan(x)
    left, right = _margins(x[known], k.fx, k.cx, k.width)
    above, below = _margins(y[known], k.fy, k.cy, k.height)
    kept = _share_of_margins(left + right, above + below, k.width, k.height)
    left, right, above, below = (int(kept * margin) for margin in (left, right, above, below))
    return Intrinsics(k.width + left + right, k.height + above + below, k.fx, k.fy, k.cx + left, k.cy + above)


def _margins(rays: Float64, focal: float, centre: float, size: int) -> tuple[int, int]:
    """How many pixels ``rays`` (N,), x or y at z = 1, reach beyond both ends of ``size`` pixels, but for the tips."""
    if not len(rays):
        return 0, 0
    first, last = np.quantile(rays.clip(-_WIDEST, _WIDEST), (_TIPS, 1 - _TIPS)) * focal + centre
    return max(0, -math.floor(first + 0.5)), max(0, math.floor(last + 0.5) - (size - 1))


def _share_of_margins(across: int, down: int, width: int, height: int) -> float:
    """The share, up to 1, of margins ``across`` and ``down`` that makes an image of a size no more than the largest."""
    spare = (_LARGEST - 1) * width * height
    strips = across * height + down * width
    # The positive root of across * down * share ** 2 + strips * share = spare.
    return min(1.0, 2 * spare / max(strips + math.sqrt(strips**2 + 4 * across * down * spare), 1.0))


@lru_cache(maxsize=8)
def _rays(intrinsics: Intrinsics) -> Float32:
    """Rays (H, W, 3) with z = 1 of all pixels, read-only; (0, 0, 0) where the lens has no inverse."""
    v, u = np.mgrid[: intrinsics.height, : intrinsics.width].astype(np.float64)
    x, y = (u - intrinsics.cx) / intrinsics.fx, (v - intrinsics.cy) / intrinsics.fy
    if intrinsics.distortion_model != "none":
        x, y = undistorted(x, y, intrinsics)
    rays = np.nan_to_num(np.stack((x, y, np.where(np.isnan(x), 0.0, 1.0)), axis=-1)).astype(np.float32)
    rays.flags.writeable = False
    return rays


@lru_cache(maxsize=8)
def _source_pixels(intrinsics: Intrinsics) -> Int64:
    """For each pixel of the rectified image the flat index of the original pixel; their number where there is none."""
    height, width, plain = intrinsics.height, intrinsics.width, rectified_camera(intrinsics)
    v, u = np.mgrid[: plain.height, : plain.width].astype(np.float64)
    x, y = (u - plain.cx) / plain.fx, (v - plain.cy) / plain.fy
    with np.errstate(all="ignore"):  # beyond the lens' reach its model may have poles
        bent_x, bent_y = lens_of(intrinsics)(x, y)
        column = np.floor(bent_x * intrinsics.fx + intrinsics.cx + 0.5)
        row = np.floor(bent_y * intrinsics.fy + intrinsics.cy + 0.5)
    seen = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    seen &= np.hypot(x, y) < reach(intrinsics)
    index = np.full(seen.shape, height * width, np.int64)
    index[seen] = row[seen].astype(np.int64) * width + column[seen].astype(np.int64)
    index.flags.writeable = False
    return index
