"""What every dataset offers: named sequences of corresponding meshes, and splits by name.

dataset = open_dataset("dfaust", root)
for name in choose(dataset, split="unseen_individual"):
motion = dataset.read(name)                    # MeshSequence
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from nr_tracking.types import Float32, InputError, Int32


@dataclass(frozen=True)
class MeshSequence:
    """One sequence of a dataset.

    ``vertices`` (T, V, 3) float32 metres, y up, corresponding over time; ``faces`` (F, 3) int32. Where the dataset's
    own surfaces do not correspond, ``vertices`` are those of a body model fitted to them and ``scans`` has the T
    surfaces themselves: vertices (V_t, 3) and faces (F_t, 3), in the same frame.
    """

    name: str
    vertices: Float32
    faces: Int32
    fps: float
    scans: tuple[tuple[Float32, Int32], ...] = field(default=())

    def __len__(self) -> int:
        return len(self.vertices)


class Dataset(Protocol):
    """A dataset on disk; nothing is read before it is asked for."""

    @property
    def name(self) -> str:
        """The short name, as on the command line."""

    @property
    def splits(self) -> dict[str, tuple[str, ...]]:
        """Sequences by split, for the splits that are published."""

    def sequences(self) -> list[str]:
        """Names of the sequences that are there; :class:`InputError` where there are none."""

    def read(self, name: str, frames: int | None = None) -> MeshSequence:
        """Read a sequence, or its first ``frames`` at most; what is missing or broken is an :class:`InputError`."""


def choose(dataset: Dataset, split: str | None = None, listed: Path | None = None) -> list[str]:
    """Names of the sequences of a ``split``, of a text file ``listed``, or of all.

    A text file names one sequence a line; empty lines and what follows a # do not count. All of them have to be there:
    a table made of what happened to be on disk would not be the paper's.
    """
    there = dataset.sequences()
    if split is not None and listed is not None:
        raise InputError("bad_request", f"give a split ({split}) or a list ({listed}), not both")
    if split is not None:
        if split not in dataset.splits:
            known = ", ".join(dataset.splits) or "none published: give its sequences by --list FILE"
            raise InputError("unknown_split", f"{dataset.name} has no split {split!r}; it has {known}")
        wanted = list(dataset.splits[split])
    elif listed is not None:
        wanted = read_list(listed)
    else:
        return there
    missing = [name for name in wanted if name not in set(there)]
    if missing:
        raise InputError(
            "missing_sequence",
            f"{dataset.name}: {len(missing)} of {len(wanted)} sequences are not there: {', '.join(missing[:5])}"
            + (", ..." if len(missing) > 5 else ""),
        )
    return wanted


def read_list(path: Path) -> list[str]:
    """Names in a text file, one a line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError("bad_list", f"{path} is no readable text file of sequence names: {error}") from None
    names = [name for line in lines if (name := line.split("#")[0].strip())]
    if not names:
        raise InputError("bad_list", f"{path} names no sequence")
    return names


def checked_mesh(vertices: np.ndarray, faces: np.ndarray, where: object) -> tuple[Float32, Int32]:
    """Vertices (T, V, 3) or (V, 3) and faces (F, 3) that fit together; otherwise an error that names ``where``."""
    if vertices.ndim not in (2, 3) or vertices.shape[-1] != 3 or 0 in vertices.shape:
        raise InputError("bad_mesh", f"{where}: vertices {vertices.shape}, expected (..., V, 3)")
    if faces.ndim != 2 or faces.shape[1] != 3 or not len(faces) or not np.issubdtype(faces.dtype, np.integer):
        raise InputError("bad_mesh", f"{where}: faces {faces.dtype} {faces.shape}, expected integers (F, 3)")
    if not 0 <= int(faces.min()) <= int(faces.max()) < vertices.shape[-2]:
        raise InputError(
            "bad_mesh",
            f"{where}: faces name vertices {faces.min()} to {faces.max()}, but there are {vertices.shape[-2]}",
        )
    if not np.isfinite(vertices).all():
        raise InputError("bad_mesh", f"{where}: vertices hold values that are not finite")
    return np.array(vertices, np.float32, order="C"), np.array(faces, np.int32, order="C")


def missing_data(what: Path, name: str, layout: str, licence: str) -> InputError:
    """An error that says what is not there, how it should lie, and who gives it out."""
    return InputError("missing_data", f"{what} is not there. {name} is laid out as {layout}; get it from {licence}")
