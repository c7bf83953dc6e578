"""Four rays from each place of a grid: the twin of :mod:`nr_tracking.fields.quarters`.

Places are (N, h, w, 4 D): of the four pixels of a place one after the other, row by row, distances at D depths; in
single precision, or bfloat16 as :mod:`.bfloat16` reads it. Rays are (N, 2 h, 2 w, D).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nr_tracking.loops.bfloat16 import stored, wide
from nr_tracking.loops.compiler import compiled
from nr_tracking.types import Float32


@compiled
def spread(places: NDArray[Any], bias: Float32, scale: float, rays: Float32) -> None:
    """``scale`` times the sum of ``places`` and ``bias`` (4 D,), into ``rays``."""
    frames, height, width, _ = places.shape
    steps = rays.shape[3]
    factor = np.float32(scale)
    for n in range(frames):
        for y in range(height):
            for x in range(width):
                place = places[n, y, x]
                for quarter in range(4):
                    first = quarter * steps
                    ray = rays[n, 2 * y + quarter // 2, 2 * x + quarter % 2]
                    for k in range(steps):
                        ray[k] = (wide(place[first + k]) + bias[first + k]) * factor


@compiled
def gathered(change: Float32, scale: float, of_places: NDArray[Any]) -> Float32:
    """Gradients of :func:`spread`: that of the bias (4 D,), and that of the places into ``of_places``."""
    frames, height, width, channels = of_places.shape
    steps = change.shape[3]
    factor = np.float32(scale)
    of_bias, some = np.zeros(channels, np.float64), np.empty(channels, np.float32)
    for n in range(frames):
        for y in range(height):
            some[:] = 0
            for x in range(width):
                place = of_places[n, y, x]
                for quarter in range(4):
                    first = quarter * steps
                    ray = change[n, 2 * y + quarter // 2, 2 * x + quarter % 2]
                    for k in range(steps):
                        value = ray[k] * factor
                        some[first + k] += value
                        place[first + k] = stored(value, of_places)
            of_bias += some
    return of_bias.astype(np.float32)
