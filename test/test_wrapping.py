"""What wrapping keeps: the outside where something lies close below it, and sheets that have no inside."""

from __future__ import annotations

import numpy as np

from nr_tracking.data.clips import face_normals, is_closed
from nr_tracking.data.distance import nearest_point, winding_number
from nr_tracking.data.remeshing import exposed, surface_of_field, wrap

Mesh = tuple[np.ndarray, np.ndarray]


def cube(half: float, cell: float = 0.1) -> Mesh:
    """Closed, outward, with even triangles, and turned so that no face of it follows the grid."""
    steps = np.linspace(-half, half, round(2 * half / cell) + 1)
    u, v = (values.ravel() for values in np.meshgrid(steps, steps, indexing="ij"))
    index = np.arange(len(u)).reshape(len(steps), -1)
    a, b, c, d = (part.ravel() for part in (index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]))
    square = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    places, faces = [], []
    for axis in range(3):
        for side in (1, -1):
            place = np.empty((len(u), 3))
            place[:, axis], place[:, axis - 2], place[:, axis - 1] = side * half, u, v
            faces.append((square if side > 0 else square[:, ::-1]) + len(u) * len(places))
            places.append(place)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    return np.concatenate(places) @ turn.T, np.concatenate(faces)


def joined(*meshes: Mesh) -> Mesh:
    starts = np.cumsum([0, *[len(vertices) for vertices, _ in meshes]])
    faces = [faces + start for (_, faces), start in zip(meshes, starts, strict=False)]
    return np.concatenate([vertices for vertices, _ in meshes]), np.concatenate(faces)


def ball(radius: float) -> Mesh:
    return surface_of_field(lambda q: np.linalg.norm(q, axis=1) - radius, np.full(3, -radius), np.full(3, radius), 0.04)


def test_what_lies_below_the_surface_does_not_pull_it_in() -> None:
    cell = 0.06
    cloth, skin = cube(0.5), cube(0.5 - 0.4 * cell)
    vertices, faces = joined(cloth, skin)
    outer = exposed(vertices, faces, cell)
    assert outer.max() < len(cloth[0]) and len(outer) == len(cloth[1]), "all of the cloth, nothing of the skin"
    wrapped, wrapped_faces = wrap(vertices, faces, cell)
    distance, face, _ = nearest_point(wrapped, *cloth)
    # Marching cubes cuts edges and corners of a cube, so they are left out.
    flat = np.sort(np.abs(wrapped @ np.linalg.pinv(face_axes(cloth))), 1)[:, 1] < 0.42
    assert is_closed(wrapped_faces) and distance[flat].max() < 0.1 * cell
    middle = flat[wrapped_faces].all(1)
    slant = (face_normals(wrapped, wrapped_faces) * face_normals(*cloth)[face[wrapped_faces[:, 0]]]).sum(1)[middle]
    assert np.degrees(np.arccos(np.clip(slant, -1, 1))).max() < 5, "no ridges"


def face_axes(mesh: Mesh) -> np.ndarray:
    """The three directions of a cube's edges, one a row."""
    normals = face_normals(*mesh)
    return normals[[0, len(normals) // 3, 2 * len(normals) // 3]]


def test_all_faces_of_a_soup_count_where_none_bounds_anything() -> None:
    vertices, faces = ball(0.5)
    inverted = vertices, faces[:, ::-1]
    assert len(exposed(*inverted, 0.05)) == 0
    assert is_closed(wrap(*joined(inverted, inverted, ball(0.2), ball(0.3), ball(0.4)), 0.06)[1])


def test_a_sheet_becomes_solid_a_little_thicker_than_a_cell() -> None:
    cell = 0.05
    head = ball(0.3)
    steps = np.linspace(-0.5, 0.2, 8)
    y, z = (values.ravel() for values in np.meshgrid(steps, np.linspace(-0.25, 0.25, 8), indexing="ij"))
    index = np.arange(64).reshape(8, 8)
    a, b, c, d = (part.ravel() for part in (index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]))
    hair = np.stack([0.32 + 0.1 * (0.2 - y), y, z], 1), np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    vertices, faces = joined(head, hair)
    body, sheet = faces[: len(head[1])], faces[len(head[1]) :]
    wrapped, wrapped_faces = wrap(vertices, body, cell, sheet)
    assert is_closed(wrapped_faces)
    # Corners and rims may be rounded off.
    inside = hair[0][(np.abs(z) < 0.19) & (y > -0.45) & (y < 0.15)]
    normal = face_normals(*hair)[0]
    assert (winding_number(inside, wrapped, wrapped_faces) > 0.5).all()
    free = inside[inside[:, 1] < -0.35]
    for off, within in ((0.45, True), (0.8, False)):
        for side in (normal, -normal):
            assert ((winding_number(free + off * cell * side, wrapped, wrapped_faces) > 0.5) == within).all()
    # The ball is as round as without hair where there is none.
    bare = wrapped[(wrapped[:, 0] < 0.1) & (np.abs(wrapped[:, 1]) < 0.25)]
    assert np.abs(np.linalg.norm(bare, axis=1) - 0.3).max() < 0.1 * cell
