"""What pulls a moving surface: residuals of sample positions, each linearised into a matrix and a pull.

    terms = [DepthTerm(depth_image, intrinsics, radius, weight=1.0), FieldTerm(field, radius, weight=0.3)]
    information, pull, energy = terms[0](points, normals)        # (B, S, 3, 3), (B, S, 3), (B,)

For B pairs of frames with S samples each. A term is a function of the positions of samples: ``information`` W is the
Gauss-Newton matrix of a sample's residuals by its position and ``pull`` minus half their gradient, so that a step dx of
a sample changes the energy by ``dx^T W dx - 2 pull^T dx``. Energies are means over samples. All terms share Tukey's
biweight: beyond ``radius`` a residual pulls no more, and costs a constant.

Everything is differentiable but the choice of which pixel or point a sample is compared with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from nr_tracking.types import Intrinsics

Linearised = tuple[Tensor, Tensor, Tensor]
FieldFunction = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Points (Q, 3) and their pair (Q,) int64 to signed distance (Q,) and its gradient by the point (Q, 3)."""

_GLANCING = 0.1  # normals of a depth image that are this near to lying along the ray are not trusted


class DataTerm(Protocol):
    """One kind of residual."""

    def __call__(self, points: Tensor, normals: Tensor) -> Linearised:
        """Linearise at ``points`` (B, S, 3) with unit ``normals`` (B, S, 3): information, pull and energy (B,)."""
        ...


def tukey(squared: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """Weight and energy of squared residuals by Tukey's biweight, which ends at ``limit`` (squared).

    Small residuals have weight 1 and cost what they are; those beyond the limit have weight 0 and cost a third of it.
    """
    remaining = (1.0 - squared / limit).clamp_min(0.0)
    return remaining**2, limit / 3.0 * (1.0 - remaining**3)


@dataclass(frozen=True)
class DepthTerm:
    """Projective point-to-plane distance to observed depth.

    ``points`` and ``normals`` (B, H, W, 3) are those of :func:`depth_surface`, NaN where there is no depth. A sample is
    compared with the pixel that it falls on, if its normal is like the one there (``cosine``). Samples count by how
    squarely they face the camera, not at all from behind, and the energy is their weighted mean: then it hardly changes
    when some turn away, and near outlines, where depth is worst, little is at stake.
    """

    points: Tensor
    normals: Tensor
    intrinsics: Intrinsics
    radius: float
    weight: float = 1.0
    cosine: float = 0.5

    def __call__(self, points: Tensor, normals: Tensor) -> Linearised:
        """See :class:`DataTerm`."""
        k, (height, width) = self.intrinsics, self.points.shape[1:3]
        with torch.no_grad():
            depth = points[..., 2].clamp_min(1e-9)
            column = torch.round(k.fx * points[..., 0] / depth + k.cx)
            row = torch.round(k.fy * points[..., 1] / depth + k.cy)
            inside = (points[..., 2] > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
            cell = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
            pixel = cell[..., None].expand(points.shape)
            rays = torch.nn.functional.normalize(points, dim=-1)
            facing = -(normals * rays).sum(-1).clamp(max=0.0)
            share = facing / facing.sum(1, keepdim=True).clamp_min(1e-9)
        place = self.points.flatten(1, 2).gather(1, pixel)
        plane = self.normals.flatten(1, 2).gather(1, pixel)
        usable = inside & torch.isfinite(plane).all(-1) & torch.isfinite(place).all(-1)
        usable &= (torch.nan_to_num(plane) * normals).sum(-1) > self.cosine
        place, plane = (torch.where(usable[..., None], values, 0.0) for values in (place, plane))
        gap = torch.where(usable[..., None], place - points, 0.0)
        return _planar(gap, plane, usable, self.radius, self.weight * share, (1.0, 0.0))


@dataclass(frozen=True)
class FieldTerm:
    """Distance in the neural field of the target frame, |S(v)| (Merrouche et al. 2024, eq. 14).

    ``field`` gives distances in the unit of the points, and their gradients; both may carry gradients of their own.
    """

    field: FieldFunction
    radius: float
    weight: float = 1.0

    def __call__(self, points: Tensor, normals: Tensor) -> Linearised:
        """See :class:`DataTerm`."""
        batch, samples, _ = points.shape
        pair = torch.arange(batch, device=points.device).repeat_interleave(samples)
        distance, gradient = self.field(points.reshape(-1, 3), pair)
        distance, gradient = distance.view(batch, samples), gradient.view(batch, samples, 3)
        weight, energy = tukey(distance**2, self.radius**2)
        weight = self.weight / samples * weight
        along = weight[..., None] * gradient
        return along[..., None] * gradient[..., None, :], -distance[..., None] * along, self.weight * energy.mean(1)


@dataclass(frozen=True)
class AssociationTerm:
    """Distance to a known goal for each sample (or node), weighted by how much it is believed.

    ``goals`` (B, S, 3), ``confidence`` (B, S) not negative; both may be learnt through the solver. Without ``radius``
    residuals are plain squares.
    """

    goals: Tensor
    confidence: Tensor
    radius: float | None = None
    weight: float = 1.0

    def __call__(self, points: Tensor, normals: Tensor) -> Linearised:
        """See :class:`DataTerm`."""
        gap = self.goals - points
        squared = (gap**2).sum(-1)
        weight, energy = (torch.ones_like(squared), squared) if self.radius is None else tukey(squared, self.radius**2)
        share = self.weight / points.shape[1] * self.confidence
        pulling = (share * weight)[..., None]
        information = pulling[..., None] * torch.eye(3, dtype=points.dtype, device=points.device)
        return information, pulling * gap, (share * energy).sum(1)


@dataclass(frozen=True)
class SurfaceTerm:
    """Distance to the nearest point of a surface on a similar side, sought from both sides.

    ``points`` and unit ``normals`` (B, T, 3) sample the target; ``plane`` and ``point`` weigh the distance to the
    tangent plane and the one to the point itself, as in :mod:`nr_tracking.deformation.refinement`. ``features`` are
    unit rows of the moving samples (B, S, C) and of the target's (B, T, C), if the nearest is sought in both spaces;
    ``reach`` is the distance that weighs as much as features that differ by 1.
    """

    points: Tensor
    normals: Tensor
    radius: float
    cosine: float
    plane: float = 1.0
    point: float = 0.1
    features: tuple[Tensor, Tensor] | None = None
    reach: float = 0.0

    def __call__(self, points: Tensor, normals: Tensor) -> Linearised:
        """See :class:`DataTerm`."""
        with torch.no_grad():
            cost = torch.cdist(points, self.points).square_()
            blocked = (normals @ self.normals.transpose(1, 2) < self.cosine).logical_or_(cost > self.radius**2)
            if self.features is not None:
                ours, theirs = self.features
                cost += self.reach**2 * (2.0 - 2.0 * ours @ theirs.transpose(1, 2))
            cost.masked_fill_(blocked, torch.inf)
            near, there = cost.min(2)
            near_back, back = cost.min(1)
        forward = self._pulled(points, self.points, self.normals, there, near.isfinite())
        # The target's points seek the moving ones; what they find pulls the other way, on the sample that was found.
        found = points.gather(1, back[..., None].expand(self.points.shape))
        information, pull, energy = self._terms(self.points - found, self.normals, near_back.isfinite())
        total = forward[0].scatter_add(1, back[..., None, None].expand(information.shape), information)
        pulled = forward[1].scatter_add(1, back[..., None].expand(pull.shape), pull)
        return total, pulled, forward[2] + energy

    def _pulled(self, points: Tensor, places: Tensor, sides: Tensor, match: Tensor, usable: Tensor) -> Linearised:
        index = match[..., None].expand(points.shape)
        return self._terms(places.gather(1, index) - points, sides.gather(1, index), usable)

    def _terms(self, gap: Tensor, plane: Tensor, usable: Tensor) -> Linearised:
        gap = torch.where(usable[..., None], gap, 0.0)
        share = torch.full_like(gap[..., 0], 1.0 / gap.shape[1])
        return _planar(gap, plane, usable, self.radius, share, (self.plane, self.point))


def _planar(
    gap: Tensor, normal: Tensor, usable: Tensor, radius: float, share: Tensor, weights: tuple[float, float]
) -> Linearised:
    """Residuals of gaps (B, S, 3) from samples to their matches, which count by ``share`` (B, S).

    ``weights`` are those of the distance to the tangent plane and of that to the point. Samples without a match cost
    what one at the radius does.
    """
    plane, point = weights
    across = (normal * gap).sum(-1)
    limit = max((plane + point) * radius**2, 1e-30)
    robust, energy = tukey(plane * across**2 + point * (gap**2).sum(-1), limit)
    energy = torch.where(usable, energy, limit / 3.0)
    weight = (share * torch.where(usable, robust, 0.0))[..., None]
    along = plane * weight * normal
    identity = torch.eye(3, dtype=gap.dtype, device=gap.device)
    information = along[..., None] * normal[..., None, :] + point * weight[..., None] * identity
    return information, along * across[..., None] + point * weight * gap, (share * energy).sum(1)


def depth_surface(depth: Tensor, intrinsics: Intrinsics) -> tuple[Tensor, Tensor]:
    """Points and unit normals (B, H, W, 3), towards the camera, of depth images (B, H, W) in metres, 0 for none.

    NaN where there is no depth; normals also next to a border or a step in depth. In the camera optical frame.
    """
    height, width = depth.shape[1:]
    k = intrinsics
    column = torch.arange(width, dtype=depth.dtype, device=depth.device)
    row = torch.arange(height, dtype=depth.dtype, device=depth.device)[:, None]
    known = torch.where(depth > 0, depth, torch.nan)
    points = torch.stack(((column - k.cx) / k.fx * known, (row - k.cy) / k.fy * known, known), dim=-1)
    normals = torch.full_like(points, torch.nan)
    across = points[:, 1:-1, 2:] - points[:, 1:-1, :-2]
    down = points[:, 2:, 1:-1] - points[:, :-2, 1:-1]
    normal = torch.nn.functional.normalize(torch.linalg.cross(down, across), dim=-1)
    middle = points[:, 1:-1, 1:-1]
    facing = -(normal * middle).sum(-1) / middle.norm(dim=-1)
    normals[:, 1:-1, 1:-1] = torch.where((facing > _GLANCING)[..., None], normal, torch.nan)
    return points, normals
