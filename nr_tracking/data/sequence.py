"""SEQUENCE: a depth recording as plain files, so that anyone can bring data without ROS.

::

    camera.json        {"width", "height", "fx", "fy", "cx", "cy", "depth_unit_m", "fps"}
                       and, for a lens, "distortion_model", "distortion" as in sensor_msgs/CameraInfo
    depth/000000.png   uint16, 0 = no depth, numbered without gaps
    mask/000000.png    optional, uint8, non-zero = subject
    stamps.npy         optional (T,) int64 nanoseconds; without it, fps
    poses.npy          optional (T, 4, 4) camera -> world, for a moving camera
    ground_truth.npz   optional: vertices (T, V, 3) float32 metres in the camera optical frame, faces (F, 3) int32

Pixel centres are integers; depth is z, not range.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nr_tracking.arrays import read_array, read_arrays
from nr_tracking.atomic import written_folder
from nr_tracking.data.png import check_size, metres_to_units, read_png, units_to_metres, write_png
from nr_tracking.types import Bool, DepthFrame, Float32, Float64, InputError, Int32, Int64, Intrinsics

_CAMERA_KEYS = ("width", "height", "fx", "fy", "cx", "cy", "depth_unit_m", "fps", "distortion_model", "distortion")
_NEAR_MISS = 0.64  # so alike are a key and a slip of the pen: distorsion, distortion_coefficients; not resolution


@dataclass(frozen=True)
class GroundTruth:
    """The true surface in every frame: ``vertices`` (T, V, 3) float32 metres, ``faces`` (F, 3) int32."""

    vertices: Float32
    faces: Int32


@dataclass(frozen=True)
class Sequence:
    """A SEQUENCE folder, checked; images are read when they are asked for.

    ``stamps_ns`` (T,) int64 as recorded; ``poses`` (T, 4, 4) float64 camera -> world or None. ``notices``: what else
    whoever brought it should know.
    """

    path: Path
    intrinsics: Intrinsics
    depth_unit_m: float
    fps: float
    stamps_ns: Int64
    depth_files: tuple[Path, ...]
    mask_files: tuple[Path, ...] | None
    poses: Float64 | None
    notices: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.depth_files)

    def frame(self, index: int) -> DepthFrame:
        """Read frame ``index``; a broken or unfitting image is an :class:`InputError` that names the file."""
        units = read_png(self.depth_files[index], self.intrinsics, np.uint16)
        mask = None
        if self.mask_files is not None:
            mask = read_png(self.mask_files[index], self.intrinsics, np.uint8) > 0
        return DepthFrame(
            stamp_ns=int(self.stamps_ns[index]),
            depth=units_to_metres(units, self.depth_unit_m),
            intrinsics=self.intrinsics,
            mask=mask,
            pose=None if self.poses is None else self.poses[index],
        )

    def span(self, start: int = 0, count: int | None = None) -> range:
        """Indices of ``count`` frames from ``start`` (None: to the end); fewer at the end of the recording."""
        if not 0 <= start < len(self):
            raise InputError("start_out_of_range", f"start {start}: {self.path} has frames 0 to {len(self) - 1}")
        if count is not None and count < 1:
            raise InputError("no_frames", f"frames {count}: ask for at least one")
        return range(start, len(self) if count is None else min(start + count, len(self)))

    def frames(
        self, start: int = 0, count: int | None = None, on_drop: Callable[[InputError], None] | None = None
    ) -> Iterator[DepthFrame]:
        """Read ``count`` frames from ``start`` (None: to the end) one by one; nothing else is touched.

        A frame that cannot be read is handed to ``on_drop`` and left out. Without ``on_drop`` the error is raised, and
        nothing more can be asked of the iterator.
        """
        return self._read(self.span(start, count), on_drop)

    def _read(self, span: range, on_drop: Callable[[InputError], None] | None) -> Iterator[DepthFrame]:
        for index in span:
            try:
                frame = self.frame(index)
            except InputError as error:
                if on_drop is None:
                    raise
                on_drop(error)
                continue
            yield frame

    def ground_truth(self, start: int = 0, count: int | None = None) -> GroundTruth | None:
        """The true surfaces of the same span, or None where the recording has none."""
        path = self.path / "ground_truth.npz"
        if not path.is_file():
            return None
        arrays = read_arrays(path, ("vertices", "faces"), "bad_ground_truth")
        vertices, faces = arrays["vertices"], arrays["faces"]
        if vertices.ndim != 3 or vertices.shape[2] != 3 or len(vertices) != len(self):
            raise InputError(
                "bad_ground_truth",
                f"{path}: vertices {vertices.shape}, expected ({len(self)}, V, 3), one row for each depth image",
            )
        if vertices.dtype.kind not in "fiu":
            raise InputError("bad_ground_truth", f"{path}: vertices are {vertices.dtype}, expected float32")
        if faces.ndim != 2 or faces.shape[1] != 3 or not np.issubdtype(faces.dtype, np.integer):
            raise InputError(
                "bad_ground_truth", f"{path}: faces are {faces.dtype} {faces.shape}, expected int32 (F, 3)"
            )
        if len(faces) == 0:
            raise InputError("bad_ground_truth", f"{path}: there are no faces, and nothing is scored without a surface")
        if not 0 <= faces.min() <= faces.max() < vertices.shape[1]:
            raise InputError(
                "bad_ground_truth",
                f"{path}: faces name vertices {faces.min()} to {faces.max()}, but there are {vertices.shape[1]}",
            )
        span = self.span(start, count)
        chosen = vertices[span.start : span.stop].astype(np.float32)
        return GroundTruth(_finite(chosen, faces, span.start, path), faces.astype(np.int32))


def _finite(vertices: Float32, faces: Int32, start: int, path: Path) -> Float32:
    """True ``vertices`` (T, V, 3), with those that no face names put beside one that is; :class:`InputError` for NaN.

    Frames are counted from ``start``.
    """
    used = np.zeros(vertices.shape[1], np.bool_)
    used[faces] = True
    known: Bool = np.asarray(np.isfinite(vertices).all(axis=2))
    if bad := np.flatnonzero(~known[:, used].all(axis=1)).tolist():
        raise InputError(
            "bad_ground_truth",
            f"{path}: frame {start + bad[0]} has vertices that are not finite (as have {len(bad)} of {len(known)} "
            "frames): leave out the frames whose surface is not known",
        )
    if not np.ptp(vertices[0][used], axis=0).any():
        raise InputError("bad_ground_truth", f"{path}: all vertices of frame {start} are in one place")
    if not known.all():
        vertices = np.where(known[:, :, None], vertices, vertices[:, [int(faces[0, 0])]])
    return vertices


def is_sequence(path: str | Path) -> bool:
    """Whether ``path`` looks like a SEQUENCE folder (it may still be faulty)."""
    return (Path(path) / "camera.json").is_file() or (Path(path) / "depth").is_dir()


def read_sequence(path: str | Path) -> Sequence:
    """Open a SEQUENCE folder and check all of it but the images themselves; faults are :class:`InputError`."""
    path = Path(path)
    if not path.is_dir():
        raise InputError("no_sequence", f"{path} is no folder; a SEQUENCE holds camera.json and depth/000000.png, ...")
    intrinsics, unit, fps, unknown = _read_camera(path / "camera.json")
    depth_files = _numbered(path / "depth")
    if not depth_files:
        raise InputError("no_frames", f"{path}: no depth images; expected {path}/depth/000000.png, 000001.png, ...")
    mask_files = _matching_masks(path / "mask", depth_files) if (path / "mask").is_dir() else None
    count = len(depth_files)
    return Sequence(
        path=path,
        intrinsics=intrinsics,
        depth_unit_m=unit,
        fps=fps,
        stamps_ns=_read_stamps(path / "stamps.npy", count, fps),
        depth_files=depth_files,
        mask_files=mask_files,
        poses=_read_poses(path / "poses.npy", count),
        notices=(f"camera.json: {', '.join(unknown)} not known, and of no effect",) if unknown else (),
    )


def write_sequence(
    path: str | Path,
    frames: Iterable[DepthFrame],
    *,
    fps: float,
    depth_unit_m: float = 0.001,
    ground_truth: GroundTruth | None = None,
) -> Path:
    """Write frames as a SEQUENCE, whole or not at all; an existing SEQUENCE of that name is replaced.

    Masks and poses are written when every frame has one. Depth that does not fit 16 bits of ``depth_unit_m`` is an
    :class:`InputError`, as is a change of intrinsics on the way.
    """
    path = Path(path)
    with written_folder(path, recognised_by="camera.json") as folder:
        (folder / "depth").mkdir()
        stamps: list[int] = []
        poses: list[Float64] = []
        masks = 0
        intrinsics: Intrinsics | None = None
        for index, frame in enumerate(frames):
            if intrinsics is not None and frame.intrinsics != intrinsics:
                raise InputError("intrinsics_changed", f"frame {index}: the intrinsics differ from those of frame 0")
            intrinsics = frame.intrinsics
            write_png(folder / "depth" / f"{index:06d}.png", metres_to_units(frame.depth, depth_unit_m))
            if frame.mask is not None:
                (folder / "mask").mkdir(exist_ok=True)
                write_png(folder / "mask" / f"{index:06d}.png", np.where(frame.mask, 255, 0).astype(np.uint8))
                masks += 1
            if frame.pose is not None:
                poses.append(np.asarray(frame.pose, np.float64))
            stamps.append(frame.stamp_ns)
        if intrinsics is None:
            raise InputError("no_frames", f"{path}: there is no frame to write")
        for what, number in (("mask", masks), ("pose", len(poses))):
            if number not in (0, len(stamps)):
                raise InputError(f"bad_{what}", f"{number} of {len(stamps)} frames have a {what}; give all or none")
        (folder / "camera.json").write_text(_camera_json(intrinsics, depth_unit_m, fps))
        np.save(folder / "stamps.npy", np.array(stamps, np.int64))
        if poses:
            np.save(folder / "poses.npy", np.stack(poses))
        if ground_truth is not None:
            if len(ground_truth.vertices) != len(stamps):
                raise InputError(
                    "bad_ground_truth", f"ground truth of {len(ground_truth.vertices)} frames for {len(stamps)} images"
                )
            np.savez(
                folder / "ground_truth.npz",
                vertices=np.asarray(ground_truth.vertices, np.float32),
                faces=np.asarray(ground_truth.faces, np.int32),
            )
    return path


def _read_camera(path: Path) -> tuple[Intrinsics, float, float, list[str]]:
    """The camera, the depth unit in metres, frames per second, and the keys that nobody reads."""
    if not path.is_file():
        raise InputError("no_camera", f"{path} is missing: it holds width, height, fx, fy, cx, cy, depth_unit_m, fps")
    try:
        values = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise InputError("bad_camera", f"{path} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise InputError("bad_camera", f"{path} must hold one JSON object, not {type(values).__name__}")
    unknown = _unknown_keys(values, path)
    numbers = {key: _number(values, key, path) for key in ("width", "height", "fx", "fy", "cx", "cy", "depth_unit_m")}
    fps = _number(values, "fps", path) if "fps" in values or not (path.parent / "stamps.npy").is_file() else 30.0
    for key in ("fx", "fy"):
        if numbers[key] <= 0:
            raise InputError(
                "zero_focal_length", f"{path}: {key} is {numbers[key]}; a focal length in pixels is positive"
            )
    for key in ("width", "height"):
        if numbers[key] < 1 or numbers[key] != int(numbers[key]):
            raise InputError(
                "bad_camera", f"{path}: {key} is {numbers[key]}; expected a positive whole number of pixels"
            )
    check_size(int(numbers["width"]), int(numbers["height"]), f"{path}: width and height of the camera")
    if numbers["depth_unit_m"] <= 0 or fps <= 0:
        raise InputError("bad_camera", f"{path}: depth_unit_m {numbers['depth_unit_m']} and fps {fps} must be positive")
    distortion = values.get("distortion", [])
    if not isinstance(distortion, list) or not all(map(_is_number, distortion)):
        raise InputError("bad_camera", f"{path}: distortion is {distortion!r}; expected a list of numbers")
    intrinsics = Intrinsics(
        width=int(numbers["width"]),
        height=int(numbers["height"]),
        fx=numbers["fx"],
        fy=numbers["fy"],
        cx=numbers["cx"],
        cy=numbers["cy"],
        distortion_model=str(values.get("distortion_model", "none")),
        distortion=tuple(float(value) for value in distortion),
    )
    return intrinsics, numbers["depth_unit_m"], fps, unknown


def _unknown_keys(values: dict[str, Any], path: Path) -> list[str]:
    """Keys that other tools may have written; one that is nearly that of a value which is missing is an error."""
    unknown = [key for key in values if key not in _CAMERA_KEYS]
    for key in unknown:
        missing = [name for name in _CAMERA_KEYS if name not in values]
        if close := difflib.get_close_matches(key.lower(), missing, n=1, cutoff=_NEAR_MISS):
            raise InputError("bad_camera", f"{path}: {key} is not known; did you mean {close[0]!r}?")
    return unknown


def _number(values: dict[str, Any], key: str, path: Path) -> float:
    if key not in values:
        raise InputError("bad_camera", f"{path}: {key} is missing; it has {', '.join(sorted(values)) or 'nothing'}")
    value = values[key]
    if not _is_number(value):
        raise InputError("bad_camera", f"{path}: {key} is {value!r}; expected a number")
    return float(value)


def _is_number(value: object) -> bool:
    """Whether JSON gave a number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:  # whole numbers have any length in JSON
        return False


def _camera_json(intrinsics: Intrinsics, depth_unit_m: float, fps: float) -> str:
    values: dict[str, Any] = {key: getattr(intrinsics, key) for key in ("width", "height", "fx", "fy", "cx", "cy")}
    values |= {"depth_unit_m": depth_unit_m, "fps": fps}
    if intrinsics.distortion_model != "none":
        values |= {"distortion_model": intrinsics.distortion_model, "distortion": list(intrinsics.distortion)}
    return json.dumps(values, indent=2) + "\n"


def _numbered(folder: Path) -> tuple[Path, ...]:
    """The PNG files of a folder in the order of their numbers, which must run from 0 without a gap."""
    files: dict[int, Path] = {}
    for file in sorted(folder.glob("*.png")):
        if not (file.stem.isascii() and file.stem.isdigit()):
            raise InputError("bad_file_name", f"{file}: expected a frame number, such as 000000.png")
        if int(file.stem) in files:
            raise InputError("bad_file_name", f"{file} and {files[int(file.stem)].name} have the same frame number")
        files[int(file.stem)] = file
    missing = next((index for index in range(len(files)) if index not in files), None)
    if missing is not None:
        raise InputError(
            "missing_frame", f"{folder}: {missing:06d}.png is missing; frames are numbered from 0, no gaps"
        )
    return tuple(files[index] for index in range(len(files)))


def _matching_masks(folder: Path, depth_files: tuple[Path, ...]) -> tuple[Path, ...]:
    masks = tuple(folder / file.name for file in depth_files)
    missing = [mask.name for mask in masks if not mask.is_file()]
    if missing:
        raise InputError(
            "missing_mask",
            f"{folder}: {missing[0]} is missing ({len(missing)} in all); give every depth image a mask or none",
        )
    return masks


def _read_stamps(path: Path, count: int, fps: float) -> Int64:
    if not path.is_file():
        return np.round(np.arange(count) * (1e9 / fps)).astype(np.int64)
    stamps = read_array(path, "bad_file")
    if stamps.shape != (count,) or not np.issubdtype(stamps.dtype, np.integer):
        raise InputError(
            "bad_stamps", f"{path}: {stamps.dtype} {stamps.shape}, expected int64 ({count},), one for each depth image"
        )
    return stamps.astype(np.int64)


def _read_poses(path: Path, count: int) -> Float64 | None:
    if not path.is_file():
        return None
    poses = read_array(path, "bad_file")
    if poses.shape != (count, 4, 4) or not np.issubdtype(poses.dtype, np.floating):
        raise InputError("bad_poses", f"{path}: {poses.dtype} {poses.shape}, expected float64 ({count}, 4, 4)")
    if not np.isfinite(poses).all():
        raise InputError("bad_poses", f"{path}: poses hold values that are not finite")
    return poses.astype(np.float64)
