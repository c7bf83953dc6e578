"""A running mean of the depth behind the subject, pixel by pixel: twins of :mod:`nr_tracking.sensing.background`.

All images are (H, W): ``depth`` in metres, 0 where there is none; ``mean`` what was seen there before; ``seconds``
(H, W, 2) for how long it was, and was not the subject. A tolerance is ``near`` metres, beyond ``noise_depth`` metres by
its square more.
"""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import compiled
from nr_tracking.loops.tolerances import tolerance_at
from nr_tracking.types import Bool, Float32


@compiled
def change(
    depth: Float32, mean: Float32, seconds: Float32, near: float, noise_depth: float, limits: tuple[float, float, float]
) -> tuple[Bool, Bool, Bool, int, int]:
    """Where the background is, where anything is as before, and where something has come before it.

    Then how many pixels of the background have depth, and how many of these are farther away now. ``limits`` are the
    seconds after which a surface is known, and by how many tolerances it is alike and apart.
    """
    least, scale = np.float32(near), np.float32(1 / noise_depth)
    known_s, alike, apart = np.float32(limits[0]), np.float32(limits[1]), np.float32(limits[2])
    background, still = np.zeros(depth.shape, np.bool_), np.zeros(depth.shape, np.bool_)
    come = np.zeros(depth.shape, np.bool_)
    known, gone = 0, 0
    for i in range(depth.shape[0]):
        for j in range(depth.shape[1]):
            own = depth[i, j]
            if not own > 0:
                continue
            ahead = (mean[i, j] - own) / tolerance_at(own, least, scale)
            seen, free = seconds[i, j, 0] >= known_s, seconds[i, j, 1] >= known_s
            still[i, j] = seen and abs(ahead) <= alike
            background[i, j] = still[i, j] and free
            come[i, j] = seen and ahead > apart
            known += free
            gone += free and ahead < -apart
    return background, still, come, known, gone


@compiled
def learn(
    depth: Float32,
    subject: Bool,
    mean: Float32,
    seconds: Float32,
    near: float,
    noise_depth: float,
    moves: bool,
    limits: tuple[float, float, float],
    rates: tuple[float, float, float],
) -> None:
    """Take an image and its ``subject``, which ``moves`` or not, into ``mean`` and ``seconds``.

    ``limits`` are the most seconds that count, and by how many tolerances a surface is alike and apart; ``rates`` are
    the seconds since the last image, what they count against something covered, and the image's share in the mean.
    """
    least, scale = np.float32(near), np.float32(1 / noise_depth)
    most, alike, apart = np.float32(limits[0]), np.float32(limits[1]), np.float32(limits[2])
    step, less, share = np.float32(rates[0]), np.float32(rates[1]), np.float32(rates[2])
    for i in range(depth.shape[0]):
        for j in range(depth.shape[1]):
            own = depth[i, j]
            if not own > 0:
                continue
            ahead = (mean[i, j] - own) / tolerance_at(own, least, scale)
            gone = ahead < -apart
            if abs(ahead) <= alike:
                mean[i, j] += share * (own - mean[i, j])
                seconds[i, j, 0] = min(seconds[i, j, 0] + step, most)
                if subject[i, j]:
                    seconds[i, j, 1] = np.float32(0)
                else:
                    seconds[i, j, 1] = seconds[i, j, 0] if moves else min(seconds[i, j, 1] + step, most)
            elif not gone and not subject[i, j]:
                seconds[i, j, 0] -= less
                seconds[i, j, 1] -= less
                gone = seconds[i, j, 0] < 0
            if gone:
                mean[i, j] = own
                seconds[i, j, 0] = seconds[i, j, 1] = np.float32(0)
