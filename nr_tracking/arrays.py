"""Arrays on disk (``.npy``, ``.npz``) from anywhere: nothing in them is run, and no size is believed unchecked.

A header of a hundred bytes can claim any number of values. Before memory is taken it is held against the bytes that
are there, so that reading a file takes no more memory than its size, or than deflate can pack into it, allows.
"""

from __future__ import annotations

import itertools
import math
import mmap
import os
import struct
import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import DTypeLike, NDArray

from nr_tracking.types import InputError

DEFLATE_RATIO = 1032
"""Bytes that deflate makes of one, at most (RFC 1951: 258 of two bits)."""
_OVERHEAD = 64  # bytes of a stream, beyond that ratio
_SUFFIX = ".npy"


def read_array(path: Path, reason: str = "bad_array") -> NDArray[Any]:
    """Read the one array of an ``.npy`` file.

    Raises:
        InputError: ``reason``: the file is damaged, holds anything but numbers and texts, or claims more values than it
            has bytes.
        OSError: there is no such file.
    """
    size = path.stat().st_size
    with _damage_named(reason, path), path.open("rb") as file:
        return _read(file, size, path.name)


def read_arrays(
    path: Path, wanted: Collection[str] | None = None, reason: str = "bad_archive"
) -> dict[str, NDArray[Any]]:
    """Read the arrays of an ``.npz`` archive, all of them or those ``wanted``.

    Raises:
        InputError: ``reason``: it is damaged, lacks an array, holds anything but numbers and texts, or claims more
            values than its bytes can hold.
        OSError: there is no such file.
    """
    size = path.stat().st_size  # a file that is not there is no damage
    with _damage_named(reason, path), zipfile.ZipFile(path) as archive:
        members = {member.filename.removesuffix(_SUFFIX): member for member in archive.infolist()}
        _check_members(size, archive.infolist())
        names = list(members if wanted is None else wanted)
        missing = [name for name in names if name not in members]
        if missing:
            raise ValueError(f"{', '.join(missing)} missing; it has {', '.join(members) or 'nothing'}")
        arrays = {}
        for name in names:
            with archive.open(members[name]) as file:
                arrays[name] = _read(file, members[name].file_size, members[name].filename)
        return arrays


def mapped_arrays(path: Path, reason: str = "bad_archive") -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` archive, those that are not packed mapped from the file, which writing leaves alone.

    Their values take memory as they are looked at, which the system may take back: an archive may be larger than that.

    Raises:
        InputError: as :func:`read_arrays`.
        OSError: there is no such file.
    """
    size = path.stat().st_size
    with _damage_named(reason, path), zipfile.ZipFile(path) as archive, path.open("rb") as file:
        _check_members(size, archive.infolist())
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        arrays = {}
        for member in archive.infolist():
            name = member.filename.removesuffix(_SUFFIX)
            with archive.open(member) as stream:
                if member.compress_type != zipfile.ZIP_STORED:
                    arrays[name] = _read(stream, member.file_size, member.filename)
                    continue
                shape, fortran, kind = _header(stream, member.file_size, member.filename)
                within = stream.tell()
            if 0 in shape:  # nothing to map
                arrays[name] = np.empty(shape, kind)
                continue
            flat = np.frombuffer(mapped, kind, math.prod(shape), _data_of(file, member) + within)
            arrays[name] = flat.reshape(shape, order="F" if fortran else "C")
        return arrays


def _data_of(file: IO[bytes], member: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin: behind its own header, whose two last fields may differ from the archive's list."""
    file.seek(member.header_offset + 26)
    name, extra = struct.unpack("<HH", file.read(4))
    return int(member.header_offset + 30 + name + extra)


Empty = Callable[[tuple[int, ...], DTypeLike, float], NDArray[Any]]
"""Makes an array of a shape and a type, filled with one value."""


@contextmanager
def temporary_arrays(folder: Path) -> Iterator[Empty]:
    """Arrays on disk, in ``folder``, for as long as the context lasts; they may be larger than memory.

    Making one raises OSError where the disk has no room for it.
    """
    with TemporaryDirectory(dir=folder) as room:
        count = itertools.count()

        def empty(shape: tuple[int, ...], kind: DTypeLike, value: float) -> NDArray[Any]:
            if 0 in shape:
                return np.empty(shape, kind)
            path = Path(room) / f"{next(count)}{_SUFFIX}"
            array = npy.open_memmap(path, "w+", np.dtype(kind), shape)
            _take_room(path)
            array[:] = value
            return np.asarray(array)

        yield empty


def _take_room(path: Path) -> None:
    """Take the room that a file claims: where there is none, writing to what is mapped of it would kill the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _check_members(size: int, members: list[zipfile.ZipInfo]) -> None:
    """ValueError where members of an archive of ``size`` bytes claim more than these can hold, alone or together."""
    for member in members:
        packed = member.compress_type != zipfile.ZIP_STORED
        most = member.compress_size * DEFLATE_RATIO + _OVERHEAD if packed else member.compress_size
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{member.filename} is packed in a way that numpy does not write")
        if member.file_size > most:
            raise ValueError(f"{member.filename} claims {member.file_size} bytes in {member.compress_size}")
    if sum(member.compress_size for member in members) > size:  # several that share the same bytes
        raise ValueError(f"its members claim more than its {size} bytes")


def _read(file: IO[bytes], size: int, name: str) -> NDArray[Any]:
    """Read an array from a file of ``size`` bytes; ValueError where its header claims more."""
    _header(file, size, name)
    file.seek(0)
    return np.asarray(npy.read_array(file, allow_pickle=False))


def _header(file: IO[bytes], size: int, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether the first axis runs fastest, and type of an array in a file of ``size`` bytes; checked."""
    version = npy.read_magic(file)
    read_header = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read_header is None:  # 3.0 is for names of fields beyond Latin-1
        raise ValueError(f"{name} has version {version} of the format")
    shape, fortran, kind = read_header(file)
    if kind.hasobject:
        raise ValueError(f"{name} claims objects, not numbers")
    if any(side < 0 for side in shape) or math.prod(shape) * max(kind.itemsize, 1) > size:
        raise ValueError(f"{name} claims {shape} of {kind} in {size} bytes")
    return shape, fortran, kind


@contextmanager
def _damage_named(reason: str, path: Path) -> Iterator[None]:
    """Whatever a damaged file raises, as an InputError that names it."""
    try:
        yield
    except Exception as error:  # numpy and zipfile raise half a dozen kinds for a damaged file, OSError among them
        raise InputError(reason, f"{path} cannot be read: {error}") from None
