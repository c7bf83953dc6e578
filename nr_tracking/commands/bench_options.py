"""The options of ``nr_tracking bench``, and what it prints and writes."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from nr_tracking.atomic import prepare_file, written_file
from nr_tracking.benchmark.table import bench_table, comparison_table
from nr_tracking.config import Config
from nr_tracking.json_text import json_text
from nr_tracking.types import InputError

SECONDS = 20.0


def add_bench_options(parser: argparse.ArgumentParser) -> None:
    """Add what ``bench`` takes beside settings."""
    parser.add_argument("--frames", type=int, default=33, help="frames of the generated recording (default 33)")
    parser.add_argument("--distance", type=float, default=2.4, metavar="M", help="of the subject (default 2.4 m)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, nothing else")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the measurements as JSON")
    parser.add_argument("--compare", type=Path, metavar="FILE", help="print ratios to the measurements in FILE")
    parser.add_argument("--curves", action="store_true", help="also measure how cost grows with the work")
    parser.add_argument("--ros", action="store_true", help="also measure the node, over DDS, at the camera's rate")
    parser.add_argument("--seconds", type=float, help=f"of the recording for --ros (default {SECONDS:.0f})")


def run_bench(options: argparse.Namespace, config: Config) -> int:
    """Measure, print, and write."""
    seconds = _checked_seconds(options)
    near, far = config.subject.depth_min_m, config.subject.depth_max_m
    if not near < options.distance < far:
        where = f"the subject has to stand between subject.depth_min_m and subject.depth_max_m, {near:g} and {far:g} m"
        raise InputError("bad_request", f"--distance {options.distance:g}: {where}")
    before = _read(options.compare) if options.compare else None
    if options.output:
        prepare_file(options.output)
    from nr_tracking.commands.bench import bench

    result: dict[str, Any] = bench(config, frames=options.frames, distance=options.distance)
    if options.curves:
        from nr_tracking.benchmark.curves import curves
        from nr_tracking.commands.bench import generated_frames
        from nr_tracking.tracking.tracker import load_networks

        print("measuring how cost grows with the work", file=sys.stderr)
        frames = generated_frames(8, distance=options.distance)
        networks = load_networks(config.model_copy(update={"device": "cpu"}))  # where curves are measured
        result["curves"] = curves(config, networks.completion.eval(), list(frames))
    if options.ros:
        from nr_tracking.commands.bench_node import bench_node

        print(f"measuring the node for {seconds:.0f} s", file=sys.stderr)
        result["node"] = bench_node(config, seconds, options.distance)
    text = json_text(result, indent=None if options.json else 1)
    if options.output:
        with written_file(options.output) as partial:
            partial.write_text(text)
    if options.json:
        print(text)
        return 0
    print(bench_table(result), end="")
    for name, curve in result.get("curves", {}).items():
        points = zip(curve["work"], curve["seconds"], strict=True)
        steps = ", ".join(f"{work}: {1000 * seconds:.0f}" for work, seconds in points)
        print(f"ms by {name}: {steps}; exponent {curve['exponent']:.2f}")
    for name, value in result.get("node", {}).items():
        print(f"node {name}: {value:.3g}" if isinstance(value, float) else f"node {name}: {value}")
    if before:
        print(comparison_table(before, result), end="")
    return 0


def _checked_seconds(options: argparse.Namespace) -> float:
    """How long the node is measured; :class:`InputError` for what cannot be, or would do nothing."""
    seconds = SECONDS if options.seconds is None else float(options.seconds)
    if options.seconds is not None and not options.ros:
        raise InputError("bad_request", "--seconds is for --ros and does nothing without it")
    if options.json and options.compare:
        raise InputError("bad_request", "--compare prints a table and --json nothing but JSON: leave one of them out")
    if not 1 <= seconds < float("inf"):
        raise InputError("bad_request", f"--seconds {seconds}: give a second of the recording or more")
    if options.frames < 1:
        raise InputError("bad_request", f"--frames {options.frames}: at least one frame has to be tracked")
    return seconds


def _read(path: Path) -> dict[str, Any]:
    """Measurements that an earlier run wrote, all there that a comparison needs."""
    try:
        result = json.loads(path.read_text())
        missing = [key for key in ("frames_per_second", "peak_memory_mb", "percentiles") if key not in result]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise InputError("bad_request", f"--compare {path} cannot be read: {error}") from None
    if missing:
        raise InputError("bad_request", f"--compare {path} has no {', '.join(missing)}: write it by bench --output")
    try:
        comparison_table(result, result)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        what = f"--compare {path} is not what bench --output writes"
        raise InputError("bad_request", f"{what}: {type(error).__name__}: {error}") from None
    return dict(result)
