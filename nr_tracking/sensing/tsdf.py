"""The truncated signed distance of one depth image, and what the camera saw to be empty.

Voxel (i, j, k) of a cube at resolution R has its centre at ((i, j, k) + 0.5) / R - 0.5 in box coordinates. Its value is
projective: the depth of the pixel its centre falls on, less its own depth, over the truncation distance (Curless and
Levoy 1996); positive in front of the surface.

The cube is aligned with the camera, so on a plane of voxels of equal depth the column of a pixel depends on i alone and
its row on j alone. Every function here rests on these two small tables.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nr_tracking.sensing.ray_images import RayImages
from nr_tracking.sensing.tensors import loops_for
from nr_tracking.sensing.volume import Volume
from nr_tracking.types import Intrinsics, check_same_shape


@dataclass(frozen=True)
class SparseTsdf:
    """Voxels within the truncation distance of one depth image.

    ``coords`` (M, 3) int32, sorted by x, then y, then z; ``values`` (M,) float32 in (-1, 1), negative behind
    the surface.
    """

    coords: Tensor
    values: Tensor


@dataclass(frozen=True)
class TsdfWindow:
    """The network's input: all frames of one window, or of a batch of windows one after another.

    ``coords`` (M, 4) int32 [frame, x, y, z], sorted by frame; ``values`` (M, 1) float32; ``seen`` (N, 2, r, r, r)
    float32 of :func:`seen_space` with r = resolution / 4; ``length`` frames a window, so N = batch * length. ``rays``:
    the same frames along rays, for networks that complete along them.
    """

    coords: Tensor
    values: Tensor
    seen: Tensor
    resolution: int
    length: int
    rays: RayImages | None = None

    def to(self, device: torch.device) -> TsdfWindow:
        """Return the window with its tensors on a device."""
        return replace(
            self,
            coords=self.coords.to(device),
            values=self.values.to(device),
            seen=self.seen.to(device),
            rays=None if self.rays is None else self.rays.to(device),
        )


def projective_tsdf(
    depth: Tensor,
    mask: Tensor | None,
    intrinsics: Intrinsics,
    volume: Volume,
    resolution: int,
    truncation_voxels: float = 3.0,
) -> SparseTsdf:
    """Truncated signed distance along the rays of the subject's pixels, straight to sparse voxels.

    ``depth`` (H, W) float32 metres, 0 where there is none; ``mask`` (H, W) bool, True on the subject, or None for all.
    The camera must be free of distortion. A ray visits the few planes of voxels within the truncation distance, and on
    each of them the voxels, if any, whose centres fall on its pixel. So every voxel is met exactly once, whether pixels
    are finer or coarser than voxels, and the result equals :func:`dense_projective_tsdf`.
    """
    device, width = depth.device, intrinsics.width
    check_same_shape(
        depth=depth.shape,
        mask=depth.shape if mask is None else mask.shape,
        camera=(intrinsics.height, intrinsics.width),
    )
    tables = _projection_tables(intrinsics, volume, resolution, device)
    voxel = volume.side / resolution
    truncation = truncation_voxels * voxel
    if (loops := loops_for("voxels", depth)) is not None:
        whole = torch.ones_like(depth, dtype=torch.bool) if mask is None else mask
        images = (image.detach().contiguous().numpy() for image in (depth, whole))
        found = loops.near_surface(*images, *tables.arrays_by_pixel, tables.z_first, voxel, truncation)
        return SparseTsdf(torch.from_numpy(found[0]), torch.from_numpy(found[1]))
    (x_first, x_count), (y_first, y_count) = tables.voxels_by_column, tables.voxels_by_row
    x_hit, y_hit = x_count > 0, y_count > 0

    pixel = torch.nonzero((depth if mask is None else depth * mask).flatten() > 0)[:, 0].int()
    ray_depth = depth.flatten().index_select(0, pixel)
    row, column = torch.div(pixel, width, rounding_mode="floor"), pixel % width
    first = torch.floor((ray_depth - truncation - tables.z_first) / voxel).int()
    pairs = []
    for offset in range(math.ceil(2.0 * truncation_voxels) + 2):  # planes first, first + 1, ... cover the band
        plane = (first + offset).clamp_(0, resolution - 1)
        distance = ray_depth - tables.z.index_select(0, plane)
        met = (distance.abs() < truncation) & (first >= -offset) & (first < resolution - offset)
        met &= x_hit.index_select(0, plane * width + column) & y_hit.index_select(0, plane * intrinsics.height + row)
        kept = torch.nonzero(met)[:, 0]
        pairs.append(tuple(values.index_select(0, kept) for values in (plane, row, column, distance)))
    plane, row, column, distance = (torch.cat(values) for values in zip(*pairs, strict=True))

    # A pair of ray and plane becomes all voxels that fall on the pixel there: one, unless pixels are coarser.
    at_x, at_y = plane * width + column, plane * intrinsics.height + row
    across = x_count.index_select(0, at_x)
    count = across * y_count.index_select(0, at_y)
    pair = torch.repeat_interleave(count)
    nth = torch.arange(len(pair), device=device) - (torch.cumsum(count, 0) - count).index_select(0, pair)
    across = across.index_select(0, pair)
    x = x_first.index_select(0, at_x).index_select(0, pair) + nth % across
    y = y_first.index_select(0, at_y).index_select(0, pair) + torch.div(nth, across, rounding_mode="floor")
    z = plane.index_select(0, pair)

    order = torch.argsort((x * resolution + y) * resolution + z)
    coords = torch.stack((x, y, z), dim=1).index_select(0, order).to(torch.int32)
    return SparseTsdf(coords, (distance.index_select(0, pair).index_select(0, order) / truncation).float())


def dense_projective_tsdf(
    depth: Tensor,
    mask: Tensor | None,
    intrinsics: Intrinsics,
    volume: Volume,
    resolution: int,
    truncation_voxels: float = 3.0,
) -> SparseTsdf:
    """The plain twin of :func:`projective_tsdf`, over every voxel of the grid: the oracle in tests."""
    tables = _projection_tables(intrinsics, volume, resolution, depth.device)
    truncation = truncation_voxels * volume.side / resolution
    subject = depth if mask is None else depth * mask
    measured, _ = _depth_at_centres(subject, tables)
    distance = measured - tables.z
    coords = torch.nonzero((measured > 0) & (distance.abs() < truncation))
    x, y, z = coords.unbind(1)
    return SparseTsdf(coords.to(torch.int32), (distance[x, y, z] / truncation).float())


def seen_space(depth: Tensor, mask: Tensor | None, intrinsics: Intrinsics, volume: Volume, cells: int) -> Tensor:
    """What the camera knows about each of ``cells`` ^ 3 coarse cells of the cube, (2, cells, cells, cells) float32.

    Channel 0 is the share of a cell that was seen to be empty: it lies in front of a measured depth, be it the
    subject's, the background's or an occluder's, which prove the same about the space before them. Channel 1 is the
    share without any return: pixels with no depth, or outside the image. Shares are taken over 8 points of each cell.
    ``mask`` is accepted beside ``depth`` like everywhere else; emptiness does not depend on it.
    """
    tables = _projection_tables(intrinsics, volume, 2 * cells, depth.device)
    if (loops := loops_for("voxels", depth)) is not None:
        return torch.from_numpy(loops.seen_cells(depth.detach().contiguous().numpy(), *tables.arrays_by_voxel))
    measured, imaged = _depth_at_centres(depth, tables)
    empty = (measured > tables.z) & (tables.z > 0)
    unknown = ~imaged | (measured <= 0)
    return functional.avg_pool3d(torch.stack((empty, unknown)).float(), 2)


def make_window(
    frames: Sequence[tuple[SparseTsdf, Tensor]], length: int | None = None, rays: RayImages | None = None
) -> TsdfWindow:
    """Join frames of (voxels, seen space) to the network's input; a ``length`` below their number makes a batch."""
    length = len(frames) if length is None else length
    if not frames or len(frames) % length:
        raise ValueError(f"{len(frames)} frames do not make up windows of {length}")
    coords = [functional.pad(tsdf.coords, (1, 0), value=index) for index, (tsdf, _) in enumerate(frames)]
    seen = torch.stack([seen for _, seen in frames])
    values = torch.cat([tsdf.values for tsdf, _ in frames])[:, None]
    return TsdfWindow(torch.cat(coords), values, seen, resolution=4 * seen.shape[-1], length=length, rays=rays)


@dataclass(frozen=True)
class _ProjectionTables:
    """Where voxel centres fall on the image, plane by plane.

    ``columns`` (R, R) int64: pixel column of the voxels [k, i], -1 left of the image (or behind the camera) and
    width right of it; ``rows`` (R, R) likewise of [k, j]; ``z`` (R,) float32 depth of the planes; ``z_first`` that of
    plane 0; ``width`` and ``height`` of the image.
    """

    columns: Tensor
    rows: Tensor
    z: Tensor
    z_first: float
    width: int
    height: int

    @cached_property
    def voxels_by_column(self) -> tuple[Tensor, Tensor]:
        """First voxel and number of voxels along x on each pixel column of each plane."""
        return _voxels_of_pixels(self.columns, self.width)

    @cached_property
    def voxels_by_row(self) -> tuple[Tensor, Tensor]:
        """The same along y, on each row."""
        return _voxels_of_pixels(self.rows, self.height)

    @cached_property
    def arrays_by_pixel(self) -> tuple[Any, ...]:
        """The tables that compiled loops want to know for each pixel's voxels."""
        planes = len(self.z)
        tables = (part.view(planes, -1).T for part in (*self.voxels_by_column, *self.voxels_by_row))
        return *(table.to(torch.int16).contiguous().numpy() for table in tables), self.z.numpy()

    @cached_property
    def arrays_by_voxel(self) -> tuple[Any, ...]:
        """And for each voxel's pixel."""
        return self.columns.numpy(), self.rows.numpy(), self.z.numpy()


def _projection_tables(
    intrinsics: Intrinsics, volume: Volume, resolution: int, device: torch.device
) -> _ProjectionTables:
    x, y, z = volume.centre.tolist()
    return _tables_of(intrinsics, (x, y, z), volume.side, resolution, device)


@lru_cache(maxsize=8)  # a cube stays where it is for many frames
def _tables_of(
    intrinsics: Intrinsics,
    centre: tuple[float, float, float],
    side: float,
    resolution: int,
    device: torch.device,
) -> _ProjectionTables:
    if intrinsics.distortion_model != "none":
        raise ValueError(f"rectify the frame first: its camera has {intrinsics.distortion_model} distortion")
    centres = (np.arange(resolution) + 0.5) / resolution - 0.5
    x, y, z = np.array(centre)[:, None] + side * centres

    def pixels(position: np.ndarray, focal: float, principal: float, size: int) -> Tensor:
        safe = np.where(z > 0, z, np.inf)[:, None]
        nearest = np.floor(focal * position[None, :] / safe + principal + 0.5)
        nearest = np.where(z[:, None] > 0, np.clip(nearest, -1, size), -1)
        return torch.from_numpy(nearest.astype(np.int64)).to(device)

    return _ProjectionTables(
        columns=pixels(x, intrinsics.fx, intrinsics.cx, intrinsics.width),
        rows=pixels(y, intrinsics.fy, intrinsics.cy, intrinsics.height),
        z=torch.from_numpy(z.astype(np.float32)).to(device),
        z_first=float(z[0]),
        width=intrinsics.width,
        height=intrinsics.height,
    )


def _voxels_of_pixels(pixels: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """First voxel and number of voxels, each (R * size,) int64, whose centres fall on each pixel of each plane."""
    edges = torch.arange(size + 1, device=pixels.device).expand(len(pixels), -1).contiguous()
    first = torch.searchsorted(pixels, edges)
    return first[:, :-1].flatten(), first.diff(dim=1).flatten()


def _depth_at_centres(depth: Tensor, tables: _ProjectionTables) -> tuple[Tensor, Tensor]:
    """Depth (R, R, R) of the pixel that each voxel centre [x, y, z] falls on, and whether it falls on the image."""
    height, width = depth.shape
    framed = functional.pad(depth, (1, 1, 1, 1))
    flat = (tables.rows[:, None, :] + 1) * (width + 2) + (tables.columns[:, :, None] + 1)  # [k, i, j]
    in_column = (tables.columns >= 0) & (tables.columns < width)
    in_row = (tables.rows >= 0) & (tables.rows < height)
    imaged = in_column[:, :, None] & in_row[:, None, :]
    return framed.flatten()[flat].permute(1, 2, 0), imaged.permute(1, 2, 0)
