"""Signed distance to meshes in plain torch, on any device: what :mod:`nr_tracking.data.distance` does with libigl.

Every point meets every triangle, in chunks: on a CPU that is slow, on a GPU it is quick and needs no tree. The sign is
that of the generalised winding number (Jacobson et al. 2013) as a sum of solid angles (Van Oosterom and Strackee 1983),
exact where libigl's hierarchy approximates.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from nr_tracking.data.distance import INSIDE

_PAIRS = 2_000_000
"""(point, triangle) pairs at once; bounds the memory."""


def winding_number(points: Tensor, vertices: Tensor, faces: Tensor) -> Tensor:
    """Generalised winding number (Q,) of ``points`` (Q, 3): 1 inside a closed outward mesh (V, 3), (F, 3), else 0."""
    corners = vertices[faces.long()]

    def angles(part: Tensor) -> Tensor:
        a, b, c = (corners[None, :, k] - part[:, None] for k in range(3))
        la, lb, lc = (side.norm(dim=-1) for side in (a, b, c))
        volume = (a * torch.linalg.cross(b, c)).sum(-1)
        flat = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
        return torch.atan2(volume, flat).sum(-1)

    return _chunked(angles, points, len(corners)) / (2 * math.pi)


def unsigned_distance(points: Tensor, vertices: Tensor, faces: Tensor) -> Tensor:
    """Distance (Q,) of ``points`` (Q, 3) to the nearest point of any triangle of the mesh (V, 3), (F, 3)."""
    corners = vertices[faces.long()]
    a, b, c = corners.unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    square = (normal * normal).sum(-1)
    flat = square > 1e-20  # thinner ones are as good as their edges, and have no normal
    edges = ((a, b - a), (b, c - b), (c, a - c))
    # Inside the three planes through the edges and along the normal, the nearest point lies in the triangle itself.
    inward = [torch.linalg.cross(normal, along) for _, along in edges]

    def nearest(part: Tensor) -> Tensor:
        best = torch.full((len(part), len(corners)), torch.inf, dtype=part.dtype, device=part.device)
        above = flat.expand(len(part), -1)
        for (start, along), into in zip(edges, inward, strict=True):
            offset = part[:, None] - start
            share = (offset * along).sum(-1) / (along * along).sum(-1).clamp_min(1e-30)
            apart = offset - share.clamp(0, 1)[..., None] * along
            best = torch.minimum(best, (apart * apart).sum(-1))
            above = above & ((offset * into).sum(-1) >= 0)
        height = ((part[:, None] - a) * normal).sum(-1)
        return torch.where(above, height * height / square.clamp_min(1e-30), best).amin(-1).sqrt()

    return _chunked(nearest, points, len(corners))


def signed_distance(points: Tensor, vertices: Tensor, faces: Tensor) -> Tensor:
    """Signed distance (Q,), negative inside, of ``points`` (Q, 3) to a mesh that may be open or cut through itself."""
    # Centred on the mesh: metres from a camera cost digits that single precision needs.
    middle = vertices.mean(0)
    points, vertices = points - middle, vertices - middle
    inside = winding_number(points, vertices, faces) > INSIDE
    distance = unsigned_distance(points, vertices, faces)
    return torch.where(inside, -distance, distance)


def _chunked(values: Callable[[Tensor], Tensor], points: Tensor, triangles: int) -> Tensor:
    size = max(1, _PAIRS // max(triangles, 1))
    return torch.cat([values(part) for part in points.split(size)])
