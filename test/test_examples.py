"""The examples do what they say when they are run as a user runs them, and so does the Python of the README."""

import importlib.util
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ball_recording import write_ball

from nr_tracking.ros.outputs import TRACK_FIELDS, tracks_cloud
from nr_tracking.tracking.ply import read_ply
from nr_tracking.types import Tracks

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


def test_tracking_frames_says_where_a_point_went_and_writes_a_surface(tmp_path):
    recording, surface = write_ball(tmp_path / "ball", 4), tmp_path / "surface.ply"
    command = [sys.executable, str(EXAMPLES / "track_frames.py"), str(recording), "--output", str(surface)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    found = re.findall(r"track (\d+) is at +(\S+) +(\S+) +(\S+) m", ran.stdout)
    assert len(found) == 4 and len({line[0] for line in found}) == 1
    went = np.array(found, float)[-1, 1:] - np.array(found, float)[0, 1:]
    np.testing.assert_allclose(went, [0.06, 0.0, 0.03], atol=0.03)  # the ball's way in three frames
    vertices, faces, _ = read_ply(surface)
    (recording / "depth" / "000001.png").write_bytes(b"not an image")
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0 and "left out" in ran.stdout and ran.stdout.count("track ") == 3, ran.stderr
    assert len(faces) > 1000 and np.abs(vertices.mean(axis=0) - [-0.04, 0.05, 1.53]).max() < 0.1


def test_python_of_the_readme_runs_as_it_stands(tmp_path):
    (block,) = re.findall(r"```python\n(.+?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    write_ball(tmp_path / "SEQUENCE", 4)
    (tmp_path / "SEQUENCE" / "depth" / "000001.png").write_bytes(b"not an image")
    block = block.replace('load_config("base")', 'load_config("lite")') + "\nprint(len(result.tracks.ids))\n"
    ran = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "000001.png" in ran.stdout and int(ran.stdout.splitlines()[-1]) > 1000


@pytest.fixture
def example():
    pytest.importorskip("rclpy")
    spec = importlib.util.spec_from_file_location("follow_point", EXAMPLES / "follow_point.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return example


def test_the_nearest_track_to_a_click_is_chosen(example):
    tracks = np.zeros(3, TRACK_FIELDS)
    tracks["id"], tracks["z"], tracks["x"] = [7, 8, 9], 1.0, [0.0, 0.2, 0.4]
    assert example.nearest_track(tracks, (0.21, 0.01, 1.0)) == 8
    assert example.nearest_track(tracks, (0.2, 0.0, 1.5)) is None, "far from the body"
    assert example.nearest_track(tracks[:0], (0.2, 0.0, 1.0)) is None
    assert example.track_position(tracks, 9) == pytest.approx((0.4, 0.0, 1.0))
    assert example.track_position(tracks, 6) is None


def cloud(index: int, ids: list[int], x: float) -> bytes:
    """Tracks a tenth of a metre apart, the first of them at ``x``."""
    positions = np.array([[x + 0.1 * row, 0.0, 1.0] for row in range(len(ids))], np.float32).reshape(-1, 3)
    ones = np.ones(len(ids), np.float32)
    tracks = Tracks(np.array(ids, np.int64), positions, np.zeros_like(positions), ones, ones > 0)
    return tracks_cloud(100_000_000 * (index + 1), "camera", tracks)


def test_who_has_gone_is_forgotten_until_the_next_click(ros_context, example, monkeypatch):
    from geometry_msgs.msg import PointStamped
    from rclpy.serialization import deserialize_message
    from sensor_msgs.msg import PointCloud2

    def tell(index, ids):
        node.on_tracks(deserialize_message(cloud(index, ids, 0.0), PointCloud2))

    node, poses, said = example.FollowPoint(context=ros_context), [], []
    monkeypatch.setattr(node.poses, "publish", poses.append)
    monkeypatch.setattr(node, "get_logger", lambda: SimpleNamespace(info=said.append, warning=said.append))
    click = PointStamped()
    click.header.frame_id, click.point.x, click.point.z = "camera", 0.11, 1.0
    tell(0, [3, 4, 5])
    node.on_click(click)
    for ids in ([3, 4, 5], [], [], [6, 7, 8]):
        tell(1, ids)
    assert said == ["following track 4", "track 4 is gone for good; click again"] and len(poses) == 1
    node.on_click(click)
    tell(2, [6, 7, 8])
    assert said[-1] == "following track 7" and len(poses) == 2
    node.destroy_node()


def test_a_clicked_point_is_followed_over_dds(ros_context, tmp_path):
    from geometry_msgs.msg import PointStamped, PoseStamped
    from ros_peer import RELIABLE, WAIT_S, Peer
    from sensor_msgs.msg import PointCloud2

    peer = Peer(ros_context)
    log = tmp_path / "log"
    with log.open("w") as file:
        follower = subprocess.Popen([sys.executable, str(EXAMPLES / "follow_point.py")], stdout=file, stderr=file)
    try:
        clouds = peer.node.create_publisher(PointCloud2, "/nr_tracking/tracks", RELIABLE)
        clicks = peer.node.create_publisher(PointStamped, "/clicked_point", RELIABLE)
        poses = peer.listen(PoseStamped, "/follow_point/pose")

        def click(frame_id: str) -> None:
            point = PointStamped()
            point.header.frame_id, point.point.x, point.point.z = frame_id, 0.11, 1.0
            clicks.publish(point)

        deadline = time.monotonic() + WAIT_S
        while not poses.messages and time.monotonic() < deadline:  # until both have found each other
            clouds.publish(cloud(0, [3, 4, 5], 0.0))
            click("camera")
            time.sleep(0.1)
        clouds.publish(cloud(4, [3, 4, 5], 0.0))  # answered when the clicks before it have been heard
        poses.wait(lambda found: any(each.header.stamp.nanosec == 500_000_000 for each in found))
        click("map")
        clouds.publish(cloud(1, [5], 0.0))
        clouds.publish(cloud(2, [3, 5], 0.0))
        clouds.publish(cloud(3, [3, 4, 5], 0.5))
        pose = poses.wait(lambda found: any(each.header.stamp.nanosec == 400_000_000 for each in found))[-1]
        assert pose.header.frame_id == "camera" and pose.pose.orientation.w == 1.0
        assert pose.pose.position.x == pytest.approx(0.6) and pose.pose.position.z == 1.0
        assert not any(each.header.stamp.nanosec in (200_000_000, 300_000_000) for each in poses.messages)
    finally:
        follower.send_signal(signal.SIGINT)
        code = follower.wait(WAIT_S)
        peer.close()
    said = log.read_text()
    assert code == 0 and "Traceback" not in said, said
    assert said.count("track 4 is lost") == said.count("track 4 is found again") == 1
    assert "the click is in 'map', the tracks are in 'camera'" in said
