"""Does a node keep what it needs and no more, hour after hour? A looped recording, and what the node's process holds.

    python -m nr_tracking.ros.soak --minutes 60 --rate 0.3 --json soak.json

Resident memory may not rise by 1 MB a minute after the warm-up, threads, descriptors and waiting frames may not grow,
and latency at the end may not be a fifth above that at the beginning.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from nr_tracking.data.sequence import write_sequence
from nr_tracking.json_text import json_text
from nr_tracking.ros.ball import BALL_FPS, breathing_ball
from nr_tracking.ros.process import holdings
from nr_tracking.types import InputError

_WARM_UP = 0.25  # of the time: allocators and caches fill
_PERIOD_S = 2.0
_FRAMES = 100
_SLOPE_MB = 1.0
_LATENCY = 1.2
_SPREAD = {"threads": 1, "descriptors": 2, "waiting": 4}
"""By how much counts may differ between the end of the warm-up and the end."""


@dataclass(frozen=True)
class Sample:
    """One look at a node: seconds since the start, what its process holds, and what it reports of itself."""

    seconds: float
    memory_mb: float
    threads: int
    descriptors: int
    waiting: int
    tracked: int
    latency_p99_s: float


@dataclass(frozen=True)
class Verdict:
    """Figures of a run; ``complaints`` is empty where all bounds hold."""

    minutes: float
    tracked: int
    slope_mb_per_minute: float
    memory_mb: tuple[float, float]
    threads: tuple[int, int]
    descriptors: tuple[int, int]
    waiting: tuple[int, int]
    latency_p99_s: tuple[float, float]
    complaints: tuple[str, ...]


def judge(samples: list[Sample], ended: str = "") -> Verdict:
    """Hold the samples of a run, in order, against the bounds. Pairs are the value after the warm-up and at the end.

    ``ended``: why the node ended before its time, where it did.
    """
    if not samples:
        raise InputError("node_ended", "the node ended before it could be looked at")
    end = samples[-1].seconds
    warm = [sample for sample in samples if sample.seconds >= _WARM_UP * end]
    minutes = np.array([sample.seconds for sample in warm]) / 60
    slope = float(np.polyfit(minutes, [sample.memory_mb for sample in warm], 1)[0])
    tenth = max(1, len(warm) // 10)
    before, after = (_latency(part) for part in (warm[:tenth], warm[-tenth:]))
    complaints = []
    if slope >= _SLOPE_MB:
        complaints.append(f"memory rises by {slope:.2f} MB a minute")
    for name, spread in _SPREAD.items():
        first, last = (max(getattr(sample, name) for sample in part) for part in (warm[:tenth], warm[-tenth:]))
        if last > first + spread:
            complaints.append(f"{name} grew from {first} to {last}")
    if after > _LATENCY * before:
        complaints.append(f"latency p99 grew from {before:.3f} to {after:.3f} s")
    if ended:
        complaints.append(f"the node did not last: {ended}")
    tracked = samples[-1].tracked - samples[0].tracked
    if tracked < _FRAMES:
        complaints.append(f"{tracked} frames were tracked, too few to tell: at least {_FRAMES}")

    def pair(name: str) -> tuple[int, int]:
        return getattr(warm[0], name), getattr(warm[-1], name)

    return Verdict(
        minutes=round(end / 60, 2),
        tracked=tracked,
        slope_mb_per_minute=round(slope, 3),
        memory_mb=(warm[0].memory_mb, warm[-1].memory_mb),
        threads=pair("threads"),
        descriptors=pair("descriptors"),
        waiting=pair("waiting"),
        latency_p99_s=(round(before, 4), round(after, 4)),
        complaints=tuple(complaints),
    )


def _latency(samples: list[Sample]) -> float:
    """A middle value: each sample is the p99 of the frames since the recording began again."""
    known = [sample.latency_p99_s for sample in samples if np.isfinite(sample.latency_p99_s)]
    return float(np.median(known)) if known else float("nan")


def soak(minutes: float, folder: Path, preset: str = "lite", rate: float = 1.0) -> tuple[list[Sample], str]:
    """Run a node on a recording that is looped at ``rate``; returns samples, and why the node ended early, if it did.

    ``folder`` takes the recording and the logs of the processes.
    """
    from nr_tracking.ros.demo_session import Session

    recording = write_sequence(folder / "recording", breathing_ball(), fps=BALL_FPS, depth_unit_m=0.001)
    samples: list[Sample] = []
    # What is kept for ~/save fills up by design, at 1 MB a frame; few frames do so within the warm-up.
    parameters = {"preset": preset, "ros.image_reliability": "reliable", "ros.kept_frames": 20}
    with Session(parameters, folder / "logs") as session:
        replay = session.replay(recording, loop=True, rate=rate)
        begun = time.monotonic()
        try:
            while (passed := time.monotonic() - begun) < 60 * minutes:
                time.sleep(_PERIOD_S)
                try:
                    session.require_running()
                    held = holdings(session.process_id)
                except (InputError, OSError) as error:
                    return samples, str(error)
                figures = session.figures()
                samples.append(
                    Sample(
                        passed,
                        held.memory_mb,
                        held.threads,
                        held.descriptors,
                        figures.waiting,
                        figures.tracked,
                        figures.latency_p99_s,
                    )
                )
        finally:
            replay.terminate()
            replay.wait()
    return samples, ""


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit code 1 where a bound does not hold."""
    parser = argparse.ArgumentParser(prog="python -m nr_tracking.ros.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default 10)")
    parser.add_argument("--preset", default="lite", help="network and weights (default lite)")
    parser.add_argument("--rate", type=float, default=1.0, help="pace of the recording (default 1: 10 images a second)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures and samples")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="nr_tracking_soak_") as folder:
        samples, ended = soak(options.minutes, Path(folder), options.preset, options.rate)
    verdict = judge(samples, ended)
    for name, value in asdict(verdict).items():
        print(f"{name}: {value}")
    if options.json:
        report = {"verdict": asdict(verdict), "samples": [asdict(sample) for sample in samples]}
        options.json.write_text(json_text(report, indent=1) + "\n")
    return 1 if verdict.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
