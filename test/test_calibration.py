import numpy as np
import pytest
from moving_shapes import figure_distance, mesh_of, surface_of

from nr_tracking.config import RefinementConfig, TracksConfig
from nr_tracking.evaluation.calibration import Calibration, Observations
from nr_tracking.tracking.confidence import calibrated, states
from nr_tracking.tracking.tracks import PersistentTracks

WEIGHTS = np.array([-1.5, 0.8])


def drawn(count, seed, bias=0.4):
    """Points that fare as a known logistic function says; one in ten has no surface nearby, and is wrong."""
    rng = np.random.default_rng(seed)
    features, lost = rng.normal(size=(count, 2)), rng.random(count) < 0.1
    return Observations(features, lost, ~lost & (rng.random(count) < states(features, bias, WEIGHTS)))


def test_the_function_that_the_points_follow_is_found():
    found = Calibration.fitted([drawn(30_000, 0), drawn(30_000, 1)])
    assert found.bias == pytest.approx(0.4, abs=0.05) and np.allclose(found.weights, WEIGHTS, atol=0.05)
    curve = found.held_against([drawn(30_000, 2)])
    assert curve.largest_gap < 0.04 and curve.auroc > 0.75


def test_recordings_count_alike_however_many_points_they_have():
    bias = Calibration.fitted([drawn(60_000, 0, 2.0), drawn(2_000, 1, -2.0)]).bias
    assert abs(bias) < 0.5


def test_what_is_watched_makes_up_the_confidences():
    seen = []
    tracks = PersistentTracks(RefinementConfig(samples=300, nodes=40), TracksConfig(count=400))
    tracks.watch = seen.append
    found = tracks.start(surface_of(*mesh_of(figure_distance, 40)), 0)
    assert np.array_equal(calibrated(seen[0]), found.confidence)
    tracks.advance(surface_of(*mesh_of(figure_distance, 40, offset=0.3)), 33_000_000)
    assert len(seen) == 2 and seen[1].age.max() == 1
