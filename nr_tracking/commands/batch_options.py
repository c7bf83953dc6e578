"""Options of ``nr_tracking batch``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from nr_tracking.types import InputError


def add_batch(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command but for settings, which it takes like ``track``."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of rosbag2 recordings and SEQUENCEs")
    parser.add_argument("--output", type=Path, required=True, metavar="OUT", help="folder of OUTPUTs and a summary")
    parser.add_argument("--processes", type=int, default=processors(), help="at a time (default: %(default)s)")
    parser.add_argument("--ray", action="store_true", help="run on Ray, started on this machine (extra: cluster)")
    parser.add_argument("--address", default="", metavar="HOST:PORT", help="run on the Ray cluster at this address")
    parser.set_defaults(run=run_batch)


def processors() -> int:
    """How many processors this process may run on: fewer than the machine has in a container or under taskset."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_batch(options: argparse.Namespace) -> int:
    """Track the recordings of a folder; 1 where any of them failed."""
    from nr_tracking.commands.batch import Executor, LocalProcesses, RayCluster, batch, summary_table

    if options.processes < 1:
        raise InputError("bad_request", f"--processes {options.processes}: at least one")
    executor: Executor = LocalProcesses(options.processes)
    if options.ray or options.address:
        import ray  # noqa: F401  (missing, it is named before any work begins)

        executor = RayCluster(options.address, options.processes)
    config = options.config.absolute() if options.config else None
    settings = [
        word
        for name, value in (("--preset", options.preset), ("--device", options.device), ("--config", config))
        if value
        for word in (name, str(value))
    ]
    settings += [word for text in options.set or [] for word in ("--set", text)]
    finished = batch(options.folder, options.output, executor, settings=settings)
    print(summary_table(finished), end="")
    return int(any(each.error for each in finished))
