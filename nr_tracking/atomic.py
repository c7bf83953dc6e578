"""Files and folders that appear complete or not at all.

Each is written beside its destination and takes its place in one rename, so that whoever looks sees the old content or
the new, never a mixture, and an interrupted run leaves the old content untouched.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nr_tracking.types import InputError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


@contextmanager
def written_file(destination: Path) -> Iterator[Path]:
    """Yield the name of a file beside ``destination`` that replaces it when the block ends without an exception."""
    temporary = beside(destination, f"writing-{os.getpid()}")
    try:
        yield temporary
        temporary.replace(destination)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def written_folder(destination: Path, recognised_by: str) -> Iterator[Path]:
    """Yield an empty folder beside ``destination`` that replaces it when the block ends without an exception.

    An existing ``destination`` must be empty or hold a file named ``recognised_by``; otherwise it is somebody else's
    folder and an :class:`InputError` is raised before anything is written.
    """
    check_replaceable(destination, recognised_by)
    temporary = beside(destination, f"writing-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        replace_folder(temporary, destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def beside(destination: Path, suffix: str) -> Path:
    """A hidden sibling of ``destination``: on the same file system, where a rename is atomic."""
    absolute = destination.absolute()
    return absolute.with_name(f".{absolute.name}.{suffix}")


def check_replaceable(destination: Path, recognised_by: str) -> None:
    """Raise an :class:`InputError` when ``destination`` holds something that this package did not write."""
    if not os.path.lexists(destination):
        return
    if not destination.is_dir():
        raise InputError("output_not_a_folder", f"{destination} exists and is no folder; choose another name")
    if any(destination.iterdir()) and not (destination / recognised_by).is_file():
        raise InputError(
            "output_not_ours",
            f"{destination} exists and holds no {recognised_by}, so it is left alone; choose another name or remove it",
        )


def replace_folder(new: Path, destination: Path) -> None:
    """Put folder ``new`` in the place of ``destination`` by one rename; what was there is removed afterwards."""
    if not os.path.lexists(destination):
        new.rename(destination)
        return
    if not _exchange(new, destination):  # a system without renameat2: two renames, the shortest gap there is
        old = beside(destination, f"old-{os.getpid()}")
        destination.rename(old)
        new.rename(destination)
        new = old
    shutil.rmtree(new)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders atomically (Linux ``renameat2``); False where the system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0)
