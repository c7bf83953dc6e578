"""Which pixels of a depth image belong to the subject."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from nr_tracking.config import SubjectConfig
from nr_tracking.loops import compiled_loops
from nr_tracking.sensing.background import BackgroundModel, Change
from nr_tracking.sensing.camera import pixel_rays, points_at, thinned_points
from nr_tracking.sensing.components import keep_near_largest
from nr_tracking.sensing.passers import Known
from nr_tracking.sensing.planes import noise_depth_of
from nr_tracking.sensing.spill import without_spill
from nr_tracking.sensing.supports import heights_over_supports
from nr_tracking.sensing.walls import is_long
from nr_tracking.types import Bool, DepthFrame, Float32, InputError, Int64

_FARTHEST_M = 100.0  # no depth camera sees so far: in the middle of an image, it is another unit
_NEAREST_M = 0.02  # nor one so near
_SAMPLES = 2000  # points by which a subject is measured
_RISEN = 2.0  # tolerances that what came before the background stands over supports at least
_ALL_KNOWN = 0.8  # of the pixels: where so many show the background, there is no subject among them


def find_subject(
    frame: DepthFrame,
    config: SubjectConfig,
    place: Float32 | None = None,
    known: Known | None = None,
    background: BackgroundModel | None = None,
) -> Bool:
    """The subject's pixels, (H, W) bool, all of them with depth.

    Depth range and region box always hold. Within them a mask that comes with the frame is taken at its word, but for
    background along its outline; without one, planes that extend beyond the subject are removed, then whatever stands
    apart from its largest part, or from the one that ``choice`` names. Depth that shows nothing but the subject passes
    untouched. ``place`` (3,), metres: where the subject was in the image before, so that it is not another one that is
    a little larger now. What is ``known`` of it besides tells it from others that come close to it. What the
    ``background`` model knows is no part of it, and the model learns from this image.

    Raises InputError ``no_subject`` where fewer than ``minimum_pixels`` are left, and says what took them.
    """
    if background is not None and (frame.mask is not None or not config.learn_background):
        background.forget()  # it would be out of date when it is asked again
        background = None
    if frame.mask is not None:
        return _under_mask(frame, frame.mask, config)
    pixels, cloud = _in_range(frame, config)
    shape = frame.depth.shape
    noise_depth = noise_depth_of(cloud, pixels, shape[1], config.plane_distance_m)
    heights = heights_over_supports(cloud, pixels, shape, config, noise_depth) if config.remove_plane else None
    seen = _Seen(frame, pixels, cloud, heights)
    if background is None:
        return _among(seen, config, place, known)
    tolerance = config.plane_distance_m, noise_depth
    looked = replace(frame, depth=_only(frame.depth, pixels))
    change, subject = background.change(looked, *tolerance), None
    try:
        subject = _among(seen, config, place, known, change)
    except InputError:
        if change is None or _is_known(change, pixels, config):
            raise
        found = _among(seen, config, place, known)  # whoever held still may have been learnt
        if is_long(thinned_points(found, frame.depth, frame.intrinsics, _SAMPLES)):
            raise  # furniture
        subject = found
    finally:
        moves = change is not None and subject is not None and change.moves(subject)
        background.learn(looked, subject, *tolerance, moves)
    return subject


class _Seen(NamedTuple):
    """A frame without a mask, and what of it may be the subject."""

    frame: DepthFrame
    pixels: Int64
    cloud: Float32
    heights: Float32 | None
    """Over supports (N,); None where there are none."""


def _is_known(change: Change, pixels: Int64, config: SubjectConfig) -> bool:
    """Whether nearly all ``pixels`` (N,) show the background, so that nobody is there.

    Who is asked for by a click, or is to be the nearest one, may be a part of it.
    """
    return config.choice == "largest" and bool(change.background.reshape(-1)[pixels].mean() >= _ALL_KNOWN)


def _only(depth: Float32, pixels: Int64) -> Float32:
    """The image (H, W) with depth at ``pixels`` (N,) alone."""
    only = np.zeros_like(depth)
    only.reshape(-1)[pixels] = depth.reshape(-1)[pixels]
    return only


def _under_mask(frame: DepthFrame, mask: Bool, config: SubjectConfig) -> Bool:
    """The subject of a frame that comes with a mask (H, W), see :func:`find_subject`."""
    pixels, _ = _in_range(frame, config)
    subject = _at(pixels, frame.depth.shape) & mask
    _require(int(np.count_nonzero(subject)), config, "under the mask")
    subject = without_spill(frame.depth, subject, config)
    _require(int(np.count_nonzero(subject)), config, "under the mask, without the background along its outline,")
    return subject


def _among(
    seen: _Seen, config: SubjectConfig, place: Float32 | None, known: Known | None, change: Change | None = None
) -> Bool:
    """The subject among all that is seen; ``change`` says what of it was there before."""
    frame, pixels, cloud, heights = seen
    depth = frame.depth
    if change is not None:
        pixels, cloud, heights = _before_background(pixels, cloud, heights, change)
        _require(len(cloud), config, "before the background that was learnt")
    if heights is None:
        subject = _at(pixels, depth.shape)
    else:
        cloud, heights, subject = _apart(cloud, pixels, heights, depth.shape)
    _require(len(cloud), config, "apart from large planes (remove_plane)")
    subject = keep_near_largest(
        depth, cloud, subject, config, heights, place, known, 1 / (frame.intrinsics.fx * frame.intrinsics.fy), change
    )
    where = "in one place" if heights is None else "in one place apart from floors, walls and tables (remove_plane)"
    _require(int(np.count_nonzero(subject)), config, where)
    return subject


def _before_background(
    pixels: Int64, cloud: Float32, heights: Float32 | None, change: Change
) -> tuple[Int64, Float32, Float32 | None]:
    """The pixels (M,), points (M, 3) and heights over supports (M,) of those (N,) that are not the background.

    What has come before it is no support, however low it lies.
    """
    kept = np.flatnonzero(~change.background.reshape(-1)[pixels])
    if heights is not None:
        come = change.come.reshape(-1)[pixels]
        heights = np.where(come, np.maximum(heights, np.float32(_RISEN)), heights)[kept]
    return pixels[kept], cloud.take(kept, axis=0), heights


def _in_range(frame: DepthFrame, config: SubjectConfig) -> tuple[Int64, Float32]:
    """Pixels (N,), flat indices, and points (N, 3) in the range of depth and in the region box, enough for a subject.

    Raises InputError ``no_subject``.
    """
    depth = frame.depth
    pixels, cloud, in_range = _within(frame, config)
    if in_range < config.minimum_pixels:
        where = f"within {config.depth_min_m} to {config.depth_max_m} m of depth"
        _require(in_range, config, where, f": {extent_of_depth(depth)}" if (depth > 0).any() else "")
    _require(len(pixels), config, f"in the region box {config.region_min_m} to {config.region_max_m}")
    return pixels, cloud


def _within(frame: DepthFrame, config: SubjectConfig) -> tuple[Int64, Float32, int]:
    """Pixels (N,), flat indices, and points (N, 3) in the range of depth and in the region box; how many in the range.

    Points at 0, which a lens model does not reach, are in no box.
    """
    depth, nearest, farthest = frame.depth, config.depth_min_m, config.depth_max_m
    if (loops := compiled_loops("clouds")) is not None:
        flat, rays = np.ascontiguousarray(depth, np.float32).reshape(-1), pixel_rays(frame.intrinsics)
        box = (np.array(corner, np.float32) for corner in (config.region_min_m, config.region_max_m))
        found: tuple[Int64, Float32, int] = loops.points_within(flat, rays, nearest, farthest, *box)
        return found
    pixels = np.flatnonzero((depth >= nearest) & (depth <= farthest) & (depth > 0))
    cloud = points_at(pixels, depth, frame.intrinsics)
    inside = cloud[:, 2] > 0
    for axis, (lower, upper) in enumerate(zip(config.region_min_m, config.region_max_m, strict=True)):
        inside &= (cloud[:, axis] >= lower) & (cloud[:, axis] <= upper)
    kept = np.flatnonzero(inside)
    if len(kept) == len(pixels):  # what is thrown away is not much, as a rule, but copying the rest takes time
        return pixels, cloud, len(pixels)
    return pixels[kept], cloud.take(kept, axis=0), len(pixels)


def _apart(cloud: Float32, pixels: Int64, heights: Float32, shape: tuple[int, ...]) -> tuple[Float32, Float32, Bool]:
    """Points (M, 3) that do not lie on supports, their heights (M,), and the image (H, W) that is True at them."""
    if (loops := compiled_loops("clouds")) is not None:
        points, above, flat = loops.points_apart(cloud, pixels, heights, shape[0] * shape[1])
        return points, above, flat.reshape(shape)
    kept = np.flatnonzero(np.abs(heights) >= 1)
    return cloud.take(kept, axis=0), heights[kept], _at(pixels[kept], shape)


def _at(pixels: Int64, shape: tuple[int, ...]) -> Bool:
    """The image of ``shape`` that is True at ``pixels`` (N,), flat indices."""
    image = np.zeros(shape, bool)
    image.reshape(-1)[pixels] = True
    return image


def _require(count: int, config: SubjectConfig, where: str, more: str = "") -> None:
    if count < config.minimum_pixels:
        raise InputError(
            "no_subject",
            f"only {count} pixels with depth {where}, and a subject has at least {config.minimum_pixels}"
            f" (settings of section subject){more}",
        )


def extent_of_depth(depth: Float32) -> str:
    """Where an image (H, W) of metres, some of them positive, has its depth; which unit it is in, if not in metres."""
    measured = depth[depth > 0]
    middle = float(np.median(measured))
    said = f"depth lies between {measured.min():.4g} and {measured.max():.4g} m (median {middle:.4g})"
    if middle > _FARTHEST_M:
        return f"{said}: is it in millimetres? set depth_unit_m (ros.depth_unit_m), or divide by {_factor(1 / middle)}"
    if middle < _NEAREST_M:
        return f"{said}: which unit is it in? set depth_unit_m (ros.depth_unit_m), or multiply by {_factor(middle)}"
    return said


def _factor(middle: float) -> int:
    """The power of a thousand that brings what is ``middle`` times too small to where subjects are."""
    return 1000 if 1000 * middle >= _NEAREST_M else 1_000_000
