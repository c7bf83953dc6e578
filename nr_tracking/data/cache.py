"""Training windows on disk: compact shards, a manifest, and a cache that reads them back by number.

A cache is a folder of ``shard_00000.npz, shard_00001.npz, ...`` and ``manifest.json``. Shards appear by rename, so a
reader may open the folder while it still grows and call :meth:`WindowCache.refresh` now and then.

Points are kept as 16-bit places in their frame's bounding box (0.05 mm steps on a person), depth as 16-bit steps
between the nearest and the farthest pixel of the window, both far finer than any sensor; distances were computed at
the very points that come back.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nr_tracking.arrays import read_arrays
from nr_tracking.atomic import written_file
from nr_tracking.types import Bool, Float32, InputError, Intrinsics

FORMAT = 1
SHARD_WINDOWS = 16
"""Windows are made so many at a time: a folder holds whole shards."""
_STEPS = 65_534
_STORED = (
    *("about", "depth", "depth_scale", "points", "points_frame"),
    *("sdf", "surface", "surface_frame", "normals", "visible"),
)


@dataclass(frozen=True)
class WindowSample:
    """N successive observations of one deforming surface and the truth about them.

    Everything is in the camera optical frame, metres; the camera stands still within a window.

    ``depth`` (N, h, w) float32, clean, 0 = no depth; only the subject is in it, and the image is cropped to a box that
    holds it in every frame. ``intrinsics`` are those of the crop. ``points`` (N, Q, 3) and their signed distances
    ``sdf`` (N, Q), negative inside: the first ``near`` of them around the surface, the others uniform in a cube.
    ``surface`` (N, S, 3), ``normals`` (N, S, 3) and ``visible`` (N, S) bool: points evenly by area on the whole
    surface, row s being the same material point in every frame. ``up`` (3,) points against gravity. ``stride``: frames
    of 30 Hz between successive ones.
    """

    depth: Float32
    intrinsics: Intrinsics
    points: Float32
    sdf: Float32
    surface: Float32
    normals: Float32
    visible: Bool
    up: Float32
    near: int
    stride: float
    family: str
    identity: str
    clip: str


def pack_points(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, Q, 3) -> uint16 steps (N, Q, 3) and their frame (N, 2, 3) float32: lower corner and size of one step."""
    low = points.min(1)
    step = np.maximum((points.max(1) - low) / 65_535, 1e-9)
    frame = np.stack([low, step], 1).astype(np.float32)
    steps = np.rint((points - frame[:, :1]) / frame[:, 1:])
    return np.clip(steps, 0, 65_535).astype(np.uint16), frame


def unpack_points(steps: np.ndarray, frame: np.ndarray) -> Float32:
    """The inverse of :func:`pack_points`, up to half a step."""
    return (frame[:, :1] + frame[:, 1:] * steps.astype(np.float32)).astype(np.float32)


def pack_depth(depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, h, w) metres -> compressed bytes (uint8) and their scale (2,) float64: nearest depth, size of one step."""
    valid = depth > 0
    near, far = (float(depth[valid].min()), float(depth[valid].max())) if valid.any() else (0.0, 0.0)
    step = max((far - near) / _STEPS, 1e-9)
    steps = np.where(valid, np.rint((depth - near) / step) + 1, 0).astype(np.uint16)
    # Differences along the rows, their high and low bytes apart, are mostly the same few values.
    change = np.diff(steps, axis=-1, prepend=np.uint16(0))
    planes = np.stack([(change >> 8).astype(np.uint8), (change & 255).astype(np.uint8)])
    return np.frombuffer(zlib.compress(planes.tobytes(), 6), np.uint8), np.array([near, step])


def unpack_depth(data: np.ndarray, scale: np.ndarray, shape: tuple[int, int, int]) -> Float32:
    """The inverse of :func:`pack_depth`, up to half a step."""
    plain = zlib.decompressobj().decompress(data.tobytes(), 2 * math.prod(shape) + 1)
    planes = np.frombuffer(plain, np.uint8).reshape(2, *shape)
    change = (planes[0].astype(np.uint16) << 8) | planes[1]
    steps = np.cumsum(change, axis=-1, dtype=np.uint16)
    return np.where(steps > 0, scale[0] + (steps.astype(np.float64) - 1) * scale[1], 0).astype(np.float32)


def _encode(sample: WindowSample) -> dict[str, np.ndarray]:
    points, points_frame = pack_points(sample.points)
    surface, surface_frame = pack_points(sample.surface)
    depth, depth_scale = pack_depth(sample.depth)
    camera = sample.intrinsics
    about = {
        "intrinsics": [camera.fx, camera.fy, camera.cx, camera.cy],
        "shape": list(sample.depth.shape),
        "up": sample.up.tolist(),
        **{key: getattr(sample, key) for key in ("near", "stride", "family", "identity", "clip")},
    }
    return {
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
        "depth": depth,
        "depth_scale": depth_scale,
        "points": points,
        "points_frame": points_frame,
        "sdf": sample.sdf.astype(np.float16),
        "surface": surface,
        "surface_frame": surface_frame,
        "normals": np.rint(sample.normals * 127).astype(np.int8),
        "visible": np.packbits(sample.visible, axis=-1),
    }


def _decode(stored: dict[str, np.ndarray]) -> WindowSample:
    about = json.loads(stored["about"].tobytes())
    shape = tuple(about["shape"])
    surface = unpack_points(stored["surface"], stored["surface_frame"])
    normals = stored["normals"].astype(np.float32)
    return WindowSample(
        depth=unpack_depth(stored["depth"], stored["depth_scale"], shape),
        intrinsics=Intrinsics(shape[2], shape[1], *about["intrinsics"]),
        points=unpack_points(stored["points"], stored["points_frame"]),
        sdf=stored["sdf"].astype(np.float32),
        surface=surface,
        normals=normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6),
        visible=np.unpackbits(stored["visible"], axis=-1, count=surface.shape[1]).astype(bool),
        up=np.array(about["up"], np.float32),
        **{key: about[key] for key in ("near", "stride", "family", "identity", "clip")},
    )


def shard_name(number: int) -> str:
    """The file of a shard."""
    return f"shard_{number:05d}.npz"


def shard_number(file: str) -> int:
    """The number of the shard in a file of :func:`shard_name`."""
    return int(file.removeprefix("shard_").removesuffix(".npz"))


def write_shard(folder: Path, number: int, samples: list[WindowSample]) -> dict[str, Any]:
    """Write one shard by rename and return its entry for the manifest."""
    arrays = {f"{i:02d}.{key}": value for i, sample in enumerate(samples) for key, value in _encode(sample).items()}
    path = folder / shard_name(number)
    with written_file(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return {
        "file": path.name,
        "windows": len(samples),
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "window_families": [sample.family for sample in samples],
        "identities": sorted({sample.identity for sample in samples}),
        "clips": sorted({f"{sample.identity}/{sample.clip}" for sample in samples}),
    }


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write ``manifest.json`` by rename."""
    with written_file(folder / "manifest.json") as partial:
        partial.write_text(json.dumps(manifest, indent=1, sort_keys=True))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read ``manifest.json``; :class:`InputError` where it is missing, damaged or of another format."""
    path = folder / "manifest.json"
    if not path.is_file():
        raise InputError("no_cache", f"{folder} has no manifest.json: make it with `nr_tracking synthesize {folder}`")
    try:
        manifest = json.loads(path.read_text())
        version = manifest["format"]
    except (ValueError, KeyError, TypeError):
        raise InputError("corrupt_cache", f"{path} is damaged; delete the folder and make it again") from None
    if version != FORMAT:
        raise InputError("cache_format", f"{path} has format {version}, this version reads {FORMAT}: make it again")
    return manifest


class WindowCache:
    """The windows of a folder by number: ``len(cache)``, ``cache[i] -> WindowSample``.

    The numbers of windows never change: new shards come behind, and one that is made again takes its old place. Those
    behind one that is not there wait for it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.families: list[str] = []
        self._index: list[tuple[str, int]] = []
        self._known: set[str] = set()
        self.refresh()

    def refresh(self) -> int:
        """Take up shards written since; returns the number of windows."""
        for entry in read_manifest(self.folder)["shards"]:
            if entry["file"] in self._known:
                continue
            if not (self.folder / entry["file"]).is_file():
                break
            self._known.add(entry["file"])
            self._index += [(entry["file"], i) for i in range(entry["windows"])]
            self.families += entry["window_families"]
        return len(self._index)

    def digest(self) -> str:
        """SHA-256 of how the windows are made, which stays the same while the folder grows."""
        manifest = read_manifest(self.folder)
        made = [manifest.get(key) for key in ("format", "recipe", "versions")]
        return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._index)

    def drawn(self, number: int, epoch: int) -> WindowSample:
        """The window of an epoch: the same in all of them."""
        return self[number]

    def __getitem__(self, number: int) -> WindowSample:
        file, row = self._index[number]
        path, prefix = self.folder / file, f"{row:02d}."
        try:
            stored = read_arrays(path, [prefix + key for key in _STORED])
            return _decode({key: stored[prefix + key] for key in _STORED})
        except (OSError, ValueError, KeyError, TypeError, zlib.error) as error:
            raise InputError("corrupt_cache", f"{path} is damaged ({error}); delete it and resume generation") from None
