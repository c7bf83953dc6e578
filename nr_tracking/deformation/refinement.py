"""Fitting a deformation to the next surface by Gauss-Newton.

    refiner = Refiner(config.refinement, graph)
    fit = refiner.refine(nodes, points, normals, target, size, starts=[predicted_motion])

The moving surface is known by samples that hang on the nodes of a deformation graph. Each step matches it to the target
from both sides, pulls samples onto the tangent planes of their matches (and, weakly, to the matches themselves), keeps
adjacent nodes as rigid as possible against the pose before, though at the distance they had at rest, and solves for all
nodes at once; a step that makes things worse is undone and tried again with more damping. Distances enter through
Tukey's biweight, which ends smoothly where matches end, so that the energy means the same at every step.

Nothing depends on the unit of length: ``size`` is that of the subject. The formulation follows Bozic et al., "Neural
Non-Rigid Tracking", NeurIPS 2020, with matches to a complete surface in place of optical flow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nr_tracking.config import RefinementConfig
from nr_tracking.deformation.matching import (
    Matches,
    Target,
    find_matches,
    find_matches_with_features,
    nearest_similar,
)
from nr_tracking.deformation.normal_equations import (
    DeformationGraph,
    Motion,
    NormalEquations,
    carried,
    edge_arms,
    edge_gaps,
    robust_rigidity,
    still,
)
from nr_tracking.types import Float32, Float64, Int64

_CONVERGED = 1.5e-3  # a step below this share of the subject's size, root mean square over nodes, is the last one
_HELD = 0.01  # after a step below this share the next one has the same matrix
_TRIED = 4  # every fourth sample tells which start is the best
_CLOSE = 0.8  # closeness of a start, 1 on the target, from which on no guess is asked for

# Symmetric 3 x 3 matrices by their six entries.
_ROWS, _COLUMNS = [0, 0, 0, 1, 1, 2], [0, 1, 2, 1, 2, 2]
_DIAGONAL = [0, 3, 5]
_SYMMETRIC = np.array([[0, 1, 2], [1, 3, 4], [2, 4, 5]])


@dataclass(frozen=True)
class Fit:
    """A refined motion: what each node does, and how well it went.

    ``residuals`` (S,) distance of each moved sample to the tangent plane of its match, NaN without a match, and
    ``energies``, the start's first: both of the steps that were tested, so without the small one at the end.
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


class Refiner:
    """Gauss-Newton over the motions of one deformation graph."""

    def __init__(self, config: RefinementConfig, graph: DeformationGraph) -> None:
        self.config = config
        self.graph = graph
        self._equations = NormalEquations(graph)
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
        guess: Callable[[], Motion] | None = None,
    ) -> Fit:
        """Fit the motion from the present pose to ``target``.

        ``nodes`` (P, 3), ``points`` (S, 3) and unit ``normals`` (S, 3) are the present pose; ``size`` the subject's;
        ``starts`` guesses of the motion, the best of which is taken (none: standing still); ``features`` (S, C) unit
        rows that go with the target's, or None; ``guess`` makes a further start, asked for where none comes close.
        """
        problem = _Problem(nodes, edge_arms(self.graph, nodes), points, normals, target, size, features)
        state = self._at(problem, self._best(problem, starts or [still(nodes)], guess))
        energies, damping, held = [state.energy], self.config.damping, False
        for _ in range(self.config.iterations):
            step = self._step(problem, state, damping, held)
            if not step.any():  # not positive definite
                damping, held = 10 * max(damping, 1e-3), False
                continue
            motion, length = state.motion.stepped(step), np.sqrt((step[:, 3:] ** 2).sum(1).mean()) / size
            if length < _CONVERGED:  # whether it is a little better or a little worse is not worth the time to tell
                return Fit(motion, self._residuals(state), tuple(energies))
            candidate = self._at(problem, motion)
            if candidate.energy <= state.energy:
                state, damping = candidate, max(self.config.damping, 0.1 * damping)
                energies.append(state.energy)
                held = length < _HELD
            else:
                damping, held = 10 * max(damping, 1e-3), False
        return Fit(state.motion, self._residuals(state), tuple(energies))

    def _best(self, problem: _Problem, starts: Sequence[Motion], guess: Callable[[], Motion] | None = None) -> Motion:
        """The start that comes nearest to the target, told by a part of the samples, without bending what is stiff.

        A guess is dear to come by, so it is asked for only where no start comes close.
        """
        if len(starts) == 1 and guess is None:
            return starts[0]
        part = np.arange(0, len(problem.points), _TRIED)
        graph = replace(self.graph, index=self.graph.index[part], weight=self.graph.weight[part])
        target, radius = problem.target, self.config.match_radius * problem.size
        limit = max((self.config.point_to_plane + self.config.point_to_point) * radius**2, 1e-300)

        def closeness(motion: Motion) -> float:
            points, normals = carried(graph, problem.nodes, problem.points[part], problem.normals[part], motion)
            found = nearest_similar(target.tree, target.normals, points, normals, radius, self._cosine)
            gap = target.points[found] - points
            squared = self.config.point_to_plane * (target.normals[found] * gap).sum(1) ** 2
            squared += self.config.point_to_point * (gap**2).sum(1)
            remaining = np.where(found >= 0, 1 - np.minimum(squared / limit, 1.0), 0.0)
            _, edge_gap = edge_gaps(self.graph, problem.edge_arms, motion)
            _, tension = robust_rigidity(edge_gap, self.config.rigidity_limit * problem.size)
            return float((remaining**3).mean()) - self._rigidity * float(tension.sum()) / (2 / 3 * limit)

        each = [closeness(motion) for motion in starts]
        best = int(np.argmax(each))
        if guess is not None and each[best] < _CLOSE:
            guessed = guess()
            return guessed if closeness(guessed) > each[best] else starts[best]
        return starts[best]

    def _at(self, problem: _Problem, motion: Motion) -> _State:
        """Move, match and weigh."""
        graph, config = self.graph, self.config
        points, normals = carried(graph, problem.nodes, problem.points, problem.normals, motion)
        matches = self._matches(problem, points, normals)
        gap = matches.place - points[matches.sample]

        # Each direction is a mean over those that seek; who finds nothing costs as much as a match at the radius.
        share = np.full(len(gap), 1.0 / len(points))
        share[matches.forward :] = 1.0 / len(problem.target.sample)
        plane, point = config.point_to_plane, config.point_to_point
        limit = (plane + point) * (config.match_radius * problem.size) ** 2
        squared = plane * (matches.normal * gap).sum(1) ** 2 + point * (gap**2).sum(1)
        remaining = (1 - np.minimum(squared / limit, 1.0)) ** 2 if limit > 0 else np.zeros(len(gap))
        data = limit / 3 * (2.0 - float((share * remaining**1.5).sum()))
        turned_arms, edge_gap = edge_gaps(graph, problem.edge_arms, motion)
        edge_weight, tension = robust_rigidity(edge_gap, config.rigidity_limit * problem.size)
        energy = data + self._rigidity * float(tension.sum())
        return _State(motion, points, matches, gap, share * remaining, turned_arms, edge_gap, edge_weight, energy)

    def _matches(self, problem: _Problem, points: Float64, normals: Float64) -> Matches:
        target, radius = problem.target, self.config.match_radius * problem.size
        if problem.features is None or target.features is None or self.config.embedding == 0:
            return find_matches(points, normals, target, radius, self._cosine)
        reach = self.config.embedding * problem.size
        return find_matches_with_features(points, normals, problem.features, target, radius, self._cosine, reach)

    def _step(self, problem: _Problem, state: _State, damping: float, held: bool) -> Float64:
        """Solve for the increments (P, 6) of one step, by the matrix of the last one if that is ``held``."""
        matches, count = state.matches, len(self.graph.index)
        plane, point = self.config.point_to_plane, self.config.point_to_point
        # W = w (plane n n^T + point I): summed by sample, because all matches of a sample share its Jacobian.
        normal, weight = matches.normal.T, state.weight
        along = plane * weight * normal
        pulls = along * (normal * state.gap.T).sum(axis=0) + point * weight * state.gap.T
        pull = _sum_by(matches.sample, pulls, count).T
        stiffness = self._rigidity * state.edge_weight
        edges = state.turned_arms, state.edge_gap, stiffness
        if held:
            right = self._equations.right_side(problem.nodes, problem.points, state.motion, pull, *edges)
            return self._equations.solve_again(right)
        squares = _sum_by(matches.sample, along[_ROWS] * normal[_COLUMNS], count)
        squares[_DIAGONAL] += point * np.bincount(matches.sample, weight, minlength=count)
        information = squares[_SYMMETRIC].transpose(2, 0, 1)
        band, right = self._equations.assemble(
            problem.nodes, problem.points, state.motion, state.moved, information, pull, *edges
        )
        return self._equations.solve(band, right, damping)

    def _residuals(self, state: _State) -> Float64:
        forward = slice(0, state.matches.forward)
        residuals = np.full(len(self.graph.index), np.nan)
        distance = np.abs((state.matches.normal[forward] * state.gap[forward]).sum(1))
        residuals[state.matches.sample[forward]] = distance
        return residuals


def _sum_by(group: Int64, values: Float64, count: int) -> Float64:
    """Sum columns of ``values`` (D, N) that share a group into (D, count)."""
    return np.stack([np.bincount(group, row, minlength=count) for row in values])
