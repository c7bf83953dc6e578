"""Single hands on a piece of forearm, which open, close, point, pinch and spread their fingers. They need no files.

A hand is a smooth union of round cones around its bones, as bodies are (:mod:`nr_tracking.data.procedural`).
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from nr_tracking.data.character import Character
from nr_tracking.data.clips import Clip
from nr_tracking.data.procedural import Cone, bone_radii, surface_of_cones
from nr_tracking.data.skeleton import Skeleton, chain, rotations, weights_by_distance

FINGERS = ("thumb", "index", "middle", "ring", "little")
_LENGTHS = np.array([0.50, 0.50, 0.55, 0.51, 0.40])  # of a finger, over the length of the palm and the middle finger
_PARTS = np.array([0.45, 0.30, 0.25])  # of a finger's length, from the palm to the tip
_KNUCKLES = np.array([[0.20, 0.14], [0.145, 0.47], [0.045, 0.50], [-0.055, 0.48], [-0.145, 0.43]])
"""Where fingers of a left hand begin, in lengths of the hand: x to the thumb's side, y from the wrist to the tips."""
_SPLAY = np.array([0.85, 0.10, 0.0, -0.10, -0.22])  # how far fingers lean to the thumb's side, in radians
_POSTURES = {
    "open": (0.05, 0.0, 0.0, 0.0, 0.0),
    "relaxed": (0.25, 0.2, 0.28, 0.34, 0.4),
    "fist": (0.8, 0.95, 1.0, 1.0, 0.95),
    "pointing": (0.7, 0.03, 0.95, 1.0, 0.95),
    "two": (0.8, 0.03, 0.03, 1.0, 0.95),
    "pinching": (0.45, 0.55, 0.35, 0.3, 0.25),
    "holding": (0.4, 0.5, 0.5, 0.5, 0.5),
    "thumb up": (0.0, 0.95, 1.0, 1.0, 0.95),
    "hook": (0.3, 0.65, 0.7, 0.7, 0.65),
}
"""How far each finger is curled: 0 straight, 1 to the palm."""
_CURL = np.radians([80, 95, 65])  # of a finger's three joints when it is curled to the palm
_THUMB_CURL = np.radians([35, 45, 55])
_CHANGE_S = (0.25, 1.4)  # from one posture to the next


def draw_hand(rng: np.random.Generator, identity: str = "hand") -> Character:
    """A left or right hand of 15 to 21 cm on 3 to 25 cm of forearm; palm to +z, fingers up, slender or stout."""
    size = rng.uniform(0.15, 0.21)
    side = rng.choice([-1.0, 1.0])
    skeleton = _skeleton(rng, size, side)
    at = {name: i for i, name in enumerate(skeleton.names)}
    head, tail = skeleton.heads, skeleton.tails
    stout = size * rng.uniform(0.85, 1.25)
    cones: list[Cone] = []

    def cone(joint: str, start: np.ndarray, end: np.ndarray, radii: tuple[float, float], flat: float = 1.0) -> None:
        cones.append(Cone(start, end, radii[0] * stout, radii[1] * stout, at[joint], (1.0, 1.0, flat)))

    sleeve = rng.uniform(1.0, 1.5) if rng.random() < 0.4 else 1.0
    cone("forearm", head[at["forearm"]], tail[at["forearm"]], (0.165 * sleeve, 0.135 * sleeve), 1.3)
    for finger in FINGERS[1:]:
        knuckle = head[at[f"{finger}1"]]
        wrist = head[at["palm"]] + (knuckle - head[at["palm"]]) * [0.55, 0.12, 1.0]
        cone("palm", wrist, knuckle, (0.085, 0.068))
    ball = 0.5 * (head[at["palm"]] + head[at["thumb2"]]) + [0, 0, 0.03 * size]
    cone("thumb1", ball, head[at["thumb2"]], (0.09, 0.062))
    for finger, width in zip(FINGERS, (0.062, 0.055, 0.056, 0.053, 0.046), strict=True):
        for part in range(3):
            joint = f"{finger}{part + 1}"
            taper = (width * (1.06 - 0.09 * part), width * (0.99 - 0.11 * part))
            cone(joint, head[at[joint]], tail[at[joint]], taper)
    vertices, faces = surface_of_cones(cones, softness=0.02 * size)
    radii = bone_radii(cones, skeleton)
    radii[at["palm"]] *= 1.4
    weights = weights_by_distance(vertices, skeleton, radii, 0.02 * size)
    return Character("hand", identity, vertices, faces, weights, skeleton, np.zeros(len(vertices)))


def hand_clip(
    rng: np.random.Generator,
    frames: int = 17,
    fps: float = 30.0,
    *,
    identity: str = "",
    body: np.random.Generator | None = None,
) -> Clip:
    """A random hand that goes from posture to posture while the arm turns.

    ``rng`` draws the motion, and the hand too unless a generator of its own, ``body``, is given.
    """
    hand = draw_hand(body or rng, identity or "hand")
    world, root = hand_motion(hand.skeleton, rng, np.arange(frames) / fps)
    return hand.posed(f"gesture{rng.integers(10_000):04d}", world, root, fps, rng)


def hand_motion(skeleton: Skeleton, rng: np.random.Generator, now: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """World rotations (T, J, 3, 3) of the joints and the root's place (T, 3) at the times ``now``, seconds."""
    at = {name: i for i, name in enumerate(skeleton.names)}
    times = [0.0]
    while times[-1] <= now[-1]:
        times.append(times[-1] + rng.uniform(*_CHANGE_S))
    names = list(_POSTURES)
    held = (
        np.array([_POSTURES[names[rng.integers(len(names))]] for _ in times]) + rng.normal(size=(len(times), 5)) * 0.08
    )
    curl = np.clip(_eased(np.array(times), held, now), -0.08, 1.05)
    splay = _eased(np.array(times), rng.uniform(-0.4, 1.0, (len(times), 1)), now)
    vectors = np.zeros((len(now), len(at), 3))
    for number, finger in enumerate(FINGERS):
        bend = _THUMB_CURL if finger == "thumb" else _CURL
        bone = skeleton.tails[at[f"{finger}1"]] - skeleton.heads[at[f"{finger}1"]]
        # Across the finger, so that it curls towards the palm; the thumb's lies askew, and it closes over the palm.
        across = np.cross(bone, [np.sign(-bone[0]) * 0.6, 0, 0.8] if finger == "thumb" else [0, 0, 1])
        across /= np.linalg.norm(across)
        for part in range(3):
            vectors[:, at[f"{finger}{part + 1}"]] = curl[:, number, None] * bend[part] * across
        # Fingers spread when they are straight.
        lean = 0.5 * _SPLAY[number] * splay[:, 0] * np.clip(1 - curl[:, number], 0, 1)
        vectors[:, at[f"{finger}1"], 2] -= lean * np.sign(skeleton.heads[at["thumb1"], 0])
    rate, phase = 2 * np.pi * rng.uniform(0.2, 1.0, (2, 3)), rng.uniform(0, 6.3, (2, 3))
    swing = rng.uniform(0, 1, (2, 3)) * [[0.5, 0.2, 0.3], [0.4, 0.4, 0.4]]
    turning = swing * np.sin(rate * now[:, None, None] + phase)
    vectors[:, at["palm"]] = turning[:, 0]
    local = rotations(vectors)
    aim = Rotation.random(random_state=rng) if rng.random() < 0.5 else Rotation.from_rotvec(rng.normal(size=3) * 0.6)
    local[:, at["forearm"]] = rotations(turning[:, 1]) @ aim.as_matrix()
    length = float(np.ptp(skeleton.tails, axis=0).max())
    drift = 0.12 * length * np.sin(2 * np.pi * rng.uniform(0.2, 1.2, 3) * now[:, None] + rng.uniform(0, 6.3, 3))
    return chain(skeleton, local), drift


def _eased(times: np.ndarray, held: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Values (T, C) between those ``held`` (K, C) at ``times`` (K,), for a moment at rest in each."""
    before = np.searchsorted(times, now, side="right") - 1
    part = ((now - times[before]) / np.diff(times)[before])[:, None]
    return held[before] + (held[before + 1] - held[before]) * part * part * (3 - 2 * part)


def _skeleton(rng: np.random.Generator, size: float, side: float) -> Skeleton:
    """The bones of a hand of ``size`` metres: forearm, palm, and three for each finger."""
    mirror = np.array([side, 1.0, 1.0])
    lengths = _LENGTHS * rng.uniform(0.92, 1.08, 5)
    wide = rng.uniform(0.9, 1.15)
    names, parents = ["forearm", "palm"], [-1, 0]
    heads = [np.array([0, -rng.uniform(0.2, 1.3), 0.0]), np.zeros(3)]
    tails = [np.array([0, -0.04, 0.0]), np.array([0.0, 0.5, 0.0])]
    for number, finger in enumerate(FINGERS):
        place = np.array([_KNUCKLES[number, 0] * wide, _KNUCKLES[number, 1], 0.05 if finger == "thumb" else 0.0])
        lean = _SPLAY[number] + rng.normal() * 0.03
        way = np.array([np.sin(lean), np.cos(lean), 0.35 if finger == "thumb" else 0.04])
        way /= np.linalg.norm(way)
        for part in range(3):
            names.append(f"{finger}{part + 1}")
            parents.append(1 if part == 0 else len(names) - 2)
            heads.append(place * mirror)
            place = place + way * lengths[number] * _PARTS[part]
            tails.append(place * mirror)
    return Skeleton(tuple(names), tuple(parents), size * np.array(heads), size * np.array(tails))
