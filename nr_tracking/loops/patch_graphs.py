"""What is computed along the edges of a patch graph, and how its patches carry points: loops of the network's guess.

Twins of :class:`nr_tracking.deformation.decoder.FeaStConv` and :mod:`nr_tracking.deformation.blending`. ``senders`` and
``receivers`` (E,) are the ends of directed edges; ``neighbours`` (E', 2) are undirected ones, each named once.
"""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import compiled
from nr_tracking.types import Float32, Int32, Int64


@compiled
def mixed_messages(messages: Float32, choice: Float32, offset: Float32, senders: Int64, receivers: Int64) -> Float32:
    """The mean (P, O) over a node's incoming edges of the sender's ``messages`` (P, H, O), mixed as the edge chooses.

    It chooses by the softmax over heads of the difference of ``choice`` (P, H) at its ends and ``offset`` (H,).
    """
    nodes, heads, outputs = messages.shape
    total, degree = np.zeros((nodes, outputs), np.float32), np.zeros(nodes, np.float32)
    share = np.empty(heads, np.float32)
    for edge in range(len(senders)):
        sender, receiver = senders[edge], receivers[edge]
        most = np.float32(-np.inf)
        for head in range(heads):
            share[head] = choice[receiver, head] - choice[sender, head] + offset[head]
            most = max(most, share[head])
        whole = np.float32(0)
        for head in range(heads):
            share[head] = np.exp(share[head] - most)
            whole += share[head]
        into = total[receiver]
        for head in range(heads):
            part, message = share[head] / whole, messages[sender, head]
            for k in range(outputs):
                into[k] += part * message[k]
        degree[receiver] += np.float32(1)
    for node in range(nodes):
        for k in range(outputs):
            total[node, k] /= degree[node]
    return total


@compiled
def carried(
    points: Float32,
    owner: Int32,
    centres: Float32,
    widths: Float32,
    neighbours: Int32,
    rotations: Float32,
    translations: Float32,
) -> Float32:
    """``points`` (V, 3) where the motions of their own patch, ``owner`` (V,), and the adjacent ones carry them.

    ``centres`` (P, 3), ``widths`` (P,), ``rotations`` (P, 3, 3) and ``translations`` (P, 3) are those of patches.
    """
    starts, beside = _beside(len(centres), neighbours)
    weights = np.empty(len(neighbours) + 1)
    moved = np.empty(points.shape, np.float32)
    for v in range(len(points)):
        own = owner[v]
        first, last = starts[own], starts[own + 1]
        most = -np.inf
        for slot in range(first - 1, last):
            patch = own if slot < first else beside[slot]
            squared = 0.0
            for axis in range(3):
                squared += (points[v, axis] - centres[patch, axis]) ** 2
            weights[slot + 1 - first] = -0.5 * squared / widths[patch] ** 2
            most = max(most, weights[slot + 1 - first])
        x = y = z = whole = 0.0
        for slot in range(first - 1, last):
            patch = own if slot < first else beside[slot]
            weight, turn = np.exp(weights[slot + 1 - first] - most), rotations[patch]
            a, b, c = (
                points[v, 0] - centres[patch, 0],
                points[v, 1] - centres[patch, 1],
                points[v, 2] - centres[patch, 2],
            )
            x += weight * (turn[0, 0] * a + turn[0, 1] * b + turn[0, 2] * c + translations[patch, 0])
            y += weight * (turn[1, 0] * a + turn[1, 1] * b + turn[1, 2] * c + translations[patch, 1])
            z += weight * (turn[2, 0] * a + turn[2, 1] * b + turn[2, 2] * c + translations[patch, 2])
            whole += weight
        moved[v, 0], moved[v, 1], moved[v, 2] = x / whole, y / whole, z / whole
    return moved


@compiled
def _beside(count: int, neighbours: Int32) -> tuple[Int64, Int64]:
    """The adjacent patches of each of ``count``: those of patch k from ``starts[k]`` to ``starts[k + 1]``."""
    starts = np.zeros(count + 2, np.int64)
    for edge in range(len(neighbours)):
        for end in range(2):
            starts[neighbours[edge, end] + 2] += 1
    for patch in range(count):
        starts[patch + 2] += starts[patch + 1]
    beside = np.empty(2 * len(neighbours), np.int64)
    for edge in range(len(neighbours)):
        for end in range(2):
            patch = neighbours[edge, end]
            beside[starts[patch + 1]] = neighbours[edge, 1 - end]
            starts[patch + 1] += 1
    return starts[:-1], beside
