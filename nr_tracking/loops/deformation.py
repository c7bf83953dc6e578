"""What a deformation graph does to points and edges on it: twins of :mod:`nr_tracking.deformation.normal_equations`.

``index`` and ``weight`` (S, B) are the nodes that move each sample and their shares; ``nodes`` (P, 3), ``rotations``
(P, 3, 3) and ``translations`` (P, 3) the motion ``x -> R_k (x - node_k) + u_k``; ``edges`` (E, 2) the graph's.
"""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import compiled
from nr_tracking.types import Float64, Int32, Int64


@compiled
def carried(
    index: Int64,
    weight: Float64,
    nodes: Float64,
    rotations: Float64,
    translations: Float64,
    points: Float64,
    normals: Float64,
) -> tuple[Float64, Float64]:
    """Samples (S, 3) and their unit normals (S, 3), moved and turned by the blend of their nodes' motions."""
    maps = _maps(nodes, rotations, translations)
    moved, turned, blend = np.empty(points.shape), np.empty(points.shape), np.empty(12)
    for s in range(len(points)):
        for c in range(12):
            blend[c] = 0
        for b in range(index.shape[1]):
            share, node = weight[s, b], 12 * index[s, b]
            for c in range(12):
                blend[c] += share * maps[node + c]
        x, y, z = points[s, 0], points[s, 1], points[s, 2]
        u, v, w = normals[s, 0], normals[s, 1], normals[s, 2]
        squared = 0.0
        for i in range(3):
            moved[s, i] = blend[3 * i] * x + blend[3 * i + 1] * y + blend[3 * i + 2] * z + blend[9 + i]
            turned[s, i] = blend[3 * i] * u + blend[3 * i + 1] * v + blend[3 * i + 2] * w
            squared += turned[s, i] * turned[s, i]
        length = max(np.sqrt(squared), 1e-12)
        for i in range(3):
            turned[s, i] /= length
    return moved, turned


@compiled
def disagreement(
    index: Int64,
    weight: Float64,
    nodes: Float64,
    rotations: Float64,
    translations: Float64,
    points: Float64,
    moved: Float64,
) -> Float64:
    """How far from where ``points`` went, ``moved`` (S, 3), each one's nodes would put it: root mean square (S,)."""
    maps = _maps(nodes, rotations, translations)
    apart = np.empty(len(points))
    for s in range(len(points)):
        x, y, z = points[s, 0], points[s, 1], points[s, 2]
        squared = 0.0
        for b in range(index.shape[1]):
            node = 12 * index[s, b]
            for i in range(3):
                k = node + 3 * i
                along = maps[k] * x + maps[k + 1] * y + maps[k + 2] * z + maps[node + 9 + i] - moved[s, i]
                squared += weight[s, b] * along * along
        apart[s] = np.sqrt(squared)
    return apart


@compiled
def _maps(nodes: Float64, rotations: Float64, translations: Float64) -> Float64:
    """Each node's motion as ``x -> A x + b``, twelve numbers a node: A by rows, then b."""
    maps = np.empty(12 * len(nodes))
    for k in range(len(nodes)):
        for i in range(3):
            offset = translations[k, i]
            for j in range(3):
                maps[12 * k + 3 * i + j] = rotations[k, i, j]
                offset -= rotations[k, i, j] * nodes[k, j]
            maps[12 * k + 9 + i] = offset
    return maps


@compiled
def edge_arms(edges: Int32, lengths: Float64, nodes: Float64) -> Float64:
    """Arms (2E, 3) of directed edges, as :func:`nr_tracking.deformation.normal_equations.edge_arms` has them."""
    count = len(edges)
    arms = np.empty((2 * count, 3))
    for e in range(count):
        near, far = edges[e, 0], edges[e, 1]
        x, y, z = nodes[far, 0] - nodes[near, 0], nodes[far, 1] - nodes[near, 1], nodes[far, 2] - nodes[near, 2]
        scale = lengths[e] / max(np.sqrt(x * x + y * y + z * z), 1e-12)
        arms[e, 0], arms[e, 1], arms[e, 2] = scale * x, scale * y, scale * z
        for axis in range(3):
            arms[count + e, axis] = -arms[e, axis]
    return arms


@compiled
def bending(
    edges: Int32, arms: Float64, rotations: Float64, translations: Float64, limit: float, held: float
) -> tuple[Float64, Float64, Float64, float]:
    """Turned arms and gaps (2E, 3) of directed edges, their weights (2E,), and the energy of all.

    ``limit`` and the share ``held`` are those of :func:`nr_tracking.deformation.normal_equations.robust_rigidity`.
    """
    count = len(edges)
    turned, gap, weight = np.empty((2 * count, 3)), np.empty((2 * count, 3)), np.ones(2 * count)
    total = 0.0
    for d in range(2 * count):
        back = d >= count
        e = d - count if back else d
        near, far = (edges[e, 1], edges[e, 0]) if back else (edges[e, 0], edges[e, 1])
        squared = 0.0
        for i in range(3):
            along = 0.0
            for j in range(3):
                along += rotations[near, i, j] * arms[d, j]
            turned[d, i] = along
            gap[d, i] = along + translations[near, i] - translations[far, i]
            squared += gap[d, i] * gap[d, i]
        if limit == 0:
            total += squared
        else:
            ratio = squared / (limit * limit)
            weight[d] = held + (1 - held) / (1 + ratio)
            total += held * squared + (1 - held) * (limit * limit) * np.log1p(ratio)
    return turned, gap, weight, total
