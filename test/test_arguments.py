"""Command lines of the nodes: what is no argument of ROS is refused, not left out."""

import pytest

pytest.importorskip("rclpy")

from nr_tracking.ros import cameras_node, replay_node, running, tracking_node

MAINS = {"tracking_node": tracking_node.main, "cameras_node": cameras_node.main, "replay_node": replay_node.main}


@pytest.fixture(autouse=True)
def started(monkeypatch):
    """What would have been started."""
    lines = []
    for module in (running, cameras_node):
        monkeypatch.setattr(module, "run", lambda make_nodes, args: lines.append(args) or 0)
    return lines


@pytest.mark.parametrize("program", MAINS)
@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_is_answered(capsys, started, program, word):
    assert MAINS[program]([program, word]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"usage: {program} ") and "--ros-args -p " in lines[0]
    assert not started


@pytest.mark.parametrize("program", MAINS)
@pytest.mark.parametrize("words", [["depth_topic:=/x", "preset:=lite"], ["-p", "preset:=lite"]])
def test_parameters_without_ros_args_are_refused_in_a_line(capsys, started, program, words):
    assert MAINS[program]([program, *words, "--ros-args", "-p", "device:=cpu"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"{program}: {words[0]!r} is no argument of this node; usage: ")
    assert not started


def test_arguments_of_ros_start_the_node(started):
    words = ["tracking_node", "--ros-args", "-p", "preset:=lite", "-r", "depth/image_raw:=/x", "--log-level", "info"]
    words += ["--", "--ros-args", "-r", "__ns:=/front"]
    assert tracking_node.main(words) == 0
    assert started == [words]
