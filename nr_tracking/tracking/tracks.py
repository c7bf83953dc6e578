"""Persistent points: where each place on the subject goes, frame after frame.

    tracks = PersistentTracks(config.refinement, config.tracks)
    first = tracks.start(surface, stamp_ns)                   # types.Tracks
    then = tracks.advance(next_surface, stamp_ns, cues)       # the same ids, moved onto the next surface
    canonical, previous = tracks.trace(next_surface)          # for its vertices: at the start, and one frame ago
    patches = tracks.patches(surface, graph)                  # the same motion, seen patch by patch

Points are sampled evenly by area on the first surface and hang on the nodes of a deformation graph that is built there,
once, along the surface: limbs that touch later stay apart. From frame to frame the graph is fitted to the next surface
(:mod:`nr_tracking.tracking.fitting`). The points that come out are projected onto the surface; those that are carried
on are not, because projection also moves every point a little along the surface, and a hundred frames of that are far.
As long as nothing has moved by more than a little, each frame is fitted from the same pose instead of the last one, so
that a subject at rest does not wander by what single fits err.

Who is tracked changes (:mod:`nr_tracking.tracking.population`): points that leave the surface die, those that come back
are recognised, and surface without points gets new ones, on new nodes where the graph does not reach. Every keyframe
the motion since the first surface is fitted anew in one leap, which forgets what all the small steps have added up;
points on which the two ways disagree die.

Everything is metric, in the camera frame of the newest surface. A camera that moved is told by :meth:`moved_camera`;
the cube in which surfaces are reconstructed may move without being noticed here. There is one motion, that of the
tracked points: patches of a frame's own surface, previous positions and correspondence colours are views of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from nr_tracking.config import RefinementConfig, TracksConfig
from nr_tracking.deformation.carrier import build_carrier, grow_carrier, on_nodes, part_of, used_nodes
from nr_tracking.deformation.matching import even_sample
from nr_tracking.deformation.normal_equations import Motion, carried, disagreement, still
from nr_tracking.deformation.patches import PatchGraph, adjacent, build_patches, mesh_edges
from nr_tracking.deformation.projection import PointIndex, Projection, SurfaceIndex, sample_evenly
from nr_tracking.deformation.rotations import fit_rigid, straightened
from nr_tracking.loops import compiled_loops
from nr_tracking.sensing.rigid import Rigid
from nr_tracking.tracking.confidence import Evidence, calibrated, error_limit
from nr_tracking.tracking.fitting import Cues, GraphFitter, Passage
from nr_tracking.tracking.population import Population, uncovered
from nr_tracking.tracking.pose import Birth, CarriedPose
from nr_tracking.tracking.steadying import Steadier
from nr_tracking.types import Bool, Float32, Float64, InputError, Int64, Nodes, Patches, Surface, Tracks

_BACK = 0.5  # a lost point is recognised within this share of the distance at which a living one dies
_FACING = 70.0  # degrees between the normals of a point and of the surface that it lies on, at most
_FEWEST_BORN = 3  # seeking places without tracks that are worth a birth
_STILL = 0.02  # of the size: as long as no node is farther from where it was, frames are fitted from the same pose
_MOST_NODES = 2  # nodes at most, over those of the first surface


class PersistentTracks:
    """Carries points from one surface to the next; see the module's text.

    Ids count from ``first_id``; ``device`` is where the torch solver runs, if that is chosen. ``watch``, if set, is
    called with what the confidences of each frame are made of, in the order of its tracks.
    """

    def __init__(
        self,
        refinement: RefinementConfig,
        tracks: TracksConfig,
        first_id: int = 0,
        device: str = "cpu",
        watch: Callable[[Evidence], None] | None = None,
    ) -> None:
        self.refinement, self.settings, self._device = refinement, tracks, device
        self.next_id = first_id
        self._cosine = float(np.cos(np.deg2rad(_FACING)))
        self._steadier = Steadier(tracks.steady)
        self.watch = watch
        self._newest: CarriedPose | None = None
        self._previous: CarriedPose | None = None
        self._change: Rigid | None = None
        self._pending: Rigid | None = None
        self._traced: tuple[Float32, Int64] | None = None

    @property
    def _pose(self) -> CarriedPose:
        if self._newest is None:
            raise RuntimeError("tracks have no first surface yet: call start before anything else")
        return self._newest

    def start(self, surface: Surface, stamp_ns: int) -> Tracks:
        """Lay the points on the first surface. Raises :class:`InputError` ("no_surface") where it has no area."""
        samples = sample_evenly(surface.vertices, surface.faces, self.settings.count)
        count = min(self.refinement.nodes, len(samples.points))
        patches = build_patches(surface.vertices, surface.faces, count)
        nodes, self._graph = build_carrier(patches, samples.points, samples.vertex)
        turns = still(nodes).rotations
        # There are never more nodes than points, so ids that count from the same number are not used again either.
        self._next_node = self.next_id
        self._node_ids = self._new_node_ids(len(nodes))
        self._newest = CarriedPose(stamp_ns, nodes, turns, samples.points, samples.normals)
        self._placed, self._index = samples.points, SurfaceIndex(surface.vertices, surface.faces)
        self._shown = samples.points
        self._steadier.start(self._newest)
        self._population = Population.founded(len(samples.points), self.next_id)
        self.next_id = self._population.next_id
        self._first, self._reference, self._frames = self._newest, self._newest, 0
        self._size = float(np.ptp(samples.points, axis=0).max())
        self._spacing = np.sqrt(samples.area / len(samples.points))
        self._node_spacing = np.sqrt(samples.area / len(nodes))
        self._most_nodes = _MOST_NODES * len(nodes)
        self._previous, self._traced, self._pending = None, None, None
        self._strain, self._confirmed = np.zeros((2, len(samples.points)))
        self._prepare()
        self._landing = Projection.on_surface(samples)
        return self._tracks(surface, self._landing)

    def _prepare(self) -> None:
        """Make the fitter and choose its samples anew; to be called whenever points or nodes have changed."""
        self._fitter = GraphFitter(self.refinement, self._graph, self._pose.points, self._size, self._device)

    def moved_camera(self, change: Rigid | None) -> None:
        """The next surface is seen from elsewhere: ``change`` leads from the present camera frame to the new one.

        None where that is the present one. It takes effect with the surface that :meth:`advance` accepts next; what is
        told before that takes its place, so it is to be told of every surface once the camera has moved.
        """
        self._pending = change

    def _take_camera(self) -> None:
        """Go on in the frame of the camera from which the next surface is seen."""
        self._change, self._pending = self._pending, None
        if (change := self._change) is None:
            return
        self._newest = self._pose.seen(change)
        self._previous = self._previous.seen(change) if self._previous is not None else None
        self._reference = self._reference.seen(change)  # the first pose may stay: what turned is a part of the motion
        self._steadier.seen(change)

    def advance(self, surface: Surface, stamp_ns: int, cues: Cues | None = None) -> Tracks:
        """Move the points onto the surface of a later frame.

        Raises :class:`InputError` ("no_surface") where that has no area, ("stamp_order") where it is not later; the
        tracks then stay as they are.
        """
        last_ns = self._pose.stamp_ns
        if stamp_ns <= last_ns:
            raise InputError("stamp_order", f"stamp {stamp_ns} ns is not later than the last one, {last_ns} ns")
        index = SurfaceIndex(surface.vertices, surface.faces)
        if not index.normals.any():
            raise InputError("no_surface", f"the surface at stamp {stamp_ns} ns has no area")
        self._take_camera()
        pose = self._pose
        if np.linalg.norm(pose.nodes - self._reference.nodes, axis=1).max() > _STILL * self._size:
            self._reference = pose
        passage = Passage(self._reference, pose, self._previous, stamp_ns)
        self._step(self._fitter.fit(passage, index, cues or Cues()), stamp_ns)
        self._previous = pose
        self._index, self._frames = index, self._frames + 1
        landing = self._land()
        if self._frames % self.settings.keyframe_frames == 0:
            uncorrected = self._placed
            self._anchor()
            landing = self._land()
            self._steadier.corrected(self._placed - uncorrected)
        self._shown = self._steadier.step(self._graph, self._pose.stamp_ns, self._placed)
        reach = self.settings.death_ratio * self._size
        near, back = landing.distance <= reach, landing.distance <= _BACK * reach
        self._population.judge(near, back, stamp_ns, self.settings)
        if not self._population.alive.any():  # somebody else, or somewhere else: nothing to go on from
            return self.start(surface, stamp_ns)
        if self._frames % self.settings.renew_frames == 0:
            landing = self._renew(landing)
        return self._tracks(surface, landing)

    def _step(self, motion: Motion, stamp_ns: int) -> None:
        """Take the pose that a motion makes of the reference."""
        reference = self._reference
        self._newest = self._moved(reference, motion, stamp_ns)
        self._strain = disagreement(self._graph, reference.nodes, reference.points, motion, self._newest.points)

    def _moved(self, pose: CarriedPose, motion: Motion, stamp_ns: int) -> CarriedPose:
        """The pose that a motion makes of an earlier one."""
        points, normals = carried(self._graph, pose.nodes, pose.points, pose.normals, motion)
        turns = straightened(motion.rotations @ pose.turns)
        return CarriedPose(stamp_ns, motion.translations, turns, points, normals)

    def _land(self) -> Projection:
        """Project the points onto the newest surface."""
        pose = self._pose
        reach = self.refinement.match_radius * self._size
        landing = self._landing = self._index.project(pose.points, pose.normals, reach, self._cosine)
        landed = (landing.vertex >= 0)[:, None]
        self._placed = pose.points + self.settings.snap * np.where(landed, landing.points - pose.points, 0.0)
        return landing

    def _anchor(self) -> None:
        """At a keyframe, fit the motion since the first surface in one step, and end the points that disagree with it.

        Leaps from keyframe to keyframe would add up to a slow slide along the surface: nothing but the shape in which
        the nodes began says where on a limb they belong. Bozic et al., "Neural Non-Rigid Tracking", reject
        correspondences that differ by 0.20 m between keyframes 50 frames apart, for people of about 1.8 m.
        """
        pose = self._pose
        if self.refinement.enabled:
            anchored = self._moved(self._first, self._fitter.leap(self._first, pose, self._index), pose.stamp_ns)
            apart = np.linalg.norm(anchored.points - pose.points, axis=1)
            # Who is unseen already is not denied: where the part shows again, that is told by its place there.
            denied = apart > self.settings.keyframe_ratio * self._size
            self._population.reject(denied & self._population.alive)
            # The frame before is corrected alike: the leap is no motion of the subject.
            assert self._previous is not None
            self._previous = self._previous.corrected(pose, anchored)
            self._newest = anchored
        self._confirmed[:] = self._frames
        self._reference = self._pose

    def _renew(self, landing: Projection) -> Projection:
        """Forget points that stayed away and lay new ones where the surface has none."""
        kept = self._population.forget(self._pose.stamp_ns, self.settings)
        if not kept.all():
            self._graph = part_of(self._graph, np.flatnonzero(kept))
            assert self._previous is not None
            self._newest, self._previous = self._pose.of(kept), self._previous.of(kept)
            self._first, self._reference = self._first.of(kept), self._reference.of(kept)
            self._placed, self._strain = self._placed[kept], self._strain[kept]
            self._shown = self._shown[kept]
            self._steadier.of(kept)
            self._confirmed = self._confirmed[kept]
            self._traced = None  # it names points by their old places
            self._drop_nodes()
        born = self._lay()
        if born or not kept.all():
            self._prepare()
            landing = self._land()
        return landing

    def _drop_nodes(self) -> None:
        """Do without nodes that no point is left on, so that there is room for others where new points are laid."""
        kept = used_nodes(self._graph)
        if kept.all():
            return
        assert self._previous is not None
        self._graph, self._node_ids = on_nodes(self._graph, self._pose.nodes, kept), self._node_ids[kept]
        self._newest, self._previous = _on_nodes(self._pose, kept), _on_nodes(self._previous, kept)
        self._first, self._reference = _on_nodes(self._first, kept), _on_nodes(self._reference, kept)
        self._steadier.on_nodes(kept)

    def _lay(self) -> int:
        """Lay new points on surface that no living point is near; returns how many."""
        index, pose, alive = self._index, self._pose, np.flatnonzero(self._population.alive)
        room = self.settings.budget - len(alive)
        if room <= 0 or len(alive) == 0:
            return 0
        living = PointIndex(self._placed[alive])
        seeking = even_sample(index.points, self.refinement.samples)
        distance, _ = living.nearest(index.points[seeking])
        if uncovered(distance, self._spacing, self.settings).sum() < _FEWEST_BORN:
            return 0
        distance, _ = living.nearest(index.points)
        bare = np.flatnonzero(uncovered(distance[:, 0], 0.5 * self._spacing, self.settings))
        # As dense as the living points are where they are, and no more than a first surface gets.
        count = min(room, self.settings.count, len(alive) * len(bare) // max(len(index.points) - len(bare), 1))
        chosen = bare[even_sample(index.points[bare], count)] if count else bare[:0]
        if len(chosen) == 0:
            return 0
        points, normals = index.points[chosen], index.normals[chosen]
        # A new point belongs to the part of the body whose nearest point faces as it does.
        beside = alive[living.facing(pose.normals[alive], points, normals, self._cosine, self._size)]
        # Each bare vertex goes with one of them; two adjoin where an edge leads from one's vertices to the other's.
        owner = np.full(len(index.points), -1, np.int32)
        owner[bare] = PointIndex(points).facing(normals, index.points[bare], index.normals[bare], self._cosine)
        edges = mesh_edges(index.faces)
        adjoining = adjacent(owner, edges[(owner[edges] >= 0).all(axis=1)])
        growth = grow_carrier(self._graph, pose.nodes, points, beside, self._node_spacing, self._most_nodes, adjoining)

        birth = Birth(pose, points, normals, growth)
        assert self._previous is not None
        self._first, self._reference = birth.into(self._first), birth.into(self._reference)
        self._previous = birth.into(self._previous)
        self._newest, self._graph = birth.into(pose), growth.graph
        self._node_ids = np.concatenate((self._node_ids, self._new_node_ids(len(growth.nodes))))
        self._shown = np.concatenate((self._shown, points))
        self._steadier.born(birth)
        nothing = np.zeros(len(points))
        self._strain = np.concatenate((self._strain, nothing))
        self._confirmed = np.concatenate((self._confirmed, nothing + self._frames))
        self._population.born(len(points))
        self.next_id = self._population.next_id
        return len(points)

    def _new_node_ids(self, count: int) -> Int64:
        first, self._next_node = self._next_node, self._next_node + count
        return np.arange(first, self._next_node)

    def nodes(self) -> Nodes:
        """The nodes of the deformation graph as they are now."""
        pose = self._pose
        return Nodes(self._node_ids, pose.nodes.astype(np.float32), pose.turns.astype(np.float32))

    def trace(self, surface: Surface) -> tuple[Float32, Float32]:
        """Where the vertices (V, 3) of the newest surface were at the start and one frame ago: two (V, 3) float32.

        Each goes with the nearest track that faces as it does. NaN one frame ago, on the first frame.
        """
        pose, near = self._pose, self._beside_vertices()
        self._traced = surface.vertices, near
        vertices = self._index.points
        canonical = self._gone_along(near, pose.turns, vertices, self._placed, self._first.points, back=True)
        if self._previous is None:
            return canonical.astype(np.float32), np.full(surface.vertices.shape, np.nan, np.float32)
        motion = self._previous.motion_to(pose)
        earlier = self._previous.points
        previous = self._gone_along(near, motion.rotations, vertices, pose.points, earlier, back=True)
        return canonical.astype(np.float32), previous.astype(np.float32)

    def patches(self, surface: Surface, graph: PatchGraph) -> Patches:
        """Patches of the surface before the newest one, with the motion of the tracked points to the newest.

        ``graph`` are the patches of ``surface``. Each gets the rigid motion that fits its vertices' motion best, from
        the camera frame of that surface to the newest one's. With a single frame so far, ``surface`` is that frame's
        and motions are NaN.
        """
        centres = graph.centres.astype(np.float64)
        rotations = np.full((len(graph), 3, 3), np.nan)
        translations = np.full((len(graph), 3), np.nan)
        if self._previous is not None:
            vertices = np.ascontiguousarray(surface.vertices, np.float64)
            seen = vertices if self._change is None else self._change.points(vertices)
            if self._traced is not None and self._traced[0] is surface.vertices:
                near = self._traced[1]
            else:
                near = PointIndex(self._previous.points).nearest(seen)[1][:, 0]
            turns = self._previous.motion_to(self._pose).rotations
            goal = self._gone_along(near, turns, seen, self._previous.points, self._pose.points, back=False)
            rotations, translations = fit_rigid(vertices, goal, graph.owner, len(graph), centres)
        return Patches(
            graph.centres, rotations.astype(np.float32), translations.astype(np.float32), graph.owner, graph.neighbours
        )

    def _beside_vertices(self) -> Int64:
        """The living point nearest to each vertex (V,) on a side like that of its normal, else the nearest."""
        alive, points, normals = self._population.alive, self._index.points, self._index.normals
        alive = alive if alive.any() else np.ones_like(alive)
        # Most are known from the projection of the points: the others alone are searched for.
        near = self._landing.nearest(points, self._placed, alive)
        lone, living = np.flatnonzero(near < 0), np.flatnonzero(alive)
        sides, lone_normals = self._pose.normals[living], normals[lone]
        near[lone] = living[PointIndex(self._placed[living]).facing(sides, points[lone], lone_normals, self._cosine)]
        return near

    def _gone_along(
        self, near: Int64, turns: Float64, places: Float64, before: Float64, after: Float64, back: bool
    ) -> Float64:
        """Where ``places`` (V, 3) go with the points ``near`` (V,) them, which go from ``before`` to ``after`` (N, 3).

        What leads to a place from its point turns as the point does, by the mean of the rotations ``turns`` (P, 3, 3)
        of its nodes; or ``back`` by that.
        """
        graph = self._graph
        if (loops := compiled_loops("tracks")) is not None:
            turning, *known = (np.ascontiguousarray(values, np.float64) for values in (turns, places, before, after))
            gone: Float64 = loops.gone_along(near, graph.index, graph.weight, turning, back, *known)
            return gone
        turned = (graph.blend @ turns.reshape(-1, 9))[near].reshape(-1, 3, 3)
        turned = np.swapaxes(turned, 1, 2) if back else turned
        return after[near] + np.einsum("vij,vj->vi", turned, places - before[near])

    def _tracks(self, surface: Surface, landing: Projection) -> Tracks:
        """The published view of the present pose: the living points."""
        pose, before, alive = self._pose, self._previous, self._population.alive
        velocities = np.zeros_like(pose.points)
        if before is not None:
            velocities = (pose.points - before.points) / (1e-9 * (pose.stamp_ns - before.stamp_ns))
        vertex = landing.vertex
        observed: Bool = (vertex >= 0) & surface.observed[vertex]
        limit = error_limit(self._placed[:, 2])
        evidence = Evidence(
            landing.distance / limit,
            observed,
            surface.confidence[vertex].astype(np.float64),
            self._strain / limit,
            self._frames - self._confirmed,
        ).of(alive)
        if self.watch is not None:
            self.watch(evidence)
        return Tracks(
            self._population.ids[alive],
            self._shown[alive].astype(np.float32),
            velocities[alive].astype(np.float32),
            calibrated(evidence),
            observed[alive],
        )


def _on_nodes(pose: CarriedPose, kept: Bool) -> CarriedPose:
    """With only the nodes ``kept`` (P,); the points stay where they are."""
    return replace(pose, nodes=pose.nodes[kept], turns=pose.turns[kept])
