"""The command line as a user meets it: what it prints, and one clear line for what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from ball_recording import (
    ball_frames,
    ball_tracker,
    emptied,
    write_ball,
)

from nr_tracking import cli
from nr_tracking.commands import track as track_module
from nr_tracking.commands.bench import bench
from nr_tracking.commands.evaluate import evaluate
from nr_tracking.config import ConfigError
from nr_tracking.fields import weights
from nr_tracking.tracking.result import read_output
from nr_tracking.types import InputError

pytestmark = pytest.mark.usefixtures("small_pictures")


@pytest.fixture
def real_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line with the ball's tracker in the place of the real one."""
    for function in (track_module.track, evaluate, bench):
        monkeypatch.setitem(function.__kwdefaults__, "trackers", ball_tracker)
    monkeypatch.setitem(track_module.track.__kwdefaults__, "points", 2000)


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
    bags.write_bag(tmp_path / "bags" / ".three.writing-4711", ball_frames(3))  # by a writer that was killed
    assert cli.main(["track", str(tmp_path / "bags"), "--output", str(tmp_path / "out"), "--preset", "test"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one", "two"]
    assert len(read_output(tmp_path / "out" / "two")) == 3


def test_a_recording_that_nobody_is_in_does_not_stop_the_others(
    tmp_path: Path, real_commands: None, capsys: pytest.CaptureFixture[str]
) -> None:
    bags = pytest.importorskip("nr_tracking.ros.bags")
    bags.write_bag(tmp_path / "bags" / "a", [emptied(frame) for frame in ball_frames(3)])
    bags.write_bag(tmp_path / "bags" / "b", ball_frames(3))
    assert cli.main(["track", str(tmp_path / "bags"), "--output", str(tmp_path / "out"), "--preset", "test"]) == 2
    said = capsys.readouterr()
    assert "b: 3 of 3 frames tracked" in said.out and "nr_tracking: a: none of 3 frames" in said.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b"]


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
        (corrupt_bag, "holds no message"),
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
    command = [sys.executable, "-m", "nr_tracking", "config", "--preset", "base", "--set", "window.stride=2"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert yaml.safe_load(printed)["window"]["stride"] == 2


def test_missing_weights_are_named_and_cost_nothing(
    ball: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(weights, "_shipped_folders", lambda: [tmp_path / "models"])
    assert cli.main(["track", str(ball), "--output", str(tmp_path / "out"), "--preset", "base"]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "models" / "base.safetensors") in error and len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["ball"]


@pytest.mark.parametrize(
    ("package", "brings"),
    [
        ("igl", "'.[data]' in the checkout"),
        ("rerun", "'.[view]' in the checkout"),
        ("rosbags", "'.[ros]' in the checkout"),
        ("something_else", "something_else\n"),
    ],
)
def test_a_missing_package_is_named_with_what_brings_it(
    package: str, brings: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: object) -> None:
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)

    monkeypatch.setattr("nr_tracking.commands.settings.choose_config", missing)
    assert cli.main(["config"]) == 2
    assert f"pip install {brings}" in capsys.readouterr().err


def test_help_of_the_demo_is_plain_and_waits_for_neither_torch_nor_ros() -> None:
    script = (
        "import sys; from nr_tracking import cli\n"
        "try: cli.main(['demo', '--help'])\n"
        "except SystemExit: print([name for name in ('torch', 'rclpy', 'numba') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "A generated dancer" in said and "`" not in said
    assert said.splitlines()[-1] == "[]"


def test_a_device_that_is_not_there_is_named(ball: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    request = ["track", str(ball), "--output", str(tmp_path / "out"), "--preset", "lite", "--device", "cuda"]
    assert cli.main(request) == 2
    assert "use --device cpu" in capsys.readouterr().err


def test_interruption_is_one_line(ball: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(track_module, "track", raising(KeyboardInterrupt))
        assert cli.main(["track", str(ball), "--output", str(tmp_path / "out"), "--preset", "test"]) == 130
        assert "--resume goes on" in capsys.readouterr().err
        patch.setattr(track_module, "track", raising(BrokenPipeError))
        assert cli.main(["track", str(ball), "--output", str(tmp_path / "out"), "--preset", "test"]) == 141


def test_what_the_system_refuses_is_one_line(
    ball: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(track_module, "track", raising(OSError(28, "No space left on device", "/disk/out")))
    request = ["track", str(ball), "--output", str(tmp_path / "out"), "--preset", "test"]
    assert cli.main(request) == 2
    assert capsys.readouterr().err == "nr_tracking: [Errno 28] No space left on device: '/disk/out'\n"
    with pytest.raises(OSError, match="No space"):
        cli.main([*request, "--debug"])
    if Path("/proc/self/mem").is_file():
        assert cli.main(["config", "--config", "/proc/self/mem"]) == 2
        assert "/proc/self/mem cannot be read" in capsys.readouterr().err


def raising(kind: type[BaseException] | BaseException) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise kind

    return fail


def test_synthesize_and_train_hand_on_what_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[object, ...]] = []

    def recorded(*arguments: object, **options: object) -> list[Path]:
        calls.append((*arguments, options))
        return [tmp_path]

    monkeypatch.setattr("nr_tracking.data.synthesize.synthesize", recorded)
    monkeypatch.setattr("nr_tracking.data.recordings.make_recordings", recorded)
    monkeypatch.setattr("nr_tracking.training.trainer.train", recorded)
    folder = str(tmp_path)
    assert cli.main(["synthesize", folder, "--windows", "32", "--families", "animal=1,person=0.5"]) == 0
    assert cli.main(["synthesize", folder, "--recordings", "--noisy", "--families", "animal=2"]) == 0
    assert "\n1 recording in" in capsys.readouterr().out
    assert cli.main(["train", folder, "--run", folder, "--steps", "7"]) == 0
    assert cli.main(["train", folder, "--run", folder, "--steps", "7", "--set", "preset=test"]) == 0
    windows, recordings, training, chosen = calls
    assert chosen[0].preset == "test"
    assert windows[1]["families"] == {"animal": 1.0, "person": 0.5} and windows[1]["split"] == "train"
    assert recordings[1]["counts"] == {"animal": 2} and recordings[1]["noisy"] and recordings[1]["split"] == "val"
    assert training[0].preset == "lite" and training[1:3] == (tmp_path, tmp_path) and training[3]["steps"] == 7


@pytest.mark.parametrize(
    ("request_of", "says"),
    [
        ("synthesize DIR --families animal", "expected name=number"),
        ("synthesize DIR --families animal=-1", "no number of 0 or more"),
        ("synthesize DIR --recordings --families foo=1", "'foo' is none of makehuman"),
        ("synthesize DIR --recordings --families object=0.5", "whole numbers"),
        ("synthesize DIR --recordings --families object=0", "no family has a recording"),
        ("synthesize DIR --noisy", "--noisy does nothing here: it belongs to --recordings or --dataset"),
        ("synthesize DIR --clips 3 --occluded", "--occluded does nothing here"),
        ("synthesize DIR --cluttered --windows 0", "--cluttered does nothing here"),
        ("synthesize DIR --recordings --windows 10", "--windows and --recordings exclude each other"),
        ("synthesize DIR --recordings --processes 2", "--processes does nothing here: it belongs to --windows"),
        ("synthesize DIR --list FILE", "--list does nothing here: it belongs to --dataset"),
        ("synthesize DIR --windows 0", "windows = 0"),
        ("synthesize DIR --processes 0", "one at least"),
        ("synthesize DIR --seed -1", "0 or more"),
        ("evaluate BALL --preset test --start-stride 0", "start every 0"),
        ("evaluate BALL --preset test --length 0", "of 0 frames"),
        ("evaluate BALL --preset test --offset -3", "from -3 on"),
        ("evaluate BALL --preset test --length 4 --points 0", "0 points"),
        ("evaluate BALL --preset full --points -5", "-5 points"),
        ("bench --preset test --distance -1", "--distance -1: the subject has to stand between"),
        ("bench --preset test --distance nan", "--distance nan: the subject has to stand between"),
        ("evaluate BALL --tracked OUT --offset 15", "--offset is for tracking anew"),
        ("evaluate BALL --tracked OUT --start-stride 1", "--start-stride is for tracking anew"),
        ("evaluate BALL --tracked OUT --seed 1", "--seed is for tracking anew"),
        ("evaluate BALL --tracked OUT --preset lite", "--preset is for tracking anew"),
        ("bench --preset test --ros --seconds 0", "--seconds 0.0"),
        ("bench --preset test --seconds 5", "--seconds is for --ros"),
        ("bench --preset test --json --compare FILE", "leave one of them out"),
        ("track BALL --output DIR --preset test --depth-topic /d", "--depth-topic is for bags"),
        ("track BALL --output DIR --preset test --every-camera", "--every-camera is for bags"),
        ("track BAG --output DIR --preset test --every-camera --depth-topic /d", "--every-camera exclude each other"),
        ("view OUT --web --save FILE", "--web and --save exclude each other"),
        ("train DIR --run DIR --steps 0", "steps = 0"),
        ("train DIR --run DIR --minutes -1", "minutes = -1"),
    ],
)
def test_options_that_cannot_be_or_would_do_nothing_are_refused(
    ball: Path,
    tmp_path: Path,
    real_commands: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request_of: str,
    says: str,
) -> None:
    monkeypatch.delenv("NR_TRACKING_DATA", raising=False)
    words = [{"DIR": str(tmp_path / "new"), "BALL": str(ball)}.get(word, word) for word in request_of.split()]
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert says in error and len(error.splitlines()) == 1, error
    assert not (tmp_path / "new").exists()


def test_a_schedule_that_is_none_is_bad_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["train", str(tmp_path), "--run", str(tmp_path / "run"), "--steps", "1", "--schedule", "complete"])
    assert "invalid choice: 'complete'" in capsys.readouterr().err
