"""A room around the subject: a floor under it, a wall behind it, and boxes that stand about."""

from __future__ import annotations

import numpy as np

from nr_tracking.data.rendering import render_depth
from nr_tracking.data.skeleton import rotation_between, rotations
from nr_tracking.types import Float32, Intrinsics

FARTHEST_RETURN_M = 10.0
_QUADS = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
_BOX = np.concatenate([_QUADS[:, :3], _QUADS[:, [0, 2, 3]]])


def furnished(
    depth: Float32, surface: np.ndarray, up: np.ndarray, intrinsics: Intrinsics, rng: np.random.Generator
) -> Float32:
    """Put a random room behind the subject of clean images (N, H, W); it stands still.

    ``surface`` (N, V, 3) are the subject's vertices in the camera optical frame, ``up`` (3,) points against gravity.
    The floor touches the lowest of them; boxes of a tenth to half of the subject's size stand 0.4 to 1.5 of its size
    from where it moves, behind it or beside it. Nothing comes before the subject, as long as the camera is above the
    floor.
    """
    points = surface.reshape(-1, 3).astype(np.float64)
    size = float(np.ptp(points, axis=0).max())
    turn = rotation_between(np.array([[0.0, 1, 0]]), up[None].astype(np.float64) / np.linalg.norm(up))[0]
    upright = points @ turn  # y up
    low, high = upright.min(0), upright.max(0)
    # Where the camera's view falls on the floor: away from the camera is behind.
    away = np.array([0.0, 0, 1]) @ turn * [1, 0, 1]
    away /= max(float(np.linalg.norm(away)), 1e-9)
    middle, reach = (low + high) / 2, float(np.linalg.norm((high - low)[[0, 2]])) / 2
    corners = np.indices((2, 2, 2)).reshape(3, 8).T - 0.5
    boxes = [corners * [40, 0.01, 40] + [middle[0], low[1] - 0.005, middle[2]]]
    wall = corners * [40, 20, 0.01] @ rotations(np.array([0, np.arctan2(away[0], away[2]), 0])).T
    boxes.append(wall + middle + away * (reach + size * rng.uniform(0.3, 1.5)))
    for _ in range(rng.integers(1, 5)):
        edges = size * rng.uniform(0.1, 0.5, 3)
        angle = rng.uniform(-0.6, 0.6) * np.pi  # 0: straight behind
        way = rotations(np.array([0, angle, 0])) @ away
        distance = reach + np.linalg.norm(edges[[0, 2]]) / 2 + size * rng.uniform(0.4, 1.5)
        foot = [middle[0], low[1] + edges[1] / 2, middle[2]] + way * distance
        boxes.append(corners * edges @ rotations(np.array([0, rng.uniform(0, np.pi), 0])).T + foot)
    vertices = np.concatenate(boxes) @ turn.T
    faces = np.concatenate([_BOX + 8 * number for number in range(len(boxes))])
    room = render_depth(vertices, faces, intrinsics)
    room = np.where(room < FARTHEST_RETURN_M, room, 0)
    return np.where(depth > 0, depth, room).astype(np.float32)
