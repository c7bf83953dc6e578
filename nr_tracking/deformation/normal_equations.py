"""The linear system of one Gauss-Newton step over the rigid motions of graph nodes.

Unknowns are six a node, a small rotation w and a shift t, applied from the left: ``R <- exp(w) R``, ``u <- u + t``. Two
kinds of residuals enter: every sample is pulled by its matches, and every edge of the graph asks that its two ends
agree on where the far end goes (as rigid as possible; Sumner, Schmid and Pauly, SIGGRAPH 2007).

All that depends on the structure alone (which blocks of the matrix are filled, where contributions go, an order of the
nodes that leaves most of the others empty) is found once. A step then is a few array operations and a sparse Cholesky
factorisation, linear in the number of nodes for the long thin graphs of limbs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_matrix

from nr_tracking.deformation.banded import BandMatrix
from nr_tracking.deformation.panelled import PanelMatrix
from nr_tracking.deformation.rotations import rotation_from_vector
from nr_tracking.loops import compiled_loops
from nr_tracking.normals import cross
from nr_tracking.types import Float32, Float64, Int32, Int64

StepMatrix = BandMatrix | PanelMatrix

HELD = 0.1
"""Least weight of a residual of rigidity, however large it is, as a share of its full weight."""

_UPPER = np.triu_indices(3)
"""The entries of a symmetric 3 x 3 matrix, each once."""


def _expanded() -> Int64:
    """Which of 21 numbers (first upper triangle, 3 x 3 matrix, second upper triangle) each entry of a 6 x 6 is."""
    table = np.empty((6, 6), np.int64)
    triangle = np.empty((3, 3), np.int64)
    triangle[_UPPER] = triangle.T[_UPPER] = np.arange(6)
    table[:3, :3], table[3:, 3:] = triangle, 15 + triangle
    table[:3, 3:] = 6 + np.arange(9).reshape(3, 3)
    table[3:, :3] = table[:3, 3:].T
    return table.reshape(-1)


_EXPANDED = _expanded()


@dataclass(frozen=True)
class DeformationGraph:
    """How samples hang on nodes: the same in every pose.

    ``count`` nodes; ``edges`` (E, 2) int32, each once, and their ``lengths`` (E,) float64 at rest; ``index`` (S, B)
    int64 and ``weight`` (S, B) float64, the nodes that move each sample and their shares, rows sum to 1.
    """

    count: int
    edges: Int32
    lengths: Float64
    index: Int64
    weight: Float64

    @cached_property
    def blend(self) -> csr_matrix:
        """The weights as a sparse matrix (S, P): it turns what is known of nodes into what is known of samples."""
        samples, slots = self.index.shape
        starts = np.arange(0, samples * slots + 1, slots)
        return csr_matrix((self.weight.reshape(-1), self.index.reshape(-1), starts), shape=(samples, self.count))


@dataclass(frozen=True)
class Motion:
    """A rigid motion of each node, ``x -> R_k (x - node_k) + u_k``.

    ``rotations`` R (P, 3, 3); ``translations`` u (P, 3), the new places of the nodes.
    """

    rotations: Float64
    translations: Float64

    def stepped(self, increments: Float64) -> Motion:
        """Apply increments (P, 6), a rotation vector and a shift each, from the left."""
        turn = rotation_from_vector(increments[:, :3])
        return Motion(turn @ self.rotations, self.translations + increments[:, 3:])


def still(nodes: Float64) -> Motion:
    """The motion that leaves everything where it is."""
    return Motion(np.tile(np.eye(3), (len(nodes), 1, 1)), np.array(nodes, np.float64))


def blended_maps(graph: DeformationGraph, nodes: Float64, motion: Motion) -> tuple[Float64, Float64]:
    """What the nodes of each sample do to it together: ``x -> A x + b`` with A (S, 3, 3) and b (S, 3)."""
    rotations = motion.rotations
    offsets = motion.translations - (rotations @ nodes[..., None])[..., 0]
    maps = graph.blend @ np.concatenate((rotations.reshape(-1, 9), offsets), axis=1)
    return maps[:, :9].reshape(-1, 3, 3), maps[:, 9:]


def moved_points(graph: DeformationGraph, nodes: Float64, points: Float64, motion: Motion) -> Float64:
    """Samples (S, 3) moved by the blend of their nodes' motions."""
    turns, offsets = blended_maps(graph, nodes, motion)
    moved: Float64 = np.einsum("sij,sj->si", turns, points) + offsets
    return moved


def carried(
    graph: DeformationGraph, nodes: Float64, points: Float64, normals: Float64, motion: Motion
) -> tuple[Float64, Float64]:
    """Samples (S, 3) and their unit normals (S, 3), moved and turned by the blend of their nodes' motions."""
    if (loops := compiled_loops("deformation")) is not None:
        gone: tuple[Float64, Float64] = loops.carried(*_of_samples(graph, nodes, motion, points, normals))
        return gone
    turns, offsets = blended_maps(graph, nodes, motion)
    moved, turned = np.einsum("sij,sj->si", turns, points) + offsets, np.einsum("sij,sj->si", turns, normals)
    return moved, turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-12)


def disagreement(graph: DeformationGraph, nodes: Float64, points: Float64, motion: Motion, moved: Float64) -> Float64:
    """How far apart the nodes of each sample would put it, (S,): the weighted root mean square about their blend.

    ``moved`` (S, 3) is what :func:`carried` made of ``points`` (S, 3).
    """
    if (loops := compiled_loops("deformation")) is not None:
        apart: Float64 = loops.disagreement(*_of_samples(graph, nodes, motion, points, moved))
        return apart
    # |R x + b|^2 = |x|^2 + 2 x . R^T b + |b|^2, so its mean over nodes needs four numbers a node. What is subtracted
    # below is of the size of the coordinates squared: they are taken about the middle.
    before, after = nodes.mean(axis=0), motion.translations.mean(axis=0)
    offsets = motion.translations - after - (motion.rotations @ (nodes - before)[..., None])[..., 0]
    back = (np.swapaxes(motion.rotations, 1, 2) @ offsets[..., None])[..., 0]
    means = graph.blend @ np.concatenate((back, (offsets**2).sum(axis=1, keepdims=True)), axis=1)
    points, moved = points - before, moved - after
    square = np.einsum("si,si->s", points, points + 2.0 * means[:, :3]) + means[:, 3]
    return np.sqrt(np.maximum(square - np.einsum("si,si->s", moved, moved), 0.0))


def _of_samples(graph: DeformationGraph, nodes: Float64, motion: Motion, *values: Float64) -> tuple[np.ndarray, ...]:
    """The arguments of the compiled loops over samples, ``values`` last."""
    moving = nodes, motion.rotations, motion.translations
    return graph.index, graph.weight, *_doubles(*moving, *values)


def _doubles(*values: np.ndarray) -> Iterator[Float64]:
    """``values`` as contiguous float64; numba would compile its loops once more for other types or layouts."""
    return (np.ascontiguousarray(array, np.float64) for array in values)


def directed_edges(graph: DeformationGraph) -> Int64:
    """Each edge in both directions, (2E, 2)."""
    return np.concatenate((graph.edges, graph.edges[:, ::-1])).astype(np.int64)


def edge_arms(graph: DeformationGraph, nodes: Float64) -> Float64:
    """Where the far end of each directed edge should lie from the near one before any motion, (2E, 3).

    The direction is that of the present pose, so bending is forgotten and costs nothing once done; the length is that
    at rest, so stretching is remembered: what moves is skin and cloth, which bend but keep their size.
    """
    if (loops := compiled_loops("deformation")) is not None:
        found: Float64 = loops.edge_arms(graph.edges, *_doubles(graph.lengths, nodes))
        return found
    near, far = directed_edges(graph).T
    arms = nodes[far] - nodes[near]
    present = np.linalg.norm(arms, axis=1)
    return arms * (np.tile(graph.lengths, 2) / np.maximum(present, 1e-12))[:, None]


def edge_gaps(graph: DeformationGraph, arms: Float64, motion: Motion) -> tuple[Float64, Float64]:
    """Turned arms ``R_k arm`` and residuals of rigidity ``R_k arm + u_k - u_l`` of directed edges (k, l): (2E, 3) each.

    ``arms`` are those of :func:`edge_arms`.
    """
    near, far = directed_edges(graph).T
    turned = (motion.rotations[near] @ arms[..., None])[..., 0]
    return turned, turned + motion.translations[near] - motion.translations[far]


def robust_rigidity(edge_gap: Float64, limit: float) -> tuple[Float64, Float64]:
    """Weights and energies (2E,) of residuals of rigidity (2E, 3), which count less beyond ``limit`` (0: they do not).

    Parts that were taken for one, because they touched or were completed as one, can come apart: Cauchy's weights, with
    a remainder that always holds, so that a part which finds nothing to lie on does not drift away.
    """
    squared = np.einsum("ei,ei->e", edge_gap, edge_gap)
    if limit == 0:
        return np.ones_like(squared), squared
    ratio = squared / limit**2
    weight, energy = 1.0 / (1.0 + ratio), limit**2 * np.log1p(ratio)
    return HELD + (1.0 - HELD) * weight, HELD * squared + (1.0 - HELD) * energy


def bending(
    graph: DeformationGraph, arms: Float64, motion: Motion, limit: float
) -> tuple[Float64, Float64, Float64, float]:
    """What a motion bends: turned arms and gaps (2E, 3) of :func:`edge_gaps`, weights (2E,), and the energy of all.

    Weights and energies are those of :func:`robust_rigidity`.
    """
    if (loops := compiled_loops("deformation")) is not None:
        moving = _doubles(arms, motion.rotations, motion.translations)
        bent: tuple[Float64, Float64, Float64, float] = loops.bending(graph.edges, *moving, float(limit), HELD)
        return bent
    turned, gap = edge_gaps(graph, arms, motion)
    weight, energy = robust_rigidity(gap, limit)
    return turned, gap, weight, float(energy.sum())


class NormalEquations:
    """Assembles and solves ``(J^T W J + damping) x = J^T W r`` for one deformation graph.

    The right-hand side is exact. In the matrix, a sample's lever arms are taken from where it is rather than from where
    each of its nodes would put it, which is the same up to the disagreement of the nodes: then a sample contributes one
    6 x 6 matrix, and a sparse product with the weights sums them for every pair of nodes. The matrix is in single
    precision, which halves the time of both; a step that is a little off is mended by the next one.
    """

    def __init__(self, graph: DeformationGraph) -> None:
        self.graph = graph
        self._prepare()

    def _prepare(self) -> None:
        """Find what depends on the structure alone."""
        graph = self.graph
        count, samples = graph.count, len(graph.index)
        first, second = graph.edges.T.astype(np.int64)
        a, b = (slots.reshape(-1) for slots in np.indices((graph.index.shape[1],) * 2))
        row, column = graph.index[:, a].reshape(-1), graph.index[:, b].reshape(-1)
        shares = (graph.weight[:, a] * graph.weight[:, b]).reshape(-1)

        pattern = csr_matrix((np.ones(len(row), np.int32), (row, column)), shape=(count, count))
        near, far = directed_edges(graph).T
        pattern = pattern + csr_matrix((np.ones(len(near), np.int32), (near, far)), shape=(count, count))
        self._matrix: StepMatrix = BandMatrix(pattern) if compiled_loops("panels") is None else PanelMatrix(pattern)
        place, order = self._matrix.place, np.argsort(self._matrix.place)

        # Blocks of the lower triangle, by their key (place of the row, place of the column).
        self._first_is_later = place[first] > place[second]
        later = np.where(self._first_is_later, first, second)
        earlier = first + second - later
        lower = place[row] >= place[column]
        sample_key = (place[row] * count + place[column])[lower]
        edge_key = place[later] * count + place[earlier]
        keys, where = np.unique(
            np.concatenate((sample_key, np.arange(count) * (count + 1), edge_key)), return_inverse=True
        )
        self._row, self._column = order[keys // count], order[keys % count]
        of_samples, of_nodes, self._of_edges = np.split(where, [len(sample_key), len(sample_key) + count])
        self._of_nodes = of_nodes[place]

        sample = np.repeat(np.arange(samples), len(a))[lower]
        entries = shares[lower].astype(np.float32), (of_samples, sample)
        self._gather = csr_matrix(entries, shape=(len(keys), samples))
        self._gather_nodes = graph.blend.T.tocsr()
        self._gather_near = _summation(near, count)
        self._gather_far = _summation(far, count)
        self._matrix.lay(*np.divmod(keys, count))

    def assemble(
        self,
        nodes: Float64,
        points: Float64,
        motion: Motion,
        moved: Float64,
        information: Float64,
        pull: Float64,
        turned_arms: Float64,
        edge_gap: Float64,
        stiffness: Float64,
    ) -> tuple[StepMatrix, Float64]:
        """Build the matrix, in memory that the next call uses again, and the right-hand side (P, 6).

        ``nodes`` (P, 3) and ``points`` (S, 3) before the motion, ``moved`` (S, 3) after it; ``information`` (S, 3, 3)
        and ``pull`` (S, 3), the sums over a sample's matches of W and of W times (match - sample); ``turned_arms``
        and ``edge_gap`` (2E, 3) of :func:`edge_gaps`, each directed edge weighted by its ``stiffness`` (2E,).
        """
        right = self.right_side(nodes, points, motion, pull, turned_arms, edge_gap, stiffness)
        loops = compiled_loops("gauss_newton")
        if loops is None and isinstance(self._matrix, PanelMatrix):
            self._prepare()  # goes on from a checkpoint of where there were loops
        matrix = self._matrix
        if isinstance(matrix, BandMatrix):
            matrix.fill(self._blocks(motion.translations, moved, information, turned_arms, stiffness))
            return matrix, right
        assert loops is not None
        memory = matrix.memory, matrix.begin, matrix.stride
        gather = self._gather.indptr, self._gather.indices, self._gather.data
        values = _doubles(motion.translations, moved, information)
        loops.fill(*memory, *gather, self._row, self._column, *values)
        blocks = self._of_nodes, self._of_edges, self._first_is_later
        loops.add_edges(*memory, self.graph.edges, *blocks, *_doubles(turned_arms, stiffness))
        return matrix, right

    def right_side(
        self,
        nodes: Float64,
        points: Float64,
        motion: Motion,
        pull: Float64,
        turned_arms: Float64,
        edge_gap: Float64,
        stiffness: Float64,
    ) -> Float64:
        """The right-hand side (P, 6) alone, of what :meth:`assemble` is given."""
        if (loops := compiled_loops("gauss_newton")) is not None:
            graph, moving = self.graph, (nodes, points, motion.rotations)
            values = _doubles(*moving, pull, turned_arms, edge_gap, stiffness)
            found: Float64 = loops.right_side(graph.index, graph.weight, graph.edges, *values)
            return found
        # A node's torque is the axial part of R_k sum_s w_s (x_s - node_k) pull_s^T: exact, and summed before it turns.
        moments = (points[:, :, None] * pull[:, None, :]).reshape(-1, 9)
        summed = self._gather_nodes @ np.concatenate((moments, pull), axis=1)
        force = summed[:, 9:]
        moment = motion.rotations @ (summed[:, :9].reshape(-1, 3, 3) - nodes[:, :, None] * force[:, None, :])
        torque = np.stack([moment[:, i, j] - moment[:, j, i] for i, j in ((1, 2), (2, 0), (0, 1))], axis=1)
        pushed = -stiffness[:, None] * edge_gap
        right = np.concatenate((torque, force), axis=1)
        right += self._gather_near @ np.concatenate((cross(turned_arms.T, pushed.T).T, pushed), axis=1)
        right[:, 3:] -= self._gather_far @ pushed
        return right

    def _blocks(
        self, places: Float64, moved: Float64, information: Float64, turned_arms: Float64, stiffness: Float64
    ) -> Float32:
        """The blocks (6, 6, K) of the matrix; first all turns are about one origin, then about each block's own nodes.

        Numbers come last, so that each operation runs along one of the 36 entries of all blocks.
        """
        origin = places.mean(axis=0)
        arms = np.ascontiguousarray((moved - origin).T, np.float32)[:, None]
        # With X = [x]x the blocks are X W, its transpose and X (X W)^T: cross products of x with columns. What a sample
        # gives is symmetric, so 21 of its 36 entries are summed.
        weights = np.ascontiguousarray(information.transpose(1, 2, 0), np.float32)
        turned = cross(arms, weights)
        twice = cross(arms, turned.transpose(1, 0, 2))
        single = np.concatenate((twice[_UPPER], turned.reshape(9, -1), weights[_UPPER]))
        summed = np.ascontiguousarray((self._gather @ np.ascontiguousarray(single.T)).T)
        blocks: Float32 = summed.take(_EXPANDED, axis=0).reshape(6, 6, -1)

        shift = np.ascontiguousarray((places - origin).T, np.float32)[:, None]
        blocks[:3] -= cross(shift.take(self._row, axis=2), blocks[3:])
        flipped = blocks.transpose(1, 0, 2)
        flipped[:3] -= cross(shift.take(self._column, axis=2), flipped[3:])
        self._add_edges(blocks, turned_arms.T.astype(np.float32), stiffness.astype(np.float32))
        return blocks

    def _add_edges(self, blocks: Float32, arms: Float32, stiffness: Float32) -> None:
        """Add what edges hold, ``arms`` (3, 2E): with A = [arm]x, Jacobians (-A, I) at the near end, (0, -I) far."""
        weighted = stiffness * arms
        squares = weighted[:, None] * arms[None]
        near = self._gather_near @ np.concatenate((squares.reshape(9, -1), weighted, stiffness[None])).T
        far = self._gather_far @ stiffness
        x, y, z = near[:, 9:12].T
        turning = near[:, :9].T.reshape(3, 3, -1)
        trace = turning[0, 0] + turning[1, 1] + turning[2, 2]
        own = np.zeros((6, 6, len(near)), np.float32)
        own[:3, :3] = -turning
        for axis in range(3):
            own[axis, axis] += trace
            own[3 + axis, 3 + axis] = near[:, 12] + far
        for i, j, value in ((0, 1, -z), (0, 2, y), (1, 2, -x)):
            own[i, 3 + j] = own[3 + j, i] = value
            own[j, 3 + i] = own[3 + i, j] = -value
        blocks[:, :, self._of_nodes] += own

        # Off the diagonal: one direction of an edge starts at the later of its ends, the other at the earlier one.
        along, against = np.split(weighted, 2, axis=1)
        from_later = np.where(self._first_is_later, along, against)
        from_earlier = along + against - from_later
        between = np.zeros((6, 6, len(self._of_edges)), np.float32)
        for axis in range(3):
            between[3 + axis, 3 + axis] = -stiffness[: len(self._of_edges)] - stiffness[len(self._of_edges) :]
        for sign, i, j, axis in ((-1, 0, 1, 2), (1, 0, 2, 1), (-1, 1, 2, 0)):
            for row, column, turn in ((i, j, sign), (j, i, -sign)):
                between[row, 3 + column] = -turn * from_later[axis]
                between[3 + row, column] = turn * from_earlier[axis]
        blocks[:, :, self._of_edges] += between

    def solve(self, matrix: StepMatrix, right: Float64, damping: float) -> Float64:
        """Increments (P, 6); ``damping`` (Levenberg-Marquardt) is relative to the diagonal. The matrix is used up.

        Zero where the matrix is not positive definite to the precision at hand: more damping is needed.
        """
        return self.solve_again(right) if matrix.factorise(damping) else np.zeros_like(right)

    def solve_again(self, right: Float64) -> Float64:
        """Increments (P, 6) by the matrix of the last :meth:`solve`, for another right-hand side (P, 6).

        Most of the time of a step is that of its matrix. Valid until the next call of :meth:`assemble`.
        """
        return self._matrix.solve(right)


def _summation(group: Int64, count: int) -> csr_matrix:
    """A sparse matrix that sums rows by ``group``: (count, N) times (N, D)."""
    return csr_matrix((np.ones(len(group), np.float32), (group, np.arange(len(group)))), shape=(count, len(group)))
