"""Tracks depth frames with the Python API: says where one point went, and writes the last surface as a PLY file.

python examples/track_frames.py [SEQUENCE]: without a recording, a ball that swings and swells.
"""

import argparse
from pathlib import Path

import numpy as np

from nr_tracking import InputError, Tracker, load_config
from nr_tracking.data.sequence import read_sequence
from nr_tracking.ros.ball import breathing_ball
from nr_tracking.tracking.colours import canonical_box, correspondence_colours
from nr_tracking.tracking.ply import write_ply

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("sequence", nargs="?", type=Path, help="folder of depth images, see docs/formats.md")
parser.add_argument("--frames", type=int, default=20)
parser.add_argument("--preset", default="lite", help="base is slower and more accurate")
parser.add_argument("--output", type=Path, default=Path("surface.ply"))
options = parser.parse_args()


def leave_out(error: InputError) -> None:
    """No subject, no depth, a picture that cannot be read, ...: only this frame is left out."""
    print(f"left out: {error}")


frames = read_sequence(options.sequence).frames(on_drop=leave_out) if options.sequence else breathing_ball()
tracker = Tracker(load_config(options.preset))
results = []
for _, frame in zip(range(options.frames), frames, strict=False):  # a camera's, as they come
    try:
        results += tracker.push(frame)  # an element for each frame that is finished; a robot would act on it here
    except InputError as error:
        leave_out(error)
results += tracker.flush()
if not results:
    parser.exit(1, "nothing was tracked\n")

tracks = results[0].tracks
followed = tracks.ids[np.argmin(np.where(tracks.observed, tracks.positions[:, 2], np.inf))]  # nearest to the camera
for result in results:
    for x, y, z in result.tracks.positions[result.tracks.ids == followed]:  # none where it is not tracked
        print(f"{result.stamp_ns / 1e9:6.2f} s   track {followed} is at {x:6.3f} {y:6.3f} {z:6.3f} m")

last = results[-1]
colours = correspondence_colours(last.canonical, *canonical_box(results[0].canonical))
write_ply(
    options.output, last.surface.vertices, last.surface.faces, colours, last.surface.confidence, last.surface.observed
)
print(f"{len(last.surface.faces)} triangles of the last surface in {options.output}")
