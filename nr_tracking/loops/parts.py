"""Connected parts of a depth image, pixel by pixel: twins of :mod:`nr_tracking.sensing.components`.

A window of an image is its rows ``top`` to ``bottom`` and columns ``left`` to ``right``, the latter two left out. Parts
are numbered from 1 to their count K; 0 are pixels with steps in depth all around.
"""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import compiled
from nr_tracking.loops.tolerances import tolerance_at
from nr_tracking.loops.unions import root_of
from nr_tracking.types import Bool, Float32, Float64, Int32, Int64


@compiled
def connected(
    depth: Float32, subject: Bool, top: int, bottom: int, left: int, right: int, gap: float, noise_depth: float
) -> tuple[Int32, int]:
    """Parts (h, w) of a window of the ``subject`` (H, W), and their number; ``depth`` (H, W) in metres.

    Steps in depth of more than ``gap`` metres separate them, beyond ``noise_depth`` by its square more. The farther
    pixel of each step is left out, and then given to the part beside it that it lies on.
    """
    height, width = max(bottom - top, 0), max(right - left, 0)
    labels = np.zeros((height, width), np.int32)
    above = np.zeros(height * width // 2 + 2, np.int32)  # a label's smaller one that it is joined to
    torn, found = np.empty(height * width, np.int32), 0
    cut = 0
    near, scale = np.float32(gap), np.float32(1 / noise_depth)
    framed = np.full((height + 2, width + 2), np.inf, np.float32)  # what is not the subject is before nothing
    steps = np.empty(width, np.bool_)
    for i in range(height):
        for j in range(width):
            if subject[top + i, left + j]:
                framed[i + 1, j + 1] = depth[top + i, left + j]
    for i in range(height):
        row = top + i
        for j in range(width):
            beside = min(framed[i + 1, j], framed[i + 1, j + 2])
            over = min(framed[i, j + 1], framed[i + 2, j + 1])
            own = depth[row, left + j]
            steps[j] = own - min(beside, over) > tolerance_at(own, near, scale)
        for j in range(width):
            if steps[j]:
                torn[cut] = i * width + j
                cut += 1
            elif subject[row, left + j]:
                beside = labels[i, j - 1] if j > 0 else np.int32(0)
                over = labels[i - 1, j] if i > 0 else np.int32(0)
                if beside == 0 and over == 0:
                    found += 1
                    above[found] = found
                    labels[i, j] = found
                elif beside == 0 or over == 0 or beside == over:
                    labels[i, j] = max(beside, over)
                else:
                    one, other = root_of(above, beside), root_of(above, over)
                    labels[i, j] = min(one, other)
                    above[max(one, other)] = min(one, other)
    count = 0
    for label in range(1, found + 1):  # one that leads to no smaller one is the first of its part
        if above[label] == label:
            count += 1
            above[label] = count
        else:
            above[label] = above[above[label]]
    for i in range(height):
        for j in range(width):
            labels[i, j] = above[labels[i, j]]
    _give_back(depth, labels, torn[:cut], top, left, near, scale)
    for k in range(cut):
        i, j = torn[k] // width, torn[k] % width
        if not subject[top + i, left + j]:
            labels[i, j] = 0
    return labels, count


@compiled
def tallied(
    labels: Int32,
    subject: Bool,
    top: int,
    left: int,
    count: int,
    cloud: Float32,
    heights: Float32,
    low: float,
    lower: float,
    down: Float64,
    across: Float64,
) -> tuple[Int32, Int64, Int64, Float64, Int64, Int64]:
    """The part (N,) of each True pixel of a window, and for each of ``count`` parts and 0 what its pixels come to.

    These are (K + 1,): the number of pixels, the first one, their weights, how many of them lie below ``low`` by
    ``heights`` (N,) or (0,), and how many below ``lower``. A pixel's weight is its depth in ``cloud`` (N, 3); where
    there are heights, its share in ``down`` (H,) and ``across`` (W,) over its depth's square.
    """
    part = np.empty(len(cloud), np.int32)
    pixels, first = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    below, behind = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    weights, in_room = np.zeros(count + 1), len(heights) > 0
    nth = 0
    for i in range(labels.shape[0]):
        for j in range(labels.shape[1]):
            if not subject[top + i, left + j] or nth == len(cloud):
                continue
            label, z = labels[i, j], float(cloud[nth, 2])
            part[nth] = label
            if pixels[label] == 0:
                first[label] = nth
            pixels[label] += 1
            if in_room:
                weights[label] += down[top + i] * across[left + j] / (z * z)
                below[label] += heights[nth] < low
                behind[label] += heights[nth] < lower
            else:
                weights[label] += z
            nth += 1
    return part[:nth], pixels, first, weights, below, behind


@compiled
def nearest_to(place: Float32, cloud: Float32, part: Int32, candidates: Bool) -> int:
    """The one of ``candidates`` (K + 1,) whose points (N, 3), of parts (N,), come nearest to a ``place`` (3,).

    The first of them where that is no number.
    """
    least, nearest = np.inf, 0
    while nearest < len(candidates) - 1 and not candidates[nearest]:
        nearest += 1
    a, b, c = float(place[0]), float(place[1]), float(place[2])
    for i in range(len(cloud)):
        if candidates[part[i]]:
            x, y, z = cloud[i, 0] - a, cloud[i, 1] - b, cloud[i, 2] - c
            square = x * x + y * y + z * z
            if square < least or (square == least and part[i] < nearest):
                least, nearest = square, part[i]
    return nearest


@compiled
def only(subject: Bool, labels: Int32, kept: Bool, top: int, left: int) -> Bool:
    """The ``subject`` (H, W) without those of the ``labels`` (h, w) of its window that are not ``kept`` (K + 1,)."""
    result = np.zeros(subject.shape, np.bool_)
    for i in range(labels.shape[0]):
        for j in range(labels.shape[1]):
            result[top + i, left + j] = subject[top + i, left + j] and kept[labels[i, j]]
    return result


@compiled
def _give_back(
    depth: Float32, labels: Int32, torn: Int32, top: int, left: int, near: np.float32, scale: np.float32
) -> None:
    """Label the ``torn`` pixels of a window (T,) like the one beside them in depth: left, right, above, below."""
    height, width = labels.shape
    given = np.zeros(len(torn), np.int32)
    for side in range(4):
        way = 2 * (side & 1) - 1
        down, across = way * (side >> 1), way * (1 - (side >> 1))
        for k in range(len(torn)):
            i, j = torn[k] // width, torn[k] % width
            a, b = i + down, j + across
            if given[k] != 0 or a < 0 or a >= height or b < 0 or b >= width:
                continue
            own = depth[top + i, left + j]
            if abs(own - depth[top + a, left + b]) <= tolerance_at(own, near, scale):
                given[k] = labels[a, b]
        for k in range(len(torn)):
            labels[torn[k] // width, torn[k] % width] = given[k]


@compiled
def continued(
    labels: Int32, depth: Float32, background: Bool, count: int, gap: float, noise_depth: float
) -> tuple[Int64, Int64]:
    """Of the edges between the pixels of each part and others that have depth, how many lead on to the background.

    And how many there are, (``count`` + 1,) each. All images are (h, w); two pixels lead on to each other unless there
    is a step in ``depth`` of more than ``gap`` metres, beyond ``noise_depth`` by its square more.
    """
    height, width = labels.shape
    on, edges = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    near, scale = np.float32(gap), np.float32(1 / noise_depth)
    for i in range(height):
        for j in range(width):
            own = labels[i, j]
            if own == 0:
                continue
            for side in range(4):
                k, m = i + (side == 0) - (side == 1), j + (side == 2) - (side == 3)
                if k < 0 or m < 0 or k >= height or m >= width or labels[k, m] == own or not depth[k, m] > 0:
                    continue
                edges[own] += 1
                step = abs(depth[i, j] - depth[k, m])
                on[own] += background[k, m] and step <= tolerance_at(max(depth[i, j], depth[k, m]), near, scale)
    return on, edges
