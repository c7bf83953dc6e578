"""Distances along rays, point by point: the twins of :mod:`nr_tracking.fields.rays` and ``ray_window`` in PyTorch.

``rays`` tell of a :class:`~nr_tracking.fields.rays.RayField`: its ``distances`` (N, P, P, D) at ``depths``
(D,), ``before`` and ``scale`` of the table of its depths, ``front`` (N, P, P), ``view`` (N, 3) and ``place`` (N, 4),
and how ``far`` a front is where there is none: its ray says ``elsewhere``.
"""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import clamped, compiled, inlined
from nr_tracking.types import Float32, Int32, Int64


@compiled
def distances_at(points: Float32, frame: Int64, nearest: bool, rays: tuple) -> Float32:
    """Signed distance (Q,) at ``points`` (Q, 3) of ``frame`` (Q,), from four rays or the ``nearest`` alone."""
    distances, depths, before, scale, front, view, place, far, elsewhere = rays
    known = (distances.reshape(-1), depths, before, scale, front.reshape(-1), front.shape[1], far, elsewhere)
    result = np.empty(len(points), np.float32)
    for q in range(len(points)):
        x, y, z = points[q, 0], points[q, 1], points[q, 2]
        result[q] = _distance(x, y, z, frame[q], nearest, view, place, known)
    return result


@compiled
def distances_at_children(coords: Int32, resolution: int, rays: tuple) -> Float32:
    """Signed distance (M, 8) at the centres of the children of voxels ``coords`` (M, 4), from the nearest ray.

    A voxel is [frame, x, y, z] of a grid of ``resolution``; its children are in the order of their octants.
    """
    distances, depths, before, scale, front, view, place, far, elsewhere = rays
    known = (distances.reshape(-1), depths, before, scale, front.reshape(-1), front.shape[1], far, elsewhere)
    result = np.empty((len(coords), 8), np.float32)
    for m in range(len(coords)):
        frame = coords[m, 0]
        for octant in range(8):
            x = _centre(2 * coords[m, 1] + (octant >> 2), 2 * resolution)
            y = _centre(2 * coords[m, 2] + ((octant >> 1) & 1), 2 * resolution)
            z = _centre(2 * coords[m, 3] + (octant & 1), 2 * resolution)
            result[m, octant] = _distance(x, y, z, frame, True, view, place, known)
    return result


@compiled
def grid_of(frame: int, resolution: int, band: float, rays: tuple) -> Float32:
    """Signed distance (R, R, R) of one frame at all voxel centres, for an even ``resolution`` R.

    From four rays within ``band`` of the surface; elsewhere interpolated between every second voxel's, to half a pixel.
    """
    distances, depths, before, scale, front, view, place, far, elsewhere = rays
    known = (distances.reshape(-1), depths, before, scale, front.reshape(-1), front.shape[1], far, elsewhere)
    half = resolution // 2
    coarse = np.empty((half, half, half), np.float32)
    for i in range(half):
        for j in range(half):
            for k in range(half):
                x, y, z = _centre(i, half), _centre(j, half), _centre(k, half)
                coarse[i, j, k] = _distance(x, y, z, frame, True, view, place, known)
    grid = np.empty((resolution, resolution, resolution), np.float32)
    row = np.empty((resolution, half), np.float32)
    near, other = np.float32(0.75), np.float32(0.25)
    for i in range(resolution):
        a, b = i >> 1, min(max((i >> 1) + 2 * (i & 1) - 1, 0), half - 1)
        for j in range(resolution):
            c, d = j >> 1, min(max((j >> 1) + 2 * (j & 1) - 1, 0), half - 1)
            for k in range(half):
                here = near * coarse[a, c, k] + other * coarse[a, d, k]
                row[j, k] = near * here + other * (near * coarse[b, c, k] + other * coarse[b, d, k])
        for j in range(resolution):
            for k in range(resolution):
                beside = min(max((k >> 1) + 2 * (k & 1) - 1, 0), half - 1)
                value = near * row[j, k >> 1] + other * row[j, beside]
                if abs(value) < band:
                    x, y, z = _centre(i, resolution), _centre(j, resolution), _centre(k, resolution)
                    value = _distance(x, y, z, frame, False, view, place, known)
                grid[i, j, k] = value
    return grid


@compiled
def _centre(voxel: int, resolution: int) -> np.float32:
    """A box coordinate of the centre of a voxel."""
    return (np.float32(voxel) + np.float32(0.5)) / np.float32(resolution) - np.float32(0.5)


@inlined
def _distance(
    px: np.float32,
    py: np.float32,
    pz: np.float32,
    frame: int,
    nearest: bool,
    view: Float32,
    place: Float32,
    known: tuple,
) -> np.float32:
    """Signed distance at one point of a frame."""
    flat, depths, before, scale, fronts, side, far, elsewhere = known
    one, half, least = np.float32(1), np.float32(0.5), np.float32(0.05)
    last, border = len(depths) - 2, np.float32(side - 1)
    own = place[frame, 3]
    z = (pz - place[frame, 2]) / own
    nearer = max(one + view[frame, 2] * z, least)
    x = ((px - place[frame, 0]) / own - view[frame, 0] * z) / nearer
    y = ((py - place[frame, 1]) / own - view[frame, 1] * z) / nearer
    beside = (max(abs(x), abs(y)) - half) * nearer
    column = clamped((x + half) * side - half, np.float32(0), border)
    row = clamped((y + half) * side - half, np.float32(0), border)
    if nearest:
        i, j, rays = int(np.rint(row)), int(np.rint(column)), 1
        down = right = np.float32(0)
    else:
        i, j, rays = min(int(row), side - 2), min(int(column), side - 2), 4
        down, right = row - np.float32(i), column - np.float32(j)
    value = np.float32(0)
    for k in range(rays):
        b, a = k >> 1, k & 1
        weight = (down if b else one - down) * (right if a else one - right)
        ray = (frame * side + i + b) * side + j + a
        along = np.float32(elsewhere)
        if fronts[ray] < far:
            behind = clamped(z - fronts[ray], depths[0], depths[last + 1])
            step = before[int((behind - depths[0]) * scale)]
            if step < last and behind >= depths[step + 1]:
                step += 1
            onward = (behind - depths[step]) / (depths[step + 1] - depths[step])
            at = ray * len(depths) + step
            along = flat[at] + onward * (flat[at + 1] - flat[at])
        value += weight * along
    return own * (max(value, beside) if beside > 0 else value)
