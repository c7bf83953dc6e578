"""``nr_tracking batch``: many recordings in parallel, on this machine or on a Ray cluster.

Each recording is tracked by a process of its own, ``nr_tracking track --resume``: whatever happens to one, be it killed
for its memory, costs no other, and what is done already is not done again. On a cluster all machines see one disk.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from nr_tracking.atomic import finished, prepare_folder, written_file
from nr_tracking.commands.batch_options import processors
from nr_tracking.commands.progress import Progress
from nr_tracking.commands.recordings import open_recordings
from nr_tracking.tracking.result import Run
from nr_tracking.types import InputError
from nr_tracking.wording import counted

_OWN = ("logs", "summary.json", "summary.csv")  # what else lies in the folder of OUTPUTs
_SAID = 300  # characters of a complaint in the summary
Job = tuple[str, list[str], str]
"""Name, command line, and the file for what it prints."""


@dataclass(frozen=True)
class Finished:
    """What became of one recording.

    ``error`` is empty where it was tracked; ``dropped`` counts frames by reason; ``notices`` say what else was found,
    such as damage to the file beside the frames that were read.
    """

    name: str
    frames: int = 0
    tracked: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""
    notices: list[str] = field(default_factory=list)


class Executor(Protocol):
    """Runs jobs somewhere."""

    def run(self, jobs: list[Job]) -> Iterator[tuple[str, int, float]]:
        """Yield name, exit code and seconds of each job as it ends."""


class LocalProcesses:
    """Runs jobs on this machine, so many at a time, which share its processors unless ``OMP_NUM_THREADS`` is set."""

    def __init__(self, processes: int) -> None:
        self._processes = processes

    def run(self, jobs: list[Job]) -> Iterator[tuple[str, int, float]]:
        """Yield name, exit code and seconds of each job as it ends."""
        threads = {"OMP_NUM_THREADS": str(max(1, processors() // self._processes))}
        with ThreadPoolExecutor(self._processes) as pool:
            running = {pool.submit(run_job, job, {**threads, **os.environ}): job for job in jobs}
            try:
                for done in as_completed(running):
                    yield (running[done][0], *done.result())
            except BaseException:
                for waiting in running:
                    waiting.cancel()
                raise


class RayCluster:
    """Runs jobs on a Ray cluster; ``address`` empty for one that is started here, with so many processes at a time."""

    def __init__(self, address: str = "", processes: int = 1) -> None:
        self._address = address
        self._processes = processes

    def run(self, jobs: list[Job]) -> Iterator[tuple[str, int, float]]:
        """Yield name, exit code and seconds of each job as it ends; a machine that is lost costs its jobs a new try."""
        import ray

        where: dict[str, Any] = {"address": self._address} if self._address else {"num_cpus": self._processes}
        ray.init(**where, log_to_driver=False, ignore_reinit_error=True)
        try:
            remote = ray.remote(num_cpus=1, max_retries=2)(run_job)
            running = {remote.remote(job): job for job in jobs}
            while running:
                (done,), _ = ray.wait(list(running), num_returns=1)
                name = running.pop(done)[0]
                try:
                    code, seconds = ray.get(done)
                except ray.exceptions.RayError as error:
                    print(f"nr_tracking: {name}: {error}", file=sys.stderr)
                    code, seconds = 1, 0.0
                yield name, code, seconds
        finally:
            ray.shutdown()


def run_job(job: Job, environment: Mapping[str, str] | None = None) -> tuple[int, float]:
    """Run a command line to its end, in this process's environment or another; returns exit code and seconds."""
    _, command, log = job
    begun = time.monotonic()
    with Path(log).open("wb") as output:
        code = subprocess.run(
            command, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment
        ).returncode
    return code, time.monotonic() - begun


def batch(
    folder: Path,
    output: Path,
    executor: Executor,
    *,
    settings: list[str] | None = None,
    command: Callable[[Path, Path, list[str]], list[str]] | None = None,
) -> list[Finished]:
    """Track every recording below a folder into ``output/NAME``; returns what became of each, by name.

    ``settings`` are options of ``nr_tracking track``. ``output/summary.json`` and ``summary.csv`` say it too, and
    ``output/logs/NAME.log`` has what each process printed.

    Raises:
        InputError: there is no recording below the folder, or one has the name of a file of the batch itself.
    """
    # On a cluster, others work elsewhere.
    folder, output = folder.absolute(), output.absolute()
    recordings = find_recordings(folder)
    for name, path in recordings:
        if name in _OWN:
            raise InputError(
                "bad_file_name", f"{path}: {output / name} is where this command keeps its own; rename the recording"
            )
    logs = output / "logs"
    prepare_folder(logs)
    made = command or track_command
    jobs: list[Job] = [
        (name, made(path, output / name, settings or []), str(logs / f"{name}.log")) for name, path in recordings
    ]
    # The first recording may take minutes, and what each process prints goes to its log.
    print(f"tracking {folder.name}: {counted(len(jobs), 'recording')}; logs in {logs}", file=sys.stderr, flush=True)
    finished: dict[str, Finished] = {}
    with Progress(f"tracking {folder.name}", len(jobs), "recording") as progress:
        for name, code, seconds in executor.run(jobs):
            finished[name] = _outcome(name, output / name, logs / f"{name}.log", code, seconds)
            progress.advance()
            _write_summary(output, finished)
    return [finished[name] for name in sorted(finished)]


def find_recordings(folder: Path) -> list[tuple[str, Path]]:
    """Names and paths of the SEQUENCEs and bags directly below a folder, by name; damaged ones among them."""
    from nr_tracking.data.sequence import is_sequence
    from nr_tracking.ros.bags import is_bag

    if not folder.is_dir():
        raise InputError("no_such_path", f"there is no folder {folder}")
    found = [path for path in finished(folder) if is_sequence(path) or is_bag(path)]
    if not found:
        open_recordings(folder)  # says what is there instead
        raise InputError("no_recording", f"{folder} is a recording, not a folder of recordings")
    names = Counter(path.stem if path.is_file() else path.name for path in found)
    return [(path.name if path.is_dir() or names[path.stem] > 1 else path.stem, path) for path in found]


def track_command(recording: Path, output: Path, settings: list[str]) -> list[str]:
    """The command line that tracks one recording, or goes on with it."""
    options = ["--output", str(output), "--resume", *settings]
    return [sys.executable, "-m", "nr_tracking", "track", str(recording), *options]


def summary_table(finished: list[Finished]) -> str:
    """What became of each recording, in lines."""
    width = max((len(each.name) for each in finished), default=0)
    lines = []
    for each in finished:
        dropped = ", ".join(f"{count} {reason}" for reason, count in each.dropped.items())
        told = each.error or f"{each.tracked} of {each.frames} frames" + (f" ({dropped})" if dropped else "")
        if each.notices:
            more = f" (and {len(each.notices) - 1} more)" if len(each.notices) > 1 else ""
            told += f"; {each.notices[0][:_SAID]}{more}"
        lines.append(f"{each.name:{width}}  {'FAILED' if each.error else 'done  '}  {told}")
    return "\n".join(lines) + "\n"


def _outcome(name: str, output: Path, log: Path, code: int, seconds: float) -> Finished:
    if code == 0:
        try:
            run = Run.read(output)
        except InputError as error:
            return Finished(name, seconds=seconds, error=str(error))
        reasons = Counter(reason.split(":")[0][:80] for reason in run.dropped.values())
        return Finished(name, run.frames, run.tracked, dict(reasons), round(seconds, 2), notices=list(run.notices))
    said = log.read_text(errors="replace").strip().splitlines()[-1:] if log.is_file() else []
    how = f"ended by signal {-code}" if code < 0 else f"exit code {code}"
    return Finished(name, seconds=round(seconds, 2), error=f"{how}: {''.join(said)[-_SAID:]}")


def _write_summary(output: Path, finished: dict[str, Finished]) -> None:
    rows = [asdict(finished[name]) for name in sorted(finished)]
    with written_file(output / "summary.json") as partial:
        partial.write_text(json.dumps(rows, indent=1) + "\n")
    with written_file(output / "summary.csv") as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*Finished.__dataclass_fields__])
        writer.writeheader()
        writer.writerows({**row, **{name: json.dumps(row[name]) for name in ("dropped", "notices")}} for row in rows)
