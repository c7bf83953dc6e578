"""The benchmark: what it computes from times is right, and its parts add up to the whole."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from bending_body import bending_window
from twins import both

from nr_tracking import cli
from nr_tracking.benchmark import curves as curves_module
from nr_tracking.benchmark.curves import curves
from nr_tracking.benchmark.machine import Limits, measure_limits
from nr_tracking.benchmark.network import PARTS, NetworkWatch
from nr_tracking.benchmark.statistics import exponent, percentiles
from nr_tracking.benchmark.table import bench_table, comparison_table
from nr_tracking.commands.bench import bench, generated_frames
from nr_tracking.config import load_config
from nr_tracking.fields.completion import CompletionNetwork
from nr_tracking.training.batches import prepare

RUN = {
    "preset": "test",
    "device": "cpu",
    "threads": 2,
    "frames": 3,
    "frames_per_second": 4.0,
    "peak_memory_mb": 300.0,
    "percentiles": {"mesh": {"p50": 0.02, "p95": 0.03, "p99": 0.03}, "tsdf": {"p50": 0.01, "p95": 0.01, "p99": 0.01}},
    "floors": {"mesh": 0.004},
    "machine": {"copy_gb_s": 8.0, "matrix_gflop_s": 70.0},
}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return CompletionNetwork(load_config("test").model).eval()


def test_exponents_of_power_laws_are_found():
    work = np.array([10, 30, 100, 500])
    assert exponent(work, 3e-4 * work**1.5) == pytest.approx(1.5)
    assert np.isnan(exponent([7, 7], [1.0, 2.0]))


def test_percentiles_are_those_of_the_times():
    assert percentiles(np.arange(101) / 100) == pytest.approx({"p50": 0.5, "p95": 0.95, "p99": 0.99})
    assert percentiles([]) == {}


def test_a_floor_is_the_slower_of_moving_and_computing():
    limits = Limits(bandwidth=1e9, rate=1e10)
    assert limits.floor(moved=1e6, operations=1e6) == pytest.approx(1e-3)
    assert limits.floor(moved=1e3, operations=1e8) == pytest.approx(1e-2)
    measured = measure_limits(torch.device("cpu"), torch.float32)
    assert 1e8 < measured.bandwidth < 1e13 and 1e8 < measured.rate < 1e15


def test_parts_of_the_network_are_timed_and_counted(network):
    window = prepare(bending_window(0), load_config("test"), np.random.default_rng(0), augment=False).window
    with NetworkWatch(network) as watch, torch.no_grad():
        assert watch.operations() == {}
        network(window)
        network(window)
    assert set(watch.seconds) == {*PARTS, "filter"}
    assert all(len(times) == 2 and min(times) > 0 for times in watch.seconds.values())
    counted = watch.operations()
    # The entry of the dense decoder alone: a 3x3x3 convolution over all cells of all frames, in and out channels.
    model = network.model
    entry = 2 * 27 * model.latent_channels * model.dense_channels[0] * model.latent_cells**3 * len(window.seen)
    assert entry < counted["decode coarse"] < 40 * entry
    assert all(count > 0 for count in counted.values())
    network(window)
    assert all(len(times) == 2 for times in watch.seconds.values())  # it no longer watches


def test_tables_name_stages_in_their_order_and_ratios():
    lines = bench_table(RUN).splitlines()
    assert lines[1].split()[0] == "4.00"
    assert [line.split()[0] for line in lines[-2:]] == ["tsdf", "mesh"]
    assert lines[-1].split()[1:] == ["20.0", "30.0", "30.0", "4.00"]
    faster = {**RUN, "frames_per_second": 6.0, "percentiles": {"mesh": {"p50": 0.005}}}
    rows = {line.split("  ")[0]: line.split() for line in comparison_table(RUN, faster).splitlines()}
    assert rows["frames a second"][-1] == "1.50"
    assert rows["mesh p50 [s]"][-3:] == ["0.0200", "0.0050", "0.25"]
    assert rows["tsdf p50 [s]"][-3:] == ["0.0100", "-", "-"]


def test_curves_have_the_work_that_was_asked_for(network, monkeypatch):
    for name, values in {"_WINDOWS": (1, 2), "_PATCHES": (20, 40), "_RESOLUTIONS": (16, 32), "_REPEATS": 1}.items():
        monkeypatch.setattr(curves_module, name, values)
    with torch.no_grad():  # an untrained field is empty space: put a surface where the band of the depth is
        network.distance.last.bias.fill_(-0.5)
    found = curves(load_config("test"), network, list(generated_frames(2)))
    assert found["frames"]["work"] == [1, 2] and found["patches"]["work"] == [20, 40]
    coarse, fine = found["voxels"]["work"]
    assert 2 * coarse < fine < 16 * coarse
    for curve in found.values():
        assert min(curve["seconds"]) > 0 and np.isfinite(curve["exponent"])


@pytest.mark.parametrize(
    ("preset", "in_the_cube"), [("base", {"tsdf", "encode", "fuse", "decode coarse", "refine"}), ("lite", set())]
)
def test_each_stage_that_runs_has_its_times_and_its_floor(preset, in_the_cube):
    """A dancer at 30 Hz is followed without the network's guess, so that lite needs no network in the cube."""
    found = bench(load_config(preset), frames=6)
    assert found["frames"] == 1
    stages = {"decode", "subject", "rays", "mesh", "patches", "tracks", "serialise"} | in_the_cube
    assert stages - set(found["percentiles"]) == set() == stages - set(found["floors"])
    assert all(found["floors"][stage] > 0 for stage in stages)
    assert all(found["percentiles"][stage]["p50"] > 0 for stage in stages)
    assert ("network" in found["stages"]) == bool(in_the_cube)


def test_a_run_can_be_written_and_compared_with(tmp_path, capsys, monkeypatch):
    file = tmp_path / "before.json"
    file.write_text(json.dumps(RUN))
    arguments = ["bench", "--preset", "lite", "--frames", "6", "--output", str(tmp_path / "now.json")]
    assert cli.main([*arguments, "--compare", str(file)]) == 0
    assert "ratio" in capsys.readouterr().out
    written = json.loads((tmp_path / "now.json").read_text())
    assert written["frames"] == 1 and written["stages"]["mesh"] > 0
    monkeypatch.setattr("nr_tracking.commands.bench.bench", lambda *given, **named: pytest.fail("it was measured"))
    strange = (
        {"percentiles": [1]},
        {"percentiles": {"mesh": {"p50": "soon"}}},
        {"frames_per_second": "4"},
        {"peak_memory_mb": [300]},
        {"frames_per_second": 10**400},
    )
    nameless = {name: value for name, value in RUN.items() if name != "preset"}
    for bad in ("{", "[]", "{}", json.dumps(nameless), *(json.dumps({**RUN, **change}) for change in strange)):
        file.write_text(bad)
        assert cli.main([*arguments, "--compare", str(file)]) == 2
        assert "--compare" in capsys.readouterr().err


def test_curves_are_measured_at_the_distance_that_was_asked_for(monkeypatch):
    frames, network = [], SimpleNamespace(completion=torch.nn.Identity())
    monkeypatch.setattr("nr_tracking.commands.bench.bench", lambda *given, **named: dict(RUN))
    monkeypatch.setattr("nr_tracking.tracking.tracker.load_networks", lambda config: network)
    monkeypatch.setattr(curves_module, "curves", lambda config, network, found: frames.extend(found) or {})
    assert cli.main(["bench", "--preset", "test", "--curves", "--distance", "4"]) == 0
    assert len(frames) == 8 and np.median(frames[0].depth[frames[0].depth > 0]) == pytest.approx(4, abs=0.5)


def test_operations_are_counted_whoever_does_them(network):
    """Compiled products are unseen by PyTorch; no grid of this preset is large enough for Winograd's tiles."""
    window = prepare(bending_window(0), load_config("test"), np.random.default_rng(0), augment=False).window

    def counted():
        with NetworkWatch(network) as watch, torch.no_grad():
            network(window)
            return watch.operations()

    compiled, plain = both(counted)
    assert compiled == plain and min(plain.values()) > 0
