"""Archives of arrays (``.npz``) from anywhere: nothing in them is run, and no size is believed before it is checked."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from nr_tracking.types import InputError

_RATIO = 1100  # deflate packs no better than 1032 to 1


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of an archive.

    Raises:
        InputError: ``bad_archive``: it is damaged, holds anything but numbers and texts, or claims more values than
            its bytes can hold.
        OSError: there is no such file.
    """
    path.stat()  # a file that is not there is no damage
    try:
        check_archive(path)
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except InputError:
        raise
    except Exception as error:  # numpy and zipfile raise half a dozen kinds for a damaged archive, OSError among them
        raise InputError("bad_archive", f"{path} cannot be read: {error}") from None


def check_archive(path: Path) -> None:
    """Raise InputError ``bad_archive`` where an array claims more than the file can hold; reads only headers."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.file_size > size * _RATIO:
                raise InputError("bad_archive", f"{path}: {member.filename} claims {member.file_size} bytes")
            with archive.open(member) as file:
                version = npy.read_magic(file)
                read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                shape, _, dtype = read(file)
                if dtype.hasobject or math.prod(shape) * dtype.itemsize > member.file_size:
                    what = f"{member.filename} claims {shape} of {dtype} in {member.file_size} bytes"
                    raise InputError("bad_archive", f"{path}: {what}")
