"""What an installation needs: manifests that agree with the code, and files in their places."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ElementTree
import zipfile
from pathlib import Path

import pytest
import yaml

import nr_tracking
from nr_tracking.ros.share import fastdds_environment, fastdds_profile, share_folder, use_fastdds_profile

ROOT = Path(__file__).parents[1]
MANIFEST = ElementTree.parse(ROOT / "package.xml").getroot()
NEW, OLD, SHIPPED = "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE", str(fastdds_profile())
NODES = ("tracking_node", "cameras_node", "replay_node")


def test_manifest_is_that_of_an_ament_python_package():
    assert MANIFEST.get("format") == "3"
    assert MANIFEST.findtext("name") == "nr_tracking"
    assert MANIFEST.findtext("version") == nr_tracking.__version__
    assert MANIFEST.findtext("export/build_type") == "ament_python"
    # colcon silently treats the package as plain Python when the address is malformed
    assert re.fullmatch(r"[\w.+-]+@[\w-]+(\.[\w-]+)+", MANIFEST.find("maintainer").get("email"))
    assert (ROOT / "resource" / "nr_tracking").exists()


def test_manifest_names_every_ros_package_that_is_imported():
    files = [*(ROOT / "nr_tracking" / "ros").glob("*.py"), *(ROOT / "launch").glob("*.py")]
    pattern = re.compile(
        r'(?:^\s*(?:from|import) |import_module\(")((?:\w+_(?:msgs|srvs|interfaces|ros))|rclpy|launch)\b', re.M
    )
    imported = {name for file in files for name in pattern.findall(file.read_text())}
    declared = {element.text for element in MANIFEST.findall("exec_depend")}
    assert {"rclpy", "sensor_msgs", "launch_ros", "tf2_msgs", "tf2_ros"} <= imported <= declared


def test_constraints_pin_everything_that_setup_asks_for():
    pinned = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    text = (ROOT / "setup.py").read_text()
    asked = {re.split(r"[<>=]", name)[0].lower() for name in re.findall(r'^\s+"([\w-]+[<>=]+[\w.]+)",$', text, re.M)}
    for extra in re.findall(r'"(?:ros|data|view|cuda|cluster|test)": \[(.*)\]', text):
        asked |= {re.split(r"[<>=]", name)[0].lower() for name in re.findall(r'"([\w-]+[<>=\d.]*)"', extra)}
    assert {"torch", "rosbags", "trimesh", "spconv-cu126", "pytest"} <= asked <= pinned


@pytest.mark.parametrize("node", NODES)
def test_wrapper_runs_the_module_with_the_python_of_its_prefix(tmp_path, node):
    wrapper = tmp_path / "lib" / "nr_tracking" / node
    python = tmp_path / "bin" / "python3"
    for file, text in ((wrapper, (ROOT / "scripts" / node).read_text()), (python, '#!/bin/sh\necho "$0 $@"\n')):
        file.parent.mkdir(parents=True)
        file.write_text(text)
        file.chmod(0o755)
    said = subprocess.run([wrapper, "--ros-args", "-p", "a:=b c"], capture_output=True, text=True, check=True).stdout
    assert said == f"{python} -m nr_tracking.ros.{node} --ros-args -p a:=b c\n"
    assert os.access(ROOT / "scripts" / node, os.X_OK)


def test_wheel_holds_what_launch_and_ros2_run_look_for(tmp_path):
    pytest.importorskip("setuptools", "70.1", "older ones cannot build a wheel alone")
    source = tmp_path / "source"
    for folder in ("nr_tracking", "launch", "config", "resource", "scripts"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.py", "setup.cfg", "package.xml", "LICENSE"):
        shutil.copy(ROOT / file, source)
    command = [sys.executable, "setup.py", "-q", "bdist_wheel", "-d", tmp_path, "-b", tmp_path / "build"]
    built = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        inside = {info.filename.split(".data/data/")[-1]: info for info in wheel.infolist()}
    for node in NODES:
        assert inside[f"lib/nr_tracking/{node}"].external_attr >> 16 & 0o111
    share = (
        "package.xml",
        "launch/tracking.launch.py",
        "launch/cameras.launch.py",
        "config/tracking.yaml",
        "config/tracking.rviz",
        "config/fastdds.xml",
    )
    assert {f"share/nr_tracking/{file}" for file in share} <= set(inside)
    assert "share/ament_index/resource_index/packages/nr_tracking" in inside
    assert "nr_tracking/ros/tracking_node.py" in inside
    assert not any(name.startswith(("test", "examples")) for name in inside)


def test_source_distribution_holds_what_a_build_needs_and_the_examples(tmp_path):
    source = tmp_path / "source"
    for folder in ("nr_tracking", "launch", "config", "resource", "scripts", "examples"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("setup.py", "setup.cfg", "MANIFEST.in", "package.xml", "LICENSE"):
        shutil.copy(ROOT / file, source)
    command = [sys.executable, "setup.py", "-q", "sdist", "-d", tmp_path]
    built = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    examples = {f"examples/{path.name}" for path in (ROOT / "examples").glob("*.py")}
    assert len(examples) >= 2 and inside >= {*examples, "package.xml", "config/fastdds.xml", "scripts/tracking_node"}


def test_share_folder_of_a_source_tree_and_of_an_installation(tmp_path, monkeypatch):
    assert share_folder() == ROOT and fastdds_profile().is_file()
    module = tmp_path / "lib" / "python3" / "site-packages" / "nr_tracking" / "ros" / "share.py"
    monkeypatch.setattr("nr_tracking.ros.share.__file__", str(module))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "other"))
    monkeypatch.delenv("AMENT_PREFIX_PATH", raising=False)
    with pytest.raises(FileNotFoundError, match="share/nr_tracking"):
        share_folder()
    (tmp_path / "share" / "nr_tracking").mkdir(parents=True)
    assert share_folder() == tmp_path / "share" / "nr_tracking"


def test_middleware_profile_has_room_for_images():
    space = "{http://www.eprosima.com}"
    profile = ElementTree.parse(fastdds_profile()).getroot()
    assert profile.tag == f"{space}profiles", "a root that Fast DDS 2 and 3 both know"
    assert int(profile.find(f".//{space}segment_size").text) > 64 * 640 * 480 * 2
    participant = profile.find(f"{space}participant")
    assert participant.get("is_default_profile") == "true"
    assert participant.find(f".//{space}useBuiltinTransports").text == "false"


@pytest.mark.parametrize(
    ("distribution", "given", "expected"),
    [
        (None, {}, {NEW: SHIPPED}),  # the wheels of Kilted
        ("kilted", {}, {NEW: SHIPPED}),
        ("jazzy", {}, {OLD: SHIPPED}),
        ("kilted", {NEW: "own.xml"}, {NEW: "own.xml"}),
        ("kilted", {OLD: "own.xml"}, {OLD: "own.xml"}),  # which rmw_fastrtps loads there too
        ("jazzy", {OLD: "own.xml"}, {OLD: "own.xml"}),
        ("jazzy", {NEW: "own.xml"}, {NEW: "own.xml", OLD: "own.xml"}),
        ("jazzy", {NEW: "new.xml", OLD: "old.xml"}, {NEW: "new.xml", OLD: "old.xml"}),
        ("kilted", {NEW: ""}, {NEW: ""}),
    ],
)
def test_each_fast_dds_loads_the_profile_under_the_name_it_reads(monkeypatch, distribution, given, expected):
    environment = {**given, **({"ROS_DISTRO": distribution} if distribution else {})}
    monkeypatch.setattr(os, "environ", dict(environment))
    missing = {name: value for name, value in expected.items() if name not in given}
    assert fastdds_environment() == missing
    use_fastdds_profile()
    assert os.environ == {**environment, **expected}


def test_rviz_shows_topics_that_the_node_publishes():
    displays = yaml.safe_load((ROOT / "config" / "tracking.rviz").read_text())["Visualization Manager"]["Displays"]
    shown = {display["Topic"]["Value"] for display in displays if "Topic" in display}
    published = re.findall(r'"~/(\w+)"', (ROOT / "nr_tracking" / "ros" / "publishers.py").read_text())
    assert {f"/nr_tracking/{name}" for name in published} | {"/depth/image_raw"} == shown


@pytest.mark.parametrize(
    ("file", "own"),
    [("tracking", {"bag", "bag_depth_topic", "bag_camera_info_topic"}), ("cameras", {"cameras", "one_process"})],
)
def test_launch_file_describes_its_arguments(file, own):
    pytest.importorskip("launch_ros", reason="launch comes with a ROS installation, not from pip")
    from launch.launch_description_sources import get_launch_description_from_python_launch_file

    description = get_launch_description_from_python_launch_file(str(ROOT / "launch" / f"{file}.launch.py"))
    names = {argument.name for argument in description.get_launch_arguments()}
    assert names >= {
        "preset",
        "device",
        "depth_topic",
        "camera_info_topic",
        *own,
        "rviz",
        "params_file",
        "use_sim_time",
        "mask_topic",
        "clicked_point_topic",
        "namespace",
        "target_frame",
        "fixed_frame",
        "rviz_fixed_frame",
        "respawn",
        "log_level",
    }
    assert all(argument.description for argument in description.get_launch_arguments())
