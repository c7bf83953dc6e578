"""Pieces of cloth and single hands: closed, as thick as they should be, as long as they were cut, and moving."""

from __future__ import annotations

import numpy as np
import pytest

from nr_tracking.data.clips import Clip, is_closed, largest_edge
from nr_tracking.data.distance import signed_distance
from nr_tracking.data.fabric import WAYS, fabric_clip, grid, thickened_sheet
from nr_tracking.data.families import FAMILIES
from nr_tracking.data.hands import FINGERS, draw_hand, hand_clip, hand_motion
from nr_tracking.data.splits import Split


def test_a_flat_sheet_becomes_a_slab_of_the_thickness_that_was_asked_for() -> None:
    place, faces = grid(1.0, 0.6, 0.05)
    flat = np.column_stack([place, np.zeros(len(place))])
    vertices, closed = thickened_sheet(flat[None], faces, 0.02)
    assert is_closed(closed)
    depth = np.array([-0.03, -0.0101, -0.005, 0.0, 0.008, 0.0101, 0.05])
    inner = np.column_stack([np.full(7, 0.1), np.full(7, -0.3), depth])
    found = signed_distance(inner, vertices[0], closed)
    np.testing.assert_allclose(found, np.abs(depth) - 0.01, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_cloth_is_closed_keeps_its_length_and_moves(way: str) -> None:
    clip = fabric_clip(np.random.default_rng(5), 9, way=way, body=np.random.default_rng(3))
    assert clip.family == "cloth" and clip.name.startswith(way)
    assert is_closed(clip.faces) and np.isfinite(clip.vertices).all()
    half = clip.vertices.shape[1] // 2
    middle = 0.5 * (clip.vertices[:, :half] + clip.vertices[:, half:])
    thickness = np.linalg.norm(clip.vertices[:, :half] - clip.vertices[:, half:], axis=2)
    np.testing.assert_allclose(thickness, np.median(thickness), rtol=1e-3)
    inside = clip.faces[(clip.faces < half).all(1)]
    lengths = np.linalg.norm(middle[:, inside[:, 0]] - middle[:, inside[:, 1]], axis=2)
    # Half of all edges keep their length within a tenth from the first frame to the last; what is pinned may not.
    assert np.median(np.abs(lengths[-1] / lengths[0] - 1)) < 0.1
    moved = np.linalg.norm(middle[-1] - middle[0], axis=1)
    assert moved.max() > 0.01 * largest_edge(clip.vertices[0])


def test_cloth_that_nobody_holds_up_hangs_below_what_holds_it() -> None:
    clip = fabric_clip(np.random.default_rng(1), 3, way="handful")
    heights = clip.vertices[0, :, 1]
    assert heights.max() < 0.1 * np.ptp(heights) + 0.05 and heights.min() < -0.15


def test_a_hand_closes_its_fingers_over_the_palm() -> None:
    hand = draw_hand(np.random.default_rng(2))
    at = {name: joint for joint, name in enumerate(hand.skeleton.names)}
    assert is_closed(hand.faces) and len(at) == 2 + 3 * len(FINGERS)
    np.testing.assert_allclose(hand.weights.sum(1), 1, atol=1e-6)
    tips = [int(np.argmin(np.linalg.norm(hand.vertices - hand.skeleton.tails[at[f"{f}3"]], axis=1))) for f in FINGERS]
    palm = hand.skeleton.heads[at["palm"]] + np.array([0, 0.25, 0]) * np.ptp(hand.skeleton.tails[:, 1])

    straight = np.linalg.norm(hand.vertices[tips] - palm, axis=1)
    nearest = np.full(len(tips), np.inf)
    for seed in range(12):
        world, root = hand_motion(hand.skeleton, np.random.default_rng(seed), np.arange(20) / 10)
        moving = hand.posed("gesture", world, root, 10.0, np.random.default_rng(0)).vertices
        # Seen from the palm: what the arm does is taken away.
        own = np.einsum("tij,tvi->tvj", world[:, at["palm"]], moving - moving.mean(1, keepdims=True))
        where = own[:, tips] - own[:, [int(np.argmin(np.linalg.norm(hand.vertices - palm, axis=1)))]]
        nearest = np.minimum(nearest, np.linalg.norm(where, axis=2).min(0))
    assert (nearest[1:] < 0.6 * straight[1:]).all(), "in a fist, finger tips are near the palm"


@pytest.mark.parametrize("family", ["cloth", "hand"])
def test_a_number_always_gives_the_same_body_and_splits_share_none(family: str) -> None:
    def drawn(split: Split) -> Clip:
        return FAMILIES[family](np.random.default_rng(4), split)(np.random.default_rng(6), 2)

    val, test, again = drawn("val"), drawn("test"), drawn("val")
    np.testing.assert_array_equal(val.vertices, again.vertices)
    assert val.identity != test.identity
    assert val.vertices.shape != test.vertices.shape or not np.allclose(val.vertices, test.vertices)


def test_a_seed_gives_the_same_gesture() -> None:
    first, again = (hand_clip(np.random.default_rng(7), 3) for _ in range(2))
    np.testing.assert_array_equal(first.vertices, again.vertices)
