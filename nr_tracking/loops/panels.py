"""Cholesky factorisation of a sparse symmetric matrix of 6 x 6 blocks.

The nodes of a surface, in an order that fills little, leave a tenth of the work that a band of the same matrix takes.
A column of blocks is a panel: its 6 columns one after the other, each with all rows that are not zero from the diagonal
on, so inner loops run along memory. ``starts`` (P + 1,) tells where each panel's blocks begin among all, and ``rows``
(B,) in which row of blocks each lies, the diagonal first; what is above the diagonal of a diagonal block is undefined.
"""

from __future__ import annotations

import numpy as np
from numba import uint64

from nr_tracking.loops.compiler import compiled
from nr_tracking.types import Float32, Float64, Int32, Int64


@compiled
def least_fill(starts: Int32, neighbours: Int32) -> tuple[Int64, Int64, Int32]:
    """An order of the nodes of a graph that fills little: of those that are left, the one with the fewest neighbours.

    ``neighbours`` from ``starts[k]`` on are those of node k, both ways. Returns the place of each node in that order
    (P,), and the ``starts`` and ``rows`` of panels.
    """
    count = len(starts) - 1
    linked, degree = np.zeros((count, count), np.bool_), np.zeros(count, np.int64)
    for k in range(count):
        for n in range(starts[k], starts[k + 1]):
            other = neighbours[n]
            if other != k and not linked[k, other]:
                linked[k, other] = linked[other, k] = True
                degree[k] += 1
                degree[other] += 1
    place, order = np.full(count, -1, np.int64), np.empty(count, np.int64)
    around = np.empty(count, np.int64)
    begins = np.zeros(count + 1, np.int64)
    for step in range(count):
        node, least = -1, count + 1
        for k in range(count):
            if place[k] < 0 and degree[k] < least:
                node, least = k, degree[k]
        place[node], order[step] = step, node
        beside = 0
        for k in range(count):
            if linked[node, k] and place[k] < 0:
                around[beside] = k
                beside += 1
        begins[step + 1] = begins[step] + 1 + beside
        for a in range(beside):  # what was beside it comes to be linked
            degree[around[a]] -= 1
            for b in range(a):
                if not linked[around[a], around[b]]:
                    linked[around[a], around[b]] = linked[around[b], around[a]] = True
                    degree[around[a]] += 1
                    degree[around[b]] += 1
    rows = np.empty(begins[count], np.int32)
    for step in range(count):
        at = begins[step]
        for k in range(step, count):
            if k == step or linked[order[step], order[k]]:
                rows[at] = k
                at += 1
    return place, begins, rows


@compiled
def located(starts: Int64, rows: Int32, high: Int64, low: Int64) -> tuple[Int64, Int64]:
    """Where the blocks in row ``high`` and column ``low`` (K,) begin in memory, and how far apart their columns lie.

    A block that is in no panel begins at -1.
    """
    begin, stride = np.full(len(high), -1, np.int64), np.zeros(len(high), np.int64)
    for k in range(len(high)):
        first, last = starts[low[k]], starts[low[k] + 1]
        stride[k] = 6 * (last - first)
        for b in range(first, last):
            if rows[b] == high[k]:
                begin[k] = 36 * first + 6 * (b - first)
    return begin, stride


@compiled
def products(starts: Int64, rows: Int32) -> tuple[Int64, Int64]:
    """Where the products of each panel's blocks go: with block j below the diagonal, into the panel of its row.

    Returns where the runs of each block begin among all (B + 1,), and the runs (R, 3): what goes on in one piece, from
    which row of its panel to which, and where in memory it comes to lie.
    """
    count, most = len(starts) - 1, 0
    for k in range(count):
        below = starts[k + 1] - starts[k] - 1
        most += below * (below + 1) // 2
    begins, runs, n = np.zeros(len(rows) + 1, np.int64), np.empty((most, 3), np.int64), 0
    for k in range(count):
        for j in range(starts[k], starts[k + 1]):
            begins[j] = n
            if j == starts[k]:
                continue
            first = b = starts[rows[j]]
            for i in range(j, starts[k + 1]):
                while rows[b] != rows[i]:
                    b += 1
                row, goal = 6 * (i - starts[k]), 36 * first + 6 * (b - first)
                if n > begins[j] and runs[n - 1, 1] == row and runs[n - 1, 2] + row - runs[n - 1, 0] == goal:
                    runs[n - 1, 1] = row + 6
                else:
                    runs[n, 0], runs[n, 1], runs[n, 2] = row, row + 6, goal
                    n += 1
    begins[len(rows)] = n
    return begins, runs[:n].copy()


@compiled
def factorise(matrix: Float32, starts: Int64, rows: Int32, begins: Int64, runs: Int64, damping: float) -> bool:
    """Factorise a ``matrix`` (36 B,) in place; false where it is not positive definite to the precision at hand.

    ``damping`` is relative to the diagonal; what neither data nor an edge holds has a zero there, and is kept where it
    is by a floor: one for turns and one for shifts, which have a unit of their own each.
    """
    largest, longest = np.full(2, 1e-30), 0
    for k in range(len(starts) - 1):
        length = 6 * (starts[k + 1] - starts[k])
        longest = max(longest, length)
        for c in range(6):
            largest[c // 3] = max(largest[c // 3], matrix[36 * starts[k] + c * length + c])
    for k in range(len(starts) - 1):
        for c in range(6):
            diagonal = 36 * starts[k] + c * (6 * (starts[k + 1] - starts[k]) + 1)
            matrix[diagonal] = (1 + damping) * matrix[diagonal] + 1e-7 * largest[c // 3]
    product = np.empty(longest, np.float32)
    for k in range(len(starts) - 1):
        blocks = starts[k + 1] - starts[k]
        length = 6 * blocks
        panel = matrix[36 * starts[k] : 36 * starts[k + 1]].reshape(6, length)
        for c in range(6):
            for b in range(c):
                share = panel[b, c]
                for r in range(length):
                    panel[c, r] -= share * panel[b, r]
            if not panel[c, c] > 0:
                return False
            scale = np.float32(1) / np.sqrt(panel[c, c])
            for r in range(length):
                panel[c, r] *= scale
        for j in range(1, blocks):
            block = starts[k] + j
            stride = 6 * (starts[rows[block] + 1] - starts[rows[block]])
            for c in range(6):
                s, t, u = panel[0, 6 * j + c], panel[1, 6 * j + c], panel[2, 6 * j + c]
                v, w, x = panel[3, 6 * j + c], panel[4, 6 * j + c], panel[5, 6 * j + c]
                # Indices without a sign cannot count from the end, so these loops take eight numbers at a time.
                for r in range(uint64(6 * j), uint64(length)):
                    product[r] = (s * panel[0, r] + t * panel[1, r] + u * panel[2, r]) + (
                        v * panel[3, r] + w * panel[4, r] + x * panel[5, r]
                    )
                for n in range(begins[block], begins[block + 1]):
                    source, goal = uint64(runs[n, 0]), uint64(runs[n, 2] + c * stride)
                    for r in range(uint64(runs[n, 1] - runs[n, 0])):
                        matrix[goal + r] -= product[source + r]
    return True


@compiled
def solved(matrix: Float32, starts: Int64, rows: Int32, place: Int64, right: Float64) -> Float64:
    """The solution (P, 6) by a factorised ``matrix``, for ``right`` (P, 6); nodes have their ``place`` (P,) in it."""
    count = len(starts) - 1
    values, result = np.empty(6 * count, np.float32), np.empty((count, 6))
    for k in range(count):
        for c in range(6):
            values[6 * place[k] + c] = right[k, c]
    for k in range(count):
        length, own = 6 * (starts[k + 1] - starts[k]), 36 * starts[k]
        for c in range(6):
            for b in range(c):
                values[6 * k + c] -= matrix[own + b * length + c] * values[6 * k + b]
            values[6 * k + c] /= matrix[own + c * length + c]
        s, t, u = values[6 * k], values[6 * k + 1], values[6 * k + 2]
        v, w, x = values[6 * k + 3], values[6 * k + 4], values[6 * k + 5]
        for b in range(1, starts[k + 1] - starts[k]):
            to = 6 * rows[starts[k] + b]
            for r in range(6):
                at = own + 6 * b + r
                values[to + r] -= (s * matrix[at] + t * matrix[at + length] + u * matrix[at + 2 * length]) + (
                    v * matrix[at + 3 * length] + w * matrix[at + 4 * length] + x * matrix[at + 5 * length]
                )
    for k in range(count - 1, -1, -1):
        length, own = 6 * (starts[k + 1] - starts[k]), 36 * starts[k]
        s, t, u = values[6 * k], values[6 * k + 1], values[6 * k + 2]
        v, w, x = values[6 * k + 3], values[6 * k + 4], values[6 * k + 5]
        for b in range(1, starts[k + 1] - starts[k]):
            source = 6 * rows[starts[k] + b]
            for r in range(6):
                at, value = own + 6 * b + r, values[source + r]
                s -= matrix[at] * value
                t -= matrix[at + length] * value
                u -= matrix[at + 2 * length] * value
                v -= matrix[at + 3 * length] * value
                w -= matrix[at + 4 * length] * value
                x -= matrix[at + 5 * length] * value
        values[6 * k], values[6 * k + 1], values[6 * k + 2] = s, t, u
        values[6 * k + 3], values[6 * k + 4], values[6 * k + 5] = v, w, x
        for c in range(5, -1, -1):
            for b in range(c + 1, 6):
                values[6 * k + c] -= matrix[own + c * length + b] * values[6 * k + b]
            values[6 * k + c] /= matrix[own + c * length + c]
    for k in range(count):
        for c in range(6):
            result[k, c] = values[6 * place[k] + c]
    return result
