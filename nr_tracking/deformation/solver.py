"""Gauss-Newton over the rigid motions of graph nodes in torch: batched over pairs, and differentiable.

    solver = GaussNewtonSolver(SolverGraph.of(graph), SolverSettings())
    solution = solver.solve(nodes, points, normals, terms=[depth_term, field_term], associations=goals_of_nodes)
    loss(solution.moved).backward()          # reaches the goals and confidences of associations, and the field

It moves B surfaces at once, each known by samples on the same graph, so that data terms are small and rigidity between
the nodes is kept; a step that raises the energy of a pair is undone for that pair and damped more. Coarse to fine: a
step on a coarser level moves all nodes of a coarse one as one body, with the residuals of the finest level. The number
of steps is fixed, nothing waits for the device, and everything runs wherever its tensors are.

The formulation is that of Bozic et al., "Neural Non-Rigid Tracking", NeurIPS 2020: increments of rotations from the
left, analytic Jacobians, Levenberg damping, and a linear solve whose backward pass solves the adjoint system with the
same factor. The live tracker uses the sparse solver of :mod:`nr_tracking.deformation.refinement`; this one is for
learning through the solver, for GPUs and for recordings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nr_tracking.deformation.data_terms import AssociationTerm, DataTerm
from nr_tracking.deformation.normal_equations import HELD, DeformationGraph


@dataclass(frozen=True)
class SolverGraph:
    """A deformation graph as tensors, the same for all pairs.

    ``edges`` (E, 2) int64, each once, and their ``lengths`` (E,) at rest; ``index`` (S, K) int64 and ``weight`` (S, K),
    the nodes that move each sample and their shares; ``parents``: for each coarser level, finest first, the node of
    that level that each node of the level below belongs to (P,), int64.
    """

    count: int
    edges: Tensor
    lengths: Tensor
    index: Tensor
    weight: Tensor
    parents: tuple[Tensor, ...] = ()

    @staticmethod
    def of(
        graph: DeformationGraph,
        parents: Sequence[Any] = (),
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> SolverGraph:
        """Make the tensors of a numpy graph; ``parents`` as in the levels of a :class:`.patches.PatchGraph`.

        The coarsest level has no parents, so its empty array is skipped.
        """

        def whole(values: Any) -> Tensor:
            return torch.as_tensor(values, device=device).long()

        def real(values: Any) -> Tensor:
            return torch.as_tensor(values, dtype=dtype, device=device)

        levels = tuple(whole(parent) for parent in parents if len(parent))
        return SolverGraph(
            graph.count, whole(graph.edges), real(graph.lengths), whole(graph.index), real(graph.weight), levels
        )


@dataclass(frozen=True)
class SolverSettings:
    """Steps, rigidity and damping. ``rigidity`` weighs the mean squared residual of edges against the data terms.

    Residuals of edges beyond ``rigidity_limit``, in the unit of the points, count less, as
    :func:`.normal_equations.robust_rigidity` says; 0 for plain squares.

    ``iterations`` steps are taken on the finest level, ``coarse_iterations`` on each of the others before;
    ``damping`` is relative to the diagonal.
    """

    iterations: int = 6
    coarse_iterations: int = 0
    rigidity: float = 3.0
    rigidity_limit: float = 0.0
    damping: float = 1e-4


@dataclass(frozen=True)
class Solution:
    """Motions ``x -> R_k (x - node_k) + u_k`` of B pairs.

    ``rotations`` R (B, P, 3, 3), ``translations`` u (B, P, 3), ``moved`` samples (B, S, 3), ``energies`` (steps + 1, B)
    after each step, the start first, without gradient.
    """

    rotations: Tensor
    translations: Tensor
    moved: Tensor
    energies: Tensor


@dataclass(frozen=True)
class _Level:
    """A coarser level of the graph, with ``count`` nodes (C).

    ``parent`` (P,) is the coarse node that each node of the finest level belongs to; ``members`` (C, 1) is the number
    of nodes of the finest level in each coarse node.
    """

    parent: Tensor
    count: int
    members: Tensor

    @staticmethod
    def of(parent: Tensor) -> _Level:
        """Make the level whose nodes are the numbers in ``parent``."""
        members = torch.bincount(parent)
        return _Level(parent, len(members), members.clamp_min(1)[:, None])

    def prolongation(self, places: Tensor) -> Tensor:
        """Matrices (B, P, 6, 6) from the step of a coarse node (rotation, shift) to the steps of its fine nodes.

        The fine nodes are at ``places`` (B, P, 3). A coarse node rotates about the mean of its fine nodes.
        """
        total = places.new_zeros(len(places), self.count, 3).index_add(1, self.parent, places)
        arm = places - (total / self.members)[:, self.parent]
        identity = torch.eye(6, dtype=places.dtype, device=places.device)
        return identity + torch.nn.functional.pad(-skew(arm), (0, 3, 3, 0))

    def restricted(self, matrix: Tensor, right: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
        """Normal equations of the coarse nodes, (B, C, C, 6, 6) and (B, C, 6), from those of the finest level."""
        adjoint = spread.transpose(-1, -2)
        matrix = adjoint[:, :, None] @ matrix @ spread[:, None]
        batch, count = len(right), self.count
        rows = matrix.new_zeros(batch, count, *matrix.shape[2:]).index_add(1, self.parent, matrix)
        both = matrix.new_zeros(batch, count, count, 6, 6).index_add(2, self.parent, rows)
        pulled = (adjoint @ right[..., None])[..., 0]
        return both, right.new_zeros(batch, count, 6).index_add(1, self.parent, pulled)


@dataclass(frozen=True)
class _State:
    """A motion and the linearisation at it; ``right`` (B, P, 6) and the matrices are those of the finest level."""

    rotations: Tensor
    translations: Tensor
    moved: Tensor
    matrix: Tensor
    right: Tensor
    energy: Tensor

    def where(self, better: Tensor, other: _State) -> _State:
        """Take ``self`` for the pairs that are ``better`` (B,), ``other`` for the rest."""

        def chosen(mine: Tensor, theirs: Tensor) -> Tensor:
            return torch.where(better.view(-1, *[1] * (mine.ndim - 1)), mine, theirs)

        return _State(
            chosen(self.rotations, other.rotations),
            chosen(self.translations, other.translations),
            chosen(self.moved, other.moved),
            chosen(self.matrix, other.matrix),
            chosen(self.right, other.right),
            chosen(self.energy, other.energy),
        )


class GaussNewtonSolver:
    """Fits the motions of one graph to data terms; see the module's text."""

    def __init__(self, graph: SolverGraph, settings: SolverSettings) -> None:
        self.graph, self.settings = graph, settings
        self._edges = torch.cat((graph.edges, graph.edges.flip(1)))
        self._rigidity = settings.rigidity / max(len(self._edges), 1)
        self._schedule = self._levels()

    def solve(
        self,
        nodes: Tensor,
        points: Tensor,
        normals: Tensor,
        terms: Sequence[DataTerm] = (),
        associations: AssociationTerm | None = None,
        start: tuple[Tensor, Tensor] | None = None,
    ) -> Solution:
        """Find the motions that bring the samples to where the terms want them.

        ``nodes`` (B, P, 3), ``points`` (B, S, 3) and unit ``normals`` (B, S, 3) are the present poses; ``terms`` judge
        the moved samples, ``associations`` the moved nodes; ``start`` rotations (B, P, 3, 3) and translations (B, P, 3)
        to begin with, standing still by default.
        """
        if start is None:
            start = torch.eye(3, dtype=nodes.dtype, device=nodes.device).expand(*nodes.shape[:2], 3, 3), nodes
        arms = self._edge_arms(nodes)

        def at(rotations: Tensor, translations: Tensor) -> _State:
            return self._linearised(nodes, points, normals, arms, terms, associations, rotations, translations)

        state = at(*start)
        energies = [state.energy]
        damping = torch.full_like(state.energy, self.settings.damping)
        for level in self._schedule:
            step = self._step(state, damping, level)
            turn = rotation_from_vectors(step[..., :3])
            candidate = at(turn @ state.rotations, state.translations + step[..., 3:])
            # Nothing has moved where the matrix was not positive definite: the same energy is no success.
            better = (candidate.energy <= state.energy) & step.flatten(1).any(1)
            state = candidate.where(better, state)
            eased, raised = (0.1 * damping).clamp_min(self.settings.damping), 10.0 * damping.clamp_min(1e-3)
            damping = torch.where(better, eased, raised)
            energies.append(state.energy)
        return Solution(state.rotations, state.translations, state.moved, torch.stack(energies))

    def _levels(self) -> list[_Level | None]:
        """The level of each step, coarsest first; None for the finest."""
        levels: list[_Level] = []
        for parent in self.graph.parents:
            levels.append(_Level.of(parent if not levels else parent[levels[-1].parent]))
        coarse = [level for level in reversed(levels) for _ in range(self.settings.coarse_iterations)]
        return coarse + [None] * self.settings.iterations

    def _edge_arms(self, nodes: Tensor) -> Tensor:
        """Where the far end of each directed edge should lie from the near one, (B, 2E, 3).

        In the direction of the present pose at the length of rest, as in :func:`.normal_equations.edge_arms`.
        """
        arms = nodes[:, self._edges[:, 1]] - nodes[:, self._edges[:, 0]]
        present = arms.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        return arms * (self.graph.lengths.repeat(2)[:, None] / present)

    def _linearised(
        self,
        nodes: Tensor,
        points: Tensor,
        normals: Tensor,
        arms: Tensor,
        terms: Sequence[DataTerm],
        associations: AssociationTerm | None,
        rotations: Tensor,
        translations: Tensor,
    ) -> _State:
        """Move everything and build the normal equations there."""
        graph, index = self.graph, self.graph.index
        turn = rotations[:, index]  # (B, S, K, 3, 3)
        levers = (turn @ (points[:, :, None] - nodes[:, index])[..., None])[..., 0]
        moved = (graph.weight[..., None] * (levers + translations[:, index])).sum(2)
        turned = ((graph.weight[..., None, None] * turn).sum(2) @ normals[..., None])[..., 0]
        turned = torch.nn.functional.normalize(turned, dim=-1)

        batch, count = translations.shape[:2]
        blocks = translations.new_zeros(batch, count * count, 36)
        right = translations.new_zeros(batch, count, 6)
        energy = translations.new_zeros(batch)
        if terms:
            information, pull, costs = (sum(parts) for parts in zip(*(t(moved, turned) for t in terms), strict=True))
            jacobian = graph.weight[:, :, None, None] * _jacobian(levers)
            _accumulate(blocks, right, jacobian, information, pull, index)
            energy = energy + costs
        if associations is not None:
            information, pull, costs = associations(translations, translations)
            each = torch.arange(count, device=translations.device)[:, None]
            jacobian = _jacobian(torch.zeros_like(translations))[:, :, None]
            _accumulate(blocks, right, jacobian, information, pull, each)
            energy = energy + costs

        near, far = self._edges.unbind(1)
        turned_arms = (rotations[:, near] @ arms[..., None])[..., 0]
        gap = turned_arms + translations[:, near] - translations[:, far]
        away = _jacobian(torch.zeros_like(gap))
        jacobian = torch.stack((_jacobian(turned_arms), -away), dim=2)
        weight, tension = self.robust(gap)
        weight = self._rigidity * weight[..., None]
        stiffness = weight[..., None] * torch.eye(3, dtype=gap.dtype, device=gap.device)
        _accumulate(blocks, right, jacobian, stiffness, -weight * gap, self._edges)
        energy = energy + self._rigidity * tension.sum(1)
        matrix = blocks.view(batch, count, count, 6, 6)
        return _State(rotations, translations, moved, matrix, right, energy.detach())

    def robust(self, gap: Tensor) -> tuple[Tensor, Tensor]:
        """Weights and energies (B, 2E) of residuals of edges (B, 2E, 3): :func:`.normal_equations.robust_rigidity`."""
        squared, limit = (gap**2).sum(-1), self.settings.rigidity_limit
        if limit == 0:
            return torch.ones_like(squared), squared
        ratio = squared / limit**2
        weight, energy = 1.0 / (1.0 + ratio), limit**2 * torch.log1p(ratio)
        return HELD + (1.0 - HELD) * weight, HELD * squared + (1.0 - HELD) * energy

    def _step(self, state: _State, damping: Tensor, level: _Level | None) -> Tensor:
        """Increments (B, P, 6) of one damped step on a level, None for the finest."""
        matrix, right, spread = state.matrix, state.right, None
        if level is not None:
            spread = level.prolongation(state.translations)
            matrix, right = level.restricted(matrix, right, spread)
        batch, count = right.shape[:2]
        dense = matrix.transpose(2, 3).reshape(batch, 6 * count, 6 * count)
        # What neither data nor an edge holds has a zero on the diagonal: keep it where it is.
        diagonal = dense.diagonal(dim1=1, dim2=2)
        least = 1e-9 if dense.dtype == torch.float64 else 1e-6
        # Turns and shifts have units of their own, so each has a floor of its own.
        largest = diagonal.detach().view(batch, count, 2, 3).amax(dim=(1, 3), keepdim=True).clamp_min(1e-30)
        floor = (least * largest).expand(batch, count, 2, 3).reshape(batch, -1)
        damped = dense.clone()
        damped.diagonal(dim1=1, dim2=2).add_(damping[:, None] * diagonal + floor)
        step: Tensor = SymmetricSolve.apply(damped, right.reshape(batch, -1)).view(batch, count, 6)
        if spread is None or level is None:
            return step
        return (spread @ step[:, level.parent][..., None])[..., 0]


class SymmetricSolve(torch.autograd.Function):
    """Solve A x = b for symmetric positive definite A (B, n, n) and b (B, n), by Cholesky.

    Backward solves the adjoint system with the factor of the forward pass: ``db = A^-1 dx, dA = -db x^T`` (Bozic et
    al. 2020, appendix). A matrix that is not positive definite gives an increment of zero: the caller damps and tries
    again.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, right: Tensor) -> Tensor:
        """Return x (B, n)."""
        factor, failed = torch.linalg.cholesky_ex(matrix)
        identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
        factor = torch.where((failed > 0)[:, None, None], identity, factor)
        solved = torch.cholesky_solve(right[..., None], factor)[..., 0]
        solved = torch.where((failed > 0)[:, None], torch.zeros_like(solved), solved)
        ctx.save_for_backward(factor, solved, failed)
        return solved

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[misc, untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the gradients by matrix and right-hand side."""
        factor, solved, failed = ctx.saved_tensors
        adjoint = torch.cholesky_solve(grad[..., None], factor)[..., 0]
        adjoint = torch.where((failed > 0)[:, None], torch.zeros_like(adjoint), adjoint)
        by_matrix = -adjoint[..., :, None] * solved[..., None, :] if ctx.needs_input_grad[0] else None
        return by_matrix, adjoint


def rotation_from_vectors(vectors: Tensor) -> Tensor:
    """Rotations (..., 3, 3) by ``|v|`` radians about ``v`` (Rodrigues), differentiable at zero too."""
    squared = (vectors**2).sum(-1)[..., None, None]
    small = squared < 1e-8
    angle = torch.where(small, torch.ones_like(squared), squared).sqrt()
    # Near zero the first terms of the series are exact to double precision.
    sine = torch.where(small, 1.0 - squared / 6.0, torch.sin(angle) / angle)
    versine = torch.where(small, 0.5 - squared / 24.0, (1.0 - torch.cos(angle)) / angle**2)
    cross = skew(vectors)
    identity = torch.eye(3, dtype=vectors.dtype, device=vectors.device)
    return identity + sine * cross + versine * (cross @ cross)


def skew(vectors: Tensor) -> Tensor:
    """Cross-product matrices (..., 3, 3) of vectors (..., 3): ``skew(a) @ b == cross(a, b)``."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1).unflatten(-1, (3, 3))


def _jacobian(levers: Tensor) -> Tensor:
    """Transposed Jacobian (..., 6, 3) of a point at ``levers`` (..., 3) from its node, by turn and shift of that."""
    identity = torch.eye(3, dtype=levers.dtype, device=levers.device).expand(*levers.shape[:-1], 3, 3)
    return torch.cat((skew(levers), identity), dim=-2)


def _accumulate(
    blocks: Tensor, right: Tensor, jacobian: Tensor, information: Tensor, pull: Tensor, index: Tensor
) -> None:
    """Add M elements that hang on K nodes each to the blocks (B, P^2, 36) and the right-hand side (B, P, 6).

    ``jacobian`` (B, M, K, 6, 3) transposed, ``information`` (B, M, 3, 3), ``pull`` (B, M, 3), ``index`` (M, K).
    """
    batch, count = right.shape[:2]
    elements, slots = index.shape
    tall = jacobian.expand(batch, elements, slots, 6, 3).reshape(batch, elements, 6 * slots, 3)
    force = (tall @ pull[..., None]).view(batch, -1, 6)
    right.index_add_(1, index.reshape(-1), force)
    square = (tall @ information) @ tall.transpose(-1, -2)
    square = square.view(batch, elements, slots, 6, slots, 6).transpose(3, 4).reshape(batch, -1, 36)
    places = (index[:, :, None] * count + index[:, None, :]).reshape(-1)
    blocks.index_add_(1, places, square)
