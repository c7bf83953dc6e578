"""The linear system of one Gauss-Newton step over the rigid motions of graph nodes.

Unknowns are six a node, a small rotation w and a shift t, applied from the left: ``R <- exp(w) R``, ``u <- u + t``. Two
kinds of residuals enter: every sample is pulled by its matches, and every edge of the graph asks that its two ends
agree on where the far end goes (as rigid as possible; Sumner, Schmid and Pauly, SIGGRAPH 2007).

All that depends on the structure alone (which blocks of the matrix are filled, where contributions go, an order of the
nodes that keeps the matrix banded) is found once. A step then is a few array operations and a banded Cholesky
factorisation, linear in the number of nodes for the long thin graphs of limbs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import solveh_banded
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import reverse_cuthill_mckee

from nr_tracking.deformation.rotations import rotation_from_vector, skew
from nr_tracking.types import Float64, Int32, Int64


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
    turns, offsets = blended_maps(graph, nodes, motion)
    moved, turned = np.einsum("sij,sj->si", turns, points) + offsets, np.einsum("sij,sj->si", turns, normals)
    return moved, turned / np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-12)


def disagreement(graph: DeformationGraph, nodes: Float64, points: Float64, motion: Motion, moved: Float64) -> Float64:
    """How far apart the nodes of each sample would put it, (S,): the weighted root mean square about their blend.

    ``moved`` (S, 3) is what :func:`carried` made of ``points`` (S, 3).
    """
    # |R x + b|^2 = |x|^2 + 2 x . R^T b + |b|^2, so its mean over nodes needs four numbers a node. What is subtracted
    # below is of the size of the coordinates squared: they are taken about the middle.
    before, after = nodes.mean(axis=0), motion.translations.mean(axis=0)
    offsets = motion.translations - after - (motion.rotations @ (nodes - before)[..., None])[..., 0]
    back = (np.swapaxes(motion.rotations, 1, 2) @ offsets[..., None])[..., 0]
    means = graph.blend @ np.concatenate((back, (offsets**2).sum(axis=1, keepdims=True)), axis=1)
    points, moved = points - before, moved - after
    square = np.einsum("si,si->s", points, points + 2.0 * means[:, :3]) + means[:, 3]
    return np.sqrt(np.maximum(square - np.einsum("si,si->s", moved, moved), 0.0))


def directed_edges(graph: DeformationGraph) -> Int64:
    """Each edge in both directions, (2E, 2)."""
    return np.concatenate((graph.edges, graph.edges[:, ::-1])).astype(np.int64)


def edge_arms(graph: DeformationGraph, nodes: Float64) -> Float64:
    """Where the far end of each directed edge should lie from the near one before any motion, (2E, 3).

    The direction is that of the present pose, so bending is forgotten and costs nothing once done; the length is that
    at rest, so stretching is remembered: what moves is skin and cloth, which bend but keep their size.
    """
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


class NormalEquations:
    """Assembles and solves ``(J^T W J + damping) x = J^T W r`` for one deformation graph.

    The right-hand side is exact. In the matrix, a sample's lever arms are taken from where it is rather than from where
    each of its nodes would put it, which is the same up to the disagreement of the nodes: then a sample contributes one
    6 x 6 matrix, and a sparse product with the weights sums them for every pair of nodes.
    """

    def __init__(self, graph: DeformationGraph) -> None:
        self.graph = graph
        count, samples = graph.count, len(graph.index)
        near, far = directed_edges(graph).T
        a, b = (slots.reshape(-1) for slots in np.indices((graph.index.shape[1],) * 2))
        row, column = graph.index[:, a].reshape(-1), graph.index[:, b].reshape(-1)
        shares = (graph.weight[:, a] * graph.weight[:, b]).reshape(-1)

        pattern = csr_matrix((np.ones(len(row), np.int32), (row, column)), shape=(count, count))
        pattern = pattern + csr_matrix((np.ones(len(near), np.int32), (near, far)), shape=(count, count))
        order = reverse_cuthill_mckee(pattern, symmetric_mode=True)
        self._place = np.empty(count, np.int64)
        self._place[order] = np.arange(count)

        # Blocks of the lower triangle, by their key (place of the row, place of the column).
        later = np.where(self._place[near] > self._place[far], near, far)
        earlier = near + far - later
        lower = self._place[row] >= self._place[column]
        sample_key = (self._place[row] * count + self._place[column])[lower]
        edge_key = self._place[np.concatenate((near, far, later))] * count
        edge_key += self._place[np.concatenate((near, far, earlier))]
        keys, where = np.unique(np.concatenate((sample_key, edge_key)), return_inverse=True)
        self._row, self._column = order[keys // count], order[keys % count]
        of_samples, of_edges = np.split(where, [len(sample_key)])
        sample = np.repeat(np.arange(samples), len(a))[lower]
        self._gather = csr_matrix((shares[lower], (of_samples, sample)), shape=(len(keys), samples))
        at_near, at_far, mixed = np.split(of_edges, 3)
        self._gather_edges = _summation(np.concatenate((at_near, mixed)), len(keys))
        self._ends = np.bincount(at_far, minlength=len(keys))
        self._later_is_near = later == near
        self._gather_nodes = graph.blend.T.tocsr()
        self._gather_ends = _summation(np.concatenate((near, far)), count)
        self._prepare_band(*np.divmod(keys, count))

    def _prepare_band(self, high: Int64, low: Int64) -> None:
        """Find where each entry of each block lies in LAPACK's lower band storage, ``band[i - j, j] = H[i, j]``.

        The memory is kept from step to step: asking the system anew for as much as this takes longer than filling it.
        It is laid out by columns, as LAPACK wants it, which then factorises in place.
        """
        inner = np.arange(6)
        i = high[:, None, None] * 6 + inner[:, None]
        j = low[:, None, None] * 6 + inner[None, :]
        i, j = np.broadcast_arrays(i, j)
        self._kept = i >= j
        height = int((i - j).max()) + 1
        self._band = np.empty((6 * self.graph.count, height))
        self._target = (j * height + i - j)[self._kept]

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
        rigidity: float,
    ) -> tuple[Float64, Float64]:
        """Build the matrix, in lower band storage and the internal order of nodes, and the right-hand side (P, 6).

        The matrix lies in memory that the next call uses again.

        ``nodes`` (P, 3) and ``points`` (S, 3) before the motion, ``moved`` (S, 3) after it; ``information`` (S, 3, 3)
        and ``pull`` (S, 3), the sums over a sample's matches of W and of W times (match - sample); ``turned_arms``
        and ``edge_gap`` (2E, 3) of :func:`edge_gaps`, each directed edge weighted by ``rigidity``.
        """
        places = motion.translations
        origin = places.mean(axis=0)
        cross = skew(moved - origin)
        turned = information @ cross
        single = np.empty((len(moved), 6, 6))
        single[:, :3, :3] = np.swapaxes(cross, 1, 2) @ turned
        single[:, 3:, :3] = -turned
        single[:, :3, 3:] = -np.swapaxes(turned, 1, 2)
        single[:, 3:, 3:] = information
        summed = (self._gather @ single.reshape(-1, 36)).reshape(-1, 6, 6)
        # From one common origin to the node's own: rows w gain [u]x times rows t, columns likewise.
        shift = skew(places - origin)
        summed[:, :3] -= shift[self._row] @ summed[:, 3:]
        summed[:, :, :3] += summed[:, :, 3:] @ shift[self._column]

        # With A = [arm]x an edge's Jacobians are (-A, I) at its near end and (0, -I) at its far end.
        arm = skew(turned_arms)
        blocks = np.zeros((2, len(arm), 6, 6))
        at_near, mixed = blocks
        at_near[:, :3, :3] = -turned_arms[:, :, None] * turned_arms[:, None, :]
        at_near[:, (0, 1, 2), (0, 1, 2)] += (turned_arms**2).sum(axis=1)[:, None]
        at_near[:, 3:, :3], at_near[:, :3, 3:] = -arm, arm
        at_near[:, (3, 4, 5), (3, 4, 5)], mixed[:, (3, 4, 5), (3, 4, 5)] = 1.0, -1.0
        mixed[self._later_is_near, :3, 3:] = -arm[self._later_is_near]
        mixed[~self._later_is_near, 3:, :3] = arm[~self._later_is_near]
        summed += rigidity * (self._gather_edges @ blocks.reshape(-1, 36)).reshape(-1, 6, 6)
        summed[:, (3, 4, 5), (3, 4, 5)] += rigidity * self._ends[:, None]
        self._band.fill(0.0)
        self._band.reshape(-1)[self._target] = summed[self._kept]

        # A node's torque is the axial part of R_k sum_s w_s (x_s - node_k) pull_s^T: exact, and summed before it turns.
        moments = (points[:, :, None] * pull[:, None, :]).reshape(-1, 9)
        summed = self._gather_nodes @ np.concatenate((moments, pull), axis=1)
        force = summed[:, 9:]
        moment = motion.rotations @ (summed[:, :9].reshape(-1, 3, 3) - nodes[:, :, None] * force[:, None, :])
        torque = np.stack([moment[:, i, j] - moment[:, j, i] for i, j in ((1, 2), (2, 0), (0, 1))], axis=1)
        pushed = -rigidity * edge_gap
        near = np.concatenate((np.cross(turned_arms, pushed), pushed), axis=1)
        far = np.concatenate((np.zeros_like(pushed), -pushed), axis=1)
        return self._band.T, np.concatenate((torque, force), axis=1) + self._gather_ends @ np.concatenate((near, far))

    def solve(self, band: Float64, right: Float64, damping: float) -> Float64:
        """Increments (P, 6); ``damping`` (Levenberg-Marquardt) is relative to the diagonal. The band is used up."""
        # What neither data nor an edge holds has a zero on the diagonal: keep it where it is.
        band[0] += damping * band[0] + 1e-12 * max(float(band[0].max(initial=0.0)), 1e-30)
        ordered = np.empty_like(right)
        ordered[self._place] = right
        solution = solveh_banded(
            band, ordered.reshape(-1), lower=True, overwrite_ab=True, overwrite_b=True, check_finite=False
        )
        return solution.reshape(-1, 6)[self._place]

    def dense(self, band: Float64) -> Float64:
        """The matrix (6P, 6P) in the order of the nodes, for inspection."""
        height, size = band.shape
        lower = np.zeros((size, size))
        for offset in range(height):
            np.fill_diagonal(lower[offset:], band[offset, : size - offset])
        full = lower + np.tril(lower, -1).T
        rows = (self._place[:, None] * 6 + np.arange(6)).reshape(-1)
        return full[np.ix_(rows, rows)]


def _summation(group: Int64, count: int) -> csr_matrix:
    """A sparse matrix that sums rows by ``group``: (count, N) times (N, D)."""
    return csr_matrix((np.ones(len(group)), (group, np.arange(len(group)))), shape=(count, len(group)))
