"""A moving character: what every generator of bodies and motions hands on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nr_tracking.types import Float32, Int32

FAMILIES = ("makehuman", "person", "animal", "procedural", "object", "cloth", "hand")
"""Clothed MakeHuman bodies, glTF people, glTF animals, bodies that need no files, things that are neither, thin pieces
of cloth on their own, and single hands."""


@dataclass(frozen=True)
class Clip:
    """One deforming surface over time.

    ``vertices`` (T, V, 3) float32 metres, world frame with y up, corresponding over time; ``faces`` (F, 3) int32,
    counter-clockwise seen from outside; ``fps`` frames a second. ``family`` is one of :data:`FAMILIES`; ``identity``
    names the body (a split never shares one) and ``name`` the motion.
    """

    name: str
    family: str
    identity: str
    vertices: Float32
    faces: Int32
    fps: float = 30.0

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"family {self.family!r} is none of {', '.join(FAMILIES)}")

    def every(self, stride: int, start: int = 0, count: int | None = None) -> Clip:
        """The frames ``start, start + stride, ...``, at most ``count`` of them."""
        chosen = self.vertices[start::stride][:count]
        return replace(self, vertices=chosen, fps=self.fps / stride)

    def resampled(self, fps: float, count: int) -> Clip:
        """``count`` frames at ``fps`` from the first on; those between two frames lie on the straight line."""
        place = np.minimum(np.arange(count) * self.fps / fps, len(self.vertices) - 1)
        low = np.minimum(np.floor(place + 1e-9).astype(int), len(self.vertices) - 1)
        high, share = np.minimum(low + 1, len(self.vertices) - 1), (place - low)[:, None, None]
        between = self.vertices[low] + share.astype(np.float32) * (self.vertices[high] - self.vertices[low])
        return replace(self, vertices=between, fps=fps)


def edge_use(faces: np.ndarray) -> np.ndarray:
    """How often each undirected edge of ``faces`` (F, 3) is used, (E,): all 2 on a closed surface."""
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1)
    return np.unique(edges, axis=0, return_counts=True)[1]


def is_closed(faces: np.ndarray) -> bool:
    """Whether every edge is shared by exactly two faces that run along it in opposite directions."""
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    once = len(np.unique(directed, axis=0)) == len(directed)
    return bool(once and (edge_use(faces) == 2).all())


def largest_edge(vertices: np.ndarray) -> float:
    """Longest edge of the bounding box of points (..., 3)."""
    points = vertices.reshape(-1, 3)
    return float((points.max(0) - points.min(0)).max())


def static_correspondence_error(vertices: np.ndarray) -> float:
    """Mean distance of each vertex of (T, V, 3) from where it began, over all T frames, first longest edge = 1."""
    moved = np.linalg.norm(vertices - vertices[:1], axis=-1)
    return float(moved.mean() / largest_edge(vertices[0]))


def face_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals (..., F, 3) of the faces of (..., V, 3); zero where a face has no area."""
    a, b, c = (vertices[..., faces[:, i], :] for i in range(3))
    normal = np.cross(b - a, c - a)
    return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-20)


def sample_surface(
    vertices: np.ndarray, faces: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Points evenly by area on (V, 3): their faces (count,) and barycentric coordinates (count, 3)."""
    a, b, c = (vertices[faces[:, i]].astype(np.float64) for i in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=-1)
    chosen = rng.choice(len(faces), count, p=area / area.sum())
    root, along = np.sqrt(rng.random(count)), rng.random(count)
    return chosen, np.stack([1 - root, root * (1 - along), root * along], -1)


def interpolate(values: np.ndarray, faces: np.ndarray, face: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Values (..., V, C) of the vertices at barycentric places: (..., count, C)."""
    return np.einsum("...qkc,qk->...qc", values[..., faces[face], :], weights)


def boundary_loops(faces: np.ndarray) -> list[np.ndarray]:
    """The rims of an open surface, each as its vertices in order along the missing faces' direction."""
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    key = {(int(a), int(b)) for a, b in directed}
    following = {b: a for a, b in key if (b, a) not in key}
    loops = []
    while following:
        start, vertex = next(iter(following.items()))
        loop = [start]
        del following[start]
        while vertex != start and vertex in following:
            loop.append(vertex)
            vertex = following.pop(vertex)
        loops.append(np.array(loop))
    return loops
