"""Plays a recording as a camera would: a rosbag2 or a SEQUENCE, at its own rate, with ``/clock``.

    ros2 run nr_tracking replay_node --ros-args -p input:=RECORDING -p loop:=true

Only the depth stream is played, under the names that ``tracking_node`` listens to. Stamps are those of the recording.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import rclpy
from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy.duration import Duration
from rclpy.exceptions import InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

from nr_tracking.config import ConfigError
from nr_tracking.data.sequence import Sequence, is_sequence, read_sequence
from nr_tracking.ros.arguments import answered
from nr_tracking.ros.bags import RecordedMessage, Recording, open_recording
from nr_tracking.ros.conversions import Rectified
from nr_tracking.ros.memory import share_heaps
from nr_tracking.ros.messages import Kind, frame_messages
from nr_tracking.ros.parameters import given_names
from nr_tracking.ros.settings import check_names
from nr_tracking.ros.share import use_fastdds_profile
from nr_tracking.ros.typestore import encode, unpacked, without_lens
from nr_tracking.types import InputError

_TOPICS: dict[Kind, tuple[type[Any], str]] = {
    "depth": (Image, "depth/image_raw"),
    "camera_info": (CameraInfo, "depth/camera_info"),
    "mask": (Image, "mask"),
}
_TICK_S = 0.02  # the clock is published at least this often
_WAIT_S = 30.0
_KINDS: dict[type, str] = {str: "text", bool: "true or false", float: "number"}
_FRAME_ID = "camera_depth_optical_frame"  # of a SEQUENCE, which names none


@dataclass(frozen=True)
class Source:
    """A recording to play: ``what`` is played in words, its kinds of messages, and these, from the start each time."""

    what: str
    kinds: tuple[Kind, ...]
    messages: Callable[[], Iterator[RecordedMessage]]


def open_source(
    path: Path, depth_topic: str = "", camera_info_topic: str = "", rectified: Rectified = "auto"
) -> Source:
    """Open a rosbag2, or a SEQUENCE as the messages that it amounts to. Faults are :class:`InputError`."""
    if is_sequence(path):
        sequence = read_sequence(path)
        masked = sequence.mask_files is not None
        return Source(str(path), _kinds(masked), lambda: _messages_of(sequence))
    recording = open_recording(path, depth_topic or None, camera_info_topic or None, rectified=rectified)
    topics = recording.topics
    what = f"{topics.depth} with {topics.camera_info} of {path}"
    return Source(what, _kinds(topics.mask is not None), lambda: _raw_messages(recording))


def _kinds(masked: bool) -> tuple[Kind, ...]:
    return ("camera_info", "depth", "mask") if masked else ("camera_info", "depth")


def _messages_of(sequence: Sequence) -> Iterator[RecordedMessage]:
    for frame in sequence.frames(on_drop=_complain):
        for kind, message in frame_messages(frame, _FRAME_ID).items():
            yield RecordedMessage(kind, frame.stamp_ns, encode(kind, message))


def _complain(error: InputError) -> None:
    print(f"replay_node: {error}", file=sys.stderr)


def _raw_messages(recording: Recording) -> Iterator[RecordedMessage]:
    """The messages of a bag, compressed depth unpacked; what is damaged is left out and said."""
    for message in recording.messages(_complain):
        if message.kind == "camera_info" and recording.rectified:  # the name that they are played under does not tell
            try:
                message = replace(message, data=without_lens(message.data))
            except InputError as error:
                _complain(error)
                continue
        if message.kind == "depth" and recording.compressed:
            try:
                message = replace(message, data=unpacked(message.data))
            except InputError as error:
                _complain(error)
                continue
        yield message


def clipped(messages: Iterator[RecordedMessage], start_s: float, duration_s: float) -> Iterator[RecordedMessage]:
    """The messages from ``start_s`` after the first one on, for ``duration_s``, or to the end where that is 0.

    The last camera info before the start comes along: a driver may have sent none after it.
    """
    begin: int | None = None
    latched: RecordedMessage | None = None
    for message in messages:
        if begin is None:
            begin = message.stamp_ns + round(start_s * 1e9)
        if message.stamp_ns < begin:
            latched = message if message.kind == "camera_info" else latched
            continue
        if duration_s > 0 and message.stamp_ns >= begin + round(duration_s * 1e9):
            return
        if latched is not None:
            yield replace(latched, stamp_ns=message.stamp_ns)
            latched = None
        yield message


class ReplayNode(Node):
    """Publishes a recording. Parameters: see the descriptors below; one that is not allowed is an InputError."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__("replay", **node_options)
        self._known: list[str] = []
        self._input = (
            self._parameter("input", "", "rosbag2 or SEQUENCE folder"),
            self._parameter("depth_topic", "", "topic of the depth images in a bag; empty to find it by type"),
            self._parameter("camera_info_topic", "", "topic of the camera info in a bag; empty to find it"),
        )
        self._rectified = self._parameter(
            "image_rectified",
            "auto",
            "images of a bag are free of the lens: auto (by their topic), always or never",
        )
        if self._rectified not in get_args(Rectified):
            allowed = f"is none of {', '.join(get_args(Rectified))}"
            raise InputError("bad_parameter", f"image_rectified: {self._rectified!r} {allowed}")
        self._rate = self._parameter("rate", 1.0, "speed over that of the recording", (1e-3, 1e3))
        self._loop = self._parameter("loop", False, "begin again at the end; stamps jump back then")
        self._start_s = self._parameter("start", 0.0, "seconds of the recording to skip", (0.0, 1e6))
        self._duration_s = self._parameter("duration", 0.0, "seconds of the recording to play, 0 for all", (0.0, 1e6))
        self._reliable = self._parameter("reliable", True, "reliable: slow down rather than lose a message")
        self._wait = self._parameter("wait", False, "begin when somebody subscribes to depth and camera info")
        try:
            check_names(given_names(self), self._known, f"there are {', '.join(self._known)}")
        except ConfigError as error:
            raise InputError("bad_parameter", str(error)) from None
        self._topics: dict[Kind, Publisher[Any]] = {}
        self._told_ns: int | None = None  # by the clock, in this pass
        self._clock_topic = self.create_publisher(Clock, "/clock", QoSProfile(depth=1))

    def play(self) -> int:
        """Play to the end or until shutdown; returns how many depth images were sent.

        Raises:
            InputError: the recording cannot be read, or a subscriber takes nothing of it.
        """
        path, depth_topic, info_topic = self._input
        if not path:
            raise InputError("no_input", "name a recording: -p input:=FOLDER")
        source = open_source(Path(path), depth_topic, info_topic, self._rectified)
        # Only what there is: a mask topic makes a tracking node wait for a mask with every image.
        self._topics = {kind: self._publisher(*_TOPICS[kind]) for kind in source.kinds}
        if self._wait:
            self._wait_for_subscribers()
        if self.context.ok():
            self.get_logger().info(f"playing {source.what}")
        total = 0
        while self.context.ok():
            sent = self._play_once(clipped(source.messages(), self._start_s, self._duration_s))
            total += sent
            if not self._loop or not sent:
                break
        return total

    def _play_once(self, messages: Iterator[RecordedMessage]) -> int:
        sent, begun, first = 0, time.monotonic(), None
        self._told_ns = None
        for message in messages:
            first = message.stamp_ns if first is None else first
            if not self._pass_time(begun, first, message.stamp_ns):
                return sent
            self._send(self._topics[message.kind], message.data)
            sent += message.kind == "depth"
        for publisher in self._topics.values():
            if self._reliable and publisher.get_subscription_count():
                publisher.wait_for_all_acked(Duration(seconds=_WAIT_S))
        return sent

    def _pass_time(self, begun: float, first_ns: int, until_ns: int) -> bool:
        """Let time run up to a stamp, telling it on /clock; False when the node is being shut down."""
        while self.context.ok():
            passed = time.monotonic() - begun
            remaining = (until_ns - first_ns) / 1e9 / self._rate - passed
            now_ns = until_ns if remaining <= 0 else first_ns + round(passed * self._rate * 1e9)
            # Messages may lie a little out of order in a recording; for a clock, back is a recording that begins again.
            self._told_ns = now_ns = now_ns if self._told_ns is None else max(now_ns, self._told_ns)
            clock = Clock()
            clock.clock.sec, clock.clock.nanosec = divmod(now_ns, 1_000_000_000)
            self._clock_topic.publish(clock)
            if remaining <= 0:
                return True
            time.sleep(min(remaining, _TICK_S))
        return False

    def _send(self, publisher: Publisher[Any], data: bytes) -> None:
        """Publish; a reliable subscriber that cannot keep up is waited for."""
        deadline = time.monotonic() + _WAIT_S
        while self.context.ok():
            try:
                publisher.publish(data)
                return
            except rclpy_implementation.RCLError as error:
                if time.monotonic() > deadline:
                    raise InputError(
                        "subscriber_stuck", f"{publisher.topic_name}: a subscriber took nothing for {_WAIT_S:.0f} s"
                    ) from error

    def _wait_for_subscribers(self) -> None:
        """Wait as long as it takes: the first time on a machine, a node may need minutes before it subscribes."""
        needed, told = [self._topics["depth"], self._topics["camera_info"]], time.monotonic()
        while self.context.ok():
            missing = [publisher.topic_name for publisher in needed if not publisher.get_subscription_count()]
            if not missing:
                return
            if time.monotonic() > told + _WAIT_S:
                told = time.monotonic()
                self.get_logger().info(f"waiting until somebody subscribes to {' and '.join(missing)}")
            time.sleep(_TICK_S)

    def _publisher(self, kind: type[Any], topic: str) -> Publisher[Any]:
        if self._reliable:  # what is not acknowledged is kept, and publish() waits: nothing is lost
            qos = QoSProfile(history=HistoryPolicy.KEEP_ALL, depth=0, reliability=ReliabilityPolicy.RELIABLE)
        else:
            qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        return self.create_publisher(kind, topic, qos)

    def _parameter(self, name: str, default: Any, meaning: str, limits: tuple[float, float] | None = None) -> Any:
        # Of any type: a whole number is a fine rate, and a name that YAML reads as a number is told of in words.
        descriptor = ParameterDescriptor(description=meaning, read_only=True, dynamic_typing=True)
        if limits:
            descriptor.floating_point_range = [FloatingPointRange(from_value=limits[0], to_value=limits[1], step=0.0)]
        self._known.append(name)
        try:
            value = self.declare_parameter(name, default, descriptor).value
        except InvalidParameterValueException as error:
            raise InputError("bad_parameter", f"{name}: {error}") from None
        if type(default) is float and type(value) is int and limits and limits[0] <= value <= limits[1]:
            return float(value)
        if type(value) is not type(default):
            quoted = f"; in quotes it is a name: -p {name}:=\"'{value}'\"" if isinstance(default, str) else ""
            bounds = f" of {limits[0]:g} to {limits[1]:g}" if limits else ""
            raise InputError("bad_parameter", f"{name}: {value!r} is no {_KINDS[type(default)]}{bounds}{quoted}")
        return value


def main(args: list[str] | None = None) -> int:
    """Play a recording until its end, SIGINT or SIGTERM."""
    code = answered("replay_node", args, example="input:=FOLDER")
    if code is not None:
        return code
    share_heaps()
    use_fastdds_profile()
    rclpy.init(args=args)
    try:
        _play(ReplayNode())
    except InputError as error:
        print(f"replay_node: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    finally:
        rclpy.try_shutdown()
    return 0


def _play(node: ReplayNode) -> None:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spinning = threading.Thread(target=_spin, args=(executor.spin,), daemon=True)
    spinning.start()
    try:
        sent = node.play()
        node.get_logger().info(f"{sent} depth images sent")
    finally:
        executor.shutdown()
        spinning.join(5.0)
        node.destroy_node()


def _spin(spin: Callable[[], None]) -> None:
    with contextlib.suppress(ExternalShutdownException):
        spin()


if __name__ == "__main__":
    sys.exit(main())
