"""The families of characters that windows are made of, each behind one call.

A family is a function ``(rng, split) -> Performer``: it draws somebody of that split. A performer is a function
``(rng, frames) -> Clip`` at 30 Hz: it draws a motion of that split. Drawing somebody is dear, a motion is cheap.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np

from nr_tracking.data.capsules import fitted
from nr_tracking.data.character import Character
from nr_tracking.data.clips import Clip
from nr_tracking.data.fabric import fabric_clip
from nr_tracking.data.gaits import restless
from nr_tracking.data.gltf import GltfCharacter, read_gltf
from nr_tracking.data.hands import hand_clip
from nr_tracking.data.makehuman import MakeHuman
from nr_tracking.data.motions import draw_motion
from nr_tracking.data.objects import KINDS, object_clip
from nr_tracking.data.procedural import procedural_clip
from nr_tracking.data.remeshing import carry, smooth, wrap
from nr_tracking.data.skeleton import Skeleton, blend, segment_distance
from nr_tracking.data.splits import Split, body_seed, character_name, motion_name, split_of_character, split_of_motion
from nr_tracking.normals import vertex_normals
from nr_tracking.types import InputError

Performer = Callable[[np.random.Generator, int], Clip]
Family = Callable[[np.random.Generator, Split], Performer]

FPS = 30.0
BODIES = {"train": 100_000, "val": 40, "test": 40}
"""Random bodies of each split."""
_BODIES_OF_FIVE = ("person", "person", "person", "quadruped", "quadruped")
_SPECIES = 1.8
"""How much further than people's the proportions of animals go in training, where there are few kinds of them."""
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
    """Generated people and four-legged animals."""
    return _made_up("procedural", procedural_clip, rng, split, lambda number: _BODIES_OF_FIVE[number % 5])


def thing(rng: np.random.Generator, split: Split) -> Performer:
    """Tubes, slabs, balls, lumps and rings."""
    return _made_up("object", object_clip, rng, split, lambda number: KINDS[number % len(KINDS)])


def cloth(rng: np.random.Generator, split: Split) -> Performer:
    """Thin pieces of cloth that hang, fly or are shaken."""
    return _made_up("cloth", fabric_clip, rng, split)


def hand(rng: np.random.Generator, split: Split) -> Performer:
    """Single hands on a piece of forearm."""
    return _made_up("hand", hand_clip, rng, split)


def _made_up(
    family: str,
    clip_of: Callable[..., Clip],
    rng: np.random.Generator,
    split: Split,
    kind_of: Callable[[int], str] | None = None,
) -> Performer:
    """Bodies that need no files; a number always gives the same one, of the kind that ``kind_of`` says, if it does."""
    number = int(rng.integers(BODIES[split]))
    kind = {} if kind_of is None else {"kind": kind_of(number)}
    identity = f"{kind.get('kind', family)}-{split}-{number}"

    def perform(motion_rng: np.random.Generator, frames: int) -> Clip:
        body = np.random.default_rng(body_seed(split, family, number))
        return clip_of(motion_rng, frames, FPS, identity=identity, body=body, **kind)

    return perform


def animal(rng: np.random.Generator, split: Split) -> Performer:
    """Animated glTF animals with varied proportions and girth, from round to edged."""
    return _gltf_performer("animal", "animals", rng, split, (0.5, 2.0))


def person(rng: np.random.Generator, split: Split) -> Performer:
    """Animated glTF people with varied proportions and girth; half of them perform captured motions and dances."""
    if rng.random() < 0.5:
        return _gltf_performer("person", "people", rng, split, (1.5, 1.9))
    path = _drawn_file("people", rng, split)
    character, vertices, faces, weights = wrapped(path)
    if "HumanArmature" not in character.names:
        return _gltf_performer("person", "people", rng, split, (1.5, 1.9))
    scale = rng.uniform(1.5, 1.9) / float(np.ptp(vertices[:, 1])) * rng.uniform(0.93, 1.07, 3)
    order, skeleton, known_as = human_armature(character, scale)
    rest = _varied(vertices, faces, rng) * scale
    loose = _dress_looseness(rest, skeleton) if "dress" in path.stem.lower() else np.zeros(len(rest))
    weights = weights[:, order]
    firm = loose == 0
    body = Character(
        *("person", character_name(path.stem), rest, faces, weights, skeleton, loose, known_as),
        body=fitted(rest[firm], weights[firm], skeleton),
    )
    return _captured_performer(body, split)


def makehuman(rng: np.random.Generator, split: Split) -> Performer:
    """Clothed MakeHuman people; a number always gives the same person in the same clothes."""
    data = data_folder()
    if data is None:
        raise InputError("no_data", "the family 'makehuman' needs the data that NR_TRACKING_DATA names")
    number = int(rng.integers(BODIES[split]))
    body_rng = np.random.default_rng(body_seed(split, "makehuman", number))
    body = MakeHuman.load(data / "makehuman").draw(body_rng, f"makehuman-{split}-{number}", split)
    return _captured_performer(body, split)


def _captured_performer(body: Character, split: Split) -> Performer:
    warm_up = round(0.5 * FPS)

    def perform(rng: np.random.Generator, frames: int) -> Clip:
        motion = draw_motion(rng, data_folder(), split, warm_up + frames, FPS)
        return body.perform(motion, rng).every(1, warm_up)

    return perform


def human_armature(character: GltfCharacter, scale: np.ndarray) -> tuple[list[int], Skeleton, dict[str, str]]:
    """The skeleton of Quaternius' people in a form that captured motions can drive.

    Their feet hang on a root at the floor, for inverse kinematics; here they hang on the shins. Returns the order of
    the joints' weights, the skeleton in metres (``scale`` per axis) and its joints' roles.
    """
    names = [character.names[node] for node in character.joints]
    above = {name: character.names[character.parents[node]] for name, node in zip(names, character.joints, strict=True)}
    above |= {"Body": "", "Bone": "Body", "Foot.L": "LowerLeg.L", "Foot.R": "LowerLeg.R"}

    def depth(name: str) -> int:
        return 0 if not above[name] else 1 + depth(above[name])

    order = sorted(range(len(names)), key=lambda joint: depth(names[joint]))
    places = character.bind_places() * scale
    ordered = [names[joint] for joint in order]
    heads = places[order]
    tails = heads.copy()
    for joint in reversed(range(len(order))):
        if above[ordered[joint]]:
            tails[ordered.index(above[ordered[joint]])] = heads[joint]
    for side in "LR":
        # The first child listed may be a pole target or a thumb; the limbs' ends are known by name.
        for start, end in (
            ("UpperArm", "LowerArm"),
            ("LowerArm", "Palm"),
            ("UpperLeg", "LowerLeg"),
            ("LowerLeg", "Foot"),
        ):
            tails[ordered.index(f"{start}.{side}")] = heads[ordered.index(f"{end}.{side}")]
    parents = tuple(ordered.index(above[name]) if above[name] else -1 for name in ordered)
    known_as = {"Body": "hips", "Abdomen": "spine", "Torso": "chest", "Neck": "neck", "Head": "head"}
    for side, letter in (("left", "L"), ("right", "R")):
        known_as |= {
            f"{own}.{letter}": f"{side}_{role}"
            for own, role in (
                *(("Shoulder", "collar"), ("UpperArm", "arm"), ("LowerArm", "forearm"), ("Palm", "hand")),
                *(("UpperLeg", "thigh"), ("LowerLeg", "shin"), ("Foot", "foot")),
            )
        }
    return order, Skeleton(tuple(ordered), parents, heads, tails), known_as


def _dress_looseness(rest: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """What hangs between hips and knees, away from the legs' bones, swings."""
    at = {name: joint for joint, name in enumerate(skeleton.names)}
    hips, knee = skeleton.heads[at["UpperLeg.L"], 1], skeleton.heads[at["LowerLeg.L"], 1]
    down = np.clip((hips - rest[:, 1]) / (hips - knee), 0, 1) * (rest[:, 1] > 0.9 * knee)
    out = np.min(
        [
            segment_distance(rest, skeleton.heads[at[f"UpperLeg.{s}"]], skeleton.tails[at[f"UpperLeg.{s}"]])
            for s in "LR"
        ],
        0,
    )
    return 0.8 * down * np.clip(out / (0.25 * (hips - knee)) - 0.5, 0, 1)


def _gltf_performer(
    family: str, folder: str, rng: np.random.Generator, split: Split, size_range: tuple[float, float]
) -> Performer:
    path = _drawn_file(folder, rng, split)
    character, vertices, faces, weights = wrapped(path)
    # Animated extents are what counts: some files bind in centimetres and animate in metres.
    vertices = _varied(vertices, faces, rng)
    proportions = _proportions(character, rng, _SPECIES if (family, split) == ("animal", "train") else 1.0)
    squash = rng.uniform(0.88, 1.12, 3)
    size = rng.uniform(*size_range)
    names = _motions_of(character, split)
    limbs = character.limbs()

    def perform(motion_rng: np.random.Generator, frames: int) -> Clip:
        if not names:
            raise InputError("no_data", f"{path.stem} has no {split} motion")
        calm = np.array([0.3 if CALM.search(name.lower()) else 1.0 for name in names])
        name = names[motion_rng.choice(len(names), p=calm / calm.sum())]
        speed = motion_rng.uniform(0.7, 1.4)
        duration = character.duration(name)
        start = motion_rng.uniform(0, max(duration - frames * speed / FPS, 0.5 * duration))
        since = np.arange(frames) * speed / FPS
        times = start + since
        # Short clips are cycles or end in rest: play them there and back rather than stand still.
        times = duration - np.abs(duration - np.mod(times, 2 * duration))
        # Validation and test show the motions as they were made.
        turns = restless(motion_rng, limbs, since) if split == "train" else None
        transforms = character.transforms(name, times, proportions, turns)
        posed = blend(vertices, weights, transforms).astype(np.float64) * squash
        first = blend(vertices, weights, character.transforms(name, np.zeros(1), proportions))[0] * squash
        scale = size / float(np.ptp(first, axis=0).max())
        identity = f"{character_name(path.stem)}"
        return Clip(motion_name(name), family, identity, (posed * scale).astype(np.float32), faces, FPS)

    return perform


def _drawn_file(folder: str, rng: np.random.Generator, split: Split) -> Path:
    files = [path for path in gltf_files(folder) if split_of_character(path.stem) == split]
    if not files:
        raise InputError("no_data", f"no {split} characters in {data_folder()}/characters/{folder}")
    return files[rng.integers(len(files))]


def gltf_files(folder: str) -> list[Path]:
    """The .glb files of ``characters/<folder>``, sorted; none without data."""
    data = data_folder()
    return sorted((data / "characters" / folder).glob("*.glb")) if data else []


@lru_cache(maxsize=64)
def wrapped(path: Path) -> tuple[GltfCharacter, np.ndarray, np.ndarray, np.ndarray]:
    """A glTF character, its closed outside in the bind pose, and the skinning weights on that."""
    character = read_gltf(path)
    size = float(np.ptp(character.vertices, axis=0).max())
    vertices, faces = wrap(character.vertices, character.faces, size / 105)
    weights = carry(character.weights, character.vertices, character.faces, vertices)
    return character, vertices, faces, weights


def _motions_of(character: GltfCharacter, split: Split) -> list[str]:
    """The split's motions among a character's own; a test character without any performs other held-out ones."""
    moving = [name for name in character.clips if character.duration(name) > 0.2]
    own = [name for name in moving if split_of_motion(name) == split]
    return own or [name for name in moving if split == "test" and split_of_motion(name) == "val"]


def _varied(vertices: np.ndarray, faces: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rounded off, and thicker here and thinner there, at random."""
    size = float(np.ptp(vertices, axis=0).max())
    vertices = smooth(vertices, faces, int(rng.integers(0, 16)))
    waves = rng.normal(size=(4, 3)) * 5 / size
    bump = np.sin(vertices @ waves.T + rng.uniform(0, 6.3, 4)) @ rng.normal(size=4) * 0.0025
    # Never much thinner: fingers and shins would turn inside out.
    grown = np.clip(bump + rng.uniform(-0.001, 0.009), -0.001, 0.02) * size
    return vertices + vertex_normals(vertices, faces) * grown[:, None]


def _proportions(character: GltfCharacter, rng: np.random.Generator, spread: float) -> np.ndarray:
    """Stretch of every node's axes, left and right alike.

    Up to 15 % along its bone (y) and 10 % across, times ``spread``.
    """
    least, most = 1 + spread * (np.array([[0.92, 0.85, 0.92], [1.1, 1.15, 1.1]]) - 1)
    drawn: dict[str, np.ndarray] = {}
    rows = []
    joints = set(character.joints.tolist())
    for node, name in enumerate(character.names):
        key = name.removesuffix(".L").removesuffix(".R")
        drawn.setdefault(key, rng.uniform(least, most))
        rows.append(drawn[key] if node in joints else np.ones(3))
    return np.array(rows)


FAMILIES: dict[str, Family] = {
    "makehuman": makehuman,
    "person": person,
    "animal": animal,
    "procedural": procedural,
    "object": thing,
    "cloth": cloth,
    "hand": hand,
}


def check_amounts(amounts: Mapping[str, float], of: Literal["share", "count"], available: tuple[str, ...]) -> None:
    """Raise :class:`InputError` unless all families are known and ``available``, and none is negative."""
    for family, amount in amounts.items():
        if family not in FAMILIES:
            raise InputError("unknown_family", f"family {family!r} is none of {', '.join(FAMILIES)}")
        if family not in available:
            raise InputError("no_data", f"family {family!r} needs the data that NR_TRACKING_DATA names")
        if amount < 0:
            raise InputError(f"negative_{of}", f"family {family!r} has the {of} {amount}: give 0 or more")


def available_families() -> tuple[str, ...]:
    """The families that can be drawn here: without data files, those that need none."""
    names = ["procedural", "object", "cloth", "hand"]
    names += [name for name, folder in (("person", "people"), ("animal", "animals")) if gltf_files(folder)]
    data = data_folder()
    if data and (data / "makehuman" / "base" / "base.obj").is_file():
        names.append("makehuman")
    return tuple(names)
