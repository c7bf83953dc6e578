"""A running tracking node, seen from outside: started as a process, fed by a replay, watched over topics."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState
from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger
from visualization_msgs.msg import Marker

from nr_tracking.ros.share import use_fastdds_profile
from nr_tracking.types import InputError

_NODE = "/nr_tracking"
_START_S = 120.0
_PROBE_S = 2.0
_WORK_S = 600.0
_END_S = 20.0
_RELIABLE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
_LATCHED = QoSProfile(depth=10, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@dataclass(frozen=True)
class Figures:
    """What the node reports of itself since it was reset, and what this process received from it. Seconds."""

    received: int = 0
    tracked: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    meshes: int = 0
    clouds: int = 0
    latency_p50_s: float = float("nan")
    latency_p95_s: float = float("nan")
    latency_p99_s: float = float("nan")
    waiting: int = 0
    seconds_a_frame: float = float("nan")

    @property
    def through(self) -> int:
        """Frames of which it is known what became of them."""
        return self.tracked + sum(self.dropped.values())

    def since(self, before: Figures) -> Figures:
        """The counts without those of ``before``."""
        dropped = {reason: count - before.dropped.get(reason, 0) for reason, count in self.dropped.items()}
        return Figures(
            self.received - before.received,
            self.tracked - before.tracked,
            {reason: count for reason, count in dropped.items() if count},
            self.meshes - before.meshes,
            self.clouds - before.clouds,
            self.latency_p50_s,
            self.latency_p95_s,
            self.latency_p99_s,
            self.waiting,
            self.seconds_a_frame,
        )


class Session:
    """Starts a tracking node with ``parameters`` and ends it; what the processes print goes to the folder ``logs``.

    Everything runs in a ROS domain of its own, unless ROS_DOMAIN_ID names one to look in from outside.
    """

    def __init__(self, parameters: dict[str, Any], logs: Path) -> None:
        self._logs = logs
        logs.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
        os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        use_fastdds_profile()
        self._meshes = self._clouds = 0
        self._reports = 0
        self._before = Figures()
        self._reported = Figures()
        self._changed = threading.Condition()
        self._process = self._start("tracking_node", parameters)
        self._context = Context()
        rclpy.init(context=self._context)
        self._node = rclpy.create_node("demo", context=self._context)
        # Counted as they come: a Python object for each corner would take more of the processor than the node leaves.
        self._node.create_subscription(Marker, f"{_NODE}/mesh", self._on_mesh, _LATCHED, raw=True)
        self._node.create_subscription(PointCloud2, f"{_NODE}/tracks", self._on_tracks, _RELIABLE)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, _RELIABLE)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._spinning = threading.Thread(target=self._spin, daemon=True)
        self._spinning.start()

    def __enter__(self) -> Session:
        """Wait until the node is active."""
        try:
            for _ in range(round(_START_S / _PROBE_S)):
                answer = self._call(GetState, "get_state", _PROBE_S, may_fail=True)
                if answer is not None and answer.current_state.label == "active":
                    return self
                if self._process.poll() is not None or "cannot be configured" in self._log("tracking_node"):
                    break
            raise InputError("node_not_active", f"the node did not become active:\n{self._log('tracking_node')}")
        except BaseException:
            self.close()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the node."""
        self.close()

    def close(self) -> None:
        """End the node as a user would, with one signal."""
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._executor.shutdown()
        self._spinning.join(_END_S)
        self._node.destroy_node()
        rclpy.try_shutdown(context=self._context)

    @property
    def process_id(self) -> int:
        """The process of the node."""
        return self._process.pid

    def require_running(self) -> None:
        """Raise InputError ``node_ended``, with what it printed last, where the node's process is gone."""
        code = self._process.poll()
        if code is not None:
            raise InputError("node_ended", f"the node ended with code {code}:\n{self._log('tracking_node')[-2000:]}")

    def replay(self, recording: Path, **parameters: Any) -> subprocess.Popen[bytes]:
        """Start a replay in a process of its own and leave it to the caller."""
        return self._start("replay_node", {"input": recording, "wait": True, **parameters})

    def play(self, recording: Path, **parameters: Any) -> int:
        """Replay a recording in a process of its own; returns how many images were sent, once all were received."""
        before = self.figures().received
        replay = self.replay(recording, **parameters)
        if replay.wait():
            raise InputError("replay_failed", f"the replay failed:\n{self._log('replay_node')}")
        sent = int(re.findall(r"(\d+) depth images sent", self._log("replay_node"))[-1])
        self._wait(lambda: self.figures().received >= before + sent, "not all images arrived at the node")
        return sent

    def finish(self, frames: int) -> Figures:
        """Wait until it is known what became of ``frames`` frames since the last reset; returns the figures."""
        self._wait(lambda: self.figures().through >= frames, f"the node is not through with {frames} frames")
        with contextlib.suppress(InputError):  # results that do not arrive show in the figures
            self._wait(lambda: self.figures().clouds >= self.figures().tracked, "results are missing", _END_S)
        return self.figures()

    def save(self) -> Path:
        """Have the node finish what it received and write it; returns the folder that it wrote."""
        answer = self._call(Trigger, "save", _WORK_S)
        if not answer.success:
            raise InputError("save_failed", f"the node could not save: {answer.message}")
        return Path(answer.message)

    def reset(self) -> None:
        """Have the node forget the subject; the figures begin anew."""
        self._call(Trigger, "reset", _WORK_S)
        with self._changed:  # what the reset dropped is in the report after the next one at the latest
            reports = self._reports + 2
        self._wait(lambda: self._reports >= reports, "the node reports nothing")
        self._before = Figures()
        self._before = self.figures()

    def figures(self) -> Figures:
        """The latest figures since the last reset."""
        with self._changed:
            reported, meshes, clouds = self._reported, self._meshes, self._clouds
        return Figures(**{**vars(reported), "meshes": meshes, "clouds": clouds}).since(self._before)

    def _start(self, node: str, parameters: dict[str, Any]) -> subprocess.Popen[bytes]:
        """Start a node as a process; values are written as YAML."""
        given = {name: str(value).lower() if isinstance(value, bool) else value for name, value in parameters.items()}
        arguments = [word for name, value in given.items() for word in ("-p", f"{name}:={value}")]
        command = [sys.executable, "-m", f"nr_tracking.ros.{node}", "--ros-args", *arguments]
        with (self._logs / f"{node}.log").open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def _log(self, node: str) -> str:
        return (self._logs / f"{node}.log").read_text(errors="replace").strip()

    def _call(self, kind: type[Any], service: str, timeout_s: float, *, may_fail: bool = False) -> Any:
        client: Any = self._node.create_client(kind, f"{_NODE}/{service}")
        try:
            done = threading.Event()
            if client.wait_for_service(timeout_s):
                future = client.call_async(kind.Request())
                future.add_done_callback(lambda _: done.set())
                if done.wait(timeout_s):
                    return future.result()
        finally:
            self._node.destroy_client(client)
        if may_fail:
            return None
        raise InputError("no_answer", f"{_NODE}/{service} did not answer:\n{self._log('tracking_node')}")

    def _wait(self, condition: Callable[[], bool], complaint: str, timeout_s: float = _WORK_S) -> None:
        with self._changed:
            if not self._changed.wait_for(condition, timeout_s):
                raise InputError("timeout", f"{complaint} within {timeout_s:.0f} s; see {self._logs}")

    def _on_mesh(self, message: bytes) -> None:
        with self._changed:
            self._meshes += 1
            self._changed.notify_all()

    def _on_tracks(self, message: PointCloud2) -> None:
        with self._changed:
            self._clouds += 1
            self._changed.notify_all()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        values = {entry.key: entry.value for status in message.status for entry in status.values}

        def number(key: str) -> float:
            return float(values[key]) if values.get(key, "-") != "-" else float("nan")

        stages = [number(key) for key in values if key.startswith("stage ")]
        figures = Figures(
            received=int(values["frames received"]),
            tracked=int(values["frames tracked"]),
            dropped={key[9:]: int(value) for key, value in values.items() if key.startswith("dropped: ")},
            latency_p50_s=number("latency p50 [s]"),
            latency_p95_s=number("latency p95 [s]"),
            latency_p99_s=number("latency p99 [s]"),
            waiting=int(values["frames waiting"]),
            seconds_a_frame=sum(stages) if stages else float("nan"),
        )
        with self._changed:
            self._reported = figures
            self._reports += 1
            self._changed.notify_all()

    def _spin(self) -> None:
        # At the end the node may go while something of it is still being served.
        with contextlib.suppress(ExternalShutdownException, InvalidHandle):
            self._executor.spin()
