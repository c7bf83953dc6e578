"""Depth images and masks as PNG files, exact to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nr_tracking.types import Float32, InputError, Intrinsics

_MAX_UNITS = 65535


def units_to_metres(units: NDArray[np.uint16], depth_unit_m: float) -> Float32:
    """Depth in metres of integer depth; rounded once, to float32, wherever the recording came from."""
    return (units * np.float64(depth_unit_m)).astype(np.float32)


def metres_to_units(depth: Float32, depth_unit_m: float) -> NDArray[np.uint16]:
    """Integer depth, 0 where there is none; :class:`InputError` where 16 bits do not reach."""
    units = np.round(np.nan_to_num(depth, nan=0.0, posinf=0.0, neginf=0.0) / np.float64(depth_unit_m))
    if units.min(initial=0) < 0 or units.max(initial=0) > _MAX_UNITS:
        raise InputError(
            "depth_out_of_range",
            f"depth from {depth.min():.3f} to {depth.max():.3f} m does not fit 16 bits of {depth_unit_m} m; "
            "choose another depth_unit_m",
        )
    return units.astype(np.uint16)


def read_png(path: Path, intrinsics: Intrinsics, dtype: type[np.uint8] | type[np.uint16]) -> NDArray[Any]:
    """Read one channel of ``dtype`` in the size of the camera; anything else is an :class:`InputError`."""
    import imageio.v3 as imageio

    try:
        image = np.asarray(imageio.imread(path, extension=".png"))
    except Exception as error:  # each decoder has its own exceptions; all mean that the image cannot be used
        raise InputError("bad_image", f"{path} cannot be read as PNG: {error}") from None
    if image.dtype == np.bool_ and dtype is np.uint8:  # a mask saved with one bit a pixel
        image = image.astype(np.uint8)
    if image.ndim != 2 or image.dtype != dtype:
        raise InputError("bad_image", f"{path}: {image.dtype} {image.shape}, expected one channel of {dtype.__name__}")
    if image.shape != (intrinsics.height, intrinsics.width):
        raise InputError(
            "wrong_size",
            f"{path} has {image.shape[1]} x {image.shape[0]} pixels, "
            f"camera.json says {intrinsics.width} x {intrinsics.height}",
        )
    return image


def write_png(path: Path, image: NDArray[Any]) -> None:
    """Write a uint8 or uint16 image."""
    import imageio.v3 as imageio

    imageio.imwrite(path, image, extension=".png", compress_level=3)
