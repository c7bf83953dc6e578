"""Rotations and axis-angle vectors, many at a time: twins of :mod:`nr_tracking.deformation.rotations`."""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import compiled
from nr_tracking.types import Float64


@compiled
def of_vectors(vectors: Float64) -> Float64:
    """Rotations (N, 3, 3) by ``|v|`` radians about ``v``, for ``vectors`` (N, 3)."""
    rotations = np.empty((len(vectors), 3, 3))
    for n in range(len(vectors)):
        x, y, z = vectors[n, 0], vectors[n, 1], vectors[n, 2]
        squared = x * x + y * y + z * z
        angle = np.sqrt(squared)
        sine, half = 1.0, 1.0
        if angle != 0:
            sine, half = np.sin(angle) / angle, np.sin(0.5 * angle) / (0.5 * angle)
        bent = 0.5 * half * half
        for i in range(3):
            for j in range(3):
                rotations[n, i, j] = bent * vectors[n, i] * vectors[n, j]
            rotations[n, i, i] += 1 - bent * squared
        rotations[n, 0, 1] -= sine * z
        rotations[n, 0, 2] += sine * y
        rotations[n, 1, 2] -= sine * x
        rotations[n, 1, 0] += sine * z
        rotations[n, 2, 0] -= sine * y
        rotations[n, 2, 1] += sine * x
    return rotations


@compiled
def to_vectors(rotations: Float64) -> Float64:
    """Axis-angle vectors (N, 3) of ``rotations`` (N, 3, 3); angles below pi."""
    vectors = np.empty((len(rotations), 3))
    for n in range(len(rotations)):
        x = 0.5 * (rotations[n, 2, 1] - rotations[n, 1, 2])
        y = 0.5 * (rotations[n, 0, 2] - rotations[n, 2, 0])
        z = 0.5 * (rotations[n, 1, 0] - rotations[n, 0, 1])
        cosine = 0.5 * (rotations[n, 0, 0] + rotations[n, 1, 1] + rotations[n, 2, 2] - 1)
        sine = np.sqrt(x * x + y * y + z * z)
        scale = np.arctan2(sine, cosine) / sine if sine > 1e-12 else 1.0
        vectors[n, 0], vectors[n, 1], vectors[n, 2] = scale * x, scale * y, scale * z
    return vectors
