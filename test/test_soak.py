"""What counts as growth; and, where ``NR_TRACKING_SOAK_MINUTES`` says how long, a node that runs so long."""

import os
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from nr_tracking.ros.soak import Sample, breathing_ball, judge, main, process_holds

STEADY = [Sample(6.0 * i, 500 + 20 * np.sin(i), 12, 40, i % 3, 10 * i, 0.2) for i in range(100)]


def complaints(**changes):
    """``changes`` map names to what is added over the run, from 0 to 1."""
    samples = []
    for index, sample in enumerate(STEADY):
        for name, more in changes.items():
            value = getattr(sample, name)
            sample = replace(sample, **{name: type(value)(value + more * index / 99)})
        samples.append(sample)
    return judge(samples).complaints


def test_a_steady_node_passes():
    verdict = judge(STEADY)
    assert not verdict.complaints and verdict.tracked == 990 and verdict.minutes == 9.9
    assert abs(verdict.slope_mb_per_minute) < 1


@pytest.mark.parametrize(
    ("name", "more", "complaint"),
    [
        ("memory_mb", 30.0, "memory rises by"),
        ("threads", 10, "threads grew"),
        ("descriptors", 20, "descriptors grew"),
        ("waiting", 60, "waiting grew"),
        ("latency_p99_s", 0.2, "latency p99 grew"),
    ],
)
def test_growth_is_named(name, more, complaint):
    (said,) = complaints(**{name: more})
    assert said.startswith(complaint)


def test_what_a_warm_up_takes_does_not_count():
    samples = [replace(sample, memory_mb=500.0 - 300 * (sample.seconds < 100)) for sample in STEADY]
    assert not judge(samples).complaints


def test_a_node_that_tracks_next_to_nothing_does_not_pass():
    (said,) = judge([replace(sample, tracked=3 + i // 50) for i, sample in enumerate(STEADY)]).complaints
    assert said.startswith("1 frames were tracked, too few")


def test_this_process_can_be_looked_at():
    memory, threads, descriptors = process_holds(os.getpid())
    assert memory > 10 and threads >= 1 and descriptors >= 3


def test_the_ball_is_one_and_comes_back_to_where_it_began():
    frames = list(breathing_ball(12))
    nearest = [frame.depth[frame.depth > 0].min() for frame in frames]
    np.testing.assert_allclose(nearest, [1.2 - 0.03 * np.cos(4 * np.pi * i / 12) for i in range(12)], atol=0.01)


@pytest.mark.skipif("NR_TRACKING_SOAK_MINUTES" not in os.environ, reason="takes minutes: NR_TRACKING_SOAK_MINUTES=10")
def test_a_node_runs_for_minutes_and_nothing_grows(capsys):
    assert main(["--minutes", os.environ["NR_TRACKING_SOAK_MINUTES"]]) == 0, capsys.readouterr().out
