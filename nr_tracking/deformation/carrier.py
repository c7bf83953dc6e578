"""An embedded deformation graph on a surface: nodes that move the points around them.

The nodes are the centres of geodesic patches and a point hangs on the nodes of its own and the adjacent patches, so two
limbs that touch but are not joined are carried apart (Sumner, Schmid and Pauly, SIGGRAPH 2007, with the patches of
:mod:`nr_tracking.deformation.patches` as nodes).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from nr_tracking.deformation.blending import blend_weights
from nr_tracking.deformation.normal_equations import DeformationGraph
from nr_tracking.deformation.patches import PatchGraph
from nr_tracking.types import Bool, Float64, Int32, Int64

_BLENDED = 4  # nodes that move a point
_BRIDGES = 3  # edges that tie a separate component to the rest
_USED = 1e-6  # weight from which on a node is one that moves a point
_FAR = 1.5  # node distances from which on a new point is out of the nodes' reach
_TIED = 2.5  # node distances within which new nodes are tied


def build_carrier(patches: PatchGraph, points: Float64, vertex: Int64) -> tuple[Float64, DeformationGraph]:
    """Hang ``points`` (K, 3) on the patches of a surface; ``vertex`` (K,) is a vertex of the surface near each.

    Returns the nodes (P, 3) and the graph. Components that are apart are tied by a few edges to their nearest
    neighbours, so that one which loses all its matches follows the rest.
    """
    blend = blend_weights(torch.as_tensor(points), patches, patches.owner[vertex], limit=_BLENDED)
    nodes = patches.centres.astype(np.float64)
    edges = _tied(nodes, patches.neighbours)
    lengths = _lengths(nodes, edges)
    return nodes, DeformationGraph(len(nodes), edges, lengths, blend.index.numpy(), blend.weight.numpy())


@dataclass(frozen=True)
class Growth:
    """A carrier, which is a deformation graph with its points, after points and nodes were added to it.

    ``graph`` with the new points last; ``nodes`` (Q, 3) that were added; ``beside`` (Q,), the old node next to each,
    whose motion so far is theirs.
    """

    graph: DeformationGraph
    nodes: Float64
    beside: Int64


def grow_carrier(
    graph: DeformationGraph,
    nodes: Float64,
    points: Float64,
    like: Int64,
    spacing: float,
    most: int,
    adjoining: Int32 | None = None,
) -> Growth:
    """Hang further ``points`` (K, 3) on a graph at ``nodes`` (P, 3), adding nodes where it does not reach.

    ``like`` (K,) is a point of the graph that lies on the same part of the body as each new one: its nodes, and no
    nearer ones of a limb that happens to touch, are those that the new point may hang on. A point farther than 1.5
    ``spacing`` (the distance between nodes) from all of these gets a node of its own or shares a new one; new nodes too
    serve the part of the body that the old ones beside them serve, and no other, but for where two parts grow together:
    ``adjoining`` (M, 2) are new points next to each other on the surface. ``most`` bounds the number of nodes.
    """
    offered, joined = graph.index[like], _joined(graph)
    distance = np.linalg.norm(points[:, None] - nodes[offered], axis=2)
    closest = np.take_along_axis(offered, distance.argmin(axis=1)[:, None], 1)[:, 0]
    bare, room = np.flatnonzero(distance.min(axis=1) > _FAR * spacing), max(most - len(nodes), 0)
    fresh, own = _new_nodes(points, bare, closest, joined, spacing, room)
    added, beside = points[fresh], closest[fresh]
    pairs = np.empty((0, 2), np.int32) if adjoining is None else adjoining
    usable, together = _serving(joined, closest, beside, own, np.concatenate((pairs, pairs[:, ::-1])))

    number, every = len(nodes) + np.arange(len(fresh)), np.concatenate((nodes, added))
    edges = _edges_between(number, beside, np.where(together, cdist(added, added), np.inf) < _TIED * spacing)
    if len(fresh):
        near = _nearest_usable(points, added, usable)
        offered = np.concatenate((offered, np.where(near >= 0, number[near], closest[:, None])), axis=1)
    index, weight = _hung(points, every, offered, graph.index.shape[1], spacing)
    grown = DeformationGraph(
        len(every),
        np.concatenate((graph.edges, edges)),
        np.concatenate((graph.lengths, _lengths(every, edges))),
        np.concatenate((graph.index, index)),
        np.concatenate((graph.weight, weight)),
    )
    return Growth(grown, added, beside)


def _new_nodes(
    points: Float64, bare: Int64, closest: Int64, joined: Bool, spacing: float, room: int
) -> tuple[Int64, Int64]:
    """Which of ``points`` (K, 3) become nodes, at most ``room`` (Q,), and the new node that each shares (K,), or -1.

    Only those that are ``bare`` (B,) do: one for each cell of ``spacing`` and part of the body, that of its ``closest``
    (K,) old node.
    """
    first, shared = _of_each_part(np.floor(points[bare] / spacing).astype(np.int64), closest[bare], joined)
    fresh = bare[first[:room]]
    own = np.full(len(points), -1)
    own[bare] = np.where(shared < len(fresh), shared, -1)
    return fresh, own


def _edges_between(number: Int64, beside: Int64, near: Bool) -> Int32:
    """Tie each of the new nodes ``number`` (Q,) to the old one ``beside`` it, and to the new ones ``near`` (Q, Q)."""
    first, second = np.nonzero(np.triu(near, 1))
    ends = np.stack((beside, number), 1), np.stack((number[first], number[second]), 1)
    return np.concatenate(ends).astype(np.int32)


def _nearest_usable(points: Float64, added: Float64, usable: Bool) -> Int64:
    """The two nearest of the new nodes ``added`` (Q, 3) that each point may hang on (K, 2 at most), -1 for none."""
    apart = np.where(usable, cdist(points, added), np.inf)
    near = np.argsort(apart, axis=1)[:, :2]
    return np.where(np.isfinite(np.take_along_axis(apart, near, 1)), near, -1)


def _hung(points: Float64, nodes: Float64, offered: Int64, width: int, spacing: float) -> tuple[Int64, Float64]:
    """Hang points (K, 3) on the ``width`` nearest of the nodes ``offered`` (K, M) to each: these, and their shares."""
    distance = np.linalg.norm(points[:, None] - nodes[offered], axis=2)
    # Where there are few nodes to hang on, rows are padded with one of them, which counts once.
    distance[np.tril(offered[:, :, None] == offered[:, None], -1).any(axis=2)] = np.inf
    kept = np.argsort(distance, axis=1, kind="stable")[:, :width]
    index, distance = np.take_along_axis(offered, kept, 1), np.take_along_axis(distance, kept, 1)
    weight = np.exp(-0.5 * (distance**2 - distance[:, :1] ** 2) / spacing**2)
    return index, weight / weight.sum(axis=1, keepdims=True)


def part_of(graph: DeformationGraph, samples: Int64) -> DeformationGraph:
    """The same graph with only some of its samples."""
    return replace(graph, index=graph.index[samples], weight=graph.weight[samples])


def used_nodes(graph: DeformationGraph) -> Bool:
    """Which nodes (P,) move any point."""
    used = np.zeros(graph.count, bool)
    used[graph.index[graph.weight > _USED]] = True
    return used


def on_nodes(graph: DeformationGraph, nodes: Float64, kept: Bool) -> DeformationGraph:
    """The same graph on only some of its ``nodes`` (P, 3), those ``kept`` (P,): all that move any point, at the least.

    Pieces that come apart are tied anew, as at the first; the new edges are at rest where the nodes are now.
    """
    number, nodes = np.cumsum(kept) - 1, nodes[kept]
    lasting = kept[graph.edges].all(axis=1)
    edges = number[graph.edges[lasting]].astype(np.int32)
    tied = _tied(nodes, edges)
    lengths = np.concatenate((graph.lengths[lasting], _lengths(nodes, tied[len(edges) :])))
    # What is gone from a row is replaced by the row's strongest node, which counts once.
    strongest = np.take_along_axis(graph.index, graph.weight.argmax(axis=1)[:, None], 1)
    stays = kept[graph.index]
    weight = np.where(stays, graph.weight, 0.0)
    weight /= weight.sum(axis=1, keepdims=True)
    return DeformationGraph(len(nodes), tied, lengths, number[np.where(stays, graph.index, strongest)], weight)


def _lengths(nodes: Float64, edges: Int32) -> Float64:
    """How long edges (E, 2) between nodes (P, 3) are, (E,)."""
    lengths: Float64 = np.linalg.norm(nodes[edges[:, 0]] - nodes[edges[:, 1]], axis=1)
    return lengths


def _joined(graph: DeformationGraph) -> Bool:
    """Which nodes (P, P) are of one part of the body: each goes with itself and with those that move a point with it.

    Not those at the ends of an edge: some of these only tie pieces that are apart.
    """
    joined = np.eye(graph.count, dtype=bool)
    joined[graph.index[:, :, None], graph.index[:, None]] = True
    return joined


def _serving(joined: Bool, closest: Int64, beside: Int64, own: Int64, pairs: Int32) -> tuple[Bool, Bool]:
    """Which of Q new nodes, next to the old ones ``beside`` (Q,), each of K points may hang on, and which are tied.

    ``closest`` (K,) are the points' old nodes, ``own`` (K,) the new ones that they share, or -1; ``pairs`` (M, 2) of
    points adjoin, each in both orders. Returns (K, Q) and (Q, Q).
    """
    usable, together = joined[np.ix_(closest, beside)], joined[np.ix_(beside, beside)]
    known = own >= 0
    usable[known, own[known]] = True
    one, other = pairs[known[pairs[:, 1]]].T
    usable[one, own[other]] = True
    one, other = pairs[known[pairs].all(axis=1)].T
    together[own[one], own[other]] = True
    usable[known] |= together[own[known]]
    return usable, together


def _of_each_part(cells: Int64, beside: Int64, joined: Bool) -> tuple[Int64, Int64]:
    """Sort points in ``cells`` (K, 3) by cell, and within one by the parts of the body of the nodes ``beside`` (K,).

    Returns the first point (Q,) of each group, and the group (K,) of each point.
    """
    cells = cells - cells.min(axis=0, initial=0)
    key = np.ravel_multi_index(tuple(cells.T), tuple(cells.max(axis=0, initial=0) + 1))
    kinds, kind = np.unique(key * len(joined) + beside, return_inverse=True)
    cell, node = np.divmod(kinds, len(joined))
    one, other = np.nonzero(cell[:, None] == cell)
    alike = joined[node[one], node[other]]
    links = csr_matrix((alike[alike], (one[alike], other[alike])), shape=(len(kinds), len(kinds)))
    groups, group = connected_components(links, directed=False)
    of_point = group[kind].astype(np.int64)
    first = np.full(groups, len(cells))
    np.minimum.at(first, of_point, np.arange(len(cells)))
    return first, of_point


def _tied(nodes: Float64, edges: Int32) -> Int32:
    """Add edges until the graph is in one piece: the shortest ones from each smaller component to the others."""
    count = len(nodes)
    links = csr_matrix((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(count, count))
    pieces, piece = connected_components(links, directed=False)
    if pieces == 1:
        return edges
    # Prim's algorithm over components: the piece nearest to what is already joined comes next.
    joined = piece == np.bincount(piece).argmax()
    added = []
    distances = cdist(nodes, nodes)
    while not joined.all():
        inside, outside = np.flatnonzero(joined), np.flatnonzero(~joined)
        block = distances[np.ix_(inside, outside)]
        nearest = outside[np.unravel_index(block.argmin(), block.shape)[1]]
        members = np.flatnonzero(piece == piece[nearest])
        block = distances[np.ix_(inside, members)]
        for flat in np.argsort(block, axis=None)[:_BRIDGES]:
            a, b = np.unravel_index(flat, block.shape)
            added.append(sorted((int(inside[a]), int(members[b]))))
        joined[members] = True
    return np.concatenate((edges, np.array(added, np.int32)))
