"""What the node says about itself on ``/diagnostics``, once a second and in every state."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions

from nr_tracking.ros.process import resident_megabytes
from nr_tracking.ros.statistics import Statistics, Summary

_PERIOD_S = 1.0


class Diagnostics:
    """Publishes the figures of a node, which sets the public attributes as they change."""

    def __init__(
        self, node: LifecycleNode, statistics: Statistics, silence_s: float, waiting: Callable[[], int]
    ) -> None:
        self.active = False
        self.silence_s = silence_s
        self.subject = ""
        self.failure = ""  # why the last transition failed; empty where it did not
        self._depth_topic, self._depth_type, self._reliability = "", "sensor_msgs/msg/Image", "best_effort"
        self._node = node
        self._statistics = statistics
        self._waiting = waiting
        self._publisher = node.create_publisher(
            DiagnosticArray,
            "/diagnostics",
            QoSProfile(depth=10),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        # Steady time: diagnostics go on while a simulated clock stands still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(_PERIOD_S, self.publish, clock=steady)
        self._dropped_before = 0
        self._wrong = False

    def watch(self, depth_topic: str, depth_type: str, reliability: str) -> None:
        """Input is expected from now on, of this type on this topic, subscribed to with this reliability."""
        self._depth_topic, self._depth_type, self._reliability = depth_topic, depth_type, reliability
        self.active = True

    def publish(self) -> None:
        """Send the status now."""
        summary = self._statistics.summary(time.monotonic())
        level, message = self._verdict(summary)
        self._dropped_before = summary.dropped_total
        self._log(level == DiagnosticStatus.ERROR and self.active, message)
        status = DiagnosticStatus(level=level, name=self._node.get_fully_qualified_name(), message=message)
        status.hardware_id = "depth camera"
        status.values = [KeyValue(key=key, value=value) for key, value in self._values(summary).items()]
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)

    def _log(self, wrong: bool, message: str) -> None:
        """Say in the log, too, when something begins to be wrong, and when it ends."""
        if wrong and not self._wrong:
            self._node.get_logger().warning(message)
        elif self._wrong and not wrong and self.active:
            self._node.get_logger().info(message)
        self._wrong = wrong

    def _verdict(self, summary: Summary) -> tuple[bytes, str]:
        if not self.active:
            return (DiagnosticStatus.ERROR, self.failure) if self.failure else (DiagnosticStatus.OK, "not active")
        if summary.since_last_frame_s > self.silence_s:
            return (
                DiagnosticStatus.ERROR,
                self._silence(summary),
            )
        if summary.last_drop and summary.since_last_result_s > self.silence_s and not self._waiting():
            return (
                DiagnosticStatus.ERROR,
                f"no usable depth for {summary.since_last_result_s:.1f} s: {self._publishers()}; {summary.last_drop}",
            )
        dropped = summary.dropped_total - self._dropped_before
        if dropped:
            return DiagnosticStatus.WARN, f"{dropped} frames dropped in the last second; {summary.last_error}"
        if math.isnan(summary.result_rate_hz):
            return DiagnosticStatus.OK, "waiting for the first windows"
        return DiagnosticStatus.OK, f"tracking at {summary.result_rate_hz:.1f} Hz"

    def _silence(self, summary: Summary) -> str:
        return f"no depth for {summary.since_last_frame_s:.1f} s on {self._depth_topic}: {self._why_silent()}"

    def _why_silent(self) -> str:
        """What is found on the graph where depth should be."""
        publishers = self._node.get_publishers_info_by_topic(self._depth_topic)
        wrong = [each for each in publishers if each.topic_type != self._depth_type]
        if wrong:
            return f"{self._depth_topic} carries {wrong[0].topic_type}, not {self._depth_type}: remap depth/image_raw"
        if publishers:
            reliable = self._reliability == "reliable"
            mute = [each for each in publishers if reliable and each.qos_profile.reliability.name == "BEST_EFFORT"]
            mend = (
                "set ros.image_reliability: best_effort, and no QoS override against it, for a publisher that does its "
                "best never matches a reliable subscription"
                if mute
                else "is it running, as the user who runs this node, and is config/fastdds.xml in use, without which "
                "large images are lost?"
            )
            return f"{self._publishers()} but no image arrives: {mend}"
        images = sorted(name for name, types in self._node.get_topic_names_and_types() if self._depth_type in types)
        images = [name for name in images if self._node.count_publishers(name)]
        there = f"image topics that are published: {', '.join(images)}" if images else "no image topic is published"
        return f"nobody publishes {self._depth_topic}; {there}"

    def _publishers(self) -> str:
        """Who publishes depth, and how."""
        found = [
            f"{each.node_name} ({each.qos_profile.reliability.name}, {each.qos_profile.durability.name})"
            for each in self._node.get_publishers_info_by_topic(self._depth_topic)
        ]
        return f"{' and '.join(found) or 'nobody'} publishes {self._depth_topic}"

    def _values(self, summary: Summary) -> dict[str, str]:
        values = {
            "input rate [Hz]": _number(summary.rate_hz),
            "result rate [Hz]": _number(summary.result_rate_hz),
            "input jitter [s]": _number(summary.jitter_s),
            "latency p50 [s]": _number(summary.latency_p50_s),
            "latency p95 [s]": _number(summary.latency_p95_s),
            "latency p99 [s]": _number(summary.latency_p99_s),
            "frames received": str(summary.received),
            "frames tracked": str(summary.tracked),
            "frames waiting": str(self._waiting()),
            "frames dropped": str(summary.dropped_total),
        }
        values |= {f"dropped: {reason}": str(count) for reason, count in sorted(summary.dropped.items())}
        values |= {f"stage {stage} [s]": _number(seconds) for stage, seconds in summary.stages_s.items()}
        values |= {
            "windows": str(summary.windows),
            "subject": self.subject,
            "tracks": str(summary.tracks),
            "resets": str(summary.resets),
            "memory [MB]": f"{resident_megabytes():.0f}",
            **gpu_memory(),
            "last error": summary.last_error,
        }
        return values


def gpu_memory() -> dict[str, str]:
    """Memory that this process holds on the GPU, and the most it ever held; nothing where it uses none."""
    torch = sys.modules.get("torch")  # a node that is not configured has not imported it
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return {}
    now, most = torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    return {"GPU memory [MB]": f"{now / 2**20:.0f}", "GPU memory peak [MB]": f"{most / 2**20:.0f}"}


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"
