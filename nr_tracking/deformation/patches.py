"""Geodesic patches of a surface, and their hierarchy: the graph on which a deformation lives.

    graph = build_patches(vertices, faces, count=200, hierarchy=(65, 22))

A patch is the set of vertices that are nearer to its centre, along the surface, than to any other centre; so limbs that
touch but are not joined never share one. Seeds come from thinning by voxels, one Lloyd step moves each to the middle of
its cell, and one multi-source Dijkstra run over the edges assigns all vertices: linear in the mesh, unlike
farthest-point seeds (:func:`farthest_points`, kept as the reference). Coarser levels are patches of the patch graph.

Cagniart, Boyer and Ilic, "Free-form mesh tracking: a patch-based approach", CVPR 2010; Merrouche et al. 2024, sec. 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, dijkstra

from nr_tracking.loops import compiled_loops
from nr_tracking.types import Float32, Float64, InputError, Int32, Patches


@dataclass(frozen=True)
class PatchLevel:
    """One level of the hierarchy: P patches.

    ``centres`` (P, 3) float32; ``neighbours`` (E, 2) int32, each adjacent pair once with the smaller index first;
    ``parent`` (P,) int32, the patch of the next coarser level that each patch belongs to (empty on the coarsest level).
    """

    centres: Float32
    neighbours: Int32
    parent: Int32


@dataclass(frozen=True)
class PatchGraph:
    """Patches of a surface of V vertices, in the coordinates of its vertices.

    ``index`` (P,) int32, the vertex at each centre; ``owner`` (V,) int32, the patch of each vertex; ``widths`` (P,)
    float32, the mean distance from a centre to the adjacent ones; ``centres`` (P, 3) float32, each a vertex of the
    surface; ``neighbours`` (E, 2) int32, adjacent pairs; ``hierarchy``, the numbers of patches on coarser levels.
    """

    index: Int32
    owner: Int32
    widths: Float32
    centres: Float32
    neighbours: Int32
    hierarchy: tuple[int, ...]

    @cached_property
    def levels(self) -> tuple[PatchLevel, ...]:
        """The finest first; made when they are asked for, which most graphs never are."""
        centres, neighbours = self.centres.astype(np.float64), self.neighbours
        found = [(centres, neighbours)]
        parents = []
        for coarser in self.hierarchy:
            seeds, parent = _cells(centres, neighbours, coarser)
            neighbours, centres = adjacent(parent, neighbours), centres[seeds]
            parents.append(parent)
            found.append((centres, neighbours))
        parents.append(np.empty(0, np.int32))
        return tuple(PatchLevel(c.astype(np.float32), n, p) for (c, n), p in zip(found, parents, strict=True))

    def __len__(self) -> int:
        return len(self.index)

    def at_rest(self) -> Patches:
        """The patches while their motion is not known: rotations and translations are NaN."""
        turns, shifts = np.full((len(self), 3, 3), np.nan, np.float32), np.full((len(self), 3), np.nan, np.float32)
        return Patches(self.centres, turns, shifts, self.owner, self.neighbours)


def build_patches(vertices: np.ndarray, faces: np.ndarray, count: int, hierarchy: tuple[int, ...] = ()) -> PatchGraph:
    """Cut a mesh into about ``count`` geodesic patches, and those into the coarser levels of ``hierarchy``.

    ``vertices`` (V, 3), ``faces`` (F, 3). The number of patches is at most ``count``, except that every connected
    component gets at least one; with fewer vertices than ``count`` every vertex is a patch. Raises
    :class:`InputError` ("empty_mesh") without vertices.
    """
    if count < 1:
        raise ValueError(f"count of patches is {count}, it must be at least 1")
    if len(vertices) == 0:
        raise InputError("empty_mesh", "a mesh without vertices has no patches; check that the surface is not empty")
    points = np.asarray(vertices, np.float64)
    edges = mesh_edges(faces)
    index, owner = _cells(points, edges, count)
    centres, neighbours = points[index], adjacent(owner, edges)
    widths = _widths(centres, neighbours, points, owner)

    return PatchGraph(index, owner, widths.astype(np.float32), centres.astype(np.float32), neighbours, tuple(hierarchy))


def mesh_edges(faces: np.ndarray) -> Int32:
    """Each edge of a mesh once, (E, 2), smaller index first."""
    if (loops := compiled_loops("patches")) is not None:
        edges: Int32 = loops.edges_of(np.ascontiguousarray(faces, np.int32).reshape(-1, 3))
        return edges
    corners = np.asarray(faces, np.int64).reshape(-1, 3)
    return _unique_pairs(corners.reshape(-1), np.roll(corners, -1, axis=1).reshape(-1))


def edge_graph(points: np.ndarray, edges: np.ndarray) -> Any:
    """Sparse (V, V) matrix of edge lengths, each edge in one direction."""
    lengths = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
    # A stored zero would read as "no edge": coincident vertices stay joined by a tiny length.
    lengths = np.maximum(lengths, 1e-12)
    return csr_matrix((lengths, (edges[:, 0], edges[:, 1])), shape=(len(points), len(points)))


def neighbour_table(pairs: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lay the neighbours of each node side by side.

    Returns ``table`` (count, D) int64, the neighbours of each node, padded with the node itself; ``edge`` (count, D)
    int64, the row of ``pairs`` that joins them, padded with 0; ``valid`` (count, D) bool. D is the largest degree.
    """
    ends = np.concatenate((pairs, pairs[:, ::-1])).astype(np.int64)
    rows = np.tile(np.arange(len(pairs)), 2)
    order = np.argsort(ends[:, 0], kind="stable")
    ends, rows = ends[order], rows[order]
    degree = np.bincount(ends[:, 0], minlength=count)
    slot = np.arange(len(ends)) - np.repeat(np.cumsum(degree) - degree, degree)
    shape = (count, int(degree.max(initial=0)))
    table = np.repeat(np.arange(count)[:, None], shape[1], axis=1)
    edge, valid = np.zeros(shape, np.int64), np.zeros(shape, bool)
    table[ends[:, 0], slot], edge[ends[:, 0], slot], valid[ends[:, 0], slot] = ends[:, 1], rows, True
    return table, edge, valid


def farthest_points(points: np.ndarray, edges: np.ndarray, count: int) -> Int32:
    """Geodesic farthest-point seeds (count,), starting at vertex 0: even, but one Dijkstra run a seed."""
    graph = edge_graph(points, edges)
    seeds = [0]
    distance = dijkstra(graph, directed=False, indices=0)
    while len(seeds) < min(count, len(points)):
        seeds.append(int(np.argmax(distance)))
        distance = np.minimum(distance, dijkstra(graph, directed=False, indices=seeds[-1]))
    return np.array(seeds, np.int32)


def _cells(points: Float64, edges: Int32, count: int) -> tuple[Int32, Int32]:
    """Seeds (P,) and the seed each point belongs to (V,): thinning, assignment, one Lloyd step, assignment."""
    if len(points) <= count:
        every = np.arange(len(points), dtype=np.int32)
        return every, every.copy()
    if (loops := compiled_loops("patches")) is not None:
        found: tuple[Int32, Int32] = loops.cells(np.ascontiguousarray(points), edges, count)
        return found
    graph = edge_graph(points, edges)
    pieces, piece = connected_components(graph, directed=False)
    seeds = _thinned(points, max(count - (pieces - 1), 1))
    bare = np.setdiff1d(np.arange(pieces), piece[seeds])
    if len(bare):
        seeds = np.concatenate((seeds, np.unique(piece, return_index=True)[1][bare]))
    owner = _nearest_seed(graph, seeds)
    seeds = _middle(points, owner, len(seeds))
    return seeds.astype(np.int32), _nearest_seed(graph, seeds)


def _thinned(points: Float64, count: int) -> np.ndarray:
    """At most ``count`` points, close to it: one in each occupied voxel, the voxel size found by bisection."""
    low_corner = points.min(axis=0)
    extent = float((points - low_corner).max()) or 1.0
    fewest, most = 1.0, 256.0  # voxels along the longest edge: one point, and more than any count needs
    best = np.zeros(1, np.int64)
    for _ in range(9):
        cells_along = np.sqrt(fewest * most)
        side = int(cells_along) + 1
        cells = ((points - low_corner) * (cells_along / (extent * 1.000001))).astype(np.int64)
        # Which point stands for a voxel does not matter, so the last one written may win: no sort is needed.
        table = np.full(side**3, -1, np.int64)
        table[(cells[:, 0] * side + cells[:, 1]) * side + cells[:, 2]] = np.arange(len(points))
        chosen = table[table >= 0]
        if len(chosen) > count:
            most = cells_along
            continue
        fewest = cells_along
        if len(chosen) > len(best):
            best = chosen
        if len(chosen) >= 0.97 * count:
            break
    return best


def _nearest_seed(graph: Any, seeds: np.ndarray) -> Int32:
    """The position in ``seeds`` of the seed nearest to each vertex along the edges (V,)."""
    _, _, source = dijkstra(graph, directed=False, indices=seeds, min_only=True, return_predecessors=True)
    position = np.zeros(graph.shape[0], np.int32)
    position[seeds] = np.arange(len(seeds), dtype=np.int32)
    return position[source]


def _middle(points: Float64, owner: Int32, count: int) -> np.ndarray:
    """For each cell the member nearest to the mean of its members, so that a centre lies on the surface."""
    members = np.bincount(owner, minlength=count)[:, None]
    mean = np.stack([np.bincount(owner, axis, minlength=count) for axis in points.T], axis=1) / members
    distance = ((points - mean[owner]) ** 2).sum(axis=1)
    order = np.lexsort((distance, owner))
    starts = np.cumsum(members[:, 0]) - members[:, 0]
    return order[starts]


def adjacent(owner: Int32, edges: Int32) -> Int32:
    """Pairs of cells that an edge joins, (E, 2), each once."""
    if (loops := compiled_loops("patches")) is not None:
        found: Int32 = loops.adjacent(owner, edges)
        return found
    pairs = owner[edges]
    crossing = pairs[pairs[:, 0] != pairs[:, 1]]
    return _unique_pairs(crossing[:, 0].astype(np.int64), crossing[:, 1].astype(np.int64))


def _unique_pairs(first: np.ndarray, second: np.ndarray) -> Int32:
    """Unordered pairs, each once, smaller index first, sorted."""
    low, high = np.minimum(first, second), np.maximum(first, second)
    span = int(high.max(initial=-1)) + 1
    # A sparse matrix merges duplicates in linear time, several times quicker than sorting the keys.
    pattern = csr_matrix((np.ones(len(low), np.int8), (low, high)), shape=(span, span))
    pattern.sum_duplicates()
    rows = np.repeat(np.arange(span, dtype=np.int32), np.diff(pattern.indptr))
    return np.stack((rows, pattern.indices.astype(np.int32)), axis=1)


def _widths(centres: Float64, neighbours: Int32, points: Float64, owner: Int32) -> Float64:
    """Mean distance to the adjacent centres (P,); a patch without neighbours takes its own mean radius."""
    if (loops := compiled_loops("patches")) is not None:
        found: Float64 = loops.widths(centres, neighbours, np.ascontiguousarray(points), owner)
        return found
    count = len(centres)
    gap = np.linalg.norm(centres[neighbours[:, 0]] - centres[neighbours[:, 1]], axis=1)
    ends = neighbours.T.reshape(-1)
    degree = np.bincount(ends, minlength=count)
    mean_gap = np.bincount(ends, np.tile(gap, 2), minlength=count) / np.maximum(degree, 1)
    reach = np.linalg.norm(points - centres[owner], axis=1)
    radius = np.bincount(owner, reach, minlength=count) / np.bincount(owner, minlength=count)
    return np.maximum(np.where(degree > 0, mean_gap, radius), 1e-9)
