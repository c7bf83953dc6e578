"""The shipped weights on a body that they never saw: surfaces are closed and right, tracks beat doing nothing."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy")  # the demo, which makes the recording, drives nodes

from nr_tracking import Tracker, load_config
from nr_tracking.commands.demo import make_recording
from nr_tracking.data.clips import is_closed
from nr_tracking.evaluation.metrics import Mesh, intersection_over_union

FRAMES = 9


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    sequence = make_recording(tmp_path_factory.mktemp("end") / "sequence", FRAMES, seed=77)
    tracker = Tracker(load_config("lite", tracks={"count": 1000}, mesh={"upsample": 1}))
    results = [result for frame in sequence.frames() for result in tracker.push(frame)] + tracker.flush()
    return sequence.ground_truth(), results


def test_surfaces_are_closed_outward_and_overlap_the_truth(tracked):
    truth, results = tracked
    assert len(results) == FRAMES
    overlaps = []
    for vertices, result in zip(truth.vertices, results, strict=True):
        surface = result.surface
        assert is_closed(surface.faces)
        a, b, c = surface.vertices[surface.faces].transpose(1, 0, 2)
        assert (np.cross(a, b) * c).sum() > 0
        low, high = vertices.min(axis=0), vertices.max(axis=0)
        points = np.random.default_rng(0).uniform(low - 0.02, high + 0.02, (20_000, 3))
        overlaps.append(
            intersection_over_union(Mesh(surface.vertices, surface.faces), Mesh(vertices, truth.faces), points)
        )
    assert np.mean(overlaps) > 0.7


def test_tracks_move_with_the_body(tracked):
    truth, results = tracked
    begun, ended = results[0].tracks, results[-1].tracks
    kept, at_first, at_last = np.intersect1d(begun.ids, ended.ids, return_indices=True)
    assert len(kept) > 0.95 * len(begun.ids)
    first, last = begun.positions[at_first], ended.positions[at_last]
    nearest = np.array([np.linalg.norm(truth.vertices[0] - point, axis=1).argmin() for point in first])
    goal = truth.vertices[-1][nearest] - truth.vertices[0][nearest] + first
    error = np.linalg.norm(last - goal, axis=1).mean()
    still = np.linalg.norm(first - goal, axis=1).mean()
    assert error < 0.6 * still
