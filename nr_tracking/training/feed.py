"""Windows on their way to the training step: which ones, in which order, prepared by which process."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from nr_tracking.config import Config
from nr_tracking.data.cache import WindowCache, WindowSample
from nr_tracking.data.clip_cache import GeneratedWindows
from nr_tracking.training.batches import TrainingBatch, one_frame, prepare
from nr_tracking.training.mirroring import mirrored_batch
from nr_tracking.types import InputError

Windows = WindowCache | GeneratedWindows
Kept = TypeVar("Kept")


_HELD = 256  # windows that a process keeps, to show them again
_ROW = 4  # windows that always come side by side, so that each finds the process that still holds it
_AHEAD = 16  # windows that a process prepares before they are asked for


class Draw(NamedTuple):
    """The window of one step: its number in the cache, and the epoch and place that seed its augmentation.

    Or the mirror image of what the draw at place ``mirrors`` of the same epoch shows, which is then ``mirrored``.
    """

    epoch: int
    place: int
    window: int
    mirrors: int | None = None
    mirrored: bool = False


def draws_of_epoch(
    seed: int, epoch: int, windows: int, start: int, together: int, rank: int, size: int, echoes: int = 1
) -> list[Draw]:
    """What process ``rank`` of ``size`` draws in an epoch from place ``start`` on, in order.

    ``together`` windows, in the epoch's own order, make one step; each process takes every ``size``-th of them. Windows
    that do not fill a step are left out of the epoch. Each window comes ``echoes`` times within a few hundred,
    augmented anew each time but every second one, which is the mirror image of the one before: where making and
    augmenting one are dear (data echoing, Choi et al. 2019).
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(windows)
    if echoes > 1:
        order = _echoed(order, echoes, rng)
    mirrors, waiting = [], dict[int, int]()  # windows that were shown, and not yet mirrored: where they were shown
    for place, window in enumerate(order.tolist()):
        mirrors.append(waiting.pop(window, None))
        if mirrors[-1] is None:
            waiting[window] = place
    mirrored = set(mirrors)
    places = range(start, len(order) - len(order) % together)
    mine = [place for place in places if (place % together) % size == rank]
    return [Draw(epoch, place, int(order[place]), mirrors[place], place in mirrored) for place in mine]


def _echoed(order: np.ndarray, echoes: int, rng: np.random.Generator) -> np.ndarray:
    """Windows in their ``order``, each row of them ``echoes`` times; what does not fill a row comes once, in the end.

    New ones come evenly among those that are shown again: they take long to make, and a step that had to wait for eight
    of them would idle, as would the process that makes them while steps have none.
    """
    rows = order[: len(order) - len(order) % _ROW].reshape(-1, _ROW)
    apart = max(_HELD // (_ROW * (echoes + 2)), 1)  # rows between two times: fewer than are held lie between them
    time = np.arange(len(rows))[:, None] + apart * (np.arange(echoes) + 0.5 * rng.random((len(rows), echoes)))
    shown = np.argsort(time.reshape(-1)) // echoes
    return np.concatenate([rows[shown].reshape(-1), order[rows.size :]])


def prepared(
    cache: Windows, config: Config, draws: list[Draw], workers: int, *, single: bool = False
) -> Iterator[TrainingBatch | None]:
    """Windows ready for a step, in the order of ``draws``; None for one whose disturbed depth shows no subject.

    With ``single``, one frame of each. Raises :class:`InputError` for one that cannot be read or made.
    """
    loader: DataLoader[TrainingBatch | InputError | None] = DataLoader(
        PreparedWindows(cache, config, single),
        batch_size=None,
        sampler=draws,  # type: ignore[arg-type]
        num_workers=workers,
        worker_init_fn=_modest_worker if workers else None,
        prefetch_factor=_AHEAD if workers else None,
    )
    for batch in loader:
        if isinstance(batch, InputError):
            raise batch
        yield batch


class PreparedWindows(Dataset[TrainingBatch | InputError | None]):
    """Windows ready for a step, by :class:`Draw`; None for one whose disturbed depth shows no subject any more.

    And what is wrong with one that cannot be read: raised in another process, it would arrive as something else.
    """

    def __init__(self, cache: Windows, config: Config, single: bool = False) -> None:
        self.cache, self.config, self.single = cache, config, single
        self._made: OrderedDict[tuple[int, int], WindowSample] = OrderedDict()
        self._mirrored: OrderedDict[tuple[int, int], TrainingBatch | None] = OrderedDict()

    def __getitem__(self, draw: Draw) -> TrainingBatch | InputError | None:
        """Read and prepare one window, or take the mirror image of one that was prepared before."""
        try:
            return self._shown(draw)
        except InputError as error:
            return error

    def _shown(self, draw: Draw) -> TrainingBatch | None:
        if draw.mirrors is None:
            batch = self._prepared(draw)
            if draw.mirrored:
                _keep(self._mirrored, (draw.epoch, draw.place), None if batch is None else mirrored_batch(batch))
            return batch
        key = (draw.epoch, draw.mirrors)
        if key in self._mirrored:
            return self._mirrored.pop(key)
        batch = self._prepared(draw._replace(place=draw.mirrors))
        return None if batch is None else mirrored_batch(batch)

    def _prepared(self, draw: Draw) -> TrainingBatch | None:
        rng = np.random.default_rng((self.config.training.seed, 2, draw.epoch, draw.place))
        sample = self._drawn(draw)
        if self.single and len(sample.depth) > 1:
            sample = one_frame(sample, rng)
        try:
            return prepare(sample, self.config, rng)
        except InputError as error:
            if error.reason != "no_subject":
                raise
            return None

    def _drawn(self, draw: Draw) -> WindowSample:
        """A window as it was stored, or made from clips, where it is the one that the last draws made."""
        if not isinstance(self.cache, GeneratedWindows):
            return self.cache.drawn(draw.window, draw.epoch)
        key = (draw.epoch, draw.window)
        sample = self._made.pop(key, None)
        if sample is None:
            sample = self.cache.drawn(draw.window, draw.epoch)
        if self.config.training.echoes > 1:
            _keep(self._made, key, sample)
        return sample


def _keep(held: OrderedDict[tuple[int, int], Kept], key: tuple[int, int], value: Kept) -> None:
    """Put something beside what is ``held``, as much of it as comes again."""
    held[key] = value
    if len(held) > _HELD:
        held.popitem(last=False)


def _modest_worker(_: int) -> None:
    """One thread, and behind the training itself."""
    torch.set_num_threads(1)
    os.nice(5)
