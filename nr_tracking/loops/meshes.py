"""What is done to a triangle mesh once it is found: twins of :mod:`nr_tracking.fields.settling` and ``meshing``."""

from __future__ import annotations

import numpy as np

from nr_tracking.loops.compiler import compiled, inlined
from nr_tracking.loops.unions import root_of
from nr_tracking.types import Bool, Float32, Float64, Int32, Int64


@compiled
def spread(places: Float64, faces: Int32, movable: Bool, rounds: int, share: float) -> None:
    """Move the ``movable`` vertices (V, 3) of a closed mesh along itself to the middle of their neighbours, in place.

    ``rounds`` times a ``share`` of the way; ``faces`` (F, 3). On a closed mesh each edge is met twice, once in either
    direction: that gives all neighbours of a vertex, once each.
    """
    count = len(places)
    degree, total, normal = np.zeros(count, np.int64), np.zeros((count, 3)), np.zeros((count, 3))
    for f in range(len(faces)):
        for k in range(3):
            degree[faces[f, k]] += 1
    for _ in range(rounds):
        total[:] = 0
        normal[:] = 0
        for f in range(len(faces)):
            x, y, z = _across(places, faces, f)
            for k in range(3):
                begin, end = faces[f, k], faces[f, (k + 1) % 3]
                normal[begin, 0] += x
                normal[begin, 1] += y
                normal[begin, 2] += z
                for axis in range(3):
                    total[begin, axis] += places[end, axis]
        for v in range(count):
            if not movable[v] or degree[v] == 0:
                continue
            x, y, z = normal[v]
            length = max(np.sqrt(x * x + y * y + z * z), 1e-30)
            x, y, z = x / length, y / length, z / length
            a = total[v, 0] / degree[v] - places[v, 0]
            b = total[v, 1] / degree[v] - places[v, 1]
            c = total[v, 2] / degree[v] - places[v, 2]
            outward = a * x + b * y + c * z
            places[v, 0] += share * (a - outward * x)
            places[v, 1] += share * (b - outward * y)
            places[v, 2] += share * (c - outward * z)


@compiled
def middles(places: Float64, faces: Int32) -> Float32:
    """The middles (F, 3) of faces (F, 3) of vertices at ``places`` (V, 3)."""
    result = np.empty((len(faces), 3), np.float32)
    for f in range(len(faces)):
        for axis in range(3):
            total = places[faces[f, 0], axis] + places[faces[f, 1], axis] + places[faces[f, 2], axis]
            result[f, axis] = total / 3
    return result


@compiled
def moved_out(places: Float64, faces: Int32, movable: Bool, missed: Float32, farthest: float, share: float) -> Float32:
    """Vertices (V, 3) moved along their normals by a ``share`` of what the middles of their faces (F, 3) miss.

    ``missed`` (F,), the signed distance there, counts up to ``farthest``.
    """
    count = len(places)
    normal, weight, error = np.zeros((count, 3)), np.zeros(count), np.zeros(count)
    for f in range(len(faces)):
        x, y, z = _across(places, faces, f)
        area = np.sqrt(x * x + y * y + z * z)
        off = min(max(float(missed[f]), -farthest), farthest)
        for k in range(3):
            v = faces[f, k]
            normal[v, 0] += x
            normal[v, 1] += y
            normal[v, 2] += z
            weight[v] += area
            error[v] += area * off
    result = np.empty((count, 3), np.float32)
    for v in range(count):
        x, y, z = normal[v]
        length = max(np.sqrt(x * x + y * y + z * z), 1e-30)
        step = share * error[v] / (max(weight[v], 1e-30) * length) if movable[v] else 0.0
        result[v, 0] = places[v, 0] - step * x
        result[v, 1] = places[v, 1] - step * y
        result[v, 2] = places[v, 2] - step * z
    return result


@compiled
def components(faces: Int32, count: int) -> tuple[int, Int64]:
    """How many connected parts ``count`` vertices form by faces (F, 3), and which each belongs to (V,).

    Parts are numbered by their first vertex. Trees of vertices that faces join, paths halved on the way to the root.
    """
    above = np.arange(count)
    for f in range(len(faces)):
        for k in range(1, 3):
            a, b = root_of(above, faces[f, 0]), root_of(above, faces[f, k])
            above[max(a, b)] = min(a, b)
    labels, found = np.empty(count, np.int64), 0
    for v in range(count):  # a root is the first of its part
        root = root_of(above, v)
        if root == v:
            labels[v] = found
            found += 1
        else:
            labels[v] = labels[root]
    return found, labels


@compiled
def sizes(places: Float64, faces: Int32, labels: Int64, count: int) -> tuple[Float64, Float64]:
    """Twice the area and six times the volume (K,) of each of ``count`` parts of a closed mesh; ``labels`` (V,)."""
    areas, volumes = np.zeros(count), np.zeros(count)
    for f in range(len(faces)):
        x, y, z = _across(places, faces, f)
        first = faces[f, 0]
        areas[labels[first]] += np.sqrt(x * x + y * y + z * z)
        volumes[labels[first]] += x * places[first, 0] + y * places[first, 1] + z * places[first, 2]
    return areas, volumes


@inlined
def _across(places: Float64, faces: Int32, f: int) -> tuple[float, float, float]:
    """The normal of a face, as long as twice its area."""
    a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
    px, py, pz = places[b, 0] - places[a, 0], places[b, 1] - places[a, 1], places[b, 2] - places[a, 2]
    qx, qy, qz = places[c, 0] - places[a, 0], places[c, 1] - places[a, 1], places[c, 2] - places[a, 2]
    return py * qz - pz * qy, pz * qx - px * qz, px * qy - py * qx
