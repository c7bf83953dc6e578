"""Which connected parts of a depth image belong together with the chosen one, by default the largest.

A subject rarely is one connected region: an arm in front of the body is separated from it by a step in depth, and the
shadow of the projector cuts both apart. So parts near the largest one in space stay, and so does what stands in front
of it in the image: the joint of an arm stretched towards the camera is hidden behind its own hand. In a room this holds
over shorter distances, since furniture is near as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from nr_tracking.config import SubjectConfig
from nr_tracking.sensing.planes import depth_tolerance
from nr_tracking.types import Bool, Float32

_CANDIDATE_SHARE = 0.05  # of the largest part's pixels: specks are not chosen
_STEADY_SHARE = 0.5  # of the largest part: where the subject was before, so much of one is still it
_SAMPLES = 3000  # points by which the distance between parts is measured
_ON_SUPPORT = 3.0  # tolerances: what mostly lies below is left over from the support, or lies behind it
_ROOM_GAP_M = 0.2  # within which parts belong together in a room
_ROOM_REACH = (0.5, 1.5)  # but at least and at most these shares of the reach that they have outside
_OFF_CENTRE = 12.0  # a pixel at the middle of a side of the image weighs a twentieth of one at its centre


def keep_near_largest(
    depth: Float32,
    cloud: Float32,
    subject: Bool,
    config: SubjectConfig,
    heights: Float32 | None = None,
    place: Float32 | None = None,
) -> Bool:
    """Drop the parts of ``subject`` that stand apart from the largest one.

    Instead of the largest part it is the nearest one, or the one that comes nearest to ``point_m``, where ``choice``
    asks for that; parts of fewer than ``minimum_pixels``, or of a twentieth of the largest, are not chosen. The largest
    of the image before, about ``place`` (3,) metres, remains it until another one is twice as large: of two people who
    pass each other, one is followed.

    ``depth`` (H, W) in metres; ``subject`` (H, W) bool; ``cloud`` (N, 3) the points of its pixels, row by row, in
    metres; ``heights`` (N,) how far these stand before the supports of a room, None where there are none: see
    :func:`~nr_tracking.sensing.supports.heights_over_supports`. Parts are separated by missing depth and by steps above
    ``component_gap_m``, wider where depth is noisier. Within ``component_ratio`` times the subject's size (longest edge
    of its box) of the largest part they are kept; then once more around all that was kept, since what occludes a
    subject also tears it apart. Nearer parts that cover it in the image count by their distance across the view, and
    may stand ``occluder_ratio`` sizes before it. Where nothing is dropped, the result equals ``subject``.

    In a room, the largest part is the one that looms largest: near, and in the middle of the image. What lies on the
    supports or behind them is dropped, other parts are kept within 0.2 m (or half of ``component_ratio``, if that is
    more), and specks hold nothing together.
    """
    window = _bounds(subject)
    labels, count = connected_parts(np.ascontiguousarray(depth[window]), subject[window], config.component_gap_m)
    if count <= 1:
        return subject
    part = labels[subject[window]]
    pixels = np.bincount(part, minlength=count + 1)
    in_room = heights is not None
    # Area would weigh pixels by depth squared; of two equals the nearer one is the subject, so weigh them by depth.
    # Furniture is no equal.
    weights = _centrality(window, subject) / cloud[:, 2] ** 2 if in_room else cloud[:, 2]
    barred, stones = np.zeros(count + 1, bool), np.ones(count + 1, bool)
    if heights is not None:
        barred = _no_subject(heights, part, pixels, config.minimum_pixels)
        stones = ~barred & (pixels >= config.minimum_pixels)
    sizes = np.bincount(part, weights=weights, minlength=count + 1)
    largest = _chosen(cloud, part, np.where(barred, 0, sizes), config, place)

    sample = _sample(part, count)
    cloud, part = cloud[sample], part[sample]
    kept = np.zeros(count + 1, bool)
    kept[largest] = True
    kept |= (_near(cloud, part, kept, config, in_room) | _in_front(cloud, part, largest, count, config)) & stones
    if not kept[1:].all():
        kept |= _near(cloud, part, kept, config, in_room)
    kept &= ~barred
    if kept[1:].all():
        return subject
    kept[0] = False  # flying pixels, torn off on all sides: with clutter about, they may be the clutter's
    result = subject.copy()
    result[window] &= kept[labels]
    return result


def _no_subject(heights: Float32, part: NDArray[np.int32], pixels: NDArray[Any], least: int) -> Bool:
    """Parts (count + 1,) that are left over from a support or, where there is something before it, lie behind one."""
    below = np.bincount(part, weights=heights < _ON_SUPPORT, minlength=len(pixels)) > 0.5 * pixels
    behind = np.bincount(part, weights=heights < -_ON_SUPPORT, minlength=len(pixels)) > 0.5 * pixels
    below[0] = True
    return below if (pixels[~below] >= least).any() else below & ~behind


def _centrality(window: tuple[slice, slice], subject: Bool) -> NDArray[np.float64]:
    """Weights (N,) of the subject's pixels, row by row: 1 in the middle of the image, less towards its borders."""
    rows, columns = (np.exp(-_OFF_CENTRE * ((np.arange(length) + 0.5) / length - 0.5) ** 2) for length in subject.shape)
    return np.outer(rows[window[0]], columns[window[1]])[subject[window]]


def _chosen(
    cloud: Float32, part: NDArray[np.int32], sizes: NDArray[Any], config: SubjectConfig, place: Float32 | None
) -> int:
    """The part that everything else is measured by; ``sizes`` (count + 1,) are weighed pixels, 0 of what cannot be."""
    largest = int(sizes[1:].argmax()) + 1
    if config.choice == "largest":
        if place is None:
            return largest
        alike = sizes >= _STEADY_SHARE * sizes[largest]
        alike[0] = False
        return _nearest_to(place, cloud, part, alike)
    pixels = np.bincount(part, minlength=len(sizes))
    candidates = (pixels >= max(config.minimum_pixels, _CANDIDATE_SHARE * pixels[1:].max())) & (sizes > 0)
    candidates[0] = False
    if not candidates.any():
        return largest
    if config.choice == "clicked":
        return _nearest_to(np.array(config.point_m, np.float32), cloud, part, candidates)
    distance = _means(cloud[:, 2], part, len(sizes) - 1)
    return int(np.where(candidates, distance, np.inf).argmin())


def _nearest_to(place: Float32, cloud: Float32, part: NDArray[np.int32], candidates: Bool) -> int:
    """The part among ``candidates`` (count + 1,) that comes nearest to ``place`` (3,)."""
    if np.count_nonzero(candidates) == 1:
        return int(candidates.argmax())
    distance = np.full(len(candidates), np.inf)
    np.minimum.at(distance, part, np.linalg.norm(cloud - place, axis=1))
    return int(np.where(candidates, distance, np.inf).argmin())


def _bounds(subject: Bool) -> tuple[slice, slice]:
    """The window of the image outside which no pixel is True."""
    rows, columns = np.flatnonzero(subject.any(axis=1)), np.flatnonzero(subject.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def connected_parts(depth: Float32, subject: Bool, gap: float) -> tuple[NDArray[np.int32], int]:
    """Label the parts of ``subject`` (H, W) bool from 1: (H, W) int32 and their number.

    Steps in ``depth`` (H, W) metres of more than ``gap`` metres separate them, more where depth is noisier. Background
    is 0, and so are pixels with steps all around.
    """
    torn = np.zeros_like(subject)
    gaps = depth_tolerance(depth, gap)
    for near, far in neighbours():
        torn[far] |= subject[near] & (depth[far] - depth[near] > gaps[far])
    labels, count = ndimage.label(subject & ~torn)
    # The farther side of each step was taken out to cut the parts apart; give it back to the part it lies on.
    rows, columns = np.nonzero(torn)
    own, reach, given = depth[rows, columns], gaps[rows, columns], np.zeros(len(rows), np.int32)
    for down, right in ((0, -1), (0, 1), (-1, 0), (1, 0)):
        beside = (rows + down).clip(0, len(depth) - 1), (columns + right).clip(0, depth.shape[1] - 1)
        alike = (given == 0) & (np.abs(own - depth[beside]) <= reach)
        labels[rows, columns] = given = np.where(alike, labels[beside], given)
    labels[~subject] = 0
    return labels, int(count)


def neighbours() -> tuple[tuple[tuple[slice, slice], tuple[slice, slice]], ...]:
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


def _near(cloud: Float32, part: NDArray[np.int32], kept: Bool, config: SubjectConfig, in_room: bool) -> Bool:
    """Parts (count + 1,) that come within reach of the kept ones, and these."""
    inside = kept[part]
    reach = config.component_ratio * float(np.ptp(cloud[inside], axis=0).max())
    if in_room:
        reach = min(max(_ROOM_GAP_M, _ROOM_REACH[0] * reach), _ROOM_REACH[1] * reach)
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
