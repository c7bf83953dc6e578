"""Completion along the camera's rays: for each pixel, the signed distance behind what is seen there.

A camera sees one side of a body, and most of the hidden side lies behind the very pixels of the seen one. How deep, is
a question to the image: a network on the image plane answers it with the full resolution of the image, where a
network on a coarse grid of the cube would have to say it in a few cells. It gives for each pixel a function of depth,
so that also a second limb behind the first has its place (as in ordinal and peeled depth maps), and counts depth from
the seen surface, so that the same body further back is the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from nr_tracking.fields.convolution import DenseConv2d
from nr_tracking.fields.normalisation import NormReLU, norm_relu
from nr_tracking.fields.pointwise import Pointwise2d, linear
from nr_tracking.fields.quarters import four_rays_each
from nr_tracking.sensing.ray_images import CHANNELS, FAR, RayImages, along_rays
from nr_tracking.sensing.tensors import loops_for

LIMIT = 0.1  # box sides: larger distances are not told apart
ELSEWHERE = 0.06  # distance in box sides where no subject is near the ray
DEEPEST = 0.9  # box sides behind the seen surface up to which a ray is known
_MOST_BY_INT32 = 2**31 - 1
_CELLS = 20  # of the table in which steps are looked up, for each of them: finer than the closest two
_BEFORE = (-0.06, -0.03, -0.012)
_SLAB = 0.08  # box sides: how thick everything is before training
_GROWTH = 1.5  # depths behind the surface grow with this power of their number: fine where bodies end


def ray_depths(steps: int) -> Tensor:
    """Depths (D,) in box sides behind the seen surface at which each ray's distance is known; a few lie before it."""
    behind = torch.linspace(0, 1, steps - len(_BEFORE)) ** _GROWTH * DEEPEST
    return torch.cat((torch.tensor(_BEFORE), behind))


@dataclass(frozen=True)
class RayField:
    """Signed distances of the N frames of one or more windows along rays, in box sides.

    ``distances`` (N, P, P, D) at ``depths`` (D,) behind ``front`` (N, P, P), all in sides of the frames' own cubes;
    ``view`` (N, 3) and ``place`` (N, 4) as in :class:`~nr_tracking.sensing.ray_images.RayImages`. ``share`` is the
    weight of these distances where there is another opinion.
    """

    distances: Tensor
    depths: Tensor
    front: Tensor
    view: Tensor
    place: Tensor
    share: float = 0.5

    def mixed(self, by_features: Tensor, along_rays: Tensor) -> Tensor:
        """The weighted mean of two estimates of a signed distance; it errs less than either."""
        return torch.lerp(by_features, along_rays, self.share)

    def sdf(self, points: Tensor, frame: Tensor) -> Tensor:
        """Signed distance (Q,) at ``points`` (Q, 3) of ``frame`` (Q,), both in box coordinates of the window's cube.

        Linear in depth along each of the four nearest rays, and bilinear between them.
        """
        if (loops := self._loops(points)) is not None:
            return self._by_loops(loops, points, frame, nearest=False)
        side = self.front.shape[1]
        position, z, beside, scale = self._on_image(points, frame)
        lower = position.detach().floor().clamp(max=side - 2)
        right, down = (position - lower).unbind(1)
        column, row = lower.int().unbind(1)
        first = (frame.int() * side + row) * side + column
        rays = torch.stack((first, first + 1, first + side, first + (side + 1)))
        left, up = 1 - right, 1 - down
        weights = torch.stack((up * left, up * right, down * left, down * right))
        return scale * torch.maximum((weights * self._along(rays, z.expand(4, -1))).sum(0), beside)

    def sdf_of_nearest(self, points: Tensor, frame: Tensor) -> Tensor:
        """Like :meth:`sdf`, along the nearest ray alone: at a quarter of the price, and off by half a pixel."""
        if (loops := self._loops(points)) is not None:
            return self._by_loops(loops, points, frame, nearest=True)
        side = self.front.shape[1]
        position, z, beside, scale = self._on_image(points, frame)
        column, row = position.round().int().unbind(1)
        return scale * torch.maximum(self._along((frame.int() * side + row) * side + column, z), beside)

    def _on_image(self, points: Tensor, frame: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Points in their frames' own cubes: pixel (Q, 2), box z (Q,), how far beside the image (Q,); the cubes' sides.

        Nothing is known beside the image, so nothing is there: the border's rays would go on sideways for ever.
        """
        side, own = self.front.shape[1], self.place.index_select(0, frame)
        place, z, beside = along_rays((points - own[:, :3]) / own[:, 3:], self.view.index_select(0, frame))
        beside = torch.where(beside > 0, beside, -torch.inf)
        return ((place + 0.5) * side - 0.5).clamp(0, side - 1), z, beside, own[:, 3]

    def _along(self, rays: Tensor, z: Tensor) -> Tensor:
        """Distance at box ``z`` (...,) of each of ``rays`` (...,) int32, by number."""
        front = self.front.reshape(-1).index_select(0, rays.reshape(-1)).view(rays.shape)
        step, onward = self._steps.place(z - front)
        rays = rays if self.distances.numel() <= _MOST_BY_INT32 else rays.long()
        flat, at = self.distances.reshape(-1), (rays * len(self.depths) + step).reshape(-1)
        begin, end = (flat.index_select(0, place).view(rays.shape) for place in (at, at + 1))
        return torch.where(front < FAR, torch.lerp(begin, end, onward), ELSEWHERE)

    def grid_by_loops(self, frame: int, resolution: int, band: float) -> Tensor | None:
        """Signed distance (R, R, R) at all voxel centres of a frame, in one pass; None where there are no loops for it.

        Exact within ``band`` box sides of the surface; elsewhere interpolated between every second, to half a pixel.
        """
        if (loops := self._loops(self.front)) is None or resolution % 2:
            return None
        return torch.from_numpy(loops.grid_of(frame, resolution, np.float32(band), self._arrays))

    def children_by_loops(self, coords: Tensor, resolution: int) -> Tensor | None:
        """:meth:`sdf_of_nearest` (M, 8) at the centres of the children of voxels (M, 4), by octant.

        None where there are no loops for it.
        """
        if (loops := self._loops(self.front)) is None:
            return None
        return torch.from_numpy(loops.distances_at_children(coords.contiguous().numpy(), resolution, self._arrays))

    def _loops(self, points: Tensor) -> Any | None:
        """Compiled loops that can read the rays at these points."""
        return loops_for("rays", points, self.distances, self.front, self.view, self.place)

    def _by_loops(self, loops: Any, points: Tensor, frame: Tensor, nearest: bool) -> Tensor:
        found = loops.distances_at(
            points.detach().contiguous().numpy(), frame.contiguous().numpy(), nearest, self._arrays
        )
        return torch.from_numpy(found)

    @cached_property
    def _arrays(self) -> tuple[Any, ...]:
        """The arguments of the compiled loops; see :mod:`nr_tracking.loops.rays`."""
        depths = self.depths.numpy(), self._steps.before.numpy(), self._steps.scale
        others = (part.detach().contiguous().numpy() for part in (self.front, self.view, self.place))
        return self.distances.detach().contiguous().numpy(), *depths, *others, FAR, ELSEWHERE

    @cached_property
    def _steps(self) -> Steps:
        return Steps(self.depths)


class Steps:
    """Finds between which two of increasing ``depths`` (D,) something lies, and how far on.

    Looked up in a table finer than the depths, and put right by one: a binary search for each takes far longer.
    """

    def __init__(self, depths: Tensor) -> None:
        cells = _CELLS * len(depths)
        self._first, self._last = float(depths[0]), float(depths[-1])
        self.scale = cells / (self._last - self._first)
        edges = torch.arange(cells + 1, device=depths.device, dtype=depths.dtype) / self.scale + depths[0]
        before = (torch.searchsorted(depths, edges, right=True) - 1).clamp(0, len(depths) - 2)
        self.before = before.int()
        self._next = torch.where(before < len(depths) - 2, depths[before + 1], torch.inf)
        self._start, self._length = depths[:-1].contiguous(), depths.diff()

    def place(self, behind: Tensor) -> tuple[Tensor, Tensor]:
        """The last of the depths that is not above each of ``behind`` (...,), and the share of the way to the next.

        The former is a number, int32, D - 2 at most; what lies beyond the outermost depths is taken to be there.
        """
        behind = behind.clamp(self._first, self._last)
        known = behind.detach()
        cell = ((known - self._first) * self.scale).int().reshape(-1)
        step = self.before.index_select(0, cell).view(behind.shape)
        step += known >= self._next.index_select(0, cell).view(behind.shape)
        flat = step.reshape(-1)
        start, length = (part.index_select(0, flat).view(behind.shape) for part in (self._start, self._length))
        return step, (behind - start) / length


def joined_fields(fields: list[RayField]) -> RayField:
    """Frames of a window, one after another."""
    if len(fields) == 1:
        return fields[0]
    names = ("distances", "front", "view", "place")
    distances, front, view, place = (torch.cat([getattr(field, name) for field in fields]) for name in names)
    return RayField(distances, fields[0].depths, front, view, place, fields[0].share)


class FourRays(Pointwise2d):
    """The last layer: four pixels from each place, with ``steps`` depths of each."""

    def __init__(self, inputs: int, steps: int) -> None:
        super().__init__(inputs, 4 * steps)
        self._steps = steps

    def forward(self, grid: Tensor) -> Tensor:
        """(N, I, h, w) -> distances (N, 2 h, 2 w, steps) in box sides."""
        bias = self._side_by_side(cast(Tensor, self.bias))
        places = linear(grid.movedim(1, -1), self.weight.flatten(1), None, self._filters, self._side_by_side)
        return four_rays_each(places, bias, LIMIT)

    def _side_by_side(self, part: Tensor) -> Tensor:
        """The depths of a pixel one after the other, so that what is copied then lies together."""
        return part.unflatten(0, (self._steps, 4)).transpose(0, 1).flatten(0, 1)


class RayNetwork(nn.Module):
    """Images along rays -> :class:`RayField`: a U-Net of five levels, from P / 2 down to P / 32.

    ``channels`` and residual ``blocks`` are those of the levels, finest first; ``steps`` is the number of depths;
    ``share`` is handed on to the fields.
    """

    def __init__(self, channels: tuple[int, ...], blocks: tuple[int, ...], steps: int, share: float = 0.5) -> None:
        super().__init__()
        self.share = share
        depths = ray_depths(steps)
        self.register_buffer("depths", depths, persistent=False)
        entries = [DenseConv2d(CHANNELS, channels[0], kernel_size=5, stride=2, padding=2, bias=False)]
        entries += [DenseConv2d(wide, wider, kernel_size=2, stride=2, bias=False) for wide, wider in pairwise(channels)]
        self.encoder = nn.ModuleList(
            nn.Sequential(entry, *norm_relu(width), *(ImageResidual(width) for _ in range(count)))
            for entry, width, count in zip(entries, channels, blocks, strict=True)
        )
        self.narrow = nn.ModuleList(Pointwise2d(wider, wide) for wide, wider in pairwise(channels))
        self.decoder = nn.ModuleList(ImageResidual(width) for width in channels[:-1])
        self.last = FourRays(channels[0], steps)
        with torch.no_grad():
            # Before training, everything is a slab of a thickness that limbs have.
            self.last.weight.mul_(0.02)
            slab = torch.maximum(-depths, depths - _SLAB).clamp(-LIMIT, LIMIT)
            cast(Tensor, self.last.bias).copy_((slab / LIMIT).repeat_interleave(4))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: RayImages) -> RayField:
        """Complete every frame; the images' side must be a multiple of 32."""
        grid = images.channels.to(memory_format=torch.channels_last)
        skips = []
        for level in self.encoder:
            grid = level(grid)
            skips.append(grid)
        for narrow, block, skip in list(zip(self.narrow, self.decoder, skips[:-1], strict=True))[::-1]:
            grid = functional.interpolate(narrow(grid), scale_factor=2, mode="bilinear", align_corners=False)
            grid = block(grid + skip)
        return RayField(self.last(grid), cast(Tensor, self.depths), images.front, images.view, images.place, self.share)


class ImageResidual(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))) on images."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = DenseConv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.norm = NormReLU(channels)
        self.second = DenseConv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.scale = NormReLU(channels)
        nn.init.zeros_(self.scale.weight)  # a block starts as the identity

    def forward(self, grid: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h, w)."""
        return self.scale(self.second(self.norm(self.first(grid))), beside=grid)  # type: ignore[no-any-return]
