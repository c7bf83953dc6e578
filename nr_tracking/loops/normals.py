"""Normals of a triangle mesh, face by face: the twin of :mod:`nr_tracking.normals`."""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import compiled
from nr_tracking.types import Float64, Int32


@compiled
def vertex_normals(vertices: Float64, faces: Int32) -> Float64:
    """Unit normals (V, 3) of ``vertices`` (V, 3), ``faces`` (F, 3) weighted by area; zero where there is no face."""
    across, total, partial = np.empty((len(faces), 3)), np.zeros((len(vertices), 3)), np.empty((len(vertices), 3))
    for f in range(len(faces)):
        i, j, k = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, ay, az = vertices[j, 0] - vertices[i, 0], vertices[j, 1] - vertices[i, 1], vertices[j, 2] - vertices[i, 2]
        bx, by, bz = vertices[k, 0] - vertices[i, 0], vertices[k, 1] - vertices[i, 1], vertices[k, 2] - vertices[i, 2]
        across[f, 0], across[f, 1], across[f, 2] = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    # In the order in which the twin sums, so that not a bit differs: bodies that were made are made again.
    for corner in range(3):
        partial[:] = 0
        for f in range(len(faces)):
            v = faces[f, corner]
            for axis in range(3):
                partial[v, axis] += across[f, axis]
        for v in range(len(vertices)):
            for axis in range(3):
                total[v, axis] += partial[v, axis]
    for v in range(len(vertices)):
        x, y, z = total[v, 0], total[v, 1], total[v, 2]
        length = max(np.sqrt(x * x + y * y + z * z), 1e-30)
        for axis in range(3):
            total[v, axis] /= length
    return total
