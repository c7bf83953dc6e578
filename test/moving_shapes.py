"""Shapes that move by known, invertible maps, so that every point's true path is known on any remeshing of them."""

import numpy as np
from skimage.measure import marching_cubes

from nr_tracking.types import Surface


def grid(cells):
    axis = (np.arange(cells) + 0.5) / cells - 0.5
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)


def capsule_distance(points, start, end, radius):
    start, end = np.asarray(start, float), np.asarray(end, float)
    along = np.clip(((points - start) @ (end - start)) / ((end - start) @ (end - start)), 0, 1)
    return np.linalg.norm(points - start - along[..., None] * (end - start), axis=-1) - radius


def figure_distance(points):
    """A standing figure about 0.75 high: torso, head, two arms, two legs."""
    parts = [
        ((0, -0.05, 0), (0, 0.15, 0), 0.085),
        ((0, 0.15, 0), (0, 0.30, 0), 0.055),
        ((0, 0.15, 0), (0.30, 0.15, 0), 0.04),
        ((0, 0.15, 0), (-0.30, 0.15, 0), 0.04),
        ((0.05, -0.05, 0), (0.11, -0.36, 0), 0.045),
        ((-0.05, -0.05, 0), (-0.11, -0.36, 0), 0.045),
    ]
    return np.min([capsule_distance(points, *part) for part in parts], axis=0)


def rod_distance(points):
    """An upright capsule about 0.7 high."""
    return capsule_distance(points, (0, 0, -0.27), (0, 0, 0.27), 0.08)


def mesh_of(distance, cells=64, warp=None, offset=0.0):
    """Marching cubes of a distance function in the unit box; ``warp`` maps a place back to where it came from."""
    points = grid(cells) + offset / cells
    values = distance(points if warp is None else warp(points))
    vertices, faces, _, _ = marching_cubes(values, 0.0)
    return ((vertices + 0.5 + offset) / cells - 0.5).astype(np.float32), faces.astype(np.int32)


def bend(points, angle):
    """Bend the box about the y axis, so that its height of 1 along z spans ``angle`` radians."""
    if abs(angle) < 1e-9:
        return np.array(points)
    radius = 1.0 / angle
    turn = points[..., 2] * angle
    arm = radius - points[..., 0]
    return np.stack((radius - arm * np.cos(turn), points[..., 1], arm * np.sin(turn)), axis=-1)


def unbend(points, angle):
    """The inverse of :func:`bend`."""
    if abs(angle) < 1e-9:
        return np.array(points)
    radius = 1.0 / angle
    side = np.sign(radius)
    x, z = radius - points[..., 0], points[..., 2]
    arm = side * np.hypot(x, z)
    return np.stack((radius - arm, points[..., 1], np.arctan2(side * z, side * x) / angle), axis=-1)


def rotation(axis, angle):
    axis = np.asarray(axis, float) / np.linalg.norm(axis)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def surface_of(vertices, faces):
    count = len(vertices)
    return Surface(
        np.asarray(vertices, np.float32), np.asarray(faces, np.int32), np.ones(count, np.float32), np.ones(count, bool)
    )
