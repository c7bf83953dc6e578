"""What the other commands do, with a tracker that is quick and knows the answer."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ball_recording import (
    CONFIG,
    BallTracker,
    ball_frames,
    ball_tracker,
    ball_truth,
    emptied,
    run,
    write_ball,
)
from bending_body import write_cache

from nr_tracking import cli
from nr_tracking.commands.bench import bench
from nr_tracking.commands.evaluate import (
    SCORES,
    evaluate,
    evaluate_baselines,
    evaluate_output,
    family_of,
    find_sequences,
    too_short,
    write_scores,
)
from nr_tracking.commands.progress import Progress
from nr_tracking.commands.settings import choose_config, config_yaml
from nr_tracking.config import PRESETS, ConfigError, load_config
from nr_tracking.data.rendering import render_depth
from nr_tracking.data.sequence import GroundTruth, read_sequence, write_sequence
from nr_tracking.evaluation import error_maps, evaluation_report
from nr_tracking.evaluation.scoreboard import score_table
from nr_tracking.fields import weights
from nr_tracking.tracking.result import read_output
from nr_tracking.types import InputError

pytestmark = pytest.mark.usefixtures("small_pictures")


@pytest.fixture(autouse=True)
def small_error_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_maps, "TILE", 24)


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
    stored = json.loads((folder / "scores.json").read_text(), parse_constant=pytest.fail)
    assert stored["sequences"][0]["frames"][0]["jitter"] is None, "JSON has no word for what is no number"
    assert stored["mean"]["iou"] == pytest.approx(np.mean([item.mean()["iou"] for item in scores]))
    with (folder / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and float(rows[5]["corr"]) == scores[1].frames[1].corr
    assert 0 <= float(rows[5]["visible_error"]) < 0.05 and float(rows[5]["tracked"]) == 1.0
    assert rows[0]["jitter"] == "nan" and stored["sequences"][0]["seconds_per_frame"] > 0


def test_a_folder_of_recordings_is_scored_by_kind_of_subject(tmp_path: Path) -> None:
    names = ("animal_0", "animal_1", "person_0")
    for name in names:
        write_ball(tmp_path / "set" / name, 4)
    (tmp_path / "set" / "person_0" / "meta.json").write_text('{"family": "dfaust"}')
    (tmp_path / "set" / "notes.txt").write_text("not a recording")
    left_behind = write_ball(tmp_path / "set" / ".animal_2.writing-4711", 4)  # by a writer that was killed
    paths = find_sequences([tmp_path / "set", tmp_path / "set" / "animal_1"])
    assert [path.name for path in paths] == [*names, "animal_1"]
    assert find_sequences([left_behind]) == [left_behind], "whoever names it means it"
    scores = evaluate(
        [read_sequence(path) for path in paths[:3]], CONFIG, length=4, start_stride=4, points=500, trackers=ball_tracker
    )
    assert [item.family for item in scores] == ["animal", "animal", "dfaust"]
    table = score_table(scores)
    assert "animals, 2" in table and "dfaust, 1" in table and len({len(line) for line in table.splitlines()}) == 1
    folder = write_scores(tmp_path / "scores", scores, CONFIG)
    stored = json.loads((folder / "scores.json").read_text())
    assert set(stored["families"]) == {"animal", "dfaust"}
    assert stored["families"]["dfaust"]["corr"] == scores[2].mean()["corr"]
    html = (folder / "report.html").read_text()
    assert html.count("data:image/png") == 4  # the worst frame of each, and the scale of the colours
    for heading in ("By kind of subject", "Over time", "Worst frames", "Confidence"):
        assert heading in html


def test_a_kind_of_subject_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "50002_knees-0015"
    folder.mkdir()
    assert family_of(folder) == "50002_knees"
    (folder / "meta.json").write_text("[1]")
    with pytest.raises(InputError, match=r"meta\.json"):
        family_of(folder)


def test_an_output_is_scored_by_the_stamps_of_its_rows(ball: Path, tmp_path: Path) -> None:
    run(ball, tmp_path / "out", start=4, frames=6)
    scores = evaluate_output(read_output(tmp_path / "out"), read_sequence(ball), points=2000)
    assert len(scores) == 1 and len(scores[0].frames) == 6
    assert scores[0].mean()["iou"] > 0.9
    other = write_sequence(tmp_path / "other", ball_frames(2), fps=30.0, ground_truth=ball_truth(2))
    with pytest.raises(InputError, match="no frame of stamp"):
        evaluate_output(read_output(tmp_path / "out"), read_sequence(other))


def test_an_output_is_scored_against_its_own_recording_alone(ball: Path, tmp_path: Path) -> None:
    """Stamps of two recordings may well be the same; a bag of the recording is the recording."""
    write_bag = pytest.importorskip("nr_tracking.ros.bags").write_bag
    frames = [replace(frame, pose=np.eye(4)) for frame in ball_frames(6)]
    posed = write_sequence(tmp_path / "posed", frames, fps=30.0, depth_unit_m=1e-4, ground_truth=ball_truth(6))
    frames[4] = replace(frames[4], depth=frames[5].depth)
    other = write_sequence(tmp_path / "other", frames, fps=30.0, depth_unit_m=1e-4, ground_truth=ball_truth(6))
    bag = write_bag(tmp_path / "bag", read_sequence(posed).frames())
    for name, source in (("out", posed), ("of_bag", bag)):
        output = read_output(run(source, tmp_path / name, start=1, frames=4).output)
        assert evaluate_output(output, read_sequence(posed), points=500)[0].mean()["iou"] > 0.9
        with pytest.raises(InputError, match="was not made from") as caught:
            evaluate_output(output, read_sequence(other), points=500)
        assert caught.value.reason == "wrong_recording"
    output.run.input = ""  # as of a node
    assert evaluate_output(output, read_sequence(other), points=500)


def test_baselines_are_not_scored_beside_a_saved_output(
    ball: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(ball), "--tracked", str(tmp_path / "out"), "--baselines"]) == 2
    assert "exclude each other" in capsys.readouterr().err


def test_evaluation_needs_ground_truth(tmp_path: Path) -> None:
    bare = read_sequence(write_sequence(tmp_path / "bare", ball_frames(17), fps=30.0))
    with pytest.raises(InputError, match=r"no ground_truth\.npz"):
        evaluate([bare], CONFIG, trackers=ball_tracker)


def test_recordings_that_are_too_short_are_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ball, short = (read_sequence(write_ball(tmp_path / name, count)) for name, count in (("ball", 6), ("short", 3)))
    assert too_short([ball, short], 4) == [short]
    scores = evaluate([short, ball], CONFIG, length=4, points=500, trackers=ball_tracker)
    assert [item.name for item in scores] == ["ball"]
    stored = json.loads((write_scores(tmp_path / "scores", scores, CONFIG, left_out=["short"]) / SCORES).read_text())
    assert stored["too_short"] == ["short"]
    with pytest.raises(InputError, match=r"ball has 6 frames.* no sub-sequence of 17"):
        evaluate([short, ball], CONFIG, trackers=ball_tracker)


def test_an_image_that_cannot_be_read_costs_its_frame_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ball = read_sequence(write_ball(tmp_path / "ball", 4))
    image = tmp_path / "ball" / "depth" / "000002.png"
    image.write_bytes(image.read_bytes()[:40])
    tracker = BallTracker(window=1)
    (scores,) = evaluate([ball], CONFIG, length=4, points=500, trackers=lambda config: (tracker, ""))
    assert scores.missing == [2] and scores.mean()["iou"] > 0.8
    assert "ball: frame 2:" in capsys.readouterr().err
    for baseline in evaluate_baselines([ball], CONFIG, length=4, points=500):
        assert baseline.missing == [2] and baseline.worst is None


def test_only_the_frames_that_are_shown_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_report, "WORST_SHOWN", 2)
    ball = read_sequence(write_ball(tmp_path / "ball", 12))
    scores = evaluate([ball], CONFIG, length=3, start_stride=3, points=500, trackers=ball_tracker)
    kept = [item.worst for item in scores if item.worst]
    assert len(scores) == 4 and len(kept) == 2
    largest = sorted(max(frame.surface.chamfer_l1 for frame in item.frames) for item in scores)[-2:]
    shown = [max(frame.surface.chamfer_l1 for frame in item.frames) for item in scores if item.worst]
    assert sorted(shown) == largest
    assert all(specimen.truth.vertices.base is None for specimen in kept), "a view would keep all frames"


@pytest.mark.parametrize(
    ("request_of", "says"),
    [
        ("evaluate BALL --preset test --output OURS", "holds no scores.json"),
        ("synthesize OURS --clips 3", "is a folder"),
        ("bench --preset test --output OURS", "is a folder"),
        ("synthesize OURS/notes --windows 16 --families object=1", "notes exists and is no folder"),
        ("synthesize OURS/notes/x --recordings --families object=1", "notes/x cannot be made"),
        ("evaluate BALL --preset test --output /proc/x", "nothing can be written into /proc"),
        ("track BALL --preset test --output /proc/x", "nothing can be written into /proc"),
        ("bench --preset test --output /proc/x.json", "nothing can be written into /proc"),
        ("bench --preset test --output /dev/null", "is a device"),
        ("synthesize /proc/q.st --clips 1", "nothing can be written into /proc"),
        ("train CACHE --preset test --steps 1 --run OURS/notes", "notes exists and is no folder"),
        ("batch BALLS --preset test --output OURS/notes", "notes/logs cannot be made"),
        ("evaluate BALL --preset test --output OURS/notes/x", "notes is no folder"),
        ("track BALL --preset test --output OURS/notes/x/y", "notes is no folder"),
    ],
)
def test_where_results_cannot_go_is_said_before_the_work(
    ball: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request_of: str,
    says: str,
) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "notes").write_text("somebody's")
    for module, work in (("evaluate", "evaluate"), ("bench", "bench")):
        monkeypatch.setattr(f"nr_tracking.commands.{module}.{work}", lambda *given, **named: pytest.fail("it worked"))
    for work in (
        *("data.clip_cache.pack_points", "data.synthesize._made", "data.recordings._moving_clip"),
        *("training.trainer.Run.step", "commands.batch.run_job", "commands.track.make_tracker"),
    ):
        monkeypatch.setattr(f"nr_tracking.{work}", lambda *given: pytest.fail("it worked"))
    write_cache(tmp_path / "cache", windows=1, frames=3)
    for name, place in (("BALLS", ball.parent), ("BALL", ball), ("OURS", tmp_path / "ours"), ("CACHE", "cache")):
        request_of = request_of.replace(name, str(tmp_path / place))
    assert cli.main(request_of.split()) == 2
    error = capsys.readouterr().err
    assert says in error and len(error.splitlines()) == 1


def test_bench_measures_what_the_tracker_reports() -> None:
    result = bench(CONFIG, frames=10, trackers=lambda config: (BallTracker(CONFIG.window_frames), ""))
    assert result["frames"] == 5  # the first window of five warms up
    assert result["stages"] == pytest.approx({"network": 0.02, "mesh": 0.01})
    assert result["frames_per_second"] > 0 and result["peak_memory_mb"] > 10


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
    if terminal:
        early, later = shown.split("\r")[1:3], shown.split("\r")[3:8]
        assert not any(" left" in line for line in early) and all(" left" in line for line in later)
    assert ("8 of 8" if terminal else "frame 6 of 8") in shown and "frames/s" in shown


def test_view_needs_an_output(tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    from nr_tracking.commands.view import view

    done = run(write_ball(tmp_path / "ball", 3), tmp_path / "out")
    view(done.output, tmp_path / "out.rrd")
    assert (tmp_path / "out.rrd").stat().st_size > 1000
    with pytest.raises(InputError):
        view(tmp_path / "ball", tmp_path / "out.rrd")


def test_a_folder_that_is_not_there_is_named_before_a_viewer_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    assert cli.main(["view", str(tmp_path / "nope")]) == 2
    error = capsys.readouterr().err
    assert "nope is no OUTPUT" in error and "rerun" not in error


def test_why_a_recording_is_left_out_is_said_once_all_have_a_truth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("nr_tracking.commands.evaluate.evaluate", lambda *given, **options: [])
    monkeypatch.setattr("nr_tracking.evaluation.scoreboard.score_table", lambda *given: "")
    balls = [str(write_ball(tmp_path / name, count)) for name, count in (("ball", 6), ("short", 3), ("one", 1))]
    request = ["evaluate", *balls, "--preset", "test", "--length", "4", "--offset", "2"]
    assert cli.main(request) == 0
    short, one = capsys.readouterr().err.splitlines()
    needs = "a sub-sequence needs 4 after offset 2 (--length, --offset)"
    assert short.endswith(f"short is left out: it has 3 frames, {needs}")
    assert one.endswith(f"one is left out: it has 1 frame, {needs}")
    camera = tmp_path / "ball" / "camera.json"
    camera.write_text(camera.read_text().replace("{", '{"serial": "F0245",', 1))
    assert cli.main(request) == 0
    assert "ball: camera.json: serial not known" in capsys.readouterr().err.splitlines()[0]
    (tmp_path / "one" / "ground_truth.npz").unlink()
    assert cli.main(request) == 2
    error = capsys.readouterr().err
    assert "one has no ground_truth.npz" in error and len(error.splitlines()) == 2


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
    assert choose_config(None, file, [], None, "lite").preset == "test"
    file.write_text("window: {length: 7}\n")
    assert choose_config(None, file, ["preset=test"], None, "lite").preset == "test"
    assert choose_config(None, file, [], None, "lite").preset == "lite"
    for text in (
        "window.stride",
        "=3",
        "window..stride=3",
        "window.stride=[",
        "window.strid=3",
        "window.stride=2001-99-99",
        "window={stride: 1, stride: 2}",
    ):
        with pytest.raises(ConfigError):
            choose_config("test", None, [text])


def test_the_default_preset_is_the_best_that_has_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_shipped_folders", lambda: [tmp_path])
    assert choose_config().preset == "base"  # none: the tracker then says where it looked
    for preset in ("test", "lite", "base"):
        (tmp_path / f"{preset}.safetensors").touch()
    assert choose_config().preset == "base"
    assert choose_config(settings=["weights=mine.safetensors"]).preset == "base"


def test_a_kind_of_subject_that_is_not_told_is_that_of_the_name(tmp_path: Path) -> None:
    (tmp_path / "zebra_1").mkdir()
    (tmp_path / "zebra_1" / "meta.json").write_text('{"sensor": "D435"}')
    assert family_of(tmp_path / "zebra_1") == "zebra"


def test_what_is_wrong_with_a_truth_is_said_before_anything_is_tracked(tmp_path: Path) -> None:
    balls = [read_sequence(write_ball(tmp_path / name, 4)) for name in ("good", "bad")]
    tracker = BallTracker()
    with np.load(tmp_path / "bad" / "ground_truth.npz") as truth:
        vertices, faces = truth["vertices"], truth["faces"]
    vertices[3, 5] = np.nan
    np.savez(tmp_path / "bad" / "ground_truth.npz", vertices=vertices, faces=faces)
    with pytest.raises(InputError, match="frame 3 has vertices that are not finite"):
        evaluate(balls, CONFIG, length=4, points=500, trackers=lambda config: (tracker, ""))
    write_ball(tmp_path / "bad", 4)
    surfaces = tmp_path / "bad" / "surfaces"
    surfaces.mkdir()
    for frame in (0, 1, 3):
        np.savez(surfaces / f"{frame:06d}.npz", vertices=vertices[0], faces=faces)
    with pytest.raises(InputError, match=r"000002\.npz is missing; give every frame one"):
        evaluate(balls, CONFIG, length=4, points=500, trackers=lambda config: (tracker, ""))
    assert tracker.pushed == 0


def test_why_frames_have_no_surface_is_said_and_that_no_mean_has_any(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty = [emptied(frame) for frame in ball_frames(4)]
    ball = read_sequence(write_sequence(tmp_path / "ball_0", empty, fps=30.0, ground_truth=ball_truth(4)))
    scores = evaluate([ball], CONFIG, length=4, points=500, trackers=ball_tracker)
    assert "ball_0 from 0: 4 without a surface: every pixel is 0" in capsys.readouterr().err
    assert "CD 1 of 1" in score_table(scores) or "CD, Corr" in score_table(scores)


def test_a_moving_camera_is_scored_by_its_poses(tmp_path: Path) -> None:
    """A ball at rest, by a camera that moves on: what stays in the world is what does nothing."""
    shift = np.array([[0.05 * frame, 0.0, 0.0] for frame in range(4)])
    vertices = np.stack([ball_truth(1).vertices[0] - row for row in shift]).astype(np.float32)
    frames = []
    for index, row in enumerate(shift):
        pose = np.eye(4)
        pose[:3, 3] = row
        depth = render_depth(vertices[index], ball_truth(1).faces, ball_frames(1)[0].intrinsics)
        frames.append(replace(ball_frames(1)[0], stamp_ns=33_000_000 * index, depth=depth, pose=pose))
    truth = GroundTruth(vertices, ball_truth(1).faces)
    ball = read_sequence(write_sequence(tmp_path / "ball", frames, fps=30.0, depth_unit_m=1e-4, ground_truth=truth))
    (scores,) = evaluate([ball], CONFIG, length=4, points=1000, trackers=ball_tracker)
    assert scores.mean()["static_corr"] < 1e-5 and scores.mean()["jitter"] < 0.02
    done = run(tmp_path / "ball", tmp_path / "out")
    assert done.scores[0].mean()["static_corr"] < 1e-5
    (again,) = evaluate_output(read_output(tmp_path / "out"), ball, points=1000)
    assert again.mean()["static_corr"] < 1e-5


def test_a_truth_that_cannot_be_used_costs_the_scores_alone(tmp_path: Path) -> None:
    write_ball(tmp_path / "ball", 5)
    with np.load(tmp_path / "ball" / "ground_truth.npz") as truth:
        vertices, faces = truth["vertices"], truth["faces"]
    vertices[2, 7] = np.nan
    np.savez(tmp_path / "ball" / "ground_truth.npz", vertices=vertices, faces=faces)
    done = run(tmp_path / "ball", tmp_path / "out")
    assert done.scores == [] and len(read_output(done.output)) == 5
    assert "No scores:" in (done.output / "report.html").read_text()


def test_a_subject_that_only_passes_by_is_in_the_report(tmp_path: Path) -> None:
    """Images are kept of frames that were tracked: of all 60, only every eighth would be."""
    frames = [frame if 41 <= index < 47 else emptied(frame) for index, frame in enumerate(ball_frames(60))]
    write_sequence(tmp_path / "ball", frames, fps=30.0, depth_unit_m=1e-4)
    done = run(tmp_path / "ball", tmp_path / "out", trackers=lambda config: (BallTracker(window=1), ""))
    assert done.run.tracked == 6
    assert "Frames 41, 42, 43, 44, 45, 46" in (done.output / "report.html").read_text()


def test_a_stage_that_only_some_frames_have_is_measured_where_it_is() -> None:
    class Adapting(BallTracker):
        def _track(self, frame):
            result = super()._track(frame)
            late = {"adapt": 0.5} if frame.stamp_ns > 200_000_000 else {}
            return replace(result, timings={**result.timings, **late})

    result = bench(CONFIG, frames=10, trackers=lambda config: (Adapting(window=1), ""))
    assert result["stages"]["adapt"] == 0.5 and next(iter(result["percentiles"]["adapt"].values())) == 0.5
