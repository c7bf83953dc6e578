"""What cloth falls upon: a body as tapered capsules around its bones.

A capsule is cheap to collide with, it has an inside that nothing slips through, and the legs under a skirt, which no
surface shows, have one too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nr_tracking.data.skeleton import Skeleton, joint_places, segment_distance


@dataclass(frozen=True)
class Capsules:
    """``joints`` (K,) move segments from ``heads`` to ``tails`` (K, 3) at rest; ``radii`` (K, 2) metres at the ends."""

    joints: np.ndarray
    heads: np.ndarray
    tails: np.ndarray
    radii: np.ndarray

    def posed(self, skeleton: Skeleton, world: np.ndarray, root: np.ndarray) -> np.ndarray:
        """End points (T, K, 2, 3) under joint rotations ``world`` (T, J, 3, 3) and the root's place (T, 3)."""
        places, turn = joint_places(skeleton, world, root)[:, self.joints], world[:, self.joints]
        ends = np.stack([self.heads, self.tails], 1) - skeleton.heads[self.joints][:, None]
        return places[:, :, None] + np.einsum("tkab,kcb->tkca", turn, ends)

    def rest(self) -> np.ndarray:
        """End points (K, 2, 3) at rest."""
        return np.stack([self.heads, self.tails], 1)


def nearest_on_axes(points: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares (P, K) in [0, 1] along segments ``ends`` (K, 2, 3) nearest to points (P, 3), and distances (P, K)."""
    along = ends[:, 1] - ends[:, 0]
    square = np.maximum((along**2).sum(-1), 1e-12)
    # |p - a - s d|^2 expanded, so that matrix products do the work and no (P, K, 3) array is made.
    dot = points @ along.T - (ends[:, 0] * along).sum(-1)
    share = np.clip(dot / square, 0, 1)
    far = (points**2).sum(-1)[:, None] - 2 * points @ ends[:, 0].T + (ends[:, 0] ** 2).sum(-1)
    return share, np.sqrt(np.maximum(far - 2 * share * dot + share**2 * square, 0))


def gap(points: np.ndarray, ends: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Distance (P, K) of points (P, 3) from the surfaces of capsules, negative inside."""
    share, distance = nearest_on_axes(points, ends)
    return distance - (radii[:, 0] + share * (radii[:, 1] - radii[:, 0]))


def fitted(vertices: np.ndarray, weights: np.ndarray, skeleton: Skeleton, tightness: float = 0.9) -> Capsules:
    """Capsules inside a skinned body (V, 3) with ``weights`` (V, J): one for each bone that owns vertices.

    A radius is ``tightness`` times the median distance of the bone's own vertices from its axis, in its upper and in
    its lower half; bones of no length and bones with fewer than 20 vertices get none.
    """
    owner = weights.argmax(1)
    found = []
    for joint in range(len(skeleton.names)):
        head, tail = skeleton.heads[joint], skeleton.tails[joint]
        own = vertices[owner == joint]
        along = tail - head
        if len(own) < 20 or not along.any():
            continue
        distance = segment_distance(own, head, tail)
        lower = (own - head) @ along > 0.5 * along @ along
        halves = [distance[half] if half.sum() >= 10 else distance for half in (~lower, lower)]
        found.append((joint, head, tail, [tightness * float(np.median(half)) for half in halves]))
    joints, heads, tails, radii = zip(*found, strict=True) if found else ((), (), (), ())
    shape = (len(found), 3)
    return Capsules(
        np.array(joints, int),
        np.reshape(heads, shape).astype(float),
        np.reshape(tails, shape).astype(float),
        np.reshape(radii, (len(found), 2)).astype(float),
    )
