import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nr_tracking.evaluation.reliability import reliability
from nr_tracking.json_text import json_text
from nr_tracking.tracking.confidence import error_limit
from nr_tracking.types import InputError


def test_a_confidence_that_is_the_probability_lies_on_the_diagonal():
    rng = np.random.default_rng(0)
    confidence = rng.random(40_000)
    error = np.where(rng.random(40_000) < confidence, 0.01, 0.05)
    curve = reliability(confidence, error, 0.03)
    assert np.allclose(curve.measured, np.arange(10) / 10 + 0.05, atol=0.03)
    assert curve.gap < 0.02 and curve.largest_gap < 0.03
    assert curve.share_within == pytest.approx(0.5, abs=0.01)
    # AUROC of p against Bernoulli(p), p uniform: the mean of max over two draws, 5/6.
    assert curve.auroc == pytest.approx(5 / 6, abs=0.01)


def test_a_confidence_that_says_too_much_shows_in_the_gap_and_not_in_the_order():
    rng = np.random.default_rng(1)
    honest = rng.random(20_000)
    error = np.where(rng.random(20_000) < honest, 0.0, 1.0)
    curve = reliability(np.sqrt(honest), error, 0.5)
    assert curve.auroc == pytest.approx(reliability(honest, error, 0.5).auroc, abs=1e-12)
    assert curve.gap == pytest.approx(1 / 6, abs=0.01)  # mean of sqrt(p) - p


def test_the_order_is_perfect_reversed_or_unknown():
    error = np.array([0.0, 0.0, 1.0, 1.0])
    assert reliability(np.array([0.9, 0.8, 0.2, 0.1]), error, 0.5).auroc == 1.0
    assert reliability(np.array([0.1, 0.2, 0.8, 0.9]), error, 0.5).auroc == 0.0
    assert reliability(np.full(4, 0.5), error, 0.5).auroc == 0.5
    assert np.isnan(reliability(np.array([0.1, 0.2]), np.zeros(2), 0.5).auroc)


def test_points_without_truth_do_not_count_and_the_limit_grows_with_distance():
    confidence = np.array([[0.95, 0.95], [np.nan, 0.15]])
    error = np.array([[0.02, np.nan], [0.0, 0.04]])
    curve = reliability(confidence, error, error_limit(np.array([[2.0, 2.0], [2.0, 2.0]])))
    assert curve.counts.sum() == 2 and curve.measured[9] == 1 and curve.measured[1] == 0 and curve.auroc == 1
    assert reliability(confidence, error, error_limit(np.array(4.0))).measured[1] == 1
    # The very same limit as in the calibration of tracks, also where a point comes to lie at or behind the camera.
    assert reliability(np.array([0.95]), np.array([0.001]), error_limit(np.array([-0.02]))).measured[9] == 1


def test_confidences_out_of_range_are_refused():
    with pytest.raises(InputError) as fault:
        reliability(np.array([0.5, 1.2]), np.zeros(2), 1.0)
    assert fault.value.reason == "bad_confidence"
    with pytest.raises(ValueError, match="0 bins"):
        reliability(np.zeros(2), np.zeros(2), 1.0, bins=0)


def test_nothing_to_count_is_no_number():
    curve = reliability(np.empty(0), np.empty(0), 1.0)
    assert np.isnan([curve.gap, curve.largest_gap, curve.share_within, curve.auroc]).all()
    written = json.loads(json_text(curve.as_dict()), parse_constant=pytest.fail)
    assert written["auroc"] is None and written["gap"] is None


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 2)), min_size=1, max_size=40))
def test_the_curve_adds_up(pairs):
    confidence, error = np.array(pairs).T
    curve = reliability(confidence, error, 1.0, bins=7)
    filled = curve.counts > 0
    assert (curve.counts[filled] * curve.measured[filled]).sum() == pytest.approx((error <= 1).sum())
    assert (curve.counts[filled] * curve.stated[filled]).sum() == pytest.approx(confidence.sum())
    good, bad = confidence[error <= 1], confidence[error > 1]
    if len(good) and len(bad):
        pairwise = (good[:, None] > bad).mean() + 0.5 * (good[:, None] == bad).mean()
        assert curve.auroc == pytest.approx(pairwise)
