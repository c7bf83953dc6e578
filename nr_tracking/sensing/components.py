"""Which connected parts of a depth image belong together with the chosen one, by default the largest.

A subject rarely is one connected region: an arm in front of the body is separated from it by a step in depth, and the
shadow of the projector cuts both apart. So parts near the largest one in space stay, and so does what stands in front
of it in the image, or behind it: the joint of an arm stretched towards the camera is hidden behind its own hand, the
hips of somebody who bends down towards it behind the chest. In a room this holds over shorter distances, and not for
what is behind, since furniture is near as well.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from nr_tracking.config import SubjectConfig
from nr_tracking.loops import compiled_loops
from nr_tracking.sensing.background import Change
from nr_tracking.sensing.passers import Bodies, Known, areas
from nr_tracking.sensing.planes import NOISE_DEPTH_M, depth_tolerance
from nr_tracking.sensing.walls import Movers, Window, parts_of_room
from nr_tracking.types import Bool, Float32, Float64, Int64

_CANDIDATE_SHARE = 0.05  # of the largest part's pixels: specks are not chosen
_STEADY_SHARE = 0.5  # of the largest part: where the subject was before, so much of one is still it
_SAMPLES = 3000  # points by which the distance between parts is measured
_ON_SUPPORT = 1.7  # tolerances: what mostly lies below is left over from the support, or lies behind it
_BEHIND_SUPPORT = -3.0  # tolerances: what mostly lies below is seen through a gap in the support
_MOST_LEFT = 0.5  # of what supports leave over: so much in one place is no speck of noise
_ROOM_GAP_M = 0.2  # within which parts belong together in a room
_ROOM_REACH = (0.5, 1.5)  # but at least and at most these shares of the reach that they have outside
_FOLLOWED_SHARE = 0.02  # of what supports leave over: beside so much else, a wall is no subject
_BEHIND = (2.0, 1.0)  # of ``occluder_ratio``, and metres at most: so far what an outline hides may reach behind it
_LEAST_M2 = 0.03**2  # across the view: in a room, what is smaller is a speck of noise, though near enough to loom
_OFF_CENTRE = 12.0  # a pixel at the middle of a side of the image weighs a twentieth of one at its centre


def keep_near_largest(
    depth: Float32,
    cloud: Float32,
    subject: Bool,
    config: SubjectConfig,
    heights: Float32 | None = None,
    place: Float32 | None = None,
    known: Known | None = None,
    pixel: float = 0.0,
    change: Change | None = None,
) -> Bool:
    """Drop the parts of ``subject`` that stand apart from the largest one.

    Instead of the largest part it is the nearest one, or the one that comes nearest to ``point_m``, where ``choice``
    asks for that; parts of fewer than ``minimum_pixels``, or of a twentieth of the largest, are not chosen. The largest
    of the image before, about ``place`` (3,) metres, remains it until another one is twice as large: of two people who
    pass each other, one is followed. What is ``known`` of it besides tells it from a body that hides it or comes close,
    see :mod:`~nr_tracking.sensing.passers`; a pixel covers ``pixel`` square metres at one metre.

    ``depth`` (H, W) in metres; ``subject`` (H, W) bool; ``cloud`` (N, 3) the points of its pixels, row by row, in
    metres; ``heights`` (N,) how far these stand before the supports of a room, None where there are none: see
    :func:`~nr_tracking.sensing.supports.heights_over_supports`. Parts are separated by missing depth and by steps above
    ``component_gap_m``, wider where depth is noisier. Within ``component_ratio`` times the subject's size (longest edge
    of its box) of the largest part they are kept; then once more around all that was kept, since what occludes a
    subject also tears it apart. Parts on or beside it in the image count by their distance across the view, and may
    stand ``occluder_ratio`` sizes before it or, outside a room, twice as many behind it, up to a metre. Where nothing
    is dropped, the result equals ``subject``. By the ``change`` since the images before, what holds still is no part of
    a body that moves, and furniture no subject beside one, see :class:`~nr_tracking.sensing.walls.Movers`; nor is what
    the background leads on to without a step.

    In a room, the largest part is the one that looms largest: near, and in the middle of the image. Where there is
    anything of 3 x 3 cm and ``minimum_pixels``, no speck is, unless it was clicked. What lies on the supports or behind
    them is dropped, and what is a part of the room itself, see :func:`~nr_tracking.sensing.walls.parts_of_room`, where
    there is something else; other parts are kept within 0.2 m (or half of ``component_ratio``, if that is more), and
    specks hold nothing together.
    """
    window = _bounds(subject)
    labels, count = connected_parts(depth, subject, config.component_gap_m, window)
    if count == 0 or (count == 1 and change is None):
        return subject
    part, tally = _tallied(labels, count, subject, window, cloud, heights)
    barred, stones = np.zeros(count + 1, bool), np.ones(count + 1, bool)
    specks = np.zeros(count + 1, bool)
    told = known if config.choice == "largest" else None
    bodies = None if told is None else (told, Bodies.of(cloud, part, count, told, pixel))
    if heights is not None or change is not None:
        area = areas(cloud, part, count, pixel) if bodies is None else bodies[1].area
    if heights is not None:
        barred = _no_subject(tally, config.minimum_pixels)
        room = parts_of_room(cloud, part, tally.pixels, labels, window, subject.shape)
        others = ~barred & ~room & (tally.pixels >= max(config.minimum_pixels, _FOLLOWED_SHARE * len(part)))
        if others.any():
            barred = barred | room
        stones = tally.pixels >= config.minimum_pixels
        specks = ~stones | (area < _LEAST_M2)
    if change is not None:
        barred = barred | _continued(labels, count, depth[window], change.background[window], config.component_gap_m)
    movers = None
    if change is not None:
        movers = Movers.of(cloud, part, tally.pixels, area, change, subject, barred, bodies)
    largest, barred = _main_part(cloud, part, tally.sizes, config, place, bodies, movers, barred, specks)
    kept = _gathered(cloud, part, tally.first, largest, stones & ~barred, config, heights is not None) & ~barred
    if kept[1:].all():
        return subject
    kept[0] = False  # flying pixels, torn off on all sides: with clutter about, they may be the clutter's
    if (loops := compiled_loops("parts")) is not None:
        only: Bool = loops.only(subject, labels, kept, window[0].start, window[1].start)
        return only
    result = subject.copy()
    result[window] &= kept[labels]
    return result


class _Tally(NamedTuple):
    """What the pixels of each part come to, (count + 1,) each: their number, the first one, and weights.

    With supports about also how many of them lie on or below a support, and how many below one.
    """

    pixels: Int64
    first: Int64
    sizes: Float64
    below: Int64
    behind: Int64


def _tallied(
    labels: NDArray[np.int32], count: int, subject: Bool, window: Window, cloud: Float32, heights: Float32 | None
) -> tuple[NDArray[np.int32], _Tally]:
    """The part of each of the subject's pixels (N,), row by row, and what those of each part come to.

    Area would weigh pixels by depth squared; of two equals the nearer one is the subject, so they are weighed by depth.
    Furniture is no equal: in a room they are weighed as they fill the middle of the image.
    """
    above = np.empty(0, np.float32) if heights is None else heights
    levels = _ON_SUPPORT, _BEHIND_SUPPORT
    centrality = [np.exp(-_OFF_CENTRE * ((np.arange(side) + 0.5) / side - 0.5) ** 2) for side in subject.shape]
    if (loops := compiled_loops("parts")) is not None:
        top, left = window[0].start, window[1].start
        part, *tally = loops.tallied(labels, subject, top, left, count, cloud, above, *levels, *centrality)
        return part, _Tally(*tally)
    part = labels[subject[window]]
    first = np.zeros(count + 1, np.int64)
    first[part[::-1]] = np.arange(len(part))[::-1]
    weights = cloud[:, 2].astype(np.float64)
    if heights is not None:
        rows, columns = (share[side] for share, side in zip(centrality, window, strict=True))
        weights = np.outer(rows, columns)[subject[window]] / weights**2
    pixels = np.bincount(part, minlength=count + 1)
    sizes = np.bincount(part, weights=weights, minlength=count + 1).astype(np.float64)
    low, lower = (part[: len(above)][above < level] for level in levels)
    sunk = (np.bincount(some, minlength=count + 1) for some in (low, lower))
    return part, _Tally(pixels, first, sizes, *sunk)


def _gathered(
    cloud: Float32,
    part: NDArray[np.int32],
    first: Int64,
    largest: int,
    stones: Bool,
    config: SubjectConfig,
    in_room: bool,
) -> Bool:
    """Parts (count + 1,) that belong to the largest one; only ``stones`` (count + 1,) join further parts to it."""
    if (loops := compiled_loops("gathering")) is not None:
        room = np.array((_ROOM_GAP_M, *_ROOM_REACH) if in_room else ())
        ratios = config.component_ratio, config.occluder_ratio, _BEHIND
        found: Bool = loops.gathered(cloud, part, first, _SAMPLES, largest, stones, *ratios, room)
        return found
    sample = np.concatenate((np.arange(0, len(part), max(1, len(part) // _SAMPLES)), first[1:]))
    cloud, part, count = cloud[sample], part[sample], len(first) - 1
    kept = np.zeros(count + 1, bool)
    kept[largest] = True
    kept |= (_near(cloud, part, kept, config, in_room) | _across(cloud, part, largest, count, config, in_room)) & stones
    if not kept[1:].all():
        kept |= _near(cloud, part, kept, config, in_room)
    return kept


def _no_subject(tally: _Tally, least: int) -> Bool:
    """Parts (count + 1,) that are left over from a support or, where there is something before it, lie behind one.

    Where nothing stands higher, what is most of the rest is a hand or a cloth that lies on it: specks beside it, which
    are there or not, do not decide whether it is a subject.
    """
    below, behind = tally.below > 0.5 * tally.pixels, tally.behind > 0.5 * tally.pixels
    below[0] = True
    if (tally.pixels[~below] >= least).any():
        return below
    low = np.where(behind, 0, tally.pixels)
    flat = low >= max(least, _MOST_LEFT * low.sum())
    flat[0] = False
    return ~flat if flat.any() else below & ~behind


def _main_part(
    cloud: Float32,
    part: NDArray[np.int32],
    sizes: Float64,
    config: SubjectConfig,
    place: Float32 | None,
    bodies: tuple[Known, Bodies] | None,
    movers: Movers | None,
    barred: Bool,
    specks: Bool,
) -> tuple[int, Bool]:
    """The part of (N,) that everything else is measured by, and which (count + 1,) beside the ``barred`` ones are none.

    ``bodies`` are what is known of a subject that is told from others, and the bodies of this image. ``specks``
    (count + 1,) are chosen only where there is nothing else, or one was clicked.
    """
    if movers is not None and config.choice == "largest":
        barred = barred | movers.furniture
        if movers.furniture.any() and (bodies is None or bodies[1].is_among(movers.furniture)):
            sizes, place, bodies = np.where(movers.moving, sizes, 0), None, None  # the subject never was one
    sizes = np.where(barred, 0, sizes)
    if config.choice != "clicked" and (sizes[~specks] > 0).any():
        sizes = np.where(specks, 0, sizes)
    largest = _chosen(cloud, part, sizes, config, place)
    if bodies is not None and (own := bodies[1].subject(bodies[0], barred)) is not None:
        largest, barred = own, barred | bodies[1].strangers(bodies[0], own, barred)
    if movers is not None and movers.moving[largest]:
        barred = barred | movers.still
    return largest, barred


def _continued(labels: NDArray[np.int32], count: int, depth: Float32, background: Bool, gap: float) -> Bool:
    """Parts (count + 1,) that the background leads on to, without a step, along most of their edge.

    Somebody who stood before it has left them. All images are (h, w).
    """
    if (loops := compiled_loops("parts")) is not None:
        images = np.ascontiguousarray(depth, np.float32), np.ascontiguousarray(background)
        on, edges = loops.continued(labels, *images, count, gap, NOISE_DEPTH_M)
    else:
        on, edges = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
        for one, other in neighbours():
            edge = (labels[one] > 0) & (labels[other] != labels[one]) & (depth[other] > 0)
            deeper = np.maximum(depth[one], depth[other])
            lead = edge & background[other] & (np.abs(depth[one] - depth[other]) <= depth_tolerance(deeper, gap))
            edges += np.bincount(labels[one][edge], minlength=count + 1)
            on += np.bincount(labels[one][lead], minlength=count + 1)
    found: Bool = on > 0.5 * edges
    return found


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
    """The part among ``candidates`` (count + 1,) that comes nearest to ``place`` (3,), the first if it is no number."""
    if np.count_nonzero(candidates) == 1:
        return int(candidates.argmax())
    if (loops := compiled_loops("parts")) is not None:
        return int(loops.nearest_to(np.asarray(place, np.float32), cloud, part, candidates))
    distance, names = np.full(len(candidates), np.inf), np.flatnonzero(candidates)
    np.fmin.at(distance, part, np.linalg.norm(cloud - np.asarray(place, np.float64), axis=1))
    return int(names[distance[names].argmin()])


def _bounds(subject: Bool) -> Window:
    """The window of the image outside which no pixel is True."""
    rows, columns = np.flatnonzero(subject.any(axis=1)), np.flatnonzero(subject.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def connected_parts(
    depth: Float32, subject: Bool, gap: float, window: Window | None = None
) -> tuple[NDArray[np.int32], int]:
    """Label the parts of ``subject`` (H, W) bool in a ``window`` (h, w) from 1: (h, w) int32 and their number.

    Steps in ``depth`` (H, W) metres of more than ``gap`` metres separate them, more where depth is noisier. Background
    is 0, and so are pixels with steps all around. The window is the whole image unless it is given.
    """
    rows, columns = window or (slice(0, subject.shape[0]), slice(0, subject.shape[1]))
    if (loops := compiled_loops("parts")) is not None:
        images = np.ascontiguousarray(depth, np.float32), np.ascontiguousarray(subject)
        places = rows.start, rows.stop, columns.start, columns.stop
        found: tuple[NDArray[np.int32], int] = loops.connected(*images, *places, gap, NOISE_DEPTH_M)
        return found
    return _connected(np.ascontiguousarray(depth[rows, columns]), subject[rows, columns], gap)


def _connected(depth: Float32, subject: Bool, gap: float) -> tuple[NDArray[np.int32], int]:
    """Those of the whole of an image."""
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


def _across(
    cloud: Float32, part: NDArray[np.int32], largest: int, count: int, config: SubjectConfig, in_room: bool
) -> Bool:
    """Parts (count + 1,) on or beside the largest one in the image, before it or, outside a room, behind it."""
    body = cloud[part == largest]
    size = np.ptp(body, axis=0).max()
    depth = np.median(body[:, 2])
    reach = 0.5 * config.component_ratio * size  # the shadow of a structured-light projector lies between them
    ahead, most = depth - _means(cloud[:, 2], part, count), config.occluder_ratio * size
    candidate = (ahead > 0) & (ahead <= most)
    if not in_room:
        candidate |= (ahead < 0) & (-ahead <= min(_BEHIND[0] * most, _BEHIND[1]))
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
