"""Skeletons, poses and linear blend skinning.

A pose is given by every joint's rotation *in the world, relative to the rest pose*, and the root's place. In these
terms joints have no frames of their own to agree about: a motion of one skeleton is carried to another by names alone
(see :mod:`nr_tracking.data.mocap`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from nr_tracking.types import Float32


@dataclass(frozen=True)
class Skeleton:
    """Joints in the rest pose: ``parents[j] < j`` and -1 for the root; ``heads``, ``tails`` (J, 3) metres, y up."""

    names: tuple[str, ...]
    parents: tuple[int, ...]
    heads: np.ndarray
    tails: np.ndarray

    def __post_init__(self) -> None:
        for joint, parent in enumerate(self.parents):
            if parent >= joint:
                raise ValueError(f"joint {self.names[joint]!r} stands before its parent")

    def directions(self) -> np.ndarray:
        """Unit vectors (J, 3) from head to tail; zero for a joint without length."""
        along = self.tails - self.heads
        return along / np.maximum(np.linalg.norm(along, axis=-1, keepdims=True), 1e-12)


def chain(skeleton: Skeleton, local: np.ndarray) -> np.ndarray:
    """World rotations (T, J, 3, 3) of joints that turn by ``local`` (T, J, 3, 3) against their parents."""
    world = np.empty_like(local)
    for joint, parent in enumerate(skeleton.parents):
        world[:, joint] = local[:, joint] if parent < 0 else world[:, parent] @ local[:, joint]
    return world


def rotations(vectors: np.ndarray) -> np.ndarray:
    """Rotation vectors (..., 3) radians -> matrices (..., 3, 3)."""
    return Rotation.from_rotvec(vectors.reshape(-1, 3)).as_matrix().reshape(*vectors.shape, 3)


def rotation_between(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The smallest rotations (N, 3, 3) that turn unit vectors ``source`` (N, 3) into ``target`` (N, 3)."""
    axis = np.cross(source, target)
    sine = np.linalg.norm(axis, axis=-1, keepdims=True)
    angle = np.arctan2(sine, (source * target).sum(-1, keepdims=True))
    # Opposite vectors leave the axis open: any one across the source will do.
    other = np.cross(source, np.eye(3)[np.argmin(np.abs(source), axis=-1)])
    axis = np.where(sine > 1e-9, axis / np.maximum(sine, 1e-12), other)
    axis /= np.maximum(np.linalg.norm(axis, axis=-1, keepdims=True), 1e-12)
    return rotations(axis * angle)


def joint_places(skeleton: Skeleton, world: np.ndarray, root: np.ndarray) -> np.ndarray:
    """Places (T, J, 3) of the joints' heads for world rotations (T, J, 3, 3) and the root's place (T, 3)."""
    places = np.empty((*world.shape[:2], 3))
    for joint, parent in enumerate(skeleton.parents):
        if parent < 0:
            places[:, joint] = root
        else:
            places[:, joint] = places[:, parent] + world[:, parent] @ (skeleton.heads[joint] - skeleton.heads[parent])
    return places


def skin(vertices: np.ndarray, weights: np.ndarray, skeleton: Skeleton, world: np.ndarray, root: np.ndarray) -> Float32:
    """Linear blend skinning: rest ``vertices`` (V, 3) with ``weights`` (V, J), rows summing to 1 -> (T, V, 3)."""
    places = joint_places(skeleton, world, root)
    shift = places - np.einsum("tjab,jb->tja", world, skeleton.heads)
    return blend(vertices, weights, np.concatenate([world, shift[..., None]], -1))


def blend(vertices: np.ndarray, weights: np.ndarray, transforms: np.ndarray) -> Float32:
    """Rest ``vertices`` (V, 3) under joint ``transforms`` (T, J, 3, 4) blended by ``weights`` (V, J) -> (T, V, 3)."""
    homogeneous = np.concatenate([vertices, np.ones((len(vertices), 1))], 1).astype(np.float32)
    out = np.empty((len(transforms), len(vertices), 3), np.float32)
    weights = weights.astype(np.float32)
    for frame, joints in enumerate(transforms.astype(np.float32)):
        blended = (weights @ joints.reshape(len(joints), 12)).reshape(-1, 3, 4)
        out[frame] = np.einsum("vab,vb->va", blended, homogeneous)
    return out


def weights_by_distance(points: np.ndarray, skeleton: Skeleton, radii: np.ndarray, softness: float) -> np.ndarray:
    """Smooth skinning weights (V, J) from the distance of ``points`` (V, 3) to each bone's capsule.

    A weight falls by ``1/e`` for every ``softness`` metres that its bone is farther than the nearest one.
    """
    outside = np.stack(
        [
            segment_distance(points, head, tail) - radius
            for head, tail, radius in zip(skeleton.heads, skeleton.tails, radii, strict=True)
        ],
        1,
    )
    weights = np.exp(-(outside - outside.min(1, keepdims=True)) / softness)
    weights[weights < 0.01] = 0
    return weights / weights.sum(1, keepdims=True)


def segment_distance(points: np.ndarray, head: np.ndarray, tail: np.ndarray) -> np.ndarray:
    """Distance (V,) of ``points`` (V, 3) to the segment from ``head`` to ``tail``."""
    along = tail - head
    share = np.clip((points - head) @ along / max(float(along @ along), 1e-12), 0, 1)
    return np.linalg.norm(points - head - share[:, None] * along, axis=1)
