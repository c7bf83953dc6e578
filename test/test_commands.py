"""The commands as a user runs them, with a tracker that is quick and knows the answer."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import test_tracker
import torch
import yaml
from ball_recording import BallTracker, ball_frames, ball_truth, emptied, write_ball

from nr_tracking import Tracker, cli
from nr_tracking.commands import checkpoint
from nr_tracking.commands import track as track_module
from nr_tracking.commands.bench import bench
from nr_tracking.commands.evaluate import evaluate, evaluate_output, score_table, write_scores
from nr_tracking.commands.progress import Progress
from nr_tracking.commands.recordings import Recording, open_recordings
from nr_tracking.commands.settings import choose_config, config_yaml
from nr_tracking.commands.track import Tracked, track
from nr_tracking.config import PRESETS, Config, ConfigError, load_config
from nr_tracking.data.sequence import read_sequence, write_sequence
from nr_tracking.evaluation import report
from nr_tracking.fields import weights
from nr_tracking.tracking.result import read_output
from nr_tracking.types import DepthFrame, InputError

CONFIG = load_config("test")


def ball_tracker(config: Config) -> tuple[BallTracker, str]:
    return BallTracker(), "weights of a ball"


def run(source: Path | Recording, output: Path, **options: object) -> Tracked:
    recording = source if isinstance(source, Recording) else open_recordings(source)[0]
    return track(recording, output, CONFIG, points=2000, **{"trackers": ball_tracker, **options})


def contents(output: Path) -> dict[str, bytes]:
    """Every file but the report, which tells how long things took."""
    files = (path for path in output.rglob("*") if path.is_file() and path.name != "report.html")
    return {str(path.relative_to(output)): path.read_bytes() for path in files}


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "TILE", 24)
    monkeypatch.setattr(report, "TURNTABLE", {"views": 2, "size": 24})


@pytest.fixture
def ball(tmp_path: Path) -> Path:
    return write_ball(tmp_path / "ball")


@pytest.fixture
def real_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line with the ball's tracker in the place of the real one."""
    for function in (track_module.track, evaluate, bench):
        monkeypatch.setitem(function.__kwdefaults__, "trackers", ball_tracker)
    monkeypatch.setitem(track_module.track.__kwdefaults__, "points", 2000)


def test_tracking_a_sequence_gives_every_file_and_scores(ball: Path, tmp_path: Path) -> None:
    done = run(ball, tmp_path / "out")
    assert done.run.dropped == {} and done.run.frames == 17
    output = read_output(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "meshes",
        "patches.npz",
        "report.html",
        "run.json",
        "tracks.npz",
    ]
    assert np.isfinite(output.positions).all() and len(output) == 17
    scores = done.scores[0].mean()
    assert scores["iou"] > 0.9 and scores["corr"] < 0.3 * scores["static_corr"]
    html = (tmp_path / "out" / "report.html").read_text()
    for words in ("frames asked for", "network", "Scores", "IoU", "image/webp", "truth, from behind"):
        assert words in html
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_recording_gives_the_same_output_twice_and_as_a_bag(ball: Path, tmp_path: Path) -> None:
    bags = pytest.importorskip("nr_tracking.ros.bags")
    run(ball, tmp_path / "a")
    run(ball, tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    for storage in ("mcap", "sqlite3"):
        bag = bags.write_bag(tmp_path / storage, read_sequence(ball).frames(), storage)
        run(bag, tmp_path / f"out_{storage}")
        assert contents(tmp_path / f"out_{storage}") == contents(tmp_path / "a")


def test_start_and_frames_count_in_the_recording_and_rows_from_zero(ball: Path, tmp_path: Path) -> None:
    (ball / "depth" / "000002.png").write_bytes(b"nothing earlier is read")
    output = read_output(run(ball, tmp_path / "out", start=3, frames=5).output)
    np.testing.assert_array_equal(output.stamps_ns, read_sequence(ball).stamps_ns[3:8])
    mesh = output.mesh(0)
    assert mesh is not None and len(output) == 5
    np.testing.assert_allclose(mesh[0].mean(axis=0), ball_truth(4).vertices[3].mean(axis=0), atol=0.03)
    for start in (17, -1):
        with pytest.raises(InputError, match="frames 0 to 16"):
            run(ball, tmp_path / "other", start=start)


def test_a_bad_frame_keeps_its_row_and_is_named(tmp_path: Path) -> None:
    frames = ball_frames(10)
    frames[3] = emptied(frames[3])
    ball = write_sequence(tmp_path / "ball", frames, fps=30.0, depth_unit_m=0.0001)
    (ball / "depth" / "000006.png").write_bytes(b"damaged")
    done = run(ball, tmp_path / "out")
    assert list(done.run.dropped) == [3, 6]
    output = read_output(done.output)
    assert [row for row in range(10) if output.mesh(row) is None] == [3, 6]
    np.testing.assert_array_equal(np.isnan(output.positions).all(axis=(1, 2)).nonzero()[0], [3, 6])
    np.testing.assert_array_equal(output.stamps_ns, [frame.stamp_ns for frame in frames])
    html = (done.output / "report.html").read_text()
    assert "every pixel is 0" in html and "000006.png cannot be read" in html


def test_nothing_to_track_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    empty = write_sequence(tmp_path / "empty", map(emptied, ball_frames(3)), fps=30.0)
    with pytest.raises(InputError, match="none of 3 frames could be tracked: every pixel is 0"):
        run(empty, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


class Interrupted:
    """A recording that is interrupted at a frame, once."""

    def __init__(self, path: Path, at: int) -> None:
        self.recording, self.at = open_recordings(path)[0], at

    def open(self) -> Recording:
        def read(start: int, count: int | None) -> Iterator[DepthFrame]:
            for index, item in enumerate(self.recording.read(start, count)):
                if index == self.at:
                    raise KeyboardInterrupt
                yield item

        return Recording(self.recording.name, self.recording.length, read, self.recording.ground_truth)


@pytest.fixture
def stopped(ball: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An interrupted run with a checkpoint at frame 10 whose OUTPUT would have been ``out``."""
    monkeypatch.setattr(track_module, "CHECKPOINT_FRAMES", 5)
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(ball, 12).open(), tmp_path / "out")
    return tmp_path / "out"


def test_an_interrupted_run_shows_nothing_and_goes_on_to_the_same_bytes(ball: Path, stopped: Path) -> None:
    assert not stopped.exists()
    trackers: list[BallTracker] = []

    def watched(config: Config) -> tuple[BallTracker, str]:
        trackers.append(BallTracker())
        return trackers[-1], "weights of a ball"

    pushed: list[int] = []
    original = BallTracker.push
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BallTracker, "push", lambda self, frame: pushed.append(frame.stamp_ns) or original(self, frame))
        run(ball, stopped, resume=True, trackers=watched)
    assert pushed == read_sequence(ball).stamps_ns[10:].tolist()
    run(ball, stopped.with_name("whole"))
    assert contents(stopped) == contents(stopped.with_name("whole"))


def test_without_resume_an_interrupted_run_begins_anew(ball: Path, stopped: Path) -> None:
    run(ball, stopped, frames=3)
    assert len(read_output(stopped)) == 3
    assert [path.name for path in stopped.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("finished", [False, True])
def test_resume_refuses_what_does_not_agree(ball: Path, stopped: Path, finished: bool) -> None:
    if finished:
        run(ball, stopped)
    before = contents(stopped) if finished else None
    other = load_config("test", tracks={"count": 200})
    recording = open_recordings(ball)[0]
    with pytest.raises(InputError, match="different config"):
        track(recording, stopped, other, resume=True, trackers=ball_tracker)
    with pytest.raises(InputError, match="different weights"):
        run(ball, stopped, resume=True, trackers=lambda config: (BallTracker(), "other"))
    with pytest.raises(InputError, match="different start, frames"):
        run(ball, stopped, resume=True, start=1)
    frames = ball_frames(17)
    frames[4] = frames[5]
    changed = write_sequence(ball, frames, fps=30.0, depth_unit_m=0.0001)
    with pytest.raises(InputError, match="different input"):
        run(changed, stopped, resume=True)
    assert (contents(stopped) if finished else None) == before


def test_resume_leaves_a_finished_run_as_it_is(ball: Path, tmp_path: Path) -> None:
    run(ball, tmp_path / "out")
    marks = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    done = run(ball, tmp_path / "out", resume=True, trackers=lambda config: (None, "weights of a ball"))
    assert done.run.frames == 17
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == marks


def test_a_checkpoint_that_names_foreign_code_is_refused(ball: Path, stopped: Path) -> None:
    checkpoint = stopped.with_name(".out.partial") / "checkpoint.pickle"
    checkpoint.write_bytes(b"cposix\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(InputError, match=r"must not name posix\.system"):
        run(ball, stopped, resume=True)
    checkpoint.write_bytes(b"\x80\x05damaged")
    with pytest.raises(InputError, match="run without --resume"):
        run(ball, stopped, resume=True)


def test_evaluation_scores_each_subsequence_with_a_fresh_tracker(tmp_path: Path) -> None:
    ball = read_sequence(write_ball(tmp_path / "ball", 12))
    scores = evaluate([ball], CONFIG, length=4, start_stride=4, points=2000, trackers=ball_tracker)
    assert [item.start for item in scores] == [0, 4, 8]
    for item in scores:
        mean = item.mean()
        assert mean["iou"] > 0.9 and mean["corr"] < mean["static_corr"] and not item.missing
    table = score_table(scores).splitlines()
    assert len(table) == 5 and table[-1].startswith("mean of 3") and len({len(line) for line in table}) == 1
    folder = write_scores(tmp_path / "scores", scores, CONFIG)
    stored = json.loads((folder / "scores.json").read_text())
    assert stored["mean"]["iou"] == pytest.approx(np.mean([item.mean()["iou"] for item in scores]))
    with (folder / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and float(rows[5]["corr"]) == scores[1].frames[1].corr


def test_an_output_is_scored_by_the_stamps_of_its_rows(ball: Path, tmp_path: Path) -> None:
    run(ball, tmp_path / "out", start=4, frames=6)
    scores = evaluate_output(read_output(tmp_path / "out"), read_sequence(ball), points=2000)
    assert len(scores) == 1 and len(scores[0].frames) == 6
    assert scores[0].mean()["iou"] > 0.9
    other = write_sequence(tmp_path / "other", ball_frames(2), fps=30.0, ground_truth=ball_truth(2))
    with pytest.raises(InputError, match="no frame of stamp"):
        evaluate_output(read_output(tmp_path / "out"), read_sequence(other))


def test_evaluation_needs_ground_truth(tmp_path: Path) -> None:
    bare = read_sequence(write_sequence(tmp_path / "bare", ball_frames(17), fps=30.0))
    with pytest.raises(InputError, match=r"no ground_truth\.npz"):
        evaluate([bare], CONFIG, trackers=ball_tracker)


@pytest.mark.parametrize("preset", PRESETS)
def test_printed_configuration_reads_back_as_itself(preset: str, tmp_path: Path) -> None:
    config = load_config(preset, window={"stride": 2}, subject={"region_min_m": (-1, -2, 0.5)})
    file = tmp_path / "config.yaml"
    file.write_text(config_yaml(config))
    assert load_config(file) == config
    assert "metres" in file.read_text() or "[m]" in file.read_text()


def test_options_win_over_the_file_which_wins_over_the_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("preset: test\nwindow: {length: 7, stride: 3}\n")
    config = choose_config(None, file, ["window.stride=2", "subject.region_min_m=[-1, 0, 1]"], None)
    assert (config.preset, config.window.length, config.window.stride) == ("test", 7, 2)
    assert config.subject.region_min_m == (-1, 0, 1)
    assert choose_config("base", file, [], None).preset == "base"
    for text in ("window.stride", "=3", "window..stride=3", "window.stride=[", "window.strid=3"):
        with pytest.raises(ConfigError):
            choose_config("test", None, [text])


def test_bench_measures_what_the_tracker_reports() -> None:
    result = bench(CONFIG, frames=10, trackers=lambda config: (BallTracker(), ""))
    assert result["frames"] == 6  # the first window of four warms up
    assert result["stages"] == pytest.approx({"network": 0.02, "mesh": 0.01})
    assert result["frames_per_second"] > 0 and result["peak_memory_mb"] > 10


def test_command_line_tracks_scores_and_measures(
    ball: Path, tmp_path: Path, real_commands: None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert (
        cli.main(["track", str(ball), "--output", str(out), "--preset", "test", "--start", "1", "--frames", "4"]) == 0
    )
    assert "4 of 4 frames tracked" in capsys.readouterr().out
    request = ["--points", "2000", "--output", str(tmp_path / "scores")]
    assert cli.main(["evaluate", str(ball), "--tracked", str(out), *request]) == 0
    assert cli.main(["evaluate", str(ball), "--preset", "test", *request]) == 0
    assert "mean of 1" in capsys.readouterr().out
    assert cli.main(["bench", "--preset", "test", "--frames", "6", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["preset"] == "test"


def test_a_folder_of_bags_gives_an_output_for_each(
    tmp_path: Path, real_commands: None, capsys: pytest.CaptureFixture[str]
) -> None:
    bags = pytest.importorskip("nr_tracking.ros.bags")
    for name, storage in (("one", "mcap"), ("two", "sqlite3")):
        bags.write_bag(tmp_path / "bags" / name, ball_frames(3), storage)
    assert cli.main(["track", str(tmp_path / "bags"), "--output", str(tmp_path / "out"), "--preset", "test"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one", "two"]
    assert len(read_output(tmp_path / "out" / "two")) == 3


def no_such_input(tmp_path: Path) -> list[str]:
    return ["track", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out"), "--preset", "test"]


def empty_folder(tmp_path: Path) -> list[str]:
    (tmp_path / "empty").mkdir()
    return ["track", str(tmp_path / "empty"), "--output", str(tmp_path / "out"), "--preset", "test"]


def corrupt_bag(tmp_path: Path) -> list[str]:
    (tmp_path / "bag.mcap").write_bytes(b"\x89MCAP0\r\n damaged")
    return ["track", str(tmp_path / "bag.mcap"), "--output", str(tmp_path / "out"), "--preset", "test"]


def unknown_setting(tmp_path: Path) -> list[str]:
    return ["config", "--preset", "test", "--set", "windw.stride=1"]


def foreign_output(tmp_path: Path) -> list[str]:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("")
    return ["track", str(write_ball(tmp_path / "ball", 2)), "--output", str(tmp_path / "thesis"), "--preset", "test"]


@pytest.mark.parametrize(
    ("request_of", "says"),
    [
        (no_such_input, "no file or folder"),
        (empty_folder, "neither a SEQUENCE"),
        (corrupt_bag, "cannot be read as a rosbag2"),
        (unknown_setting, "did you mean 'window'?"),
        (foreign_output, "left alone"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(
    tmp_path: Path,
    real_commands: None,
    capsys: pytest.CaptureFixture[str],
    request_of: Callable[[Path], list[str]],
    says: str,
) -> None:
    arguments = request_of(tmp_path)
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1
    assert captured.err.startswith("nr_tracking: ") and says in captured.err
    with pytest.raises((InputError, ConfigError)):
        cli.main([*arguments, "--debug"])


def test_help_is_quick_to_import_and_config_goes_through_a_pipe() -> None:
    code = "import sys, nr_tracking.cli as c\ntry: c.main(['track', '-h'])\nfinally: print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "--camera-info-topic" in shown and shown.strip().endswith("False")
    command = [sys.executable, "-m", "nr_tracking", "config", "--preset", "base", "--set", "window.stride=1"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert yaml.safe_load(printed)["window"]["stride"] == 1


class Surfaces(torch.nn.Module):
    """True surfaces in the place of a network: like a network, a checkpoint holds none of it."""

    def __init__(self) -> None:
        super().__init__()
        self.truth = test_tracker.TrueSurfaces()
        self.complete, self.surface = self.truth.complete, self.truth.surface


def test_the_real_tracker_goes_on_from_a_checkpoint_as_if_nothing_had_happened(tmp_path: Path) -> None:
    def fresh() -> Tracker:
        tracker = test_tracker.tracker()
        tracker._reconstructor = Surfaces()
        return tracker

    frames = [test_tracker.frame_at(index) for index in range(12)]
    whole = fresh()
    results = [result for frame in frames[:7] for result in whole.push(frame)]
    checkpoint.save(tmp_path / "state", {"tracker": vars(whole)}, checkpoint.modules_of(vars(whole)))
    continued = fresh()
    vars(continued).update(checkpoint.load(tmp_path / "state", checkpoint.modules_of(vars(continued)))["tracker"])
    for tracker in (whole, continued):
        results += [result for frame in frames[7:] for result in tracker.push(frame)] + tracker.flush()
    assert len(results) == 5 + 2 * 7
    for ours, theirs in zip(results[5:12], results[12:], strict=True):
        assert ours.stamp_ns == theirs.stamp_ns
        np.testing.assert_array_equal(ours.tracks.ids, theirs.tracks.ids)
        np.testing.assert_array_equal(ours.tracks.positions, theirs.tracks.positions)
        np.testing.assert_array_equal(ours.canonical, theirs.canonical)


def test_the_default_preset_is_the_best_that_has_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_shipped_folders", lambda: [tmp_path])
    assert choose_config().preset == "lite"  # none: the tracker then says where it looked
    for preset in ("test", "lite", "base"):
        (tmp_path / f"{preset}.safetensors").touch()
    assert choose_config().preset == "base"
    assert choose_config(settings=["weights=mine.safetensors"]).preset == "lite"


def test_missing_weights_are_named_and_cost_nothing(
    ball: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(weights, "_shipped_folders", lambda: [tmp_path / "models"])
    assert cli.main(["track", str(ball), "--output", str(tmp_path / "out"), "--preset", "base"]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "models" / "base.safetensors") in error and len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["ball"]


@pytest.mark.parametrize("package", ["igl", "rerun", "rosbags", "something_else"])
def test_a_missing_package_is_named_with_what_brings_it(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: object) -> None:
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)

    monkeypatch.setattr("nr_tracking.commands.settings.choose_config", missing)
    assert cli.main(["config"]) == 2
    assert "pip install" in capsys.readouterr().err


def test_tracking_without_the_scoring_package_still_gives_results(
    ball: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "igl", None)
    done = run(ball, tmp_path / "out", frames=4)
    assert done.scores == [] and done.run.dropped == {}
    assert "No scores: they need igl" in (done.output / "report.html").read_text()


def test_faulty_ground_truth_does_not_cost_the_results(ball: Path, tmp_path: Path) -> None:
    (ball / "ground_truth.npz").write_bytes(b"damaged")
    done = run(ball, tmp_path / "out", frames=4)
    assert done.scores == [] and len(read_output(done.output)) == 4
    assert "No scores: " in (done.output / "report.html").read_text()


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_one_live_line_or_a_line_now_and_then(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr("nr_tracking.commands.progress.time.monotonic", lambda: float(next(clock)))
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    with Progress("tracking", 8) as progress:
        for _ in range(8):
            progress.advance()
    shown = capsys.readouterr().err
    assert shown.count("\n") == (1 if terminal else 2)
    assert shown.count("\r") == (8 if terminal else 0)
    assert ("8 of 8" if terminal else "frame 6 of 8") in shown and "frames/s" in shown


def test_view_needs_an_output(tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    from nr_tracking.commands.view import view

    done = run(write_ball(tmp_path / "ball", 3), tmp_path / "out")
    view(done.output, tmp_path / "out.rrd")
    assert (tmp_path / "out.rrd").stat().st_size > 1000
    with pytest.raises(InputError):
        view(tmp_path / "ball", tmp_path / "out.rrd")
