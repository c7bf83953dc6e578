"""The node: depth images in, a complete tracked surface out.

A managed node named ``nr_tracking``. Configuring loads the network; activating subscribes and starts the inference
thread; deactivating stops both; cleaning up frees them. With ``ros.autostart`` it goes straight to active.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import ClockChange, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import Trigger

from nr_tracking.config import Config, ConfigError
from nr_tracking.ros import parameters
from nr_tracking.ros.diagnostics import Diagnostics
from nr_tracking.ros.keeper import ResultKeeper
from nr_tracking.ros.pairing import FramePairing, Outcome, PairedFrame
from nr_tracking.ros.publishers import Publishers
from nr_tracking.ros.settings import settings
from nr_tracking.ros.statistics import Statistics
from nr_tracking.ros.worker import InferenceWorker, TrackerLike
from nr_tracking.types import InputError, TrackedFrame

NODE_NAME = "nr_tracking"
_FINISH_S = 600.0  # a slow computer may take long for a full queue; beyond this something hangs
_RESET_S = 60.0
_NAMES = {setting.name for setting in settings(Config())}
_LIVE = {setting.name for setting in settings(Config()) if setting.live}

TrackerFactory = Callable[[Config], TrackerLike]


def build_tracker(config: Config) -> TrackerLike:
    """The tracker of the package; torch is imported here, so that a node that is not configured stays small."""
    from nr_tracking.tracking.tracker import Tracker

    return Tracker(config)


class TrackingNode(LifecycleNode):
    """The tracker behind topics, services and parameters.

    Subscribes to ``depth/image_raw``, ``depth/camera_info`` and ``mask``; publishes ``~/mesh``, ``~/tracks``,
    ``~/patches``, ``~/correspondences`` and ``/diagnostics``; serves ``~/reset`` and ``~/save``.

    ``tracker_factory`` makes the tracker when the node is configured.

    Raises:
        ConfigError: a parameter was given that does not exist or is not allowed.
    """

    def __init__(self, tracker_factory: TrackerFactory = build_tracker, **node_options: Any) -> None:
        super().__init__(NODE_NAME, **node_options)
        self.config = parameters.declare(self)
        self.statistics = Statistics(time.monotonic())
        self.worker: InferenceWorker | None = None
        self._tracker_factory = tracker_factory
        self._tracker: TrackerLike | None = None
        self._outputs: Publishers | None = None
        self._pairing = FramePairing()
        self._keeper = ResultKeeper(self.config)
        self._inputs: list[Subscription[Any]] = []
        self._input_group = MutuallyExclusiveCallbackGroup()
        services = MutuallyExclusiveCallbackGroup()
        self.create_service(Trigger, "~/reset", self._on_reset, callback_group=services)
        self.create_service(Trigger, "~/save", self._on_save, callback_group=services)
        self.add_on_set_parameters_callback(self._on_parameters)
        self._diagnostics = Diagnostics(self, self.statistics, self.config.ros.silence_s, self._waiting)
        self._jumps = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False),
            post_callback=self._on_clock_jump,
        )

    # Managed states. Each transition undoes what its counterpart did, and shutdown does so from everywhere.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the network and announce the outputs."""
        try:
            self.config = parameters.read(self)
            self._tracker = self._tracker_factory(self.config)
        except Exception as error:  # a fault of weights, settings or devices; a node that cannot start has to say why
            named = isinstance(error, ConfigError | InputError)
            self._failed(f"cannot be configured: {error if named else f'{type(error).__name__}: {error}'}")
            return TransitionCallbackReturn.FAILURE
        self._keeper = ResultKeeper(self.config)
        self._outputs = Publishers(self, self.config.ros, self._failed)
        self._diagnostics.silence_s = self.config.ros.silence_s
        self.get_logger().info(f"configured: preset {self.config.preset} on {self.config.device}")
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the inference thread and subscribe."""
        assert self._tracker is not None
        ros = self.config.ros
        self._pairing = FramePairing()
        self._on_new_subject()
        self.worker = InferenceWorker(
            self._tracker,
            self.statistics,
            self._on_result,
            self._failed,
            self._on_new_subject,
            policy=ros.queue_policy,
            queue_size=ros.queue_size,
            queue_memory=ros.queue_memory_mb << 20,
            unit_m=ros.depth_unit_m,
        )
        reliability = ReliabilityPolicy[ros.image_reliability.upper()]
        images = QoSProfile(depth=ros.image_history, reliability=reliability)
        infos = QoSProfile(depth=ros.image_history, reliability=ReliabilityPolicy.BEST_EFFORT)
        subscribe = functools.partial(self.create_subscription, callback_group=self._input_group)
        self._inputs = [
            subscribe(CameraInfo, "depth/camera_info", self._on_info, infos),
            subscribe(Image, "mask", self._on_mask, images),
            subscribe(Image, "depth/image_raw", self._on_image, images),
        ]
        self._diagnostics.depth_topic = self.resolve_topic_name("depth/image_raw")
        self._diagnostics.active = True
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and end the inference thread."""
        self._stop_input()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the network and what was kept for saving."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, whatever the state."""
        self._stop_input()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, so that the node can be configured again."""
        self._stop_input()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def start(self) -> None:
        """Configure and activate, as ``ros.autostart`` asks for."""
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def close(self) -> None:
        """End the inference thread and take the node down."""
        self._stop_input()
        self._release()
        self._jumps.unregister()
        self.destroy_node()

    def _stop_input(self) -> None:
        self._diagnostics.active = False
        for subscription in self._inputs:
            self.destroy_subscription(subscription)
        self._inputs = []
        worker, self.worker = self.worker, None
        if worker is not None:
            worker.stop()

    def _release(self) -> None:
        if self._outputs is not None:
            self._outputs.destroy()
        self._outputs = self._tracker = None
        self._keeper.clear()

    # Input: copy and enqueue, nothing else. Decoding and tracking happen on the inference thread.

    def _on_image(self, message: Image) -> None:
        self.statistics.received(time.monotonic())
        self._pairing.expects_mask |= self.count_publishers("mask") > 0
        self._submit(self._pairing.image(message))

    def _on_info(self, message: CameraInfo) -> None:
        self._submit(self._pairing.info(message))

    def _on_mask(self, message: Image) -> None:
        self._submit(self._pairing.mask(message))

    def _submit(self, outcomes: list[Outcome]) -> None:
        worker, arrived = self.worker, time.monotonic()
        for outcome in outcomes:
            if isinstance(outcome, InputError):
                self.statistics.dropped(outcome.reason, str(outcome))
            elif worker is not None:
                worker.submit(outcome, arrived)

    def _waiting(self) -> int:
        worker = self.worker
        return worker.waiting if worker is not None else 0

    def _on_clock_jump(self, jump: TimeJump) -> None:
        if jump.clock_change == ClockChange.ROS_TIME_NO_CHANGE and self.worker is not None:
            self.worker.clock_jumped_back()

    # Output, on the inference thread.

    def _on_result(self, frame: TrackedFrame, source: PairedFrame) -> None:
        self._keeper.keep(frame, source)
        if self._outputs is not None:
            self._outputs.publish(frame, source.image.header.frame_id)

    def _on_new_subject(self) -> None:
        self._keeper.clear()
        if self._outputs is not None:
            self._outputs.reset()

    def _failed(self, message: str) -> None:
        self.statistics.failed(message)
        self.get_logger().error(message)

    # Services and parameters.

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        worker = self.worker
        response.success = worker is not None and worker.reset(_RESET_S)
        response.message = "the tracker starts anew" if response.success else "the node is not active"
        return response

    def _on_save(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Finish what was received so far and write it; ``message`` is the folder, or what was wrong."""
        worker = self.worker
        if worker is not None and not worker.finish(_FINISH_S):
            response.message = f"inference did not finish within {_FINISH_S:.0f} s"
            return response
        try:
            response.message = str(self._keeper.save())
            response.success = True
        except (InputError, OSError) as error:
            response.message = str(error)
            self._failed(f"cannot save: {error}")
        return response

    def _on_parameters(self, changed: Sequence[Parameter[Any]]) -> SetParametersResult:
        """Accept what the configuration allows: live settings always, others while the node is unconfigured."""
        changes = {parameter.name: parameter.value for parameter in changed}
        known = {name: value for name, value in changes.items() if name in _NAMES}
        if self._tracker is not None:
            waiting = sorted(set(known) - _LIVE)
            if waiting:
                reason = f"{', '.join(waiting)}: can change only while the node is unconfigured; clean up first"
                return SetParametersResult(successful=False, reason=reason)
        try:
            config = parameters.read(self, known) if known else self.config
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self.config = config
        if self._tracker is not None:
            self._tracker.config = config
        if self._outputs is not None:
            self._outputs.config = config.ros
        return SetParametersResult(successful=True)


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM."""
    rclpy.init(args=args)
    try:
        node = TrackingNode()
    except ConfigError as error:
        print(f"{NODE_NAME}: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    executor = MultiThreadedExecutor(num_threads=4)
    executor.add_node(node)
    try:
        if node.config.ros.autostart:
            node.start()
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok():  # otherwise the signal came while a service was being answered, which then fails
            raise
    finally:
        executor.shutdown()
        node.close()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
