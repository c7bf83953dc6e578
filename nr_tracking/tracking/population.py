"""Who is tracked: births, deaths and recognition of points.

    population = Population.founded(count, first_id)
    population.judge(on_surface, back_on_surface, stamp_ns, config)     # deaths and recognitions of one frame
    kept = population.forget(stamp_ns, config)                          # those that stayed away too long
    population.born(count)                                              # new points, under ids never used before

A point dies when it has been off the surface for a while. It is carried along unseen with the part of the body that it
lies on, and where that part shows again it is recognised by its place and gets its id back; one that stays away too
long is forgotten for good. An id never names another point.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nr_tracking.config import TracksConfig
from nr_tracking.types import Bool, Float64, Int64

_ON_SURFACE = -1
_REJECTED = np.iinfo(np.int64).min


@dataclass
class Population:
    """All points that are carried, published or not, N of them.

    ``ids`` (N,); ``alive`` (N,) bool, published; ``off_since`` (N,) int64, the stamp at which a point left the surface,
    -1 on it; ``next_id`` is the first id that was never used.
    """

    ids: Int64
    alive: Bool
    off_since: Int64
    next_id: int

    @staticmethod
    def founded(count: int, first_id: int) -> Population:
        """``count`` living points, ids from ``first_id`` on."""
        ids = first_id + np.arange(count, dtype=np.int64)
        return Population(ids, np.ones(count, np.bool_), np.full(count, _ON_SURFACE, np.int64), first_id + count)

    def judge(self, on_surface: Bool, back: Bool, stamp_ns: int, config: TracksConfig) -> None:
        """Take one frame into account.

        ``on_surface`` (N,): near enough to the surface to live on; ``back`` (N,): near enough to be recognised there.
        """
        back = back & (self.off_since != _REJECTED)
        first = (self.off_since == _ON_SURFACE) & ~on_surface
        self.off_since = np.where(on_surface & self.alive | back, _ON_SURFACE, self.off_since)
        self.off_since[first] = stamp_ns
        patience = round(1e9 * config.patience_s)
        gone = (self.off_since != _ON_SURFACE) & (stamp_ns - self.off_since >= patience)
        self.alive = np.where(self.alive, ~gone, back)

    def reject(self, which: Bool) -> None:
        """End the points ``which`` (N,) at once and for good: they are not where they should be."""
        self.alive = self.alive & ~which
        self.off_since = np.where(which, _REJECTED, self.off_since)

    def forget(self, stamp_ns: int, config: TracksConfig) -> Bool:
        """Drop who has been off the surface for longer than can be remembered; returns who stays (N,)."""
        memory = round(1e9 * (config.patience_s + config.memory_s))
        kept = self.alive | (self.off_since >= stamp_ns - memory)
        self.ids, self.alive, self.off_since = self.ids[kept], self.alive[kept], self.off_since[kept]
        return kept

    def born(self, count: int) -> None:
        """Add ``count`` living points under new ids."""
        ids = self.next_id + np.arange(count, dtype=np.int64)
        self.ids = np.concatenate((self.ids, ids))
        self.alive = np.concatenate((self.alive, np.ones(count, np.bool_)))
        self.off_since = np.concatenate((self.off_since, np.full(count, _ON_SURFACE, np.int64)))
        self.next_id += count


def uncovered(distance: Float64, spacing: float, config: TracksConfig) -> Bool:
    """Which places (Q,) of a surface have no track nearby, by their ``distance`` (Q,) to the nearest one.

    ``spacing`` is the mean distance between neighbouring tracks, in the same unit.
    """
    return distance > config.birth_ratio * spacing
