"""Fixtures shared by the tests of the commands and by those that use ROS."""

import os
from pathlib import Path

import pytest
import torch
from ball_recording import write_ball
from hypothesis import settings

from nr_tracking.evaluation import report

# The same examples in every run, however long the first of them takes, which may have to compile loops.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports with pictures of a few pixels, which are drawn at once."""
    monkeypatch.setattr(report, "TILE", 24)
    monkeypatch.setattr(report, "TURNTABLE", {"views": 2, "size": 24})


@pytest.fixture
def ball(tmp_path: Path) -> Path:
    """A recording of a moving ball with its true surfaces."""
    return write_ball(tmp_path / "ball")


@pytest.fixture(scope="module")
def one_thread():
    """PyTorch on one thread, on which training repeats itself to the bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
