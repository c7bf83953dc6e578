"""Where the deformation graph and the points on it are at one stamp."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nr_tracking.deformation.carrier import Growth, part_of
from nr_tracking.deformation.normal_equations import Motion, blended_maps
from nr_tracking.deformation.rotations import straightened
from nr_tracking.sensing.rigid import Rigid
from nr_tracking.types import Bool, Float64

_LEAST_VOLUME = 0.2  # that a blend of rotations leaves of what it moves


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
        """Transform the pose into another camera frame, to which ``change`` leads."""
        nodes, points = change.points(self.nodes), change.points(self.points)
        turns = straightened(change.rotation @ self.turns)
        return CarriedPose(self.stamp_ns, nodes, turns, points, change.vectors(self.normals))

    def of(self, kept: Bool) -> CarriedPose:
        """Keep only the points ``kept`` (N,); nodes stay."""
        return replace(self, points=self.points[kept], normals=self.normals[kept])

    def motion_to(self, later: CarriedPose) -> Motion:
        """The motion of each node from this pose to a ``later`` one."""
        return Motion(later.turns @ np.swapaxes(self.turns, 1, 2), later.nodes)

    def corrected(self, guessed: CarriedPose, known: CarriedPose) -> CarriedPose:
        """Apply the correction that leads from ``guessed`` to ``known``, two versions of a later pose."""
        turn = known.turns @ np.swapaxes(guessed.turns, 1, 2)
        nodes, points = self.nodes + known.nodes - guessed.nodes, self.points + known.points - guessed.points
        return replace(self, nodes=nodes, turns=turn @ self.turns, points=points)


@dataclass(frozen=True)
class Birth:
    """New points and nodes at the pose ``now``: where they were earlier, had they moved with what is beside them.

    ``points`` and ``normals`` (K, 3); ``growth`` the nodes that are added, and the graph with the new points last.
    """

    now: CarriedPose
    points: Float64
    normals: Float64
    growth: Growth

    def into(self, pose: CarriedPose) -> CarriedPose:
        """An earlier pose, or ``now`` itself, with the new points and nodes last.

        The points are put to where the graph carries them from to their places, so no later fit finds them elsewhere.
        """
        earlier = self._with_nodes(pose)
        maps, offsets = self._maps(earlier.nodes, earlier.motion_to(self._with_nodes(self.now)))
        undone = np.asarray(np.linalg.inv(maps), np.float64)
        points, normals = _turned(undone, self.points - offsets), _turned(undone, self.normals)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        points, normals = np.concatenate((pose.points, points)), np.concatenate((pose.normals, normals))
        return replace(earlier, points=points, normals=normals)

    def _with_nodes(self, pose: CarriedPose) -> CarriedPose:
        """``pose`` with the new nodes last, each going with the node beside it."""
        beside, now = self.growth.beside, self.now
        turns = pose.turns[beside]
        added = _turned(turns @ np.swapaxes(now.turns[beside], 1, 2), self.growth.nodes - now.nodes[beside])
        nodes = np.concatenate((pose.nodes, pose.nodes[beside] + added))
        return replace(pose, nodes=nodes, turns=np.concatenate((pose.turns, turns)))

    def _maps(self, nodes: Float64, onward: Motion) -> tuple[Float64, Float64]:
        """What the graph does to each new point, ``x -> A x + b``: A (K, 3, 3) that can be inverted, and b (K, 3)."""
        graph = self.growth.graph
        graph = part_of(graph, np.arange(len(graph.index) - len(self.points), len(graph.index)))
        maps, offsets = blended_maps(graph, nodes, onward)
        # Nodes that turned against each other squash what they blend: there the strongest one decides.
        squashed = np.flatnonzero(np.linalg.det(maps) < _LEAST_VOLUME)
        strongest = graph.index[squashed, graph.weight[squashed].argmax(axis=1)]
        maps[squashed] = onward.rotations[strongest]
        offsets[squashed] = onward.translations[strongest] - _turned(maps[squashed], nodes[strongest])
        return maps, offsets


def _turned(rotations: Float64, vectors: Float64) -> Float64:
    """Each of the vectors (N, 3) by its own matrix (N, 3, 3)."""
    turned: Float64 = (rotations @ vectors[..., None])[..., 0]
    return turned
