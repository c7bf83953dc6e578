"""True surfaces that do not correspond over time: a folder ``surfaces`` within a SEQUENCE.

::

    surfaces/000000.npz   vertices (V, 3) float32 metres, camera optical frame; faces (F, 3) int32

Where it is there, surfaces are scored against it, and ``ground_truth.npz`` says only where points go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from nr_tracking.arrays import read_arrays
from nr_tracking.data.adapters.dataset import checked_mesh
from nr_tracking.types import Float32, InputError, Int32

FOLDER = "surfaces"


def write_scans(sequence: Path, scans: Iterable[tuple[Float32, Int32]]) -> None:
    """Write one surface a frame into a SEQUENCE folder."""
    folder = sequence / FOLDER
    folder.mkdir()
    for index, (vertices, faces) in enumerate(scans):
        np.savez(folder / f"{index:06d}.npz", vertices=vertices.astype(np.float32), faces=faces.astype(np.int32))


def check_scans(sequence: Path, frames: int) -> None:
    """Raise :class:`InputError` where a SEQUENCE of so many ``frames`` has such a folder, but not a file for each."""
    folder = sequence / FOLDER
    missing = [path.name for path in _files(folder, range(frames)) if not path.is_file()] if folder.is_dir() else []
    if missing:
        more = f" ({len(missing)} in all)" if len(missing) > 1 else ""
        raise InputError("bad_ground_truth", f"{folder}: {missing[0]} is missing{more}; give every frame one, or none")


def read_scans(sequence: Path, frames: Iterable[int]) -> list[tuple[Float32, Int32]] | None:
    """The true surfaces of ``frames`` of a SEQUENCE, or None where it has no such folder."""
    folder = sequence / FOLDER
    if not folder.is_dir():
        return None
    scans = []
    for path in _files(folder, frames):
        try:
            arrays = read_arrays(path, ("vertices", "faces"), "bad_ground_truth")
        except OSError as error:
            raise InputError("bad_ground_truth", f"{path} holds no vertices and faces: {error}") from None
        scans.append(checked_mesh(arrays["vertices"], arrays["faces"], path))
    return scans


def _files(folder: Path, frames: Iterable[int]) -> Iterator[Path]:
    return (folder / f"{index:06d}.npz" for index in frames)
