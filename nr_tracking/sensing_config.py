"""Settings of the sensing: the subject in the image, its cube and its TSDF; sections of :mod:`nr_tracking.config`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from nr_tracking.section import Section, setting


class SubjectConfig(Section):
    """Which pixels belong to the subject."""

    depth_min_m: float = setting(0.15, "nearer depth is ignored", unit="m", ge=0.0, le=20.0, live=True)
    depth_max_m: float = setting(6.0, "farther depth is ignored", unit="m", gt=0.0, le=50.0, live=True)
    region_min_m: tuple[float, float, float] = setting(
        (-50.0, -50.0, 0.0),
        "lower corner of the region box in the camera optical frame; points outside of the box are ignored",
        unit="m",
        live=True,
    )
    region_max_m: tuple[float, float, float] = setting(
        (50.0, 50.0, 50.0),
        "upper corner of the region box in the camera optical frame; points outside of the box are ignored",
        unit="m",
        live=True,
    )
    remove_plane: bool = setting(
        True, "remove large planes (floor, walls, table) that extend beyond the subject", live=True
    )
    learn_background: bool = setting(
        True,
        "what a camera that stands still saw before the subject came, and sees there still, is no part of it; a camera "
        "that moves learns nothing",
        live=True,
    )
    plane_distance_m: float = setting(
        0.015,
        "points within this distance of a plane belong to it; where depth is noisier, within more",
        unit="m",
        gt=0.0,
        le=0.2,
    )
    plane_fraction: float = setting(
        0.2,
        "least share of the depth pixels that the first removed plane covers, six tenths of it for a vast floor that "
        "hides nothing; further planes need a quarter of it",
        ge=0.02,
        le=1.0,
    )
    choice: Literal["largest", "nearest", "clicked"] = setting(
        "largest",
        "which of several bodies is the subject: the largest, the nearest, or (clicked) the one nearest to point_m",
        live=True,
    )
    point_m: tuple[float, float, float] = setting(
        (0.0, 0.0, 1.0), "with choice clicked, a point on the subject in the camera optical frame", unit="m", live=True
    )
    lost_s: float = setting(
        1.0,
        "a subject that is out of sight for this long is lost; the next subject gets new track ids",
        unit="s",
        ge=0,
        le=60,
        live=True,
    )
    component_ratio: float = setting(
        0.3,
        "image parts closer to the largest one than this many times its size (longest edge of its box) belong to the "
        "subject; if planes were removed, within 0.2 m, but at least 0.5 and at most 1.5 times that distance",
        ge=0.0,
        le=5.0,
    )
    occluder_ratio: float = setting(
        1.0,
        "image parts in front of the largest one belong to the subject up to this many times its size before it, and, "
        "if no planes were removed, parts behind it that touch its outline up to twice as far, a metre at most",
        ge=0.0,
        le=5.0,
    )
    component_gap_m: float = setting(
        0.05,
        "a larger step in depth separates two image parts; beyond 2 m the limit grows with the square of depth",
        unit="m",
        gt=0.0,
        le=1.0,
    )
    minimum_pixels: int = setting(64, "an image with fewer pixels of the subject has no subject", ge=1, le=1_000_000)

    @model_validator(mode="after")
    def _something_is_within(self) -> Self:
        if self.depth_min_m >= self.depth_max_m:
            raise ValueError(f"depth_min_m is {self.depth_min_m}: it must be below depth_max_m, {self.depth_max_m}")
        for axis, lower, upper in zip("xyz", self.region_min_m, self.region_max_m, strict=True):
            if lower >= upper:
                raise ValueError(f"region_min_m is {lower} in {axis}: it must be below region_max_m there, {upper}")
        return self


class VolumeConfig(Section):
    """The cube around the subject in which its surface is completed."""

    margin: float = setting(
        1.35, "side of the cube, as a multiple of the longest edge of the box of the measured points", ge=1.0, le=3.0
    )
    percentile: float = setting(
        0.3, "share of the points that is cut off at each end of each axis to measure that box", unit="%", ge=0, le=10
    )
    depth_prior: float = setting(
        0.35,
        "assumed depth of the hidden part, as a multiple of the measured depth of the subject or, if that is more, of "
        "the shorter of its measured width and height",
        ge=0.0,
        le=2.0,
    )
    recentre_ratio: float = setting(
        0.06,
        "the cube moves along an axis, in eighths of its side, when the subject is off its centre by more than this "
        "share of the side; values up to 0.08125 have no effect, since the subject is always allowed that much",
        ge=0,
        le=1,
    )
    cubes: int = setting(
        1,
        "number of completions in slightly shifted and scaled cubes, whose mean is taken; more take longer and are a "
        "little better",
        ge=1,
        le=5,
    )
    rescale_ratio: float = setting(
        1.25,
        "the cube is fitted anew when the subject needs one larger by this factor, or smaller by 1.25 times it",
        ge=1.05,
        le=3.0,
    )


class TsdfConfig(Section):
    """The truncated signed distance from one depth image."""

    truncation_voxels: float = setting(
        3.0, "truncation distance of the signed distances", unit="voxel", ge=1.0, le=20.0
    )
    kind: Literal["projective"] = setting(
        "projective", "distances are measured along the camera's z axis (Curless and Levoy); nothing reads this setting"
    )
