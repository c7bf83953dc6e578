"""Other bodies that pass close to the subject or hide it, told from it by what the image before showed.

Within one image, a second person close by and an arm that the picture cuts off are the same: large parts near the
largest one. The image before tells them apart. A part as large as a body does not come out of nothing: if most of it
lies where the subject cannot have got to, it is another's. And of a subject behind somebody, a little may be all that
is left to see.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from nr_tracking.types import Bool, Float32, Float64

_BODY = 0.2  # of what was seen of the subject: so much beside it is a body of its own, and no arm
_GLIMPSE = 0.03  # of what was seen of the subject: less of it is not followed
_SAMPLES = 1000  # points by which it is told how much of a part is where the subject can be
_STEADY = 0.5  # of what is seen of the largest body: so much of one was seen before, and it is still the subject


@dataclass(frozen=True)
class Known:
    """What is known of the subject when the next image comes.

    It is within ``reach`` metres of points where it was seen, ``cloud`` (N, 3); ``area`` is what was seen of it lately
    at most, square metres across the view.
    """

    cloud: Float32
    reach: float
    area: float

    def holds(self, cloud: Float32) -> Bool:
        """Which points (N, 3) lie where the subject can be."""
        distance, _ = cKDTree(self.cloud, balanced_tree=False).query(cloud, distance_upper_bound=self.reach)
        inside: Bool = distance < np.inf
        return inside


def areas(cloud: Float32, part: NDArray[np.int32], count: int, pixel: float) -> Float64:
    """Square metres across the view of each part (count + 1,) of points (N, 3), ``part`` (N,); see :class:`Bodies`."""
    found = np.bincount(part, weights=cloud[:, 2].astype(np.float64) ** 2, minlength=count + 1)
    return pixel * found.astype(np.float64)


@dataclass(frozen=True)
class Bodies:
    """How large each part of an image is, and where it lies, (count + 1,) each."""

    area: Float64
    """Square metres across the view."""
    within: Float64
    """The share of it that is where the subject is known to be; 0 of specks."""

    @classmethod
    def of(cls, cloud: Float32, part: NDArray[np.int32], count: int, known: Known, pixel: float) -> Bodies:
        """Measure the parts of points (N, 3), ``part`` (N,); a pixel covers ``pixel`` square metres at one metre."""
        step = max(1, len(part) // _SAMPLES)
        sampled, inside = part[::step], known.holds(cloud[::step])
        sizes = np.maximum(np.bincount(sampled, minlength=count + 1), 1)
        within = np.bincount(sampled[inside], minlength=count + 1) / sizes
        return cls(areas(cloud, part, count, pixel), within)

    def subject(self, known: Known, barred: Bool) -> int | None:
        """The largest part that mostly is where the subject is known to be; None where another body is far larger."""
        area = np.where(barred, 0.0, self.area)
        area[0] = 0.0
        own = np.where(self.within > 0.5, area, 0.0)
        largest = int(own.argmax())
        if own[largest] < _GLIMPSE * known.area or max(own[largest], known.area) < _STEADY * area.max():
            return None
        return largest

    def is_among(self, some: Bool) -> bool:
        """Whether most of what is seen where the subject is known to be belongs to ``some`` parts (count + 1,)."""
        own = self.area * self.within
        return bool(own[some].sum() > _STEADY * own[1:].sum())

    def strangers(self, known: Known, chosen: int, barred: Bool) -> Bool:
        """Parts (count + 1,) that mostly are where the subject cannot be, if they are too much to be a part of it.

        Less may be a hand that comes out again.
        """
        outside = (self.within < 0.5) & ~barred
        outside[[0, chosen]] = False
        return outside & (self.area[outside].sum() >= _BODY * known.area)
