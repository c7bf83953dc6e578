"""What the launch files hand to the nodes."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from nr_tracking.ros.launching import overriding_file, viewer_remappings
from nr_tracking.ros.share import fastdds_profile

ROOT = Path(__file__).parents[1]
NEW, OLD = "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"
SECTIONS = ["/**", "/nr_tracking", "/front/nr_tracking", "/front/**"]


@pytest.mark.parametrize("namespace", ["", "front"])
@pytest.mark.parametrize("first", range(len(SECTIONS)))
def test_arguments_win_over_a_file_in_whatever_order_its_sections_are(ros_context, tmp_path, namespace, first):
    from rclpy.node import Node

    order = SECTIONS[first:] + SECTIONS[:first]
    given = {name: {"ros__parameters": {"preset": "base", "device": "cpu"}} for name in order}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    own = overriding_file({"preset": "lite", "ros.queue_policy": "all"})
    files = ["--params-file", str(tmp_path / "params.yaml"), "--params-file", own]
    node = Node("nr_tracking", namespace=namespace, context=ros_context, cli_args=["--ros-args", *files])
    found = {name: each.value for name, each in node._parameter_overrides.items()}
    node.destroy_node()
    Path(own).unlink()
    assert found == {"preset": "lite", "device": "cpu", "ros.queue_policy": "all"}


def test_rviz_is_remapped_to_the_namespace_of_the_node():
    named = dict(viewer_remappings("front", {"depth/image_raw": "depth/image_rect", "clicked_point": "/clicked"}))
    assert named["/nr_tracking/mesh"] == "/front/nr_tracking/mesh"
    assert named["/depth/image_raw"] == "/front/depth/image_rect" and named["/clicked_point"] == "/clicked"
    assert all(name == given for name, given in viewer_remappings("", {"clicked_point": "clicked_point"}))
    manager = yaml.safe_load((ROOT / "config" / "tracking.rviz").read_text())["Visualization Manager"]
    shown = {each["Topic"]["Value"] for each in [*manager["Displays"], *manager["Tools"]] if "Topic" in each}
    assert shown == set(named)


STAND_IN = f"""#!{sys.executable}
import json, os, pathlib, sys
files = [sys.argv[i + 1] for i, word in enumerate(sys.argv) if word == "--params-file"]
said = {{"arguments": sys.argv[1:], "files": [pathlib.Path(file).read_text() for file in files],
        "profiles": [os.environ.get(name) for name in ("{NEW}", "{OLD}")]}}
where = pathlib.Path(os.environ["SAID"], pathlib.Path(sys.argv[0]).name + "_" + str(os.getpid()))
where.write_text(json.dumps(said))
sys.exit(int(os.environ.get("EXIT", 0)))
"""
LAUNCHER = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
arguments = [word.split(":=", 1) for word in sys.argv[2:]]
service = LaunchService()
source = PythonLaunchDescriptionSource(sys.argv[1])
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments)])
)
sys.exit(service.run())
"""


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """Launches a file with stand-ins for all executables, to the end; returns what each was given, by its name."""
    pytest.importorskip("launch_ros", reason="launch comes with a ROS installation, not from pip")
    prefix, said, scratch = tmp_path / "prefix", tmp_path / "said", tmp_path / "tmp"
    for package, executables in {
        "nr_tracking": ("tracking_node", "replay_node", "cameras_node"),
        "rviz2": ("rviz2",),
    }.items():
        marker = prefix / "share" / "ament_index" / "resource_index" / "packages" / package
        for name in executables:
            program = prefix / "lib" / package / name
            program.parent.mkdir(parents=True, exist_ok=True)
            program.write_text(STAND_IN)
            program.chmod(0o755)
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    said.mkdir()
    scratch.mkdir()
    for name, value in {
        "AMENT_PREFIX_PATH": prefix,
        "SAID": said,
        "TMPDIR": scratch,
        "ROS_LOG_DIR": tmp_path,
        "ROS_DISTRO": "jazzy",
    }.items():
        monkeypatch.setenv(name, str(value))
    for name in (NEW, OLD):
        monkeypatch.delenv(name, raising=False)

    def launch(file, *arguments, interrupted_after=None, refused=""):
        command = [sys.executable, "-c", LAUNCHER, str(ROOT / "launch" / file), *arguments]
        ran = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if interrupted_after is not None:
            deadline = time.monotonic() + 60
            while len(list(said.iterdir())) < interrupted_after and time.monotonic() < deadline:
                time.sleep(0.05)
            ran.send_signal(signal.SIGINT)
        output, _ = ran.communicate(timeout=60)
        assert "Traceback" not in output and ran.returncode == bool(refused) and refused in output, output
        assert not list(scratch.glob("nr_tracking_*")), "settings that were handed over are removed at the end"
        found = {}
        for path in said.iterdir():
            found.setdefault(path.name.rsplit("_", 1)[0], []).append(json.loads(path.read_text()))
        return found

    return launch


def remapped(said):
    """What a stand-in was told to remap."""
    rules = [after for word, after in zip(said["arguments"], said["arguments"][1:], strict=False) if word == "-r"]
    return dict(rule.split(":=", 1) for rule in rules)


def test_the_node_is_started_as_it_always_was_without_arguments(launched):
    found = launched("tracking.launch.py")
    assert set(found) == {"tracking_node"} and len(found["tracking_node"]) == 1
    (node,) = found["tracking_node"]
    own = yaml.safe_load(node["files"][-1])
    assert own == {"/**/nr_tracking": {"ros__parameters": {}}}, "the file's own frames and clock stay"
    assert (
        remapped(node).items()
        >= {"__node": "nr_tracking", "mask": "mask", "depth/image_raw": "depth/image_raw"}.items()
    )
    assert node["profiles"] == [None, str(fastdds_profile())], "under the name that Jazzy reads"


def test_launch_arguments_reach_the_nodes(launched):
    found = launched(
        "tracking.launch.py",
        "namespace:=front",
        "depth_topic:=/camera/depth",
        "mask_topic:=people",
        "clicked_point_topic:=/clicked",
        "target_frame:=odom",
        "fixed_frame:=map",
        "preset:=lite",
        "log_level:=warn",
        "use_sim_time:=true",
        "rviz:=true",
        "rviz_fixed_frame:=odom",
        "bag:=20240501",
        "bag_depth_topic:=/second/depth",
    )
    (node,), (rviz,), (replay,) = found["tracking_node"], found["rviz2"], found["replay_node"]
    (played,) = [each["ros__parameters"] for file in replay["files"] for each in yaml.safe_load(file).values()]
    texts = {"input": "20240501", "depth_topic": "/second/depth", "camera_info_topic": ""}
    assert played == {**texts, "wait": True}
    names = {"__ns": "/front", "mask": "people", "clicked_point": "/clicked", "depth/image_raw": "/camera/depth"}
    assert remapped(node).items() >= names.items() and remapped(replay)["__ns"] == "/front"
    assert node["arguments"][node["arguments"].index("--log-level") + 1] == "warn"
    own = yaml.safe_load(node["files"][-1])["/**/nr_tracking"]["ros__parameters"]
    frames = {"ros.target_frame": "odom", "ros.fixed_frame": "map"}
    assert own.items() >= {"preset": "lite", "ros.queue_policy": "all", "use_sim_time": True, **frames}.items()
    assert rviz["arguments"][rviz["arguments"].index("-f") + 1] == "odom"
    names = {"/nr_tracking/mesh": "/front/nr_tracking/mesh", "/clicked_point": "/clicked"}
    assert remapped(rviz).items() >= {**names, "/depth/image_raw": "/camera/depth"}.items()


def test_a_node_that_ends_is_started_anew_only_on_request(launched, monkeypatch):
    monkeypatch.setenv("EXIT", "1")
    assert len(launched("tracking.launch.py")["tracking_node"]) == 1
    assert len(launched("tracking.launch.py", "respawn:=true", interrupted_after=3)["tracking_node"]) >= 3


@pytest.mark.parametrize("file", ["tracking.launch.py", "cameras.launch.py"])
def test_a_profile_of_somebodys_own_stays_in_launched_nodes(launched, monkeypatch, file):
    monkeypatch.setenv(OLD, "/own.xml")
    found = launched(file, *(["cameras:=front"] if file.startswith("cameras") else []))
    assert found["tracking_node"][0]["profiles"] == [None, "/own.xml"]


@pytest.mark.parametrize("one_process", ["true", "false"])
def test_a_node_for_each_camera(launched, one_process):
    found = launched("cameras.launch.py", "cameras:=front, rear/", f"one_process:={one_process}", "preset:=lite")
    if one_process == "true":
        assert found["cameras_node"][0]["arguments"][:2] == ["front", "rear"]
    else:
        assert {remapped(node)["__ns"] for node in found["tracking_node"]} == {"/front", "/rear"}
    (nodes,) = found.values()
    assert all(
        yaml.safe_load(node["files"][-1])["/**/nr_tracking"]["ros__parameters"] == {"preset": "lite"} for node in nodes
    )


@pytest.mark.parametrize("one_process", ["true", "false"])
def test_launch_arguments_reach_the_nodes_of_all_cameras(launched, one_process):
    found = launched(
        "cameras.launch.py",
        "cameras:=front,rear",
        "namespace:=/robot",
        f"one_process:={one_process}",
        "depth_topic:=camera/depth",
        "mask_topic:=people",
        "clicked_point_topic:=/clicked",
        "target_frame:=base",
        "fixed_frame:=odom",
        "use_sim_time:=false",
        "log_level:=warn",
        "rviz:=true",
        "rviz_fixed_frame:=base",
    )
    viewers = found.pop("rviz2")
    (nodes,) = found.values()
    for node in nodes:
        names = {"mask": "people", "clicked_point": "/clicked", "depth/image_raw": "camera/depth"}
        assert remapped(node).items() >= names.items()
        assert node["arguments"][node["arguments"].index("--log-level") + 1] == "warn"
        own = yaml.safe_load(node["files"][-1])["/**/nr_tracking"]["ros__parameters"]
        assert own == {"ros.target_frame": "base", "ros.fixed_frame": "odom", "use_sim_time": False}
    if one_process == "true":
        assert nodes[0]["arguments"][:2] == ["robot/front", "robot/rear"]
    else:
        assert {remapped(node)["__ns"] for node in nodes} == {"/robot/front", "/robot/rear"}
    shown = {remapped(rviz)["/depth/image_raw"]: remapped(rviz)["/clicked_point"] for rviz in viewers}
    assert shown == {"/robot/front/camera/depth": "/clicked", "/robot/rear/camera/depth": "/clicked"}


@pytest.mark.parametrize("one_process", ["true", "false"])
def test_nodes_of_cameras_that_end_are_started_anew_on_request(launched, monkeypatch, one_process):
    monkeypatch.setenv("EXIT", "1")
    arguments = ("cameras:=front,rear", f"one_process:={one_process}", "respawn:=true")
    assert len(launched("cameras.launch.py", *arguments, interrupted_after=5).popitem()[1]) >= 5


@pytest.mark.parametrize(
    ("file", "arguments", "said"),
    [
        ("cameras.launch.py", ["cameras:=,"], "name the cameras, each once"),
        ("cameras.launch.py", ["cameras:=front,/front/"], "name the cameras, each once"),
        ("cameras.launch.py", ["cameras:=front rear"], "'front rear' is no namespace"),
        ("cameras.launch.py", ["cameras:=front", "namespace:=2nd"], "'2nd' is no namespace"),
        ("cameras.launch.py", ["cameras:=front,rear", "depth_topic:=/depth"], "depth_topic: /depth is one for all"),
        ("cameras.launch.py", ["cameras:=front", "rviz:=yes"], "rviz"),
        ("tracking.launch.py", ["bag_depth_topic:=/depth"], "bag: none is given"),
    ],
)
def test_arguments_that_go_wrong_are_told_and_nothing_is_started(launched, file, arguments, said):
    assert launched(file, *arguments, refused=said) == {}
