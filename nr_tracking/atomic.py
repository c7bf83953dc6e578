"""Files and folders that appear complete or not at all.

Each is written beside its destination and takes its place in one rename, so that whoever looks sees the old content or
the new, never a mixture, and an interrupted run leaves the old content untouched.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nr_tracking.types import InputError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


_MASK = os.umask(0o022)
os.umask(_MASK)
_MODE = 0o666 & ~_MASK
"""Of new files, as the user wants it: libraries that write by a temporary file of their own close it to all others."""


@contextmanager
def written_file(destination: Path) -> Iterator[Path]:
    """Yield the name of a file beside ``destination`` that replaces it when the block ends without an exception."""
    temporary = beside(destination, _own())
    try:
        yield temporary
        with suppress(OSError):  # not every file system has modes
            temporary.chmod(_MODE)
        temporary.replace(_behind_links(destination))
    finally:
        temporary.unlink(missing_ok=True)


def finished(folder: Path) -> list[Path]:
    """What is in a folder, by name, but for what is hidden: such is what a writer that was killed leaves behind."""
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


@contextmanager
def written_folder(destination: Path, recognised_by: str) -> Iterator[Path]:
    """Yield an empty folder beside ``destination`` that replaces it when the block ends without an exception.

    An existing ``destination`` must be empty or hold a file named ``recognised_by``; otherwise it is somebody else's
    folder and an :class:`InputError` is raised before anything is written.
    """
    check_replaceable(destination, recognised_by)
    temporary = beside(destination, _own())
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        replace_folder(temporary, destination)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def beside(destination: Path, suffix: str) -> Path:
    """A hidden sibling of ``destination``: on the same file system, where a rename is atomic."""
    behind = _behind_links(destination)
    return behind.with_name(f".{behind.name}.{suffix}")


def _behind_links(destination: Path) -> Path:
    """What a symbolic link leads to: that is written, perhaps on another file system, and the link stays."""
    return Path(os.path.realpath(destination))


def prepare_file(destination: Path) -> None:
    """Make the folder of a file that is to be written, before the work whose result it holds.

    Raises:
        InputError: ``output_is_a_folder``, ``output_not_a_file``, ``output_not_writable``.
    """
    if destination.is_dir():
        raise InputError("output_is_a_folder", f"{destination} is a folder; name a file, in it for instance")
    if destination.exists() and not destination.is_file():
        raise InputError("output_not_a_file", f"{destination} is a device, which no file can replace; name a file")
    folder = _behind_links(destination).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("output_not_writable", f"there is no folder {folder}, and none can be made: {error}") from None
    _probe(beside(destination, _own()))


def prepare_folder(folder: Path) -> None:
    """Make a folder that is to be filled, before the work whose results it gets; one that is there stays as it is.

    Raises:
        InputError: ``output_not_a_folder``, ``output_not_writable``.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError("output_not_a_folder", f"{folder} exists and is no folder; choose another name")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("output_not_writable", f"the folder {folder} cannot be made: {error}; name another") from None


def check_replaceable(destination: Path, recognised_by: str) -> None:
    """Raise an :class:`InputError` when ``destination`` holds something that this package did not write.

    Or when it is where a file system is mounted, which cannot change places with another folder, when a file stands
    where a folder above it has to be, or when nothing can be written there.
    """
    if os.path.ismount(_behind_links(destination)):
        raise InputError("output_is_a_mount", f"{destination} is where a file system begins; name a folder inside it")
    if not os.path.exists(destination):
        there = next(folder for folder in _behind_links(destination).parents if folder.exists())
        if not there.is_dir():
            raise InputError("output_not_writable", f"{there} is no folder, so there can be no {destination} in it")
        _probe(there / beside(destination, _own()).name)
        return
    if not destination.is_dir():
        raise InputError("output_not_a_folder", f"{destination} exists and is no folder; choose another name")
    if any(destination.iterdir()) and not (destination / recognised_by).is_file():
        raise InputError(
            "output_not_ours",
            f"{destination} exists and holds no {recognised_by}, so it is left alone; choose another name or remove it",
        )
    _probe(beside(destination, _own()))


def _own() -> str:
    """The end of the name of what this process writes, which no other process touches."""
    return f"writing-{os.getpid()}"


def _probe(path: Path) -> None:
    """Raise an :class:`InputError` unless a folder of that name can be made, as it will be when the work is done."""
    try:
        path.mkdir()
        path.rmdir()
    except FileExistsError:  # that of a process that was killed, which had the same number
        return
    except OSError as error:
        raise InputError("output_not_writable", f"nothing can be written into {path.parent}: {error}") from None


def replace_folder(new: Path, destination: Path) -> None:
    """Put folder ``new`` in the place of ``destination`` by one rename; what was there is removed afterwards."""
    destination = _behind_links(destination)
    if not destination.exists():
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
