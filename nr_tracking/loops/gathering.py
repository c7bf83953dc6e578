"""Which parts of a depth image belong together, told by their points: twins of :mod:`nr_tracking.sensing.components`.

Parts are those of :mod:`nr_tracking.loops.parts`.
"""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import clamped, compiled
from nr_tracking.loops.percentiles import sort
from nr_tracking.types import Bool, Float32, Float64, Int32, Int64

_CELLS = 24  # along each axis of a grid, at most


@compiled
def gathered(
    cloud: Float32,
    part: Int32,
    first: Int64,
    samples: int,
    largest: int,
    stones: Bool,
    ratio: float,
    occluder_ratio: float,
    behind: tuple[float, float],
    room: Float64,
) -> Bool:
    """Which parts (K + 1,) are held together with the ``largest`` one, it included.

    Points (N, 3) of parts (N,) are thinned to ``samples`` or a few more, ``first`` (K + 1,) of each part among them.
    Others are near within ``ratio`` of the size of what is kept; ``room`` (3,) is empty or says how near in a room: in
    metres, but at least and at most these shares of that. They may stand ``occluder_ratio`` sizes before the largest,
    outside a room ``behind`` (2,) times as many behind it, up to so many metres. Then the same around all that was
    kept. Those in between are ``stones`` (K + 1,).
    """
    count, step = len(first) - 1, max(1, len(part) // samples)
    kept, near, ahead = np.zeros(count + 1, np.bool_), np.zeros(count + 1, np.bool_), np.zeros(count + 1, np.bool_)
    kept[largest] = True
    if len(part) == 0:
        return kept
    thinned = (len(part) + step - 1) // step
    points, own = np.empty((thinned + count, 3), np.float32), np.empty(thinned + count, np.int32)
    for i in range(thinned + count):
        source = i * step if i < thinned else first[i - thinned + 1]
        own[i] = part[source]
        for axis in range(3):
            points[i, axis] = cloud[source, axis]
    _add_near(points, own, kept, near, ratio, room)
    _add_across(points, own, largest, ahead, ratio, occluder_ratio, (0.0, 0.0) if len(room) else behind)
    together = True
    for k in range(count + 1):
        kept[k] |= (near[k] or ahead[k]) and stones[k]
        near[k] = False
        together &= kept[k] or k == 0
    if not together:
        _add_near(points, own, kept, near, ratio, room)
        for k in range(count + 1):
            kept[k] |= near[k]
    return kept


@compiled
def _add_near(points: Float32, part: Int32, kept: Bool, near: Bool, ratio: float, room: Float64) -> None:
    """Mark as ``near`` the parts that come within reach of the ``kept`` ones."""
    role = np.empty(len(points), np.int8)
    for i in range(len(points)):
        role[i] = 1 if kept[part[i]] else 2
    reach = ratio * _size(points, role)
    if len(room):
        reach = min(max(room[0], room[1] * reach), room[2] * reach)
    _touch(points, part, role, reach, near)


@compiled
def _add_across(
    points: Float32,
    part: Int32,
    largest: int,
    found_too: Bool,
    ratio: float,
    occluder_ratio: float,
    behind: tuple[float, float],
) -> None:
    """Mark as ``found_too`` the parts on or beside the ``largest`` one in the image, before or behind it."""
    total, number = np.zeros(len(found_too)), np.zeros(len(found_too), np.int64)
    body, found = np.empty(len(points), np.float32), 0
    role = np.zeros(len(points), np.int8)
    for i in range(len(points)):
        total[part[i]] += points[i, 2]
        number[part[i]] += 1
        if part[i] == largest:
            role[i] = 1
            body[found] = points[i, 2]
            found += 1
    size = _size(points, role)
    sort(body, found)
    depth = np.float32(0.5) * (body[max(found - 1, 0) // 2] + body[found // 2]) if found else np.float32(0)
    farthest = min(behind[0] * occluder_ratio * size, behind[1])
    across, anything = np.zeros((len(points), 3), np.float32), False
    for i in range(len(points)):
        nearer = depth - total[part[i]] / max(number[part[i]], 1)
        within = (nearer > 0 and nearer <= occluder_ratio * size) or (nearer < 0 and -nearer <= farthest)
        if part[i] != largest and within:
            role[i] = 2
            anything = True
        if role[i]:
            across[i, 0] = points[i, 0] / points[i, 2] * depth
            across[i, 1] = points[i, 1] / points[i, 2] * depth
    if anything:
        _touch(across, part, role, 0.5 * ratio * size, found_too)


@compiled
def _size(points: Float32, role: np.ndarray) -> float:
    """The longest edge of the box around points (N, 3) of role 1."""
    longest = np.float32(0)
    for axis in range(3):
        least, most = np.float32(np.inf), np.float32(-np.inf)
        for i in range(len(points)):
            if role[i] == 1:
                least, most = min(least, points[i, axis]), max(most, points[i, axis])
        longest = max(longest, most - least)
    return float(longest)


@compiled
def _touch(points: Float32, part: Int32, role: np.ndarray, reach: float, touched: Bool) -> None:
    """Mark the parts with a point (N, 3) of role 2 within ``reach`` of one of role 1: these lie in a grid."""
    low, high, cells, size = np.full(3, np.inf), np.full(3, -np.inf), np.empty(3, np.int64), np.empty(3)
    for i in range(len(points)):
        if role[i] == 1:
            for axis in range(3):
                low[axis], high[axis] = min(low[axis], points[i, axis]), max(high[axis], points[i, axis])
    if not high[0] >= low[0]:
        return
    for axis in range(3):  # two points of one cell are within reach, or there would be too many cells
        size[axis] = max(0.57 * reach, (high[axis] - low[axis]) / _CELLS, 1e-9)
        cells[axis] = int(clamped((high[axis] - low[axis]) / size[axis], 0.0, _CELLS - 1.0)) + 1
    starts = np.zeros(cells[0] * cells[1] * cells[2] + 1, np.int64)
    cell, order = np.empty(len(points), np.int64), np.empty(len(points), np.int64)
    for i in range(len(points)):
        if role[i] == 1:
            cell[i] = 0
            for axis in range(3):
                place = clamped((points[i, axis] - low[axis]) / size[axis], 0.0, cells[axis] - 1.0)
                cell[i] = cell[i] * cells[axis] + int(place)
            starts[cell[i] + 1] += 1
    for c in range(len(starts) - 1):
        starts[c + 1] += starts[c]
    for i in range(len(points)):
        if role[i] == 1:
            order[starts[cell[i]]] = i
            starts[cell[i]] += 1
    around = np.empty((3, 2), np.int64)
    for i in range(len(points)):
        if role[i] == 2 and not touched[part[i]]:
            touched[part[i]] = _is_within(points, i, order, starts, low, high, cells, size, reach, around)


@compiled
def _is_within(
    points: Float32,
    i: int,
    order: Int64,
    ends: Int64,
    low: Float64,
    high: Float64,
    cells: Int64,
    size: Float64,
    reach: float,
    around: Int64,
) -> bool:
    """Whether point ``i`` is within ``reach`` of one in the grid, whose cells end at ``ends`` in ``order``."""
    for axis in range(3):
        place = points[i, axis]
        if not (place >= low[axis] - reach and place <= high[axis] + reach):
            return False
        middle = (place - low[axis]) / size[axis]
        share = reach / size[axis] + 1e-6
        around[axis, 0] = int(clamped(np.floor(middle - share), 0.0, cells[axis] - 1.0))
        around[axis, 1] = int(clamped(np.floor(middle + share), 0.0, cells[axis] - 1.0))
    for a in range(around[0, 0], around[0, 1] + 1):
        for b in range(around[1, 0], around[1, 1] + 1):
            row = (a * cells[1] + b) * cells[2]
            begin = row + around[2, 0]
            for k in range(ends[begin - 1] if begin > 0 else 0, ends[row + around[2, 1]]):
                other = order[k]
                x = float(points[i, 0]) - float(points[other, 0])
                y = float(points[i, 1]) - float(points[other, 1])
                z = float(points[i, 2]) - float(points[other, 2])
                if x * x + y * y + z * z <= reach * reach:
                    return True
    return False
