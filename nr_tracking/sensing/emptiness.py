"""How far from any surface a point must be, given that the camera looked past it.

A point in front of the measured depth lies in empty space, but the distance along its ray says little near a
silhouette, where the surface is close at the side. So the point is tried with windows of growing radius: if every pixel
of a window measured a depth beyond the point, the ball that projects into the window and ends at the least of these
depths is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nr_tracking.sensing.tensors import loops_for
from nr_tracking.sensing.volume import Volume
from nr_tracking.types import Float32, Int64, Intrinsics, check_same_shape

_RADII = (1, 2, 4, 8, 16, 32)  # pixels, each at most twice the one before
_SLACK = 8  # pixels: points that are asked for later lie a little beside the first


@dataclass(frozen=True)
class _View:
    """A part of an image: rows ``top`` to ``bottom``, columns ``left`` to ``right``, the latter two left out."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def array(self) -> Int64:
        """[top, bottom, left, right] for compiled loops, (4,)."""
        return np.array((self.top, self.bottom, self.left, self.right))

    def holds(self, other: _View) -> bool:
        rows = self.top <= other.top and other.bottom <= self.bottom
        return rows and self.left <= other.left and other.right <= self.right

    def widened(self, by: int, shape: Sequence[int]) -> _View:
        """The part with ``by`` pixels around it, as far as the image of ``shape`` goes."""
        height, width = shape
        top, left = max(self.top - by, 0), max(self.left - by, 0)
        return _View(top, min(self.bottom + by, height), left, min(self.right + by, width))

    def within(self, other: _View) -> _View:
        """The same pixels, counted from the corner of ``other``."""
        top, left = other.top, other.left
        return _View(self.top - top, self.bottom - top, self.left - left, self.right - left)

    def place(self, row: Tensor, column: Tensor) -> Tensor:
        """Flat index in this part of pixels of the image."""
        return (row - self.top) * (self.right - self.left) + (column - self.left)


class EmptySpace:
    """Lower bounds of the signed distance from one depth image; made once for a frame, asked for any points.

    ``depth`` (H, W) float32 metres, 0 where there is none; ``mask`` (H, W) bool, True on the subject, or None for all.
    ``tolerance`` in box units is taken off every measured depth, so that sensor noise does not emboss the surface. Not
    for several threads at once: the part of the image that was asked for is kept.
    """

    def __init__(
        self, depth: Tensor, mask: Tensor | None, intrinsics: Intrinsics, volume: Volume, tolerance: float = 0.0
    ) -> None:
        camera = intrinsics.height, intrinsics.width
        check_same_shape(depth=depth.shape, mask=depth.shape if mask is None else mask.shape, camera=camera)
        self._intrinsics = intrinsics
        self._volume = volume
        self._tolerance = tolerance * volume.side
        self._depth = depth
        self._mask = mask
        # The part looked at and its least depths for each radius, for tensors and for compiled loops.
        self._looked: tuple[_View, list[Tensor]] | None = None
        self._seen: tuple[_View, Float32] | None = None

    def __call__(self, points: Tensor) -> Tensor:
        """``points`` (Q, 3) in box coordinates -> (Q,) lower bound of their signed distance in box units.

        Positive in front of what was measured, also of the background. Behind the subject's own surface it is negative,
        for the surface was measured that far away at most, and -inf where nothing is known: behind anything else, at
        pixels without depth, and outside the image.
        """
        if (loops := loops_for("emptiness", points, self._depth)) is not None:
            return torch.from_numpy(self._by_loops(loops, points.detach().contiguous().numpy()))
        k = self._intrinsics
        x, y, z = self._volume.to_metric(points).unbind(1)
        ahead = z > 1e-6
        safe = torch.where(ahead, z, torch.ones_like(z))
        column = torch.floor(k.fx * x / safe + (k.cx + 0.5)).long()
        row = torch.floor(k.fy * y / safe + (k.cy + 0.5)).long()
        imaged = ahead & (column >= 0) & (column < k.width) & (row >= 0) & (row < k.height)
        if not bool(imaged.any()):
            return torch.full_like(z, -torch.inf)
        view, levels = self._look(row[imaged], column[imaged])
        pixel = torch.where(imaged, row * k.width + column, torch.zeros_like(row))
        place = torch.where(imaged, view.place(row, column), torch.zeros_like(row))

        obliquity = torch.sqrt(1.0 + (x * x + y * y) / (safe * safe))
        nearest = levels[0].index_select(0, place) - self._tolerance
        known = imaged & (nearest > 0) & self._on_subject.index_select(0, pixel)
        bound = torch.where(known, (nearest - z) * obliquity, -torch.inf)

        before = torch.nonzero(imaged & (nearest > z))[:, 0]
        z, obliquity, place = (values.index_select(0, before) for values in (z, obliquity, place))
        empty = torch.full_like(z, -torch.inf)
        for radius, least in zip(_RADII, levels, strict=True):
            ahead_of = least.index_select(0, place) - (self._tolerance + z)
            # Pixels sample the surface at their centres: the outermost ones of a window stand this far from the point.
            # A ball of that radius projects to within the window, with its nearer side taken into account.
            reach = radius - 0.5
            lateral = reach * z / (max(k.fx, k.fy) * obliquity + reach)
            ball = torch.where(ahead_of > 0, torch.minimum(ahead_of, lateral), -torch.inf)
            empty = torch.maximum(empty, ball)
        return bound.index_copy(0, before, empty) / self._volume.side

    def _by_loops(self, loops: Any, points: Float32) -> Float32:
        depth, mask, *camera = self._arrays
        asked = _View(*map(int, loops.looked_at(points, *camera, *depth.shape)))
        if asked.bottom <= asked.top:
            return np.full(len(points), -np.inf, np.float32)
        radii = np.array(_RADII)
        if self._seen is None or not self._seen[0].holds(asked):
            view = asked.widened(_SLACK, depth.shape)
            self._seen = view, loops.least_depths(depth, view.array, radii)
        view, least = self._seen
        found: Float32 = loops.bounds_at(points, *camera, depth, mask, least, view.array, radii, self._tolerance)
        return found

    @cached_property
    def _on_subject(self) -> Tensor:
        """Where the subject was measured, (H * W,) bool."""
        measured = self._depth > 0
        return (measured if self._mask is None else measured & self._mask).flatten()

    @cached_property
    def _arrays(self) -> tuple[Any, ...]:
        """The arguments of the compiled loops."""
        k = self._intrinsics
        lens = np.array((k.fx, k.fy, k.cx, k.cy), np.float32)
        centre = self._volume.centre.astype(np.float32)
        mask = torch.ones_like(self._depth, dtype=torch.bool) if self._mask is None else self._mask
        images = (image.detach().contiguous().numpy() for image in (self._depth, mask))
        return *images, centre, float(self._volume.side), lens

    def _look(self, row: Tensor, column: Tensor) -> tuple[_View, list[Tensor]]:
        """The least depths around pixels (Q,), and their part of the image, which is much less than all of it."""
        asked = _View(int(row.min()), int(row.max()) + 1, int(column.min()), int(column.max()) + 1)
        if self._looked is not None and self._looked[0].holds(asked):
            return self._looked
        view = asked.widened(_SLACK, self._depth.shape)
        around = view.widened(_RADII[-1], self._depth.shape)
        inner = view.within(around)
        depth = self._depth[around.slices]
        # The narrowest window passes over pixels without depth, or a rim of every surface would stay unknown: what it
        # claims of them is half a pixel wide.
        measured = depth > 0
        narrowest = _least_around(torch.where(measured, depth, torch.inf), 1, beyond=torch.inf)
        levels = [torch.where(measured, narrowest, 0.0)]
        level = _least_around(depth, 1)
        for previous, radius in pairwise(_RADII):
            level = _least_around(level, radius - previous)
            levels.append(level)
        self._looked = view, [level[inner.slices].flatten() for level in levels]
        return self._looked


def empty_bound(
    points_box: Tensor,
    depth: Tensor,
    mask: Tensor | None,
    intrinsics: Intrinsics,
    volume: Volume,
    tolerance: float = 0.0,
) -> Tensor:
    """:class:`EmptySpace` for a single set of points: (Q, 3) box coordinates -> (Q,) box units."""
    return EmptySpace(depth, mask, intrinsics, volume, tolerance)(points_box)


def _least_around(depth: Tensor, reach: int, beyond: float = 0.0) -> Tensor:
    """Least of (H, W) at distances -reach, 0 and reach along both axes; ``beyond`` the border it has that value.

    Applied to the least depth in windows of a radius >= reach - 1, it gives that of windows wider by ``reach``.
    """
    height, width = depth.shape
    framed = functional.pad(depth, (reach, reach, reach, reach), value=beyond)
    left, middle, right = (framed[:, start : start + width] for start in (0, reach, 2 * reach))
    columns = torch.minimum(torch.minimum(left, middle), right)
    above, middle, below = (columns[start : start + height] for start in (0, reach, 2 * reach))
    return torch.minimum(torch.minimum(above, middle), below)
