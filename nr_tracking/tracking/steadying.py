"""Steady tracks: what a surface that is guessed anew in each frame adds to the motion is taken out again.

    steadier = Steadier(config.tracks.steady)
    steadier.start(pose)
    shown = steadier.step(graph, stamp_ns, places)     # where to show the points, frame after frame

A completed surface trembles by some millimetres though nothing moves, and takes the tracks along. That noise is nearly
white from frame to frame, so a long mean would take most of it out, but a mean lags behind what moves. So each point is
shown where it was shown before, carried on by the speed of the nodes of the deformation graph about it, where that is
beyond chance; and it follows what the new frame says

- at once, as far as that is too far off for noise,
- by the running mean of how far off the last frames were, where that is too much for chance,
- and else by a share that makes it the mean of all frames since either happened, of some twenty at most.

Neighbours move alike and much of the noise is alike too, so corrections are split in two: their mean about each node,
and what each point differs from that; both are judged by themselves. The noise of each is measured all the time and
everywhere as what turns back in the next frame: successive changes of step have a mean product of -4 variances. Where
nodes move, noise counts for little: a lag would be worse. Only what is shown is filtered; the fit goes on from the
surface as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.sparse import csr_matrix

from nr_tracking.deformation.normal_equations import DeformationGraph
from nr_tracking.loops import compiled_loops
from nr_tracking.sensing.rigid import Rigid
from nr_tracking.tracking.pose import Birth, CarriedPose
from nr_tracking.types import Bool, Float64, Int32, Int64, check_same_shape

_AT_ONCE = 1.25  # times the strength: standard deviations of noise beyond which one frame is enough
_MEAN = 0.25  # share of a new frame in the running mean of corrections
_LEAST = 0.05  # share of a correction that is always followed
_SPEED = 0.15  # share of a new frame in the speeds of nodes
_MOVES = 4.0  # standard deviations of a speed beyond which it is one
_WHILE_MOVING = 0.05  # share of the noise that counts where nodes move
_NOISE = 0.1  # share of a new frame in the measured noise
_UNEVEN = 2.5  # ratio of two intervals beyond which they say nothing about noise


@dataclass(frozen=True)
class _Trust:
    """The recent corrections of K places: their running ``mean`` (K, 3).

    ``count`` (K, 1) is the number of frames whose mean a place shows.
    """

    mean: Float64
    count: Float64

    @classmethod
    def none(cls, count: int) -> _Trust:
        return cls(np.zeros((count, 3)), np.zeros((count, 1)))

    def at(self, rows: np.ndarray) -> _Trust:
        return _Trust(self.mean[rows], self.count[rows])

    def then(self, other: _Trust) -> _Trust:
        return _Trust(np.concatenate((self.mean, other.mean)), np.concatenate((self.count, other.count)))

    def follow(self, off: Float64, noise: Float64, strength: float) -> tuple[Float64, _Trust]:
        """How far to go (K, 3) of corrections ``off`` (K, 3); ``noise`` (K,) is their variance along each axis."""
        mean = self.mean + _MEAN * (off - self.mean)
        count = self.count + 1
        at_once = _beyond(off, noise, _AT_ONCE * strength)
        by_mean = _beyond(mean, noise * (_MEAN / (2 - _MEAN)), strength)
        rest = np.maximum(1 / (count + 1), _LEAST) * off
        way = at_once * off + (1 - at_once) * (by_mean * mean + (1 - by_mean) * rest)
        # What followed the running mean is a mean of about so many frames.
        count = (1 - at_once) * (count + by_mean * (1 / _MEAN - count))
        return way, _Trust((1 - at_once) * (1 - by_mean) * mean, count)


@dataclass(frozen=True)
class _State:
    """What is remembered of one stamp, of P nodes and N points, after ``frames`` frames.

    ``places`` (N, 3) of the points on the surface, their last ``step`` (N, 3), taken in ``elapsed`` seconds, and its
    ``change`` (N, 3) from the one before; where they were ``shown`` (N, 3); ``speeds`` (P, 3) of the nodes, metres a
    second; ``node_noise`` (P,) that points about a node share and ``point_noise`` (P,) of single points, both as
    variances along an axis; what to think of corrections of ``nodes`` and ``points``.
    """

    stamp_ns: int
    elapsed: float
    frames: int
    places: Float64
    step: Float64
    change: Float64
    shown: Float64
    speeds: Float64
    node_noise: Float64
    point_noise: Float64
    nodes: _Trust
    points: _Trust


class Steadier:
    """Filters what is shown of the tracks; ``strength`` 0 shows them as they are."""

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def start(self, pose: CarriedPose) -> None:
        """Begin with a first pose, at rest."""
        nodes, points = len(pose.nodes), len(pose.points)
        rest, unknown, trust = np.zeros((points, 3)), np.zeros(nodes), (_Trust.none(nodes), _Trust.none(points))
        known = pose.points, rest, rest, pose.points, np.zeros((nodes, 3)), unknown, unknown
        self._state = _State(pose.stamp_ns, 1.0, 0, *known, *trust)

    def seen(self, change: Rigid) -> None:
        """Go on in another camera's frame."""
        state = self._state
        self._state = replace(
            state,
            places=change.points(state.places),
            step=change.vectors(state.step),
            change=change.vectors(state.change),
            shown=change.points(state.shown),
            speeds=change.vectors(state.speeds),
            nodes=replace(state.nodes, mean=change.vectors(state.nodes.mean)),
            points=replace(state.points, mean=change.vectors(state.points.mean)),
        )

    def corrected(self, shift: Float64) -> None:
        """Go on with the points moved by ``shift`` (N, 3), which is no motion of the subject."""
        state = self._state
        self._state = replace(state, places=state.places + shift, shown=state.shown + shift)

    def of(self, kept: Bool) -> None:
        """Go on with only the points ``kept`` (N,)."""
        state = self._state
        rows = {name: getattr(state, name)[kept] for name in ("places", "step", "change", "shown")}
        self._state = replace(state, **rows, points=state.points.at(kept))

    def on_nodes(self, kept: Bool) -> None:
        """Go on with only the nodes ``kept`` (P,)."""
        state = self._state
        rows = {name: getattr(state, name)[kept] for name in ("speeds", "node_noise", "point_noise")}
        self._state = replace(state, **rows, nodes=state.nodes.at(kept))

    def born(self, birth: Birth) -> None:
        """Go on with the new nodes and points too: the nodes as those beside them, the points at rest."""
        state, beside, count = self._state, birth.growth.beside, len(birth.points)
        rows = {name: getattr(state, name) for name in ("speeds", "node_noise", "point_noise")}
        rows = {name: np.concatenate((values, values[beside])) for name, values in rows.items()}
        rows |= {name: np.concatenate((getattr(state, name), birth.points)) for name in ("places", "shown")}
        rows |= {name: np.concatenate((getattr(state, name), np.zeros((count, 3)))) for name in ("step", "change")}
        nodes, points = state.nodes.then(state.nodes.at(beside)), state.points.then(_Trust.none(count))
        self._state = replace(state, **rows, nodes=nodes, points=points)

    def step(self, graph: DeformationGraph, stamp_ns: int, places: Float64) -> Float64:
        """Take in where the points came to lie on the surface, ``places`` (N, 3); returns where to show them (N, 3)."""
        if self.strength == 0:
            return places
        places, state, about = np.ascontiguousarray(places, np.float64), self._state, _About(graph)
        check_same_shape(graph=(len(graph.index), 3), state=state.places.shape, places=places.shape)
        elapsed = 1e-9 * (stamp_ns - state.stamp_ns)
        ratio = elapsed / state.elapsed
        step, change, alike = about.steps(places, state, min(ratio, _UNEVEN))
        # Two steps have to be known before there is a change that turns back, and they have to be of about one length.
        even = state.frames < 2 or 1 / _UNEVEN < ratio < _UNEVEN
        share = max(_NOISE, 1.0 / state.frames) if state.frames and even else 0.0
        node_noise = state.node_noise + share * (alike[:, 3] - state.node_noise)
        point_noise = state.point_noise + share * (alike[:, 4] - state.point_noise)

        speeds = alike[:, :3] / elapsed - state.speeds
        speeds = state.speeds + max(_SPEED, 1.0 / (state.frames + 1)) * speeds
        noise = np.maximum(node_noise, 0.0)
        moving = _beyond(elapsed * speeds, noise * (2 * _SPEED**2 / (2 - _SPEED)), _MOVES)
        counted = 1 - (1 - _WHILE_MOVING) * moving[:, 0]
        own = counted * np.maximum(point_noise - node_noise, 0.0)

        expected, off, common = about.off(state.shown, elapsed * moving * speeds, places)
        nodes_way, nodes = state.nodes.follow(common, counted * noise, self.strength)
        shown, points = about.followed(state.points, (common, nodes_way, own), (expected, off), self.strength)
        known = places, step, change, shown, speeds, node_noise, point_noise
        self._state = _State(stamp_ns, elapsed, state.frames + 1, *known, nodes, points)
        return shown


class _About:
    """The points about each node of a graph, and each node with its neighbours."""

    def __init__(self, graph: DeformationGraph) -> None:
        self._graph = graph

    @property
    def _arrays(self) -> tuple[Int64, Float64, Int32]:
        """The graph as compiled loops take it."""
        return self._graph.index, self._graph.weight, self._graph.edges

    def steps(self, places: Float64, state: _State, longer: float) -> tuple[Float64, Float64, Float64]:
        """The steps of points to ``places`` (N, 3), their changes from the last ones, and what is alike (P, 5).

        The last ones count as ``longer`` times as long. Alike are, as means over each node and its neighbours: the
        step, and by how much changes were turned back, of what points about a node share and of single points.
        """
        if (loops := compiled_loops("steadying")) is not None:
            before = places, state.places, state.step, state.change
            found: tuple[Float64, Float64, Float64] = loops.steps(*self._arrays, self._graph.count, *before, longer)
            return found
        step = places - state.places
        change = step - state.step * longer
        node_step, *both = np.split(self._mean(np.concatenate((step, change, state.change), axis=1)), 3, axis=1)
        echo = _turned_back(*both), self._mean(_turned_back(change, state.change))
        return step, change, self._ring @ np.concatenate((node_step, np.stack(echo, axis=1)), axis=1)

    def off(self, shown: Float64, drift: Float64, places: Float64) -> tuple[Float64, Float64, Float64]:
        """Where points ``shown`` (N, 3) are expected by the ``drift`` (P, 3) of nodes, and how far off they are.

        ``places`` (N, 3) are where they came to be. Returns two (N, 3), and the latter's means over each node and its
        neighbours (P, 3).
        """
        if (loops := compiled_loops("steadying")) is not None:
            found: tuple[Float64, Float64, Float64] = loops.off(*self._arrays, shown, drift, places)
            return found
        expected = shown + self._graph.blend @ drift
        off = places - expected
        return expected, off, self._ring @ self._mean(off)

    def followed(
        self,
        trust: _Trust,
        nodes: tuple[Float64, Float64, Float64],
        points: tuple[Float64, Float64],
        strength: float,
    ) -> tuple[Float64, _Trust]:
        """Where to show the points (N, 3), and how their corrections are to be trusted from now on.

        ``nodes`` are how far they are off (P, 3), how far they go of that (P, 3), and the noise of single points about
        them (P,); ``points`` where those are expected and how far that is off, (N, 3) each.
        """
        (common, way, noise), (expected, off) = nodes, points
        if (loops := compiled_loops("steadying")) is not None:
            known = common, way, noise, expected, off, trust.mean, trust.count
            shown, *rest = loops.followed(*self._arrays[:2], *known, strength, _AT_ONCE, _MEAN, _LEAST)
            return shown, _Trust(*rest)
        blend = self._graph.blend
        points_way, trust = trust.follow(off - blend @ common, blend @ noise, strength)
        return expected + blend @ way + points_way, trust

    @cached_property
    def _ring(self) -> csr_matrix:
        return _ring(self._graph)

    @cached_property
    def _spread(self) -> csr_matrix:
        return self._graph.blend.T.tocsr()

    @cached_property
    def _mass(self) -> Float64:
        return np.maximum(np.asarray(self._graph.blend.sum(axis=0)).reshape(-1, 1), 1e-9)

    def _mean(self, values: Float64) -> Float64:
        """Means (P, D) or (P,) of values (N, D) or (N,) of the points about each node."""
        return (self._spread @ values) / (self._mass if values.ndim == 2 else self._mass[:, 0])


def _turned_back(change: Float64, before: Float64) -> Float64:
    """The variance along an axis of which white noise would give successive changes of step (K, 3), on the mean."""
    return np.einsum("kd,kd->k", change, before) / -12.0


def _beyond(vectors: Float64, noise: Float64, strength: float) -> Float64:
    """From 0 to 1 (K, 1): whether vectors (K, 3) are longer than ``strength`` standard deviations of the ``noise``.

    The noise has that variance (K,) along each axis.
    """
    square = (vectors**2).sum(axis=1, keepdims=True) ** 2
    limit = (3 * strength**2 * noise[:, None]) ** 2
    return square / np.maximum(square + limit, 1e-300)


def _ring(graph: DeformationGraph) -> csr_matrix:
    """The matrix (P, P) that takes the mean over each node and those that an edge ties to it."""
    own = np.arange(graph.count)
    rows = np.concatenate((own, graph.edges[:, 0], graph.edges[:, 1]))
    columns = np.concatenate((own, graph.edges[:, 1], graph.edges[:, 0]))
    share = 1.0 / np.bincount(rows, minlength=graph.count)
    return csr_matrix((share[rows], (rows, columns)), shape=(graph.count, graph.count))
