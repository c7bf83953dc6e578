"""Run as a process that tests interrupt: saves what a node keeps, over and over or once, or tracks a recording."""

import signal
import sys
import threading
import time
from pathlib import Path

from ball_recording import BallTracker, run
from fake_tracker import flat_frame, tracked

from nr_tracking.commands import track as track_module
from nr_tracking.config import load_config
from nr_tracking.ros.keeper import ResultKeeper
from nr_tracking.ros.messages import frame_messages
from nr_tracking.ros.pairing import PairedFrame


def save_for_ever(folder):
    keeper = ResultKeeper(load_config("test", ros={"output_folder": folder, "save_report": False}))
    for index in range(20):
        messages = frame_messages(flat_frame(index), "camera")
        keeper.keep(tracked(index), PairedFrame(index, messages["depth"], messages["camera_info"], None))
    while True:
        print(keeper.save(), flush=True)


def save_while_frames_wait(folder):
    """Have a node save with one frame in hand and one in the queue; inference stands still until that is closed."""
    from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
    from std_srvs.srv import Trigger
    from test_faults import Camera

    from nr_tracking.ros.running import run as run_nodes

    def nodes():
        node = (camera := Camera(None, ros__output_folder=folder, ros__autostart=False)).node
        tracker, queue, taken, asked = node._tracker, node.worker._queue, threading.Event(), threading.Event()
        push, command, close = tracker.push, queue.command, queue.close
        tracker.push = lambda frame: taken.set() or push(frame)
        queue.command = lambda job: (command(job), asked.set())[0]
        queue.close = lambda: (close(), tracker.gate.set())[0]
        tracker.gate.clear()
        camera.send(0, 1)
        assert taken.wait(60)

        def tell():  # called once the executor has begun the other callback for good
            if asked.is_set():
                telling.cancel()
                print("saving", flush=True)

        services = MutuallyExclusiveCallbackGroup()  # the others go on meanwhile
        node.create_timer(1e-3, lambda: node._on_save(None, Trigger.Response()), callback_group=services)
        telling = node.create_timer(1e-3, tell)
        return [node]

    sys.exit(run_nodes(nodes, []))


class SlowTracker(BallTracker):
    def push(self, frame):
        print(self.pushed, flush=True)
        time.sleep(0.01)
        return super().push(frame)


def track_slowly(recording, output):
    track_module.CHECKPOINT_FRAMES = 3
    run(Path(recording), Path(output), resume=True, trackers=lambda config: (SlowTracker(), "weights of a ball"))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by default where tests run in the background
    modes = {"save": save_for_ever, "node": save_while_frames_wait, "track": track_slowly}
    modes[sys.argv[1]](*sys.argv[2:])
