"""What ``~/save`` writes."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fake_tracker import flat_frame, tracked

from nr_tracking.config import ConfigError, load_config
from nr_tracking.ros.keeper import ResultKeeper
from nr_tracking.ros.messages import frame_messages
from nr_tracking.ros.pairing import PairedFrame
from nr_tracking.tracking.result import read_output
from nr_tracking.types import InputError


def filled(folder, frames, **options):
    keeper = ResultKeeper(load_config("lite", ros={"output_folder": str(folder), **options}))
    fill(keeper, *range(frames))
    return keeper


def fill(keeper, *indices):
    for index in indices:
        messages = frame_messages(flat_frame(index, 1.0 + index), "camera")
        source = PairedFrame(index, messages["depth"], messages["camera_info"], None)
        keeper.keep(tracked(index, 1.0 + index), source)


def aged(path, seconds):
    for each in (*path.glob("*"), path):
        os.utime(each, (time.time() - seconds,) * 2)


def test_output_holds_the_latest_frames_and_its_settings(tmp_path):
    output = read_output(filled(tmp_path, 5, kept_frames=3, save_report=False).save())
    np.testing.assert_array_equal(output.stamps_ns, [2, 3, 4])
    np.testing.assert_array_equal(output.positions[:, 0, 2], [3, 4, 5])
    assert output.run.config["preset"] == "lite" and output.run.frames == 3


def test_settings_are_those_that_the_frames_were_tracked_with(tmp_path):
    keeper = filled(tmp_path, 2, save_report=False)
    keeper.config, keeper.weights = load_config("base", ros=keeper.config.ros.model_dump()), "0123"
    keeper.next_subject()
    run = read_output(keeper.save()).run
    assert run.config["preset"] == "lite" and run.weights == "" and run.tracked == 2
    fill(keeper, 2)
    run = read_output(keeper.save()).run
    assert run.config["preset"] == "base" and run.weights == "0123" and run.tracked == 1


def test_a_subject_that_is_gone_can_be_saved_until_the_next_one_is_tracked(tmp_path):
    keeper = filled(tmp_path, 3, save_report=False)
    keeper.next_subject()
    keeper.next_subject()
    np.testing.assert_array_equal(read_output(keeper.save()).stamps_ns, [0, 1, 2])
    fill(keeper, 3, 4)
    np.testing.assert_array_equal(read_output(keeper.save()).stamps_ns, [3, 4])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["save_000", "save_001"]


def test_a_node_saves_one_who_walked_out_of_view_and_forgets_on_reset(ros_context, tmp_path):
    from std_srvs.srv import Trigger
    from test_faults import PERIOD_NS, Camera

    camera = Camera(ros_context, ros__output_folder=str(tmp_path), subject__lost_s=0.5)
    node = camera.node

    def saved():
        answer = node._on_save(None, Trigger.Response())
        return len(read_output(Path(answer.message))) if answer.success else answer.message

    try:
        camera.send(0, 1, 2)
        camera.figures()
        for index in range(3, 30):
            messages = frame_messages(flat_frame(10**9 + index * PERIOD_NS, 0.0), "camera")
            node._inputs.on_image(messages["depth"])
        assert camera.figures().dropped == {"no_depth": 27} and node._tracker.resets == 1
        assert saved() == 3
        camera.send(30)
        assert saved() == 1
        node._tracker.error = ZeroDivisionError("no number left")
        camera.send(31)
        assert saved() == 1
        node.trigger_deactivate(), node.trigger_activate()
        assert saved() == 1
        assert node._on_reset(None, Trigger.Response()).success
        assert saved() == "no tracked frame is kept, so there is nothing to save"
    finally:
        node.close()


def test_every_save_has_a_folder_of_its_own(tmp_path):
    keeper = filled(tmp_path, 1, save_report=False)
    (tmp_path / "save_007").mkdir()
    assert [keeper.save().name for _ in range(2)] == ["save_008", "save_009"]
    keeper.clear()
    with pytest.raises(InputError, match="nothing to save"):
        keeper.save()


def test_saving_at_the_same_time_into_one_folder_loses_nothing(tmp_path):
    """As nodes of several cameras do, in one process or in many."""
    keepers = [filled(tmp_path, count, save_report=False) for count in range(1, 7)]
    with ThreadPoolExecutor(6) as pool:
        saved = list(pool.map(lambda keeper: [keeper.save() for _ in range(3)], keepers))
    assert sorted(path.name for paths in saved for path in paths) == [f"save_{i:03d}" for i in range(18)]
    for count, paths in enumerate(saved, 1):
        assert [len(read_output(path)) for path in paths] == [count] * 3
    assert not list(tmp_path.glob(".*"))


def test_remains_of_a_killed_process_go_after_an_hour_and_what_others_are_writing_stays(tmp_path):
    """In a container each process may have the number of another, and none of another host's runs here."""
    names = [f".save.writing-{number}-0123abcd{kind}" for number in (os.getpid(), 4194999) for kind in "abc"]
    for name in (*names, ".save.writing-by-somebody-else"):
        (tmp_path / name / "rows").mkdir(parents=True)
        aged(tmp_path / name, 3700 if name[-1] != "a" else 3500)
    for name in names[1::3]:
        (tmp_path / name / "rows" / "000000.npz").touch()
    filled(tmp_path, 1, save_report=False).save()
    left = [*names[0::3], *names[1::3], ".save.writing-by-somebody-else", "save_000"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(left)


def test_report_is_drawn_and_its_failure_costs_nothing(tmp_path, monkeypatch):
    report = pytest.importorskip("nr_tracking.evaluation.report")
    shown = []
    monkeypatch.setattr(
        report, "tracking_report", lambda output, frames, timings, title: shown.append(frames) or "<html>"
    )
    keeper = filled(tmp_path, 30)
    assert (keeper.save() / "report.html").read_text() == "<html>"
    assert len(shown[0]) == 12 and shown[0][29].depth.max() == 30.0

    def broken(*arguments, **options):
        raise RuntimeError("no font")

    monkeypatch.setattr(report, "tracking_report", broken)
    assert len(read_output(Path(keeper.save()))) == 30


def test_disk_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        filled(tmp_path / "file", 1).save()


def test_a_home_that_nobody_has_fails_when_the_node_is_configured_and_never_ends_a_process(ros_context):
    from test_faults import Camera

    with pytest.raises(ConfigError, match=r"ros.output_folder: '~nobody-of-this-name/out' is no folder"):
        filled("~nobody-of-this-name/out", 1).save()
    camera = Camera(ros_context, ros__output_folder="~nobody-of-this-name/out")
    assert camera.node.worker is None and "cannot be configured: ros.output_folder" in camera.node._diagnostics.failure
    camera.node.close()


@pytest.mark.parametrize("error", [RuntimeError("no home"), MemoryError("no room"), KeyError("of a fault of ours")])
def test_whatever_keeps_a_node_from_saving_is_its_answer(ros_context, tmp_path, monkeypatch, error):
    from std_srvs.srv import Trigger
    from test_faults import Camera

    def broken(self):
        raise error

    monkeypatch.setattr(ResultKeeper, "save", broken)
    camera = Camera(ros_context, ros__output_folder=str(tmp_path))
    try:
        answer = camera.node._on_save(None, Trigger.Response())
        assert not answer.success and answer.message == f"{type(error).__name__}: {error}"
        assert camera.figures().last_error == f"cannot save: {answer.message}"
    finally:
        camera.node.close()
