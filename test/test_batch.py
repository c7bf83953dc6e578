"""Many recordings at once: one that fails costs no other, and what is done stays done."""

import csv
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from ball_recording import contents, write_ball

from nr_tracking.commands import batch as module
from nr_tracking.commands.batch import Finished, LocalProcesses, RayCluster, batch, find_recordings, summary_table
from nr_tracking.commands.batch_options import processors
from nr_tracking.ros.bags import write_bag
from nr_tracking.tracking.result import Run, read_output
from nr_tracking.types import InputError

SCRIPT = """
import os, signal, sys
sys.path[:0] = [sys.argv[1], os.path.dirname(sys.argv[1])]
if "killed" in sys.argv[2]:
    os.kill(os.getpid(), signal.SIGKILL)
from pathlib import Path
from ball_recording import run
from nr_tracking.types import InputError
from nr_tracking.evaluation import report
report.TILE, report.TURNTABLE = 24, {"views": 2, "size": 24}
try:
    run(Path(sys.argv[2]), Path(sys.argv[3]), resume=True)
except InputError as error:
    sys.exit(f"nr_tracking: {error}")
"""


def command(recording, output, settings):
    return [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(recording), str(output), *settings]


@pytest.fixture
def recordings(tmp_path):
    folder = tmp_path / "recordings"
    folder.mkdir()
    write_ball(folder / "first", 4)
    write_ball(folder / "killed", 4)
    damaged = write_bag(folder / "damaged", __import__("ball_recording").ball_frames(2))
    next(damaged.glob("*.mcap")).write_bytes(b"not a recording")
    (folder / "notes.txt").write_text("nothing")
    write_ball(folder / ".fourth.writing-4711", 2)  # what a writer that was killed leaves behind
    return folder


def executors():
    yield pytest.param(lambda: LocalProcesses(2), id="local")
    yield pytest.param(lambda: RayCluster(processes=1), id="ray")


@pytest.mark.parametrize("make", executors())
def test_one_failed_recording_never_stops_the_rest_and_a_rerun_continues(recordings, tmp_path, make):
    if isinstance(make(), RayCluster):
        pytest.importorskip("ray")
    output = tmp_path / "out"
    done = {each.name: each for each in batch(recordings, output, make(), command=command)}
    assert list(done) == ["damaged", "first", "killed"]
    assert (done["first"].tracked, done["first"].frames, done["first"].error) == (4, 4, "")
    assert "cannot be read as a rosbag2" in done["damaged"].error
    assert f"signal {int(signal.SIGKILL)}" in done["killed"].error
    assert len(read_output(output / "first")) == 4
    rows = json.loads((output / "summary.json").read_text())
    assert [row["name"] for row in rows] == list(done)
    with (output / "summary.csv").open() as file:
        assert [row["tracked"] for row in csv.DictReader(file)] == ["0", "4", "0"]
    table = summary_table(list(done.values()))
    assert "FAILED" in table and "4 of 4 frames" in table
    before, changed = contents(output / "first"), os.stat(output / "first" / "tracks.npz").st_mtime_ns
    (recordings / "killed").rename(recordings / "well")
    again = {each.name: each for each in batch(recordings, output, make(), command=command)}
    assert again["well"].tracked == again["first"].tracked == 4 and again["damaged"].error
    assert contents(output / "first") == before
    assert os.stat(output / "first" / "tracks.npz").st_mtime_ns == changed


def test_what_is_about_to_run_is_said_at_once(recordings, tmp_path, capsys):
    class Told(LocalProcesses):
        def run(self, jobs):
            said = capsys.readouterr().err
            assert said == f"tracking recordings: 3 recordings; logs in {tmp_path / 'out' / 'logs'}\n"
            yield from ()

    assert batch(recordings, tmp_path / "out", Told(1), command=command) == []


def test_damage_that_left_something_to_track_is_marked(tmp_path):
    class Tracks(LocalProcesses):
        def run(self, jobs):
            (name, command, _) = jobs[0]
            output = Path(command[-1])
            output.mkdir(parents=True)
            Run(frames=12, tracked=12, notices=["the file ends early"]).write(output)
            yield name, 0, 1.0

    (tmp_path / "recordings").mkdir()
    write_ball(tmp_path / "recordings" / "cut", 2)
    (done,) = batch(tmp_path / "recordings", tmp_path / "out", Tracks(1), command=lambda *given: [str(given[1])])
    assert done.notices == ["the file ends early"]
    assert summary_table([done]) == "cut  done    12 of 12 frames; the file ends early\n"
    assert json.loads((tmp_path / "out" / "summary.json").read_text())[0]["notices"] == done.notices


def test_workers_may_work_elsewhere_than_where_the_command_was_given(recordings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()

    class Elsewhere(LocalProcesses):
        def run(self, jobs):
            monkeypatch.chdir(tmp_path / "elsewhere")
            try:
                yield from list(super().run(jobs))
            finally:
                monkeypatch.chdir(tmp_path)

    done = {each.name: each for each in batch(Path("recordings"), Path("out"), Elsewhere(1), command=command)}
    assert done["first"].tracked == 4 and "cannot be read as a rosbag2" in done["damaged"].error
    assert (tmp_path / "out" / "logs" / "first.log").is_file() and not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize(("given", "threads"), [(None, "2"), ("7", "7")])
def test_processes_share_the_processors_unless_threads_are_chosen(tmp_path, monkeypatch, given, threads):
    monkeypatch.setattr(module, "processors", lambda: 5)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    script = "import os; print(os.environ['OMP_NUM_THREADS'], len(os.environ) > 1)"
    jobs = [(name, [sys.executable, "-c", script], str(tmp_path / name)) for name in "ab"]
    assert {name: code for name, code, _ in LocalProcesses(2).run(jobs)} == {"a": 0, "b": 0}
    assert [(tmp_path / name).read_text() for name in "ab"] == [f"{threads} True\n"] * 2
    assert processors() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("name", ["logs", "summary.json", "summary.csv"])
def test_a_recording_whose_output_would_be_a_file_of_the_batch_is_refused(recordings, tmp_path, name):
    (recordings / "first").rename(recordings / name)
    with pytest.raises(InputError, match="rename the recording") as caught:
        batch(recordings, tmp_path / "out", LocalProcesses(1), command=command)
    assert caught.value.reason == "bad_file_name" and str(recordings / name) in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_folders_without_recordings_say_what_they_hold(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        find_recordings(tmp_path / "nothing")
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"thesis\.tex"):
        find_recordings(tmp_path)
    assert summary_table([Finished("a", 5, 3, {"no_depth": 2})]) == "a  done    3 of 5 frames (2 no_depth)\n"
    damaged = Finished("a", 5, 5, notices=["the file ends early", "another"])
    assert summary_table([damaged]) == "a  done    5 of 5 frames; the file ends early (and 1 more)\n"


def test_the_command_line_passes_settings_on_and_tells_of_failures(tmp_path, monkeypatch, capsys):
    from nr_tracking import cli

    calls = []

    def recorded(folder, output, executor, settings):
        calls.append((folder, output, executor, settings))
        return [Finished("a", 3, 3), Finished("b", error="exit code 2: no depth")]

    monkeypatch.setattr(module, "batch", recorded)
    given = [
        "batch",
        str(tmp_path),
        "--output",
        "out",
        "--processes",
        "3",
        "--preset",
        "lite",
        "--config",
        "mine.yaml",
        "--set",
        "mesh.upsample=1",
    ]
    monkeypatch.chdir(tmp_path)
    assert cli.main(given) == 1
    ((folder, output, executor, settings),) = calls
    assert (folder, output) == (tmp_path, Path("out")) and isinstance(executor, LocalProcesses)
    assert settings == ["--preset", "lite", "--config", str(tmp_path / "mine.yaml"), "--set", "mesh.upsample=1"]
    assert "FAILED" in capsys.readouterr().out
    assert cli.main([*given[:-2], "--processes", "0"]) == 2
    monkeypatch.setitem(sys.modules, "ray", None)
    assert cli.main([*given, "--ray"]) == 2
    assert "ray" in capsys.readouterr().err and len(calls) == 1
