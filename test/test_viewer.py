"""A running node in the viewer, which is stood in for: what it is given is what was published."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy")

from fake_tracker import FACES, tracked
from ros_peer import Spinner
from test_faults import Camera

from nr_tracking import cli
from nr_tracking.ros import cdr, viewer
from nr_tracking.types import InputError


class Rerun(SimpleNamespace):
    """Remembers what it was told."""

    def __init__(self):
        kinds = ("Mesh3D", "LineStrips3D", "Points3D")
        made = {kind: lambda *a, _kind=kind, **k: SimpleNamespace(kind=_kind, arguments=a, **k) for kind in kinds}
        super().__init__(**made, calls=[], logged={}, ViewCoordinates=SimpleNamespace(RDF="RDF"))

    def log(self, path, shown, static=False):
        if static:
            self.calls.append((path, shown))
            return
        self.logged.setdefault(path, []).append((self.time, shown))

    def set_time(self, name, timestamp):
        self.time = timestamp

    def init(self, name, spawn):
        self.calls.append(("init", spawn))

    def save(self, path):
        self.calls.append(("save", path.parent))
        self.file = path

    def disconnect(self):
        self.file.write_text("a recording")

    def serve_grpc(self):
        return "address"

    def serve_web_viewer(self, web_port, connect_to):
        if ("web", connect_to) in self.calls:
            raise RuntimeError("address already in use")
        self.calls.append(("web", connect_to))


@pytest.mark.parametrize("shape", ["triangles", "lines"])
@pytest.mark.parametrize("frame_id", ["", "a", "camera_depth_optical_frame"])
def test_markers_are_read_as_they_were_written(shape, frame_id):
    generator = np.random.default_rng(0)
    points, colours = generator.random((12, 3)), generator.random((12, 4)).astype(np.float32)
    data = cdr.marker(5 * 10**9 + 7, frame_id, shape, points, colours, namespace="surface")
    stamp, frame, read, painted = cdr.read_marker(data)
    assert (stamp, frame) == (5 * 10**9 + 7, frame_id)
    np.testing.assert_array_equal(read, points)
    np.testing.assert_array_equal(painted, colours)
    for cut in range(0, len(data) - 200, 37):
        with pytest.raises(ValueError, match=r"buffer|CDR|size"):
            cdr.read_marker(data[:cut])


def test_what_a_node_publishes_is_shown_at_its_stamps(ros_context):
    from rclpy.executors import MultiThreadedExecutor, SingleThreadedExecutor

    camera, rerun = Camera(ros_context), Rerun()
    view = viewer.LiveView("/nr_tracking", rerun, context=ros_context)
    spinners = [
        Spinner(view, SingleThreadedExecutor(context=ros_context), ros_context),
        Spinner(camera.node, MultiThreadedExecutor(3, context=ros_context), ros_context),
    ]
    try:
        topics = ("mesh", "tracks", "correspondences")
        wait_for(lambda: all(camera.node.count_subscribers(f"/nr_tracking/{topic}") for topic in topics))
        camera.send(0, 1, 2)
        wait_for(lambda: len(rerun.logged.get("camera/motion", [])) == 2 and len(rerun.logged["camera/tracks"]) == 3)
        last = 1 + 2 * 33_333_333 / 1e9
        wait_for(lambda: any(stamp == last for stamp, _ in rerun.logged.get("camera/surface", [])))
    finally:
        for spinner in spinners:
            spinner.stop()
        view.destroy_node()
        camera.node.close()
    expected = tracked(10**9, 1.0)
    mesh = rerun.logged["camera/surface"][-1][1]  # those that came faster than they were taken are skipped
    np.testing.assert_allclose(mesh.vertex_positions, expected.surface.vertices[FACES].reshape(-1, 3), atol=1e-6)
    assert mesh.triangle_indices.shape == (4, 3) and mesh.vertex_colors.dtype == np.uint8
    points = rerun.logged["camera/tracks"][0][1].arguments[0]
    np.testing.assert_allclose(points, expected.tracks.positions, atol=1e-6)
    assert rerun.logged["camera/motion"][0][1].arguments[0].shape == (4, 2, 3)


def wait_for(condition):
    import time

    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_viewer_is_told_which_way_is_up(ros_context):
    rerun = Rerun()
    view = viewer.LiveView("/nr_tracking", rerun, context=ros_context)
    try:
        for frame_id in ("camera_depth_optical_frame", "odom", "camera_depth_optical_frame"):
            view._log(1, f"{frame_id}/tracks", "points")
    finally:
        view.destroy_node()
    assert rerun.calls == [("camera_depth_optical_frame", "RDF")]


def test_the_command_opens_file_browser_or_window(monkeypatch, tmp_path, capsys):
    rerun, shown = Rerun(), []
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setitem(sys.modules, "rerun", rerun)
    monkeypatch.setattr(viewer, "show", lambda source, given: shown.append((source, given)))
    assert cli.main(["view", "--live", "/front/nr_tracking"]) == 0
    assert cli.main(["view", "--live", "/nr_tracking", "--web"]) == 0
    assert cli.main(["view", "--live", "/nr_tracking", "--save", str(tmp_path / "a.rrd")]) == 0
    assert [source for source, _ in shown] == ["/front/nr_tracking", "/nr_tracking", "/nr_tracking"]
    spawned = [("init", True), ("init", False), ("web", "address"), ("init", False), ("save", tmp_path)]
    assert rerun.calls == spawned and (tmp_path / "a.rrd").read_text() == "a recording"
    assert "http://127.0.0.1:9090/?url=address" in capsys.readouterr().out
    assert cli.main(["view", "--live", "/nr_tracking", "--web"]) == 2
    assert "address already in use; is another one running?" in capsys.readouterr().err
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main(["view", "--live", "/nr_tracking"]) == 2
    assert "--web shows it in a browser" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["view"])


def test_a_file_that_is_there_stays_until_the_new_one_is_whole(monkeypatch, tmp_path, capsys):
    def fail(source, given):
        assert (tmp_path / "a.rrd").read_text() == "the old one"
        raise InputError("no_node", "nobody is there")

    (tmp_path / "a.rrd").write_text("the old one")
    monkeypatch.setitem(sys.modules, "rerun", Rerun())
    monkeypatch.setattr(viewer, "show", fail)
    request = ["view", "--live", "/nr_tracking", "--save"]
    assert cli.main([*request, str(tmp_path / "a.rrd")]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.rrd"]
    assert (tmp_path / "a.rrd").read_text() == "the old one"
    assert cli.main([*request, "/proc/x.rrd"]) == 2
    assert cli.main([*request, str(tmp_path / "a.rrd"), "--web"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3 and "nothing can be written into /proc" in said[1] and "exclude each other" in said[2]
