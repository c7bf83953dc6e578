"""One frame of a track: how the deformation graph comes to lie on the next surface, and from where that is sought.

The fit starts from rest or from the velocity, whichever comes closer; where neither comes close, from where the body
would be had it only been shifted, and if that is not close either, the network is asked for its guess. From a reference
pose, which is not always the last one, it goes straight to the new surface.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from nr_tracking.config import RefinementConfig
from nr_tracking.deformation.carrier import part_of
from nr_tracking.deformation.matching import Target, even_sample
from nr_tracking.deformation.normal_equations import DeformationGraph, Motion, still
from nr_tracking.deformation.projection import SurfaceIndex
from nr_tracking.deformation.refinement import Refiner
from nr_tracking.deformation.rotations import fit_rigid, rotation_from_vector, vector_from_rotation
from nr_tracking.deformation.torch_refinement import TorchRefiner
from nr_tracking.tracking.pose import CarriedPose
from nr_tracking.types import Float32, Float64

PointMap = Callable[[Float32], Float32]

_FARTHEST_SHIFT = 0.5  # sizes that a body shifts between two frames, at most
_LONGEST_AHEAD = 4.0  # frames' time over which the last motion goes on, at most


@dataclass(frozen=True)
class Cues:
    """What the network knows about a pair of frames; all of it is optional.

    ``guess`` maps points (N, 3) on the previous surface to where they should be now (N, 3), metres. ``embed_previous``
    and ``embed_next`` map points (N, 3) on the previous and on the next surface to unit embeddings (N, E). What is on
    the previous surface is given as the newest camera sees it, see
    :meth:`nr_tracking.tracking.tracks.PersistentTracks.moved_camera`.
    """

    guess: PointMap | None = None
    embed_previous: PointMap | None = None
    embed_next: PointMap | None = None


@dataclass(frozen=True)
class Passage:
    """What a fit starts from: ``pose`` is the newest pose, ``before`` the one before it.

    The motion is counted from ``reference``, an earlier pose or the newest. ``stamp_ns`` is that of the next surface.
    """

    reference: CarriedPose
    pose: CarriedPose
    before: CarriedPose | None
    stamp_ns: int


class GraphFitter:
    """Fits the nodes of ``graph`` by an even sample of its ``points`` (N, 3).

    ``size`` is the subject's in metres; ``device`` is where the torch solver runs, if that is chosen.
    """

    def __init__(
        self, settings: RefinementConfig, graph: DeformationGraph, points: Float64, size: float, device: str = "cpu"
    ) -> None:
        self._settings, self._graph, self._size = settings, graph, size
        self._solved = even_sample(points, settings.samples)
        part = part_of(graph, self._solved)
        self._refiner: Refiner | TorchRefiner = (
            TorchRefiner(settings, part, device) if settings.backend == "torch" else Refiner(settings, part)
        )

    def fit(self, passage: Passage, index: SurfaceIndex, cues: Cues) -> Motion:
        """The motion from the reference to the surface of ``index``, from the best of the starts."""
        reference, pose, asked, solved = passage.reference, passage.pose, cues.guess, self._solved
        starts = [_from_reference(passage, start) for start in self._starts(passage)]
        if not self._settings.enabled:
            return starts[-1] if asked is None else _from_reference(passage, self._guessed(pose, asked))
        target, features = index.target(self._settings.samples), None
        if cues.embed_previous is not None and cues.embed_next is not None and self._settings.embedding > 0:
            features = cues.embed_previous(pose.points[solved].astype(np.float32))
            sought = target.points[target.sample].astype(np.float32)
            target = replace(target, features=cues.embed_next(sought))
        known = reference.nodes, reference.points[solved], reference.normals[solved]
        guesses = [lambda: _from_reference(passage, self._shifted(pose, target))]
        if asked is not None:
            guesses.append(lambda: _from_reference(passage, self._guessed(pose, asked)))
        return self._refiner.refine(*known, target, self._size, starts, features, guesses).motion

    def leap(self, first: CarriedPose, pose: CarriedPose, index: SurfaceIndex) -> Motion:
        """The motion from a pose of long ago to the surface of ``index``, on which ``pose`` lies already."""
        target, solved = index.target(self._settings.samples), self._solved
        known = first.nodes, first.points[solved], first.normals[solved]
        return self._refiner.refine(*known, target, self._size, [first.motion_to(pose)]).motion

    def _starts(self, passage: Passage) -> list[Motion]:
        """The starts of a fit: no motion and, if a last motion is known, its extrapolation."""
        pose, before = passage.pose, passage.before
        starts = [still(pose.nodes)]
        if before is not None and self._settings.velocity > 0:
            last = before.motion_to(pose)
            elapsed = (passage.stamp_ns - pose.stamp_ns) / (pose.stamp_ns - before.stamp_ns)
            share = self._settings.velocity * min(elapsed, _LONGEST_AHEAD)
            turn = rotation_from_vector(share * vector_from_rotation(last.rotations))
            starts.append(Motion(turn, pose.nodes + share * (pose.nodes - before.nodes)))
        return starts

    def _shifted(self, pose: CarriedPose, target: Target) -> Motion:
        """As if the body had only been shifted: its middle comes to lie on that of the surface."""
        shift = target.points.mean(axis=0) - pose.points[self._solved].mean(axis=0)
        if np.linalg.norm(shift) > _FARTHEST_SHIFT * self._size:
            shift = np.zeros(3)  # it is somebody else
        return Motion(still(pose.nodes).rotations, pose.nodes + shift)

    def _guessed(self, pose: CarriedPose, guess: PointMap) -> Motion:
        """The network's guess as a motion of the nodes."""
        # The nodes themselves are asked too, so that none is without an answer.
        asked = np.concatenate((pose.nodes, pose.points[self._solved]))
        owner = self._graph.index[self._solved, self._graph.weight[self._solved].argmax(axis=1)]
        owner = np.concatenate((np.arange(len(pose.nodes)), owner))
        goal = np.asarray(guess(asked.astype(np.float32)), np.float64)
        return Motion(*fit_rigid(asked, goal, owner, len(pose.nodes), pose.nodes))


def _from_reference(passage: Passage, motion: Motion) -> Motion:
    """A motion from the newest pose, as one from the reference."""
    return Motion(motion.rotations @ passage.reference.motion_to(passage.pose).rotations, motion.translations)
