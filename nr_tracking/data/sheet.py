"""The loose part of a surface as particles and constraints, ready to be simulated.

The sheet holds the loose vertices and the fixed ones that they hang on. Edges keep their length, the opposite corners
of neighbouring triangles theirs (which is bending), and no particle gets farther from where the sheet is fixed than
along the surface (long range attachments, Kim et al. 2012: without them, a sheet of many rows stretches under its own
weight however stiff its edges are). Constraints are coloured so that those of one colour share no particle and are
solved at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.sparse.linalg import factorized

from nr_tracking.normals import vertex_normals

FIXED = 1e-3
"""Vertices of less looseness are fixed to the body."""
_UNDERSIDE = -0.55
"""Loose vertices whose rest normal points further down than this close a skirt below; they are no cloth."""


@dataclass(frozen=True)
class Springs:
    """Constraints of one colour: particles ``first`` and ``second`` (C,) at ``length`` (C,) metres; ``bends`` (C,)."""

    first: np.ndarray
    second: np.ndarray
    length: np.ndarray
    bends: np.ndarray


@dataclass(frozen=True)
class Sheet:
    """``vertices`` (P,): rows of the surface that are particles; ``looseness`` (P,), 0 for the fixed ones.

    ``anchor`` (P,) is the fixed particle nearest along the surface and ``reach`` (P,) how far it is, infinite where
    nothing holds; ``normals @ face_normals`` sums over the ``faces`` (F, 3) of particles around each particle.
    ``web`` (W,) are rows that close the sheet below, ``follow`` (P, 3) -> (W, 3) moves them along smoothly.
    """

    vertices: np.ndarray
    looseness: np.ndarray
    colours: list[Springs]
    anchor: np.ndarray
    reach: np.ndarray
    faces: np.ndarray
    normals: csr_matrix
    web: np.ndarray
    follow: Callable[[np.ndarray], np.ndarray]


def sew(rest: np.ndarray, faces: np.ndarray, looseness: np.ndarray) -> Sheet | None:
    """The sheet of a surface (V, 3), (F, 3) in its rest pose, y up, with ``looseness`` (V,); None if nothing hangs."""
    loose = looseness > FIXED
    under = loose & (vertex_normals(rest, faces)[:, 1] < _UNDERSIDE)
    cloth = loose & ~under
    if not cloth.any():
        return None
    kept = faces[cloth[faces].any(1) & ~under[faces].any(1)]
    vertices = np.unique(kept)
    if len(vertices) == 0:
        return None
    place = np.full(len(rest), -1)
    place[vertices] = np.arange(len(vertices))
    local, points = place[kept], rest[vertices].astype(np.float64)
    free = np.where(cloth[vertices], looseness[vertices], 0.0)

    edges, across = _edges(local)
    pairs = np.concatenate([edges, across])
    bends = np.arange(len(pairs)) >= len(edges)
    moving = (free[pairs] > 0).any(1)
    pairs, bends = pairs[moving], bends[moving]
    length = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    anchor, reach = _attachments(points, edges, free == 0)
    corners = local.ravel()
    incidence = csr_matrix(
        (np.ones(len(corners)), (corners, np.repeat(np.arange(len(local)), 3))), shape=(len(vertices), len(local))
    )
    web = np.flatnonzero(under)
    return Sheet(
        vertices,
        free,
        [Springs(pairs[c, 0], pairs[c, 1], length[c], bends[c]) for c in coloured(pairs, len(vertices))],
        anchor,
        reach,
        local,
        incidence,
        web,
        _harmonic(faces, web, vertices, len(rest)),
    )


def coloured(pairs: np.ndarray, particles: int, seed: int = 0) -> list[np.ndarray]:
    """Split constraints ``pairs`` (C, 2) into groups that share no particle; rows of each group.

    Rounds of random priorities (Luby 1986): a constraint joins the group where it comes first at both its particles.
    """
    rank = np.random.default_rng(seed).permutation(len(pairs))
    groups, left = [], np.arange(len(pairs))
    while len(left):
        group, candidates = [], left
        while len(candidates):
            first = np.full(particles, len(pairs))
            np.minimum.at(first, pairs[candidates].ravel(), np.repeat(rank[candidates], 2))
            wins = (first[pairs[candidates]] == rank[candidates][:, None]).all(1)
            group.append(candidates[wins])
            taken = np.zeros(particles, bool)
            taken[pairs[candidates[wins]]] = True
            candidates = candidates[~taken[pairs[candidates]].any(1)]
        groups.append(np.sort(np.concatenate(group)))
        left = np.setdiff1d(left, groups[-1], assume_unique=True)
    return groups


def _edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges (E, 2) of triangles, and the corners (B, 2) that face each other across those that two triangles share."""
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    opposite = faces[:, [2, 0, 1]].reshape(-1)
    edges, index, uses = np.unique(np.sort(directed, 1), axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(index.reshape(-1), kind="stable")
    start = np.cumsum(uses) - uses
    twice = uses == 2
    across = np.stack([opposite[order[start[twice]]], opposite[order[start[twice] + 1]]], 1)
    across = np.unique(np.sort(across[across[:, 0] != across[:, 1]], 1), axis=0)
    return edges, across


def _attachments(points: np.ndarray, edges: np.ndarray, fixed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The fixed point nearest along the edges to each point, and how far it is."""
    own = np.arange(len(points))
    if not fixed.any():
        return own, np.full(len(points), np.inf)
    length = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
    graph = coo_matrix((np.maximum(length, 1e-9), (edges[:, 0], edges[:, 1])), shape=(len(points),) * 2).tocsr()
    reach, _, source = dijkstra(
        graph, directed=False, indices=np.flatnonzero(fixed), min_only=True, return_predecessors=True
    )
    return np.where(np.isfinite(reach), source, own), reach


def _harmonic(
    faces: np.ndarray, web: np.ndarray, vertices: np.ndarray, total: int
) -> Callable[[np.ndarray], np.ndarray]:
    """How the displacements (P, 3) of ``vertices`` spread over the ``web`` between them and what is fixed: (W, 3)."""
    if len(web) == 0:
        return lambda moved: np.zeros((0, 3))
    edges = np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1), axis=0)
    both = np.concatenate([edges, edges[:, ::-1]])
    graph = csr_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(total, total))
    degree = np.asarray(graph.sum(1)).ravel()
    rows = graph[web]
    inner = csr_matrix((degree[web], (np.arange(len(web)), np.arange(len(web)))), shape=(len(web),) * 2)
    # Lifted a little: a web that nothing surrounds stays where skinning puts it.
    solve = factorized((inner * (1 + 1e-6) - rows[:, web]).tocsc())
    outer = rows[:, vertices]
    return lambda moved: np.stack([solve(column) for column in (outer @ moved).T], 1)
