"""DeformingThings4D-Animals (Li et al. 2021): animated animals, one ``.anime`` file each.

``animals/OBJECT_ACTION/OBJECT_ACTION.anime`` is little-endian binary: int32 frames, vertices and faces; float32
(V, 3) vertices of the first frame; int32 (F, 3) faces; float32 (T - 1, V, 3) offsets of the later frames from the
first one. They come out of Blender and are taken to have z up; here they are turned to y up. Their unit is not stated,
so each one is scaled to a longest edge of one metre in its first frame.

The split of the tables is that of CaDeX (Lei and Daniilidis 2022), which is handed out with its preprocessed data and
not with its code; give the sequences of a fold by a list.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from nr_tracking.data.adapters.dataset import MeshSequence, checked_mesh, missing_data
from nr_tracking.data.clips import largest_edge
from nr_tracking.types import Float32, InputError, Int32

LAYOUT = "ROOT/animals/OBJECT_ACTION/OBJECT_ACTION.anime"
LICENCE = "https://github.com/rabbityl/DeformingThings4D, by the form there"
FPS = 30.0
_HEADER_BYTES = 12
_Z_UP_TO_Y_UP = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], np.float32)


class DeformingThings:
    """The animals of DeformingThings4D in a folder: ROOT, or its folder ``animals``."""

    name = "dt4d"
    splits: dict[str, tuple[str, ...]] = {}  # noqa: RUF012  the protocol's property, and empty

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "animals" if (root / "animals").is_dir() else root

    def sequences(self) -> list[str]:
        """Names such as ``bear3EP_Agression``."""
        names = sorted(path.parent.name for path in self.folder.glob("*/*.anime") if path.stem == path.parent.name)
        if not names:
            raise missing_data(self.folder, "DeformingThings4D-Animals", LAYOUT, LICENCE)
        return names

    def read(self, name: str, frames: int | None = None) -> MeshSequence:
        """An animation, or its first ``frames``, y up, one metre along its longest edge."""
        path = self.folder / name / f"{name}.anime"
        vertices, faces = read_anime(path)
        size = largest_edge(vertices[0])
        if size <= 0:
            raise InputError("bad_mesh", f"{path}: all vertices of the first frame are in one place")
        return MeshSequence(name, (vertices[:frames] @ _Z_UP_TO_Y_UP.T) / np.float32(size), faces, FPS)


def read_anime(path: Path) -> tuple[Float32, Int32]:
    """Vertices (T, V, 3) and faces (F, 3) of an ``.anime`` file, in its own unit and axes.

    The sizes that the header states are held against the size of the file before any memory is taken.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            header = file.read(_HEADER_BYTES)
            if len(header) < _HEADER_BYTES:
                raise InputError("bad_anime", f"{path}: {size} bytes, but the header alone has {_HEADER_BYTES}")
            frames, count, triangles = (int(value) for value in np.frombuffer(header, "<i4"))
            if min(frames, count, triangles) < 1:
                raise InputError("bad_anime", f"{path}: {frames} frames, {count} vertices, {triangles} faces")
            expected = _HEADER_BYTES + 12 * (frames * count + triangles)
            if size != expected:
                stated = f"{frames} frames of {count} vertices with {triangles} faces"
                raise InputError("bad_anime", f"{path}: {size} bytes, but {stated} are {expected}")
            body = file.read()
    except OSError as error:
        raise InputError("bad_anime", f"{path} cannot be read: {error}") from None
    first = np.frombuffer(body, "<f4", 3 * count).reshape(1, count, 3)
    faces = np.frombuffer(body, "<i4", 3 * triangles, offset=12 * count).reshape(triangles, 3)
    offsets = np.frombuffer(body, "<f4", offset=12 * (count + triangles)).reshape(frames - 1, count, 3)
    with np.errstate(over="ignore", invalid="ignore"):  # a sum beyond float32 is refused below
        vertices = np.concatenate([first, first + offsets])
    return checked_mesh(vertices, faces, path)
