"""SEQUENCE folders of a dataset: each sequence seen by a virtual depth camera, with its truth.

The tables that these recordings reproduce render depth from the meshes and do not say from where. Here the camera
stands still, anywhere around the subject and between 20 degrees below and 45 above it, drawn by the seed and the
sequence's name. Over the whole motion nothing of the subject leaves the image: what comes farthest out lies 70 % of the
way from the middle to the border. It stays within the range in which a subject is looked for by default; where no
camera sees all of a long way from that near, the one that comes nearest to it is taken.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from nr_tracking.atomic import prepare_folder, written_folder
from nr_tracking.config import SubjectConfig
from nr_tracking.data.adapters.dataset import Dataset, MeshSequence
from nr_tracking.data.cameras import Camera, draw_camera
from nr_tracking.data.rendering import render_depth
from nr_tracking.data.scans import write_scans
from nr_tracking.data.sensor import SensorModel, structured_light
from nr_tracking.data.sequence import GroundTruth, write_sequence
from nr_tracking.types import DepthFrame, Float32, Int32

DEPTH_UNIT_M = 0.0002
"""Metres per unit of depth; coarser only where a subject goes farther away than 16 bits of it reach."""
GENERATOR = 2
"""Counts the changes after which the same request gives other recordings; those of older ones are made again."""
_SIZE = (640, 480)
_FILL = 0.7
_DRAWS = 64
_NEAREST_M = 0.3
_UNITS = 65_000  # of the 65,535 that 16 bits have: some are left for what a sensor takes to be farther than it is
_RANGE_M = SubjectConfig().depth_max_m


def record_dataset(
    dataset: Dataset,
    names: list[str],
    output: Path,
    *,
    fold: str = "",
    frames: int | None = None,
    noisy: bool = False,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> list[Path]:
    """Write a SEQUENCE folder for each of ``names``; those that are there from the same request are kept.

    ``frames``: at most so many of each sequence, from its beginning. ``noisy``: through a structured-light camera.
    ``fold`` names the split, by which tables of scores are grouped.
    """
    prepare_folder(output)
    paths = []
    for name in names:
        path = output / name.replace("/", "_")
        family = f"{dataset.name} {fold}".strip()
        meta = {"family": family, "sequence": name, "seed": seed, "frames": frames, "noisy": noisy}
        meta |= {"generator": GENERATOR}
        if not _same_request(path / "meta.json", meta):
            motion = dataset.read(name, frames)
            farthest = _record(motion, path, meta, structured_light() if noisy else None)
            beyond = f", up to {farthest:.1f} m away: raise subject.depth_max_m" if farthest > _RANGE_M else ""
            report(f"{path.name}: {len(motion)} frames{beyond}")
        paths.append(path)
    return paths


def _record(motion: MeshSequence, path: Path, meta: dict[str, object], sensor: SensorModel | None) -> float:
    """Write one recording, and return how far its farthest point is from the camera."""
    rng = np.random.default_rng([int(str(meta["seed"])), zlib.crc32(motion.name.encode())])
    camera, farthest = _camera_within_range(motion.vertices, rng)
    truth = GroundTruth(_seen_by(camera, motion.vertices), motion.faces)
    scans = [(_seen_by(camera, scan), faces) for scan, faces in motion.scans]
    with written_folder(path, recognised_by="camera.json") as folder:
        surfaces = scans or [(surface, motion.faces) for surface in truth.vertices]
        unit = max(DEPTH_UNIT_M, farthest / _UNITS)
        shots = _shots(surfaces, camera, motion.fps, sensor, rng, reach=unit * np.iinfo(np.uint16).max)
        written = write_sequence(folder / "sequence", shots, fps=motion.fps, depth_unit_m=unit, ground_truth=truth)
        if scans:
            write_scans(written, scans)
        (written / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")
        for child in list(written.iterdir()):
            child.rename(folder / child.name)
        written.rmdir()
    return farthest


def _camera_within_range(subject: Float32, rng: np.random.Generator) -> tuple[Camera, float]:
    """A camera that sees all of ``subject`` (T, V, 3) within what is looked at, and how far its farthest point is.

    Of a few draws the first that is so, else that which comes nearest to it; all of them see all of the subject.
    """
    best: tuple[Camera, float] | None = None
    for _ in range(_DRAWS):
        camera = _filled(draw_camera(subject, rng, size=_SIZE, fill=_FILL, aim_off=0.0), subject)
        farthest = float(camera.to_camera(subject)[..., 2].max())
        if best is None or farthest < best[1]:
            best = camera, farthest
        if farthest <= _RANGE_M:
            break
    assert best is not None
    return best


def _filled(camera: Camera, subject: Float32) -> Camera:
    """The camera moved along its view until what comes farthest out of ``subject`` (T, V, 3) fills its share exactly.

    A point before or behind the middle of the subject comes out farther, or less far, than one at its depth.
    """
    points, lens = camera.to_camera(subject.reshape(-1, 3).astype(np.float64)), camera.intrinsics
    middle = np.array([lens.width - 1, lens.height - 1]) / 2
    border = _FILL * np.array([lens.width, lens.height]) / 2
    centre = middle - (lens.cx, lens.cy)  # of the image, from where the optical axis meets it
    # A point (x, z) is within x f <= (centre + border) z and x f >= (centre - border) z, which hold from some z on.
    reach = points[:, :2] * (lens.fx, lens.fy)
    needed = np.maximum(reach / (centre + border), reach / (centre - border)).max(1)
    step = max(float((needed - points[:, 2]).max()), _NEAREST_M - float(points[:, 2].min()))
    return replace(camera, translation=camera.translation + np.array([0, 0, step]))


def _shots(
    surfaces: list[tuple[Float32, Int32]],
    camera: Camera,
    fps: float,
    sensor: SensorModel | None,
    rng: np.random.Generator,
    reach: float,
) -> Iterator[DepthFrame]:
    """Images of the surfaces; what a sensor takes to be beyond ``reach`` metres gives no depth."""
    for number, (vertices, faces) in enumerate(surfaces):
        depth = render_depth(vertices, faces, camera.intrinsics)
        if sensor is not None:
            depth = sensor(depth, camera.intrinsics, rng)
            depth[depth > reach] = 0
        yield DepthFrame(round(number / fps * 1e9), depth, camera.intrinsics)


def _seen_by(camera: Camera, vertices: Float32) -> Float32:
    return camera.to_camera(vertices.astype(np.float64)).astype(np.float32)


def _same_request(path: Path, meta: dict[str, object]) -> bool:
    try:
        return bool(json.loads(path.read_text()) == meta)
    except (OSError, ValueError):
        return False
