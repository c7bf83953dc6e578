"""Recordings of held-out characters with their true surfaces, to validate and to test on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nr_tracking.atomic import prepare_folder, written_file
from nr_tracking.data.cameras import Camera, draw_camera
from nr_tracking.data.clips import Clip, static_correspondence_error
from nr_tracking.data.clutter import furnished
from nr_tracking.data.families import FAMILIES, available_families, check_amounts
from nr_tracking.data.occluders import occlude
from nr_tracking.data.rendering import render_depth
from nr_tracking.data.sensor import SensorModel, structured_light, time_of_flight
from nr_tracking.data.sequence import GroundTruth, read_sequence, write_sequence
from nr_tracking.data.splits import SPLITS, Split
from nr_tracking.data.synthesize import GENERATOR, differences
from nr_tracking.types import DepthFrame, InputError

FRAMES = 21
PROTOCOL_FRAMES = 17
LEAST_MOTION = {
    "makehuman": 0.06,
    "person": 0.06,
    "procedural": 0.06,
    "animal": 0.02,
    "object": 0.06,
    "cloth": 0.06,
    "hand": 0.06,
}
"""Least mean distance of the surface's points from where they began, first longest edge = 1."""
MOST_MOTION = 0.16
"""Beyond it, a subject leaves the place or turns round within half a second."""
COUNTS: dict[Split, dict[str, int]] = {
    "train": {"makehuman": 3, "person": 2, "animal": 3, "procedural": 1},
    "val": {"makehuman": 3, "person": 2, "animal": 3, "procedural": 1, "cloth": 1, "hand": 1},
    "test": {"makehuman": 3, "person": 2, "animal": 3, "procedural": 1, "object": 1, "cloth": 1, "hand": 1},
}
"""Recordings of each family; no draw of one depends on those before it."""
DEPTH_UNIT_M = 0.0002
MANIFEST = "recordings.json"
"""Says beside the recordings what was asked for."""
_SIZE = (640, 480)
_SEEDS = {"animal": 0, "makehuman": 1, "object": 2, "person": 3, "procedural": 4, "cloth": 5, "hand": 6}
"""Part of the seed of a family's recordings: a new family takes a new number, and all others' stay as they are."""


def record(
    clip: Clip,
    camera: Camera,
    sensor: SensorModel | None = None,
    rng: np.random.Generator | None = None,
    *,
    occluded: bool = False,
    cluttered: bool = False,
) -> tuple[list[DepthFrame], GroundTruth]:
    """Depth frames of a clip seen by ``camera``, through a noisy ``sensor`` where one is given, and the truth.

    With ``occluded``, something stands before the subject, and the frames have masks that leave it out; with
    ``cluttered``, it stands in a room with boxes, on a floor that the camera has to be above.
    """
    vertices = camera.to_camera(clip.vertices.astype(np.float64)).astype(np.float32)
    lens = camera.intrinsics
    depth = np.stack([render_depth(surface, clip.faces, lens) for surface in vertices])
    mask = depth > 0
    if occluded:
        depth, mask = occlude(depth, mask, lens, rng or np.random.default_rng(0))
    if cluttered:
        depth = furnished(depth, vertices, camera.up, lens, rng or np.random.default_rng(0))
    frames = []
    for number, image in enumerate(depth):
        if sensor is not None:
            image = sensor(image, lens, rng or np.random.default_rng(number))
        subject = mask[number] & (image > 0) if occluded else None
        frames.append(DepthFrame(round(number / clip.fps * 1e9), image, lens, subject))
    return frames, GroundTruth(vertices, clip.faces)


def make_recordings(
    output: str | Path,
    *,
    split: Split = "val",
    counts: dict[str, int] | None = None,
    seed: int = 0,
    frames: int = FRAMES,
    noisy: bool = False,
    occluded: bool = False,
    cluttered: bool = False,
    report: Callable[[str], None] = print,
) -> list[Path]:
    """Write SEQUENCE folders ``output/<family>_<number>`` of ``split``'s characters in ``split``'s motions.

    ``counts`` says how many of each family (default :data:`COUNTS`, those that are available), each another body. With
    the same seed, a ``noisy`` set shows the same clips through the same cameras with a sensor's noise; an ``occluded``
    one shows them from near, cut by the border of the image and with something standing before them, with masks; in a
    ``cluttered`` one they stand in a room, and the subject has to be found; a camera that would look from under its
    floor is drawn again. Needs 17 frames; bodies that hardly move, or run out of sight, are drawn again.

    A folder of the same settings is completed: what is there stays. :class:`InputError` where it was made with others,
    or holds recordings that are not whole.
    """
    if split not in SPLITS:
        raise InputError("unknown_split", f"split {split!r} is none of {', '.join(SPLITS)}")
    if frames < PROTOCOL_FRAMES:
        raise InputError("too_few_frames", f"frames = {frames}: recordings have {PROTOCOL_FRAMES} at least")
    available = available_families()
    if counts is None:
        counts = {family: count for family, count in COUNTS[split].items() if family in available}
    check_amounts(counts, "count", available)
    if not any(counts.values()):
        raise InputError("no_families", "no family has a recording to make")
    prepare_folder(Path(output))
    request = {"split": split, "seed": seed, "frames": frames, "generator": GENERATOR}
    request |= {"noisy": noisy, "occluded": occluded, "cluttered": cluttered}
    names = [f"{family}_{number}" for family, count in counts.items() for number in range(count)]
    there = _made_before(Path(output), request, names)
    paths = []
    for family, count in counts.items():
        seen: set[str] = set()
        for number in range(count):
            rng = np.random.default_rng([seed, SPLITS.index(split), _SEEDS[family], number])
            clip = _moving_clip(family, rng, split, frames, seen)
            seen.add(clip.identity)
            path = Path(output) / f"{family}_{number}"
            paths.append(path)
            if path in there:
                report(f"{path.name}: {clip.identity}, {clip.name}, there already")
                continue
            fill, aim_off = (rng.uniform(0.9, 1.3), 0.2) if occluded else (rng.uniform(0.55, 0.9), 0.03)
            camera = draw_camera(clip.vertices, rng, size=_SIZE, fill=fill, aim_off=aim_off)
            # A room has a floor, which a camera below it would see before the subject.
            while cluttered and camera.place[1] <= clip.vertices[..., 1].min():
                camera = draw_camera(clip.vertices, rng, size=_SIZE, fill=fill, aim_off=aim_off)
            sensor = (structured_light, time_of_flight)[number % 2]() if noisy else None
            shots, truth = record(clip, camera, sensor, rng, occluded=occluded, cluttered=cluttered)
            write_sequence(path, shots, fps=clip.fps, depth_unit_m=DEPTH_UNIT_M, ground_truth=truth)
            moved = static_correspondence_error(clip.vertices[:PROTOCOL_FRAMES])
            report(f"{path.name}: {clip.identity}, {clip.name}, static Corr {moved:.3f}")
    return paths


def _made_before(folder: Path, request: dict[str, Any], names: list[str]) -> set[Path]:
    """Those of the recordings of a request that a run of the same request has made; they are whole."""
    there = {path for name in names if (path := folder / name).exists() and not _is_empty(path)}
    manifest = folder / MANIFEST
    if manifest.exists():
        try:
            former = json.loads(manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError("bad_manifest", f"{manifest} cannot be read: {error}; choose another folder") from None
        if former != request:
            made = f"{folder} was made with {'; '.join(differences(former, request))}"
            raise InputError("other_recipe", f"{made}: choose another folder or delete it")
    elif there:
        what = f"{min(there)} is there, and no {MANIFEST} says what it was made with"
        raise InputError("other_recipe", f"{what}: choose another folder or delete it")
    for path in sorted(there):
        if not _is_whole(path, request["frames"]):
            raise InputError("damaged_recording", f"{path} is not whole: delete it, and it is made again")
    with written_file(manifest) as partial:
        partial.write_text(json.dumps(request, indent=1) + "\n", encoding="utf-8")
    return there


def _is_empty(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _is_whole(path: Path, frames: int) -> bool:
    """Whether all images of a recording, and its truth, can be read."""
    try:
        sequence = read_sequence(path)
        return len(list(sequence.frames())) == frames and sequence.ground_truth() is not None
    except InputError:
        return False


def _moving_clip(family: str, rng: np.random.Generator, split: Split, frames: int, seen: set[str]) -> Clip:
    """A clip of somebody new that moves enough."""
    for _ in range(40):
        performer = FAMILIES[family](rng, split)
        for _ in range(6):
            clip = performer(rng, frames)
            if clip.identity in seen:
                break
            if LEAST_MOTION[family] <= static_correspondence_error(clip.vertices[:PROTOCOL_FRAMES]) <= MOST_MOTION:
                return clip
    raise InputError("too_few_characters", f"found no {len(seen) + 1} moving characters in split {split} of {family}")
