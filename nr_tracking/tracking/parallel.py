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
    """``count`` threads for the parts, and one more.

    Operations of PyTorch use one thread in each of them; what they use elsewhere does not change. With a count of one
    the caller does everything itself. ``threads`` starts another number of them.
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
        """One more thread, which does what it is given one after the other; nobody but the caller where this is so."""
        return Workers(self.count, threads=1)

    def submit(self, work: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Do ``work(...)`` when a thread is free; its result or error is that of the future."""
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
