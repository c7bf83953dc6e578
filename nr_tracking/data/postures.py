"""Motions made up of postures: sitting, kneeling, bending, crossed arms, hands on hips, and the ways between them.

Recorded motions mostly show people upright with their arms beside them. What is hidden behind or before a body is
harder where limbs are folded, so bodies are led from one such posture to the next. They need no files.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from nr_tracking.data.gaits import joint_parents, rest_directions
from nr_tracking.data.motion import JOINTS, Motion
from nr_tracking.data.skeleton import Skeleton, chain, rotation_between, rotations

_ARMS = {
    "hanging": ((0.25, -1, 0), (0.2, -1, 0.15)),
    "crossed": ((0.35, -0.9, 0.4), (-0.85, 0.05, 0.5)),
    "on the hip": ((0.75, -0.65, -0.25), (-0.6, -0.65, 0.4)),
    "overhead": ((0.3, 0.95, 0.1), (0.1, 1, 0)),
    "forward": ((0.15, -0.1, 1), (0, 0, 1)),
    "sideways": ((1, 0, 0), (1, 0.1, 0.1)),
    "at the face": ((0.3, -0.8, 0.5), (-0.2, 0.9, 0.4)),
    "behind the head": ((0.7, 0.6, -0.1), (-0.7, 0.4, -0.5)),
    "behind the back": ((0.3, -0.9, -0.4), (-0.8, -0.3, -0.3)),
    "carrying": ((0.25, -0.95, 0.1), (-0.1, 0, 1)),
    "waving": ((0.8, 0.1, 0.2), (0.3, 0.95, 0.1)),
}
"""Directions of the left upper arm and forearm as seen from the chest: x to the left hand, y up, z forward."""
_LEGS = {
    "standing": (((0.08, -1, 0), (0.03, -1, 0)),) * 2,
    "astride": (((0.4, -1, 0), (0.35, -1, 0)),) * 2,
    "sitting": (((0.15, -0.1, 1), (0.05, -1, 0.05)),) * 2,
    "cross-legged": (((0.7, -0.25, 0.7), (-0.8, -0.4, -0.1)),) * 2,
    "squatting": (((0.3, 0.1, 1), (0.05, -0.75, -0.7)),) * 2,
    "kneeling": (((0.1, -1, 0.1), (0.05, -0.15, -1)),) * 2,
    "lunging": (((0.08, -0.45, 0.9), (0.05, -1, -0.1)), ((0.08, -0.9, -0.45), (0.05, -0.55, -0.85))),
    "one knee raised": (((0.1, -0.1, 1), (0.05, -1, -0.2)), ((0.05, -1, 0), (0.03, -1, 0))),
    "kicking": (((0.1, -0.35, 0.95), (0.1, -0.3, 0.95)), ((0.08, -1, -0.1), (0.03, -1, -0.15))),
}
"""Directions of thigh and shin as seen from the hips, of the one leg and of the other."""
_LOOSE = 0.18  # by which directions of unit length differ from those above
_LYING = 0.08  # share of postures that lie down
_HIP_HEIGHT = 0.95
_SEGMENT = 0.45  # metres: thigh and shin, each
_CHANGE_S = (0.3, 1.6)  # from one posture to the next


def postures(rng: np.random.Generator, frames: int, fps: float) -> Motion:
    """A body that goes from posture to posture, each drawn anew, and trembles a little on the way."""
    now = np.arange(frames) / fps
    times = [0.0]
    while times[-1] <= now[-1]:
        times.append(times[-1] + rng.uniform(*_CHANGE_S))
    held = [_posture(rng) for _ in times]
    before = np.searchsorted(times, now, side="right") - 1
    length = np.diff(times)[before]
    part = (now - np.take(times, before)) / length
    eased = np.take(times, before) + length * part * part * (3 - 2 * part)  # for a moment at rest in each
    local = np.stack([_between(times, [one[name] for one in held], eased) for name in JOINTS], axis=1)
    world = chain(Skeleton(JOINTS, joint_parents(), _NOWHERE, _NOWHERE), local @ _tremble(rng, now))
    step = rng.normal(size=2) * 0.15
    root = np.stack([step[0] * now, _hip_height(world), step[1] * now], axis=-1)
    return Motion(f"postures{rng.integers(10_000):04d}", fps, JOINTS, rest_directions(), world, root, _HIP_HEIGHT)


_NOWHERE = np.zeros((len(JOINTS), 3))
_REST = dict(zip(JOINTS, rest_directions(), strict=True))


def _posture(rng: np.random.Generator) -> dict[str, Rotation]:
    """Each joint's rotation against its parent."""
    turned = {name: _vector(rng.normal(size=3) * 0.1) for name in JOINTS}
    bent = rng.uniform(0, 0.5) if rng.random() < 0.4 else rng.uniform(-0.1, 0.1)  # each: forward, in all three times
    for name in ("hips", "spine", "chest"):
        turned[name] = _vector(np.array([bent, 0, 0]) + rng.normal(size=3) * (0.06, 0.15, 0.1))
    turned["hips"] = _vector(np.array([0, rng.normal() * 0.5, 0])) * turned["hips"]
    if rng.random() < _LYING:
        turned["hips"] = _vector(np.array([rng.choice([-1, 1]) * np.pi / 2, 0, 0])) * turned["hips"]
    alike = rng.random() < 0.5
    arms = [_ARMS[list(_ARMS)[rng.integers(len(_ARMS))]] for _ in range(2)]
    legs = _LEGS[list(_LEGS)[rng.integers(len(_LEGS))]]
    if rng.random() < 0.5:
        legs = legs[::-1]
    for side, arm, leg in zip(("left", "right"), (arms[0], arms[0] if alike else arms[1]), legs, strict=True):
        turned |= _limb(rng, side, ("arm", "forearm"), arm) | _limb(rng, side, ("thigh", "shin"), leg)
    return turned


def _limb(
    rng: np.random.Generator, side: str, parts: tuple[str, str], directions: tuple[tuple[float, ...], ...]
) -> dict[str, Rotation]:
    """A limb's two rotations that make its bones point in ``directions`` or nearly so, mirrored on the right."""
    mirror = np.array([1.0 if side == "left" else -1.0, 1.0, 1.0])
    whole, found = np.eye(3), {}
    for part, direction in zip(parts, directions, strict=True):
        aim = np.array(direction, float) * mirror
        aim = aim / np.linalg.norm(aim) + rng.normal(size=3) * _LOOSE
        now = whole @ _REST[f"{side}_{part}"]
        onto = rotation_between(now[None], (aim / np.linalg.norm(aim))[None])[0] @ whole
        found[f"{side}_{part}"] = Rotation.from_matrix(whole.T @ onto)
        whole = onto
    return found


def _between(times: list[float], held: list[Rotation], now: np.ndarray) -> np.ndarray:
    return Slerp(times, Rotation.concatenate(held))(now).as_matrix()


def _tremble(rng: np.random.Generator, now: np.ndarray) -> np.ndarray:
    """Small rotations (T, J, 3, 3) that come and go."""
    rate, phase = rng.uniform(2, 8, (len(JOINTS), 3)), rng.uniform(0, 2 * np.pi, (len(JOINTS), 3))
    return rotations(0.04 * np.sin(now[:, None, None] * rate + phase))


def _hip_height(world: np.ndarray) -> np.ndarray:
    """How high (T,) the hips are above the lowest knee or ankle, and at least as high as a body is thick."""
    lowest = np.full(len(world), 0.12)
    for side in ("left", "right"):
        reached = 0.0
        for part in ("thigh", "shin"):
            bone = JOINTS.index(f"{side}_{part}")
            reached = reached - _SEGMENT * (world[:, bone] @ _REST[f"{side}_{part}"])[:, 1]
            lowest = np.maximum(lowest, reached + 0.08)
    return lowest


def _vector(vector: np.ndarray) -> Rotation:
    return Rotation.from_rotvec(vector)
