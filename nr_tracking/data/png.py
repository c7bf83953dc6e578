"""Depth images and masks as PNG files, exact to the bit; what a header claims is checked before memory is taken."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nr_tracking.arrays import DEFLATE_RATIO
from nr_tracking.types import Float32, InputError, Intrinsics

LARGEST_SIDE = 16384
LARGEST_PIXELS = 64_000_000
_MAX_UNITS = 65535
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER_BYTES = 33
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type; 0 is grey, 3 a palette


@dataclass(frozen=True)
class PngHeader:
    """What a PNG says of itself; ``colour`` is its colour type, 0 for grey."""

    width: int
    height: int
    bits: int
    colour: int


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


def png_header(begin: bytes, size: int, name: str) -> PngHeader:
    """The header of a PNG of ``size`` bytes that begins with ``begin``; ``name`` is what errors call it.

    Raises:
        InputError: ``bad_image``: it is no PNG, or claims more pixels than its bytes can hold; ``wrong_size``: it has
            more pixels than any depth camera.
    """
    if len(begin) < _HEADER_BYTES or not begin.startswith(_SIGNATURE) or begin[12:16] != b"IHDR":
        raise InputError("bad_image", f"{name} is no PNG")
    header = PngHeader(*struct.unpack_from(">IIBB", begin, 16))
    check_size(header.width, header.height, name)
    pixels = header.width * header.height
    if pixels * header.bits * _CHANNELS.get(header.colour, 1) // 8 > size * DEFLATE_RATIO:
        raise InputError("bad_image", f"{name} claims {header.width} x {header.height} pixels in {size} bytes")
    return header


def check_size(width: int, height: int, name: str) -> None:
    """Raise InputError ``wrong_size`` for images without pixels, and for more of them than any depth camera has."""
    if not (0 < width <= LARGEST_SIDE and 0 < height <= LARGEST_SIDE and width * height <= LARGEST_PIXELS):
        raise InputError(
            "wrong_size",
            f"{name} claims {width} x {height} pixels; at most {LARGEST_SIDE} a side and {LARGEST_PIXELS} in all are "
            "read",
        )


def decode_png(data: bytes, name: str) -> NDArray[Any]:
    """The pixels of a PNG whose header was checked; InputError ``bad_image`` where it is damaged or cut off."""
    import imageio.v3 as imageio

    check_chunks(data, name)
    try:
        # The first image alone: an animation unpacks to any number of them.
        return np.asarray(imageio.imread(data, extension=".png", index=0))
    except Exception as error:  # each decoder has its own exceptions; all mean that the image cannot be used
        raise InputError("bad_image", f"{name} cannot be read as PNG: {error}") from None


def check_chunks(data: bytes, name: str) -> None:
    """Raise InputError ``bad_image`` unless every chunk of a PNG is whole, has its checksum, and the last one is there.

    Decoders fill the rows that a file which was cut off does not have, and say nothing.
    """
    at = len(_SIGNATURE)
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        end = at + 12 + size
        if end > len(data):
            break
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            raise InputError("bad_image", f"{name}: the checksum of what begins at byte {at} is wrong")
        if data[at + 4 : at + 8] == b"IEND":
            return
        at = end
    raise InputError("bad_image", f"{name} ends after {len(data)} bytes, before its last chunk")


def read_png(path: Path, intrinsics: Intrinsics, dtype: type[np.uint8] | type[np.uint16]) -> NDArray[Any]:
    """Read one channel of ``dtype`` in the size of the camera; anything else is an :class:`InputError`."""
    name = str(path)
    try:
        with path.open("rb") as file:
            begin, size = file.read(_HEADER_BYTES), path.stat().st_size
            header = png_header(begin, size, name)
            data = begin + file.read(size)
    except OSError as error:
        raise InputError("bad_image", f"{name} cannot be read: {error}") from None
    if (header.width, header.height) != (intrinsics.width, intrinsics.height):
        raise InputError(
            "wrong_size",
            f"{name} has {header.width} x {header.height} pixels, "
            f"camera.json says {intrinsics.width} x {intrinsics.height}",
        )
    image = decode_png(data, name)
    if image.dtype == np.bool_ and dtype is np.uint8:  # a mask saved with one bit a pixel
        image = image.astype(np.uint8)
    if image.shape != (intrinsics.height, intrinsics.width) or image.dtype != dtype:
        raise InputError("bad_image", f"{name}: {image.dtype} {image.shape}, expected one channel of {dtype.__name__}")
    return image


def write_png(path: Path, image: NDArray[Any]) -> None:
    """Write a uint8 or uint16 image."""
    import imageio.v3 as imageio

    imageio.imwrite(path, image, extension=".png", compress_level=3)
