"""One closed surface from a soup of parts, or from an implicit function.

Characters come as a body with clothes, hair and shoes around it, sheets without thickness and pieces that pass through
each other. A depth camera sees none of that: it sees the outside. So every character is wrapped once, in its rest
pose, into one closed surface of even triangles, and whatever its parts carried is interpolated onto it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import map_coordinates
from skimage.measure import marching_cubes

from nr_tracking.data.clips import boundary_loops
from nr_tracking.data.distance import INSIDE, nearest_point, winding_number
from nr_tracking.normals import face_normals, vertex_normals

Field = Callable[[np.ndarray], np.ndarray]

_COARSE = 4
_SHEET = 0.6
"""Half the thickness of what has no inside, in cells: thinner sheets fall between the grid's points."""
_SKIN = 0.08
"""How far off a face is looked whether it is outside, in cells: about a millimetre on a person."""


def surface_of_field(field: Field, low: np.ndarray, high: np.ndarray, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """Zero level set of ``field``, a signed distance (Q, 3) -> (Q,), inside the box from ``low`` to ``high``.

    The field is asked on a grid four times coarser, and on the fine grid of ``cell`` metres only near its zero level.
    Returns a closed mesh, outward, of the parts larger than a twentieth of the largest.
    """
    low = low - 2 * _COARSE * cell
    size = np.ceil((high + 2 * _COARSE * cell - low) / (_COARSE * cell)).astype(int)
    coarse = field(_grid(low, size + 1, _COARSE * cell)).reshape(size + 1)
    fine_size = size * _COARSE + 1
    index = np.indices(tuple(fine_size.tolist())).reshape(3, -1)
    values = map_coordinates(coarse, index / _COARSE, order=1)
    close = np.abs(values) < 1.8 * _COARSE * cell
    values[close] = field(low + index[:, close].T * cell)
    vertices, faces, _, _ = marching_cubes(values.reshape(fine_size), 0.0)
    return _largest_parts(vertices * cell + low, faces.astype(np.int32))


def wrap(
    vertices: np.ndarray, faces: np.ndarray, cell: float, sheets: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The outside of a mesh (V, 3), (F, 3), which may be open or overlap itself, as one closed mesh.

    ``sheets`` (S, 3) over the same vertices have no inside, as hair has none: they become solid, a little thicker than
    a cell.
    """
    outer, half = exposed(vertices, faces, cell), _SHEET * cell

    def field(points: np.ndarray) -> np.ndarray:
        values = _signed(points, vertices, faces, outer)
        if sheets is None or not len(sheets):
            return values
        return np.minimum(values, nearest_point(points, vertices, sheets)[0] - half)

    used = vertices[np.unique(faces if sheets is None else np.vstack([faces, sheets]))]
    return surface_of_field(field, used.min(0) - half, used.max(0) + half, cell)


def exposed(vertices: np.ndarray, faces: np.ndarray, cell: float) -> np.ndarray:
    """Those of ``faces`` (F, 3) that bound the inside, at a corner at least or, larger than a cell, in their middle.

    Skin below cloth is near the surface and no part of it. Distances to it would make the level set waver with the
    grid's period.
    """
    used, corners = np.unique(faces, return_inverse=True)
    double = face_normals(vertices, faces).T
    large = (double**2).sum(1) > cell**4
    middle = vertices[faces[large]].mean(1) + _SKIN * cell * _unit(double[large])
    off = np.vstack([vertices[used] + _SKIN * cell * vertex_normals(vertices, faces)[used], middle])
    # Through a face the winding number grows by one: what is outside here is inside behind it, unless it is below zero.
    bounds = np.abs(winding_number(off, vertices, faces)) <= INSIDE
    keep = bounds[corners.reshape(-1, 3)].any(1)
    keep[large] |= bounds[len(used) :]
    return faces[keep]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-20)


def _signed(points: np.ndarray, vertices: np.ndarray, faces: np.ndarray, outer: np.ndarray) -> np.ndarray:
    """Distance (Q,) to ``outer``, negative inside of ``faces``; all of them where none is known to bound anything."""
    distance = nearest_point(points, vertices, outer if len(outer) else faces)[0]
    return np.where(winding_number(points, vertices, faces) > INSIDE, -distance, distance)


def carry(values: np.ndarray, vertices: np.ndarray, faces: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Interpolate ``values`` (V, C) of a mesh's vertices at the surface points nearest to ``points`` (Q, 3)."""
    _, face, place = nearest_point(points, vertices, faces)
    return np.einsum("qkc,qk->qc", values[faces[face]], _barycentric(place, vertices[faces[face]]))


def cap_holes(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Close every hole by a fan around a new vertex in its middle.

    Returns vertices, faces and the rims whose means the new vertices are, so that other values can follow.
    """
    loops = [loop for loop in boundary_loops(faces) if len(loop) >= 3]
    fans = [
        np.stack([loop, np.roll(loop, -1), np.full(len(loop), len(vertices) + i)], 1) for i, loop in enumerate(loops)
    ]
    middles = [vertices[loop].mean(0) for loop in loops]
    return np.vstack([vertices, *[m[None] for m in middles]]), np.vstack([faces, *fans]), loops


def smooth(
    vertices: np.ndarray, faces: np.ndarray, rounds: int, inward: float = 0.5, outward: float = -0.53
) -> np.ndarray:
    """Taubin smoothing (Taubin 1995): rounds off edges without shrinking the whole."""
    from scipy.sparse import coo_matrix, diags

    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    both = np.vstack([edges, edges[:, ::-1]])
    graph = coo_matrix((np.ones(len(both)), (both[:, 0], both[:, 1])), shape=(len(vertices),) * 2).tocsr()
    graph.data[:] = 1
    mean = diags(1 / np.maximum(np.asarray(graph.sum(1)).ravel(), 1)) @ graph
    for _ in range(rounds):
        for step in (inward, outward):
            vertices = vertices + step * (mean @ vertices - vertices)
    return vertices


def _grid(low: np.ndarray, size: np.ndarray, cell: float) -> np.ndarray:
    return low + np.indices(tuple(size.tolist())).reshape(3, -1).T * cell


def _barycentric(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Barycentric coordinates (Q, 3) of points (Q, 3) on triangles (Q, 3, 3)."""
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    p = points - corners[:, 0]
    aa, ab, bb, pa, pb = ((x * y).sum(1) for x, y in ((a, a), (a, b), (b, b), (p, a), (p, b)))
    scale = np.maximum(aa * bb - ab * ab, 1e-20)
    second, third = (bb * pa - ab * pb) / scale, (aa * pb - ab * pa) / scale
    weights = np.clip(np.stack([1 - second - third, second, third], 1), 0, 1)
    return weights / weights.sum(1, keepdims=True)


def _largest_parts(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = faces[:, [0, 1, 1, 2]].reshape(-1, 2)
    graph = coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(len(vertices),) * 2)
    label = connected_components(graph, directed=False)[1]
    count = np.bincount(label[faces[:, 0]])
    keep = (count >= count.max() / 20)[label[faces[:, 0]]]
    used, compact = np.unique(faces[keep], return_inverse=True)
    return vertices[used], compact.reshape(-1, 3).astype(np.int32)
