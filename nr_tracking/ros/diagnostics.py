"""What the node says about itself on ``/diagnostics``, once a second and in every state."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions

from nr_tracking.ros.graph import Subscribed, mismatch, publishers_of
from nr_tracking.ros.pairing import Waiting
from nr_tracking.ros.process import resident_megabytes
from nr_tracking.ros.statistics import LEFT_OUT, Statistics, Summary
from nr_tracking.sensing.following import NO_SUBJECT

_PERIOD_S = 1.0
_FIRST_S = 10.0  # the first windows may take so long: a camera that is slow fills them as late
_FRESH_S = 2.0  # a frame that was given up longer ago says nothing of what the camera shows now
_FAILURES = 30  # of inference, one after the other: this does not mend itself
_COMPUTED = ("no_surface", "no_result", "failure", "out_of_memory")  # reasons that are not those of the image
_UNPAIRED = ("no_mask", "no_camera_info")  # reasons of images that were given up because they stayed so
_OVERDUE = 3.0  # a result is missing that takes so many times as long as results usually do


class Diagnostics:
    """Publishes the figures of a node, which sets the public attributes as they change."""

    def __init__(
        self,
        node: LifecycleNode,
        statistics: Statistics,
        silence_s: float,
        waiting: Callable[[], int],
        unpaired: Callable[[], Waiting],
        camera_frame: Callable[[], str],
    ) -> None:
        self.active = False
        self.silence_s = silence_s
        self.subject = ""
        self.failure = ""  # why the last transition failed; empty where it did not
        self._subscribed: Mapping[str, Subscribed] = {}
        self._node = node
        self._statistics = statistics
        self._waiting = waiting
        self._unpaired = unpaired
        self._camera_frame = camera_frame
        self._publisher = node.create_publisher(
            DiagnosticArray,
            "/diagnostics",
            QoSProfile(depth=10),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        # Steady time: diagnostics go on while a simulated clock stands still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(_PERIOD_S, self.publish, clock=steady)
        self._dropped_before: Counter[str] = Counter()
        self._camera = ""
        self._wrong = False

    def watch(self, subscribed: Mapping[str, Subscribed]) -> None:
        """Input is expected from now on: what is subscribed to as "depth", "mask" and "camera info"."""
        self._subscribed = subscribed
        self.active = True

    def publish(self) -> None:
        """Send the status now."""
        summary = self._statistics.summary(time.monotonic())
        level, message = self._verdict(summary)
        self._dropped_before = Counter(summary.dropped)
        self._log(level == DiagnosticStatus.ERROR and self.active, message)
        status = DiagnosticStatus(level=level, name=self._node.get_fully_qualified_name(), message=message)
        status.hardware_id = self._hardware()
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
            depth = self._subscribed["depth"]
            said = f"no depth for {summary.since_last_frame_s:.1f} s on {depth.topic}: {self._why_silent(depth)}"
            return DiagnosticStatus.ERROR, said
        if summary.failures >= _FAILURES:
            said = f"inference failed {summary.failures} times in a row, without a result: {summary.last_failure}"
            return DiagnosticStatus.ERROR, said
        nothing = self._no_result(summary)
        if nothing is not None:
            return nothing
        dropped = Counter(summary.dropped) - self._dropped_before
        lost = sum(dropped.values()) - sum(dropped[reason] for reason in (LEFT_OUT, *NO_SUBJECT))
        if lost:
            frames = "frame" if lost == 1 else "frames"
            return DiagnosticStatus.WARN, f"{lost} {frames} dropped in the last second; {summary.last_loss}"
        if self._nobody(summary):
            said = f"nobody in view for {summary.since_last_result_s:.1f} s; {summary.last_drop}"
        elif math.isnan(summary.result_rate_hz):
            said = "waiting for the first windows"
        else:
            said = f"tracking at {summary.result_rate_hz:.1f} Hz"
        if dropped[LEFT_OUT]:
            said += f"; {dropped[LEFT_OUT]} images of the last second were left out ({LEFT_OUT})"
        return DiagnosticStatus.OK, said

    def _nobody(self, summary: Summary) -> bool:
        """Whether images show nobody, as the newest of them that were looked at say."""
        return self._is_fresh(summary) and _is_nobody(summary.last_drop)

    def _is_fresh(self, summary: Summary) -> bool:
        """Whether the last frame that was given up was so a moment ago."""
        return bool(summary.last_drop) and summary.since_last_drop_s <= max(self.silence_s, _FRESH_S)

    def _no_result(self, summary: Summary) -> tuple[bytes, str] | None:
        """What keeps results back though images arrive and show somebody; None where nothing does."""
        if self._nobody(summary):
            return None
        since, fresh = summary.since_last_result_s, self._is_fresh(summary)
        if _is_nobody(summary.last_drop):  # then there has been somebody since
            since = min(since, summary.since_last_drop_s)
        missing, waiting, unpaired = self._overdue(summary, since), self._waiting(), self._unpaired()
        if missing and fresh and summary.last_drop.startswith(_COMPUTED):
            return DiagnosticStatus.WARN, f"no result for {since:.1f} s, though images arrive; {summary.last_drop}"
        if missing and waiting:
            return DiagnosticStatus.WARN, f"no result for {since:.1f} s: {_images(waiting)} for inference"
        if missing and unpaired.awaited and (not fresh or summary.last_drop.startswith(_UNPAIRED)):
            return DiagnosticStatus.ERROR, f"no result for {since:.1f} s: {self._why_unpaired(unpaired, summary)}"
        if fresh and since > self.silence_s and not waiting and not summary.last_drop.startswith(_COMPUTED):
            publishers = publishers_of(self._node, self._subscribed["depth"].topic)
            return DiagnosticStatus.ERROR, f"no usable depth for {since:.1f} s: {publishers}; {summary.last_drop}"
        if missing and (since > _FIRST_S or not math.isnan(summary.result_rate_hz)):
            return DiagnosticStatus.WARN, f"no result for {since:.1f} s, though images arrive"
        return None

    def _overdue(self, summary: Summary, since_s: float) -> bool:
        """Whether the next result should be there; a slow computer may always take longer than what is silence."""
        usual = 0.0 if math.isnan(summary.result_gap_s) else summary.result_gap_s
        return since_s > max(self.silence_s, _OVERDUE * usual)

    def _hardware(self) -> str:
        """The frame of the camera, as the node saw it last; its topic until then."""
        self._camera = self._camera_frame() or self._camera
        return self._camera or self._node.resolve_topic_name("depth/image_raw")

    def _why_unpaired(self, unpaired: Waiting, summary: Summary) -> str:
        """How many images wait for what, and what is found on the graph where it should come from."""
        wanted = self._subscribed[unpaired.awaited]
        why = mismatch(self._node, wanted)
        there = [why] if why else [publishers_of(self._node, wanted.topic), *filter(None, [summary.last_drop])]
        return f"{_images(unpaired.images)} for a {unpaired.awaited}: {'; '.join(there)}"

    def _why_silent(self, depth: Subscribed) -> str:
        """What is found on the graph where depth should be."""
        why = mismatch(self._node, depth)
        if why:
            return why
        if self._node.count_publishers(depth.topic):
            return (
                f"{publishers_of(self._node, depth.topic)} but no image arrives: is it running, as the user who runs "
                "this node, and is config/fastdds.xml in use, without which large images are lost?"
            )
        images = sorted(name for name, types in self._node.get_topic_names_and_types() if depth.message_type in types)
        images = [name for name in images if self._node.count_publishers(name)]
        there = f"image topics that are published: {', '.join(images)}" if images else "no image topic is published"
        return f"nobody publishes {depth.topic}; {there}"

    def _values(self, summary: Summary) -> dict[str, str]:
        silent, late = summary.since_last_frame_s > self.silence_s, self._overdue(summary, summary.since_last_result_s)
        values = {
            "input rate [Hz]": "-" if silent else _number(summary.rate_hz),
            "result rate [Hz]": "-" if late else _number(summary.result_rate_hz),
            "input jitter [s]": "-" if silent else _number(summary.jitter_s),
            "latency p50 [s]": _number(summary.latency_p50_s),
            "latency p95 [s]": _number(summary.latency_p95_s),
            "latency p99 [s]": _number(summary.latency_p99_s),
            "frames received": str(summary.received),
            "frames tracked": str(summary.tracked),
            "frames waiting": str(self._waiting()),
            "frames unpaired": str(self._unpaired().images),
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


def _is_nobody(drop: str) -> bool:
    """Whether a frame was given up as its image shows nobody."""
    return drop.partition(":")[0] == "no_subject"  # an image without any depth may be that of a covered camera


def _images(count: int) -> str:
    return f"{count} images wait" if count != 1 else "1 image waits"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"
