"""Normals of a triangle mesh, by component: several times quicker than ``np.cross`` on rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nr_tracking.loops import compiled_loops
from nr_tracking.types import Float64


def cross(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
    """Cross products (3, ...) of vectors (3, ...)."""
    (ax, ay, az), (bx, by, bz) = first, second
    return np.stack((ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx))


def face_normals(vertices: NDArray[Any], faces: NDArray[Any]) -> NDArray[Any]:
    """Normals (3, F) of faces (F, 3), as long as twice their area, of vertices (V, 3)."""
    axes = vertices.T
    first, second, third = (axes.take(corner, axis=1) for corner in faces.T)
    return cross(second - first, third - first)


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> Float64:
    """Unit normals (V, 3), faces weighted by area; zero where a vertex has no face."""
    if (loops := compiled_loops("normals")) is not None:
        places, corners = np.ascontiguousarray(vertices, np.float64), np.ascontiguousarray(faces, np.int32)
        found: Float64 = loops.vertex_normals(places, corners)
        return found
    total = np.zeros((len(vertices), 3))
    for axis, area in enumerate(face_normals(np.asarray(vertices, np.float64), faces)):
        for corner in np.asarray(faces, np.int64).T:
            total[:, axis] += np.bincount(corner, area, minlength=len(vertices))
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-30)
