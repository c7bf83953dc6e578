"""D-FAUST (Bogo et al. 2017): registrations of ten minimally dressed people, as two HDF5 files.

``registrations_f.hdf5`` and ``registrations_m.hdf5`` hold ``faces`` (13776, 3) and a data set ``SUBJECT_MOTION`` of
shape (6890, 3, T) for each sequence: metres, y up, 60 frames a second. The splits are those of Occupancy Flow
(Niemeyer et al. 2019, ``scripts/split_files``), which all tables since then use.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nr_tracking.arrays import DEFLATE_RATIO
from nr_tracking.data.adapters.dataset import MeshSequence, checked_mesh, missing_data
from nr_tracking.types import InputError

FILES = ("registrations_f.hdf5", "registrations_m.hdf5")
LAYOUT = "ROOT/registrations_f.hdf5 and ROOT/registrations_m.hdf5"
LICENCE = "https://dfaust.is.tue.mpg.de, after registration there"
FPS = 60.0

_INDIVIDUAL = (
    "chicken_wings knees one_leg_jump punching shake_arms shake_shoulders hips light_hopping_stiff one_leg_loose "
    "running_on_spot shake_hips"
)
SPLITS: dict[str, tuple[str, ...]] = {
    "unseen_motion": (
        "50002_light_hopping_loose",
        "50004_punching",
        "50007_shake_shoulders",
        "50009_chicken_wings",
        "50020_chicken_wings",
        "50022_light_hopping_loose",
        "50025_light_hopping_loose",
        "50026_shake_arms",
        "50027_shake_shoulders",
    ),
    "unseen_individual": tuple(f"50021_{motion}" for motion in _INDIVIDUAL.split()),
    "validation": (
        "50004_chicken_wings",
        "50020_hips",
        "50025_shake_arms",
        "50020_running_on_spot",
        "50007_light_hopping_loose",
    ),
}
"""The test folds and the validation sequences; what is in none of them and not of subject 50021 is for training."""


class DynamicFaust:
    """D-FAUST in a folder; needs h5py."""

    name = "dfaust"

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def splits(self) -> dict[str, tuple[str, ...]]:
        """The folds of the tables, and ``train``: the sequences on disk that are in none of them."""
        held_out = {name for names in SPLITS.values() for name in names}
        train = tuple(name for name in self.sequences() if name not in held_out and not name.startswith("50021_"))
        return SPLITS | {"train": train}

    def sequences(self) -> list[str]:
        """Names such as ``50002_chicken_wings``."""
        return sorted(self._index())

    def read(self, name: str, frames: int | None = None) -> MeshSequence:
        """The registrations of a sequence, or the first ``frames`` of them."""
        path = self._index().get(name)
        if path is None:
            raise InputError("missing_sequence", f"{self.root} has no sequence {name}")
        with _open(path) as file:
            stored = file[name]
            if stored.ndim != 3 or stored.shape[1] != 3:
                raise InputError("bad_mesh", f"{path}: {name} has shape {stored.shape}, expected (V, 3, T)")
            faces = file["faces"]
            for values in (stored, faces):  # what was never written takes no bytes in the file, but memory here
                if values.nbytes > path.stat().st_size * DEFLATE_RATIO:
                    raise InputError("bad_file", f"{path} claims {values.shape} of {values.dtype} in {values.name}")
            vertices, triangles = checked_mesh(np.moveaxis(stored[:, :, :frames], 2, 0), faces[()], f"{path}, {name}")
        return MeshSequence(name, vertices, triangles, FPS)

    def _index(self) -> dict[str, Path]:
        paths = [self.root / name for name in FILES if (self.root / name).is_file()]
        if not paths:
            raise missing_data(self.root / FILES[0], "D-FAUST", LAYOUT, LICENCE)
        index: dict[str, Path] = {}
        for path in paths:
            with _open(path) as file:
                if "faces" not in file:
                    raise InputError("bad_file", f"{path} has no data set 'faces'; it has {', '.join(list(file)[:5])}")
                index |= dict.fromkeys((str(key) for key in file if key != "faces"), path)
        return index


def _open(path: Path) -> Any:
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise InputError("bad_file", f"{path} is no readable HDF5 file: {error}") from None
