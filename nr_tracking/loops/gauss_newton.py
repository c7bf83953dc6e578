"""One Gauss-Newton step but for its factorisation: twins of what is in ``refinement`` and ``normal_equations``."""

from __future__ import annotations

import numpy as np
from numba import uint64

from nr_tracking.loops.compiler import compiled
from nr_tracking.types import Bool, Float32, Float64, Int32, Int64

_TRIANGLE = np.array([0, 1, 2, 1, 3, 4, 2, 4, 5])  # where each entry of a symmetric 3 x 3 matrix is among its six
_NUMBERS = 24  # a sample's 21, and what rounds them up to whole registers


@compiled
def weighed(
    sample: Int64,
    place: Float64,
    normal: Float64,
    forward: int,
    points: Float64,
    seeking: int,
    plane: float,
    point: float,
    limit: float,
) -> tuple[Float64, Float64, float]:
    """Gaps (N, 3) of matches, their robust weights (N,), and what is kept: 1 for each direction all on the target.

    ``sample`` (N,), ``place`` and ``normal`` (N, 3) are matches, the first ``forward`` of them of the samples
    ``points`` (S, 3), and the others of the ``seeking`` many places of the target. ``plane`` and ``point`` are the
    weights of residuals, which end where their square is ``limit``.
    """
    gap, weight, kept = np.empty(place.shape), np.empty(len(place)), 0.0
    for n in range(len(place)):
        along = squared = 0.0
        for i in range(3):
            gap[n, i] = place[n, i] - points[sample[n], i]
            along += normal[n, i] * gap[n, i]
            squared += gap[n, i] * gap[n, i]
        remaining = 1 - min((plane * along * along + point * squared) / limit, 1.0) if limit > 0 else 0.0
        weight[n] = remaining * remaining / (len(points) if n < forward else seeking)
        kept += weight[n] * remaining
    return gap, weight, kept


@compiled
def pulled(
    sample: Int64,
    normal: Float64,
    gap: Float64,
    weight: Float64,
    plane: float,
    point: float,
    count: int,
    whole: bool,
) -> tuple[Float64, Float64]:
    """Sums over the matches of each of ``count`` samples: ``W gap`` (S, 3) and, if ``whole``, W (S, 3, 3).

    W is ``weight (plane n n^T + point I)``.
    """
    pull, information = np.zeros((count, 3)), np.zeros((count if whole else 0, 3, 3))
    for n in range(len(sample)):
        s, along = sample[n], 0.0
        for i in range(3):
            along += normal[n, i] * gap[n, i]
        for i in range(3):
            share = plane * weight[n] * normal[n, i]
            pull[s, i] += share * along + point * weight[n] * gap[n, i]
            if whole:
                for j in range(3):
                    information[s, i, j] += share * normal[n, j]
                information[s, i, i] += point * weight[n]
    return pull, information


@compiled
def fill(
    matrix: Float32,
    begin: Int64,
    stride: Int64,
    starts: Int32,
    members: Int32,
    shares: Float32,
    row: Int64,
    column: Int64,
    places: Float64,
    moved: Float64,
    information: Float64,
) -> None:
    """Fill what samples give to the ``matrix`` of a step.

    Block k is that of the nodes ``row`` and ``column`` (K,); it lies at ``begin`` (K,), its columns ``stride`` (K,)
    apart, and is the sum over ``members`` from ``starts[k]`` on, samples with their ``shares``. ``places`` (P, 3) is
    where nodes come to lie, ``moved`` (S, 3) where samples do, and ``information`` (S, 3, 3) what matches know of each.
    """
    matrix[:] = 0
    middle = np.zeros(3)
    for k in range(len(places)):
        for axis in range(3):
            middle[axis] += places[k, axis] / len(places)
    shift = np.empty((len(places), 3), np.float32)
    for k in range(len(places)):
        for axis in range(3):
            shift[k, axis] = places[k, axis] - middle[axis]
    single = _numbers_of_samples(moved, middle, information)
    # Without a sign, indices cannot count from the end, and loops of a number unknown to the compiler are not unrolled:
    # so it takes eight at a time.
    numbers = uint64(max(len(single), _NUMBERS) // max(len(moved), 1))
    total, block = np.empty(_NUMBERS, np.float32), np.empty(36, np.float32)
    for k in range(len(row)):
        for c in range(numbers):
            total[c] = 0
        for m in range(starts[k], starts[k + 1]):
            share, own = shares[m], uint64(_NUMBERS * members[m])
            for c in range(numbers):
                total[c] += share * single[own + c]
        for i in range(3):
            for j in range(3):
                both = total[6 + 3 * i + j]
                block[6 * i + j], block[6 * i + 3 + j] = total[_TRIANGLE[3 * i + j]], both
                block[18 + 6 * j + i], block[21 + 6 * i + j] = both, total[15 + _TRIANGLE[3 * i + j]]
        # First all turns are about one place, then about those of the block's own nodes.
        x, y, z = shift[row[k], 0], shift[row[k], 1], shift[row[k], 2]
        for c in range(6):
            u, v, w = block[18 + c], block[24 + c], block[30 + c]
            block[c] -= y * w - z * v
            block[6 + c] -= z * u - x * w
            block[12 + c] -= x * v - y * u
        x, y, z = shift[column[k], 0], shift[column[k], 1], shift[column[k], 2]
        for r in range(0, 36, 6):
            u, v, w = block[r + 3], block[r + 4], block[r + 5]
            block[r] -= y * w - z * v
            block[r + 1] -= z * u - x * w
            block[r + 2] -= x * v - y * u
        for c in range(6):
            for r in range(6):
                matrix[begin[k] + c * stride[k] + r] = block[6 * r + c]


@compiled
def _numbers_of_samples(moved: Float64, middle: Float64, information: Float64) -> Float32:
    """The numbers that make each sample's symmetric 6 x 6 matrix, about ``middle``.

    They are the upper triangle of X W X^T, then X W, then the upper triangle of W, where X = [x]x.
    """
    single = np.zeros(_NUMBERS * len(moved), np.float32)
    for s in range(len(moved)):
        own = _NUMBERS * s
        x, y, z = (
            np.float32(moved[s, 0] - middle[0]),
            np.float32(moved[s, 1] - middle[1]),
            np.float32(moved[s, 2] - middle[2]),
        )
        for c in range(3):
            u, v, w = (
                np.float32(information[s, 0, c]),
                np.float32(information[s, 1, c]),
                np.float32(information[s, 2, c]),
            )
            single[own + 6 + c], single[own + 9 + c], single[own + 12 + c] = y * w - z * v, z * u - x * w, x * v - y * u
            for r in range(c, 3):
                single[own + 15 + _TRIANGLE[3 * c + r]] = information[s, r, c]
        for c in range(3):
            u, v, w = single[own + 6 + 3 * c], single[own + 7 + 3 * c], single[own + 8 + 3 * c]
            single[own + c] = y * w - z * v
            if c > 0:
                single[own + 2 + c] = z * u - x * w
        single[own + 5] = x * v - y * u
    return single


@compiled
def add_edges(
    matrix: Float32,
    begin: Int64,
    stride: Int64,
    edges: Int32,
    of_nodes: Int64,
    of_edges: Int64,
    first_is_later: Bool,
    arms: Float64,
    stiffness: Float64,
) -> None:
    """Add what edges hold to the matrix: with A = [arm]x, Jacobians (-A, I) at the near end and (0, -I) at the far one.

    ``of_nodes`` (P,) and ``of_edges`` (E,) are their blocks; the rows of one of an edge are its first node's where
    ``first_is_later`` (E,), else its second's.
    """
    count = len(edges)
    for d in range(2 * count):
        back = d >= count
        e = d - count if back else d
        near, far = (edges[e, 1], edges[e, 0]) if back else (edges[e, 0], edges[e, 1])
        x, y, z = np.float32(arms[d, 0]), np.float32(arms[d, 1]), np.float32(arms[d, 2])
        stiff = np.float32(stiffness[d])
        u, v, w = stiff * x, stiff * y, stiff * z
        block = of_nodes[near]
        at, apart = begin[block], stride[block]
        matrix[at] += v * y + w * z
        matrix[at + 1] -= u * y
        matrix[at + 2] -= u * z
        matrix[at + 4] -= w
        matrix[at + 5] += v
        matrix[at + apart + 1] += u * x + w * z
        matrix[at + apart + 2] -= v * z
        matrix[at + apart + 3] += w
        matrix[at + apart + 5] -= u
        matrix[at + 2 * apart + 2] += u * x + v * y
        matrix[at + 2 * apart + 3] -= v
        matrix[at + 2 * apart + 4] += u
        for axis in range(3, 6):
            matrix[at + axis * apart + axis] += stiff
            matrix[begin[of_nodes[far]] + axis * stride[of_nodes[far]] + axis] += stiff
        at, apart = begin[of_edges[e]], stride[of_edges[e]]
        for axis in range(3, 6):
            matrix[at + axis * apart + axis] -= stiff
        # A direction turns its near end alone: that of the rows or that of the columns.
        if first_is_later[e] != back:
            matrix[at + 3 * apart + 1] -= w
            matrix[at + 3 * apart + 2] += v
            matrix[at + 4 * apart] += w
            matrix[at + 4 * apart + 2] -= u
            matrix[at + 5 * apart] -= v
            matrix[at + 5 * apart + 1] += u
        else:
            matrix[at + 4] += w
            matrix[at + 5] -= v
            matrix[at + apart + 3] -= w
            matrix[at + apart + 5] += u
            matrix[at + 2 * apart + 3] += v
            matrix[at + 2 * apart + 4] -= u


@compiled
def right_side(
    index: Int64,
    weight: Float64,
    edges: Int32,
    nodes: Float64,
    points: Float64,
    rotations: Float64,
    pull: Float64,
    arms: Float64,
    gap: Float64,
    stiffness: Float64,
) -> Float64:
    """The right-hand side (P, 6), of what ``NormalEquations.right_side`` is given."""
    count = len(edges)
    sums, right = np.zeros(12 * len(nodes)), np.empty((len(nodes), 6))
    own = np.empty(12)
    for s in range(len(points)):
        for j in range(3):
            own[9 + j] = pull[s, j]
            for i in range(3):
                own[3 * i + j] = points[s, i] * pull[s, j]
        for b in range(index.shape[1]):
            share, node = weight[s, b], 12 * index[s, b]
            for c in range(12):
                sums[node + c] += share * own[c]
    # A node's torque is the axial part of R_k sum_s w_s (x_s - node_k) pull_s^T: exact, and summed before it turns.
    for k in range(len(nodes)):
        for i in range(3):
            for j in range(3):
                own[3 * i + j] = 0
                for c in range(3):
                    moment = sums[12 * k + 3 * c + j] - nodes[k, c] * sums[12 * k + 9 + j]
                    own[3 * i + j] += rotations[k, i, c] * moment
        right[k, 0], right[k, 1], right[k, 2] = own[5] - own[7], own[6] - own[2], own[1] - own[3]
        for axis in range(3):
            right[k, 3 + axis] = sums[12 * k + 9 + axis]
    for d in range(2 * count):
        back = d >= count
        e = d - count if back else d
        near, far = (edges[e, 1], edges[e, 0]) if back else (edges[e, 0], edges[e, 1])
        x, y, z = arms[d, 0], arms[d, 1], arms[d, 2]
        u, v, w = -stiffness[d] * gap[d, 0], -stiffness[d] * gap[d, 1], -stiffness[d] * gap[d, 2]
        right[near, 0] += y * w - z * v
        right[near, 1] += z * u - x * w
        right[near, 2] += x * v - y * u
        right[near, 3] += u
        right[near, 4] += v
        right[near, 5] += w
        right[far, 3] -= u
        right[far, 4] -= v
        right[far, 5] -= w
    return right
