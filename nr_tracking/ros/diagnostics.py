"""What the node says about itself on ``/diagnostics``, once a second and in every state."""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile

from nr_tracking.ros.statistics import Statistics, Summary

_IMAGE = "sensor_msgs/msg/Image"
_PERIOD_S = 1.0


class Diagnostics:
    """Publishes the figures of a node; the node sets ``active``, ``depth_topic`` and ``silence_s`` as they change."""

    def __init__(
        self, node: LifecycleNode, statistics: Statistics, silence_s: float, waiting: Callable[[], int]
    ) -> None:
        self.active = False
        self.silence_s = silence_s
        self.depth_topic = ""
        self._node = node
        self._statistics = statistics
        self._waiting = waiting
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", QoSProfile(depth=10))
        # Steady time: diagnostics go on while a simulated clock stands still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(_PERIOD_S, self.publish, clock=steady)
        self._dropped_before = 0

    def publish(self) -> None:
        """Send the status now."""
        summary = self._statistics.summary(time.monotonic())
        level, message = self._verdict(summary)
        self._dropped_before = summary.dropped_total
        status = DiagnosticStatus(level=level, name=self._node.get_fully_qualified_name(), message=message)
        status.hardware_id = "depth camera"
        status.values = [KeyValue(key=key, value=value) for key, value in self._values(summary).items()]
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)

    def _verdict(self, summary: Summary) -> tuple[bytes, str]:
        if not self.active:
            failed = bool(summary.last_error) and not summary.received
            return (DiagnosticStatus.ERROR, summary.last_error) if failed else (DiagnosticStatus.OK, "not active")
        if summary.since_last_frame_s > self.silence_s:
            return DiagnosticStatus.ERROR, f"no depth for {summary.since_last_frame_s:.1f} s: {self._why_silent()}"
        dropped = summary.dropped_total - self._dropped_before
        if dropped:
            return DiagnosticStatus.WARN, f"{dropped} frames dropped in the last second; {summary.last_error}"
        return DiagnosticStatus.OK, f"tracking at {summary.rate_hz:.1f} Hz"

    def _why_silent(self) -> str:
        """What is found on the graph where depth should be."""
        publishers = self._node.get_publishers_info_by_topic(self.depth_topic)
        if publishers:
            first = publishers[0]
            if first.topic_type != _IMAGE:
                return f"{self.depth_topic} carries {first.topic_type}, not {_IMAGE}: remap depth/image_raw"
            qos = first.qos_profile
            return (
                f"{first.node_name} publishes {self.depth_topic} ({qos.reliability.name}, {qos.durability.name}) but "
                "no image arrives: is it running, and does its reliability fit ros.image_reliability?"
            )
        images = sorted(name for name, types in self._node.get_topic_names_and_types() if _IMAGE in types)
        images = [name for name in images if self._node.count_publishers(name)]
        there = f"image topics that are published: {', '.join(images)}" if images else "no image topic is published"
        return f"nobody publishes {self.depth_topic}; {there}"

    def _values(self, summary: Summary) -> dict[str, str]:
        values = {
            "input rate [Hz]": _number(summary.rate_hz),
            "input jitter [s]": _number(summary.jitter_s),
            "latency p50 [s]": _number(summary.latency_p50_s),
            "latency p95 [s]": _number(summary.latency_p95_s),
            "frames received": str(summary.received),
            "frames tracked": str(summary.tracked),
            "frames waiting": str(self._waiting()),
            "frames dropped": str(summary.dropped_total),
        }
        values |= {f"dropped: {reason}": str(count) for reason, count in sorted(summary.dropped.items())}
        values |= {f"stage {stage} [s]": _number(seconds) for stage, seconds in summary.stages_s.items()}
        values |= {
            "tracks": str(summary.tracks),
            "resets": str(summary.resets),
            "memory [MB]": f"{resident_megabytes():.0f}",
            "last error": summary.last_error,
        }
        return values


def resident_megabytes() -> float:
    """Resident memory of this process."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:  # not Linux: the peak has to do
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return pages * resource.getpagesize() / 2**20


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"
