"""The condition of meshes: what is open, crowded, flipped or buried is found."""

from __future__ import annotations

import numpy as np

from nr_tracking.data.procedural import procedural_clip
from nr_tracking.data.remeshing import surface_of_field, wrap
from nr_tracking.data.watertight import examined


def ball() -> tuple[np.ndarray, np.ndarray]:
    return surface_of_field(lambda q: np.linalg.norm(q, axis=1) - 0.5, np.full(3, -0.5), np.full(3, 0.5), 0.08)


def test_a_closed_ball_has_nothing_wrong_with_it() -> None:
    condition = examined(*ball())
    assert condition.closed and condition.buried < 0.01


def test_what_is_wrong_is_counted() -> None:
    vertices, faces = ball()
    assert examined(vertices, faces[1:]).open_edges == 3 and not examined(vertices, faces[1:]).closed
    flipped = examined(vertices, np.concatenate([faces[:1, ::-1], faces[1:]]))
    assert flipped.flipped_edges == 3 and flipped.open_edges == 0
    assert examined(vertices, np.concatenate([faces, faces[:1]])).crowded_edges == 3


def test_overlapping_parts_bury_each_others_surface_until_they_are_wrapped() -> None:
    vertices, faces = ball()
    two = np.concatenate([vertices, np.add(vertices, [0.5, 0, 0])]), np.concatenate([faces, faces + len(vertices)])
    overlapping = examined(*two)
    # Spheres of radius 0.5 at distance 0.5: a cap of height 0.25 of each, a quarter of its area, is inside the other.
    assert overlapping.closed and abs(overlapping.buried - 0.25) < 0.05
    wrapped = examined(*wrap(*two, 0.06))
    assert wrapped.closed and wrapped.buried < 0.02


def test_a_generated_body_at_rest_is_closed_and_hardly_buried() -> None:
    clip = procedural_clip(np.random.default_rng(4), 1, kind="quadruped")
    condition = examined(clip.vertices[0].astype(float), clip.faces)
    assert condition.closed and condition.buried < 0.06
