"""Parts of a room that are no planes: curtains, shelves, walls with a niche or a door, sofas along a wall.

Flat parts are taken away as supports. Of the others, what is longer than a person or most animals are and runs out of
the picture on two of its sides is the room as well.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from nr_tracking.sensing.background import COME, Change
from nr_tracking.sensing.passers import Bodies, Known
from nr_tracking.types import Bool, Float32, Float64, Int64

_BORDER = 0.08  # of the image's size: as near to the border as some cameras ever measure
_SHARE = 0.1  # of all pixels before the supports: a part of the room is large
_LONGEST_M = 2.8  # of the box of a subject: longer than people and most animals
_ENDS = (1.0, 99.0)  # percent of its points between which a part extends
_COVERED = 0.15  # of a side of the image, for a part to run out of the picture there
_SAMPLES = 3000  # points by which a part is measured
_STILL = 0.8  # of a part: where nothing else of it moves either
_BODY_M2 = 0.1  # across the view: what comes is no hand alone
_LONG_M = 1.9  # longer than people are tall: what holds still beside who sits on it may be furniture
_TOUCH_M = 0.2  # from it, at most, who sits on it or walks along it

Window = tuple[slice, slice]
"""Rows and columns of an image."""


def thinned(points: Float32, count: int) -> Float32:
    """Less than twice ``count`` of points (N, 3), evenly."""
    return points[:: max(1, len(points) // count)]


def longest_edge(points: Float32) -> float:
    """Longest edge of the box of points (N, 3), but for a hundredth of them at each end, metres."""
    lower, upper = np.percentile(points, _ENDS, axis=0)
    return float((upper - lower).max())


def is_long(points: Float32) -> bool:
    """Whether the box of points (N, 3) is longer than people are tall."""
    return longest_edge(points) >= _LONG_M


def parts_of_room(
    cloud: Float32,
    part: NDArray[np.int32],
    pixels: Int64,
    labels: NDArray[np.int32],
    window: Window,
    shape: tuple[int, ...],
) -> Bool:
    """Which parts (count + 1,) are too large for a subject, and run out of the picture on two sides.

    ``cloud`` (N, 3) metres and the ``part`` (N,) of each point; ``pixels`` (count + 1,) of each part; ``labels`` (h, w)
    are the parts in a ``window`` of the image of ``shape``.
    """
    found = np.zeros(len(pixels), bool)
    large = np.flatnonzero(pixels >= _SHARE * len(part))
    if not len(large):
        return found
    whole = np.zeros(shape, np.int32)
    whole[window] = labels
    high, wide = (max(int(_BORDER * side), 1) for side in shape)
    bands = whole[:high].T, whole[-high:].T, whole[:, :wide], whole[:, -wide:]
    for name in large[large > 0]:
        if longest_edge(thinned(cloud[part == name], _SAMPLES)) >= _LONGEST_M:
            found[name] = sum((band == name).any(axis=1).mean() >= _COVERED for band in bands) >= 2
    return found


class Movers(NamedTuple):
    """What the images before tell of the parts of one, (count + 1,) bool each."""

    moving: Bool
    """As large as a body, and some of it has come before what was there."""
    still: Bool
    """As large as a body, and has not moved; empty where nothing moves."""
    furniture: Bool
    """Still, and longer than any subject; or longer than people are, where what moves comes so close to it that one
    image does not tell them apart."""

    @classmethod
    def of(
        cls,
        cloud: Float32,
        part: NDArray[np.int32],
        pixels: Int64,
        area: Float64,
        change: Change,
        subject: Bool,
        barred: Bool,
        bodies: tuple[Known, Bodies] | None = None,
    ) -> Movers:
        """Judge the parts of points (N, 3) metres, ``part`` (N,), at the pixels of ``subject`` (H, W).

        They have so many ``pixels`` and square metres of ``area``; ``barred`` ones are none of it, (count + 1,) each.
        ``bodies`` tell which are pieces of the subject as it is known, which may be longer.
        """
        count, least = len(barred), np.maximum(pixels, 1)
        large = (area >= _BODY_M2) & ~barred
        large[0] = False
        moving = large & (np.bincount(part, weights=change.come[subject], minlength=count) >= COME * least)
        if not moving.any():
            return cls(moving, moving, moving)
        still = large & (np.bincount(part, weights=change.still[subject], minlength=count) >= _STILL * least)
        furniture, mover = np.zeros(count, bool), thinned(cloud[moving[part]], _SAMPLES)
        for name in np.flatnonzero(still):
            points = thinned(cloud[part == name], _SAMPLES)
            length = longest_edge(points)
            if bodies is not None and bodies[1].within[name] > 0.5:
                length = max(length, longest_edge(bodies[0].cloud))
            furniture[name] = length >= _LONGEST_M or (length >= _LONG_M and _apart(points, mover) <= _TOUCH_M)
        return cls(moving, still, furniture)


def _apart(points: Float32, others: Float32) -> float:
    """How far points (N, 3) stay from others (M, 3), metres."""
    distance, _ = cKDTree(others, balanced_tree=False).query(points)
    return float(distance.min())
