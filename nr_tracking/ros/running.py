"""Nodes as a process: until SIGINT or SIGTERM, and then in good order."""

from __future__ import annotations

import itertools
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType

import rclpy
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor

from nr_tracking.config import ConfigError
from nr_tracking.ros.memory import share_heaps
from nr_tracking.ros.share import use_fastdds_profile
from nr_tracking.ros.tracking_node import NODE_NAME, TrackingNode

_THREADS = 4  # a node's input, services, diagnostics, and one to spare


def run(make_nodes: Callable[[], Sequence[TrackingNode]], args: list[str] | None = None) -> int:
    """Run tracking nodes in this process until a signal ends it; returns the exit code.

    It has heard of SIGINT once and for all with the first one: the terminal sends one to the whole process group, and
    whoever launched the node passes its own on.
    """
    heard_once = _interrupt_once()
    share_heaps()
    use_fastdds_profile()
    rclpy.init(args=args)
    try:
        nodes = make_nodes()
    except ConfigError as error:
        print(f"{NODE_NAME}: {error}", file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    executor = MultiThreadedExecutor(num_threads=_THREADS * len(nodes))
    try:
        for node in nodes:
            executor.add_node(node)
            if node.config.ros.autostart:
                node.start()
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok():  # otherwise the signal came while a service was being answered, which then fails
            raise
    finally:
        for node in nodes:  # a service that waits for inference would hold up the executor until all of it is done
            node.stop_input()
        executor.shutdown()
        for node in nodes:
            node.close()
        rclpy.try_shutdown()
        if heard_once:  # the interpreter, too, ends undisturbed
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    return 0


def _interrupt_once() -> bool:
    """Let no SIGINT after the first disturb what ends in good order; False where somebody else decides about SIGINT."""
    interrupts = itertools.count()

    def interrupted(number: int, frame: FrameType | None) -> None:
        if next(interrupts) == 0:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        return False
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, in the background of a shell
        return False
    signal.signal(signal.SIGINT, interrupted)
    return True
