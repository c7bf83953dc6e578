"""Matches between a moving surface and the one it should come to lie on, sought from both sides.

From one side alone a limb that has no counterpart pulls nothing, or a limb of the target is never reached; so samples
of the moving surface look for the target, and samples of the target look for the moving surface. A match has a similar
normal and lies within a radius. Where features are known, the nearest is sought in space and feature together:
``argmin |dx / L|^2 + lambda^2 (2 - 2 cos)`` with L the size of the subject.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from nr_tracking.loops import compiled_loops
from nr_tracking.types import Float32, Float64, Int64

_COMPARED = 12  # nearest points among which features decide
_CANDIDATES = 4  # nearest points among which the nearest with a similar normal is chosen


@dataclass(frozen=True)
class Target:
    """A surface to be matched: vertices, their normals, and an even sample of them.

    ``points`` (T, 3) and ``normals`` (T, 3) float64; ``sample`` (M,) int64 indices; ``features`` (M, C) unit rows at
    the sample, or None.
    """

    points: Float64
    normals: Float64
    sample: Int64
    features: Float32 | None = None

    @cached_property
    def sought(self) -> tuple[Float64, Float64]:
        """Points and normals of the sample, (M, 3) each."""
        return self.points[self.sample], self.normals[self.sample]

    @cached_property
    def tree(self) -> cKDTree:
        """The points in a k-d tree."""
        return cKDTree(self.points, balanced_tree=False)

    @cached_property
    def grid(self) -> Any:
        """The points in a uniform grid, which compiled loops search."""
        loops = compiled_loops("projection")
        assert loops is not None
        return loops.grid_of(as_places(self.points))

    def nearest_similar(self, points: Float64, normals: Float64, radius: float, cosine: float) -> Int64:
        """For each of ``points`` (Q, 3) the nearest of the surface on a similar side, -1 where none is near.

        See :func:`nearest_similar`.
        """
        if (loops := compiled_loops("matching")) is not None:
            sides, normals = (np.ascontiguousarray(values, np.float64) for values in (self.normals, normals))
            known = self.grid, sides, as_places(points), normals
            found: Int64 = loops.nearest_similar(*known, float(radius), float(cosine), _CANDIDATES)
            return found
        return nearest_similar(self.tree, self.normals, points, normals, radius, cosine)


@dataclass(frozen=True)
class Matches:
    """Pairs of a moving sample and a place on the target; ``sample`` (N,) int64, ``place`` and ``normal`` (N, 3).

    ``forward`` counts those found from the moving surface; they come first.
    """

    sample: Int64
    place: Float64
    normal: Float64
    forward: int


def as_places(points: np.ndarray) -> Float64:
    """``points`` (N, 3) as compiled loops take them. Raises ValueError for what is not finite, as search trees do.

    Nor may their squares be infinite: nothing is near to what is that far away.
    """
    places = np.ascontiguousarray(points, np.float64)
    if not np.isfinite(np.einsum("ni,ni->", places, places)):
        raise ValueError("points must be finite: some of them are no numbers, or too far away")
    return places


def even_sample(points: Float64, count: int) -> Int64:
    """At most ``count`` indices of points (N, 3), spread evenly: an even stride along a space-filling curve."""
    if len(points) <= count:
        return np.arange(len(points))
    return space_order(points)[((np.arange(count) + 0.5) * (len(points) / count)).astype(np.int64)]


def space_order(points: Float64) -> Int64:
    """Indices that sort points (N, 3) along a space-filling curve (Morton order): neighbours stay together."""
    if (loops := compiled_loops("matching")) is not None:
        order: Int64 = loops.space_order(np.ascontiguousarray(points, np.float64))
        return order
    low = points.min(axis=0)
    cells = ((points - low) * (1023.0 / max(float((points - low).max()), 1e-30))).astype(np.int64)
    # The ten bits of each axis are spread to every third place, so that those of the three interleave.
    for shift, mask in ((16, 0x30000FF), (8, 0x300F00F), (4, 0x30C30C3), (2, 0x9249249)):
        cells = (cells | (cells << shift)) & mask
    code = cells[:, 0] | (cells[:, 1] << 1) | (cells[:, 2] << 2)
    return np.argsort(code, kind="stable")


def find_matches(points: Float64, normals: Float64, target: Target, radius: float, cosine: float) -> Matches:
    """Match moving samples (S, 3) with unit normals to the target, nearest in space, both ways.

    ``radius`` bounds the distance, ``cosine`` is the least product of matched normals.
    """
    there = target.nearest_similar(points, normals, radius, cosine)
    back = Target(points, normals, target.sample[:0]).nearest_similar(*target.sought, radius, cosine)
    return _joined(there, back, target)


def find_matches_with_features(
    points: Float64,
    normals: Float64,
    features: Float32,
    target: Target,
    radius: float,
    cosine: float,
    reach: float,
) -> Matches:
    """Match as :func:`find_matches`, nearest in space and feature together, among the target's sample.

    ``features`` (S, C) unit rows; ``reach`` (in the unit of the points) is the distance that weighs as much as features
    differing by 1: lambda L. Of the samples within the radius the nearest dozen are compared.
    """
    if target.features is None:
        raise ValueError("the target has no features")
    moving = points, normals, features
    sampled = *target.sought, target.features
    found, back = (
        _nearest_alike(theirs, ours, radius, cosine, reach) for theirs, ours in ((sampled, moving), (moving, sampled))
    )
    return _joined(np.where(found >= 0, target.sample[found], -1), back, target)


def _nearest_alike(
    theirs: tuple[Float64, Float64, Float32],
    ours: tuple[Float64, Float64, Float32],
    radius: float,
    cosine: float,
    reach: float,
) -> Int64:
    """For each of ours the most alike of theirs, -1 where there is none; both are points, normals and features."""
    tree = cKDTree(theirs[0], balanced_tree=False)
    count = min(_COMPARED, tree.n)
    distance, found = tree.query(ours[0], k=np.arange(1, count + 1), distance_upper_bound=radius)
    usable = np.isfinite(distance)
    found = np.where(usable, found, 0)
    usable &= np.einsum("ski,si->sk", theirs[1][found], ours[1]) >= cosine
    likeness = np.einsum("skc,sc->sk", theirs[2][found], ours[2])
    cost = np.where(usable, distance, np.inf) ** 2 + reach**2 * (2 - 2 * likeness)
    rows, best = np.arange(len(cost)), cost.argmin(axis=1)
    return np.where(usable[rows, best], found[rows, best], -1)


def nearest_similar(
    tree: cKDTree, sides: Float64, points: Float64, normals: Float64, radius: float, cosine: float
) -> Int64:
    """For each of ``points`` (Q, 3) the nearest point of a tree on a similar ``side``, -1 where none is near.

    ``sides`` (N, 3) are the normals of the tree's points, ``normals`` (Q, 3) those of the query; ``cosine`` is the
    least product of the two. Only the few nearest points are tried.
    """
    # A bounded search marks what it does not find by an index past the end and an infinite distance.
    distance, found = tree.query(points, distance_upper_bound=radius)
    near = np.isfinite(distance)
    found = np.where(near, found, 0)
    similar = np.einsum("si,si->s", sides[found], normals) >= cosine
    nearest: Int64 = np.where(near & similar, found, -1)
    again = np.flatnonzero(near & ~similar)
    count = min(_CANDIDATES, tree.n)
    if len(again) and count > 1:  # most are content with the nearest: only the others ask for more
        distance, found = tree.query(points[again], k=np.arange(2, count + 1), distance_upper_bound=radius)
        usable = np.isfinite(distance)
        found = np.where(usable, found, 0)
        usable &= np.einsum("ski,si->sk", sides[found], normals[again]) >= cosine
        rows, first = np.arange(len(again)), usable.argmax(axis=1)
        nearest[again] = np.where(usable[rows, first], found[rows, first], -1)
    return nearest


def _joined(there: Int64, back: Int64, target: Target) -> Matches:
    """Both directions in one list: ``there`` gives target points by sample, ``back`` samples by seeking point."""
    seeking = target.sample
    if (loops := compiled_loops("matching")) is not None:
        surface = (np.ascontiguousarray(values, np.float64) for values in (target.points, target.normals))
        return Matches(*loops.joined(there, back, seeking, *surface))
    out, home = np.flatnonzero(there >= 0), np.flatnonzero(back >= 0)
    goal = np.concatenate((there[out], seeking[home]))
    return Matches(np.concatenate((out, back[home])), target.points[goal], target.normals[goal], len(out))
