"""A room around the subject: behind it, level, still, and in nobody's way."""

from __future__ import annotations

import numpy as np
from bending_body import CAMERA, bending_window

from nr_tracking.data.clutter import FARTHEST_RETURN_M, furnished
from nr_tracking.sensing.camera import back_project


def test_a_room_is_behind_and_beside_the_subject_and_stands_still() -> None:
    window = bending_window(1, frames=2)
    returns = []
    for seed in range(6):
        full = furnished(window.depth, window.surface, window.up, CAMERA, np.random.default_rng(seed))
        np.testing.assert_array_equal(full[window.depth > 0], window.depth[window.depth > 0])
        empty = (window.depth == 0).all(0)
        np.testing.assert_array_equal(full[0][empty], full[1][empty])
        assert full.max() < FARTHEST_RETURN_M
        returns.append((full[0][empty] > 0).mean())
        height = back_project(full[0], CAMERA)[empty & (full[0] > 0)] @ window.up
        lowest = (window.surface @ window.up).min()
        assert height.min() > lowest - 0.02, "nothing is under the floor"
        assert (np.abs(height - lowest) < 0.02).mean() > 0.02, "and there is a floor"
    assert np.mean(returns) > 0.8
    rooms = [furnished(window.depth, window.surface, window.up, CAMERA, np.random.default_rng(s)) for s in (0, 0, 1)]
    assert np.array_equal(rooms[0], rooms[1]) and not np.array_equal(rooms[0], rooms[2])
