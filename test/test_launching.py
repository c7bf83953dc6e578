"""What the launch files hand to the nodes."""

import pytest
import yaml

pytest.importorskip("rclpy")

from rclpy.node import Node

from nr_tracking.ros.launching import overriding_file

SECTIONS = ["/**", "/nr_tracking", "/front/nr_tracking", "/front/**"]


@pytest.mark.parametrize("namespace", ["", "front"])
@pytest.mark.parametrize("first", range(len(SECTIONS)))
def test_arguments_win_over_a_file_in_whatever_order_its_sections_are(ros_context, tmp_path, namespace, first):
    order = SECTIONS[first:] + SECTIONS[:first]
    given = {name: {"ros__parameters": {"preset": "base", "device": "cpu"}} for name in order}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(given, sort_keys=False))
    own = overriding_file({"preset": "lite", "ros.queue_policy": "all"})
    files = ["--params-file", str(tmp_path / "params.yaml"), "--params-file", own]
    node = Node("nr_tracking", namespace=namespace, context=ros_context, cli_args=["--ros-args", *files])
    found = {name: each.value for name, each in node._parameter_overrides.items()}
    node.destroy_node()
    assert found == {"preset": "lite", "device": "cpu", "ros.queue_policy": "all"}
