"""True surfaces that do not correspond over time: a folder ``surfaces`` within a SEQUENCE.

::

    surfaces/000000.npz   vertices (V, 3) float32 metres, camera optical frame; faces (F, 3) int32

Where it is there, surfaces are scored against it, and ``ground_truth.npz`` says only where points go.
"""

from __future__ import annotations

from collections.abc import Iterable
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


def read_scans(sequence: Path, frames: Iterable[int]) -> list[tuple[Float32, Int32]] | None:
    """The true surfaces of ``frames`` of a SEQUENCE, or None where it has no such folder."""
    folder = sequence / FOLDER
    if not folder.is_dir():
        return None
    scans = []
    for index in frames:
        path = folder / f"{index:06d}.npz"
        try:
            arrays = read_arrays(path, ("vertices", "faces"), "bad_ground_truth")
        except OSError as error:
            raise InputError("bad_ground_truth", f"{path} holds no vertices and faces: {error}") from None
        scans.append(checked_mesh(arrays["vertices"], arrays["faces"], path))
    return scans
