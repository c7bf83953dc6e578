"""4DHumanOutfit (Armando et al. 2023): scans of clothed people, one mesh a frame, and body models fitted to them.

``SUBJECT/SUBJECT-OUTFIT-MOTION/*/*.obj`` (or ``*.obj`` without the inner folders) are the scans, in order of their
names: metres, y up. Scans do not correspond over time; tracking is scored against SMPL bodies fitted to them, as the
tables do. Posing SMPL needs its own licence and code, so the fits are taken as posed vertices, one file a sequence:
``FITS/SUBJECT-OUTFIT-MOTION.npz`` with ``vertices`` (T, 6890, 3), a row for each scan, and ``faces`` (13776, 3).

The paper that these tables follow uses four subjects and eight sequences and does not name them; give them by a list.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from nr_tracking.arrays import read_arrays
from nr_tracking.data.adapters.dataset import MeshSequence, checked_mesh, missing_data
from nr_tracking.types import Float32, InputError, Int32

LAYOUT = "ROOT/SUBJECT/SUBJECT-OUTFIT-MOTION/*/*.obj, with FITS/SUBJECT-OUTFIT-MOTION.npz"
LICENCE = "https://kinovis.inria.fr/4dhumanoutfit, after registration there"
FPS = 50.0


class HumanOutfit:
    """4DHumanOutfit in a folder, with posed body models in another."""

    name = "4dhumanoutfit"
    splits: dict[str, tuple[str, ...]] = {}  # noqa: RUF012  the protocol's property, and empty

    def __init__(self, root: Path, fits: Path | None = None) -> None:
        self.root = root
        self.fits = fits if fits is not None else root / "fits"

    def sequences(self) -> list[str]:
        """Names such as ``sue-cos-walk``."""
        names = sorted(path.name for path in self.root.glob("*/*-*-*") if path.is_dir())
        if not names:
            raise missing_data(self.root, "4DHumanOutfit", LAYOUT, LICENCE)
        return names

    def read(self, name: str, frames: int | None = None) -> MeshSequence:
        """The scans of a sequence and the bodies fitted to them, or the first ``frames`` of both."""
        folder = self.root / name.split("-")[0] / name
        paths = sorted(folder.glob("*/*.obj")) or sorted(folder.glob("*.obj"))
        if not paths:
            raise InputError("missing_sequence", f"{folder} has no scans (*.obj)")
        fitted = self.fits / f"{name}.npz"
        if not fitted.is_file():
            raise missing_data(
                fitted, "4DHumanOutfit's bodies, posed,", LAYOUT, "your own SMPL, https://smpl.is.tue.mpg.de"
            )
        arrays = read_arrays(fitted, ("vertices", "faces"), "bad_file")
        vertices, faces = checked_mesh(arrays["vertices"], arrays["faces"], fitted)
        if vertices.ndim != 3 or len(vertices) != len(paths):
            raise InputError("bad_mesh", f"{fitted}: vertices {vertices.shape} for {len(paths)} scans in {folder}")
        scans = tuple(read_obj(path) for path in paths[:frames])
        return MeshSequence(name, vertices[:frames], faces, FPS, scans)


def read_obj(path: Path) -> tuple[Float32, Int32]:
    """Vertices (V, 3) and triangles (F, 3) of a Wavefront OBJ file, in its order; all else in it is passed over."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError("bad_mesh", f"{path} cannot be read: {error}") from None
    points = re.findall(r"^v[ \t]+(\S+)[ \t]+(\S+)[ \t]+(\S+)", text, re.MULTILINE)
    corners = re.findall(r"^f[ \t]+(\d+)\S*[ \t]+(\d+)\S*[ \t]+(\d+)\S*[ \t]*$", text, re.MULTILINE)
    others = len(re.findall(r"^f[ \t]", text, re.MULTILINE)) - len(corners)
    if others:
        raise InputError("bad_mesh", f"{path}: {others} faces are no triangles of plain vertex numbers")
    try:
        vertices = np.array(points, np.float64).reshape(-1, 3)
        faces = np.array(corners, np.int64).reshape(-1, 3) - 1
    except (ValueError, OverflowError) as error:
        raise InputError("bad_mesh", f"{path}: {error}") from None
    return checked_mesh(vertices, faces, path)
