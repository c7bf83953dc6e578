"""Independent parts of a window's work, side by side on the threads that PyTorch may use.

The operations of this package are many and small. Split over threads one by one, each waits for its slowest part;
whole cubes and whole frames, each on one thread, keep all cores busy, and give the same numbers on any number of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


class Workers:
    """A pool of ``count`` + 1 threads, or of ``threads`` where that is given.

    PyTorch runs each operation of a pool thread on that thread alone; the number of threads that it uses elsewhere does
    not change. With a count of one there is no pool, and the caller does the work itself.
    """

    def __init__(self, count: int, threads: int | None = None) -> None:
        self.count = count
        self.threads = threads = threads or count + 1
        self._pool: ThreadPoolExecutor | None = None
        if count > 1:
            before = torch.get_num_threads()
            self._pool = ThreadPoolExecutor(threads, "nr_tracking", initializer=_use_one_thread)
            # The number that one thread sets is what later ones start with, anyone's: start all now, and put it back.
            started = threading.Barrier(threads)
            list(self._pool.map(lambda _: started.wait(), range(threads)))
            torch.set_num_threads(before)

    def in_line(self) -> Workers:
        """A further pool of one thread, which does its work in order; no pool either if this one has none."""
        return Workers(self.count, threads=1)

    def submit(self, work: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Call ``work(...)`` when a thread is free; the future has its result or its error."""
        if self._pool is not None:
            return self._pool.submit(work, *args, **kwargs)
        done: Future[R] = Future()
        try:
            done.set_result(work(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done


def _use_one_thread() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # a thread takes the number of threads over when it first asks for it, and keeps it
