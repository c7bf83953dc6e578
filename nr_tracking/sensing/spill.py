"""Mask bleed: masks by people or other networks reach beyond the subject, onto what lies behind it.

A few pixels of a wall along the outline are enough to stretch the subject's box to the wall. They are easily told from
a leg seen behind a table: a step in depth separates them from the subject, and none from the wall outside the mask.
"""

from __future__ import annotations

import numpy as np

from nr_tracking.config import SubjectConfig
from nr_tracking.sensing.components import connected_parts, neighbours
from nr_tracking.types import Bool, Float32

_GOES_ON = 0.5  # of a part's border with depth outside the mask


def without_spill(depth: Float32, mask: Bool, config: SubjectConfig) -> Bool:
    """The mask without parts of the background, (H, W) bool.

    ``depth`` (H, W) in metres, 0 for none; ``mask`` (H, W) True only where there is depth. Of the parts between which
    depth steps by more than ``component_gap_m``, those behind the largest one go if along more than half of their
    border there is no such step; pixels with steps all around go with them. Where there is no depth outside, nothing
    does.
    """
    outside = ~mask & (depth > 0)
    if not outside.any():
        return mask
    parts, count = connected_parts(depth, mask, config.component_gap_m)
    if count <= 1:
        return mask
    border, goes_on = np.zeros(count + 1), np.zeros(count + 1)
    for here, there in neighbours():
        edge = mask[here] & ~mask[there]
        alike = outside[there] & (np.abs(depth[here] - depth[there]) <= config.component_gap_m)
        border += np.bincount(parts[here][edge], minlength=count + 1)
        goes_on += np.bincount(parts[here][edge & alike], minlength=count + 1)
    pixels = np.bincount(parts[mask], minlength=count + 1)
    distance = np.bincount(parts[mask], weights=depth[mask], minlength=count + 1) / np.maximum(pixels, 1)
    spilt = (goes_on > _GOES_ON * border) & (distance > distance[pixels[1:].argmax() + 1])
    if not spilt[1:].any():
        return mask
    spilt[0] = True
    return mask & ~spilt[parts]
