"""Run as a process that tests interrupt: saves what a node keeps, over and over, or tracks a recording."""

import signal
import sys
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
    {"save": save_for_ever, "track": track_slowly}[sys.argv[1]](*sys.argv[2:])
