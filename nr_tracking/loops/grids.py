"""Reading features of voxels between their centres: twins of what :mod:`nr_tracking.fields.field` does in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nr_tracking.loops.bfloat16 import stored, wide
from nr_tracking.loops.compiler import clamped, compiled
from nr_tracking.types import Float32, Int32, Int64

Real = NDArray[Any]  # float32, or bfloat16 as uint16
Scale = tuple[Int64, Float32, Float32, Int64, Float32]


@compiled
def read_dense(points: Float32, frame: Int64, features: Real, found: Real) -> None:
    """``features`` (N, R, R, R, C) between voxels at ``points`` (Q, 3) of ``frame`` (Q,): ``found`` (Q, C)."""
    side, channels = features.shape[1], features.shape[4]
    rows = features.reshape((-1, channels))
    one, half, last = np.float32(1), np.float32(0.5), np.float32(side - 1)
    lower, part, total = np.empty(3, np.int64), np.empty(3, np.float32), np.empty(channels, np.float32)
    for q in range(len(points)):
        for axis in range(3):
            position = clamped((points[q, axis] + half) * side - half, np.float32(0), last)
            lower[axis] = min(int(position), side - 2)
            part[axis] = position - np.float32(lower[axis])
        first = ((frame[q] * side + lower[0]) * side + lower[1]) * side + lower[2]
        total[:] = 0
        for k in range(8):
            a, b, c = k >> 2, (k >> 1) & 1, k & 1
            weight = part[0] if a else one - part[0]
            weight *= part[1] if b else one - part[1]
            weight *= part[2] if c else one - part[2]
            row = rows[first + (a * side + b) * side + c]
            for channel in range(channels):
                total[channel] += weight * wide(row[channel])
        for channel in range(channels):
            found[q, channel] = stored(total[channel], found)


@compiled
def children_between(values: Float32, neighbours: Int32) -> Float32:
    """At the centres (M, 8) of the children of active voxels what is between the ``values`` (M,) of these.

    ``neighbours`` (M, 27) are rows, M for a voxel that is not active: the others then make up for it.
    """
    near, far, least = np.float32(0.75), np.float32(0.25), np.float32(1e-6)
    found = np.empty((len(values), 8), np.float32)
    for m in range(len(values)):
        around = neighbours[m]
        for octant in range(8):
            step_x, step_y, step_z = (octant >> 2) * 2 - 1, ((octant >> 1) & 1) * 2 - 1, (octant & 1) * 2 - 1
            total, present = np.float32(0), np.float32(0)
            for k in range(8):
                a, b, c = k >> 2, (k >> 1) & 1, k & 1
                row = around[13 + 9 * step_x * a + 3 * step_y * b + step_z * c]
                if 0 <= row < len(values):
                    weight = (far if a else near) * (far if b else near) * (far if c else near)
                    total += weight * values[row]
                    present += weight
            found[m, octant] = total / max(present, least)
    return found


@compiled
def read_sparse(
    points: Float32,
    frame: Int64,
    left: Int64,
    remaining: Float32,
    table: Int32,
    resolution: int,
    features: Float32,
    rounding: float,
) -> Scale:
    """What one sparse scale says at those of the points (Q, 3) that are ``left`` (L,), with shares ``remaining`` (L,).

    ``table`` (N * (R + 2)^3,) gives the row of each voxel, ``features`` (M + 1, C) its features, the last row standing
    for voxels that are not active. Returns the points (K,) that the scale serves, its share (K,), its features (K, C),
    the points (L',) that want something of the next scale too, and what remains of them (L',).
    """
    side, channels, active = resolution + 2, features.shape[1], len(features) - 1
    one, half, limit = np.float32(1), np.float32(0.5), np.float32(rounding)
    chosen, shares = np.empty(len(left), np.int64), np.empty(len(left), np.float32)
    values = np.empty((len(left), channels), np.float32)
    rest, remain = np.empty(len(left), np.int64), np.empty(len(left), np.float32)
    lower, part = np.empty(3, np.int64), np.empty(3, np.float32)
    rows, weights = np.empty(8, np.int64), np.empty(8, np.float32)
    served, passed = 0, 0
    for q in range(len(left)):
        point = left[q]
        for axis in range(3):
            position = clamped(
                (points[point, axis] + half) * resolution - half, np.float32(0), np.float32(resolution - 1)
            )
            lower[axis] = min(int(position), resolution - 2)
            part[axis] = position - np.float32(lower[axis])
        first = ((frame[point] * side + lower[0] + 1) * side + lower[1] + 1) * side + lower[2] + 1
        present, corners = np.float32(0), 0
        for k in range(8):
            a, b, c = k >> 2, (k >> 1) & 1, k & 1
            row = table[first + (a * side + b) * side + c]
            if row < active:
                weight = part[0] if a else one - part[0]
                weight *= part[1] if b else one - part[1]
                weight *= part[2] if c else one - part[2]
                rows[corners], weights[corners] = row, weight
                present += weight
                corners += 1
        support = min(max(present + present - one, np.float32(0)), one)
        if support > 0:
            chosen[served], shares[served] = point, remaining[q] * support
            for channel in range(channels):
                values[served, channel] = 0
            for k in range(corners):
                weight, row = weights[k] / present, rows[k]
                for channel in range(channels):
                    values[served, channel] += weight * features[row, channel]
            served += 1
        onward = remaining[q] * (one - support)
        if onward > limit:
            rest[passed], remain[passed] = point, onward
            passed += 1
    return chosen[:served], shares[:served], values[:served], rest[:passed], remain[:passed]
