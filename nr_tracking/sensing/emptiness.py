"""How far from any surface a point must be, given that the camera looked past it.

A point in front of the measured depth lies in empty space, but the distance along its ray says little near a
silhouette, where the surface is close at the side. So the point is tried with windows of growing radius: if every pixel
of a window measured a depth beyond the point, the ball that projects into the window and ends at the least of these
depths is empty.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from nr_tracking.sensing.volume import Volume
from nr_tracking.types import Intrinsics

_RADII = (1, 2, 4, 8, 16, 32)  # pixels, each at most twice the one before


class EmptySpace:
    """Lower bounds of the signed distance from one depth image; made once for a frame, asked for any points.

    ``depth`` (H, W) float32 metres, 0 where there is none; ``mask`` (H, W) bool, True on the subject, or None for all.
    ``tolerance`` in box units is taken off every measured depth, so that sensor noise does not emboss the surface.
    """

    def __init__(
        self, depth: Tensor, mask: Tensor | None, intrinsics: Intrinsics, volume: Volume, tolerance: float = 0.0
    ) -> None:
        self._intrinsics = intrinsics
        self._volume = volume
        self._tolerance = tolerance * volume.side
        self._on_subject = (depth > 0 if mask is None else (depth > 0) & mask).flatten()
        # The narrowest window passes over pixels without depth, or a rim of every surface would stay unknown: what it
        # claims of them is half a pixel wide.
        measured = depth > 0
        narrowest = _least_around(torch.where(measured, depth, torch.inf), 1, beyond=torch.inf)
        levels = [torch.where(measured, narrowest, 0.0)]
        level = _least_around(depth, 1)
        for previous, radius in pairwise(_RADII):
            level = _least_around(level, radius - previous)
            levels.append(level)
        self._least = torch.stack(levels, dim=2).flatten(0, 1)  # (H * W, radii): one memory access for a point
        # Pixels sample the surface at their centres: the outermost ones of a window stand this far from the point.
        self._radii = torch.tensor(_RADII, device=depth.device) - 0.5

    def __call__(self, points: Tensor) -> Tensor:
        """``points`` (Q, 3) in box coordinates -> (Q,) lower bound of their signed distance in box units.

        Positive in front of what was measured, also of the background. Behind the subject's own surface it is negative,
        for the surface was measured that far away at most, and -inf where nothing is known: behind anything else, at
        pixels without depth, and outside the image.
        """
        k = self._intrinsics
        x, y, z = self._volume.to_metric(points).unbind(1)
        ahead = z > 1e-6
        safe = torch.where(ahead, z, torch.ones_like(z))
        column = torch.floor(k.fx * x / safe + (k.cx + 0.5)).long()
        row = torch.floor(k.fy * y / safe + (k.cy + 0.5)).long()
        imaged = ahead & (column >= 0) & (column < k.width) & (row >= 0) & (row < k.height)
        pixel = torch.where(imaged, row * k.width + column, torch.zeros_like(row))

        obliquity = torch.sqrt(1.0 + (x * x + y * y) / (safe * safe))
        nearest = self._least[:, 0].index_select(0, pixel) - self._tolerance
        known = imaged & (nearest > 0) & self._on_subject.index_select(0, pixel)
        bound = torch.where(known, (nearest - z) * obliquity, -torch.inf)

        before = torch.nonzero(imaged & (nearest > z))[:, 0]
        z, obliquity = z.index_select(0, before)[:, None], obliquity.index_select(0, before)[:, None]
        ahead_of = self._least.index_select(0, pixel.index_select(0, before)) - (self._tolerance + z)
        # A ball of this radius projects to within the window, with its nearer side taken into account.
        lateral = self._radii * z / (max(k.fx, k.fy) * obliquity + self._radii)
        empty = torch.where(ahead_of > 0, torch.minimum(ahead_of, lateral), -torch.inf).amax(dim=1)
        return bound.index_copy(0, before, empty) / self._volume.side


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
