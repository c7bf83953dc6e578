"""Sampling a surface evenly, and finding the nearest place on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from nr_tracking.deformation.matching import Target, as_places, even_sample, nearest_similar, space_order
from nr_tracking.loops import compiled_loops
from nr_tracking.normals import face_normals, vertex_normals
from nr_tracking.types import Bool, Float64, InputError, Int64, check_same_shape

_CANDIDATES = 4  # nearest vertices that describe the surface near a point
_FOUND_PER_SEEKING = 3  # vertices of a target that can be found, for each that seeks


@dataclass(frozen=True)
class SurfaceSamples:
    """Points on a surface: ``points`` and ``normals`` (K, 3), and the ``vertex`` (K,) nearest to each on its face.

    ``area`` is that of the whole surface.
    """

    points: Float64
    normals: Float64
    vertex: Int64
    area: float


@dataclass(frozen=True)
class Projection:
    """Nearest places on a surface: ``points`` and ``normals`` (Q, 3), ``distance`` (Q,), ``vertex`` (Q,) nearby.

    Distance is along the normal. Where nothing is within reach, distance is infinite, vertex -1 and the rest NaN.
    ``around`` (C, Q) are the vertices from which the place was taken, -1 for none.
    """

    points: Float64
    normals: Float64
    distance: Float64
    vertex: Int64
    around: Int64

    @staticmethod
    def on_surface(samples: SurfaceSamples) -> Projection:
        """That of points which lie on the surface."""
        nothing = np.zeros(len(samples.points))
        return Projection(samples.points, samples.normals, nothing, samples.vertex, samples.vertex[None])

    def nearest(self, vertices: Float64, places: Float64, wanted: Bool) -> Int64:
        """For each of the ``vertices`` (V, 3) of the surface, which of the ``wanted`` (Q,) points is nearest to it.

        Points are at ``places`` (Q, 3) by now. -1 where no wanted point has the vertex around it.
        """
        check_same_shape(around=self.around.shape[1:], places=places.shape[:1], wanted=wanted.shape)
        if (loops := compiled_loops("tracks")) is not None:
            around = np.ascontiguousarray(self.around)
            there, corners = (np.ascontiguousarray(values, np.float64) for values in (places, vertices))
            found: Int64 = loops.nearest_around(around, wanted, there, corners)
            return found
        slot, point = np.nonzero((self.around >= 0) & wanted)
        vertex = self.around[slot, point]
        squared = np.zeros(len(point))
        for theirs, ours in zip(vertices.T, places.T, strict=True):
            squared += (theirs.take(vertex) - ours.take(point)) ** 2
        least = np.full(len(vertices), np.inf)
        np.minimum.at(least, vertex, squared)
        chosen = squared == least[vertex]
        nearest = np.full(len(vertices), -1)
        nearest[vertex[chosen]] = point[chosen]
        return nearest


def sample_evenly(vertices: np.ndarray, faces: np.ndarray, count: int, seed: int = 0) -> SurfaceSamples:
    """Exactly ``count`` points on a mesh, evenly by area; the same for the same mesh and seed.

    Faces are laid along a space-filling curve and cut into pieces of equal area, each of which gets one point, so
    points neither bunch up nor leave gaps as independent ones would. Raises :class:`InputError` ("no_surface") without
    area.
    """
    places = np.asarray(vertices, np.float64)
    corners, across = places[faces], face_normals(places, faces).T
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
    return SurfaceSamples(
        points, across[face] / area[face, None], faces[face, shares.argmax(axis=1)].astype(np.int64), ends[-1]
    )


class PointIndex:
    """Points (N, 3) among which the nearest are sought."""

    def __init__(self, points: Float64) -> None:
        self.points = np.ascontiguousarray(points, np.float64)

    def nearest(self, queries: Float64, count: int = 1, radius: float = np.inf) -> tuple[Float64, Int64]:
        """Distances and numbers of the ``count`` nearest points within ``radius`` of ``queries`` (Q, 3), (Q, count).

        Infinite and -1 where there is none; no more columns than there are points. Raises ValueError for queries that
        are not finite.
        """
        count, queries = max(1, min(count, len(self.points))), as_places(queries)
        if (loops := compiled_loops("projection")) is not None:
            near: tuple[Float64, Int64] = loops.nearest(*self._grid, queries, count, float(radius))
            return near
        distance, found = self._tree.query(queries, k=np.arange(1, count + 1), distance_upper_bound=radius)
        return distance, np.where(np.isfinite(distance), found, -1)

    def facing(
        self, sides: Float64, queries: Float64, normals: Float64, cosine: float, radius: float = np.inf
    ) -> Int64:
        """For each of ``queries`` (Q, 3) the nearest point on a side that faces as it does, else the nearest, (Q,).

        ``sides`` (N, 3) are the normals of the points, ``normals`` (Q, 3) those of the queries, and ``cosine`` their
        least product. Of the points within ``radius`` only the few nearest are tried.
        """
        if compiled_loops("projection") is None:
            found = nearest_similar(self._tree, sides, queries, normals, radius, cosine)
            return np.where(found >= 0, found, self._tree.query(queries)[1])
        distance, few = self.nearest(queries, _CANDIDATES)
        alike = np.einsum("qci,qi->qc", sides[few], normals) >= cosine
        first = (alike & (distance < radius)).argmax(axis=1)  # 0 where none is alike
        return few[np.arange(len(few)), first]

    @cached_property
    def _grid(self) -> tuple[np.ndarray, ...]:
        loops = compiled_loops("projection")
        assert loops is not None
        grid: tuple[np.ndarray, ...] = loops.grid_of(as_places(self.points))
        return grid

    @cached_property
    def _tree(self) -> cKDTree:
        return cKDTree(self.points, balanced_tree=False)


class SurfaceIndex:
    """A mesh prepared for nearest-place queries and for matching.

    ``points`` (V, 3) and ``normals`` (V, 3) of its vertices; ``faces`` (F, 3).
    """

    def __init__(self, vertices: np.ndarray, faces: np.ndarray) -> None:
        self.points: Float64 = np.ascontiguousarray(vertices, np.float64)
        self.faces, self.normals = faces, vertex_normals(self.points, faces)
        self._near = PointIndex(self.points)

    def target(self, samples: int) -> Target:
        """The surface as the target of matches: three times ``samples`` of its vertices, evenly chosen.

        That many are enough, because distances are measured to tangent planes. Every third of them is a sample that
        looks for a match on the moving surface itself.
        """
        chosen = even_sample(self.points, _FOUND_PER_SEEKING * samples)
        # The choice runs along a space-filling curve: every third of it is even again.
        seeking = np.arange(0, len(chosen), _stride(len(chosen), samples))
        return Target(self.points[chosen], self.normals[chosen], seeking)

    def project(self, points: Float64, normals: Float64, radius: float, cosine: float) -> Projection:
        """The nearest place on the surface within ``radius`` of each point (Q, 3), on a side with a similar normal.

        ``cosine`` is the least product with the unit ``normals`` (Q, 3). The surface near a point is taken from the few
        nearest vertices on that side: their tangent planes lie outside of what is convex and their mean inside of it by
        as much, so the middle of the two is the surface up to the third order of their distance.
        """
        distance, found = self._near.nearest(points, _CANDIDATES, radius)
        if (loops := compiled_loops("projection")) is not None:
            points, normals = (np.ascontiguousarray(values, np.float64) for values in (points, normals))
            known = distance, found, self.points, self.normals
            return Projection(*loops.project(*known, points, normals, float(cosine)))
        # Candidates first from here on, and coordinates before points: sums over either are many times quicker so.
        distance, found = np.ascontiguousarray(distance.T), np.ascontiguousarray(found.T)
        usable = found >= 0
        x, y, z = np.ascontiguousarray(self.normals.T).take(found, axis=1)
        (a, b, c), (p, q, r) = normals.T, np.ascontiguousarray(self.points.T).take(found, axis=1) - points.T[:, None]
        usable &= x * a + y * b + z * c >= cosine
        # The width of the weights is the distance to the farthest of them, so neither units nor density matter.
        width = np.maximum(np.where(usable, distance, 0.0).max(axis=0), 1e-30)
        weight = np.where(usable, np.exp(-2.0 * (distance / width) ** 2), 0.0)
        total = weight.sum(axis=0)
        near = total > 0
        weight /= np.maximum(total, 1e-300)

        normal = np.stack([(weight * side).sum(axis=0) for side in (x, y, z)])
        normal /= np.maximum(np.sqrt((normal**2).sum(axis=0)), 1e-12)
        gap = np.stack([(weight * along).sum(axis=0) for along in (p, q, r)])
        planes = (weight * (x * p + y * q + z * r)).sum(axis=0)
        height = 0.5 * (planes + (normal * gap).sum(axis=0))
        nearest = np.where(near, found[usable.argmax(axis=0), np.arange(len(near))], -1)
        lost = ~near
        height[lost] = normal[:, lost] = np.nan
        distance, around = np.where(near, np.abs(height), np.inf), np.where(usable, found, -1)
        return Projection(points + (height * normal).T, normal.T, distance, nearest, around)


def _stride(available: int, wanted: int) -> int:
    return max(1, available // max(wanted, 1))
