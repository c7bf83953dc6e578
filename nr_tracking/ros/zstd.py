"""Zstandard with a bound on what comes out: a few bytes can claim, and fill, any amount of memory."""

from __future__ import annotations

import sys
from pathlib import Path

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor, ZstdError
else:  # the package that reads bags brings it along
    from backports.zstd import ZstdDecompressor, ZstdError

FRAME = b"\x28\xb5\x2f\xfd"  # what everything compressed begins with; a CDR message begins with a zero
_BLOCK = 1 << 20


def decompressed(data: bytes, limit: int) -> bytes:
    """What ``data`` holds; ValueError where it is damaged, cut off, or more than ``limit`` bytes."""
    decompressor = ZstdDecompressor()
    try:
        plain = decompressor.decompress(data, max_length=limit + 1)
    except ZstdError as error:
        raise ValueError(str(error)) from None
    if len(plain) > limit:
        raise ValueError(f"it unpacks to more than {limit} bytes")
    if not decompressor.eof:
        raise ValueError("it is cut short")
    return bytes(plain)


def decompressed_file(source: Path, destination: Path, limit: int) -> None:
    """Unpack a file, block by block.

    Raises:
        EOFError: the end is missing; what came before it is in ``destination``.
        ValueError: it is damaged, or more than ``limit`` bytes.
    """
    decompressor, written = ZstdDecompressor(), 0
    with source.open("rb") as packed, destination.open("wb") as plain:
        while not decompressor.eof:
            block = packed.read(_BLOCK) if decompressor.needs_input else b""
            if decompressor.needs_input and not block:
                raise EOFError(f"{source} is cut short")
            try:
                part = decompressor.decompress(block, max_length=_BLOCK)
            except ZstdError as error:
                raise ValueError(str(error)) from None
            written += len(part)
            if written > limit:
                raise ValueError(f"it unpacks to more than {limit} bytes")
            plain.write(part)
