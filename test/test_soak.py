"""What counts as growth; and, where ``NR_TRACKING_SOAK_MINUTES`` says how long, a node that runs so long."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from nr_tracking.ros import demo_session, soak
from nr_tracking.ros.ball import breathing_ball
from nr_tracking.ros.demo_session import Figures
from nr_tracking.ros.process import holdings, resident_megabytes
from nr_tracking.ros.soak import Sample, judge, main
from nr_tracking.types import InputError

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
    ours = holdings(os.getpid())
    assert ours.peak_memory_mb >= ours.memory_mb > 10 and ours.threads >= 1 and ours.descriptors >= 3
    assert resident_megabytes() == pytest.approx(ours.memory_mb, rel=0.2)


def test_a_process_that_has_ended_is_not_looked_at():
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and nobody asked how
    with pytest.raises(OSError, match="has ended"):
        holdings(process.pid)
    process.wait()
    with pytest.raises(OSError):
        holdings(process.pid)


def test_the_ball_is_one_and_comes_back_to_where_it_began():
    frames = list(breathing_ball(12))
    nearest = [frame.depth[frame.depth > 0].min() for frame in frames]
    np.testing.assert_allclose(nearest, [1.2 - 0.03 * np.cos(4 * np.pi * i / 12) for i in range(12)], atol=0.01)


class QuickSession:
    """A session whose node is this process, and which tracks a lot between two looks."""

    process_id = os.getpid()
    tracked = 0

    def __init__(self, parameters, logs):
        assert parameters["preset"] == "lite"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def replay(self, recording, loop, rate):
        assert loop and len(list((recording / "depth").iterdir())) == 60
        return SimpleNamespace(terminate=lambda: None, wait=lambda: None)

    def require_running(self):
        pass

    def figures(self):
        self.tracked += 40
        return Figures(tracked=self.tracked, latency_p99_s=0.1)


@pytest.mark.parametrize(("period", "code"), [(0.002, 0), (0.03, 1)])
def test_a_short_run_is_judged_and_written_down(monkeypatch, tmp_path, capsys, period, code):
    monkeypatch.setattr(demo_session, "Session", QuickSession)
    monkeypatch.setattr(soak, "_PERIOD_S", period)
    monkeypatch.setattr(soak, "_SLOPE_MB", 1e9)
    assert main(["--minutes", str(0.06 / 60), "--json", str(tmp_path / "soak.json")]) == code
    report = json.loads((tmp_path / "soak.json").read_text())
    assert bool(report["verdict"]["complaints"]) == bool(code) and report["samples"]
    assert "slope_mb_per_minute" in capsys.readouterr().out


def test_a_node_that_ends_early_is_judged_by_what_was_seen_and_does_not_pass(monkeypatch, tmp_path, capsys):
    class Ending(QuickSession):
        def require_running(self):
            if self.tracked >= 400:
                raise InputError("node_ended", "the node ended with code -9")

    monkeypatch.setattr(demo_session, "Session", Ending)
    monkeypatch.setattr(soak, "_PERIOD_S", 0.001)
    assert main(["--minutes", "5", "--json", str(tmp_path / "soak.json")]) == 1
    assert "the node did not last: the node ended with code -9" in capsys.readouterr().out
    with pytest.raises(InputError):
        judge([])


@pytest.mark.skipif("NR_TRACKING_SOAK_MINUTES" not in os.environ, reason="takes minutes: NR_TRACKING_SOAK_MINUTES=10")
def test_a_node_runs_for_minutes_and_nothing_grows(capsys):
    assert main(["--minutes", os.environ["NR_TRACKING_SOAK_MINUTES"]]) == 0, capsys.readouterr().out
