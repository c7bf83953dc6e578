"""How good a surface is, as the field measures it.

The definitions are those of Occupancy Flow (Niemeyer et al. 2019, ``im2mesh/eval.py``) that the later work on
deforming surfaces keeps: IoU on uniform points and Chamfer distance on surface samples; normal consistency is that of
Occupancy Networks (Mescheder et al. 2019), the F-score that of Tatarchenko et al. (2019). Lengths are in the unit of
the input; the protocol makes the longest edge of the first frame's box 1.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
from scipy.spatial import cKDTree

from nr_tracking.data.clips import face_normals, interpolate, sample_surface
from nr_tracking.deformation.matching import space_order
from nr_tracking.types import Bool, Float32, Float64, InputError, Int32

CUBE_SIDE = 1.1
"""Side of the cube of IoU points over the longest edge of the true surface's box."""

F_SCORE_DISTANCE = 0.01
"""Distance within which a sample counts as right for the F-score, 1 % of the first longest edge."""


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh: ``vertices`` (V, 3), ``faces`` (F, 3)."""

    vertices: Float32 | Float64
    faces: Int32


@dataclass(frozen=True)
class SurfaceScores:
    """Scores of one surface against the true one.

    ``iou`` in [0, 1]; ``chamfer_l1`` = (accuracy + completeness) / 2, the CD of the tables; ``chamfer_squared`` = the
    sum of the mean squared distances; ``normal_consistency`` in [0, 1]; ``f_score`` at a distance of 0.01.
    """

    iou: float
    chamfer_l1: float
    chamfer_squared: float
    accuracy: float
    completeness: float
    normal_consistency: float
    f_score: float

    def as_dict(self) -> dict[str, float]:
        """The scores by name."""
        return asdict(self)


@dataclass(frozen=True)
class Samples:
    """Points on a surface, evenly by area, with the normals of their faces: both (N, 3) float64."""

    points: Float64
    normals: Float64

    @cached_property
    def tree(self) -> cKDTree:
        """A search tree over the points."""
        return cKDTree(self.points)


def score_surface(
    predicted: Mesh, true: Mesh, count: int, rng: np.random.Generator, true_samples: Samples | None = None
) -> SurfaceScores:
    """Score ``predicted`` with ``count`` uniform points (IoU) and ``count`` samples on each surface (the rest).

    ``true_samples``: those on the true surface, where they are there already.
    """
    iou = intersection_over_union(predicted, true, cube_points(true.vertices[np.unique(true.faces)], count, rng))
    theirs = true_samples or sample(true, count, rng)
    return SurfaceScores(iou=iou, **compare_samples(sample(predicted, count, rng), theirs))


def cube_points(vertices: Float32 | Float64, count: int, rng: np.random.Generator) -> Float64:
    """Uniform points (count, 3) in the cube of side 1.1 around a surface's box, whose longest edge counts as 1."""
    lower, upper = vertices.min(axis=0).astype(np.float64), vertices.max(axis=0).astype(np.float64)
    side = CUBE_SIDE * (upper - lower).max()
    return (lower + upper) / 2 + side * (rng.random((count, 3)) - 0.5)


def intersection_over_union(first: Mesh, second: Mesh, points: Float64) -> float:
    """IoU of the volumes within two meshes, counted on ``points`` (N, 3); 1 when both hold none of them."""
    a, b = contains(first, points), contains(second, points)
    union = np.count_nonzero(a | b)
    return float(np.count_nonzero(a & b) / union) if union else 1.0


def contains(mesh: Mesh, points: Float64) -> Bool:
    """Which of ``points`` (N, 3) lie within a mesh, by generalised winding number (Jacobson et al. 2013): (N,) bool."""
    import igl

    inside = np.zeros(len(points), np.bool_)
    if not len(mesh.faces):
        return inside
    lower, upper = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    near = np.flatnonzero(np.all((points >= lower) & (points <= upper), axis=1))
    if len(near):
        vertices, faces = mesh.vertices.astype(np.float64), mesh.faces.astype(np.int64)
        inside[near] = np.asarray(igl.fast_winding_number(vertices, faces, points[near])).ravel() > 0.5
    return inside


def sample(mesh: Mesh, count: int, rng: np.random.Generator) -> Samples:
    """``count`` points on a mesh, evenly by area; :class:`InputError` where it has no area."""
    vertices = mesh.vertices.astype(np.float64)
    normals = face_normals(vertices, mesh.faces)
    if not len(mesh.faces) or not np.any(normals):
        raise InputError("no_surface", f"a mesh of {len(mesh.vertices)} vertices, {len(mesh.faces)} faces has no area")
    face, weights = sample_surface(vertices, mesh.faces, count, rng)
    points = interpolate(vertices, mesh.faces, face, weights)
    order = space_order(points)  # neighbours lie close in memory, which halves the time of a search tree
    return Samples(points[order], normals[face[order]])


def compare_samples(predicted: Samples, true: Samples) -> dict[str, float]:
    """Chamfer distances, normal consistency and F-score of two sets of samples; the names of `SurfaceScores`."""
    to_true, nearest_true = true.tree.query(predicted.points, workers=-1)
    to_predicted, nearest_predicted = predicted.tree.query(true.points, workers=-1)
    agreement = [
        np.abs(np.einsum("ij,ij->i", predicted.normals, true.normals[nearest_true])).mean(),
        np.abs(np.einsum("ij,ij->i", true.normals, predicted.normals[nearest_predicted])).mean(),
    ]
    precision, recall = (to_true < F_SCORE_DISTANCE).mean(), (to_predicted < F_SCORE_DISTANCE).mean()
    return {
        "chamfer_l1": float(to_true.mean() + to_predicted.mean()) / 2,
        "chamfer_squared": float((to_true**2).mean() + (to_predicted**2).mean()),
        "accuracy": float(to_true.mean()),
        "completeness": float(to_predicted.mean()),
        "normal_consistency": float(np.mean(agreement)),
        "f_score": float(2 * precision * recall / max(precision + recall, 1e-12)),
    }
