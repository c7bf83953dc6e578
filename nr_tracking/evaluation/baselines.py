"""What doing nothing scores: the figures without which a score says little.

All take the true surfaces: ``static`` says that nothing moves, ``nearest_neighbour_chain`` that a point moves to the
nearest point of the next true surface, and ``chamfer_floor`` is the distance of a surface from itself, which is not
zero because it is measured on samples.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nr_tracking.data.clips import interpolate, sample_surface
from nr_tracking.deformation.matching import space_order
from nr_tracking.evaluation.metrics import Mesh, Samples, compare_samples, sample
from nr_tracking.types import Float32, Float64, Int32


def corresponding_points(vertices: Float32 | Float64, faces: Int32, count: int, rng: np.random.Generator) -> Float64:
    """Points on the surface of frame 0, evenly by area, carried along by their triangles: (T, count, 3)."""
    face, weights = sample_surface(vertices[0], faces, count, rng)
    order = space_order(interpolate(vertices[0].astype(np.float64), faces, face, weights))
    face, weights = face[order], weights[order]
    return np.stack([interpolate(frame.astype(np.float64), faces, face, weights) for frame in vertices])


def static_error(true_points: Float64) -> Float64:
    """Correspondence error (T,) of points that stay where they were in frame 0."""
    return np.linalg.norm(true_points - true_points[:1], axis=-1).mean(axis=1)


def nearest_neighbour_chain_error(true_points: Float64, surfaces: Sequence[Samples]) -> Float64:
    """Correspondence error (T,) of points that hop to the nearest sample of each next true surface.

    ``true_points`` (T, N, 3) as of :func:`corresponding_points`; ``surfaces``: fresh samples of each of the T true
    surfaces, N of them where the figure is to be compared with published ones.
    """
    current = true_points[0]
    errors = [0.0]
    for points, surface in zip(true_points[1:], surfaces[1:], strict=True):
        current = surface.points[surface.tree.query(current, workers=-1)[1]]
        errors.append(float(np.linalg.norm(current - points, axis=-1).mean()))
    return np.array(errors)


def chamfer_floor(samples: Samples, true: Mesh, count: int, rng: np.random.Generator) -> float:
    """CD-L1 of ``samples`` of a surface and ``count`` others of the same: what a perfect result would score."""
    return compare_samples(sample(true, count, rng), samples)["chamfer_l1"]
