"""What the camera looked past, pixel by pixel: the twin of :mod:`nr_tracking.sensing.emptiness`.

A cube is given by its ``centre`` (3,) and ``side`` in metres, a camera by ``lens`` (4,): fx, fy, cx, cy. Of an image, a
``view`` [top, bottom, left, right] is looked at, the second and the last left out.
"""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import compiled
from nr_tracking.types import Bool, Float32, Int64


@compiled
def looked_at(
    points: Float32, centre: Float32, side: float, lens: Float32, height: int, width: int
) -> tuple[int, int, int, int]:
    """The view of an image (``height``, ``width``) that points (Q, 3) in box coordinates fall into; empty for none."""
    top, bottom, left, right = height, 0, width, 0
    for q in range(len(points)):
        z = points[q, 2] * np.float32(side) + centre[2]
        row, column = _pixel(points, q, z, centre, np.float32(side), lens, height, width)
        if row >= 0:
            top, bottom = min(top, row), max(bottom, row + 1)
            left, right = min(left, column), max(right, column + 1)
    return top, bottom, left, right


@compiled
def least_depths(depth: Float32, view: Int64, radii: Int64) -> Float32:
    """Least ``depth`` (H, W) of the pixels within each of ``radii`` (K,) around those of a ``view`` (h, w).

    Returns (K, h + 2 R, w + 2 R) for the last radius R, of which the outermost R on each side are of no use. Each
    radius is at most twice the one before, and one more. Beyond the image the depth is 0; but the first radius passes
    over pixels without depth, except where the middle has none.
    """
    border, (height, width) = radii[-1], depth.shape
    high, wide = view[1] - view[0] + 2 * border, view[3] - view[2] + 2 * border
    zero, infinite, size = np.float32(0), np.float32(np.inf), high * wide
    level, rows = np.zeros(size, np.float32), np.zeros(size, np.float32)
    result = np.zeros((len(radii), size), np.float32)
    left, right = max(border - view[2], 0), min(wide, width + border - view[2])
    for i in range(max(border - view[0], 0), min(high, height + border - view[0])):
        inside = depth[view[0] + i - border, view[2] + left - border : view[2] + right - border]
        level[i * wide + left : i * wide + right] = inside
    # Rows follow one another in memory, so that one pass does all of them; where a window runs over the end of its row
    # is within the border.
    narrowest = result[0]
    for k in range(size):
        narrowest[k] = level[k] if level[k] > zero else infinite
    _least_of_three(narrowest, 1, rows)
    _least_of_three(rows, wide, narrowest)
    for k in range(size):
        narrowest[k] = narrowest[k] if level[k] > zero else zero
    _least_of_three(level, radii[0], rows)
    _least_of_three(rows, radii[0] * wide, level)
    for k in range(1, len(radii)):
        reach = radii[k] - radii[k - 1]
        _least_of_three(level if k == 1 else result[k - 1], reach, rows)
        _least_of_three(rows, reach * wide, result[k])
    return result.reshape((len(radii), high, wide))


@compiled
def _least_of_three(values: Float32, apart: int, result: Float32) -> None:
    """The least (N,) of each value (N,) and the two so far ``apart``; at the ends, what was there."""
    count = max(len(values) - 2 * apart, 0)
    first, middle, last = values[:count], values[apart : apart + count], values[2 * apart :]
    inner = result[apart : apart + count]
    for k in range(count):
        inner[k] = min(min(first[k], middle[k]), last[k])


@compiled
def bounds_at(
    points: Float32,
    centre: Float32,
    side: float,
    lens: Float32,
    depth: Float32,
    mask: Bool,
    least: Float32,
    view: Int64,
    radii: Int64,
    tolerance: float,
) -> Float32:
    """Lower bounds (Q,) of the signed distance at points (Q, 3), both in box units.

    ``least`` are :func:`least_depths` of the ``view`` that all points fall into, each ``tolerance`` metres too large.
    Where ``mask`` (H, W) is True, what was measured is the subject.
    """
    one, half, infinite = np.float32(1), np.float32(0.5), np.float32(np.inf)
    length, off = np.float32(side), np.float32(tolerance)
    focal = max(lens[0], lens[1])
    (height, width), border = depth.shape, radii[-1]
    result = np.full(len(points), -infinite)
    for q in range(len(points)):
        z = points[q, 2] * length + centre[2]
        row, column = _pixel(points, q, z, centre, length, lens, height, width)
        if row < view[0] or row >= view[1] or column < view[2] or column >= view[3]:
            continue
        i, j = row - view[0] + border, column - view[2] + border
        x, y = points[q, 0] * length + centre[0], points[q, 1] * length + centre[1]
        obliquity = np.sqrt(one + (x * x + y * y) / (z * z))
        nearest = least[0, i, j] - off
        if nearest > z:
            empty = -infinite
            for k in range(len(radii)):
                ahead = least[k, i, j] - (off + z)
                if not ahead > 0:
                    break
                # Pixels sample the surface at their centres: the outermost ones of a window are so far from the point.
                reach = np.float32(radii[k]) - half
                lateral = reach * z / (focal * obliquity + reach)
                empty = max(empty, min(ahead, lateral))
                if lateral >= ahead:  # in wider windows, the least depth is no more
                    break
            result[q] = empty / length
        elif nearest > 0 and mask[row, column] and depth[row, column] > 0:
            result[q] = (nearest - z) * obliquity / length
    return result


@compiled
def _pixel(
    points: Float32,
    q: int,
    z: np.float32,
    centre: Float32,
    side: np.float32,
    lens: Float32,
    height: int,
    width: int,
) -> tuple[int, int]:
    """Row and column that a point falls on, -1 and -1 outside the image or behind the camera."""
    if not z > np.float32(1e-6):
        return -1, -1
    x, y = points[q, 0] * side + centre[0], points[q, 1] * side + centre[1]
    column = np.floor(lens[0] * x / z + (lens[2] + np.float32(0.5)))
    row = np.floor(lens[1] * y / z + (lens[3] + np.float32(0.5)))
    if not (column >= 0 and column < width and row >= 0 and row < height):
        return -1, -1
    return int(row), int(column)
