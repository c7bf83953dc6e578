"""The other side of the network: a node that feeds the node under test and waits for what it sends."""

import threading

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from nr_tracking.ros.messages import frame_messages
from nr_tracking.ros.typestore import encode

RELIABLE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL)
WAIT_S = 90.0  # processors may be busy; waiting ends as soon as the condition holds


class Spinner:
    """Spins a node on a thread of its own."""

    def __init__(self, node, executor, context):
        self.node, self._executor = node, executor
        executor.add_node(node)
        self._thread = threading.Thread(target=executor.spin, daemon=True)
        self._thread.start()

    def stop(self):
        self._executor.shutdown()
        self._thread.join(WAIT_S)


class Inbox:
    """Messages of one topic; waiting for a condition ends as soon as it holds."""

    def __init__(self):
        self.messages = []
        self._changed = threading.Condition()

    def __call__(self, message):
        with self._changed:
            self.messages.append(message)
            self._changed.notify_all()

    def arrived(self, condition, seconds):
        """Whether ``condition(messages)`` comes to hold within so many seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: condition(self.messages), seconds)

    def wait(self, condition):
        """Wait until ``condition(messages)``; returns the messages."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self.messages), WAIT_S), f"{len(self.messages)} came"
            return list(self.messages)


class Peer:
    """Publishes frames and subscribes to outputs, over real DDS."""

    def __init__(self, context):
        self.node = Node("peer", context=context)
        self._matched = threading.Condition()
        self._spinner = Spinner(self.node, SingleThreadedExecutor(context=context), context)
        self.publish_inputs()

    def publish_inputs(self, quality=RELIABLE):
        """Publish depth and camera info anew, with this QoS."""
        for publisher in getattr(self, "_inputs", {}).values():
            self.node.destroy_publisher(publisher)
        self._inputs = {
            "depth": self.node.create_publisher(Image, "depth/image_raw", quality),
            "camera_info": self.node.create_publisher(CameraInfo, "depth/camera_info", quality),
        }
        return self

    def with_masks(self):
        self._inputs["mask"] = self.node.create_publisher(Image, "mask", RELIABLE)
        return self

    def send(self, frame, frame_id="camera", **changes):
        """Publish a frame; ``changes`` maps kinds to functions that spoil the message, or None to leave it out."""
        for kind, message in frame_messages(frame, frame_id).items():
            spoil = changes.get(kind, lambda message: message)
            if spoil is not None:
                self._inputs[kind].publish(encode(kind, spoil(message)))

    def listen(self, kind, topic, qos=RELIABLE):
        inbox = Inbox()
        inbox.subscription = self.node.create_subscription(kind, topic, inbox, qos)
        return inbox

    def until(self, condition):
        """Wait for something that discovery brings about; the graph tells when it changes."""
        assert self.node.wait_for_node("nr_tracking", WAIT_S)
        deadline = threading.Event()
        for _ in range(int(WAIT_S / 0.01)):
            if condition():
                return
            deadline.wait(0.01)
        raise AssertionError("the other side did not appear")

    def inputs_matched(self):
        self.until(lambda: all(publisher.get_subscription_count() for publisher in self._inputs.values()))

    def call(self, kind, service, request=None, attempts=1):
        client = self.node.create_client(kind, service)
        assert client.wait_for_service(WAIT_S), service
        done = threading.Event()
        for _ in range(attempts):  # the first request may go out before the server has discovered where to answer
            future = client.call_async(request or kind.Request())
            future.add_done_callback(lambda _: done.set())
            if done.wait(WAIT_S / attempts):
                break
        assert future.done(), f"{service} did not answer"
        self.node.destroy_client(client)
        return future.result()

    def close(self):
        self._spinner.stop()
        self.node.destroy_node()
