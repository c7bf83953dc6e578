"""Motions of people in terms that every human skeleton understands, and how one is put on a body.

A :class:`Motion` keeps, for the joints of :data:`JOINTS`, the rotation in the world relative to its own rest pose
(facing +z, the left hand at +x, y up) and the direction of each bone in that pose. To put it on a body, a limb whose
rest direction differs (arms down against arms out) is first turned the shortest way; then both turn alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from nr_tracking.data.skeleton import Skeleton, rotation_between

_SIDES = ("left", "right")
_LIMBS = ("arm", "forearm", "thigh", "shin")
JOINTS: tuple[str, ...] = (
    *("hips", "spine", "chest", "neck", "head"),
    *(f"{side}_{part}" for side in _SIDES for part in ("collar", "arm", "forearm", "hand")),
    *(f"{side}_{part}" for side in _SIDES for part in ("thigh", "shin", "foot", "toe")),
)
LIMBS = frozenset(f"{side}_{part}" for side in _SIDES for part in _LIMBS)


@dataclass(frozen=True)
class Motion:
    """``rotations`` (T, J, 3, 3) of ``joints``, ``directions`` (J, 3) of their bones at rest, ``root`` (T, 3) metres.

    ``hip_height`` metres of the body that made it, above the floor at y = 0, scales its steps to another body.
    """

    name: str
    fps: float
    joints: tuple[str, ...]
    directions: np.ndarray
    rotations: np.ndarray
    root: np.ndarray
    hip_height: float

    @property
    def duration(self) -> float:
        """Seconds from the first to the last frame."""
        return (len(self.root) - 1) / self.fps

    def resampled(self, fps: float, start_s: float, count: int, speed: float = 1.0) -> Motion:
        """``count`` frames at ``fps`` from ``start_s`` on, played ``speed`` times as fast; holds still past the end."""
        frame = np.clip((start_s + np.arange(count) * speed / fps) * self.fps, 0, len(self.root) - 1)
        low = np.minimum(frame.astype(int), max(len(self.root) - 2, 0))
        high, share = np.minimum(low + 1, len(self.root) - 1), frame - low
        first, second = self.rotations[low], self.rotations[high]
        step = Rotation.from_matrix((second @ first.swapaxes(-1, -2)).reshape(-1, 3, 3)).as_rotvec()
        step = step * np.repeat(share, len(self.joints))[:, None]
        rotations = Rotation.from_rotvec(step).as_matrix().reshape(first.shape) @ first
        root = self.root[low] + share[:, None] * (self.root[high] - self.root[low])
        return replace(self, fps=fps, rotations=rotations, root=root)

    def mirrored(self) -> Motion:
        """Left and right exchanged."""
        flip = np.diag([-1.0, 1.0, 1.0])
        names = [_other_side(name) for name in self.joints]
        order = [names.index(name) if name in names else i for i, name in enumerate(self.joints)]
        return replace(
            self,
            name=f"{self.name}_mirrored",
            directions=(self.directions @ flip)[order],
            rotations=(flip @ self.rotations @ flip)[:, order],
            root=self.root @ flip,
        )


def _other_side(name: str) -> str:
    for one, other in (("left_", "right_"), ("right_", "left_")):
        if name.startswith(one):
            return other + name.removeprefix(one)
    return name


def retarget(motion: Motion, skeleton: Skeleton, known_as: dict[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """Put ``motion`` on ``skeleton``: world rotations (T, J, 3, 3) and the root's place (T, 3) for ``skin``.

    ``known_as`` gives a joint of the skeleton its name in :data:`JOINTS`; the others turn with their parents.
    """
    world = np.empty((len(motion.root), len(skeleton.names), 3, 3))
    directions = skeleton.directions()
    for joint, (name, parent) in enumerate(zip(skeleton.names, skeleton.parents, strict=True)):
        role = known_as.get(name)
        if role not in motion.joints:
            world[:, joint] = np.eye(3) if parent < 0 else world[:, parent]
            continue
        source = motion.joints.index(role)
        turn = np.eye(3)
        if role in LIMBS and directions[joint].any():
            turn = rotation_between(directions[joint][None], motion.directions[source][None])[0]
        elif role.endswith("_hand") and parent >= 0:
            # At rest a hand continues its forearm, whatever way that one had to be turned.
            forearm = known_as.get(skeleton.names[parent])
            if forearm in motion.joints:
                turn = rotation_between(
                    directions[parent][None], motion.directions[motion.joints.index(forearm)][None]
                )[0]
        world[:, joint] = motion.rotations[:, source] @ turn
    scale = skeleton.heads[0, 1] / motion.hip_height
    return world, motion.root * scale
