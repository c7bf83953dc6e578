"""Whether a plane is a support, told by the points on it and off it: twins of :mod:`nr_tracking.sensing.supports`.

Points (N, 3) are in metres; how far they stand before a plane is in units of their tolerance.
"""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import clamped, compiled
from nr_tracking.loops.extents import axes_of, moments
from nr_tracking.loops.percentiles import percentiles
from nr_tracking.types import Bool, Float32, Float64, Int64


@compiled
def sides_left(pixels: Int64, heights: Float32, height: int, width: int, band: float, bins: int, least: float) -> int:
    """On how many sides of an image the ``pixels`` (N,) of heights (N,) within 1 cover a share of ``least``.

    A side is cut into ``bins``, and is ``band`` of the image's size wide.
    """
    seen = np.zeros((4, bins), np.bool_)
    for i in range(len(pixels)):
        if not abs(heights[i]) < 1:
            continue
        row, column = pixels[i] // width, pixels[i] % width
        across = int(clamped(column / width * bins, 0.0, bins - 1.0))
        down = int(clamped(row / height * bins, 0.0, bins - 1.0))
        seen[0, across] |= row < band * height
        seen[1, across] |= row >= (1 - band) * height
        seen[2, down] |= column < band * width
        seen[3, down] |= column >= (1 - band) * width
    sides = 0
    for side in range(4):
        filled = 0
        for k in range(bins):
            filled += seen[side, k]
        sides += filled >= least * bins
    return sides


@compiled
def layers(heights: Float32, rest: Bool) -> tuple[int, int, int, int]:
    """How many of the heights (N,) at ``rest`` (N,) lie within 1, within 3, below -3, and at 1 or above."""
    on, about, behind, before = 0, 0, 0, 0
    for i in range(len(heights)):
        if rest[i]:
            on += abs(heights[i]) < 1
            about += abs(heights[i]) < 3
            behind += heights[i] < -3
            before += heights[i] >= 1
    return on, about, behind, before


@compiled
def dwarfs(cloud: Float32, heights: Float32, rest: Bool, ratio: float, percents: Float64) -> bool:
    """Whether the points (N, 3) of heights (N,) within 1 reach ``ratio`` times as far as those before, on both axes.

    The latter are those at ``rest`` (N,) with heights of 1 or more; of the former, ``percents`` (2,) count.
    """
    on = np.empty(len(cloud), np.bool_)
    for i in range(len(cloud)):
        on[i] = abs(heights[i]) < 1
    centre, squares, count = moments(cloud, on)
    if count == 0:
        return False
    axes = axes_of(squares)
    along, kept = np.empty((2, count), np.float32), 0
    least, most = np.full(2, np.inf), np.full(2, -np.inf)
    for i in range(len(cloud)):
        for k in range(2):
            place = 0.0
            for axis in range(3):
                place += (cloud[i, axis] - centre[axis]) * axes[axis, k + 1]
            if on[i]:
                along[k, kept] = place
            elif rest[i] and heights[i] >= 1:
                least[k], most[k] = min(least[k], place), max(most[k], place)
        kept += on[i]
    if not most[0] >= least[0]:
        return False
    for k in range(2):
        ends = percentiles(along[k], percents)
        if not ends[1] - ends[0] >= ratio * (most[k] - least[k]):
            return False
    return True
