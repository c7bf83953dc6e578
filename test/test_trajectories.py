import numpy as np
import pytest

from nr_tracking.tracking.trajectories import DCTTrajectory
from nr_tracking.types import InputError

RATE = 30.0


def stamps(frames, jitter=0.0, seed=0):
    offset = np.random.default_rng(seed).uniform(-jitter, jitter, frames)
    return np.round((np.arange(frames) + offset) / RATE * 1e9).astype(np.int64) + 5_000_000_000


def swinging(stamps_ns, tracks=40, seed=1):
    """Points that walk and swing at up to 1.5 Hz: positions (T, N, 3) and velocities, functions of time."""
    generator = np.random.default_rng(seed)
    start, speed = generator.normal(0, 1, (tracks, 3)), generator.normal(0, 0.5, (tracks, 3))
    reach, turn = generator.normal(0, 0.1, (tracks, 3)), generator.uniform(0.3, 1.5, (tracks, 1)) * 2 * np.pi
    time = 1e-9 * (np.asarray(stamps_ns) - 5_000_000_000)[:, None, None]
    return start + speed * time + reach * np.sin(turn * time), speed + turn * reach * np.cos(turn * time)


@pytest.mark.parametrize("jitter", [0.0, 0.3])
def test_as_many_terms_as_frames_reproduce_any_track(jitter):
    times = stamps(12, jitter)
    positions = np.random.default_rng(2).normal(size=(12, 5, 3))
    trajectory = DCTTrajectory.fit(positions, times, terms=12)
    assert np.allclose(trajectory.positions(times), positions, atol=2e-4)
    assert np.all(trajectory.terms == 12)


def test_the_fit_is_the_weighted_least_squares_fit():
    times, generator = stamps(20, 0.2), np.random.default_rng(3)
    positions = generator.normal(size=(20, 4, 3))
    positions[5:9, 1], positions[0, 2] = np.nan, np.nan
    weights = generator.uniform(0.1, 2, (20, 4))
    trajectory = DCTTrajectory.fit(positions, times, weights, terms=5)
    phase = ((times - times[0]) / ((times[-1] - times[0]) / 19) + 0.5) / 20
    terms = np.cos(np.pi * np.arange(5) * phase[:, None])
    terms[:, 1] = phase
    fitted = trajectory.positions(times)
    for track in range(4):
        seen = np.isfinite(positions[:, track, 0])
        root = np.sqrt(weights[seen, track])[:, None]
        best, *_ = np.linalg.lstsq(root * terms[seen], root * positions[seen, track], rcond=None)
        assert np.allclose(fitted[:, track], terms @ best, atol=1e-5)


def test_a_constant_velocity_is_kept_through_gaps_and_beyond_the_ends():
    times = stamps(30, 0.3)
    time = 1e-9 * (times - times[0])
    speed = np.array([[0.5, -1.0, 2.0], [0.0, 0.0, 0.0]])
    positions = 3.0 + time[:, None, None] * speed
    positions[4:20, 0] = np.nan
    trajectory = DCTTrajectory.fit(positions, times)
    beyond = np.array([times[0] - 10**8, times[10], times[-1] + 10**8])
    expected = 3.0 + 1e-9 * (beyond - times[0])[:, None, None] * speed
    assert np.allclose(trajectory.positions(beyond), expected, atol=1e-6)
    assert np.allclose(trajectory.velocities(beyond), speed, atol=1e-5)


def test_velocities_are_the_derivative_of_positions():
    times = stamps(25, 0.2)
    trajectory = DCTTrajectory.fit(np.random.default_rng(4).normal(size=(25, 3, 3)), times, terms=9)
    at, small = times[3:-3] + 3_000_000, 20_000
    slope = (trajectory.positions(at + small) - trajectory.positions(at - small)) / (2e-9 * small)
    assert np.allclose(trajectory.velocities(at), slope, atol=1e-4 * np.abs(slope).max())


def test_smoothing_removes_most_of_the_noise_and_bridges_gaps():
    times = stamps(90)
    truth, speed = swinging(times)
    noisy = truth + np.random.default_rng(5).normal(0, 0.01, truth.shape)
    noisy[30:36] = np.nan
    trajectory = DCTTrajectory.fit(noisy, times)
    given = np.isfinite(noisy[:, 0, 0])
    error = np.linalg.norm(trajectory.positions(times) - truth, axis=2)
    noise = np.linalg.norm(noisy[given] - truth[given], axis=2).mean()
    assert error[given].mean() < 0.5 * noise
    assert error[~given].mean() < noise
    differences = np.gradient(noisy, 1 / RATE, axis=0)
    inner = given & np.isfinite(differences[:, 0, 0])
    faults = [
        np.linalg.norm(v[inner] - speed[inner], axis=2).mean() for v in (trajectory.velocities(times), differences)
    ]
    assert faults[0] < 0.4 * faults[1]
    assert np.abs(trajectory.residual.mean() - 0.01 * np.sqrt(3)) < 0.003


def test_the_number_of_terms_follows_the_motion():
    times = stamps(90)
    truth, _ = swinging(times, tracks=60)
    line = 1e-9 * (times - times[0])[:, None, None] * np.ones((60, 3))
    noise = np.random.default_rng(6).normal(0, 0.005, truth.shape)
    swings, lines = DCTTrajectory.fit(truth + noise, times), DCTTrajectory.fit(line + noise, times)
    assert np.median(lines.terms) <= 3
    assert np.median(swings.terms) >= 5
    # No fixed number does much better against the truth than the chosen ones.
    errors = [
        np.linalg.norm(DCTTrajectory.fit(truth + noise, times, terms=count).positions(times) - truth, axis=2).mean()
        for count in (2, 4, 6, 8, 12, 16, 24, 32)
    ]
    assert np.linalg.norm(swings.positions(times) - truth, axis=2).mean() < 1.1 * min(errors)


def test_neither_origin_nor_unit_of_length_matters():
    times = stamps(40)
    truth, _ = swinging(times)
    noisy = truth + np.random.default_rng(7).normal(0, 0.01, truth.shape)
    fit = DCTTrajectory.fit(noisy, times)
    other = DCTTrajectory.fit(1000 * noisy + 7000.0, times)
    assert np.array_equal(fit.terms, other.terms)
    assert np.allclose(other.positions(times), 1000 * fit.positions(times) + 7000.0, atol=1e-5)


def test_tracks_with_few_positions():
    times = stamps(8)
    positions = np.full((8, 3, 3), np.nan)
    positions[2, 1] = 1.0
    positions[3, 2], positions[5, 2] = 0.0, 2.0
    trajectory = DCTTrajectory.fit(positions, times)
    found = trajectory.positions(times)
    assert np.all(np.isnan(found[:, 0])) and np.isnan(trajectory.residual[0])
    assert np.allclose(found[:, 1], 1.0)
    assert np.allclose(found[4, 2], 1.0, atol=1e-5) and np.allclose(found[5, 2], 2.0, atol=1e-5)
    assert trajectory.terms.tolist() == [0, 1, 2]


def test_tracks_that_cannot_be_used_are_refused():
    with pytest.raises(InputError, match="shape"):
        DCTTrajectory.fit(np.zeros((4, 3)), stamps(4))
    with pytest.raises(InputError, match="ascending"):
        DCTTrajectory.fit(np.zeros((4, 1, 3)), stamps(4)[::-1])
    with pytest.raises(InputError, match="weights"):
        DCTTrajectory.fit(np.zeros((4, 1, 3)), stamps(4), -np.ones((4, 1)))
