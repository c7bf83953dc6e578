"""A body that can be moved: closed rest surface, skeleton, skinning weights, and what hangs loose on it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from nr_tracking.data.capsules import Capsules
from nr_tracking.data.clips import Clip
from nr_tracking.data.cloth import Cloth, swing
from nr_tracking.data.motion import Motion, retarget
from nr_tracking.data.skeleton import Skeleton, skin
from nr_tracking.types import Int32


@dataclass(frozen=True)
class Character:
    """``vertices`` (V, 3) metres at rest, y up; ``weights`` (V, J); ``looseness`` (V,) in [0, 1].

    ``known_as`` names the joints that human motions know (see :func:`nr_tracking.data.motion.retarget`). ``body``, in
    the rest pose too, is what the loose parts fall upon.
    """

    family: str
    identity: str
    vertices: np.ndarray
    faces: Int32
    weights: np.ndarray
    skeleton: Skeleton
    looseness: np.ndarray
    known_as: dict[str, str] = field(default_factory=dict)
    body: Capsules | None = None

    def posed(self, name: str, world: np.ndarray, root: np.ndarray, fps: float, rng: np.random.Generator) -> Clip:
        """The character with joint rotations ``world`` (T, J, 3, 3) and its root at ``root`` (T, 3)."""
        moving = skin(self.vertices, self.weights, self.skeleton, world, root)
        ends = None if self.body is None else self.body.posed(self.skeleton, world, root)
        moving = swing(
            moving, self.faces, self.vertices, self.looseness, fps, Cloth.draw(rng), body=self.body, ends=ends
        )
        return Clip(name, self.family, self.identity, moving, self.faces, fps)

    def perform(self, motion: Motion, rng: np.random.Generator) -> Clip:
        """The character moving as a person did."""
        world, root = retarget(motion, self.skeleton, self.known_as)
        return self.posed(motion.name, world, root, motion.fps, rng)
