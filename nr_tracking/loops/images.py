"""A depth image along the rays of a cube, pixel by pixel: the twin of :mod:`nr_tracking.sensing.ray_images`."""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import compiled
from nr_tracking.types import Bool, Float32, Int64


@compiled
def along_cube(
    depth: Float32,
    mask: Bool,
    rows: Int64,
    columns: Int64,
    distance: float,
    side: float,
    far: float,
    reach: int,
    steep: float,
) -> tuple[Float32, Float32]:
    """Channels (7, P, P) and continued front (P, P) of ``depth`` (H, W) read at ``rows`` and ``columns`` (P,).

    The cube's centre is at a ``distance`` in metres, as its ``side`` is. ``mask`` (H, W) is True on the subject, which
    is nearer to the centre than ``far`` sides, and continued by ``reach`` pixels; ``steep`` is a slope of 1.
    """
    pixels = len(rows)
    channels = np.zeros((7, pixels, pixels), np.float32)
    front = np.full(pixels * pixels, far, np.float32)
    one, middle, length, limit = np.float32(1), np.float32(distance), np.float32(side), np.float32(far)
    for i in range(pixels):
        row = rows[i]
        if row < 0 or row >= depth.shape[0]:
            continue
        for j in range(pixels):
            column = columns[j]
            if column < 0 or column >= depth.shape[1] or not depth[row, column] > 0:
                continue
            z = (depth[row, column] - middle) / length
            if mask[row, column] and abs(z) < limit:
                channels[0, i, j], channels[1, i, j] = one, z
                front[i * pixels + j] = z
            else:
                channels[4, i, j], channels[5, i, j] = min(max(z, -one), one), one
    _continue(channels[0], front, reach)
    scale = np.float32(pixels / (8 * steep))
    for i in range(pixels):
        above, here, below = max(i - 1, 0) * pixels, i * pixels, min(i + 1, pixels - 1) * pixels
        for j in range(pixels):
            if front[here + j] < limit:
                channels[6, i, j] = front[here + j]
            if not channels[0, i, j] > 0:
                continue
            left, right = max(j - 1, 0), min(j + 1, pixels - 1)
            a, b, c = front[above + left], front[above + j], front[above + right]
            d, e = front[here + left], front[here + right]
            f, g, h = front[below + left], front[below + j], front[below + right]
            across, down = (c - a) + 2 * (e - d) + (h - f), (f - a) + 2 * (g - b) + (h - c)
            channels[2, i, j] = min(max(across * scale, -one), one)
            channels[3, i, j] = min(max(down * scale, -one), one)
    return channels, front.reshape((pixels, pixels))


@compiled
def _continue(subject: Float32, front: Float32, reach: int) -> None:
    """Continue ``front`` (P * P,) around the ``subject`` (P, P), in place: each ring by the least of the one before."""
    pixels = len(subject)
    ring = np.full(pixels * pixels, reach + 1, np.int16)  # in how many steps a pixel is reached
    queue = np.empty(pixels * pixels, np.int32)
    begin, end = 0, 0
    for i in range(pixels):
        for j in range(pixels):
            if subject[i, j] > 0:
                ring[i * pixels + j] = 0
    for place in range(pixels * pixels):
        if ring[place] == 0 and _on_rim(ring, place, pixels):
            queue[end] = place
            end += 1
    for step in range(1, reach + 1):
        last = end
        for k in range(begin, last):
            place = queue[k]
            i, j = place // pixels, place % pixels
            for a in range(max(i - 1, 0), min(i + 2, pixels)):
                for b in range(max(j - 1, 0), min(j + 2, pixels)):
                    beside = a * pixels + b
                    if ring[beside] > step:
                        ring[beside] = step
                        front[beside] = front[place]
                        queue[end] = beside
                        end += 1
                    elif ring[beside] == step:
                        front[beside] = min(front[beside], front[place])
        begin = last


@compiled
def _on_rim(ring: np.ndarray, place: int, pixels: int) -> bool:
    """Whether a pixel of the subject has one beside it that is not."""
    i, j = place // pixels, place % pixels
    for a in range(max(i - 1, 0), min(i + 2, pixels)):
        for b in range(max(j - 1, 0), min(j + 2, pixels)):
            if ring[a * pixels + b] != 0:
                return True
    return False
