"""Which connected parts of a depth image belong together with the chosen one, by default the largest.

A subject rarely is one connected region: an arm in front of the body is separated from it by a step in depth, and the
shadow of the projector cuts both apart. So parts near the largest one in space stay, and so does what stands in front
of it in the image: the joint of an arm stretched towards the camera is hidden behind its own hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from nr_tracking.config import SubjectConfig
from nr_tracking.types import Bool, Float32

_CANDIDATE_SHARE = 0.05  # of the largest part's pixels: specks are not chosen
_SAMPLES = 3000  # points by which the distance between parts is measured


def keep_near_largest(depth: Float32, cloud: Float32, subject: Bool, config: SubjectConfig) -> Bool:
    """Drop the parts of ``subject`` that stand apart from the largest one.

    Instead of the largest part it is the nearest one, or the one that comes nearest to ``point_m``, where ``choice``
    asks for that; parts of fewer than ``minimum_pixels``, or of a twentieth of the largest, are not chosen.

    ``depth`` (H, W) in metres; ``subject`` (H, W) bool; ``cloud`` (N, 3) the points of its pixels, row by row, in
    metres. Parts are separated by missing depth and by steps above ``component_gap_m``. Within ``component_ratio``
    times the subject's size (longest edge of its box) of the largest part they are kept; then once more around all that
    was kept, since what occludes a subject also tears it apart. Nearer parts that cover it in the image count by their
    distance across the view, and may stand ``occluder_ratio`` sizes before it. Where nothing is dropped, the
    result equals ``subject``.
    """
    window = _bounds(subject)
    labels, count = _connected(np.ascontiguousarray(depth[window]), subject[window], config.component_gap_m)
    if count <= 1:
        return subject
    part = labels[subject[window]]
    # Area would weigh pixels by depth squared; of two equals the nearer one is the subject, so weigh them by depth.
    sizes = np.bincount(part, weights=cloud[:, 2], minlength=count + 1)
    largest = _chosen(cloud, part, sizes, config)

    sample = _sample(part, count)
    cloud, part = cloud[sample], part[sample]
    kept = np.zeros(count + 1, bool)
    kept[largest] = True
    kept |= _near(cloud, part, kept, config.component_ratio) | _in_front(cloud, part, largest, count, config)
    kept |= _near(cloud, part, kept, config.component_ratio)
    if kept[1:].all():
        return subject
    kept[0] = False  # flying pixels, torn off on all sides: with clutter about, they may be the clutter's
    result = subject.copy()
    result[window] &= kept[labels]
    return result


def _chosen(cloud: Float32, part: NDArray[np.int32], sizes: NDArray[Any], config: SubjectConfig) -> int:
    """The part that everything else is measured by; ``sizes`` (count + 1,) are pixels weighed by depth."""
    largest = int(sizes[1:].argmax()) + 1
    if config.choice == "largest":
        return largest
    pixels = np.bincount(part, minlength=len(sizes))
    candidates = (pixels >= max(config.minimum_pixels, _CANDIDATE_SHARE * pixels[1:].max())) & (sizes > 0)
    candidates[0] = False
    if not candidates.any():
        return largest
    if config.choice == "nearest":
        distance = _means(cloud[:, 2], part, len(sizes) - 1)
    else:
        distance = np.full(len(sizes), np.inf)
        np.minimum.at(distance, part, np.linalg.norm(cloud - np.array(config.point_m, np.float32), axis=1))
    return int(np.where(candidates, distance, np.inf).argmin())


def _bounds(subject: Bool) -> tuple[slice, slice]:
    """The window of the image outside which no pixel is True."""
    rows, columns = np.flatnonzero(subject.any(axis=1)), np.flatnonzero(subject.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _connected(depth: Float32, subject: Bool, gap: float) -> tuple[NDArray[np.int32], int]:
    """Label parts from 1: (H, W) int32 and their number. Background is 0, and so are pixels with steps all around."""
    torn = np.zeros_like(subject)
    for near, far in _neighbours():
        torn[far] |= subject[near] & (depth[far] - depth[near] > gap)
    labels, count = ndimage.label(subject & ~torn)
    # The farther side of each step was taken out to cut the parts apart; give it back to the part it lies on.
    for near, far in _neighbours():
        alike = torn[far] & (labels[far] == 0) & (np.abs(depth[far] - depth[near]) <= gap)
        labels[far] = np.where(alike, labels[near], labels[far])
    labels[~subject] = 0
    return labels, int(count)


def _neighbours() -> tuple[tuple[tuple[slice, slice], tuple[slice, slice]], ...]:
    """Pairs of windows of an image that lay each pixel over its left, right, upper and lower neighbour."""
    all_, first, last = slice(None), slice(None, -1), slice(1, None)
    return (
        ((all_, first), (all_, last)),
        ((all_, last), (all_, first)),
        ((first, all_), (last, all_)),
        ((last, all_), (first, all_)),
    )


def _sample(part: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """Indices of evenly thinned pixels, with at least one of every part."""
    first = np.zeros(count + 1, np.int64)
    first[part[::-1]] = np.arange(len(part))[::-1]
    return np.concatenate((np.arange(0, len(part), max(1, len(part) // _SAMPLES)), first[1:]))


def _near(cloud: Float32, part: NDArray[np.int32], kept: Bool, ratio: float) -> Bool:
    """Parts (count + 1,) that come within ``ratio`` sizes of the kept ones."""
    inside = kept[part]
    reach = ratio * np.ptp(cloud[inside], axis=0).max()
    distance, _ = cKDTree(cloud[inside], balanced_tree=False).query(cloud[~inside], distance_upper_bound=reach + 1e-6)
    near = kept.copy()
    near[part[~inside][distance <= reach]] = True
    return near


def _in_front(cloud: Float32, part: NDArray[np.int32], largest: int, count: int, config: SubjectConfig) -> Bool:
    """Parts (count + 1,) that stand before the largest one, and on or beside it in the image."""
    body = cloud[part == largest]
    size = np.ptp(body, axis=0).max()
    depth = np.median(body[:, 2])
    reach = 0.5 * config.component_ratio * size  # the shadow of a structured-light projector lies between them
    ahead = depth - _means(cloud[:, 2], part, count)
    candidate = (ahead > 0) & (ahead <= config.occluder_ratio * size)
    candidate[largest] = False
    asked = cloud[candidate[part]]
    tree = cKDTree(body[:, :2] / body[:, 2:] * depth, balanced_tree=False)
    distance, _ = tree.query(asked[:, :2] / asked[:, 2:] * depth, distance_upper_bound=reach + 1e-6)
    beside = np.zeros(count + 1, bool)
    beside[part[candidate[part]][distance <= reach]] = True
    return beside


def _means(values: Float32, part: NDArray[np.int32], count: int) -> NDArray[np.float64]:
    pixels = np.maximum(np.bincount(part, minlength=count + 1), 1)
    return np.bincount(part, weights=values, minlength=count + 1) / pixels
