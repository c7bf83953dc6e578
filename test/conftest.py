"""Fixtures shared by the tests that use ROS."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def ros_domain():
    """A ROS domain of its own for this process, on this machine only, with room for images in shared memory."""
    domain = 1 + os.getpid() % 100
    os.environ["ROS_DOMAIN_ID"] = str(domain)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ["FASTDDS_DEFAULT_PROFILES_FILE"] = str(Path(__file__).parents[1] / "config" / "fastdds.xml")
    return domain


@pytest.fixture(scope="session")
def ros_context(ros_domain):
    """An initialised rclpy context; the test is skipped where ROS is not installed."""
    rclpy = pytest.importorskip("rclpy")
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    yield context
    rclpy.try_shutdown(context=context)
