"""Colours that show correspondence: the same point of the subject keeps its colour in every frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nr_tracking.types import Bool, Float32, Float64

# Linear sRGB of OKLab (Ottosson 2020), a space in which equal steps look equally large.
_LMS_FROM_LAB = np.array(
    [[1.0, 0.3963377774, 0.2158037573], [1.0, -0.1055613458, -0.0638541728], [1.0, -0.0894841775, -1.2914855480]]
)
_RGB_FROM_LMS = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)
_LIGHTNESS = (0.86, 0.60)  # from the upper to the lower end of the subject
_CHROMA = 0.125


def canonical_box(canonical: Float32) -> tuple[Float64, Float64]:
    """Lower and upper corner (3,) of the first frame's surface, between which colours are spread."""
    points = canonical[np.all(np.isfinite(canonical), axis=1)].astype(np.float64)
    if not len(points):
        return np.zeros(3), np.ones(3)
    return points.min(axis=0), points.max(axis=0)


def correspondence_colours(canonical: Float32, lower: Float64, upper: Float64) -> NDArray[np.uint8]:
    """Colour points by where they were in the first frame.

    ``canonical`` (V, 3) metres, ``lower`` and ``upper`` (3,) the box of the first frame's surface. Returns (V, 3)
    sRGB. Height turns the hue, so that limbs differ; left and right, near and far shift it; lightness falls
    gently from top to bottom. Points whose place in the first frame is not known are grey.
    """
    known: Bool = np.all(np.isfinite(canonical), axis=1)
    extent = np.maximum(upper - lower, 1e-9)
    position = np.clip((np.where(known[:, None], canonical, lower) - lower) / extent, 0.0, 1.0)
    across, height, depth = position.T  # camera axes: x right, y down, z forward
    longest = extent / extent.max()
    angle = 2 * np.pi * (0.06 + 0.62 * height * longest[1] + 0.42 * (across - 0.5) * longest[0] + 0.12 * depth)
    lightness = _LIGHTNESS[0] + (_LIGHTNESS[1] - _LIGHTNESS[0]) * height
    lab = np.stack([lightness, _CHROMA * np.cos(angle), _CHROMA * np.sin(angle)], axis=1)
    rgb = (lab @ _LMS_FROM_LAB.T) ** 3 @ _RGB_FROM_LMS.T
    rgb = np.clip(rgb, 0.0, 1.0)
    rgb = np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * np.power(rgb, 1 / 2.4) - 0.055)
    rgb[~known] = 0.6
    return np.round(255 * rgb).astype(np.uint8)
