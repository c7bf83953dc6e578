"""Compressed depth images: what ``compressed_depth_image_transport`` sends, where nothing is lost by it.

A message holds a header of 12 bytes (kind of compression, two parameters) and a PNG of 16 bits, or the same depth in
RVL (Wilson, *Fast Lossless Depth Image Compression*, 2017). Depth in metres is quantised before it is compressed, so
such images are refused: they are not what the camera measured.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nr_tracking.data.png import PngHeader, check_size, decode_png, png_header
from nr_tracking.types import InputError

TRANSPORT = "compressedDepth"
_CONFIG = struct.Struct("<iff")
_NAME = "a compressed depth image"


class CompressedImage(Protocol):
    """sensor_msgs/CompressedImage."""

    header: Any
    format: str
    data: Any


@dataclass(frozen=True)
class RawImage:
    """The fields of a sensor_msgs/Image of 16UC1."""

    header: Any
    height: int
    width: int
    data: NDArray[np.uint8]
    step: int
    encoding: str = "16UC1"
    is_bigendian: int = 0


def is_lossless(format_: str) -> bool:
    """Whether depth images of this ``format`` are those of the camera, bit for bit: ``16UC1; compressedDepth png``."""
    encoding, _, codec = format_.partition(";")
    return encoding.strip() in ("16UC1", "mono16") and codec.split()[:1] == [TRANSPORT]


def claimed_size(message: CompressedImage) -> tuple[int, int]:
    """Width and height that a compressed depth image claims; nothing is unpacked. Raises as :func:`raw_image` does."""
    is_rvl, data = _content(message)
    if is_rvl:
        return _rvl_size(data)
    header = _png_header(data)
    return header.width, header.height


def raw_image(message: CompressedImage) -> RawImage:
    """Unpack a compressed depth image; its size is checked before memory is taken.

    Raises:
        InputError: ``lossy_depth`` for quantised depth, ``unknown_encoding`` for what is no compressed depth, and
            ``bad_image`` or ``wrong_size`` for data that do not unpack.
    """
    is_rvl, data = _content(message)
    pixels = _decode_rvl(data) if is_rvl else _decode_png(data)
    height, width = pixels.shape
    return RawImage(message.header, height, width, pixels.view(np.uint8).reshape(-1), 2 * width)


def compress_png(pixels: NDArray[np.uint16]) -> bytes:
    """``data`` of a CompressedImage of format ``16UC1; compressedDepth png`` from depth (H, W)."""
    import imageio.v3 as imageio

    return _CONFIG.pack(0, 0.0, 0.0) + bytes(imageio.imwrite("<bytes>", pixels, extension=".png"))


def _content(message: CompressedImage) -> tuple[bool, bytes]:
    """Whether a message holds RVL rather than PNG, and that."""
    encoding, _, codec = str(message.format).partition(";")
    words = codec.split()
    if words[:1] != [TRANSPORT]:
        raise InputError(
            "unknown_encoding",
            f"compressed images of format {message.format!r} are no depth images; expected '16UC1; compressedDepth'",
        )
    if encoding.strip() not in ("16UC1", "mono16"):
        raise InputError(
            "lossy_depth",
            f"compressedDepth of {encoding.strip()} images is quantised: publish 16UC1, or use the raw transport",
        )
    return words[1:2] == ["rvl"], bytes(message.data)[_CONFIG.size :]


def _png_header(data: bytes) -> PngHeader:
    header = png_header(data, len(data), _NAME)
    if (header.bits, header.colour) != (16, 0):
        raise InputError(
            "bad_image", f"depth is a grey PNG of 16 bits, not colour type {header.colour} of {header.bits} bits"
        )
    return header


def _decode_png(data: bytes) -> NDArray[np.uint16]:
    header = _png_header(data)
    pixels = decode_png(data, _NAME)
    if pixels.shape != (header.height, header.width):
        raise InputError("bad_image", f"the PNG of a compressed depth image has shape {pixels.shape}")
    return np.ascontiguousarray(pixels.astype("<u2", copy=False))


def _rvl_size(data: bytes) -> tuple[int, int]:
    if len(data) < 8:
        raise InputError("bad_image", "the compressed depth image is cut short")
    width, height = struct.unpack_from("<II", data)
    check_size(width, height, _NAME)
    return width, height


def _decode_rvl(data: bytes) -> NDArray[np.uint16]:
    """Runs of zeros and of differences, all of them numbers of as many nibbles as they need."""
    width, height = _rvl_size(data)
    words = np.frombuffer(data, "<u4", (len(data) - 8) // 4, 8)
    nibbles = (words[:, None] >> np.arange(28, -1, -4, dtype=np.uint32)).reshape(-1) & 15
    ends = np.flatnonzero(nibbles < 8)
    nibbles = nibbles[: ends[-1] + 1] if len(ends) else nibbles[:0]
    number = np.concatenate(([0], np.cumsum(nibbles < 8)[:-1])) if len(nibbles) else nibbles.astype(np.int64)
    begins = np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends
    place = np.arange(len(nibbles)) - begins[number]
    if len(place) and place.max() > 10:
        raise InputError("bad_image", "the RVL data of a compressed depth image are damaged")
    shifted = (nibbles & 7).astype(np.int64) << (3 * place)
    values = np.bincount(number, weights=shifted.astype(np.float64), minlength=len(ends)).astype(np.int64)
    pixels, filled, position, runs = height * width, 0, 0, []
    while filled < pixels:
        if position + 2 > len(values):
            raise InputError("bad_image", "the RVL data of a compressed depth image are cut short")
        zeros, count = int(values[position]), int(values[position + 1])
        position += 2
        if zeros + count == 0 or filled + zeros + count > pixels or position + count > len(values):
            raise InputError("bad_image", "the RVL data of a compressed depth image are damaged")
        runs.append((filled + zeros, position, count))
        filled += zeros + count
        position += count
    where, source, counts = np.array(runs, np.int64).reshape(-1, 3).T
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    steps = values[np.repeat(source, counts) + within]
    depth = np.zeros(pixels, "<u2")
    depth[np.repeat(where, counts) + within] = np.cumsum((steps >> 1) ^ -(steps & 1)).astype(np.uint16)
    return depth.reshape(height, width)
