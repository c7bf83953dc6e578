"""Which pixels of a depth image belong to the subject."""

from __future__ import annotations

import numpy as np

from nr_tracking.config import SubjectConfig
from nr_tracking.sensing.camera import points_at
from nr_tracking.sensing.components import keep_near_largest
from nr_tracking.sensing.spill import without_spill
from nr_tracking.sensing.supports import heights_over_supports
from nr_tracking.types import Bool, DepthFrame, Float32, InputError, Int64


def find_subject(frame: DepthFrame, config: SubjectConfig, place: Float32 | None = None) -> Bool:
    """The subject's pixels, (H, W) bool, all of them with depth.

    Depth range and region box always hold. Within them a mask that comes with the frame is taken at its word, but for
    background along its outline; without one, planes that extend beyond the subject are removed, then whatever stands
    apart from its largest part, or from the one that ``choice`` names. Depth that shows nothing but the subject passes
    untouched. ``place`` (3,), metres: where the subject was in the image before, so that it is not another one that is
    a little larger now.

    Raises InputError ``no_subject`` where fewer than ``minimum_pixels`` are left, and says what took them.
    """
    depth = frame.depth
    subject = (depth >= config.depth_min_m) & (depth <= config.depth_max_m) & (depth > 0)
    _require(subject, config, f"within {config.depth_min_m} to {config.depth_max_m} m of depth")
    pixels = np.flatnonzero(subject)
    cloud = points_at(pixels, depth, frame.intrinsics)
    kept = np.flatnonzero(_in_region(cloud, config))
    if len(kept) < len(pixels):  # what is thrown away is not much, as a rule, but copying the rest takes time
        cloud, pixels = cloud.take(kept, axis=0), pixels[kept]
        subject = _at(pixels, subject.shape)
    _require(subject, config, f"in the region box {config.region_min_m} to {config.region_max_m}")
    if frame.mask is not None:
        subject &= frame.mask
        _require(subject, config, "under the mask")
        return without_spill(depth, subject, config)
    heights = None
    if config.remove_plane:
        heights = heights_over_supports(cloud, pixels, subject.shape, config)
        if heights is not None:
            kept = np.flatnonzero(np.abs(heights) >= 1)
            cloud, heights = cloud.take(kept, axis=0), heights[kept]
            subject = _at(pixels[kept], subject.shape)
        _require(subject, config, "apart from large planes (remove_plane)")
    subject = keep_near_largest(depth, cloud, subject, config, heights, place)
    _require(subject, config, "in one place")
    return subject


def _in_region(cloud: Float32, config: SubjectConfig) -> Bool:
    """Which points (N, 3) lie in the region box; not those at 0, which a lens model does not reach."""
    inside = cloud[:, 2] > 0
    for axis, (lower, upper) in enumerate(zip(config.region_min_m, config.region_max_m, strict=True)):
        inside &= (cloud[:, axis] >= lower) & (cloud[:, axis] <= upper)
    return inside


def _at(pixels: Int64, shape: tuple[int, ...]) -> Bool:
    """The image of ``shape`` that is True at ``pixels`` (N,), flat indices."""
    image = np.zeros(shape, bool)
    image.reshape(-1)[pixels] = True
    return image


def _require(subject: Bool, config: SubjectConfig, where: str) -> None:
    count = int(np.count_nonzero(subject))
    if count < config.minimum_pixels:
        raise InputError(
            "no_subject",
            f"only {count} pixels with depth {where}, and a subject has at least {config.minimum_pixels}"
            " (settings of section subject)",
        )
