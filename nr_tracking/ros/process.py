"""What a process holds of the machine: memory, threads, descriptors, as Linux tells it."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

_PROCESSES = Path("/proc")


@dataclass(frozen=True)
class Holdings:
    """``memory_mb`` is resident memory now, ``peak_memory_mb`` the most it ever was; descriptors are the open ones."""

    memory_mb: float
    peak_memory_mb: float
    threads: int
    descriptors: int


def holdings(process: int | None = None) -> Holdings:
    """Look at a process, or at this one.

    Raises:
        OSError: there is no such process, or no ``/proc``.
    """
    folder = _PROCESSES / str(process or os.getpid())
    status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
    if "VmRSS" not in status:  # it has ended and waits to be asked how
        raise ProcessLookupError(f"process {folder.name} has ended")
    return Holdings(
        int(status["VmRSS"].split()[0]) / 1024,
        int(status["VmHWM"].split()[0]) / 1024,
        int(status["Threads"]),
        sum(1 for _ in (folder / "fd").iterdir()),
    )


def resident_megabytes() -> float:
    """Resident memory of this process; the most it ever was where the system tells no more."""
    try:
        return holdings().memory_mb
    except OSError:  # not Linux
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
