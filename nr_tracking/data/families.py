"""The families of characters that windows are made of, each behind one call.

A family is a function ``(rng, split) -> Performer``: it draws somebody of that split. A performer is a function
``(rng, frames) -> Clip`` at 30 Hz: it draws a motion of that split. Drawing somebody is dear, a motion is cheap.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np

from nr_tracking.data.clips import Clip, vertex_normals
from nr_tracking.data.gltf import GltfCharacter, read_gltf
from nr_tracking.data.objects import KINDS, object_clip
from nr_tracking.data.procedural import procedural_clip
from nr_tracking.data.remeshing import carry, smooth, wrap
from nr_tracking.data.skeleton import blend
from nr_tracking.data.splits import Split, body_seed, character_name, motion_name, split_of_character, split_of_motion
from nr_tracking.types import InputError

Performer = Callable[[np.random.Generator, int], Clip]
Family = Callable[[np.random.Generator, Split], Performer]

FPS = 30.0
BODIES = {"train": 100_000, "val": 40, "test": 40}
"""Random bodies of each split."""
CALM = re.compile("idle|sitting|standing")
"""Motions in which little moves; drawn less often."""


def data_folder() -> Path | None:
    """The folder named by the environment variable NR_TRACKING_DATA, or None where it is not set."""
    folder = os.environ.get("NR_TRACKING_DATA", "")
    if not folder:
        return None
    if not Path(folder).is_dir():
        raise InputError("no_data", f"NR_TRACKING_DATA is {folder!r}, which is no folder: unset it or mend it")
    return Path(folder)


def procedural(rng: np.random.Generator, split: Split) -> Performer:
    """Generated people and four-legged animals; a number always gives the same body."""
    number = int(rng.integers(BODIES[split]))

    def perform(motion_rng: np.random.Generator, frames: int) -> Clip:
        kind = "person" if number % 5 < 3 else "quadruped"
        body = np.random.default_rng(body_seed(split, "procedural", number))
        return procedural_clip(motion_rng, frames, FPS, identity=f"{kind}-{split}-{number}", kind=kind, body=body)

    return perform


def thing(rng: np.random.Generator, split: Split) -> Performer:
    """Tubes, slabs, balls, lumps and rings."""
    number = int(rng.integers(BODIES[split]))
    kind = KINDS[number % len(KINDS)]

    def perform(motion_rng: np.random.Generator, frames: int) -> Clip:
        body = np.random.default_rng(body_seed(split, "object", number))
        return object_clip(motion_rng, frames, FPS, identity=f"{kind}-{split}-{number}", kind=kind, body=body)

    return perform


def animal(rng: np.random.Generator, split: Split) -> Performer:
    """Animated glTF animals with varied proportions and girth, from round to edged."""
    return _gltf_performer("animal", "animals", rng, split, (0.5, 2.0))


def person(rng: np.random.Generator, split: Split) -> Performer:
    """Animated glTF people with varied proportions and girth."""
    return _gltf_performer("person", "people", rng, split, (1.5, 1.9))


def _gltf_performer(
    family: str, folder: str, rng: np.random.Generator, split: Split, size_range: tuple[float, float]
) -> Performer:
    files = [path for path in gltf_files(folder) if split_of_character(path.stem) == split]
    if not files:
        raise InputError("no_data", f"no {split} characters in {data_folder()}/characters/{folder}")
    path = files[rng.integers(len(files))]
    character, vertices, faces, weights = wrapped(path)
    # Animated extents are what counts: some files bind in centimetres and animate in metres.
    vertices = _varied(vertices, faces, rng)
    proportions = _proportions(character, rng)
    squash = rng.uniform(0.88, 1.12, 3)
    size = rng.uniform(*size_range)
    names = [name for name in character.clips if split_of_motion(name) == split and character.duration(name) > 0.2]

    def perform(motion_rng: np.random.Generator, frames: int) -> Clip:
        if not names:
            raise InputError("no_data", f"{path.stem} has no {split} motion")
        calm = np.array([0.3 if CALM.search(name.lower()) else 1.0 for name in names])
        name = names[motion_rng.choice(len(names), p=calm / calm.sum())]
        speed = motion_rng.uniform(0.7, 1.4)
        duration = character.duration(name)
        start = motion_rng.uniform(0, max(duration - frames * speed / FPS, 0.5 * duration))
        times = start + np.arange(frames) * speed / FPS
        # Short clips are cycles or end in rest: play them there and back rather than stand still.
        times = duration - np.abs(duration - np.mod(times, 2 * duration))
        posed = blend(vertices, weights, character.transforms(name, times, proportions)).astype(np.float64) * squash
        first = blend(vertices, weights, character.transforms(name, np.zeros(1), proportions))[0] * squash
        scale = size / float(np.ptp(first, axis=0).max())
        identity = f"{character_name(path.stem)}"
        return Clip(motion_name(name), family, identity, (posed * scale).astype(np.float32), faces, FPS)

    return perform


def gltf_files(folder: str) -> list[Path]:
    """The .glb files of ``characters/<folder>``, sorted; none without data."""
    data = data_folder()
    return sorted((data / "characters" / folder).glob("*.glb")) if data else []


@lru_cache(maxsize=64)
def wrapped(path: Path) -> tuple[GltfCharacter, np.ndarray, np.ndarray, np.ndarray]:
    """A glTF character, its closed outside in the bind pose, and the skinning weights on that."""
    character = read_gltf(path)
    size = float(np.ptp(character.vertices, axis=0).max())
    vertices, faces = wrap(character.vertices, character.faces, size / 120)
    weights = carry(character.weights, character.vertices, character.faces, vertices)
    return character, vertices, faces, weights


def _varied(vertices: np.ndarray, faces: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rounded off, and thicker here and thinner there, at random."""
    size = float(np.ptp(vertices, axis=0).max())
    vertices = smooth(vertices, faces, int(rng.integers(0, 25)))
    waves = rng.normal(size=(4, 3)) * 5 / size
    bump = np.sin(vertices @ waves.T + rng.uniform(0, 6.3, 4)) @ rng.normal(size=4) * 0.004 * size
    girth = rng.uniform(-0.004, 0.010) * size
    return vertices + vertex_normals(vertices, faces) * (bump + girth)[:, None]


def _proportions(character: GltfCharacter, rng: np.random.Generator) -> np.ndarray:
    """Stretch of every node's axes, up to 15 % along its bone (y) and 10 % across; left and right alike."""
    drawn: dict[str, np.ndarray] = {}
    rows = []
    joints = set(character.joints.tolist())
    for node, name in enumerate(character.names):
        key = name.removesuffix(".L").removesuffix(".R")
        drawn.setdefault(key, rng.uniform([0.92, 0.85, 0.92], [1.1, 1.15, 1.1]))
        rows.append(drawn[key] if node in joints else np.ones(3))
    return np.array(rows)


FAMILIES: dict[str, Family] = {"procedural": procedural, "object": thing, "animal": animal, "person": person}


def available_families() -> tuple[str, ...]:
    """The families that can be drawn here: without data files, those that need none."""
    names = ["procedural", "object"]
    names += [name for name, folder in (("person", "people"), ("animal", "animals")) if gltf_files(folder)]
    return tuple(names)
