"""Floors, walls and tables: large planes that a subject stands on or before, and that go on beyond it.

A flat subject is a plane too: a held cloth, a chest close to the camera. Four things tell a support from a subject. It
is flat or at most gently bent, little is seen behind it, it goes on beyond everything else, and something is left when
it is taken away. Where there is one support there is a room, and smaller ones are believed sooner.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nr_tracking.config import SubjectConfig
from nr_tracking.loops import compiled_loops
from nr_tracking.sensing.planes import Plane, depth_tolerance, find_planes, heights_over
from nr_tracking.types import Bool, Float32, InputError, Int64

_SAMPLES = 3000  # pixels on which planes are judged
_FURTHER = 0.25  # of ``plane_fraction`` is enough for further supports
_BEHIND = 0.03  # largest share of pixels behind an island: reflections, flying pixels
_BEYOND = 0.35  # and behind a support that runs out of the picture: the floor beyond a table, the room beyond a door
_FLAT = 0.85  # of the points within three tolerances lie within one: a curved surface bends away gradually
_BAND = 0.08  # of the image's size: as near to the border as some cameras ever measure
_COVERED = 0.25  # of a side of the image, for a plane to run out of the picture there
_ISLAND = 1.5  # extent of a plane over that of everything else, where it ends inside the image
_BROAD = 10.0  # tolerances that it is wide then: narrower, a body far away is flat for all that is known
_ENDS = (2.0, 98.0)  # percent of its points between which a plane extends
_BINS = 20  # that a side of the image is cut into
_ALONE = 0.97  # of all points lie about a plane that is all there is to see
_WIDE = 20.0  # tolerances that it is wide at least: a chest that fills the picture from nearby is as flat
_VAST = 40.0  # tolerances: so wide, with nothing behind it, a plane is a floor although furniture hides its sides
_SCENE = 0.2  # of all points, that stand on it then
_FLAT_FIRST = 0.82  # of the first support, which is the largest plane of all: real tables scatter about 0.865
_HIDDEN = 0.6  # of ``plane_fraction`` is enough for a vast plane that hides nothing: a floor full of people
_ROUGH = 0.75  # as ``_FLAT``, of what nothing lies behind: depth of real floors and walls scatters about 0.85
_NO_BOX = SubjectConfig()


class _Candidate(NamedTuple):
    """A plane, how far all points stand before it, in tolerances, and where it leaves the picture."""

    plane: Plane
    heights: Float32
    sides: int
    """Of the image, on which it does."""
    width: float
    """Across its shorter axis, in tolerances."""
    large: bool
    """Whether it covers so much of the image as a first support does."""


def heights_over_supports(
    cloud: Float32, pixels: Int64, shape: tuple[int, ...], config: SubjectConfig, noise_depth: float
) -> Float32 | None:
    """How far points (N, 3) in metres stand before the supports of the subject: (N,), None where there are none.

    In tolerances (``plane_distance_m``, more where depth is noisier), the least over all supports: from -1 to 1 a point
    lies on one, below -1 behind one. ``pixels`` (N,) are their places, flat indices of an image of ``shape``, in order.
    The noise is measured in the image, so that a noisy camera's walls are as flat as others.

    A plane is a support if it covers at least ``plane_fraction`` of the pixels, is flat, and either runs out of the
    picture on two sides with not much behind it, or is 1.5 times as long and as wide as all before it, and ten
    tolerances wide, with nothing behind it; or if it is forty tolerances wide, with nothing behind it and a fifth of
    all points before it, and runs out on one side: a floor whose other sides furniture hides. Where one was found,
    smaller planes that run out of the picture on one side are supports too, and nothing need be left. Six tenths of
    ``plane_fraction`` are enough for one forty tolerances wide that runs out on two sides with nothing behind it.
    What nothing at all lies behind may scatter more: floors and walls as cameras see them are not flat. The search
    is random with a fixed seed: equal input, equal result.

    Raises InputError ``no_subject`` where one plane is all there is, runs out of the picture on three sides, and no
    region box says that it is meant.
    """
    if len(pixels) < config.minimum_pixels:
        return None
    chosen = np.linspace(0, len(pixels) - 1, min(len(pixels), _SAMPLES)).astype(np.int64)
    tolerance = depth_tolerance(cloud[chosen, 2], config.plane_distance_m, noise_depth)
    supports = _find_supports(cloud[chosen], tolerance, pixels[chosen], shape, config, len(chosen) / len(pixels))
    if not supports:
        return None
    return heights_over(cloud, supports, config.plane_distance_m, noise_depth)


def _find_supports(
    cloud: Float32,
    tolerance: Float32,
    pixels: Int64,
    shape: tuple[int, ...],
    config: SubjectConfig,
    sampled: float,
) -> list[Plane]:
    """The supports among evenly thinned points (N, 3), a share ``sampled`` of all, with a ``tolerance`` (N,) each."""
    candidates: list[_Candidate] = []
    supports: list[Plane] = []
    rest, least = np.ones(len(cloud), bool), config.minimum_pixels * sampled
    smallest = _HIDDEN * config.plane_fraction
    for plane, heights in find_planes(cloud, tolerance, smallest, _FURTHER * config.plane_fraction):
        share = float(np.count_nonzero(np.abs(heights) < 1) / len(cloud))
        if not supports and share < config.plane_fraction:
            rest = _extend(supports, rest, candidates, cloud, least)
            if not supports and share < smallest:
                return []  # no room: smaller planes would be parts of the subject, and take time to find
        sides, width = _sides_left(pixels, heights, shape), _width(cloud, heights, tolerance)
        candidates.append(_Candidate(plane, heights, sides, width, share >= config.plane_fraction))
        if len(candidates) == 1 and not _boxed(config) and _is_all(candidates[0], least):
            raise InputError(
                "no_subject",
                "only a wall or a floor: one plane is all there is to see; a mask, or subject.region_min_m and "
                "subject.region_max_m around it, if it is meant",
            )
    _extend(supports, rest, candidates, cloud, least)
    return supports


def _extend(supports: list[Plane], rest: Bool, candidates: list[_Candidate], cloud: Float32, least: float) -> Bool:
    """Add to ``supports`` those of ``candidates`` that go on beyond the points at ``rest`` (N,); what is left of these.

    The first one leaves ``least`` points at least.
    """
    while True:  # a floor may go beyond everything else only after the wall above it has gone
        for candidate in candidates:
            if candidate.plane not in supports and _goes_on(candidate, rest, cloud, least, further=bool(supports)):
                supports.append(candidate.plane)
                rest = rest & (candidate.heights >= 1)
                break
        else:
            return rest


def _goes_on(candidate: _Candidate, rest: Bool, cloud: Float32, least: float, further: bool) -> bool:
    """Whether a plane goes on beyond the points at ``rest`` (N,), with no more behind it than a support has.

    Unless it is a ``further`` one, it leaves ``least`` points.
    """
    heights, sides = candidate.heights, candidate.sides
    on, about, behind, before = _layers(heights, rest)
    if not further and before < least:
        return False
    whole = np.count_nonzero(rest)
    vast, last = candidate.width >= _VAST, behind <= _BEHIND * whole
    if not further and not candidate.large and not (vast and last and sides >= 2):
        return False
    open_floor = sides >= 1 and vast and last and before >= _SCENE * whole
    enough = sides >= (1 if further else 2) or open_floor
    if not enough and not (candidate.width >= _BROAD and _dwarfs(cloud, heights, rest)):
        return False
    # Of all that is seen, not of the rest alone: a horse before a wall that has gone is no second wall.
    farthest = np.count_nonzero(heights < -3) <= _BEHIND * len(heights)
    rough = farthest and (vast or (further and sides >= 2))
    flat = _ROUGH if rough else _FLAT if further else _FLAT_FIRST
    return bool(on >= flat * about and (last or (sides >= 2 and behind <= _BEYOND * whole)))


def _boxed(config: SubjectConfig) -> bool:
    """Whether a region box was set."""
    return (config.region_min_m, config.region_max_m) != (_NO_BOX.region_min_m, _NO_BOX.region_max_m)


def _is_all(candidate: _Candidate, least: float) -> bool:
    """Whether a wall or a floor is all there is to see: fewer than ``least`` points stand before it.

    A sheet that is held up, or lies on a bed, ends inside the picture.
    """
    heights = candidate.heights
    on, about, _, before = _layers(heights, np.ones(len(heights), bool))
    reaches = candidate.sides >= 3 and candidate.width >= _WIDE
    return bool(reaches and before < least and about >= _ALONE * len(heights) and on >= _FLAT * about)


def _width(cloud: Float32, heights: Float32, tolerance: Float32) -> float:
    """How wide the points (N, 3) on a plane lie across its shorter axis, in tolerances (N,)."""
    on = np.abs(heights) < 1
    if not on.any():
        return 0.0
    plane = cloud[on] - cloud[on].mean(axis=0)
    _, axes = np.linalg.eigh(plane.T @ plane)
    lower, upper = np.percentile(plane @ axes[:, 1:], _ENDS, axis=0)
    return float((upper - lower).min() / np.median(tolerance[on]))


def _layers(heights: Float32, rest: Bool) -> tuple[int, int, int, int]:
    """How many points at ``rest`` (N,) lie on a plane, about it, behind it and before it, by ``heights`` (N,)."""
    if (loops := compiled_loops("supports")) is not None:
        found: tuple[int, int, int, int] = loops.layers(heights, rest)
        return found
    heights = heights[rest]
    distance = np.abs(heights)
    on, about, behind, before = (int(layer.sum()) for layer in (distance < 1, distance < 3, heights < -3, heights >= 1))
    return on, about, behind, before


def _sides_left(pixels: Int64, heights: Float32, shape: tuple[int, ...]) -> int:
    """On how many sides of the image those ``pixels`` (N,), flat indices, that lie on a plane cover a good part of it.

    ``heights`` (N,) are theirs above the plane.
    """
    height, width = shape
    if (loops := compiled_loops("supports")) is not None:
        return int(loops.sides_left(pixels, heights, height, width, _BAND, _BINS, _COVERED))
    row, column = np.divmod(pixels[np.abs(heights) < 1], width)
    sides = (
        column[row < _BAND * height] / width,
        column[row >= (1 - _BAND) * height] / width,
        row[column < _BAND * width] / height,
        row[column >= (1 - _BAND) * width] / height,
    )
    return sum(_share_of_bins(along, _BINS) >= _COVERED for along in sides)


def _share_of_bins(along: NDArray[np.float64], bins: int) -> float:
    return len(np.unique((along * bins).astype(np.int64))) / bins


def _dwarfs(cloud: Float32, heights: Float32, rest: Bool) -> bool:
    """Whether the points (N, 3) on a plane reach much farther along both of its axes than all at ``rest`` before it."""
    if (loops := compiled_loops("supports")) is not None:
        return bool(loops.dwarfs(cloud, heights, rest, _ISLAND, np.array(_ENDS)))
    plane, others = cloud[np.abs(heights) < 1], cloud[rest & (heights >= 1)]
    if not len(plane) or not len(others):
        return False
    centre = plane.mean(axis=0)
    _, axes = np.linalg.eigh((plane - centre).T @ (plane - centre))
    lower, upper = np.percentile((plane - centre) @ axes[:, 1:], _ENDS, axis=0)
    extent = np.ptp((others - centre) @ axes[:, 1:], axis=0)
    return bool((upper - lower >= _ISLAND * extent).all())
