"""A generated dancer through the real node, over the real middleware, scored: what ``nr_tracking demo`` does.

A clip of a dancing figure is rendered to depth images and written as a rosbag2. The tracking node and the replay node
run as processes of their own, as they would on a robot; this process subscribes, asks the node to save, and scores
what it wrote against the true surfaces, beside what doing nothing would have scored.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nr_tracking.atomic import prepare_folder
from nr_tracking.config import PRESETS, load_config
from nr_tracking.presets import PRESET_MEANING
from nr_tracking.types import DepthFrame, Float32, Float64, InputError, Intrinsics

if TYPE_CHECKING:
    from nr_tracking.data.sequence import GroundTruth, Sequence
    from nr_tracking.evaluation.protocol import Scores
    from nr_tracking.ros.demo_session import Figures, Session

FPS = 30.0
_PURPOSE = "A generated dancer through the real node, over the real middleware, scored against the true surfaces."
_CAMERA = Intrinsics(640, 480, 525.0, 525.0, 319.5, 239.5)  # as in the first consumer depth cameras
_AIR = 1.1
_AZIMUTH_DEGREES = 20.0
_ELEVATION_DEGREES = 8.0
_WARM_UP_FRAMES = 9
_SCORED_POINTS = 20_000
_MARGIN = 0.8  # the recording is played at most at this share of the speed of inference


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    options = _options(arguments)  # before torch and ROS are loaded, for which --help should not wait

    from nr_tracking.evaluation.scoreboard import score_table
    from nr_tracking.fields.weights import weights_path
    from nr_tracking.ros.bags import write_bag
    from nr_tracking.ros.demo_session import Session

    started = time.monotonic()
    weights_path(load_config(options.preset, weights=str(options.weights or "")))  # before the work, not after it
    folder: Path = options.output
    prepare_folder(folder)
    print(f"1. a dancing figure, {options.frames} frames at {FPS:.0f} Hz, seen by a depth camera", flush=True)
    sequence = make_recording(folder / "sequence", options.frames, options.seed)
    bag = write_bag(folder / "bag", sequence.frames())
    print(f"   {folder / 'sequence'} with its true surfaces, {bag} as a rosbag2", flush=True)
    parameters = {
        "preset": options.preset,
        "device": options.device,
        "ros.output_folder": folder / "saved",
        "ros.save_report": False,  # the one written here has scores
        "ros.queue_policy": "all",
        "ros.image_reliability": "reliable",
        "ros.image_history": 200,
        "ros.kept_frames": options.frames,
        **({"weights": options.weights.absolute()} if options.weights else {}),
    }
    print(f"2. the tracking node, preset {options.preset} on {options.device}, a process of its own", flush=True)
    with Session(parameters, folder / "logs") as session:
        rate = options.rate or _sustained_rate(session, bag)
        print(f"3. the replay node plays the rosbag2 over DDS at {rate:.2g} of its own speed", flush=True)
        sent = session.play(bag, rate=rate)
        output = session.save()
        figures = session.finish(sent)
    print(_account(sent, figures, rate), flush=True)
    report, scores = write_report(sequence, output)
    print("4. against the truth (static and nearest: what doing nothing would score in Corr)")
    print(score_table(scores), end="")
    print(f"   {time.monotonic() - started:.0f} s in all; meshes and tracks in {output}")
    print(f"   report: {report}")
    return 0 if figures.tracked == len(sequence) else 1


def make_recording(path: Path, frames: int, seed: int) -> Sequence:
    """Generate a dancing figure and write what a static depth camera in front of it sees, with the truth."""
    from nr_tracking.data.cameras import Camera, looking_at
    from nr_tracking.data.procedural import procedural_clip
    from nr_tracking.data.recordings import record
    from nr_tracking.data.sequence import read_sequence, write_sequence

    clip = procedural_clip(np.random.default_rng(seed), frames, FPS, kind="person")
    camera = Camera(_CAMERA, *looking_at(*_stand(clip.vertices.reshape(-1, 3))))
    images, truth = record(clip, camera)
    return read_sequence(write_sequence(path, images, fps=FPS, ground_truth=truth))


def _stand(points: Float32) -> tuple[Float64, float, float, float, float]:
    """Where the camera looks and from where, so that ``points`` (N, 3) of all frames are in view with some air."""
    low, high = points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)
    half = (high - low) / 2
    across, behind = float(np.hypot(half[0], half[2])), float(half.max())
    distance = behind + _AIR * max(half[1] * _CAMERA.fy / _CAMERA.cy, across * _CAMERA.fx / _CAMERA.cx)
    return (low + high) / 2, np.radians(_AZIMUTH_DEGREES), np.radians(_ELEVATION_DEGREES), 0.0, float(distance)


def write_report(sequence: Sequence, output: Path) -> tuple[Path, list[Scores]]:
    """Score an OUTPUT of the node against the recording and write its report.html."""
    from nr_tracking.evaluation.report import score_output, tracking_report, truth_of
    from nr_tracking.tracking.result import read_output

    saved = read_output(output)
    truth: GroundTruth | None = truth_of(sequence, saved)
    assert truth is not None
    scores = score_output(saved, truth, name="dancer", count=_SCORED_POINTS)
    rows = {int(stamp): index for index, stamp in enumerate(sequence.stamps_ns)}
    shown = np.unique(np.linspace(0, len(saved) - 1, min(6, len(saved))).round().astype(int))
    frames: dict[int, DepthFrame] = {int(row): sequence.frame(rows[int(saved.stamps_ns[row])]) for row in shown}
    timings = {int(row): stages for row, stages in json.loads((output / "timings.json").read_text()).items()}
    report = output / "report.html"
    html = tracking_report(
        saved, frames, timings, title="A dancing figure through the node", scores=scores, truth=truth
    )
    report.write_text(html, encoding="utf-8")
    return report, scores


def _sustained_rate(session: Session, bag: Path) -> float:
    """The speed at which inference keeps up on this machine, at most that of the recording; measured on its start."""
    sent = session.play(bag, rate=1.0, duration=(_WARM_UP_FRAMES - 0.5) / FPS)
    speed = 1 / session.finish(sent).seconds_a_frame
    session.reset()
    rate = min(1.0, _MARGIN * speed / FPS)
    slower = "" if rate == 1.0 else f": slower than the camera's {FPS:.0f}"
    print(f"   inference runs at {speed:.1f} frames/s on this machine{slower}", flush=True)
    return float(np.clip(np.floor(100 * rate) / 100, 0.01, 1.0))


def _account(sent: int, figures: Figures, rate: float) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(figures.dropped.items()))
    return (
        f"   frames in {sent}, out {figures.tracked}, dropped {sum(figures.dropped.values())}"
        + (f" ({reasons})" if reasons else "")
        + f"; received by this process: {figures.meshes} meshes, {figures.clouds} track clouds\n"
        f"   latency from image to result at {rate * FPS:.1f} frames/s: p50 {figures.latency_p50_s:.2f} s, "
        f"p95 {figures.latency_p95_s:.2f} s, waiting for the window included; "
        f"computing takes {figures.seconds_a_frame:.2f} s a frame"
    )


@dataclass(frozen=True)
class _Options:
    output: Path
    preset: str
    device: str
    weights: Path | None
    frames: int
    seed: int
    rate: float


def _options(arguments: list[str] | None) -> _Options:
    parser = argparse.ArgumentParser(prog="nr_tracking demo", description=_PURPOSE)
    parser.add_argument("--output", type=Path, default=Path("out/demo"), help="folder to write (default out/demo)")
    parser.add_argument("--preset", choices=PRESETS, default="base", help=f"{PRESET_MEANING} (default: base)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the network runs")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="safetensors in place of the preset's")
    parser.add_argument("--frames", type=int, default=51, help="length of the clip (default 51, three times 17)")
    parser.add_argument("--seed", type=int, default=1, help="another figure and another dance")
    parser.add_argument("--rate", type=float, default=0.0, help="replay speed (default: the fastest that is kept up)")
    chosen = _Options(**vars(parser.parse_args(arguments)))
    if chosen.frames < _WARM_UP_FRAMES:
        raise InputError("no_frames", f"frames {chosen.frames}: a dance has at least {_WARM_UP_FRAMES}")
    if chosen.seed < 0:
        raise InputError("bad_request", f"seed {chosen.seed}: give 0 or more")
    if not 0 <= chosen.rate <= 100:
        raise InputError("bad_rate", f"rate {chosen.rate}: choose a speed from 0.01 to 100")
    return chosen
