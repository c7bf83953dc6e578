"""Fitting a deformation to the next surface by Gauss-Newton.

    refiner = Refiner(config.refinement, graph)
    fit = refiner.refine(nodes, points, normals, target, size, starts=[predicted_motion])

The moving surface is known by samples that hang on the nodes of a deformation graph. Each step matches it to the target
from both sides, pulls samples onto the tangent planes of their matches (and, weakly, to the matches themselves), keeps
adjacent nodes as rigid as possible against the pose before, though at the distance they had at rest, and solves for all
nodes at once; a step that makes things worse is undone and tried again with more damping. Distances enter through
Tukey's biweight, which ends smoothly where matches end, so that the energy means the same at every step.

Small steps do not change the matrix by much, so the step after one goes by the same; right-hand sides are always exact.

Nothing depends on the unit of length: ``size`` is that of the subject. The formulation follows Bozic et al., "Neural
Non-Rigid Tracking", NeurIPS 2020, with matches to a complete surface in place of optical flow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

import numpy as np

from nr_tracking.config import RefinementConfig
from nr_tracking.deformation.carrier import part_of
from nr_tracking.deformation.matching import Matches, Target, find_matches, find_matches_with_features
from nr_tracking.deformation.normal_equations import (
    DeformationGraph,
    Motion,
    NormalEquations,
    bending,
    carried,
    edge_arms,
    still,
)
from nr_tracking.loops import compiled_loops
from nr_tracking.types import Float32, Float64, Int64

_CONVERGED = 3e-3  # a step below this share of the subject's size, root mean square over nodes, is the last one
_HELD = 0.01  # after a step below this share the next one goes by the same matrix
_COARSE = 4  # every fourth sample tells which start is the best
_CLOSE = 0.8  # closeness of a start, 1 on the target, from which on no guess is asked for

# Symmetric 3 x 3 matrices by their six entries.
_ROWS, _COLUMNS = [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]
_DIAGONAL = [0, 3, 5]
_SYMMETRIC = np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])


@dataclass(frozen=True)
class Fit:
    """A refined motion: what each node does, and how well it went.

    ``residuals`` (S,) distance of each moved sample to the tangent plane of its match, NaN without a match;
    ``energies`` of the start and of the accepted steps. Both leave out the small step at the end, which is not tested.
    """

    motion: Motion
    residuals: Float64
    energies: tuple[float, ...]


@dataclass(frozen=True)
class _Problem:
    """One pair of poses: what is moved, and where it should come to lie."""

    nodes: Float64
    edge_arms: Float64
    points: Float64
    normals: Float64
    target: Target
    size: float
    features: Float32 | None


@dataclass(frozen=True)
class _State:
    """One motion and all that is known about it.

    ``gap`` (N, 3) leads from each matched sample to its match, ``weight`` (N,) is its robust weight; ``edge_gap`` and
    ``edge_weight`` (2E,) are those of rigidity.
    """

    motion: Motion
    moved: Float64
    matches: Matches
    gap: Float64
    weight: Float64
    turned_arms: Float64
    edge_gap: Float64
    edge_weight: Float64
    energy: float


@dataclass
class _Descent:
    """The progress of a fit.

    The steps ``left``, the ``damping``, the ``energies`` of accepted steps so far, and whether the matrix of the last
    step is ``held`` for the next one.
    """

    left: int
    damping: float
    energies: list[float] = field(default_factory=list)
    held: bool = False


class Refiner:
    """Gauss-Newton over the motions of one deformation graph."""

    def __init__(self, config: RefinementConfig, graph: DeformationGraph) -> None:
        self.config = config
        self.graph = graph
        self._equations = NormalEquations(graph)
        self._few = part_of(graph, np.arange(0, len(graph.index), _COARSE))
        self._cosine = float(np.cos(np.deg2rad(config.normal_degrees)))
        # Rigidity is a mean over edges and data a mean over samples, so neither count changes their balance.
        self._rigidity = config.rigidity / max(2 * len(graph.edges), 1)

    def refine(
        self,
        nodes: Float64,
        points: Float64,
        normals: Float64,
        target: Target,
        size: float,
        starts: Sequence[Motion] = (),
        features: Float32 | None = None,
        guesses: Sequence[Callable[[], Motion]] = (),
    ) -> Fit:
        """Fit the motion from the present pose to ``target``.

        ``nodes`` (P, 3), ``points`` (S, 3) and unit ``normals`` (S, 3) are the present pose; ``size`` the subject's;
        ``starts`` of the motion, the best of which is taken (none: standing still); ``features`` (S, C) unit rows that
        go with the target's, or None; ``guesses`` make further starts, each asked for where none before comes close.
        """
        problem = _Problem(nodes, edge_arms(self.graph, nodes), points, normals, target, size, features)
        descent = _Descent(self.config.iterations, self.config.damping)
        start = self._best(problem, starts or [still(nodes)], guesses)
        state, motion = self._descend(problem, self._at(problem, start), descent)
        return Fit(motion, self._residuals(state), tuple(descent.energies))

    def _descend(self, problem: _Problem, state: _State, descent: _Descent) -> tuple[_State, Motion]:
        """Step until a step is small.

        Returns the last tested state and the motion after the small step, which is not worth the time of a test.
        """
        descent.energies.append(state.energy)
        while descent.left:
            descent.left -= 1
            step = self._step(problem, state, descent)
            length = float(np.sqrt((step[:, 3:] ** 2).sum(1).mean())) / problem.size
            if not 0 < length < 1:  # not positive definite, or hardly so
                descent.damping, descent.held = 10 * max(descent.damping, 1e-3), False
                continue
            motion = state.motion.stepped(step)
            descent.held = length < _HELD
            if length < _CONVERGED:
                return state, motion
            candidate = self._at(problem, motion)
            if candidate.energy <= state.energy:
                state, descent.damping = candidate, max(self.config.damping, 0.1 * descent.damping)
                descent.energies.append(state.energy)
            else:
                descent.damping, descent.held = 10 * max(descent.damping, 1e-3), False
        return state, state.motion

    def _best(self, problem: _Problem, starts: Sequence[Motion], guesses: Sequence[Callable[[], Motion]]) -> Motion:
        """The start that comes nearest to the target, told by a part of the samples, without bending what is stiff.

        Guesses are dear to come by, so each is asked for only where nothing before comes close.
        """
        if len(starts) == 1 and not guesses:
            return starts[0]
        best = max(((self._closeness(problem, motion), motion) for motion in starts), key=itemgetter(0))
        for guess in guesses:
            if best[0] >= _CLOSE:
                break
            motion = guess()
            best = max(best, (self._closeness(problem, motion), motion), key=itemgetter(0))
        return best[1]

    def _closeness(self, problem: _Problem, motion: Motion) -> float:
        """1 on the target and 0 out of reach, less what bends; told by a part of the samples, from their side alone."""
        target, radius = problem.target, self.config.match_radius * problem.size
        points, normals = problem.points[::_COARSE], problem.normals[::_COARSE]
        points, normals = carried(self._few, problem.nodes, points, normals, motion)
        found = target.nearest_similar(points, normals, radius, self._cosine)
        near = np.flatnonzero(found >= 0)
        goal = found[near]
        matches = Matches(near, target.points[goal], target.normals[goal], len(near))
        _, _, kept = self._weighed(problem, matches, points)
        bent = bending(self.graph, problem.edge_arms, motion, self.config.rigidity_limit * problem.size)[3]
        return kept - self._rigidity * bent / max(2 / 3 * self._limit(problem), 1e-300)

    def _at(self, problem: _Problem, motion: Motion) -> _State:
        """The state at a motion: samples are moved, matched and weighed."""
        points, normals = carried(self.graph, problem.nodes, problem.points, problem.normals, motion)
        matches = self._matches(problem, points, normals)
        gap, weight, kept = self._weighed(problem, matches, points)
        limit = self.config.rigidity_limit * problem.size
        turned_arms, edge_gap, edge_weight, bent = bending(self.graph, problem.edge_arms, motion, limit)
        energy = self._limit(problem) / 3 * (2.0 - kept) + self._rigidity * bent
        return _State(motion, points, matches, gap, weight, turned_arms, edge_gap, edge_weight, energy)

    def _weighed(self, problem: _Problem, matches: Matches, points: Float64) -> tuple[Float64, Float64, float]:
        """Gaps (N, 3) of the matches of moved ``points`` (S, 3), their weights (N,), and what is kept of all.

        Each direction is a mean over those that seek; who finds nothing costs as much as a match at the radius. Kept is
        1 for a direction in which all lies on the target.
        """
        plane, point, limit = self.config.point_to_plane, self.config.point_to_point, self._limit(problem)
        sought = len(problem.target.sample)
        if (loops := compiled_loops("gauss_newton")) is not None:
            found = matches.sample, matches.place, matches.normal, matches.forward
            weighed: tuple[Float64, Float64, float] = loops.weighed(*found, points, sought, plane, point, limit)
            return weighed
        gap = matches.place - points[matches.sample]
        share = np.full(len(gap), 1.0 / len(points))
        share[matches.forward :] = 1.0 / sought
        # What Tukey's biweight leaves: 1 on the match, 0 at the radius.
        squared = plane * _products(matches.normal, gap) ** 2 + point * _products(gap, gap)
        remaining = 1 - np.minimum(squared / limit, 1.0) if limit > 0 else np.zeros(len(gap))
        weight = share * remaining**2
        return gap, weight, float((weight * remaining).sum())

    def _limit(self, problem: _Problem) -> float:
        """The squared residual of a match at the radius."""
        config = self.config
        return (config.point_to_plane + config.point_to_point) * (config.match_radius * problem.size) ** 2

    def _matches(self, problem: _Problem, points: Float64, normals: Float64) -> Matches:
        target, radius = problem.target, self.config.match_radius * problem.size
        if problem.features is None or target.features is None or self.config.embedding == 0:
            return find_matches(points, normals, target, radius, self._cosine)
        reach = self.config.embedding * problem.size
        moving = points, normals, problem.features
        return find_matches_with_features(*moving, target, radius, self._cosine, reach)

    def _step(self, problem: _Problem, state: _State, descent: _Descent) -> Float64:
        """Solve for the increments (P, 6) of one step, by the matrix of an earlier one if that is held."""
        edges = state.turned_arms, state.edge_gap, self._rigidity * state.edge_weight
        pull, information = self._pulled(state, whole=not descent.held)
        if descent.held:
            right = self._equations.right_side(problem.nodes, problem.points, state.motion, pull, *edges)
            return self._equations.solve_again(right)
        matrix, right = self._equations.assemble(
            problem.nodes, problem.points, state.motion, state.moved, information, pull, *edges
        )
        return self._equations.solve(matrix, right, descent.damping)

    def _pulled(self, state: _State, whole: bool) -> tuple[Float64, Float64]:
        """Sums over the matches of each sample: W times the gap (S, 3) and, if ``whole``, W (S, 3, 3).

        W is ``weight (plane n n^T + point I)``; all matches of a sample share its Jacobian.
        """
        matches, count = state.matches, len(state.moved)
        plane, point = self.config.point_to_plane, self.config.point_to_point
        if (loops := compiled_loops("gauss_newton")) is not None:
            found = matches.sample, matches.normal, state.gap, state.weight
            pulled: tuple[Float64, Float64] = loops.pulled(*found, plane, point, count, whole)
            return pulled
        normal, gap, weight = np.ascontiguousarray(matches.normal.T), np.ascontiguousarray(state.gap.T), state.weight
        along = plane * weight * normal
        pulls = along * (normal * gap).sum(axis=0) + point * weight * gap
        pull = _sum_by(matches.sample, pulls, count).T
        if not whole:
            return pull, np.empty((0, 3, 3))
        squares = _sum_by(matches.sample, along[_ROWS] * normal[_COLUMNS], count)
        squares[_DIAGONAL] += point * np.bincount(matches.sample, weight, minlength=count)
        return pull, squares[_SYMMETRIC].transpose(2, 0, 1)

    def _residuals(self, state: _State) -> Float64:
        forward = slice(0, state.matches.forward)
        residuals = np.full(len(self.graph.index), np.nan)
        residuals[state.matches.sample[forward]] = np.abs(_products(state.matches.normal[forward], state.gap[forward]))
        return residuals


def _products(first: Float64, second: Float64) -> Float64:
    """Inner products (N,) of vectors (N, 3)."""
    return np.einsum("ni,ni->n", first, second)


def _sum_by(group: Int64, values: Float64, count: int) -> Float64:
    """Sum columns of ``values`` (D, N) that share a group into (D, count)."""
    # Of nothing at all, bincount makes whole numbers.
    return np.stack([np.bincount(group, row, minlength=count) for row in values]).astype(np.float64, copy=False)
