"""Vertex relaxation: vertices move until the faces, and not only they, lie on the zero level of a field.

Marching cubes puts vertices on the surface. Faces are chords then, so a coarse mesh encloses too little wherever the
surface bulges, and its triangles are as uneven as the cuts of a grid. Vertices that are first spread along the surface
and then moved out by a part of what the middles of their faces miss give a mesh that is as close as one of half the
cell, with a quarter of the vertices.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from nr_tracking.loops import compiled_loops
from nr_tracking.normals import face_normals
from nr_tracking.types import Bool, Float32, Float64, Int32

_ROUNDS = 2  # of spreading
_SPREAD = 0.6  # of the way to the middle of a vertex' neighbours
_SHARE = 0.6  # of the distance at the middle of the faces around: the chord's middle is where most is missing
_FARTHEST = 0.3  # cells that a distance counts at most: a field that is off is not followed


def settle(
    vertices: Float32, faces: Int32, distance: Callable[[Tensor], Tensor], cell: float, movable: Bool
) -> Float32:
    """Move the ``movable`` (V,) vertices of a closed mesh so that its faces lie about the zero level of ``distance``.

    ``vertices`` (V, 3), ``faces`` (F, 3), counter-clockwise seen from outside; ``distance`` maps points (Q, 3) to
    signed distances (Q,) in the unit of ``cell``, the size of the cells in which the mesh was found.
    """
    farthest = _FARTHEST * cell
    if (loops := compiled_loops("meshes")) is not None:
        places = vertices.astype(np.float64)
        loops.spread(places, faces, movable, _ROUNDS, _SPREAD)
        missed = distance(torch.from_numpy(loops.middles(places, faces))).cpu().numpy()
        settled: Float32 = loops.moved_out(places, faces, movable, missed, farthest, _SHARE)
        return settled

    corners = faces.T.astype(np.int64)
    count, number = len(vertices), np.arange(len(faces))
    # On a closed mesh each edge is met twice, once in either direction: all neighbours of a vertex, once each.
    begin, end = corners.reshape(-1), np.roll(corners, -1, axis=0).reshape(-1)
    neighbours = csr_array((np.ones(len(begin)), (begin, end)), shape=(count, count))
    around = csr_array((np.ones(len(begin)), (begin, np.tile(number, 3))), shape=(count, len(faces)))
    degree = np.bincount(begin, minlength=count)[:, None]
    places = vertices.astype(np.float64)
    still = ~movable[:, None]
    for _ in range(_ROUNDS):
        normals = _unit(around @ face_normals(places, faces).T)
        step = neighbours @ places / degree - places
        step -= normals * np.einsum("vi,vi->v", step, normals)[:, None]
        places += np.where(still, 0.0, _SPREAD * step)

    across = face_normals(places, faces)
    area = np.sqrt((across**2).sum(axis=0))
    middles = torch.from_numpy(places[corners].mean(axis=0).astype(np.float32))
    missed = np.clip(distance(middles).cpu().numpy().astype(np.float64), -farthest, farthest)
    outward = _SHARE * (around @ (area * missed)) / np.maximum(around @ area, 1e-30)
    return (places - np.where(still, 0.0, outward[:, None] * _unit(around @ across.T))).astype(np.float32)


def _unit(vectors: Float64) -> Float64:
    return vectors / np.maximum(np.sqrt(np.einsum("vi,vi->v", vectors, vectors)), 1e-30)[:, None]
