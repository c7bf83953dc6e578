"""Where the deformation graph and the points on it are at one stamp."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nr_tracking.deformation.carrier import Growth
from nr_tracking.deformation.normal_equations import Motion
from nr_tracking.deformation.rotations import straightened
from nr_tracking.tracking.rigid import Rigid
from nr_tracking.types import Bool, Float64, Int64


@dataclass(frozen=True)
class CarriedPose:
    """Nodes and points at one stamp.

    ``nodes`` (P, 3) and their rotations ``turns`` (P, 3, 3) since the first surface; ``points`` and unit ``normals``
    (N, 3), carried, not projected. Metric, in a camera frame.
    """

    stamp_ns: int
    nodes: Float64
    turns: Float64
    points: Float64
    normals: Float64

    def seen(self, change: Rigid) -> CarriedPose:
        """The same in another frame."""
        nodes, points = change.points(self.nodes), change.points(self.points)
        turns = straightened(change.rotation @ self.turns)
        return CarriedPose(self.stamp_ns, nodes, turns, points, change.vectors(self.normals))

    def of(self, kept: Bool) -> CarriedPose:
        """With only the points ``kept`` (N,)."""
        return replace(self, points=self.points[kept], normals=self.normals[kept])

    def motion_to(self, later: CarriedPose) -> Motion:
        """What each node does from here to a later pose."""
        return Motion(later.turns @ np.swapaxes(self.turns, 1, 2), later.nodes)

    def corrected(self, guessed: CarriedPose, known: CarriedPose) -> CarriedPose:
        """With the same correction that turns a guessed later pose into the known one."""
        turn = known.turns @ np.swapaxes(guessed.turns, 1, 2)
        nodes, points = self.nodes + known.nodes - guessed.nodes, self.points + known.points - guessed.points
        return replace(self, nodes=nodes, turns=turn @ self.turns, points=points)


@dataclass(frozen=True)
class Birth:
    """New points and nodes at the pose ``now``: where they were earlier, had they moved with what is beside them.

    ``points`` and ``normals`` (K, 3); ``node`` (K,), the node of ``now`` that each goes with; ``growth`` the nodes that
    are added.
    """

    now: CarriedPose
    points: Float64
    normals: Float64
    node: Int64
    growth: Growth

    def into(self, pose: CarriedPose) -> CarriedPose:
        """An earlier pose, or ``now`` itself, with the new points and nodes last."""
        added, points = self.places(pose.nodes, pose.turns)
        turned = pose.turns[self.node] @ np.swapaxes(self.now.turns[self.node], 1, 2)
        normals = (turned @ self.normals[..., None])[..., 0]
        return CarriedPose(
            pose.stamp_ns,
            np.concatenate((pose.nodes, added)),
            np.concatenate((pose.turns, pose.turns[self.growth.beside])),
            np.concatenate((pose.points, points)),
            np.concatenate((pose.normals, normals)),
        )

    def places(self, nodes: Float64, turns: Float64) -> tuple[Float64, Float64]:
        """New nodes (Q, 3) and points (K, 3) when the old ones were at ``nodes``, with their ``turns``."""
        back = turns @ np.swapaxes(self.now.turns, 1, 2)

        def earlier(places: Float64, node: Int64) -> Float64:
            moved: Float64 = (back[node] @ (places - self.now.nodes[node])[..., None])[..., 0] + nodes[node]
            return moved

        return earlier(self.growth.nodes, self.growth.beside), earlier(self.points, self.node)
