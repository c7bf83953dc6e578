"""Points of a depth image, in one pass over its pixels: twins of :mod:`nr_tracking.sensing.camera` and ``subject``.

``rays`` (H * W, 3) are those of the pixels, with z = 1; ``depth`` (H * W,) is in metres, 0 where there is none.
"""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import compiled
from nr_tracking.types import Bool, Float32, Int64


@compiled
def points_within(
    depth: Float32, rays: Float32, nearest: float, farthest: float, lower: Float32, upper: Float32
) -> tuple[Int64, Float32, int]:
    """Pixels (N,) and points (N, 3) from ``nearest`` to ``farthest`` metres and in the box of two corners (3,).

    The third value is the number of pixels in that range of depth, in the box or not.
    """
    near, far = np.float32(nearest), np.float32(farthest)
    pixels, cloud = np.empty(len(depth), np.int64), np.empty((len(depth), 3), np.float32)
    left, top, front = lower
    right, bottom, back = upper
    found, in_range = 0, 0
    for pixel in range(min(len(depth), len(rays))):
        d = depth[pixel]
        if not (d > 0 and d >= near and d <= far):
            continue
        in_range += 1
        x, y, z = rays[pixel, 0] * d, rays[pixel, 1] * d, rays[pixel, 2] * d
        if z > 0 and x >= left and x <= right and y >= top and y <= bottom and z >= front and z <= back:
            pixels[found] = pixel
            cloud[found, 0], cloud[found, 1], cloud[found, 2] = x, y, z
            found += 1
    return pixels[:found], cloud[:found], in_range


@compiled
def points_apart(cloud: Float32, pixels: Int64, heights: Float32, size: int) -> tuple[Float32, Float32, Bool]:
    """Points (M, 3) and their ``heights`` (M,) of those (N,) that are 1 at least, and their image (``size``,)."""
    points, above, image = np.empty_like(cloud), np.empty_like(heights), np.zeros(size, np.bool_)
    kept = 0
    for i in range(len(cloud)):
        if abs(heights[i]) >= 1:
            for axis in range(3):
                points[kept, axis] = cloud[i, axis]
            above[kept] = heights[i]
            image[pixels[i]] = True
            kept += 1
    return points[:kept], above[:kept], image


@compiled
def kinds_of_depth(depth: Float32) -> tuple[int, int]:
    """How many pixels have a positive finite depth, and how many something else that is not 0 either."""
    measured, invalid = 0, 0
    for pixel in range(len(depth)):
        good = depth[pixel] > 0 and depth[pixel] < np.inf
        measured += good
        invalid += not good and depth[pixel] != 0
    return measured, invalid
