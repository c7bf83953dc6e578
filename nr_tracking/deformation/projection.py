"""Sampling a surface evenly, and finding the nearest place on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from nr_tracking.deformation.matching import Target, even_sample, nearest_similar, space_order, vertex_normals
from nr_tracking.types import Float64, InputError, Int64


@dataclass(frozen=True)
class SurfaceSamples:
    """Points on a surface: ``points`` and ``normals`` (K, 3), and the ``vertex`` (K,) nearest to each on its face."""

    points: Float64
    normals: Float64
    vertex: Int64


@dataclass(frozen=True)
class Projection:
    """Nearest places on a surface: ``points`` and ``normals`` (Q, 3), ``distance`` (Q,), ``vertex`` (Q,) nearby.

    Where there is none within reach, distance is infinite, vertex -1 and the rest NaN.
    """

    points: Float64
    normals: Float64
    distance: Float64
    vertex: Int64


def sample_evenly(vertices: np.ndarray, faces: np.ndarray, count: int, seed: int = 0) -> SurfaceSamples:
    """Exactly ``count`` points on a mesh, evenly by area; the same for the same mesh and seed.

    Faces are laid along a space-filling curve and cut into pieces of equal area, each of which gets one point, so
    points neither bunch up nor leave gaps as independent ones would. Raises :class:`InputError` ("no_surface") without
    area.
    """
    corners = np.asarray(vertices, np.float64)[faces]
    across = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(across, axis=1)
    if not area.sum() > 0:
        raise InputError("no_surface", f"a mesh of {len(vertices)} vertices and {len(faces)} faces has no area")
    order = space_order(corners.mean(axis=1))
    ends = np.cumsum(area[order])
    random = np.random.default_rng(seed)
    marks = (np.arange(count) + random.random(count)) * (ends[-1] / count)
    face = order[np.minimum(np.searchsorted(ends, marks), len(faces) - 1)]
    first, second = np.sqrt(random.random(count)), random.random(count)
    shares = np.stack((1 - first, first * (1 - second), first * second), axis=1)
    points = np.einsum("kc,kci->ki", shares, corners[face])
    return SurfaceSamples(points, across[face] / area[face, None], faces[face, shares.argmax(axis=1)].astype(np.int64))


class SurfaceIndex:
    """A mesh prepared for nearest-place queries and for matching.

    ``points`` (V, 3) and ``normals`` (V, 3) of its vertices, ``tree`` over them.
    """

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        self.points: Float64 = np.asarray(vertices, np.float64)
        self.faces = faces
        self.normals = vertex_normals(self.points, faces)
        self.tree = cKDTree(self.points, balanced_tree=False, compact_nodes=False)
        corner = np.repeat(np.arange(len(faces)), 3)
        shape = (len(self.points), max(len(faces), 1))
        self._incident = csr_matrix((np.ones(len(corner), np.int8), (faces.reshape(-1), corner)), shape=shape)

    def target(self, samples: int) -> Target:
        """The surface as something to be matched, with an even sample of its vertices that seeks from its side."""
        return Target(self.points, self.normals, self.tree, even_sample(self.points, samples))

    def project(self, points: Float64, normals: Float64, radius: float, cosine: float) -> Projection:
        """The nearest place on the surface within ``radius`` of each point (Q, 3), on a side with a similar normal.

        ``cosine`` is the least product with the unit ``normals`` (Q, 3). The search looks at the faces around the
        nearest such vertex: exact where triangles are even, as marching cubes makes them, close elsewhere.
        """
        vertex = nearest_similar(self.tree, self.normals, points, normals, radius, cosine)
        near = np.flatnonzero(vertex >= 0)
        starts = self._incident.indptr[vertex[near]]
        counts = self._incident.indptr[vertex[near] + 1] - starts
        query = np.repeat(np.arange(len(near)), counts)
        slot = np.arange(len(query)) - np.repeat(np.cumsum(counts) - counts, counts)
        face = self.faces[self._incident.indices[starts[query] + slot]]
        place, shares = nearest_on_triangles(points[near][query], self.points[face])
        squared = ((place - points[near][query]) ** 2).sum(1)

        # The nearest of each query's faces: sort by query, then distance, and keep the first.
        order = np.lexsort((squared, query))
        best = order[(np.cumsum(counts) - counts)[counts > 0]]
        found = near[query[best]]
        result = Projection(
            np.full(points.shape, np.nan), np.full(points.shape, np.nan), np.full(len(points), np.inf), vertex
        )
        result.points[found], result.distance[found] = place[best], np.sqrt(squared[best])
        normal = np.einsum("qc,qci->qi", shares[best], self.normals[face[best]])
        result.normals[found] = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
        return result


def nearest_on_triangles(points: Float64, corners: Float64) -> tuple[Float64, Float64]:
    """Nearest place (Q, 3) on triangle ``corners`` (Q, 3, 3) to each of ``points`` (Q, 3), and its shares (Q, 3)."""
    a = corners[:, 0]
    ab, ac, ap = corners[:, 1] - a, corners[:, 2] - a, points - a
    d00, d01, d11 = _dot(ab, ab), _dot(ab, ac), _dot(ac, ac)
    d20, d21 = _dot(ap, ab), _dot(ap, ac)
    area = d00 * d11 - d01 * d01
    safe = np.where(area > 0, area, 1.0)
    v, w = (d11 * d20 - d01 * d21) / safe, (d00 * d21 - d01 * d20) / safe
    outside = np.flatnonzero((v < 0) | (w < 0) | (v + w > 1) | (area <= 0))

    # Outside, the nearest place is on one of the three edges: clamp to each and take the best.
    o00, o01, o11, o20, o21 = (value[outside] for value in (d00, d01, d11, d20, d21))
    along_ab, along_ac = _clamped(o20, o00), _clamped(o21, o11)
    along_bc = _clamped(o21 - o20 - o01 + o00, o00 - 2 * o01 + o11)
    zero = np.zeros_like(along_ab)
    v_edge = np.stack((along_ab, zero, 1 - along_bc))
    w_edge = np.stack((zero, along_ac, along_bc))
    # Squared distance to a + v ab + w ac, up to the same |ap|^2 for all.
    cost = v_edge**2 * o00 + 2 * v_edge * w_edge * o01 + w_edge**2 * o11 - 2 * (v_edge * o20 + w_edge * o21)
    best = cost.argmin(axis=0), np.arange(len(outside))
    v[outside], w[outside] = v_edge[best], w_edge[best]
    return a + v[:, None] * ab + w[:, None] * ac, np.stack((1 - v - w, v, w), axis=1)


def _dot(first: Float64, second: Float64) -> Float64:
    return np.einsum("qi,qi->q", first, second)


def _clamped(above: Float64, below: Float64) -> Float64:
    return np.clip(above / np.where(below > 0, below, 1.0), 0.0, 1.0)
