"""Steady tracks: what a surface that is guessed anew in each frame adds to the motion is taken out again.

    steadier = Steadier(config.tracks.steady)
    steadier.start(pose)
    shown = steadier.step(graph, pose, motion, landed, places)     # where to show the points, frame after frame

A completed surface trembles by some millimetres though nothing moves, and takes the tracks along: as a whole, by the
nodes of the deformation graph, and each point by itself, by its projection. Both are filtered. A node has a place and a
velocity, corrected by a share of what the new frame says (an alpha-beta filter, with beta after Benedict and Bordner,
1962): a steady motion is followed without lag. A point has its offset from the place to which its nodes carry it,
turned with them: it changes only where the surface does.

The share is large where the correction is large beside the noise, ``q / (q + strength^2)`` with q the squared ratio of
the two, and a correction counts as a node's only as far as those around it agree. The noise is measured all the time
and everywhere: of a point it is the change of its offset, in which the motion of the subject does not show; of a node
what turns back in the next frame, and no more than that of the points on it, because fast limbs turn back too. So a
clean recording is hardly filtered. Only what is shown is: the fit goes on from the surface as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_matrix

from nr_tracking.deformation.normal_equations import DeformationGraph, Motion
from nr_tracking.tracking.pose import Birth, CarriedPose
from nr_tracking.tracking.rigid import Rigid
from nr_tracking.types import Bool, Float64

_LEAST = 0.1  # share of a correction that is always followed
_MEMORY = 0.1  # share of a new frame in the measured noise


@dataclass(frozen=True)
class _Steady:
    """What is remembered of one stamp, of P nodes and N points.

    ``nodes`` (P, 3) as they were fitted, their last ``step`` and its ``change`` from the one before, both (P, 3);
    ``elapsed`` seconds of that step; filtered ``places`` (P, 3) of the nodes and their ``speeds`` (P, 3) a second;
    filtered ``offsets`` (N, 3) of the points; ``node_noise`` and ``point_noise`` (P,), variances along an axis.
    """

    stamp_ns: int
    elapsed: float
    nodes: Float64
    step: Float64
    change: Float64
    places: Float64
    speeds: Float64
    offsets: Float64
    node_noise: Float64
    point_noise: Float64


class Steadier:
    """Filters what is shown of the tracks; ``strength`` 0 shows them as they are."""

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def start(self, pose: CarriedPose) -> None:
        """Begin with a first pose, at rest."""
        rest, unknown, offsets = np.zeros_like(pose.nodes), np.zeros(len(pose.nodes)), np.zeros_like(pose.points)
        self._state = _Steady(pose.stamp_ns, 1.0, pose.nodes, rest, rest, pose.nodes, rest, offsets, unknown, unknown)

    def seen(self, change: Rigid) -> None:
        """Go on in another camera's frame."""
        state = self._state
        self._state = replace(
            state,
            nodes=change.points(state.nodes),
            step=change.vectors(state.step),
            change=change.vectors(state.change),
            places=change.points(state.places),
            speeds=change.vectors(state.speeds),
            offsets=change.vectors(state.offsets),
        )

    def corrected(self, shift: Float64) -> None:
        """Go on with the nodes moved by ``shift`` (P, 3), which is no motion of the subject."""
        state = self._state
        self._state = replace(state, nodes=state.nodes + shift, places=state.places + shift)

    def of(self, kept: Bool) -> None:
        """Go on with only the points ``kept`` (N,)."""
        self._state = replace(self._state, offsets=self._state.offsets[kept])

    def born(self, birth: Birth) -> None:
        """Go on with the new nodes and points too, as those beside them; what has no offset yet lies on the surface."""
        state, beside, fresh = self._state, birth.growth.beside, birth.growth.nodes

        def grown(values: Float64) -> Float64:
            return np.concatenate((values, values[beside]))

        self._state = replace(
            state,
            nodes=np.concatenate((state.nodes, fresh)),
            step=grown(state.step),
            change=grown(state.change),
            places=np.concatenate((state.places, fresh + (state.places - state.nodes)[beside])),
            speeds=grown(state.speeds),
            offsets=np.concatenate((state.offsets, np.zeros_like(birth.points))),
            node_noise=grown(state.node_noise),
            point_noise=grown(state.point_noise),
        )

    def step(
        self, graph: DeformationGraph, pose: CarriedPose, motion: Motion, landed: Bool, places: Float64
    ) -> Float64:
        """Take in a new pose, reached by ``motion``; returns where to show the points (N, 3).

        ``places`` (N, 3) are the points as projected onto the surface, those which ``landed`` (N,).
        """
        if self.strength == 0:
            return places
        state, ring = self._state, _ring(graph)
        turns = (graph.blend @ motion.rotations.reshape(-1, 9)).reshape(-1, 3, 3)
        offsets = np.einsum("nij,nj->ni", turns, state.offsets)
        off = np.where(landed[:, None], places - pose.points - offsets, 0.0)
        sums = graph.blend.T @ np.stack(((off**2).sum(axis=1), landed), axis=1)
        point_noise = _learnt(state.point_noise, sums[:, 0] / np.maximum(3.0 * sums[:, 1], 1e-9))
        offsets = offsets + self._share(off, graph.blend @ point_noise) * off

        elapsed = 1e-9 * (pose.stamp_ns - state.stamp_ns)
        step = pose.nodes - state.nodes
        change = step - state.step * (elapsed / state.elapsed)
        # Noise turns back: successive changes of step have a mean product of -4 variances along each axis.
        echo = ring @ -(change * state.change).sum(axis=1) / 12.0
        node_noise = _learnt(state.node_noise, echo)
        expected = state.places + elapsed * state.speeds
        off = pose.nodes - expected
        alpha = self._share(ring @ off, np.clip(node_noise, 0.0, ring @ point_noise))
        filtered = expected + alpha * off
        speeds = state.speeds + alpha**2 / (2 - alpha) * off / elapsed
        known = pose.stamp_ns, elapsed, pose.nodes, step, change
        self._state = _Steady(*known, filtered, speeds, offsets, node_noise, point_noise)
        shown: Float64 = pose.points + offsets + graph.blend @ (filtered - pose.nodes)
        return shown

    def _share(self, off: Float64, noise: Float64) -> Float64:
        """Which share (K, 1) of corrections (K, 3) to follow where the ``noise`` has that variance (K,)."""
        square = (off**2).sum(axis=1, keepdims=True)
        limit = 3 * self.strength**2 * noise[:, None]
        return np.maximum(square / np.maximum(square + limit, 1e-300), _LEAST)


def _learnt(before: Float64, now: Float64) -> Float64:
    """A running mean, with the newest taken in."""
    return before + _MEMORY * (now - before)


def _ring(graph: DeformationGraph) -> csr_matrix:
    """The matrix (P, P) that takes the mean over each node and those that an edge ties to it."""
    own = np.arange(graph.count)
    rows = np.concatenate((own, graph.edges[:, 0], graph.edges[:, 1]))
    columns = np.concatenate((own, graph.edges[:, 1], graph.edges[:, 0]))
    share = 1.0 / np.bincount(rows, minlength=graph.count)
    return csr_matrix((share[rows], (rows, columns)), shape=(graph.count, graph.count))
