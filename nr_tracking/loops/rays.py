"""Distances along rays, point by point: the twin of what :class:`nr_tracking.fields.rays.RayField` does in PyTorch."""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import clamped, compiled
from nr_tracking.types import Float32, Int32, Int64


@compiled
def distances_at(
    points: Float32,
    frame: Int64,
    distances: Float32,
    depths: Float32,
    before: Int32,
    scale: float,
    front: Float32,
    view: Float32,
    place: Float32,
    nearest: bool,
    far: float,
    elsewhere: float,
) -> Float32:
    """Signed distance (Q,) at ``points`` (Q, 3) of ``frame`` (Q,), from four rays or the ``nearest`` alone.

    ``distances`` (N, P, P, D) at ``depths`` (D,), ``front`` (N, P, P), ``view`` (N, 3) and ``place`` (N, 4) are those
    of a ``RayField``; ``before`` and ``scale`` those of the table of its depths. A ray whose front is not nearer than
    ``far`` says ``elsewhere``.
    """
    side, last = front.shape[1], len(depths) - 2
    one, half = np.float32(1), np.float32(0.5)
    least, border = np.float32(0.05), np.float32(side - 1)
    flat, fronts = distances.reshape(-1), front.reshape(-1)
    result = np.empty(len(points), np.float32)
    for q in range(len(points)):
        n = frame[q]
        own = place[n, 3]
        z = (points[q, 2] - place[n, 2]) / own
        nearer = max(one + view[n, 2] * z, least)
        x = ((points[q, 0] - place[n, 0]) / own - view[n, 0] * z) / nearer
        y = ((points[q, 1] - place[n, 1]) / own - view[n, 1] * z) / nearer
        beside = (max(abs(x), abs(y)) - half) * nearer
        column = clamped((x + half) * side - half, np.float32(0), border)
        row = clamped((y + half) * side - half, np.float32(0), border)
        if nearest:
            i, j = int(np.rint(row)), int(np.rint(column))
            value, rays = np.float32(0), 1
            down = right = np.float32(0)
        else:
            i, j = min(int(row), side - 2), min(int(column), side - 2)
            down, right = row - np.float32(i), column - np.float32(j)
            value, rays = np.float32(0), 4
        for k in range(rays):
            b, a = k >> 1, k & 1
            weight = (down if b else one - down) * (right if a else one - right)
            ray = (n * side + i + b) * side + j + a
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
        result[q] = own * (max(value, beside) if beside > 0 else value)
    return result
