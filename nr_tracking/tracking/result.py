"""OUTPUT: what tracking a recording leaves on disk.

::

    meshes/000000.ply   binary, metres, camera optical frame of its own stamp, colour = correspondence; each vertex with
                        its confidence, and whether the camera saw it
    tracks.npz          positions (T, K, 3) float32, NaN where not tracked; ids (K,) int64; confidence (T, K) float32;
                        observed (T, K) bool; stamps_ns (T,) int64
    patches.npz         per frame, padded with NaN: centres (T, P, 3), rotations (T, P, 3, 3), translations (T, P, 3),
                        to the next tracked frame, v -> R (v - centre) + translation; the last row is NaN
    run.json            what was asked for, and which frames were dropped, why

Every frame asked for has its row. A dropped frame has NaN tracks and patches, no mesh file, and a line in run.json.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nr_tracking.arrays import Empty, mapped_arrays, read_array, read_arrays, temporary_arrays
from nr_tracking.atomic import check_replaceable, written_folder
from nr_tracking.sensing.rigid import Rigid
from nr_tracking.tracking.colours import canonical_box, correspondence_colours
from nr_tracking.tracking.ply import read_ply, write_ply
from nr_tracking.tracking.velocities import velocities_of
from nr_tracking.tracking.views import seen_from_first, views_of_first
from nr_tracking.types import Bool, Float32, Float64, InputError, Int32, Int64, Patches, TrackedFrame

RECOGNISED_BY = "tracks.npz"
ColouredMesh = tuple[Float32, Int32, NDArray[np.uint8]]
"""Vertices (V, 3) metres, faces (F, 3), sRGB colours (V, 3)."""

_ROWS, _COLOURS = "rows", "colours.npy"  # what an OUTPUT is made of, and is there as long as it may be continued
_HELD = 4_000_000  # positions in memory at once, 48 MB
_PATCH_ARRAYS = ("centres", "rotations", "translations")
_TRACK_ARRAYS = {
    "stamps_ns": "T",
    "ids": "K",
    "positions": "TK3",
    "velocities": "TK3",
    "confidence": "TK",
    "observed": "TK",
}
"""Sides of the arrays of tracks.npz: T frames, K tracks."""


@dataclass
class Run:
    """The manifest of an OUTPUT, ``run.json``: enough to tell whether another run would give the same.

    ``input`` is a digest of the frames as decoded, so a recording has the same one as a folder and as a bag.
    ``frames`` were asked for and ``tracked`` have a result; ``dropped`` maps rows to the reason why they have none.
    ``notices`` tell of damage to the recording that belongs to no row, such as frames that are lost.
    """

    version: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    weights: str = ""
    input: str = ""
    start: int = 0
    frames: int = 0
    tracked: int = 0
    dropped: dict[int, str] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write ``run.json``."""
        (folder / "run.json").write_text(json.dumps(asdict(self), indent=1) + "\n")

    @staticmethod
    def read(folder: Path) -> Run:
        """Read ``run.json``; :class:`InputError` where there is none or it is damaged."""
        try:
            values = json.loads((folder / "run.json").read_text())
            values["dropped"] = {int(row): reason for row, reason in values["dropped"].items()}
            return Run(**values)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError("bad_run", f"{folder}/run.json cannot be read: {error}") from None


class ResultWriter:
    """Writes results row by row into a folder, so that memory does not grow with the recording.

    ``add`` may be called in any order and again for the same row; ``finish`` assembles the arrays, as often as it is
    called, and :func:`tidy_output` removes what they were made of. Rows that a former writer left in the same folder
    count as added.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rows = folder / _ROWS
        self._rows.mkdir(parents=True, exist_ok=True)
        (folder / "meshes").mkdir(exist_ok=True)

    def add(self, row: int, result: TrackedFrame) -> None:
        """Write the mesh of ``row`` and put its tracks and patches aside."""
        lower, upper = self._colour_box(result)
        colours = correspondence_colours(result.canonical, lower, upper)
        surface = result.surface
        known = surface.confidence, surface.observed
        write_ply(self.folder / "meshes" / f"{row:06d}.ply", surface.vertices, surface.faces, colours, *known)
        tracks = result.tracks
        np.savez(
            self._rows / f"{row:06d}.npz",
            ids=tracks.ids,
            positions=tracks.positions,
            confidence=tracks.confidence,
            observed=tracks.observed,
            stage_names=np.array(list(result.timings), dtype=np.str_),
            stage_seconds=np.array(list(result.timings.values()), dtype=np.float64),
            **_of_camera(result.pose),
            **_motion("", result.patches),
            # The motion of the frame before is known only now, where that frame ended a window.
            **_motion("previous_", result.previous_patches),
        )

    def finish(self, stamps_ns: Int64) -> dict[int, dict[str, float]]:
        """Write ``tracks.npz`` and ``patches.npz`` for T = len(``stamps_ns``) rows; return the timings of each row.

        Rows are read one by one into arrays on disk.
        """
        rows = sorted(int(file.stem) for file in self._rows.glob("*.npz"))
        ids, most = np.empty(0, np.int64), 0
        poses: dict[int, Float64 | None] = {}
        timings = {}
        for row in rows:
            arrays = self._read(row)
            if not np.isin(arrays["ids"], ids).all():
                ids = np.union1d(ids, arrays["ids"])
            most = max(most, *(len(arrays.get(f"{when}centres", ())) for when in ("", "previous_")))
            poses[row] = arrays.get("pose")
            timings[row] = dict(zip(arrays["stage_names"].tolist(), arrays["stage_seconds"].tolist(), strict=True))
        with temporary_arrays(self._rows) as empty:
            self._write_tracks(empty, ids, poses, np.asarray(stamps_ns, np.int64))
        with temporary_arrays(self._rows) as empty:
            self._write_patches(empty, rows, (len(stamps_ns), most))
        return timings

    def _read(self, row: int) -> dict[str, NDArray[Any]]:
        return read_arrays(self._rows / f"{row:06d}.npz")

    def lacks(self, rows: Iterable[int]) -> list[int]:
        """Which of ``rows`` were not added, or are gone."""
        return [row for row in rows if not (self._rows / f"{row:06d}.npz").is_file()]

    def _colour_box(self, result: TrackedFrame) -> tuple[Float64, Float64]:
        """The box of the first frame's surface; kept on disk, so that a continued run uses the same colours."""
        path = self.folder / _COLOURS
        if not path.is_file():
            np.save(path, np.stack(canonical_box(result.canonical)))
        lower, upper = read_array(path)
        return lower, upper

    def _write_tracks(self, empty: Empty, ids: Int64, poses: dict[int, Float64 | None], stamps_ns: Int64) -> None:
        shape = (len(stamps_ns), len(ids))
        positions = empty((*shape, 3), np.float32, np.nan)
        confidence, observed = empty(shape, np.float32, 0), empty(shape, np.bool_, False)
        for row in poses:
            arrays = self._read(row)
            column = np.searchsorted(ids, arrays["ids"])
            positions[row, column] = arrays["positions"]
            confidence[row, column] = arrays["confidence"]
            observed[row, column] = arrays["observed"]
        velocities = empty((*shape, 3), np.float32, np.nan)
        placed = np.array(list(poses), np.int64)
        # Where a recording begins anew, its stamps jump back and so does everything else.
        for run in np.split(placed, np.flatnonzero(np.diff(stamps_ns[placed]) <= 0) + 1):
            views = _views([poses[row] for row in run.tolist()])
            for some in _blocks(len(ids), _HELD // max(len(run), 1)):
                velocities[run, some] = _velocities(positions[run, some], stamps_ns[run], views)
        np.savez(
            self.folder / "tracks.npz",
            positions=positions,
            velocities=velocities,
            ids=ids,
            confidence=confidence,
            observed=observed,
            stamps_ns=stamps_ns,
        )

    def _write_patches(self, empty: Empty, rows: list[int], shape: tuple[int, int]) -> None:
        sides: dict[str, tuple[int, ...]] = {"centres": (3,), "rotations": (3, 3), "translations": (3,)}
        padded = {name: empty((*shape, *side), np.float32, np.nan) for name, side in sides.items()}
        for row, following in itertools.pairwise(rows):
            source, prefix = self._read(following), "previous_"
            if "previous_centres" not in source:
                source, prefix = self._read(row), ""
            for name, values in padded.items():
                motion = source[prefix + name]
                values[row, : len(motion)] = motion
        np.savez(self.folder / "patches.npz", **padded)  # type: ignore[arg-type]


def write_output(output: Path, stamps_ns: Int64, results: Iterable[tuple[int, TrackedFrame]], run: Run) -> Path:
    """Write an OUTPUT in one go, whole or not at all: ``results`` are pairs of row and result."""
    with written_folder(output, RECOGNISED_BY) as folder:
        writer = ResultWriter(folder)
        for row, result in results:
            writer.add(row, result)
        writer.finish(stamps_ns)
        tidy_output(folder)
        run.write(folder)
    return output


def tidy_output(folder: Path) -> None:
    """Remove from an OUTPUT what its arrays were made of; it cannot be added to any more."""
    shutil.rmtree(folder / _ROWS, ignore_errors=True)
    (folder / _COLOURS).unlink(missing_ok=True)


def check_output(output: Path) -> None:
    """Raise an :class:`InputError` when ``output`` is something that must not be replaced."""
    check_replaceable(output, RECOGNISED_BY)


@dataclass(frozen=True)
class Output:
    """An OUTPUT folder, read back; meshes are read when they are asked for, and tracks when they are looked at.

    ``positions`` (T, K, 3) float32 metres, NaN where not tracked; ``ids`` (K,); ``confidence``, ``observed`` (T, K);
    ``stamps_ns`` (T,); ``velocities`` (T, K, 3) m/s, None in a file without them.
    """

    path: Path
    run: Run
    positions: Float32
    ids: Int64
    confidence: Float32
    observed: Bool
    stamps_ns: Int64
    velocities: Float32 | None = None

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def mesh(self, row: int) -> ColouredMesh | None:
        """The mesh of a row, or None where the frame was dropped."""
        path = self.path / "meshes" / f"{row:06d}.ply"
        return read_ply(path) if path.is_file() else None


def read_output(path: Path) -> Output:
    """Open an OUTPUT folder; faults are :class:`InputError`."""
    try:
        stored = mapped_arrays(path / "tracks.npz", reason="bad_output")
        arrays = {name: array for name, array in stored.items() if name in _TRACK_ARRAYS}
        output = Output(path=path, run=Run.read(path), **arrays)
    except (OSError, TypeError) as error:  # no file, or not all of its arrays
        raise InputError("bad_output", f"{path} is no OUTPUT of nr_tracking track: {error}") from None
    sides = {"T": output.stamps_ns.size, "K": output.ids.size, "3": 3}
    for name, letters in _TRACK_ARRAYS.items():
        shape, array = tuple(sides[letter] for letter in letters), arrays.get(name)
        if array is not None and (array.shape != shape or array.dtype.kind not in "fib"):
            what = f"{name} is {array.dtype} {array.shape}, expected numbers {shape}"
            raise InputError("bad_output", f"{path}/tracks.npz: {what}")
    return output


def _blocks(count: int, most: int) -> Iterator[slice]:
    """Slices of ``most`` each, at least one, that cover ``count``."""
    step = max(most, 1)
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def _views(poses: list[Float64 | None]) -> list[Rigid] | None:
    """From each camera to the first one; None unless it is known of all where they were."""
    known = [pose for pose in poses if pose is not None]
    return views_of_first(known) if known and len(known) == len(poses) else None


def _velocities(positions: Float32, stamps_ns: Int64, views: list[Rigid] | None) -> Float32:
    """Velocities (T, K, 3) in the fixed frame, along the axes of each camera: its motion is none of the subject's."""
    if views is None:
        return velocities_of(positions, stamps_ns)
    speeds = velocities_of(seen_from_first(views, positions), stamps_ns)
    return np.stack([view.inverse().vectors(row) for view, row in zip(views, speeds, strict=True)]).astype(np.float32)


def _of_camera(pose: Float64 | None) -> dict[str, Any]:
    return {} if pose is None else {"pose": pose}


def _motion(prefix: str, patches: Patches | None) -> dict[str, Any]:
    return {} if patches is None else {prefix + name: getattr(patches, name) for name in _PATCH_ARRAYS}
