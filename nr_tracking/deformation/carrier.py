"""A deformation graph laid on a surface: nodes that carry points.

The nodes are the centres of geodesic patches and a point hangs on the nodes of its own and the adjacent patches, so two
limbs that touch but are not joined are carried apart (Sumner, Schmid and Pauly, SIGGRAPH 2007, with the patches of
:mod:`nr_tracking.deformation.patches` as nodes).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from nr_tracking.deformation.blending import blend_weights
from nr_tracking.deformation.normal_equations import DeformationGraph
from nr_tracking.deformation.patches import PatchGraph
from nr_tracking.types import Float64, Int32, Int64

_BLENDED = 4  # nodes that move a point
_BRIDGES = 3  # edges that tie a separate component to the rest


def build_carrier(patches: PatchGraph, points: Float64, vertex: Int64) -> tuple[Float64, DeformationGraph]:
    """Hang ``points`` (K, 3) on the patches of a surface; ``vertex`` (K,) is a vertex of the surface near each.

    Returns the nodes (P, 3) and the graph. Components that are apart are tied by a few edges to their nearest
    neighbours, so that one which loses all its matches follows the rest.
    """
    blend = blend_weights(torch.as_tensor(points), patches, patches.owner[vertex], limit=_BLENDED)
    nodes = patches.centres.astype(np.float64)
    edges = _tied(nodes, patches.neighbours)
    lengths = np.linalg.norm(nodes[edges[:, 0]] - nodes[edges[:, 1]], axis=1)
    return nodes, DeformationGraph(len(nodes), edges, lengths, blend.index.numpy(), blend.weight.numpy())


def part_of(graph: DeformationGraph, samples: Int64) -> DeformationGraph:
    """The same graph with only some of its samples."""
    return replace(graph, index=graph.index[samples], weight=graph.weight[samples])


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
