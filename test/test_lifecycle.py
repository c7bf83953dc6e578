"""Managed states over and over: nothing is left behind, and cameras of one process share their weights."""

import gc
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from types import SimpleNamespace

from fake_tracker import FakeTracker
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger
from test_faults import Camera

from nr_tracking.config import load_config
from nr_tracking.ros import cameras_node, networks
from nr_tracking.ros.cameras_node import main as cameras_main
from nr_tracking.ros.process import resident_megabytes
from nr_tracking.ros.tracking_node import TrackingNode
from nr_tracking.tracking.result import read_output
from nr_tracking.types import InputError

CYCLES = 100


class Heavy(FakeTracker):
    """Holds as much memory as a small network, so that keeping one would show."""

    def __init__(self, config):
        super().__init__(config)
        self.weights = np.ones(1 << 20)  # 8 MB


def test_saving_while_the_node_is_deactivated_writes_what_was_finished(ros_context, tmp_path):
    camera = Camera(ros_context, ros__output_folder=str(tmp_path))
    node = camera.node
    try:
        camera.send(*range(3))
        camera.figures()
        finish = node.worker.finish

        def deactivated_first(timeout_s):
            node.trigger_deactivate()
            return finish(timeout_s)

        node.worker.finish = deactivated_first
        answer = node._on_save(None, Trigger.Response())
        assert answer.success and len(read_output(Path(answer.message))) == 3
        assert not node._on_reset(None, Trigger.Response()).success
    finally:
        node.close()


def test_a_reset_that_has_to_wait_says_so_and_is_done_later(ros_context, monkeypatch):
    camera = Camera(ros_context)
    node, taken = camera.node, threading.Event()
    tracker, push = node._tracker, node._tracker.push
    try:
        monkeypatch.setattr("nr_tracking.ros.tracking_node._RESET_S", 0.0)
        tracker.push = lambda frame: taken.set() or push(frame)
        tracker.gate.clear()
        camera.send(0)
        assert taken.wait(60)
        answer = node._on_reset(None, Trigger.Response())
        assert not answer.success and "busy" in answer.message and "not active" not in answer.message
        tracker.gate.set()
        camera.figures()
        assert tracker.resets == 1
        node.trigger_deactivate()
        answer = node._on_reset(None, Trigger.Response())
        assert not answer.success and answer.message == "the node is not active"
    finally:
        tracker.gate.set()
        node.close()


def test_a_transition_that_fails_shows_until_one_succeeds_whatever_came_before(ros_context):
    camera = Camera(ros_context)
    node = camera.node

    def verdict():
        return node._diagnostics._verdict(node.statistics.summary(time.monotonic()))

    def broken(config):
        raise InputError("no_weights", "no file there")

    try:
        camera.send(0)
        camera.figures()
        node.trigger_deactivate(), node.trigger_cleanup()
        assert verdict() == (b"\x00", "not active")
        node._tracker_factory = broken
        node.trigger_configure()
        assert verdict() == (b"\x02", "cannot be configured: no file there")
        node._tracker_factory = FakeTracker
        node.trigger_configure()
        assert verdict() == (b"\x00", "not active")
    finally:
        node.close()


def test_a_hundred_lifecycles_leave_no_threads_descriptors_or_memory_behind(ros_context):
    camera = Camera(ros_context, Heavy)
    node = camera.node
    try:

        def cycle():
            camera.send(*range(3))
            assert camera.figures().tracked
            node.trigger_deactivate(), node.trigger_cleanup()
            assert node._tracker is None
            node.trigger_configure(), node.trigger_activate()

        for _ in range(20):
            cycle()
        gc.collect()
        threads, files, memory = threading.active_count(), len(os.listdir("/proc/self/fd")), resident_megabytes()
        for _ in range(CYCLES - 20):
            cycle()
        gc.collect()
        assert threading.active_count() <= threads
        assert len(os.listdir("/proc/self/fd")) <= files
        assert resident_megabytes() - memory < 12  # one kept tracker in ten would make more
    finally:
        node.close()


@pytest.mark.parametrize(
    "steps", [[], ["configure"], ["configure", "activate"], ["configure", "activate", "deactivate"]]
)
def test_shutdown_from_every_state(ros_context, steps):
    node = TrackingNode(FakeTracker, context=ros_context)
    try:
        for step in steps:
            getattr(node, f"trigger_{step}")()
        node.trigger_shutdown()
        assert node._state_machine.current_state[1] == "finalized"
        assert node._tracker is None and node.worker is None and node._inputs is None
    finally:
        node.close()


def test_nodes_of_one_process_share_one_set_of_weights_and_free_it(ros_context):
    nodes = [
        TrackingNode(context=ros_context, namespace=name, parameter_overrides=[Parameter("preset", value="lite")])
        for name in ("front", "rear")
    ]
    try:
        for node in nodes:
            node.start()
        assert [node.get_fully_qualified_name() for node in nodes] == ["/front/nr_tracking", "/rear/nr_tracking"]
        assert nodes[0]._inputs.depth_topic == "/front/depth/image_raw"
        front, rear = (node._tracker for node in nodes)
        assert front is not rear and front._reconstructor.network is rear._reconstructor.network
        assert len(networks._LOADED) == 2
        del front, rear
        nodes[0].trigger_deactivate(), nodes[0].trigger_cleanup()
        gc.collect()
        assert len(networks._LOADED) == 2
    finally:
        for node in nodes:
            node.close()
    gc.collect()
    assert not networks._LOADED


def test_networks_are_warmed_up_once_where_that_takes_time(monkeypatch):
    from nr_tracking.tracking import tracker

    class Networks:
        def __init__(self, completion, deformation):
            self.completion, self.deformation = completion, deformation

    class Part:
        pass

    warmed = []
    monkeypatch.setattr(tracker, "Networks", Networks)
    monkeypatch.setattr(tracker, "load_networks", lambda config: Networks(Part(), Part()))
    monkeypatch.setattr(tracker, "Tracker", lambda config, networks: SimpleNamespace(config=config, networks=networks))
    monkeypatch.setattr(networks, "warm_up", warmed.append)
    for device, expected in (("cpu", 0), ("cuda", 1)):
        config = load_config("lite", device=device, subject={"depth_max_m": 0.5})  # out of which the ball would be
        front, rear = networks.build_tracker(config), networks.build_tracker(config)
        assert len(warmed) == expected and front.networks.completion is rear.networks.completion
        assert front.config == config
    assert warmed[0].config.subject.depth_max_m > 2 and warmed[0].networks.completion is front.networks.completion


def test_warming_up_runs_whole_windows():
    tracker = FakeTracker(load_config("test"), lag=4)
    tracked = []
    tracker._track = tracked.append
    networks.warm_up(tracker)
    assert len(tracked) == len(tracker.pushed) == 4 * tracker.config.window_frames


def test_loops_are_prepared_once_for_each_preset_and_by_trackers_on_a_processor_alone(monkeypatch, caplog):
    from nr_tracking.tracking import tracker

    warmed = []

    monkeypatch.setattr(tracker, "Tracker", lambda config, networks: SimpleNamespace(config=config, networks=networks))
    monkeypatch.setattr(networks, "warm_up", warmed.append)
    monkeypatch.setattr(networks, "_PREPARED", set())
    monkeypatch.setattr(networks, "are_compiled", lambda: True)
    for preset, device in (("lite", "cuda"), ("lite", "cpu"), ("base", "cpu"), ("lite", "cpu")):
        networks.prepare_loops(SimpleNamespace(config=load_config(preset, device=device), networks="known"))
    networks.prepare_loops(FakeTracker())
    assert [one.config.preset for one in warmed] == ["lite", "base"] and warmed[0].networks == "known"

    def fails(tracker):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(networks, "warm_up", fails)
    full = SimpleNamespace(config=load_config("full"), networks="known")
    networks.prepare_loops(full)  # is no reason to stop
    assert "full" not in networks._PREPARED and "first frames will be slow" in caplog.text


@pytest.mark.parametrize(("names", "complaint"), [([], "name the cameras"), (["a", "/a"], "once"), (["a b"], "'a b'")])
def test_cameras_without_good_names_are_refused(capsys, names, complaint):
    assert cameras_main(["cameras_node", *names, "--ros-args", "-p", "preset:=lite"]) == 2
    assert complaint in capsys.readouterr().err


def test_cameras_are_nodes_in_namespaces_of_one_process(ros_context, monkeypatch):
    made = []
    monkeypatch.setattr(cameras_node, "TrackingNode", lambda namespace: made.append(namespace) or namespace)
    monkeypatch.setattr(cameras_node, "run", lambda make_nodes, args: len(make_nodes()) - 2)
    assert cameras_main(["cameras_node", "front", "/robot/rear/", "--ros-args", "-p", "preset:=lite"]) == 0
    assert made == ["front", "robot/rear"]
