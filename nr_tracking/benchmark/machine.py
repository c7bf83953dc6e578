"""What the machine at hand can do at best: bytes copied and numbers multiplied in a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch

from nr_tracking.fields.filters import Filters
from nr_tracking.fields.products import at_every_row

_COPIED = 1 << 26  # bytes: several times a last-level cache
_SIDE = 1024
_REPEATS = 5


@dataclass(frozen=True)
class Limits:
    """``bandwidth`` in bytes a second, read and written bytes counted alike; ``rate`` in operations a second.

    A multiplication and an addition are two operations, in the type that the network uses.
    """

    bandwidth: float
    rate: float

    def floor(self, moved: float = 0.0, operations: float = 0.0) -> float:
        """Least seconds for moving bytes and for operations, whichever takes longer."""
        return max(moved / self.bandwidth, operations / self.rate)


def measure_limits(device: torch.device, dtype: torch.dtype) -> Limits:
    """Measure with all threads that PyTorch uses; where this package's own products are faster, on one, with these."""
    source = torch.zeros(_COPIED, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    matrix = torch.ones(_SIDE, _SIDE, dtype=dtype, device=device)
    copy = median_seconds(lambda: target.copy_(source), device)
    multiply = median_seconds(lambda: matrix @ matrix, device)
    filters = Filters(kept=True)
    if at_every_row(matrix, matrix, None, filters) is not None:
        multiply = min(multiply, median_seconds(lambda: at_every_row(matrix, matrix, None, filters), device))
    return Limits(2 * _COPIED / copy, 2 * _SIDE**3 / multiply)


def median_seconds(work: Callable[[], object], device: torch.device, repeats: int = _REPEATS) -> float:
    """Median wall time of ``work``, after one run to warm up."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return median(times[1:])
