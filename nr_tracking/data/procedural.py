"""Bodies that need no files: people in trousers or skirts, and four-legged animals, out of blended cones.

A body is a smooth union of round cones around its bones, turned once into a closed mesh in its rest pose. Proportions,
girths, hats, hair, skirts and tails are drawn at random, so no two are alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nr_tracking.data.capsules import Capsules
from nr_tracking.data.character import Character
from nr_tracking.data.clips import Clip
from nr_tracking.data.gaits import dance, four_legged_gait
from nr_tracking.data.motion import JOINTS
from nr_tracking.data.remeshing import surface_of_field
from nr_tracking.data.skeleton import Skeleton, weights_by_distance

_CELLS = 110
"""Cells of the rest surface along the longest edge of a body."""


@dataclass(frozen=True)
class Cone:
    """A round cone: spheres of radius ``start`` at ``head`` and ``end`` at ``tail`` and all between; ``bone`` moves it.

    ``squeeze`` divides its extent along an axis: (1, 1, 2) is half as thick as wide.
    """

    head: np.ndarray
    tail: np.ndarray
    start: float
    end: float
    bone: int
    squeeze: tuple[float, float, float] = (1.0, 1.0, 1.0)
    loose: bool = False

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Approximate signed distance (Q,)."""
        scale = np.array(self.squeeze)
        along = (self.tail - self.head) * scale
        offset = (points - self.head) * scale
        share = np.clip(offset @ along / max(float(along @ along), 1e-12), 0, 1)
        gap = np.linalg.norm(offset - share[:, None] * along, axis=1) - (self.start + share * (self.end - self.start))
        return gap / scale.max()


def smooth_union(distances: np.ndarray, softness: float) -> np.ndarray:
    """Union of signed distances (K, Q) -> (Q,) with rounded creases of about ``softness`` metres."""
    low = distances.min(0)
    return low - softness * np.log(np.exp(-(distances - low) / softness).sum(0))


def draw_person(rng: np.random.Generator, identity: str = "person") -> Character:
    """A human body of 1.4 to 1.95 m at random; two in three wear a skirt or a coat that swings."""
    height = rng.uniform(1.4, 1.95)
    skeleton = _human_skeleton(rng, height)
    girth = height * rng.uniform(0.85, 1.35)
    at = {name: i for i, name in enumerate(skeleton.names)}
    head, tail = skeleton.heads, skeleton.tails
    cones: list[Cone] = []

    def bone(name: str, start: float, end: float, squeeze: tuple[float, float, float] = (1, 1, 1)) -> None:
        j = at[name]
        cones.append(Cone(head[j], tail[j], start * girth, end * girth, j, squeeze))

    flat = (1.0, 1.0, rng.uniform(1.2, 1.5))
    bone("hips", 0.088 * rng.uniform(0.9, 1.2), 0.085, flat)
    bone("spine", 0.08 * rng.uniform(0.85, 1.35), 0.085, flat)
    bone("chest", 0.092, 0.085 * rng.uniform(0.9, 1.15), flat)
    bone("neck", 0.035, 0.033)
    skull = rng.uniform(0.95, 1.15)
    bone("head", 0.048 * skull, 0.058 * skull)
    for side in ("left", "right"):
        bone(f"{side}_collar", 0.045, 0.042)
        bone(f"{side}_arm", 0.034 * rng.uniform(0.95, 1.05), 0.028)
        bone(f"{side}_forearm", 0.027, 0.019)
        bone(f"{side}_hand", 0.02, 0.014, (1, 1.6, 1))
        bone(f"{side}_thigh", 0.058, 0.04)
        bone(f"{side}_shin", 0.037, 0.024)
        bone(f"{side}_foot", 0.026, 0.022)
        bone(f"{side}_toe", 0.022, 0.016)
    if rng.random() < 0.5:
        j, volume = at["head"], rng.uniform(0.03, 0.07) * girth
        behind = np.array([0, 0, -0.35 * volume])
        down = tail[j] - [0, rng.uniform(0, 0.22) * height, 0.04 * height]
        cones.append(Cone(tail[j] + behind, down, volume, 0.6 * volume, j, loose=True))
    hem = None
    if rng.random() < 0.67:
        hem = _skirt(cones, skeleton, rng, height, girth)
    vertices, faces = surface_of_cones(cones, softness=0.012 * height)
    weights = weights_by_distance(vertices, skeleton, bone_radii(cones, skeleton), 0.022 * height)
    looseness = _looseness(vertices, cones)
    if hem is not None:
        weights = _skirt_weights(vertices, weights, skeleton, looseness)
    return Character(
        *("procedural", identity, vertices, faces, weights, skeleton, looseness),
        known_as={name: name for name in JOINTS},
        body=_capsules(cones),
    )


def draw_quadruped(rng: np.random.Generator, identity: str = "quadruped") -> Character:
    """A four-legged body, 0.4 to 1.8 m long, from sausage dog to giraffe."""
    size = rng.uniform(0.4, 1.8)
    skeleton = _quadruped_skeleton(rng, size)
    at = {name: i for i, name in enumerate(skeleton.names)}
    head, tail = skeleton.heads, skeleton.tails
    cones: list[Cone] = []

    def bone(name: str, start: float, end: float, squeeze: tuple[float, float, float] = (1, 1, 1)) -> None:
        j = at[name]
        cones.append(Cone(head[j], tail[j], start * size, end * size, j, squeeze))

    trunk, belly = rng.uniform(0.09, 0.15), rng.uniform(0.85, 1.25)
    narrow = (rng.uniform(1.0, 1.35), 1.0, 1.0)
    bone("pelvis", trunk * 0.9, trunk * 0.95, narrow)
    bone("spine", trunk * 0.95, trunk * belly, narrow)
    bone("chest", trunk * belly, trunk * 0.95, narrow)
    bone("neck", trunk * rng.uniform(0.5, 0.8), trunk * 0.5)
    skull = trunk * rng.uniform(0.45, 0.7)
    bone("head", skull, skull * rng.uniform(0.35, 0.8))
    thin = rng.uniform(0.4, 1.2)
    for number in range(1, 4):
        bone(f"tail{number}", 0.03 * thin * (1.2 - 0.2 * number), 0.03 * thin * (1.0 - 0.2 * number))
    leg = rng.uniform(0.75, 1.4)
    for end, thick in (("front", 0.042), ("hind", 0.055)):
        for side in ("left", "right"):
            bone(f"{end}_{side}_upper", thick * leg * 1.15, thick * leg * 0.7)
            bone(f"{end}_{side}_lower", thick * leg * 0.65, thick * leg * 0.45)
            bone(f"{end}_{side}_foot", thick * leg * 0.5, thick * leg * 0.42)
    _ears(cones, head[at["head"]], tail[at["head"]], skull * size, at["head"], rng)
    vertices, faces = surface_of_cones(cones, softness=0.018 * size)
    weights = weights_by_distance(vertices, skeleton, bone_radii(cones, skeleton), 0.03 * size)
    looseness = _looseness(vertices, cones)
    return Character("procedural", identity, vertices, faces, weights, skeleton, looseness, body=_capsules(cones))


def procedural_clip(
    rng: np.random.Generator,
    frames: int = 17,
    fps: float = 30.0,
    *,
    identity: str = "",
    kind: str = "",
    body: np.random.Generator | None = None,
) -> Clip:
    """A random body, ``"person"`` or ``"quadruped"`` (either where ``kind`` is empty), moving for ``frames`` frames.

    ``rng`` draws the motion, and the body too unless a generator of its own, ``body``, is given.
    """
    body = body or rng
    kind = kind or ("person" if body.random() < 0.6 else "quadruped")
    warm_up = round(0.5 * fps)
    if kind == "person":
        clip = draw_person(body, identity or "person").perform(dance(rng, warm_up + frames, fps), rng)
    else:
        animal = draw_quadruped(body, identity or "quadruped")
        gait = four_legged_gait(animal.skeleton, rng, warm_up + frames, fps)
        clip = animal.posed(*gait, fps, rng)
    return clip.every(1, warm_up)


def _human_skeleton(rng: np.random.Generator, height: float) -> Skeleton:
    """Joints of :data:`JOINTS`, arms half down, facing +z; limb lengths vary by a tenth."""
    legs, arms, wide = rng.uniform(0.92, 1.08), rng.uniform(0.92, 1.08), rng.uniform(0.88, 1.15)
    places: dict[str, np.ndarray] = {}
    places["hips"] = np.array([0, 0.52 * legs, 0.0])
    for name, above, up in (("spine", "hips", 0.075), ("chest", "spine", 0.11), ("neck", "chest", 0.125)):
        places[name] = places[above] + [0, up, 0]
    places["head"] = places["neck"] + [0, 0.065, 0.01]
    tails = {"hips": places["spine"], "spine": places["chest"], "chest": places["neck"] - [0, 0.03, 0]}
    tails |= {"neck": places["head"], "head": places["head"] + [0, 0.065, 0.01]}
    slope = rng.uniform(0.35, 0.75)
    out = np.array([np.cos(slope), -np.sin(slope), 0.0])
    for side, sign in (("left", 1.0), ("right", -1.0)):
        mirror = np.array([sign, 1, 1])
        places[f"{side}_collar"] = places["neck"] + mirror * [0.02, -0.03, 0]
        places[f"{side}_arm"] = places["neck"] + mirror * [0.105 * wide, -0.045, 0]
        places[f"{side}_forearm"] = places[f"{side}_arm"] + mirror * out * 0.165 * arms
        places[f"{side}_hand"] = places[f"{side}_forearm"] + mirror * (out * 0.145 * arms + [0, 0, 0.01])
        tails[f"{side}_hand"] = places[f"{side}_hand"] + mirror * out * 0.075
        places[f"{side}_thigh"] = places["hips"] + mirror * [0.055 * wide, -0.015, 0]
        places[f"{side}_shin"] = places[f"{side}_thigh"] + mirror * [0.012, -0.24 * legs, 0.005]
        places[f"{side}_foot"] = places[f"{side}_shin"] + mirror * [0.008, -0.23 * legs, -0.005]
        places[f"{side}_toe"] = places[f"{side}_foot"] + mirror * [0.005, -0.015, 0.075]
        tails[f"{side}_toe"] = places[f"{side}_toe"] + [0, 0, 0.03]
        for name, after in (("collar", "arm"), ("arm", "forearm"), ("forearm", "hand")):
            tails[f"{side}_{name}"] = places[f"{side}_{after}"]
        for name, after in (("thigh", "shin"), ("shin", "foot"), ("foot", "toe")):
            tails[f"{side}_{name}"] = places[f"{side}_{after}"]
    parents = {"hips": "", "spine": "hips", "chest": "spine", "neck": "chest", "head": "neck"}
    for side in ("left", "right"):
        parents |= {f"{side}_collar": "chest", f"{side}_thigh": "hips"}
        for name, after in (("collar", "arm"), ("arm", "forearm"), ("forearm", "hand")):
            parents[f"{side}_{after}"] = f"{side}_{name}"
        for name, after in (("thigh", "shin"), ("shin", "foot"), ("foot", "toe")):
            parents[f"{side}_{after}"] = f"{side}_{name}"
    return _skeleton(JOINTS, parents, places, tails, height)


def _quadruped_skeleton(rng: np.random.Generator, size: float) -> Skeleton:
    """Back along +z: pelvis, spine, chest, neck, head, three tail joints, four legs of three joints."""
    leg, reach = rng.uniform(0.3, 0.75), rng.uniform(0.85, 1.15)
    wide, rise = rng.uniform(0.06, 0.1), rng.uniform(0.1, 1.3)
    neck_length = rng.uniform(0.15, 0.5) if rng.random() < 0.8 else rng.uniform(0.5, 0.9)
    places = {"pelvis": np.array([0, leg, -0.28 * reach])}
    places["spine"] = places["pelvis"] + [0, 0.01, 0.16 * reach]
    places["chest"] = places["spine"] + [0, rng.uniform(-0.02, 0.04), 0.2 * reach]
    places["neck"] = places["chest"] + [0, 0.03, 0.16 * reach]
    places["head"] = places["neck"] + neck_length * np.array([0, np.sin(rise), np.cos(rise)])
    nose = rng.uniform(0.12, 0.24) * np.array([0, -rng.uniform(0.0, 0.6), 1.0])
    tails = {"pelvis": places["spine"], "spine": places["chest"], "chest": places["neck"]}
    tails |= {"neck": places["head"], "head": places["head"] + nose}
    parents = {"pelvis": "", "spine": "pelvis", "chest": "spine", "neck": "chest", "head": "neck"}
    tail = rng.uniform(0.03, 0.2) * np.array([0, rng.uniform(-0.9, 0.6), -1.0])
    root = places["pelvis"] + [0, 0.03, -0.06]
    for number in range(1, 4):
        places[f"tail{number}"] = root + (number - 1) * tail
        tails[f"tail{number}"] = root + number * tail
        parents[f"tail{number}"] = f"tail{number - 1}" if number > 1 else "pelvis"
    for end, base, bend in (("front", "neck", -0.04), ("hind", "pelvis", 0.05)):
        for side, sign in (("left", 1.0), ("right", -1.0)):
            top = places[base] + [sign * wide, -0.06, -0.02]
            knee = np.add(top, [sign * 0.01, -0.5 * (top[1] - 0.03), bend])
            ankle = np.array([knee[0], 0.09 * leg + 0.02, top[2] - 0.3 * bend])
            toe = np.array([ankle[0], 0.02, ankle[2] + 0.05])
            for name, start, stop, above in (
                ("upper", top, knee, "chest" if end == "front" else "pelvis"),
                ("lower", knee, ankle, f"{end}_{side}_upper"),
                ("foot", ankle, toe, f"{end}_{side}_lower"),
            ):
                places[f"{end}_{side}_{name}"], tails[f"{end}_{side}_{name}"] = start, stop
                parents[f"{end}_{side}_{name}"] = above
    return _skeleton(tuple(places), parents, places, tails, size)


def _skeleton(
    names: tuple[str, ...],
    parents: dict[str, str],
    places: dict[str, np.ndarray],
    tails: dict[str, np.ndarray],
    size: float,
) -> Skeleton:
    above = tuple(names.index(parents[name]) if parents[name] else -1 for name in names)
    return Skeleton(
        names, above, size * np.array([places[n] for n in names]), size * np.array([tails[n] for n in names])
    )


def _skirt(cones: list[Cone], skeleton: Skeleton, rng: np.random.Generator, height: float, girth: float) -> float:
    """Add a skirt (or, from the chest down, a coat) as a widening cone; returns the height of its hem."""
    at = {name: i for i, name in enumerate(skeleton.names)}
    top = skeleton.heads[at["spine" if rng.random() < 0.75 else "chest"]]
    hips, knee = skeleton.heads[at["hips"]], skeleton.heads[at["left_shin"]]
    hem = np.array([0, hips[1] + (knee[1] - hips[1]) * rng.uniform(0.45, 1.6), 0])
    flare, flat = rng.uniform(0.11, 0.24) * height, (1.0, 1.0, rng.uniform(1.0, 1.25))
    tail = np.array([0, hem[1] + 0.5 * flare, 0])
    cones.append(Cone(top, tail, 0.08 * girth, flare, at["hips"], flat, loose=True))
    return float(hem[1])


def _skirt_weights(vertices: np.ndarray, weights: np.ndarray, skeleton: Skeleton, looseness: np.ndarray) -> np.ndarray:
    """The skirt follows the hips at its waist, and more and more the thigh on its side towards the hem."""
    at = {name: i for i, name in enumerate(skeleton.names)}
    hips, knee = skeleton.heads[at["hips"]], skeleton.heads[at["left_shin"]]
    down = np.clip((hips[1] - vertices[:, 1]) / (hips[1] - knee[1]), 0, 1)
    left = 1 / (1 + np.exp(-vertices[:, 0] / (0.04 * hips[1])))
    skirt = np.zeros_like(weights)
    skirt[:, at["left_thigh"]], skirt[:, at["right_thigh"]] = 0.55 * down * left, 0.55 * down * (1 - left)
    skirt[:, at["hips"]] = 1 - 0.55 * down
    hanging = (looseness > 0) & (vertices[:, 1] < skeleton.heads[at["chest"], 1])
    share = np.where(hanging, np.clip(looseness * 6, 0, 1), 0)[:, None]
    return (1 - share) * weights + share * skirt


def _ears(
    cones: list[Cone], head: np.ndarray, nose: np.ndarray, skull: float, bone: int, rng: np.random.Generator
) -> None:
    if rng.random() < 0.3:
        return
    length, lean = rng.uniform(0.8, 2.5) * skull, rng.uniform(-0.8, 1.0)
    back = 0.2 * (head - nose) / max(float(np.linalg.norm(head - nose)), 1e-9)
    for sign in (1.0, -1.0):
        root = head + skull * np.array([0.6 * sign, 0.6, 0])
        tip = root + length * (np.array([0.6 * sign, lean, 0]) + back)
        cones.append(Cone(root, tip, 0.3 * skull, 0.15 * skull, bone, loose=lean < 0))


def surface_of_cones(cones: list[Cone], softness: float) -> tuple[np.ndarray, np.ndarray]:
    """The closed surface of their union, creases rounded by ``softness`` metres: vertices (V, 3) and faces (F, 3)."""

    def field(points: np.ndarray) -> np.ndarray:
        return smooth_union(np.stack([cone.distance(points) for cone in cones]), softness)

    ends = np.concatenate([[c.head - c.start, c.head + c.start, c.tail - c.end, c.tail + c.end] for c in cones])
    low, high = ends.min(0) - softness, ends.max(0) + softness
    return surface_of_field(field, low, high, float((high - low).max()) / _CELLS)


def _capsules(cones: list[Cone]) -> Capsules:
    """What loose parts fall upon: the cones that are not loose themselves, as thin as their thinnest side."""
    firm = [cone for cone in cones if not cone.loose]
    return Capsules(
        np.array([cone.bone for cone in firm]),
        np.array([cone.head for cone in firm]),
        np.array([cone.tail for cone in firm]),
        np.array([[cone.start, cone.end] for cone in firm]) / np.array([[max(cone.squeeze)] for cone in firm]),
    )


def bone_radii(cones: list[Cone], skeleton: Skeleton) -> np.ndarray:
    """Radius (J,) around each bone: that of its thickest cone, halfway along it."""
    radii = np.zeros(len(skeleton.names))
    for cone in cones:
        if not cone.loose:
            radii[cone.bone] = max(radii[cone.bone], 0.5 * (cone.start + cone.end))
    return radii


def _looseness(vertices: np.ndarray, cones: list[Cone]) -> np.ndarray:
    """How freely a vertex hangs: from 0 where its loose part begins to 1 at its end, 0 on the body."""
    body = np.min([cone.distance(vertices) for cone in cones if not cone.loose], 0)
    looseness = np.zeros(len(vertices))
    for cone in cones:
        if cone.loose:
            along = cone.tail - cone.head
            share = np.clip((vertices - cone.head) @ along / max(float(along @ along), 1e-12), 0, 1.3)
            outside = np.clip((body - cone.distance(vertices)) / (0.5 * cone.end + 1e-9), 0, 1)
            looseness = np.maximum(looseness, share * np.clip(2 * outside, 0, 1))
    return np.clip(looseness, 0, 1)
