"""Motions made up from waves: dancing people and walking, trotting, bounding animals. They need no files."""

from __future__ import annotations

import numpy as np

from nr_tracking.data.motion import JOINTS, Motion
from nr_tracking.data.skeleton import Skeleton, chain, rotations

_PARENT = {
    "spine": "hips",
    "chest": "spine",
    "neck": "chest",
    "head": "neck",
    "collar": "chest",
    "arm": "collar",
    "forearm": "arm",
    "hand": "forearm",
    "thigh": "hips",
    "shin": "thigh",
    "foot": "shin",
    "toe": "foot",
}
_BONE = {"arm": (1, -0.5, 0), "forearm": (1, -0.5, 0.1), "hand": (1, -0.5, 0.1), "collar": (1, 0, 0)}
_LEG = {"thigh": (0.05, -1, 0), "shin": (0.05, -1, 0), "foot": (0, -0.4, 1), "toe": (0, 0, 1)}
_HIP_HEIGHT = 0.95
_HELD, _SWAYED = 0.2, 0.12  # radians about each axis, as standard deviations: by which restless joints depart at most


def dance(rng: np.random.Generator, frames: int, fps: float) -> Motion:
    """A dance to a beat: arms that swing and wave, hips that sway, steps, bends, turns on the spot and hops."""
    time = np.arange(frames) / fps
    beat = 2 * np.pi * rng.uniform(0.5, 1.4)
    energy = rng.uniform(0.5, 1.3)
    order = {name: i for i, name in enumerate(JOINTS)}
    vectors = np.zeros((frames, len(JOINTS), 3))

    def wave(size: float, multiples: tuple[float, ...] = (0.5, 1.0, 2.0)) -> np.ndarray:
        total = np.zeros(frames)
        for multiple in multiples:
            total += rng.normal() * np.sin(multiple * beat * time + rng.uniform(0, 2 * np.pi)) / multiple**0.5
        return size * energy * total / len(multiples) ** 0.5

    turn = rng.uniform(-1, 1) * beat * 0.25 * time * rng.choice([0.0, 1.0, 2.0]) + rng.uniform(0, 2 * np.pi)
    vectors[:, order["hips"], 1] = turn + wave(0.3)
    for name, size in (("spine", 0.16), ("chest", 0.14), ("neck", 0.12), ("head", 0.14)):
        vectors[:, order[name]] = np.stack([wave(size), wave(size), wave(size)], -1)
    for side, out in (("left", 1.0), ("right", -1.0)):
        lift = rng.uniform(-0.6, 0.9)
        arm = np.stack([wave(0.5) - 0.3, out * wave(0.4) - out * 0.2, out * (lift + wave(0.6))], -1)
        vectors[:, order[f"{side}_arm"]] = arm
        bend = 0.25 + np.abs(wave(0.9) + rng.uniform(0, 0.8))
        vectors[:, order[f"{side}_forearm"], 1] = -out * np.minimum(bend, 2.2)
        vectors[:, order[f"{side}_hand"]] = np.stack([wave(0.25), wave(0.2), wave(0.25)], -1)
    step = wave(0.45, (1.0,)) + rng.uniform(0, 0.2)
    spread = np.abs(wave(0.15)) + 0.05
    for side, out in (("left", 1.0), ("right", -1.0)):
        lift = np.clip(out * step, -0.35, 1.4) + wave(0.06)
        vectors[:, order[f"{side}_thigh"]] = np.stack([-lift, wave(0.1), out * spread], -1)
        vectors[:, order[f"{side}_shin"], 0] = np.clip(1.3 * lift, 0.03, 2.0) + 0.05
        vectors[:, order[f"{side}_foot"], 0] = wave(0.1)
    crouch = np.abs(wave(0.25, (0.5, 1.0)))
    for side in ("left", "right"):
        vectors[:, order[f"{side}_thigh"], 0] -= crouch
        vectors[:, order[f"{side}_shin"], 0] += 2 * crouch
    skeleton = Skeleton(JOINTS, joint_parents(), np.zeros((len(JOINTS), 3)), np.zeros((len(JOINTS), 3)))
    root = np.stack([wave(0.1, (0.25, 0.5)), wave(0.03, (1.0, 2.0)) - 0.35 * crouch, wave(0.1, (0.25, 0.5))], -1)
    root[:, 1] += _HIP_HEIGHT
    return Motion(
        f"dance{rng.integers(10_000):04d}",
        fps,
        JOINTS,
        rest_directions(),
        chain(skeleton, rotations(vectors)),
        root,
        _HIP_HEIGHT,
    )


def restless(rng: np.random.Generator, limbs: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Rotations (T, J, 3, 3) by which joints depart from a motion at ``times`` (T,) seconds: held, and swaying.

    ``limbs`` (J,) says which joints do; the others have the identity. How far is drawn once for all of them: joints
    that sit on each other, as those of a neck, add up.
    """
    strength = rng.uniform(0.0, 1.0)
    shape = (len(limbs), 3)
    rate, phase = rng.uniform(0.5, 5.0, shape), rng.uniform(0, 2 * np.pi, shape)
    held, swayed = _HELD * rng.normal(size=shape), _SWAYED * rng.normal(size=shape)
    vectors = held + swayed * np.sin(times[:, None, None] * rate + phase)
    return rotations(strength * vectors * limbs[:, None])


def joint_parents() -> tuple[int, ...]:
    """Number of the parent of each of :data:`JOINTS`, -1 for the hips."""
    return tuple(_parent(name) for name in JOINTS)


def rest_directions() -> np.ndarray:
    """Directions (J, 3) of the bones of :data:`JOINTS` in the rest pose of made-up motions, arms half down."""
    return np.array([_direction(name) for name in JOINTS])


def _parent(name: str) -> int:
    side, _, part = name.rpartition("_")
    if part == "hips":
        return -1
    above = _PARENT[part]
    return JOINTS.index(f"{side}_{above}" if side and f"{side}_{above}" in JOINTS else above)


def _direction(name: str) -> np.ndarray:
    side, _, part = name.rpartition("_")
    direction = np.array(_BONE.get(part) or _LEG.get(part) or (0, 1, 0), float)
    if side == "right":
        direction[0] *= -1
    return direction / np.linalg.norm(direction)


def four_legged_gait(
    skeleton: Skeleton, rng: np.random.Generator, frames: int, fps: float
) -> tuple[str, np.ndarray, np.ndarray]:
    """A gait for a skeleton of :func:`nr_tracking.data.procedural.draw_quadruped`.

    Returns its name, world rotations (T, J, 3, 3) and the root's place (T, 3).
    """
    gait, phases = [
        ("walk", (0.0, 0.5, 0.75, 0.25)),
        ("trot", (0.0, 0.5, 0.5, 0.0)),
        ("pace", (0.0, 0.5, 0.0, 0.5)),
        ("bound", (0.0, 0.08, 0.5, 0.58)),
        ("idle", (0.1, 0.4, 0.8, 0.3)),
    ][rng.integers(5)]
    rate = {"walk": 1.0, "trot": 1.8, "pace": 1.6, "bound": 2.2, "idle": 0.4}[gait] * rng.uniform(0.7, 1.3)
    reach = {"walk": 0.45, "trot": 0.6, "pace": 0.55, "bound": 0.9, "idle": 0.12}[gait] * rng.uniform(0.7, 1.2)
    time = np.arange(frames) / fps
    cycle = 2 * np.pi * rate * time
    vectors = np.zeros((frames, len(skeleton.names), 3))
    order = {name: i for i, name in enumerate(skeleton.names)}
    for leg, phase in zip(("front_left", "front_right", "hind_left", "hind_right"), phases, strict=True):
        swing_phase = cycle + 2 * np.pi * phase
        lift = np.clip(np.cos(swing_phase), 0, None) * reach
        bend = 1.0 if leg.startswith("front") else -1.0
        vectors[:, order[f"{leg}_upper"], 0] = -reach * np.sin(swing_phase) - bend * 0.3 * lift
        vectors[:, order[f"{leg}_lower"], 0] = bend * 1.3 * lift
        vectors[:, order[f"{leg}_foot"], 0] = -bend * 0.5 * lift
    flex = 0.25 * reach * np.sin(cycle + rng.uniform(0, 6.3)) if gait == "bound" else 0.04 * np.sin(2 * cycle)
    vectors[:, order["spine"], 0] = flex
    vectors[:, order["chest"], 0] = flex
    vectors[:, order["spine"], 1] = 0.12 * np.sin(cycle + rng.uniform(0, 6.3))
    nod, look = rng.uniform(0.05, 0.5), rng.uniform(0.05, 0.7)
    vectors[:, order["neck"], 0] = nod * np.sin(0.5 * cycle + rng.uniform(0, 6.3)) + rng.uniform(-0.4, 0.7)
    vectors[:, order["neck"], 1] = look * np.sin(0.3 * cycle + rng.uniform(0, 6.3))
    vectors[:, order["head"], 1] = look * np.sin(0.4 * cycle + rng.uniform(0, 6.3))
    wag, droop = rng.uniform(0.1, 0.7), rng.uniform(-0.5, 0.5)
    for number in range(1, 4):
        vectors[:, order[f"tail{number}"], 1] = wag * np.sin(rate * 12 * time - 0.7 * number)
        vectors[:, order[f"tail{number}"], 0] = droop / number + 0.1 * np.sin(cycle - number)
    heading = rng.uniform(0, 2 * np.pi) + rng.uniform(-0.8, 0.8) * time
    vectors[:, 0, 1] = heading
    length = float(np.ptp(skeleton.heads, axis=0).max())
    speed = 0.6 * reach * rate * length
    forward = np.stack([np.sin(heading), np.zeros(frames), np.cos(heading)], -1)
    root = skeleton.heads[0] + np.cumsum(forward, 0) * speed / fps
    root[:, 1] += 0.05 * reach * length * np.sin(2 * cycle)
    return gait, chain(skeleton, rotations(vectors)), root
