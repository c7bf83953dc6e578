"""Depth images of triangle meshes: a vectorised z-buffer in plain torch.

A pixel's ray ``d = ((u - cx) / fx, (v - cy) / fy, 1)`` meets triangle (a, b, c) where the three edge functions
``d . (b x c)``, ``d . (c x a)`` and ``d . (a x b)`` share one sign; there its depth is ``a . (b x c)`` over their sum.
This needs no division by the vertices' depth, so depth is exact in perspective and nothing has to be clipped; and two
triangles give the same edge function, up to its sign, for the edge they share, so no pixel falls between them.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from nr_tracking.types import Intrinsics

NEAREST_DEPTH_M = 1e-3
"""Surfaces nearer than this are not seen."""

_CANDIDATES = 3_000_000
"""(triangle, pixel) pairs tested at once; bounds the memory."""


def rasterize(
    vertices: Tensor | ArrayLike, faces: Tensor | ArrayLike, intrinsics: Intrinsics, *, cull: bool = False
) -> tuple[Tensor, Tensor]:
    """Render one mesh.

    ``vertices`` (V, 3) metres in the camera optical frame, ``faces`` (F, 3); tensors or arrays. Both sides of a face
    are seen unless ``cull``, which drops faces that turn away (counter-clockwise is outside).

    Returns depth (H, W) float32, metres along z and 0 where there is nothing, and the index (H, W) int64 of the face
    that is seen, -1 where there is none; both on the vertices' device. Lens distortion is not rendered.
    """
    corners = _tensor(vertices).to(torch.float64)[_tensor(faces).long()]
    index = torch.arange(len(corners), device=corners.device)
    a, b, c = corners.unbind(1)
    edges = torch.stack([torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b)], 1)
    volume = (a * edges[:, 0]).sum(-1)
    usable = torch.isfinite(corners).all(-1).all(-1) & (corners[..., 2].amax(-1) > NEAREST_DEPTH_M)
    usable &= (volume < 0) if cull else (volume != 0)
    low, high = _pixel_bounds(corners, intrinsics)
    usable &= (high >= low).all(-1)
    index, edges, volume, low, high = index[usable], edges[usable], volume[usable], low[usable], high[usable]

    pixels = intrinsics.height * intrinsics.width
    depth = torch.full((pixels,), torch.inf, dtype=torch.float64, device=corners.device)
    face = torch.full((pixels,), -1, dtype=torch.int64, device=corners.device)
    for part in _chunks((high - low + 1).prod(-1)):
        pixel, z, owner = _covered(edges[part], volume[part], low[part], high[part], intrinsics)
        nearer = depth.scatter_reduce(0, pixel, z, "amin")
        seen = z == nearer[pixel]
        face[nearer < depth] = -1
        face.scatter_reduce_(0, pixel[seen], index[part][owner[seen]], "amax")
        depth = nearer
    depth = torch.where(torch.isfinite(depth), depth, 0).float()
    return depth.view(intrinsics.height, intrinsics.width), face.view(intrinsics.height, intrinsics.width)


def render_depth(vertices: Tensor | ArrayLike, faces: Tensor | ArrayLike, intrinsics: Intrinsics) -> np.ndarray:
    """Depth (H, W) float32 metres as an array; see :func:`rasterize`."""
    return rasterize(vertices, faces, intrinsics)[0].cpu().numpy()


def visible_points(
    points: Tensor | ArrayLike, depth: Tensor | ArrayLike, intrinsics: Intrinsics, slack: float
) -> Tensor:
    """Which of ``points`` (N, 3), camera optical frame, a rendered ``depth`` (H, W) shows: (N,) bool.

    A point is seen when the depth at any of the four pixels around its projection lies within ``slack`` metres of it.
    """
    points, depth = _tensor(points).double(), _tensor(depth)
    z = points[:, 2].clamp(min=NEAREST_DEPTH_M)
    u = points[:, 0] / z * intrinsics.fx + intrinsics.cx
    v = points[:, 1] / z * intrinsics.fy + intrinsics.cy
    seen = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    for du in (0, 1):
        for dv in (0, 1):
            column, row = u.floor().long() + du, v.floor().long() + dv
            inside = (column >= 0) & (row >= 0) & (column < intrinsics.width) & (row < intrinsics.height)
            there = depth[row.clamp(0, intrinsics.height - 1), column.clamp(0, intrinsics.width - 1)]
            seen |= inside & (there > 0) & ((there - points[:, 2]).abs() < slack)
    return seen & (points[:, 2] > NEAREST_DEPTH_M)


def _pixel_bounds(corners: Tensor, intrinsics: Intrinsics) -> tuple[Tensor, Tensor]:
    """First and last pixel (F, 2) that each triangle (F, 3, 3) can cover; the whole image if it passes us by."""
    size = torch.tensor([intrinsics.width, intrinsics.height], device=corners.device)
    focal = corners.new_tensor([intrinsics.fx, intrinsics.fy])
    centre = corners.new_tensor([intrinsics.cx, intrinsics.cy])
    in_front = (corners[..., 2] > NEAREST_DEPTH_M).all(-1, keepdim=True)
    pixel = corners[..., :2] / corners[..., 2:].clamp(min=NEAREST_DEPTH_M) * focal + centre
    pixel = torch.nan_to_num(pixel).clamp(-1e6, 1e6)
    # A hair wider than the triangle: rounding must not lose a pixel that lies on an edge.
    low = torch.ceil(pixel.amin(1) - 1e-6).long().clamp(min=0)
    high = torch.minimum(torch.floor(pixel.amax(1) + 1e-6).long(), size - 1)
    return torch.where(in_front, low, 0), torch.where(in_front, high, size - 1)


def _chunks(counts: Tensor) -> list[slice]:
    """Consecutive slices of the triangles whose pixel boxes hold about ``_CANDIDATES`` pixels each."""
    total = torch.cumsum(counts, 0)
    if len(counts) == 0:
        return []
    group = (total - counts) // _CANDIDATES
    starts = [0, *(torch.nonzero(group[1:] != group[:-1])[:, 0] + 1).tolist(), len(counts)]
    return [slice(start, stop) for start, stop in itertools.pairwise(starts)]


def _covered(
    edges: Tensor, volume: Tensor, low: Tensor, high: Tensor, intrinsics: Intrinsics
) -> tuple[Tensor, Tensor, Tensor]:
    """Flat pixel, depth and triangle of every pixel that one of the triangles covers."""
    size = high - low + 1
    counts = size.prod(-1)
    owner = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    local = torch.arange(len(owner), device=counts.device) - (torch.cumsum(counts, 0) - counts)[owner]
    column = low[owner, 0] + local % size[owner, 0]
    row = low[owner, 1] + local // size[owner, 0]
    x = (column - intrinsics.cx) / intrinsics.fx
    y = (row - intrinsics.cy) / intrinsics.fy
    # Edge functions with the sign of the triangle's orientation taken out: all three >= 0 inside.
    oriented = edges * torch.sign(volume)[:, None, None]
    inside = torch.ones_like(owner, dtype=torch.bool)
    total = torch.zeros_like(x)
    for edge in oriented.unbind(1):
        value = edge[owner, 0] * x + edge[owner, 1] * y + edge[owner, 2]
        inside &= value >= 0
        total = total + value
    z = volume.abs()[owner] / total
    inside &= (total > 0) & (z > NEAREST_DEPTH_M)
    return (row * intrinsics.width + column)[inside], z[inside], owner[inside]


def _tensor(values: Tensor | ArrayLike) -> Tensor:
    return values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
