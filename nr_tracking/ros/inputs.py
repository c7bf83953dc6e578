"""What a node listens to while it is active. Callbacks copy and enqueue, nothing else."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from typing import Any

from geometry_msgs.msg import PointStamped
from rclpy.callback_groups import CallbackGroup
from rclpy.event_handler import QoSSubscriptionMatchedInfo, SubscriptionEventCallbacks
from rclpy.exceptions import ParameterImmutableException
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from nr_tracking.config import RosConfig
from nr_tracking.ros.compressed import TRANSPORT
from nr_tracking.ros.conversions import is_rectified
from nr_tracking.ros.graph import Subscribed
from nr_tracking.ros.pairing import FramePairing, Outcome, PairedFrame, Waiting
from nr_tracking.ros.statistics import Statistics
from nr_tracking.types import InputError

_WAITING = 300  # images that wait for their masks: ten seconds of them, which is long for a network that makes masks
_LOOK_S = 1.0  # between looks at the graph while camera infos are missing
_KEPT = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Inputs:
    """Subscriptions to depth images, camera infos, masks and clicked points.

    ``submit`` gets frames that are complete and when their image came in (``time.monotonic``); ``on_click`` gets points
    that were clicked, and ``on_clicker`` is called when somebody comes who may click. Until the first camera info the
    newest ``uninformed`` images wait for it, or as many as for masks, where that is None. ``camera_frame`` is the frame
    of the latest image. The QoS of each can be overridden by name; ``subscribed`` holds what became of them, by kind.
    """

    def __init__(
        self,
        node: LifecycleNode,
        group: CallbackGroup,
        config: RosConfig,
        statistics: Statistics,
        submit: Callable[[PairedFrame, float], None],
        on_click: Callable[[PointStamped], None],
        *,
        on_clicker: Callable[[], None] = lambda: None,
        uninformed: int | None = None,
    ) -> None:
        self.camera_frame = ""
        self._node = node
        self._group = group
        self._statistics = statistics
        self._submit_frame = submit
        self._informed = False  # whether a camera info ever came
        self._looked = -math.inf
        self._changing = threading.Lock()
        self._compressed = config.image_transport == TRANSPORT
        self.depth_topic = _depth_topic(node, self._compressed)
        self._pairing = FramePairing(
            rectified=is_rectified(self.depth_topic, config.image_rectified),
            capacity=_WAITING,
            uninformed=uninformed,
            memory=config.queue_memory_mb << 20,
        )
        self._mask_topic = node.resolve_topic_name("mask")  # publishers are counted by names that are remapped already
        images = QoSProfile(depth=config.image_history, reliability=ReliabilityPolicy[config.image_reliability.upper()])
        infos = QoSProfile(depth=config.image_history, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._on_click, self._on_clicker = on_click, on_clicker
        self._early_click: PointStamped | None = None
        self._subscriptions: list[Subscription[Any]] = []
        self.subscribed: dict[str, Subscribed] = {}
        kind = CompressedImage if self._compressed else Image
        try:
            self._subscribe("camera info", CameraInfo, "depth/camera_info", self.on_info, infos)
            self._subscribe("mask", Image, "mask", self.on_mask, images)
            self._subscribe("click", PointStamped, "clicked_point", self.on_click, QoSProfile(depth=1))
            self._subscribe("depth", kind, self.depth_topic, self.on_image, images)
        except BaseException:
            self.destroy()
            raise

    @property
    def waiting(self) -> Waiting:
        """The images that wait for a mask or a camera info."""
        return self._pairing.waiting

    def on_image(self, message: Image | CompressedImage) -> None:
        """Take a depth image."""
        now = time.monotonic()
        self._statistics.received(now)
        if not self._informed and now - self._looked > _LOOK_S:
            self._looked = now
            self._ask_for_latched_info()
        self.camera_frame = message.header.frame_id
        click, self._early_click = self._early_click, None
        if click is not None:
            self._on_click(click)
        # Images wait for masks as long as somebody publishes any; a publisher that is gone must not hold them up.
        self._pairing.expects_mask = self._node.count_publishers(self._mask_topic) > 0
        self._hand_on(self._pairing.image(message, now))

    def on_info(self, message: CameraInfo) -> None:
        """Take a camera info."""
        self._informed = True
        self._hand_on(self._pairing.info(message))

    def on_mask(self, message: Image) -> None:
        """Take a mask."""
        self._hand_on(self._pairing.mask(message))

    def on_click(self, message: PointStamped) -> None:
        """Take a clicked point; which frame the camera's is, is known with the first image."""
        if self.camera_frame or not message.header.frame_id:
            self._on_click(message)
        else:
            self._early_click = message

    def _on_click_matched(self, event: QoSSubscriptionMatchedInfo) -> None:
        if event.current_count_change > 0:
            self._on_clicker()

    def clock_jumped_back(self) -> None:
        """Expect stamps to go back with the clock."""
        self._pairing.clock_jumped_back()

    def destroy(self) -> None:
        """Listen no longer."""
        with self._changing:
            self._informed = True
            for subscription in self._subscriptions:
                topic = subscription.topic_name
                self._node.destroy_subscription(subscription)
                self._forget_qos(topic)
            self._subscriptions = []

    def _ask_for_latched_info(self) -> None:
        """Subscribe once more where a driver sent its camera info before this node came, and keeps it for such.

        Only there: asked for what they do not keep, other drivers would complain of it.
        """
        topic = self._node.resolve_topic_name("depth/camera_info")
        kept = any(
            each.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
            for each in self._node.get_publishers_info_by_topic(topic)
        )
        with self._changing:
            if kept and not self._informed:
                self._looked = math.inf
                self._subscriptions.append(
                    self._node.create_subscription(
                        CameraInfo, "depth/camera_info", self.on_info, _KEPT, callback_group=self._group
                    )
                )

    def _hand_on(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, InputError):
                self._statistics.dropped(outcome.reason, str(outcome))
            else:
                self._submit_frame(outcome, outcome.arrived)

    def _forget_qos(self, topic: str) -> None:
        """Take away the parameters that tell the QoS of a topic: the next subscription may be asked for another one.

        What was given at the node's start is an override of that one as well.
        """
        names = list(self._node.get_parameters_by_prefix(f"qos_overrides.{topic}.subscription"))
        for name in [f"qos_overrides.{topic}.subscription.{policy}" for policy in names]:
            self._node.describe_parameter(name).read_only = False
            with suppress(ParameterImmutableException):
                self._node.undeclare_parameter(name)

    def _subscribe(
        self, what: str, kind: type[Any], topic: str, callback: Callable[[Any], None], qos: QoSProfile
    ) -> None:
        overriding = QoSOverridingOptions.with_default_policies()
        # No callbacks that log a publisher of another quality, as in Publishers: diagnostics say it, and what mends it.
        subscription = self._node.create_subscription(
            kind,
            topic,
            callback,
            copy(qos),  # what a parameter overrides is written into it, and depth and mask are given the same one
            callback_group=self._group,
            event_callbacks=SubscriptionEventCallbacks(
                matched=self._on_click_matched if what == "click" else None, use_default_callbacks=False
            ),
            qos_overriding_options=overriding,
        )
        self._subscriptions.append(subscription)
        name = "depth/image_raw" if what == "depth" else topic
        message_type = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
        reliability = subscription.qos_profile.reliability.name.lower()
        self.subscribed[what] = Subscribed(name, subscription.topic_name, message_type, reliability)


def _depth_topic(node: LifecycleNode, compressed: bool) -> str:
    """Where depth images come from: compressed ones below wherever the raw topic is remapped to, as publishers do it.

    A remapping of the compressed topic itself has the last word.
    """
    if not compressed:
        return node.resolve_topic_name("depth/image_raw")
    topic = f"depth/image_raw/{TRANSPORT}"
    own = node.resolve_topic_name(topic)
    if own != node.resolve_topic_name(topic, only_expand=True):
        return own
    return f"{node.resolve_topic_name('depth/image_raw')}/{TRANSPORT}"
