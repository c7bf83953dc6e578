"""CAPE (Ma et al. 2020): registrations of clothed people, one file a frame.

``sequences/SUBJECT/OUTFIT_MOTION/OUTFIT_MOTION.000001.npz`` holds ``v_posed`` (6890, 3), metres, posed and placed, y
up (and ``v_cano``, ``pose`` and ``transl``, which are not needed); ``misc/smpl_tris.npy`` holds the faces (13776, 3).
Some frames of the release are missing; of a sequence, the longest run of frames without a gap is read.

The paper that these tables follow uses three subjects and twelve sequences of CAPE and does not name them; give the
sequences by a list.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nr_tracking.arrays import read_array, read_arrays
from nr_tracking.data.adapters.dataset import MeshSequence, checked_mesh, missing_data
from nr_tracking.types import Float32, InputError

LAYOUT = "ROOT/sequences/SUBJECT/OUTFIT_MOTION/*.npz and ROOT/misc/smpl_tris.npy"
LICENCE = "https://cape.is.tue.mpg.de, after registration there"
FPS = 60.0


class Cape:
    """CAPE in a folder."""

    name = "cape"
    splits: dict[str, tuple[str, ...]] = {}  # noqa: RUF012  the protocol's property, and empty

    def __init__(self, root: Path) -> None:
        self.root = root

    def sequences(self) -> list[str]:
        """Names such as ``00032/shortlong_hips``."""
        folder = self.root / "sequences"
        names = sorted(
            f"{path.parent.name}/{path.name}"
            for path in folder.glob("*/*")
            if path.is_dir() and any(path.glob("*.npz"))
        )
        if not names:
            raise missing_data(folder, "CAPE", LAYOUT, LICENCE)
        return names

    def read(self, name: str, frames: int | None = None) -> MeshSequence:
        """The longest run of a sequence's frames whose numbers have no gap, or the first ``frames`` of it."""
        faces_path = self.root / "misc" / "smpl_tris.npy"
        if not faces_path.is_file():
            raise missing_data(faces_path, "CAPE", LAYOUT, LICENCE)
        faces = read_array(faces_path, "bad_file")
        paths = longest_run(sorted((self.root / "sequences" / name).glob("*.npz")))
        if not paths:
            raise InputError("missing_sequence", f"{self.root} has no frames of sequence {name}")
        paths = paths[:frames]
        posed = [_posed(path) for path in paths]
        odd = next((path for path, frame in zip(paths, posed, strict=True) if frame.shape != posed[0].shape), None)
        if odd is not None:
            raise InputError("bad_mesh", f"{odd}: another number of vertices than {paths[0].name}")
        vertices, faces = checked_mesh(np.stack(posed), faces.astype(np.int64), self.root / "sequences" / name)
        return MeshSequence(name, vertices, faces, FPS)


def longest_run(paths: list[Path]) -> list[Path]:
    """The longest run of files, sorted by name, whose numbers before the ending follow each other."""
    best: list[Path] = []
    run: list[Path] = []
    last = -1
    for path in paths:
        digits = path.stem.rsplit(".", 1)[-1]
        if not (digits.isascii() and digits.isdigit()):
            raise InputError("bad_file_name", f"{path}: expected a frame number before the ending")
        run = [*run, path] if run and int(digits) == last + 1 else [path]
        last = int(digits)
        best = run if len(run) > len(best) else best
    return best


def _posed(path: Path) -> Float32:
    posed = read_arrays(path, ("v_posed",), "bad_file")["v_posed"]
    if not np.issubdtype(posed.dtype, np.number):
        raise InputError("bad_file", f"{path}: v_posed holds {posed.dtype}, not numbers")
    return posed.astype(np.float32)
