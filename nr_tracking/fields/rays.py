"""Completion along the camera's rays: for each pixel, the signed distance behind what is seen there.

A camera sees one side of a body, and most of the hidden side lies behind the very pixels of the seen one. How deep, is
a question to the image: a network on the image plane answers it with the full resolution of the image, where a
network on a coarse grid of the cube would have to say it in a few cells. It gives for each pixel a function of depth,
so that also a second limb behind the first has its place (as in ordinal and peeled depth maps), and counts depth from
the seen surface, so that the same body further back is the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from nr_tracking.fields.encoder import norm_groups
from nr_tracking.sensing.ray_images import CHANNELS, FAR, RayImages, along_rays

LIMIT = 0.1  # box sides: larger distances are not told apart
ELSEWHERE = 0.06  # distance in box sides where no subject is near the ray
DEEPEST = 0.9  # box sides behind the seen surface up to which a ray is known
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
        """Two opinions on a signed distance as one: what errs on its own errs less together."""
        return torch.lerp(by_features, along_rays, self.share)

    def sdf(self, points: Tensor, frame: Tensor) -> Tensor:
        """Signed distance (Q,) at ``points`` (Q, 3) of ``frame`` (Q,), both in box coordinates of the window's cube.

        Linear in depth along each of the four nearest rays, and bilinear between them.
        """
        side = self.front.shape[1]
        position, z, scale = self._on_image(points, frame)
        lower = position.detach().floor().clamp(max=side - 2)
        part = position - lower
        share = torch.stack((1 - part, part), dim=1)  # (Q, 2 low/high, 2 x/y)
        column, row = lower.long().unbind(1)
        bit = torch.arange(2, device=points.device)
        first = (frame.long() * side + row) * side + column
        rays = first[:, None, None] + bit[:, None] * side + bit  # (Q, 2 y, 2 x)
        weights = share[:, :, None, 1] * share[:, None, :, 0]
        return scale * (weights.reshape(-1, 4) * self._along(rays.view(-1, 4), z[:, None])).sum(1)

    def sdf_of_nearest(self, points: Tensor, frame: Tensor) -> Tensor:
        """Like :meth:`sdf`, along the nearest ray alone: at a quarter of the price, and off by half a pixel."""
        side = self.front.shape[1]
        position, z, scale = self._on_image(points, frame)
        column, row = position.round().long().unbind(1)
        return scale * self._along((frame.long() * side + row) * side + column, z)

    def _on_image(self, points: Tensor, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pixel (Q, 2) and box z (Q,) of points in their frames' own cubes, and the sides (Q,) of these."""
        side, own = self.front.shape[1], self.place.index_select(0, frame)
        place, z = along_rays((points - own[:, :3]) / own[:, 3:], self.view.index_select(0, frame))
        return ((place + 0.5) * side - 0.5).clamp(0, side - 1), z, own[:, 3]

    def _along(self, rays: Tensor, z: Tensor) -> Tensor:
        """Distance at box ``z`` of each of ``rays`` (...,), by number."""
        depths, steps = self.depths, len(self.depths)
        front = self.front.reshape(-1).index_select(0, rays.flatten()).view(rays.shape)
        behind = (z - front).clamp(depths[0], depths[-1])
        step = _steps_before(behind.detach(), depths)
        start = depths[step]
        onward = (behind - start) / (depths[step + 1] - start)
        flat, at = self.distances.reshape(-1), (rays * steps + step).flatten()
        begin, end = (flat.index_select(0, place).view(rays.shape) for place in (at, at + 1))
        return torch.where(front < FAR, begin + (end - begin) * onward, ELSEWHERE)


def _steps_before(behind: Tensor, depths: Tensor) -> Tensor:
    """Number of the last of ``depths`` (D,) that is not above each of ``behind``, D - 2 at most.

    Looked up in a table finer than the depths, and corrected by one: a binary search for each takes far longer.
    """
    cells = _CELLS * len(depths)
    edges = torch.linspace(0, 1, cells + 1, device=depths.device, dtype=depths.dtype)[:-1] * (depths[-1] - depths[0])
    table = torch.searchsorted(depths, edges + depths[0], right=True) - 1
    cell = ((behind - depths[0]) * (cells / (depths[-1] - depths[0]))).long().clamp(0, cells - 1)
    step = table.index_select(0, cell.flatten()).view(cell.shape)
    step = step + (behind >= depths[(step + 1).clamp(max=len(depths) - 1)]).long()
    return (step - (behind < depths[step]).long()).clamp(0, len(depths) - 2)


def joined_fields(fields: list[RayField]) -> RayField:
    """Frames of a window, one after another."""
    names = ("distances", "front", "view", "place")
    distances, front, view, place = (torch.cat([getattr(field, name) for field in fields]) for name in names)
    return RayField(distances, fields[0].depths, front, view, place, fields[0].share)


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
        entries = [nn.Conv2d(CHANNELS, channels[0], kernel_size=5, stride=2, padding=2, bias=False)]
        entries += [nn.Conv2d(wide, wider, kernel_size=2, stride=2, bias=False) for wide, wider in pairwise(channels)]
        self.encoder = nn.ModuleList(
            nn.Sequential(entry, *_norm_relu(width), *(ImageResidual(width) for _ in range(count)))
            for entry, width, count in zip(entries, channels, blocks, strict=True)
        )
        self.narrow = nn.ModuleList(nn.Conv2d(wider, wide, kernel_size=1) for wide, wider in pairwise(channels))
        self.decoder = nn.ModuleList(ImageResidual(width) for width in channels[:-1])
        self.last = nn.Conv2d(channels[0], 4 * steps, kernel_size=1)
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
        # (N, 4 D, h, w) to (N, 2 h, 2 w, D), as a pixel shuffle would: in one copy.
        blocks = self.last(grid).unflatten(1, (-1, 2, 2)).permute(0, 4, 2, 5, 3, 1).float()
        fine = blocks.reshape(-1, *images.front.shape[1:], blocks.shape[-1]).mul_(LIMIT)
        return RayField(fine, cast(Tensor, self.depths), images.front, images.view, images.place, self.share)


class ImageResidual(nn.Module):
    """relu(x + norm(conv(relu(norm(conv(x)))))) on images."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.norm = nn.GroupNorm(norm_groups(channels), channels)
        self.second = nn.Conv2d(channels, channels, kernel_size=3, padding=1, bias=False)
        self.scale = nn.GroupNorm(norm_groups(channels), channels)
        nn.init.zeros_(self.scale.weight)  # a block starts as the identity

    def forward(self, grid: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C, h, w)."""
        return functional.relu(grid + self.scale(self.second(functional.relu(self.norm(self.first(grid))))))


def _norm_relu(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.GroupNorm(norm_groups(channels), channels), nn.ReLU()
