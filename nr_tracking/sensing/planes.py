"""Floors, walls and tables: large planes that a subject stands on or before, and that go on beyond it.

A flat subject is a plane too: a held cloth, a chest close to the camera. Four things tell a support from a subject. It
is flat rather than gently curved, nothing is seen behind it, it goes on beyond everything else, and something is left
when it is taken away.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nr_tracking.config import SubjectConfig
from nr_tracking.types import Bool, Float32, Int64

_SAMPLES = 3000  # pixels on which planes are judged; every third of them scores hypotheses
_HYPOTHESES = 400  # they all miss a plane that covers a fifth of the pixels with probability 0.04
_PLANES = 4  # a corner of a room has three
_BEHIND = 0.03  # largest share of pixels behind a support: reflections, flying pixels
_FLAT = 0.85  # of the points within three tolerances lie within one: a curved surface bends away gradually
_NOISE_DEPTH_M = 2.0  # beyond it the tolerance grows with the square of depth, as a depth camera's noise does
_BAND = 0.08  # of the image's size: as near to the border as some cameras ever measure
_COVERED = 0.25  # of a side of the image, for a plane to run out of the picture there
_ISLAND = 1.5  # extent of a plane over that of everything else, where it ends inside the image


@dataclass(frozen=True, eq=False)
class _Plane:
    """Points p with ``normal . p = offset``; the unit normal (3,) points away from the camera, so ``offset`` >= 0."""

    normal: Float32
    offset: float

    def heights(self, cloud: Float32) -> Float32:
        """Metres towards the camera, (N, 3) -> (N,)."""
        return np.float32(self.offset) - cloud @ self.normal


def beside_planes(cloud: Float32, pixels: Int64, shape: tuple[int, ...], config: SubjectConfig) -> Bool:
    """Which points (N, 3) in metres do not lie on planes that extend beyond the subject: (N,).

    ``pixels`` (N,) are their places, flat indices of an image of ``shape``, in order. A plane goes if it covers at
    least ``plane_fraction`` of the pixels, is flat, has hardly anything behind it, and either runs out of the picture
    on two sides or is 1.5 times as long and as wide as all the rest. The search is random with a fixed seed: equal
    input, equal result.
    """
    beside = np.ones(len(pixels), bool)
    if len(pixels) < config.minimum_pixels:
        return beside
    every = cloud
    chosen = np.linspace(0, len(pixels) - 1, min(len(pixels), _SAMPLES)).astype(np.int64)
    sample, cloud = pixels[chosen], every[chosen]
    tolerance = plane_tolerance(cloud[:, 2], config.plane_distance_m)
    planes = [
        (plane, heights)
        for plane in _find_planes(cloud, tolerance, config.plane_fraction)
        if _is_support(heights := plane.heights(cloud) / tolerance)
    ]
    removed: list[_Plane] = []
    rest = np.ones(len(sample), bool)
    least = config.minimum_pixels * len(sample) / len(pixels)
    while True:  # a floor may go beyond everything else only after the wall above it has gone
        for plane, heights in planes:
            inside = np.abs(heights) < 1
            others = rest & ~inside
            if plane in removed or others.sum() < least:
                continue
            if _leaves_picture(sample[inside], shape) or _dwarfs(cloud[inside], cloud[others]):
                removed.append(plane)
                rest = others
                break
        else:
            break
    for plane in removed:
        beside &= np.abs(plane.heights(every)) >= plane_tolerance(every[:, 2], config.plane_distance_m)
    return beside


def plane_tolerance(depth: Float32, near: float) -> Float32:
    """Metres from a plane within which a point at ``depth`` (...,) counts as part of it; ``near`` for near ones."""
    return np.float32(near) * np.maximum(1.0, (depth / np.float32(_NOISE_DEPTH_M)) ** 2)


def _find_planes(cloud: Float32, tolerance: Float32, fraction: float) -> list[_Plane]:
    """The largest planes of the cloud, one after the other, each fitted to what the ones before left over."""
    generator = np.random.default_rng(0)
    planes: list[_Plane] = []
    left = np.arange(len(cloud))
    while len(planes) < _PLANES and len(left) > max(3.0, fraction * len(cloud)):
        triangles = cloud[left[generator.integers(0, len(left), (_HYPOTHESES, 3))]]
        normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
        lengths = np.linalg.norm(normals, axis=1)
        proper = lengths > 1e-9
        if not proper.any():
            break
        normals = normals[proper] / lengths[proper, None]
        offsets = (normals * triangles[proper, 0]).sum(axis=1)
        scored = left[::3]
        heights = normals @ cloud[scored].T
        heights -= offsets[:, None]
        votes = np.count_nonzero(np.abs(heights, out=heights) < tolerance[scored], axis=1)
        best = int(votes.argmax())
        inside = left[np.abs(cloud[left] @ normals[best] - offsets[best]) < tolerance[left]]
        plane = _fitted(cloud[inside])
        inside = np.abs(plane.heights(cloud[left])) < tolerance[left]
        if inside.sum() < fraction * len(cloud):
            break
        planes.append(plane)
        left = left[~inside]
    return planes


def _fitted(cloud: Float32) -> _Plane:
    """Least-squares plane of (N, 3) points."""
    centre = cloud.mean(axis=0)
    _, axes = np.linalg.eigh((cloud - centre).T @ (cloud - centre))
    normal = axes[:, 0]
    offset = float(normal @ centre)
    return _Plane(normal, offset) if offset >= 0 else _Plane(-normal, -offset)


def _is_support(heights: Float32) -> bool:
    """Whether all points' heights (N,), in tolerances, leave a flat layer with hardly anything behind it."""
    layer = np.abs(heights) < 1
    return bool(layer.sum() >= _FLAT * (np.abs(heights) < 3).sum() and (heights < -3).mean() <= _BEHIND)


def _leaves_picture(pixels: Int64, shape: tuple[int, ...]) -> bool:
    """Whether pixels (flat indices) cover a good part of at least two sides of the image."""
    height, width = shape
    row, column = np.divmod(pixels, width)
    sides = (
        column[row < _BAND * height] / width,
        column[row >= (1 - _BAND) * height] / width,
        row[column < _BAND * width] / height,
        row[column >= (1 - _BAND) * width] / height,
    )
    bins = 20
    return sum(_share_of_bins(along, bins) >= _COVERED for along in sides) >= 2


def _share_of_bins(along: NDArray[np.float64], bins: int) -> float:
    return len(np.unique((along * bins).astype(np.int64))) / bins


def _dwarfs(plane: Float32, others: Float32) -> bool:
    """Whether a plane's points (N, 3) reach much farther along both of its axes than all ``others`` (M, 3)."""
    centre = plane.mean(axis=0)
    _, axes = np.linalg.eigh((plane - centre).T @ (plane - centre))
    lower, upper = np.percentile((plane - centre) @ axes[:, 1:], (2, 98), axis=0)
    extent = np.ptp((others - centre) @ axes[:, 1:], axis=0)
    return bool((upper - lower >= _ISLAND * extent).all())
