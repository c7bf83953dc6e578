"""Surfaces from one depth image without a network: what a user would otherwise reach for.

``observed_surface`` is the depth image as a sheet of triangles: exact, and open behind. ``inflated_surface`` closes it
by giving every part the depth that it would have if it were round. ``poisson_surface`` fits an indicator function to
the points and their normals (Kazhdan 2005, "Reconstruction of solid models from oriented point sets": the spectral
solution of what screened Poisson reconstruction solves on an octree), which closes the sheet smoothly.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import fft, sparse
from scipy.ndimage import gaussian_filter
from scipy.sparse.linalg import spsolve
from skimage.measure import marching_cubes

from nr_tracking.evaluation.metrics import Mesh
from nr_tracking.normals import vertex_normals
from nr_tracking.sensing.camera import back_project
from nr_tracking.types import Bool, Float32, Float64, InputError, Int64, Intrinsics

Completion = Callable[[Float32, Bool, Intrinsics], Mesh]
"""Depth (H, W) metres, the subject's pixels (H, W) and the camera -> a surface, metres, camera optical frame."""

_VERTICES = 20_000  # of a sheet, about: pixels are thinned to so many
_STEEPEST = 4.0  # metres of depth over metres across, from one pixel to the next: beyond it there is a gap
_POISSON_CELLS = 96
_POISSON_SMOOTHING = 1.2  # cells


def observed_surface(depth: Float32, subject: Bool, intrinsics: Intrinsics) -> Mesh:
    """The depth image as a sheet of triangles, torn where depth jumps. It faces the camera and has no back."""
    points, faces, _, _ = _sheet(depth, subject, intrinsics)
    return Mesh(points, faces.astype(np.int32))


def inflated_surface(depth: Float32, subject: Bool, intrinsics: Intrinsics) -> Mesh:
    """The observed sheet with a back, as deep at each place as if its part were round; closed.

    Where ``u`` solves laplace(u) = -2 on the sheet with u = 0 at its rims, a strip of width 2 r has u = r^2 - x^2, so
    sqrt(u) is half the depth of a cylinder that casts this silhouette.
    """
    points, faces, numbers, step = _sheet(depth, subject, intrinsics)
    half = np.sqrt(np.maximum(_membrane(numbers, faces, len(points)), 0)) * step * points[:, 2] / intrinsics.fx
    # Along the rays, so that the back stays within the silhouette.
    back = points * (1 + 2 * half / points[:, 2])[:, None]
    rims = _rims(faces)
    count = len(points)
    walls = np.concatenate(
        [
            np.stack([rims[:, 1], rims[:, 0], rims[:, 0] + count], axis=1),
            np.stack([rims[:, 1], rims[:, 0] + count, rims[:, 1] + count], axis=1),
        ]
    )
    closed = np.concatenate([faces, faces[:, ::-1] + count, walls])
    return Mesh(np.concatenate([points, back]).astype(np.float32), closed.astype(np.int32))


def poisson_surface(depth: Float32, subject: Bool, intrinsics: Intrinsics) -> Mesh:
    """The level set of an indicator function whose gradient is that of the observed, oriented points."""
    points, faces, _, _ = _sheet(depth, subject, intrinsics)
    used = np.unique(faces)
    normals = vertex_normals(points, faces)[used]
    points = points[used].astype(np.float64)
    extent = np.ptp(points, axis=0)
    # The grid repeats itself; the room around the subject keeps its images apart.
    cell = 1.6 * max(extent.max(), 1e-6) / _POISSON_CELLS
    middle = (points.min(axis=0) + points.max(axis=0)) / 2 + np.array([0, 0, 0.15 * extent.max()])
    place = (points - middle) / cell + _POISSON_CELLS / 2
    # Each point stands for its share of the surface, which grows with the square of its depth and with its slant.
    slant = np.abs(np.einsum("ij,ij->i", normals, points)) / np.linalg.norm(points, axis=1)
    area = points[:, 2] ** 2 / np.maximum(slant, 0.2)
    indicator = _indicator(place, -normals * area[:, None])
    level = float(_read(indicator, place).mean())
    vertices, triangles, _, _ = marching_cubes(indicator, level)
    vertices = (vertices - _POISSON_CELLS / 2) * cell + middle
    # Marching cubes turns faces towards falling values: outwards, as the indicator is high inside.
    return Mesh(vertices.astype(np.float32), triangles[:, ::-1].astype(np.int32))


def _sheet(depth: Float32, subject: Bool, intrinsics: Intrinsics) -> tuple[Float32, Int64, Int64, int]:
    """Points (V, 3), faces (F, 3), the point of each thinned pixel (h, w), -1 without, and the thinning step."""
    step = max(1, round(float(np.sqrt(np.count_nonzero(subject) / _VERTICES))))
    valid = (subject & (depth > 0))[::step, ::step]
    cloud = back_project(depth, intrinsics)[::step, ::step]
    numbers = np.where(valid, np.cumsum(valid).reshape(valid.shape) - 1, -1)
    points = cloud[valid]
    corners = [numbers[:-1, :-1], numbers[1:, :-1], numbers[1:, 1:], numbers[:-1, 1:]]
    faces = np.concatenate(
        [np.stack([corners[i] for i in triangle], axis=-1).reshape(-1, 3) for triangle in ((0, 1, 2), (0, 2, 3))]
    )
    faces = faces[(faces >= 0).all(axis=1)]
    z = points[:, 2][faces]
    faces = faces[np.ptp(z, axis=1) < _STEEPEST * step * z.mean(axis=1) / intrinsics.fx]
    if not len(faces):
        raise InputError("no_surface", f"{len(points)} pixels of the subject do not make a triangle")
    return points, faces, numbers, step


def _membrane(numbers: Int64, faces: Int64, count: int) -> Float64:
    """Solve laplace(u) = -2 over pixels (V,), joined where a triangle joins them; u = 0 beyond the rims."""
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    joined = np.unique(edges[:, 0] * count + edges[:, 1])
    sides = [(numbers[:, :-1], numbers[:, 1:]), (numbers[:-1], numbers[1:])]
    pairs = np.concatenate([np.stack([a.ravel(), b.ravel()], axis=1) for a, b in sides])
    pairs = pairs[(pairs >= 0).all(axis=1)]
    pairs = pairs[np.isin(pairs[:, 0] * count + pairs[:, 1], joined)]
    ones = np.ones(len(pairs))
    links = sparse.coo_matrix((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    system = sparse.identity(count) * 4.0 - links - links.T
    return np.asarray(spsolve(system.tocsc(), np.full(count, 2.0)), np.float64)


def _rims(faces: Int64) -> Int64:
    """Directed edges (E, 2) that only one face uses."""
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    key = directed.max() + 1
    forward, backward = directed[:, 0] * key + directed[:, 1], directed[:, 1] * key + directed[:, 0]
    return directed[~np.isin(forward, backward)]


def _indicator(place: Float64, gradients: Float64) -> Float32:
    """The function on a periodic grid whose gradient is closest to vectors (N, 3) at ``place`` (N, 3), in cells."""
    size = _POISSON_CELLS
    frequency = [2 * np.pi * fft.fftfreq(size), 2 * np.pi * fft.fftfreq(size), 2 * np.pi * fft.rfftfreq(size)]
    waves = np.meshgrid(*frequency, indexing="ij", sparse=True)
    divergence: np.ndarray | float = 0.0
    for axis in range(3):
        field = gaussian_filter(_splat(place, gradients[:, axis]), _POISSON_SMOOTHING, mode="wrap")
        divergence = divergence + 1j * waves[axis] * fft.rfftn(field)
    square = waves[0] ** 2 + waves[1] ** 2 + waves[2] ** 2
    square[0, 0, 0] = 1.0
    return np.asarray(fft.irfftn(-divergence / square, s=(size,) * 3), np.float32)


def _corners(place: Float64) -> list[tuple[Int64, Float64]]:
    """Flat index and weight (N,) of the eight grid points around each place."""
    low = np.floor(place).astype(np.int64)
    share = place - low
    around = []
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, share, 1 - share), axis=1)
        i, j, k = ((low + corner) % _POISSON_CELLS).T
        around.append(((i * _POISSON_CELLS + j) * _POISSON_CELLS + k, weight))
    return around


def _splat(place: Float64, values: Float64) -> Float64:
    total = np.zeros(_POISSON_CELLS**3)
    for index, weight in _corners(place):
        total += np.bincount(index, weight * values, minlength=len(total))
    return total.reshape((_POISSON_CELLS,) * 3)


def _read(grid: Float32, place: Float64) -> Float64:
    return np.asarray(sum(grid.ravel()[index] * weight for index, weight in _corners(place)), np.float64)
