"""Signed distance to meshes that may be open or cut through themselves.

The distance is to the nearest point of the mesh; the sign comes from the generalised winding number (Jacobson et al.
2013, evaluated by the hierarchy of Barill et al. 2018): a point is inside where it exceeds one half.
"""

from __future__ import annotations

import numpy as np

INSIDE = 0.5
"""A larger winding number is inside."""


def winding_number(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Generalised winding number (Q,) of ``points`` (Q, 3): 1 inside a closed outward mesh, 0 outside."""
    import igl

    values = igl.fast_winding_number(_double(vertices), _int(faces), _double(points))
    return np.asarray(values, np.float64).reshape(-1)


def nearest_point(
    points: np.ndarray, vertices: np.ndarray, faces: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance (Q,), face (Q,) and place (Q, 3) of the nearest surface point to each of ``points`` (Q, 3)."""
    import igl

    square, face, place = igl.point_mesh_squared_distance(_double(points), _double(vertices), _int(faces))
    distance = np.sqrt(np.maximum(np.asarray(square).reshape(-1), 0))
    return distance, np.asarray(face).reshape(-1).astype(np.int64), np.asarray(place).reshape(-1, 3)


def signed_distance(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Signed distance (Q,) float32, negative inside, of ``points`` (Q, 3) to the mesh (V, 3), (F, 3)."""
    distance = nearest_point(points, vertices, faces)[0]
    inside = winding_number(points, vertices, faces) > INSIDE
    return np.where(inside, -distance, distance).astype(np.float32)


def _double(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.float64)


def _int(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.int64)
