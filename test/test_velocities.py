import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nr_tracking.tracking.velocities import MotionEstimator, velocities_of
from nr_tracking.types import InputError

PERIOD = 33_333_333
TENTH = 100_000_000


def stamps(frames, jitter=0.0):
    offset = np.random.default_rng(0).uniform(-jitter, jitter, frames)
    return np.round((np.arange(frames) + offset) * PERIOD).astype(np.int64) + 7_000_000_000


def arcs(times, tracks=200, seed=1):
    """Points on circles, each with its own speed: positions and velocities (T, N, 3)."""
    generator = np.random.default_rng(seed)
    radius, phase = generator.uniform(0.05, 0.4, tracks), generator.uniform(0, 2 * np.pi, tracks)
    turn = generator.uniform(1.0, 4.0, tracks)
    angle = phase + turn * (1e-9 * (times - times[0]))[:, None]
    still = np.zeros_like(angle)
    place = np.stack((radius * np.cos(angle), radius * np.sin(angle), 2.0 + still), axis=2)
    speed = np.stack((-radius * turn * np.sin(angle), radius * turn * np.cos(angle), still), axis=2)
    return place, speed


def watched(positions, times, ids=None):
    estimator = MotionEstimator()
    for frame, stamp in zip(positions, times, strict=True):
        estimator.observe(np.arange(len(frame)) if ids is None else ids, frame, int(stamp))
    return estimator


def length(vectors):
    return np.linalg.norm(vectors, axis=-1)


@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_a_constant_velocity_is_told_and_foretold_at_any_frame_rate(jitter):
    times, speed = stamps(25, jitter), np.array([[0.4, -1.2, 0.3], [0.0, 0.0, 0.0]])
    positions = 1.0 + (1e-9 * (times - times[0]))[:, None, None] * speed
    estimator = watched(positions, times)
    assert np.allclose(estimator.velocities, speed, atol=1e-4)
    places, error = estimator.predict(int(times[-1]) + TENTH)
    # The prior doubts that steps come true; the record of past predictions overrules most of the doubt.
    assert np.allclose(places, positions[-1] + 0.1 * speed, atol=0.03)
    assert np.all(length(places - positions[-1] - 0.1 * speed) <= 2 * error + 1e-6)
    assert np.allclose(velocities_of(positions, times), speed, atol=1e-4)


def test_velocities_of_a_recording_follow_parabolas_exactly_also_across_gaps():
    times = stamps(12, 0.3)
    time = (1e-9 * (times - times[0]))[:, None, None]
    speed, acceleration = np.array([[1.0, 0.0, -2.0], [0.3, 0.5, 0.0]]), np.array([[3.0, -5.0, 1.0], [0.0, 9.0, 2.0]])
    positions = 2.0 + speed * time + 0.5 * acceleration * time**2
    expected = speed + acceleration * time
    positions[4, 1] = positions[11, 1] = np.nan
    found = velocities_of(positions, times)
    assert np.isnan(found[[4, 11], 1]).all() and np.isfinite(found[:, 0]).all()
    seen = np.isfinite(positions)
    assert np.allclose(found[seen], expected[seen], atol=2e-3)
    alone = np.full((3, 1, 3), np.nan)
    alone[1] = 1.0
    assert np.isnan(velocities_of(alone, times[:3])).all()


def test_a_subject_that_stands_has_no_velocity_though_its_tracks_are_noisy():
    times = stamps(60)
    noisy = np.random.default_rng(3).normal(0, 0.002, (60, 300, 3))
    speed = length(watched(noisy, times).velocities)
    difference = length(noisy[-1] - noisy[-2]) / 0.0333
    assert speed.mean() < 0.25 * difference.mean()


def test_noise_costs_less_than_with_differences_and_predictions_beat_standing_still():
    times = stamps(40)
    truth, speed = arcs(times)
    noisy = truth + np.random.default_rng(4).normal(0, 0.005, truth.shape)
    estimator = watched(noisy[:-3], times[:-3])
    fault = length(estimator.velocities - speed[-4]).mean()
    assert fault < 0.6 * length((noisy[-4] - noisy[-5]) / 0.0333 - speed[-4]).mean()
    places, _ = estimator.predict(int(times[-1]))
    still = length(noisy[-4] - truth[-1]).mean()
    tangent = length(noisy[-4] + 3 * (noisy[-4] - noisy[-5]) - truth[-1]).mean()
    assert length(places - truth[-1]).mean() < 0.6 * min(still, tangent)
    smooth = length(velocities_of(noisy, times) - speed)[3:-3].mean()
    assert smooth < 0.5 * length(np.gradient(noisy, 1e-9 * PERIOD, axis=0) - speed)[3:-3].mean()


def test_the_stated_error_is_what_predictions_turn_out_to_miss():
    times = stamps(120)
    truth, _ = arcs(times, 150)
    noisy = truth + np.random.default_rng(5).normal(0, 0.004, truth.shape)
    estimator, missed, stated = MotionEstimator(), [], []
    for frame in range(117):
        estimator.observe(np.arange(150), noisy[frame], int(times[frame]))
        if frame > 30:
            places, error = estimator.predict(int(times[frame + 3]))
            missed.append(length(places - noisy[frame + 3]))
            stated.append(error)
    missed, stated = np.array(missed), np.array(stated)
    assert 0.8 < np.sqrt((missed**2).mean() / (stated**2).mean()) < 1.2
    assert 0.5 < (missed < stated).mean() < 0.85
    # Points that are harder to foretell say so.
    assert np.corrcoef(missed.mean(axis=0), stated.mean(axis=0))[0, 1] > 0.7


def test_points_keep_their_past_when_others_come_and_go():
    times = stamps(20)
    truth, _ = arcs(times, 30)
    alone = watched(truth[:, :20], times)
    estimator, generator = MotionEstimator(), np.random.default_rng(6)
    for frame, stamp in enumerate(times):
        ids = generator.permutation(20 if frame < 12 else 30)
        estimator.observe(100 + ids, truth[frame, ids], int(stamp))
    order = np.argsort(ids)
    assert np.allclose(estimator.velocities[order][:20], alone.velocities, atol=0.25)
    assert np.median(length(estimator.velocities[order][:20] - alone.velocities)) < 0.02
    assert np.all(length(estimator.velocities[order][20:]) > 0.01)


def test_a_point_seen_once_stands_and_one_out_of_sight_goes_on():
    times = stamps(8)
    positions = (1e-9 * (times - times[0]))[:, None, None] * np.ones((2, 3))
    positions[7, 1] = np.nan
    estimator = watched(positions, times)
    places, _ = estimator.predict(int(times[-1]))
    assert np.allclose(places[1], places[0], atol=1e-3)
    estimator.observe(np.array([5]), np.ones((1, 3)), int(times[-1]) + PERIOD)
    assert np.array_equal(estimator.velocities, np.zeros((1, 3), np.float32))


def test_a_correction_of_drift_is_no_motion():
    times = stamps(20)
    truth, speed = arcs(times, 50)
    jump = np.array([0.05, -0.1, 0.02])
    seen = truth + np.where(np.arange(20) >= 17, 1.0, 0.0)[:, None, None] * jump
    steps = np.diff(truth, axis=0, prepend=truth[:1]) / np.diff(times, prepend=times[0] - PERIOD)[:, None, None] * 1e9
    told, misled = MotionEstimator(), MotionEstimator()
    for frame, stamp in enumerate(times):
        told.observe(np.arange(50), seen[frame], int(stamp), steps[frame])
        misled.observe(np.arange(50), seen[frame], int(stamp))
    fault = length(told.velocities - speed[-1])
    assert fault.mean() < 0.05 and fault.mean() < 0.3 * length(misled.velocities - speed[-1]).mean()
    places, _ = told.predict(int(times[-1]))
    assert np.allclose(places, seen[-1], atol=1e-5)


def test_before_anything_was_observed_there_are_no_points():
    estimator = MotionEstimator()
    for _ in range(2):
        places, error = estimator.predict(10**9)
        assert estimator.velocities.shape == places.shape == (0, 3) and error.shape == (0,)
        estimator.observe(np.arange(4), np.zeros((4, 3)), 0)
        estimator.reset()


def test_a_stamp_that_is_not_later_is_refused():
    estimator = watched(np.zeros((2, 1, 3)), stamps(2))
    with pytest.raises(InputError, match="not later"):
        estimator.observe(np.arange(1), np.zeros((1, 3)), int(stamps(2)[-1]))
    with pytest.raises(InputError, match="ascend"):
        velocities_of(np.zeros((2, 1, 3)), stamps(2)[::-1])
    with pytest.raises(InputError, match="go together"):
        velocities_of(np.zeros((3, 1, 3)), stamps(2))


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_whatever_is_missing_velocities_are_finite_and_unmoved_by_it(seed):
    generator = np.random.default_rng(seed)
    times = np.cumsum(generator.integers(10**6, 10**8, 12))
    speed = generator.normal(0, 1, (20, 3))
    positions = 1e-9 * times[:, None, None] * speed
    positions[generator.random((12, 20)) < 0.4] = np.nan
    estimator = watched(positions, times)
    twice = np.isfinite(positions[-9:, :, 0]).sum(axis=0) > 1
    assert np.isfinite(estimator.velocities[twice]).all()
    # Whatever fit is believed, lines stay lines; only a point that seems to stand may be told to stand.
    told = estimator.velocities[twice]
    assert np.all((length(told - speed[twice]) < 0.02 * (1 + length(speed[twice]))) | (length(told) == 0))
