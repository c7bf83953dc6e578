"""Persistent points: where each place on the subject goes, frame after frame.

    tracks = PersistentTracks(config.refinement, config.tracks)
    first = tracks.start(surface, stamp_ns)                   # types.Tracks
    then = tracks.advance(next_surface, stamp_ns, cues)       # the same ids, moved onto the next surface
    canonical, previous = tracks.trace(next_surface)          # for its vertices: at the start, and one frame ago
    patches = tracks.patches(surface, graph)                  # the same motion, seen patch by patch

Points are sampled evenly by area on the first surface and hang on the nodes of a deformation graph that is built there,
once, along the surface: limbs that touch later stay apart. From frame to frame the graph is fitted to the next surface
(:mod:`nr_tracking.deformation.refinement`), starting from the velocity or from the network's guess, whichever fits
better. The points that come out are projected onto the surface; those that are carried on are not, because projection
also moves every point a little along the surface, and a hundred frames of that are far. Everything is metric, in the
camera frame, so the cube in which surfaces are reconstructed may move without being noticed here.

There is one motion, that of the tracked points. Patches of a frame's own surface, previous positions and correspondence
colours are views of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from nr_tracking.config import RefinementConfig, TracksConfig
from nr_tracking.deformation.carrier import build_carrier, part_of
from nr_tracking.deformation.matching import even_sample
from nr_tracking.deformation.normal_equations import Motion, moved_points, still, turned_normals
from nr_tracking.deformation.patches import PatchGraph, build_patches
from nr_tracking.deformation.projection import SurfaceIndex, sample_evenly
from nr_tracking.deformation.refinement import Refiner
from nr_tracking.deformation.rotations import fit_rigid, rotation_from_vector, vector_from_rotation
from nr_tracking.types import Bool, Float32, Float64, InputError, Int64, Patches, Surface, Tracks

PointMap = Callable[[Float32], Float32]

_TRUSTED_PULL = 0.02  # share of the subject's size by which the surface may pull a point at confidence exp(-1)


@dataclass(frozen=True)
class Cues:
    """What the network knows about a pair of frames; all of it is optional.

    ``guess`` maps points (N, 3) on the previous surface to where they should be now (N, 3), metres. ``embed_previous``
    and ``embed_next`` map points (N, 3) on the previous and on the next surface to unit embeddings (N, E).
    """

    guess: PointMap | None = None
    embed_previous: PointMap | None = None
    embed_next: PointMap | None = None


@dataclass(frozen=True)
class _Pose:
    """Where everything is at one stamp.

    ``nodes`` (P, 3), ``points`` and unit ``normals`` (K, 3) are carried on; ``placed`` (K, 3) are the points projected
    onto the surface.
    """

    stamp_ns: int
    nodes: Float64
    points: Float64
    normals: Float64
    placed: Float64


class PersistentTracks:
    """Carries points from one surface to the next; see the module's text. Ids count from ``first_id``."""

    def __init__(self, refinement: RefinementConfig, tracks: TracksConfig, first_id: int = 0) -> None:
        self.refinement, self.settings, self.first_id = refinement, tracks, first_id
        self._cosine = float(np.cos(np.deg2rad(refinement.normal_degrees)))
        self._newest: _Pose | None = None
        self._previous: _Pose | None = None
        self._motion: Motion | None = None

    @property
    def _pose(self) -> _Pose:
        if self._newest is None:
            raise RuntimeError("tracks have no first surface yet: call start before anything else")
        return self._newest

    def start(self, surface: Surface, stamp_ns: int) -> Tracks:
        """Lay the points on the first surface. Raises :class:`InputError` ("no_surface") where it has no area."""
        samples = sample_evenly(surface.vertices, surface.faces, self.settings.count)
        patches = build_patches(surface.vertices, surface.faces, self.refinement.nodes)
        nodes, self._graph = build_carrier(patches, samples.points, samples.vertex)
        self._solved = even_sample(samples.points, self.refinement.samples)
        self._refiner = Refiner(self.refinement, part_of(self._graph, self._solved))
        self._newest = _Pose(stamp_ns, nodes, samples.points, samples.normals, samples.points)
        self._birth = samples.points
        self._previous, self._motion = None, None
        return self._tracks(surface, samples.vertex, surface.confidence[samples.vertex])

    def advance(self, surface: Surface, stamp_ns: int, cues: Cues | None = None) -> Tracks:
        """Move the points onto the surface of a later frame.

        Raises :class:`InputError` ("no_surface") where that has no area, ("stamp_order") where it is not later; the
        tracks then stay as they are.
        """
        pose = self._pose
        if stamp_ns <= pose.stamp_ns:
            raise InputError("stamp_order", f"stamp {stamp_ns} ns is not later than the last one, {pose.stamp_ns} ns")
        if len(surface.faces) == 0:
            raise InputError("no_surface", f"the surface at stamp {stamp_ns} ns has no faces")
        size = float(np.ptp(pose.points, axis=0).max())
        index = SurfaceIndex(surface.vertices, surface.faces)
        motion = self._fit(pose, index, size, stamp_ns, cues or Cues())

        points = moved_points(self._graph, pose.nodes, pose.points, motion)
        normals = turned_normals(self._graph, pose.normals, motion)
        landing = index.project(points, normals, self.refinement.match_radius * size, self._cosine)
        landed = landing.vertex >= 0
        share = self.settings.snap * landed[:, None]
        placed = points + share * (np.where(landed[:, None], landing.points, points) - points)

        self._previous, self._motion = pose, motion
        self._newest = _Pose(stamp_ns, motion.translations, points, normals, placed)
        pull = np.where(landed, np.exp(-((landing.distance / (_TRUSTED_PULL * size)) ** 2)), 0.0)
        return self._tracks(surface, landing.vertex, (pull * surface.confidence[landing.vertex]).astype(np.float32))

    def _fit(self, pose: _Pose, index: SurfaceIndex, size: float, stamp_ns: int, cues: Cues) -> Motion:
        """Fit the graph to the next surface from the best of the guesses."""
        solved = self._solved
        starts = self._starts(pose, stamp_ns, cues)
        if not self.refinement.enabled:
            return starts[-1]
        target, features = index.target(self.refinement.samples), None
        if cues.embed_previous is not None and cues.embed_next is not None and self.refinement.embedding > 0:
            features = cues.embed_previous(pose.points[solved].astype(np.float32))
            sought = target.points[target.sample].astype(np.float32)
            target = replace(target, features=cues.embed_next(sought))
        fit = self._refiner.refine(
            pose.nodes, pose.points[solved], pose.normals[solved], target, size, starts, features
        )
        return fit.motion

    def _starts(self, pose: _Pose, stamp_ns: int, cues: Cues) -> list[Motion]:
        """Standing still, going on as before, and the network's guess: those of them that exist, in this order."""
        starts = [still(pose.nodes)]
        if self._motion is not None and self._previous is not None and self.refinement.velocity > 0:
            elapsed = (stamp_ns - pose.stamp_ns) / (pose.stamp_ns - self._previous.stamp_ns)
            share = self.refinement.velocity * min(elapsed, 4.0)
            turn = rotation_from_vector(share * vector_from_rotation(self._motion.rotations))
            starts.append(Motion(turn, pose.nodes + share * (self._motion.translations - self._previous.nodes)))
        if cues.guess is not None:
            goal = np.asarray(cues.guess(pose.points.astype(np.float32)), np.float64)
            owner = self._graph.index[np.arange(len(pose.points)), self._graph.weight.argmax(axis=1)]
            starts.append(Motion(*fit_rigid(pose.points, goal, owner, len(pose.nodes), pose.nodes)))
        return starts

    def trace(self, surface: Surface) -> tuple[Float32, Float32]:
        """Where the vertices (V, 3) of the newest surface were at the start and one frame ago: two (V, 3) float32.

        NaN one frame ago, on the first frame.
        """
        near, share = self._nearby(surface.vertices, self._pose.placed)
        canonical = np.einsum("vn,vni->vi", share, self._birth[near])
        if self._previous is None:
            return canonical.astype(np.float32), np.full(surface.vertices.shape, np.nan, np.float32)
        step = self._pose.placed - self._previous.placed
        previous = surface.vertices - np.einsum("vn,vni->vi", share, step[near])
        return canonical.astype(np.float32), previous.astype(np.float32)

    def patches(self, surface: Surface, graph: PatchGraph) -> Patches:
        """Patches of the surface before the newest one, with the motion of the tracked points to the newest.

        ``graph`` are the patches of ``surface``. Each gets the rigid motion that fits its vertices' motion best. With a
        single frame so far, ``surface`` is that frame's and motions are NaN.
        """
        centres = graph.centres.astype(np.float64)
        rotations = np.full((len(graph), 3, 3), np.nan)
        translations = np.full((len(graph), 3), np.nan)
        if self._previous is not None:
            vertices = surface.vertices.astype(np.float64)
            near, share = self._nearby(vertices, self._previous.placed)
            step = self._pose.placed - self._previous.placed
            goal = vertices + np.einsum("vn,vni->vi", share, step[near])
            rotations, translations = fit_rigid(vertices, goal, graph.owner, len(graph), centres)
        return Patches(
            graph.centres, rotations.astype(np.float32), translations.astype(np.float32), graph.owner, graph.neighbours
        )

    def _nearby(self, points: np.ndarray, tracked: Float64) -> tuple[Int64, Float64]:
        """The few tracked points nearest to each of ``points`` (V, 3) and their shares, by inverse distance: (V, 4)."""
        distance, near = cKDTree(tracked).query(points, k=np.arange(1, min(4, len(tracked)) + 1))
        closeness = 1.0 / np.maximum(distance, 1e-9)
        return near, closeness / closeness.sum(axis=1, keepdims=True)

    def _tracks(self, surface: Surface, vertex: Int64, confidence: Float32) -> Tracks:
        """The published view of the present pose; ``vertex`` (K,) of the surface near each point, -1 for none."""
        pose, before = self._pose, self._previous
        velocities = np.zeros_like(pose.placed)
        if before is not None:
            velocities = (pose.placed - before.placed) / (1e-9 * (pose.stamp_ns - before.stamp_ns))
        observed: Bool = (vertex >= 0) & surface.observed[vertex]
        return Tracks(
            self.first_id + np.arange(len(pose.placed), dtype=np.int64),
            pose.placed.astype(np.float32),
            velocities.astype(np.float32),
            confidence,
            observed,
        )
