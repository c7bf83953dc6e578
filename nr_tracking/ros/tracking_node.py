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

from geometry_msgs.msg import PointStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import ClockChange, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from nr_tracking.config import Config, ConfigError
from nr_tracking.ros import parameters
from nr_tracking.ros.arguments import answered
from nr_tracking.ros.conversions import stamp_ns
from nr_tracking.ros.core_log import CoreLog
from nr_tracking.ros.diagnostics import Diagnostics
from nr_tracking.ros.fallback import release_memory, smaller_config
from nr_tracking.ros.frames import Located, Transforms
from nr_tracking.ros.inputs import Inputs
from nr_tracking.ros.keeper import ResultKeeper, output_folder
from nr_tracking.ros.networks import build_tracker, prepare_loops, weights_hash
from nr_tracking.ros.pairing import PairedFrame, Waiting
from nr_tracking.ros.publishers import Publishers
from nr_tracking.ros.settings import settings
from nr_tracking.ros.statistics import Statistics
from nr_tracking.ros.transitions import said, told
from nr_tracking.ros.worker import InferenceWorker, QueueLimits, WorkerEvents
from nr_tracking.tracking.protocols import TrackerLike
from nr_tracking.types import Float64, InputError, TrackedFrame

NODE_NAME = "nr_tracking"
_FINISH_S = 600.0  # a slow computer may take long for a full queue; beyond this something hangs
_RESET_S = 60.0
_TF_S = 10.0
_RECORDED_TF_S = 120.0  # frames wait as long as it takes then: compiling loops for a processor alone takes a minute
_NAMES = {setting.name for setting in settings(Config())}
_LIVE = {setting.name for setting in settings(Config()) if setting.live}

TrackerFactory = Callable[[Config], TrackerLike]


class TrackingNode(LifecycleNode):
    """The tracker behind topics, services and parameters.

    Subscribes to ``depth/image_raw``, ``depth/camera_info``, ``mask`` and ``clicked_point``; publishes ``~/mesh``,
    ``~/tracks``, ``~/patches``, ``~/correspondences`` and ``/diagnostics``; serves ``~/reset`` and ``~/save``.

    ``tracker_factory`` makes the tracker when the node is configured.

    Raises:
        ConfigError: a parameter was given that does not exist or is not allowed.
    """

    _core_log: CoreLog | None = None

    def __init__(self, tracker_factory: TrackerFactory = build_tracker, **node_options: Any) -> None:
        super().__init__(NODE_NAME, **node_options)
        self.config = parameters.declare(self)
        self.statistics = Statistics(time.monotonic())
        self.worker: InferenceWorker | None = None
        self._tracker_factory = tracker_factory
        self._tracker: TrackerLike | None = None
        self._outputs: Publishers | None = None
        self._transforms: Transforms | None = None
        self._located: Located | None = None
        self._keeper = ResultKeeper(self.config)
        self._inputs: Inputs | None = None
        self._input_group = MutuallyExclusiveCallbackGroup()
        services = MutuallyExclusiveCallbackGroup()
        self.create_service(Trigger, "~/reset", self._on_reset, callback_group=services)
        self.create_service(Trigger, "~/save", self._on_save, callback_group=services)
        self._applied_later = hasattr(self, "add_post_set_parameters_callback")  # not in older ROS
        self.add_on_set_parameters_callback(self._on_parameters)
        if self._applied_later:
            self.add_post_set_parameters_callback(self._on_parameters_set)
        self._diagnostics = Diagnostics(
            self, self.statistics, self.config.ros.silence_s, self._waiting, self._unpaired, self._camera_frame
        )
        self._jumps = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False),
            post_callback=self._on_clock_jump,
        )
        self._core_log = CoreLog(self.get_logger())

    # Managed states. Each transition undoes what its counterpart did, and shutdown does so from everywhere.

    @said("configured")
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the network and announce the outputs."""
        self.config = parameters.read(self)
        output_folder(self.config)  # one that cannot be is told now, not when there is something to save
        self._tracker = self._tracker_factory(self.config)
        self._keeper = ResultKeeper(self.config, weights_hash(self.config))
        ros = self.config.ros
        self._outputs = Publishers(self, ros, self._failed)
        kept_s = _RECORDED_TF_S if ros.queue_policy == "all" else _TF_S
        self._transforms = Transforms(self, ros.tf_timeout_s, kept_s)
        if ros.target_frame or ros.fixed_frame:  # otherwise with whoever may click: all of /tf takes the processor
            self._transforms.listen()
        self._located = Located(self._transforms, ros.target_frame, self._failed)
        self._diagnostics.silence_s = self.config.ros.silence_s
        self.get_logger().info(f"configured: preset {self.config.preset} on {self.config.device}")
        return TransitionCallbackReturn.SUCCESS

    @said("activated")
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the inference thread and subscribe."""
        assert self._tracker is not None
        ros = self.config.ros
        queue_size = ros.queue_size or self.config.window.stride
        self._on_new_subject()
        self.statistics.activated(time.monotonic())
        self.worker = InferenceWorker(
            self._tracker,
            self.statistics,
            WorkerEvents(self._on_result, self._failed, self._on_new_subject, self._on_event, self._on_gone),
            QueueLimits(ros.queue_policy, queue_size, ros.queue_memory_mb << 20),
            smaller_tracker=self._smaller_tracker,
            locate=self._locate,
            unit_m=ros.depth_unit_m,
            prepare=functools.partial(prepare_loops, self._tracker),
        )
        self._inputs = Inputs(
            self,
            self._input_group,
            ros,
            self.statistics,
            self.worker.submit,
            self._on_click,
            on_clicker=self._on_clicker,
            uninformed=queue_size if ros.queue_policy == "latest" else None,
        )
        self._diagnostics.watch(self._inputs.subscribed)
        self.get_logger().info(f"active: waiting for depth on {self._inputs.depth_topic}")
        return super().on_activate(state)

    @said("deactivated")
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and end the inference thread."""
        self.stop_input()
        return super().on_deactivate(state)

    @said("cleaned up")
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the network and what was kept for saving."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    @said("shut down")
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, whatever the state."""
        self.stop_input()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything, so that the node can be configured again."""
        self.stop_input()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def start(self) -> None:
        """Configure and activate, as ``ros.autostart`` asks for."""
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def close(self) -> None:
        """End the inference thread and take the node down."""
        self.stop_input()
        self._release()
        self._jumps.unregister()
        self.destroy_node()

    def destroy_node(self) -> None:
        """Let go of the core's log, however the node is taken down."""
        if self._core_log is not None:  # it is, where the node could not be made
            self._core_log.close()
        super().destroy_node()

    def stop_input(self) -> None:
        """Unsubscribe and end the inference thread after the frame in hand, whoever waits for the others."""
        self._diagnostics.active = False
        inputs, self._inputs = self._inputs, None
        if inputs is not None:
            inputs.destroy()
        worker, self.worker = self.worker, None
        if worker is not None:
            worker.stop()

    def failed_transition(self, why: str) -> None:
        """Tell why the last transition failed; empty where it did not."""
        self._diagnostics.failure = why
        if why:
            self._failed(why)

    def _release(self) -> None:
        if self._outputs is not None:
            self._outputs.destroy()
        if self._transforms is not None:
            self._transforms.destroy()
        self._outputs = self._tracker = self._transforms = self._located = None
        self._keeper.clear()

    # Input.

    def _on_click(self, message: PointStamped) -> None:
        """Follow what was clicked, in RViz for example."""
        x, y, z = message.point.x, message.point.y, message.point.z
        frame, stamp = message.header.frame_id, stamp_ns(message)
        transforms, camera = self._transforms, self._camera_frame()
        if frame and not camera:
            self._failed(
                f"the clicked point cannot be used: it is in the frame {frame!r}, and the depth images name none in "
                "header.frame_id, so nobody knows where that is; have the driver name it"
            )
            return
        try:
            if frame and transforms is not None:
                to = transforms.look_up(camera, frame, stamp, newest=True)
                x, y, z, _ = map(float, to @ (x, y, z, 1.0))
        except InputError as error:
            self._failed(f"the clicked point cannot be used: {error}; click in the frame {camera!r}")
            return
        point = Parameter("subject.point_m", value=[x, y, z])
        result = self.set_parameters_atomically([Parameter("subject.choice", value="clicked"), point])
        if result.successful:
            self._on_event(f"the subject at ({x:.2f}, {y:.2f}, {z:.2f}) m was chosen")
        else:
            self._failed(f"the clicked point cannot be used: {result.reason}")

    def _on_clicker(self) -> None:
        """Somebody may click from now on, in whatever frame."""
        if self._transforms is not None:
            self._transforms.listen()

    def _camera_frame(self) -> str:
        inputs = self._inputs
        return inputs.camera_frame if inputs is not None else ""

    def _waiting(self) -> int:
        worker = self.worker
        return worker.waiting if worker is not None else 0

    def _unpaired(self) -> Waiting:
        inputs = self._inputs
        return inputs.waiting if inputs is not None else Waiting(0, "")

    def _on_clock_jump(self, jump: TimeJump) -> None:
        if jump.clock_change != ClockChange.ROS_TIME_NO_CHANGE:
            return
        inputs, worker, transforms = self._inputs, self.worker, self._transforms
        if inputs is not None:
            inputs.clock_jumped_back()
        if transforms is None:
            return
        transforms.clock_jumped_back()
        if worker is None or not worker.clock_jumped_back(transforms.caught_up):
            transforms.caught_up()

    # Output, on the inference thread.

    def _on_result(self, frame: TrackedFrame, source: PairedFrame) -> None:
        self._keeper.keep(frame, source)
        located = self._located(frame, source.image.header.frame_id) if self._located is not None else None
        if self._outputs is not None and located is not None:
            self._outputs.publish(*located)

    def _locate(self, source: PairedFrame) -> Float64 | None:
        """Where the camera was, for a camera that moves."""
        fixed, transforms = self.config.ros.fixed_frame, self._transforms
        if not fixed or transforms is None:
            return None
        return transforms.look_up(fixed, source.image.header.frame_id, source.stamp_ns)

    def _smaller_tracker(self) -> TrackerLike | None:
        """What goes on after memory ran out."""
        release_memory()
        tracker = self._tracker
        smaller = smaller_config(tracker.config) if tracker and self.config.ros.out_of_memory == "smaller" else None
        if smaller is None:
            return None
        assert tracker is not None
        self._on_event(f"memory ran out: continuing with preset {smaller.preset} in place of {tracker.config.preset}")
        successor = self._tracker_factory(smaller)
        successor.next_id = tracker.next_id
        self._tracker, self._keeper.weights = successor, weights_hash(smaller)
        self._hand_on_settings()  # of now: some may have changed in the seconds that this took
        return successor

    def _on_event(self, text: str) -> None:
        self._diagnostics.subject = text
        self.get_logger().info(text)

    def _on_new_subject(self) -> None:
        self._keeper.next_subject()
        if self._outputs is not None:
            self._outputs.reset()

    def _on_gone(self, stamp_ns: int) -> None:
        if self._outputs is not None:
            self._outputs.clear(stamp_ns)

    def _failed(self, message: str) -> None:
        self.statistics.failed(message)
        self.get_logger().error(message)

    # Services and parameters.

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        worker = self.worker
        response.success = worker is not None and worker.reset(_RESET_S, self._keeper.clear)
        if response.success:
            response.message = "the tracker starts anew"
        elif worker is None or self.worker is not worker:
            response.message = "the node is not active"
        else:  # what was asked for stays in line
            response.message = f"inference was busy for {_RESET_S:.0f} s: the tracker starts anew once it is done"
        return response

    def _on_save(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Finish what was received so far and write it; ``message`` is the folder, or what was wrong."""
        worker = self.worker
        # One that was taken away meanwhile finishes nothing more; what it had finished is still there to be written.
        if worker is not None and not worker.finish(_FINISH_S) and self.worker is worker:
            response.message = f"inference did not finish within {_FINISH_S:.0f} s"
            return response
        try:
            response.message = str(self._keeper.save())
            response.success = True
        except Exception as error:  # one that is let out of a service ends the process, and with it every camera of it
            response.message = told(error)
            self._failed(f"cannot save: {response.message}")
        return response

    def _on_parameters(self, changed: Sequence[Parameter[Any]]) -> SetParametersResult:
        """Allow what the configuration does: live settings always, others while the node is unconfigured."""
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
        if not self._applied_later:
            self._apply(config)
        return SetParametersResult(successful=True)

    def _on_parameters_set(self, changed: Sequence[Parameter[Any]]) -> None:
        """Take up what was allowed, by everybody who was asked, and is set."""
        if any(parameter.name in _NAMES for parameter in changed):
            self._apply(parameters.read(self))

    def _apply(self, config: Config) -> None:
        self.config = config
        self._hand_on_settings()

    def _hand_on_settings(self) -> None:
        """Have the tracker, the keeper and the outputs go by the live settings of ``config``."""
        config = self.config
        if self._tracker is not None:  # whose preset may be a smaller one by now
            own = self._tracker.config
            self._tracker.config = own.model_copy(update={"subject": config.subject, "ros": config.ros})
            self._keeper.config = self._tracker.config
        if self._outputs is not None:
            self._outputs.config = config.ros


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM."""
    from nr_tracking.ros.running import run

    code = answered("tracking_node", args)
    return code if code is not None else run(lambda: [TrackingNode()], args)


if __name__ == "__main__":
    sys.exit(main())
