"""What is found on the graph of ROS where messages should come from, in words."""

from __future__ import annotations

from dataclasses import dataclass

from rclpy.node import Node


@dataclass(frozen=True)
class Subscribed:
    """A subscription: ``name`` is that of the topic before it is remapped, ``reliability`` that after overrides."""

    name: str
    topic: str
    message_type: str
    reliability: str


def publishers_of(node: Node, topic: str) -> str:
    """Who publishes a topic, and how."""
    found = [
        f"{each.node_name} ({each.qos_profile.reliability.name}, {each.qos_profile.durability.name})"
        for each in node.get_publishers_info_by_topic(topic)
    ]
    return f"{' and '.join(found) or 'nobody'} publishes {topic}"


def mismatch(node: Node, wanted: Subscribed) -> str:
    """Why nothing of what is published can arrive; empty where type and reliability match."""
    publishers = node.get_publishers_info_by_topic(wanted.topic)
    wrong = [each for each in publishers if each.topic_type != wanted.message_type]
    if wrong:
        return f"{wanted.topic} carries {wrong[0].topic_type}, not {wanted.message_type}: remap {wanted.name}"
    reliable = wanted.reliability == "reliable"
    if any(reliable and each.qos_profile.reliability.name == "BEST_EFFORT" for each in publishers):
        return (
            f"{publishers_of(node, wanted.topic)} but nothing arrives: set ros.image_reliability: best_effort, and no "
            "QoS override against it, for a publisher that does its best never matches a reliable subscription"
        )
    return ""
