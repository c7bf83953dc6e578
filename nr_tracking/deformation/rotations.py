"""Rotations: the 6-D representation for networks, axis-angle for the solver, the nearest rotation for fits.

* :func:`rotation_from_6d` (torch) is continuous, so a network can learn it (Zhou et al., "On the Continuity of Rotation
  Representations in Neural Networks", CVPR 2019).
* :func:`rotation_from_vector` and :func:`vector_from_rotation` (numpy) are the exponential map and its inverse.
* :func:`nearest_rotation` and :func:`fit_rigid` (numpy) solve the orthogonal Procrustes problem (Kabsch 1976).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from nr_tracking.loops import compiled_loops
from nr_tracking.types import Float64


def rotation_from_6d(parameters: Tensor) -> Tensor:
    """Turn (..., 6) numbers, the first two columns before orthonormalisation, into rotations (..., 3, 3)."""
    first, second = parameters[..., :3], parameters[..., 3:]
    x = torch.nn.functional.normalize(first, dim=-1)
    y = torch.nn.functional.normalize(second - (x * second).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack((x, y, torch.linalg.cross(x, y)), dim=-1)


def skew(vectors: Float64) -> Float64:
    """Cross-product matrices (..., 3, 3) of vectors (..., 3): ``skew(a) @ b == cross(a, b)``."""
    result = np.zeros((*vectors.shape[:-1], 3, 3), vectors.dtype)
    x, y, z = np.moveaxis(vectors, -1, 0)
    result[..., 0, 1], result[..., 0, 2], result[..., 1, 2] = -z, y, -x
    result[..., 1, 0], result[..., 2, 0], result[..., 2, 1] = z, -y, x
    return result


def rotation_from_vector(vectors: Float64) -> Float64:
    """Rotations (..., 3, 3) by ``|v|`` radians about ``v``, for axis-angle vectors (..., 3) (Rodrigues)."""
    if vectors.ndim == 2 and (loops := compiled_loops("rotations")) is not None:
        rotations: Float64 = loops.of_vectors(np.ascontiguousarray(vectors, np.float64))
        return rotations
    angle = np.linalg.norm(vectors, axis=-1)[..., None, None]
    cross = skew(np.asarray(vectors, np.float64))
    # np.sinc(x) is sin(pi x) / (pi x): exact at zero, so small angles need no branch.
    sine = np.sinc(angle / np.pi)
    half = np.sinc(angle / (2 * np.pi))
    return np.eye(3) + sine * cross + 0.5 * half**2 * (cross @ cross)


def vector_from_rotation(rotations: Float64) -> Float64:
    """Axis-angle vectors (..., 3) of rotations (..., 3, 3); angles below pi."""
    if rotations.ndim == 3 and (loops := compiled_loops("rotations")) is not None:
        vectors: Float64 = loops.to_vectors(np.ascontiguousarray(rotations, np.float64))
        return vectors
    axial = 0.5 * np.stack(
        (
            rotations[..., 2, 1] - rotations[..., 1, 2],
            rotations[..., 0, 2] - rotations[..., 2, 0],
            rotations[..., 1, 0] - rotations[..., 0, 1],
        ),
        axis=-1,
    )
    cosine = 0.5 * (np.trace(rotations, axis1=-2, axis2=-1) - 1.0)
    sine = np.linalg.norm(axial, axis=-1)
    angle = np.arctan2(sine, cosine)
    return axial * np.where(sine > 1e-12, angle / np.maximum(sine, 1e-12), 1.0)[..., None]


def nearest_rotation(matrices: Float64) -> Float64:
    """The rotations (..., 3, 3) nearest to matrices (..., 3, 3) in the Frobenius norm; never a reflection."""
    left, _, right = np.linalg.svd(matrices)
    sign = np.ones(matrices.shape[:-1])
    sign[..., 2] = np.sign(np.linalg.det(left @ right))
    return (left * sign[..., None, :]) @ right


def fit_rigid(
    before: Float64, after: Float64, group: np.ndarray, count: int, pivots: Float64
) -> tuple[Float64, Float64]:
    """Fit one rigid motion ``x -> R_k (x - pivot_k) + t_k`` to each group of moved points, by least squares.

    ``before`` and ``after`` (V, 3), ``group`` (V,) in [0, count), ``pivots`` (count, 3). Returns R (count, 3, 3) and
    t (count, 3); a group of collinear points keeps some rotation that fits, an empty one does not move.
    """
    if (loops := compiled_loops("rigid")) is not None:
        start, goal, about = (np.ascontiguousarray(values, np.float64) for values in (before, after, pivots))
        fitted: tuple[Float64, Float64] = loops.fit_rigid(
            start, goal, np.ascontiguousarray(group, np.int32), count, about
        )
        return fitted
    members = np.maximum(np.bincount(group, minlength=count), 1)[:, None]
    mean_before = _sum_by(group, before, count) / members
    mean_after = _sum_by(group, after, count) / members
    products = (after - mean_after[group])[:, :, None] * (before - mean_before[group])[:, None, :]
    spread = _sum_by(group, products.reshape(-1, 9), count).reshape(count, 3, 3)
    # A vanishing pull towards the identity settles what the points leave open.
    scale = np.linalg.norm(spread, axis=(1, 2))
    rotations = nearest_rotation(spread + (1e-6 * scale + 1e-30)[:, None, None] * np.eye(3))
    empty = np.bincount(group, minlength=count) == 0
    mean_before[empty] = mean_after[empty] = pivots[empty]
    translations = mean_after + np.einsum("kij,kj->ki", rotations, pivots - mean_before)
    return rotations, translations


def _sum_by(group: np.ndarray, values: Float64, count: int) -> Float64:
    """Sum rows of ``values`` (V, D) that share a group into (count, D)."""
    return np.stack([np.bincount(group, column, minlength=count) for column in values.T], axis=1)


def straightened(rotations: Float64) -> Float64:
    """Rotations (..., 3, 3) of which rounding has made something else, by less than a thousandth: one Newton step back.

    Products of inverses taken as transposes treble such an error each time.
    """
    return 1.5 * rotations - 0.5 * rotations @ (np.swapaxes(rotations, -1, -2) @ rotations)
