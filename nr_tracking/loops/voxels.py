"""Voxels that a depth image tells of, ray by ray: the twin of :mod:`nr_tracking.sensing.tsdf`.

Of each of R planes of voxels, ``columns`` and ``rows`` (R, R) are those of the image (H, W) that the voxels fall on, -1
or the image's size beside it, and ``z`` (R,) its depth in metres. The first voxel and the number of voxels on each
pixel of a plane are ``x_first`` and ``x_count`` (W, R), ``y_first`` and ``y_count`` (H, R), int16.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nr_tracking.loops.compiler import clamped, compiled
from nr_tracking.types import Bool, Float32, Int32, Int64

Int16 = NDArray[np.int16]
Voxels = tuple[Int32, Float32]


@compiled
def near_surface(
    depth: Float32,
    mask: Bool,
    x_first: Int16,
    x_count: Int16,
    y_first: Int16,
    y_count: Int16,
    z: Float32,
    z_first: float,
    voxel: float,
    truncation: float,
) -> Voxels:
    """Voxels (M, 3) within ``truncation`` metres of ``depth`` (H, W) along the rays of the ``mask`` (H, W).

    Sorted by x, y and z, with their signed distance (M,) over the truncation. ``voxel`` is a voxel's side in metres,
    ``z_first`` the depth of the first plane.
    """
    height, width = depth.shape
    resolution, band = len(z), np.float32(truncation)
    room = 1 << 16
    lines, planes, values = np.empty(room, np.int32), np.empty(room, np.int16), np.empty(room, np.float32)
    starts = np.zeros(resolution * resolution + 1, np.int64)
    found = 0
    for row in range(height):
        for column in range(width):
            measured = depth[row, column]
            if not (mask[row, column] and measured > 0):
                continue
            nearest = (measured - band - np.float32(z_first)) / np.float32(voxel)
            first = int(clamped(np.floor(nearest), np.float32(0), np.float32(resolution)))
            for plane in range(first, resolution):
                distance = measured - z[plane]
                if not abs(distance) < band:
                    if distance < 0:
                        break
                    continue
                down, across = int(y_count[row, plane]), int(x_count[column, plane])
                if down == 0 or across == 0:
                    continue
                if found + down * across > room:
                    room = 2 * (found + down * across)
                    lines, planes, values = _longer(lines, planes, values, found, room)
                for x in range(across):
                    for y in range(down):
                        line = (x_first[column, plane] + x) * resolution + y_first[row, plane] + y
                        lines[found], planes[found], values[found] = line, plane, distance / band
                        starts[line + 1] += 1
                        found += 1
    for line in range(resolution * resolution):
        starts[line + 1] += starts[line]
    return _sorted(lines, planes, values, found, starts, resolution)


@compiled
def seen_cells(depth: Float32, columns: Int64, rows: Int64, z: Float32) -> Float32:
    """Shares (2, R / 2, R / 2, R / 2) of eight voxels each that lie before ``depth`` (H, W), and that returned nothing.

    In an order [x, y, z].
    """
    (height, width), cells = depth.shape, len(z) // 2
    shares = np.zeros((2, cells, cells, cells), np.float32)
    eighth = np.float32(0.125)
    for plane in range(2 * cells):
        for i in range(2 * cells):
            column = columns[plane, i]
            in_column = column >= 0 and column < width
            for j in range(2 * cells):
                row = rows[plane, j]
                measured = np.float32(0)
                if in_column and row >= 0 and row < height:
                    measured = depth[row, column]
                if not measured > 0:
                    shares[1, i >> 1, j >> 1, plane >> 1] += eighth
                elif measured > z[plane] and z[plane] > 0:
                    shares[0, i >> 1, j >> 1, plane >> 1] += eighth
    return shares


@compiled
def _longer(lines: Int32, planes: Int16, values: Float32, found: int, room: int) -> tuple[Int32, Int16, Float32]:
    """The same of which ``found`` are used, with ``room`` for more."""
    more_lines, more_planes = np.empty(room, np.int32), np.empty(room, np.int16)
    more_values = np.empty(room, np.float32)
    more_lines[:found], more_planes[:found], more_values[:found] = lines[:found], planes[:found], values[:found]
    return more_lines, more_planes, more_values


@compiled
def _sorted(lines: Int32, planes: Int16, values: Float32, found: int, starts: Int64, resolution: int) -> Voxels:
    """Voxels by lines (N,), which begin at ``starts``, and along these by planes (N,); nearly in order."""
    ends = starts.copy()
    coords, result = np.empty((found, 3), np.int32), np.empty(found, np.float32)
    for n in range(found):
        line, plane = lines[n], planes[n]
        at = ends[line]
        while at > starts[line] and coords[at - 1, 2] > plane:
            coords[at, 2], result[at] = coords[at - 1, 2], result[at - 1]
            at -= 1
        coords[at, 2], result[at] = plane, values[n]
        ends[line] += 1
    for line in range(resolution * resolution):
        for at in range(starts[line], starts[line + 1]):
            coords[at, 0], coords[at, 1] = line // resolution, line % resolution
    return coords, result
