"""Faults of memory, disk, processes and processors: what was written is complete, and the work goes on.

Processes are killed a few times in the normal run; ``NR_TRACKING_KILLS=30`` asks for as many of each kind.
"""

import errno
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest
from ball_recording import contents, run
from fake_tracker import FakeTracker, flat_frame
from test_keeper import aged, filled

from nr_tracking.config import load_config
from nr_tracking.fields.weights import read_weights, weights_path
from nr_tracking.ros.fallback import is_out_of_memory, smaller_config
from nr_tracking.tracking.result import read_output

KILLS = int(os.environ.get("NR_TRACKING_KILLS", "3"))
PERIOD_NS = 33_333_333
SCRIPT = pathlib.Path(__file__).with_name("saving_process.py")
CPU_ALLOCATOR = "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: "
EXHAUSTED = [
    MemoryError(),
    RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError(CPU_ALLOCATOR + "can't allocate memory: you tried to allocate 4398046511104 bytes. Error code 12"),
    RuntimeError(CPU_ALLOCATOR + "not enough memory: you tried to allocate 4398046511104 bytes."),
]


class Camera:
    """A node without a network, fed by hand."""

    def __init__(self, context, factory=FakeTracker, **given):
        rclpy_parameter = pytest.importorskip("rclpy.parameter")
        from nr_tracking.ros.tracking_node import TrackingNode

        given = {"ros__queue_policy": "all", "ros__save_report": False, **given}
        overrides = [rclpy_parameter.Parameter(name.replace("__", "."), value=value) for name, value in given.items()]
        self.node = TrackingNode(factory, context=context, parameter_overrides=overrides)
        self.node.start()

    def send(self, *indices):
        from nr_tracking.ros.messages import frame_messages

        for index in indices:
            messages = frame_messages(flat_frame(10**9 + index * PERIOD_NS), "camera")
            self.node._inputs.on_info(messages["camera_info"])
            self.node._inputs.on_image(messages["depth"])

    def figures(self):
        assert self.node.worker.finish(60)
        return self.node.statistics.summary(time.monotonic())


@pytest.fixture
def camera(request):
    cameras = []

    def make(*arguments, **given):
        context = request.getfixturevalue("ros_context")
        cameras.append(Camera(context, *arguments, **given))
        return cameras[-1]

    yield make
    for each in cameras:
        each.node.close()


@pytest.mark.parametrize("error", EXHAUSTED)
@pytest.mark.parametrize("policy", ["smaller", "skip"])
def test_out_of_memory_goes_on_with_a_smaller_preset_or_without_the_window(camera, error, policy, tmp_path):
    made = []

    def factory(config):
        made.append(FakeTracker(config, lag=2))
        return made[-1]

    each = camera(factory, preset="base", ros__out_of_memory=policy, ros__output_folder=str(tmp_path))
    each.send(0, 1)
    each.figures()
    before = read_output(each.node._keeper.save()).ids
    made[0].error = error
    each.send(2)
    assert each.figures().dropped == {"out_of_memory": 1}
    each.send(3, 4, 5)
    figures = each.figures()
    assert figures.tracked == 5 and figures.dropped == {"out_of_memory": 1}
    assert "out_of_memory" in figures.last_error
    output = read_output(each.node._keeper.save())
    assert len(output) == 3 and not np.isin(output.ids, before).any()
    if policy == "smaller":
        assert [tracker.config.preset for tracker in made] == ["base", "lite"]
        assert made[1].config.model == load_config("lite").model
        assert "continuing with preset lite" in each.node._diagnostics.subject
        assert output.run.config["preset"] == "lite"
        assert output.run.weights == read_weights(weights_path(load_config("lite"))).sha256
    else:
        assert len(made) == 1


def test_settings_that_change_while_a_smaller_tracker_is_made_are_its_own(camera):
    from rclpy.parameter import Parameter

    made = []

    def factory(config):
        if made:
            (done,) = each.node.set_parameters([Parameter("subject.lost_s", value=7.0)])
            assert done.successful
        made.append(FakeTracker(config))
        return made[-1]

    each = camera(factory, preset="base", ros__out_of_memory="smaller")
    made[0].error = MemoryError("out of memory")
    each.send(0, 1)
    assert each.figures().tracked == 1
    assert made[1].config.preset == "lite" and made[1].config.subject.lost_s == 7.0
    assert each.node._keeper.config == made[1].config


def test_what_is_smaller_and_has_weights():
    base = load_config("base", window={"stride": 2}, mesh={"upsample": 3})
    smaller = smaller_config(base)
    assert smaller == load_config("lite", window={"stride": 2}, mesh={"upsample": 3})
    assert smaller_config(load_config("base", volume={"cubes": 3})) == load_config("lite"), "along rays there is one"
    assert smaller_config(smaller) is None and smaller_config(load_config("test")) is None
    assert smaller_config(load_config("full")).mesh.upsample == load_config("lite").mesh.upsample
    assert not is_out_of_memory(RuntimeError("shapes differ")) and not is_out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize("allowed", [0, 1, 7])
def test_full_disk_costs_the_save_and_nothing_else(camera, tmp_path, monkeypatch, allowed):
    from std_srvs.srv import Trigger

    each = camera(ros__output_folder=str(tmp_path / "saved"))
    each.send(*range(10))
    each.figures()
    first = each.node._on_save(None, Trigger.Response())
    assert first.success
    before = contents(pathlib.Path(first.message))
    left, write = [allowed], pathlib.Path.write_bytes

    def full(path, data):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, data)

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    answer = each.node._on_save(None, Trigger.Response())
    assert not answer.success and "No space left" in answer.message
    assert os.listdir(tmp_path / "saved") == ["save_000"] and contents(pathlib.Path(first.message)) == before
    monkeypatch.undo()
    each.send(10)
    assert each.figures().tracked == 11
    again = each.node._on_save(None, Trigger.Response())
    assert again.success and len(read_output(pathlib.Path(again.message))) == 11


def test_saving_stays_below_its_folder_whatever_lies_there(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "thesis.tex").write_text("all of it")
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "save_000").symlink_to(elsewhere)
    (saved / "save_001").write_text("a file")
    (saved / ".save.writing-4194999-abc-def").symlink_to(elsewhere)
    (saved / f"save_{'9' * 200}").mkdir()
    output = filled(saved, 3, save_report=False).save()
    assert output.parent == saved and output.name == "save_002" and len(read_output(output)) == 3
    assert (saved / "save_001").read_text() == "a file"
    assert os.listdir(elsewhere) == ["thesis.tex"]


def test_missing_and_altered_weights_are_named_and_the_right_ones_still_work(request, tmp_path):
    pytest.importorskip("rclpy")
    from rclpy.parameter import Parameter

    from nr_tracking.fields.weights import weights_path
    from nr_tracking.ros.tracking_node import TrackingNode

    good = weights_path(load_config("lite"))
    altered = tmp_path / "altered.safetensors"
    data = bytearray(good.read_bytes())
    data[-1000] ^= 0x10
    altered.write_bytes(data)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(good.read_bytes()[:-100])
    node = TrackingNode(
        context=request.getfixturevalue("ros_context"), parameter_overrides=[Parameter("preset", value="lite")]
    )
    try:
        for path, complaint in ((tmp_path / "none", "no file"), (altered, "fetch it anew"), (cut, "readable")):
            assert node.set_parameters([Parameter("weights", value=str(path))])[0].successful
            node.start()
            assert node._tracker is None and node._state_machine.current_state[1] == "unconfigured"
            assert complaint in node.statistics.summary(0.0).last_error
        assert node.set_parameters([Parameter("weights", value="")])[0].successful
        node.start()
        assert node._state_machine.current_state[1] == "active"
    finally:
        node.close()


def test_camera_three_times_faster_than_inference_is_thinned_evenly_and_the_newest_come(camera):
    each = camera(ros__queue_policy="latest", ros__queue_size=4)
    tracker = each.node._tracker
    tracker.gate.clear()
    each.send(0)
    steps, busy = [], [True]
    push = tracker.push

    def measured(frame):
        results = push(frame)
        steps.append((frame.stamp_ns - 10**9) // PERIOD_NS)
        if busy:
            tracker.gate.clear()
        return results

    tracker.push = measured
    for index in range(1, 91):
        each.send(index)
        if index % 3 == 0:  # inference takes as long as three frames of the camera
            count = len(steps)
            tracker.gate.set()
            deadline = time.monotonic() + 60
            while len(steps) == count and time.monotonic() < deadline:
                time.sleep(0.001)
    busy.clear()
    tracker.gate.set()
    figures = each.figures()
    assert figures.received == 91 == figures.tracked + figures.dropped["overrun"]
    gaps = np.diff(steps[8:])
    assert gaps.mean() == pytest.approx(3, abs=0.35) and gaps.max() <= 6
    assert steps[-1] >= 90 - 16


def started(*arguments):
    environment = {**os.environ, "PYTHONPATH": f"{SCRIPT.parent}:{SCRIPT.parents[1]}"}
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, arguments)], stdout=subprocess.PIPE, text=True, env=environment
    )


def interrupted(process, lines, number, pause):
    """Send a signal once so many lines came, and some moments later."""
    for _ in range(lines):
        if not process.stdout.readline():
            break
    time.sleep(pause)
    process.send_signal(number)
    process.stdout.close()
    return process.wait(60)


def test_processes_killed_while_saving_leave_only_whole_folders(tmp_path):
    generator, codes = random.Random(3), Counter()
    for index in range(KILLS):
        number = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[index % 3]
        process = started("save", tmp_path / "saved")
        codes[interrupted(process, generator.randrange(1, 4), number, generator.random() * 0.05)] += 1
        for path in (tmp_path / "saved").glob("save_*"):
            output = read_output(path)
            assert len(output) == 20 and len(list((path / "meshes").iterdir())) == 20
    assert codes[-signal.SIGKILL] >= KILLS // 3
    for remains in (tmp_path / "saved").glob(".*"):
        aged(remains, 3700)
    filled(tmp_path / "saved", 1, save_report=False).save()
    assert not list((tmp_path / "saved").glob(".*"))
    print(dict(codes))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_node_that_is_ended_while_saving_writes_what_is_finished_and_leaves_the_queue(ros_domain, tmp_path, number):
    pytest.importorskip("rclpy")
    assert interrupted(started("node", tmp_path / "saved"), 1, number, 0.0) == 0
    assert [len(read_output(path)) for path in (tmp_path / "saved").iterdir()] == [1]


def test_tracking_killed_at_random_is_continued_to_the_very_same_result(ball, tmp_path, small_pictures):
    whole = run(ball, tmp_path / "whole").output
    generator = random.Random(5)
    for index in range(KILLS):
        output = tmp_path / f"out{index}"
        number = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[index % 3]
        code = interrupted(
            started("track", ball, output), generator.randrange(1, 17), number, generator.random() * 0.02
        )
        if code:
            assert not output.exists()
        run(ball, output, resume=True)
        assert contents(output) == contents(whole)
        shutil.rmtree(output)
