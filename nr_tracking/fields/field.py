"""The neural field: feature grids, interpolation between voxels, and the network that turns features into distances.

Points are box coordinates, x in [-0.5, 0.5]^3; voxel i of a grid with R voxels along a side is centred at
(i + 0.5) / R - 0.5. Signed distances are in box sides, negative inside. Interpolation is written as a weighted sum of
the eight corner features, so that it can be differentiated twice (``grid_sample`` cannot), with respect to the points
and to the features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from nr_tracking.fields.fusion import FrameCodes
from nr_tracking.fields.neighbours import with_absent
from nr_tracking.fields.pointwise import Linear
from nr_tracking.fields.rays import RayField
from nr_tracking.fields.sparse import SparseGrid
from nr_tracking.sensing.tensors import as_array, loops_for, recorded

ROUNDING = 1e-5  # a scale with a smaller share in a value is left out


def trilinear_corners(points: Tensor, frame: Tensor, resolution: int, padding: int = 0) -> tuple[Tensor, Tensor]:
    """The eight voxels around each point.

    ``points`` (Q, 3), ``frame`` (Q,) -> places (Q, 8) int32 in an array (N, R + 2 p, R + 2 p, R + 2 p), p =
    ``padding``, and weights (Q, 8), which sum to 1. Beyond the outermost voxel centres the value there continues
    (``border`` padding without aligned corners).
    """
    position = ((points + 0.5) * resolution - 0.5).clamp(0, resolution - 1)
    lower = position.detach().floor().clamp(max=resolution - 2)
    part = position - lower
    share = torch.stack([1 - part, part], dim=2)  # (Q, 3, 2)
    plane = share[:, 0, :, None] * share[:, 1, None, :]
    weights = plane.reshape(-1, 4, 1) * share[:, 2, None, :]

    side = resolution + 2 * padding
    x, y, z = (lower.int() + padding).unbind(1)
    first = ((frame.int() * side + x) * side + y) * side + z
    bit = torch.arange(2, dtype=torch.int32, device=points.device)
    steps = (bit[:, None, None] * side * side + bit[:, None] * side + bit).reshape(8)
    return first[:, None] + steps, weights.reshape(-1, 8)


class _CornerSum(torch.autograd.Function):
    """out[q] = sum over k of weights[q, k] * features[rows[q, k]], without keeping the gathered corners."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weights: Tensor, rows: Tensor) -> Tensor:
        """Shapes: features (M, C), weights (Q, K), rows (Q, K) int32 -> (Q, C)."""
        ctx.save_for_backward(features, weights, rows)
        return functional.embedding_bag(rows, features, mode="sum", per_sample_weights=weights)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Made of differentiable operations, so that it can be differentiated again."""
        features, weights, rows = ctx.saved_tensors
        grad_features = grad_weights = None
        if ctx.needs_input_grad[0]:
            spread = (weights[..., None] * grad[:, None]).reshape(-1, grad.shape[1])
            grad_features = torch.zeros_like(features).index_add(0, rows.reshape(-1), spread)
        if ctx.needs_input_grad[1]:
            corners = features.index_select(0, rows.reshape(-1)).view(*rows.shape, features.shape[1])
            grad_weights = (corners * grad[:, None]).sum(2)
        return grad_features, grad_weights, None


def interpolate_dense(features: Tensor, points: Tensor, frame: Tensor) -> Tensor:
    """Trilinear interpolation in ``features`` (N, R, R, R, C) at ``points`` (Q, 3) of ``frame`` (Q,) -> (Q, C)."""
    resolution = features.shape[1]
    loops = loops_for("grids", points)
    if loops is not None and _is_plain(features):
        found = features.new_empty(len(points), features.shape[-1])
        where = as_array(points.contiguous()), as_array(frame.long().contiguous())
        loops.read_dense(*where, as_array(features.contiguous()), as_array(found))
        return found
    rows, weights = trilinear_corners(points, frame, resolution)
    return _CornerSum.apply(features.reshape(-1, features.shape[-1]), weights.to(features.dtype), rows)


def _is_plain(features: Tensor) -> bool:
    """Whether loops can read ``features`` on a CPU, whose gradients nobody will ask for."""
    return features.dtype in (torch.float32, torch.bfloat16) and not recorded(features)


def interpolate_sparse(features: Tensor, grid: SparseGrid, points: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
    """Trilinear interpolation between active voxels.

    ``features`` (M, C) on ``grid``, ``points`` (Q, 3), ``frame`` (Q,) -> values (Q, C), valid (Q,) bool. Absent corners
    have no weight and the remaining weights are made to sum to 1; a point is *valid* when all eight corners are active,
    because only there is the value that of the dense grid. Without any corner the value is 0.
    """
    rows, weights, present = _sparse_corners(grid, points, frame)
    weights = weights / torch.where(present > 0, present, torch.ones_like(present))[:, None]
    valid = (rows < len(grid)).all(1)
    return _CornerSum.apply(with_absent(features), weights.to(features.dtype), rows), valid


def _sparse_corners(grid: SparseGrid, points: Tensor, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The voxels around each point as far as they are active.

    Returns rows (Q, 8) int32, M for an absent voxel; weights (Q, 8), 0 for an absent voxel; and their sum (Q,), which
    is 1 where all eight are active and continuous everywhere.
    """
    places, weights = trilinear_corners(points, frame, grid.resolution, padding=1)
    rows = grid.table.index_select(0, places.reshape(-1)).view(-1, 8)
    weights = weights * (rows < len(grid))
    return rows, weights, weights.sum(1)


class DistanceMLP(nn.Module):
    """Features of a point and the point itself to its signed distance (Merrouche et al. 2024, eq. 2).

    One network serves all scales. The activation is SiLU: smooth like the customary Softplus with beta = 100, which an
    eikonal term needs, and ten times cheaper on a CPU. With three or more hidden layers, the input enters again at the
    second one. The last layer counts in voxels of the coarse grid (``unit`` box sides) and starts at ``start`` of
    them, by default outside: a field that has learnt nothing is empty space, with nothing in it to refine.
    """

    OUTSIDE = 1.5

    def __init__(self, channels: int, width: int, layers: int, unit: float, start: float = OUTSIDE) -> None:
        super().__init__()
        inputs = channels + 3
        widths = [inputs] + [width] * layers
        self.skip = 1 if layers >= 3 else -1
        self.hidden = nn.ModuleList(
            Linear(widths[i] + (inputs if i == self.skip else 0), widths[i + 1]) for i in range(layers)
        )
        self.last = nn.Linear(width, 1)
        self.unit = unit
        for layer in self.hidden:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.last.weight, std=0.1 / width**0.5)
        nn.init.constant_(self.last.bias, start)

    def forward(self, features: Tensor, points: Tensor) -> Tensor:
        """``features`` (Q, C), ``points`` (Q, 3) box coordinates -> (Q,) signed distance in box sides."""
        inputs = torch.cat([features, 2 * points.to(features.dtype)], dim=1)
        hidden = inputs
        for i, layer in enumerate(self.hidden):
            hidden = layer(torch.cat([hidden, inputs], dim=1) if i == self.skip else hidden)
            hidden = functional.silu(hidden, inplace=not torch.is_grad_enabled())
        return self.last(hidden)[:, 0] * self.unit


class EmbeddingHead(nn.Module):
    """Features of a point on all scales to a unit vector that is meant to be equal on corresponding points."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.hidden = Linear(3 * channels, 2 * outputs)
        self.last = Linear(2 * outputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """(Q, 3 C) -> (Q, E), of length 1."""
        return functional.normalize(self.last(functional.silu(self.hidden(features))), dim=1, eps=1e-6)


class KnownDistances(NamedTuple):
    """Signed distances in box sides that were computed, without gradients, to find what to refine.

    ``coarse`` (N, r, r, r) at the voxel centres of the coarse scale, or of the middle one where rays tell that much;
    ``children`` (M, 8) at the centres of the children of the middle scale's active voxels, by octant.
    """

    coarse: Tensor
    children: Tensor


class FieldWindow:
    """The signed distance fields of the N frames of one or more windows, on three scales.

    ``coarse`` (N, r, r, r, C) with r = R / 4; ``middle`` and ``fine`` (M, C) on their grids of R / 2 and R. All methods
    take ``points`` (Q, 3) box coordinates and ``frame`` (Q,) int64 in [0, N), are deterministic, and can be
    differentiated twice with respect to points and once with respect to weights. With ``rays``, distances are a
    mean of those along rays and those of the features. ``codes``: what frames to come may attend to.
    """

    def __init__(
        self,
        coarse: Tensor,
        middle: tuple[SparseGrid, Tensor],
        fine: tuple[SparseGrid, Tensor],
        known: KnownDistances,
        distance: DistanceMLP,
        head: EmbeddingHead,
        rays: RayField | None = None,
        codes: FrameCodes | None = None,
    ) -> None:
        self.coarse = coarse
        self.rays = rays
        self.codes = codes
        self.known = known
        self.middle_grid, self.middle = middle
        self.fine_grid, self.fine = fine
        self.distance = distance
        self.head = head
        self.frames = coarse.shape[0]
        self.resolution = self.fine_grid.resolution
        self.levels = (coarse.shape[1], self.middle_grid.resolution, self.fine_grid.resolution)
        self._padded: dict[int, Tensor] = {}

    @property
    def device(self) -> torch.device:
        """Where points are to be given."""
        return self.coarse.device

    def level_features(self, level: int, points: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
        """Features (Q, C) of one scale and valid (Q,) bool; ``level`` is its resolution, one of ``levels``."""
        if level == self.levels[0]:
            values = interpolate_dense(self.coarse, points, frame)
            return values, torch.ones(len(points), dtype=torch.bool, device=points.device)
        grid, features = self._sparse(level)
        return interpolate_sparse(features, grid, points, frame)

    def level_sdf(self, level: int, points: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
        """Signed distance (Q,) in box sides as one scale has it, and valid (Q,) bool.

        ``level`` is the scale's resolution, one of ``levels``. The coarse scale is valid everywhere, a finer one where
        all eight voxels around a point are active; elsewhere its value means nothing. Mixed with that along rays, if
        both have a share in the field.
        """
        features, valid = self.level_features(level, points, frame)
        own = self.distance(features, points)
        return (own if self.rays is not None and self.rays.share == 1 else self._mixed(own, points, frame)), valid

    def sdf(self, points: Tensor, frame: Tensor) -> Tensor:
        """Signed distance (Q,) in box sides from the finest scale there is, blended where one ends."""
        total = points.new_zeros(len(points))
        for chosen, share, features in self._blend(points, frame, self.levels[2]):
            total = total.index_add(0, chosen, share * self.distance(features, points[chosen]))
        return self._mixed(total, points, frame)

    def features(self, points: Tensor, frame: Tensor) -> Tensor:
        """Features (Q, C) of the finest scale there is, blended like :meth:`sdf`."""
        return self._blended_features(points, frame, self.levels[2])

    def embedding(self, points: Tensor, frame: Tensor) -> Tensor:
        """Unit vectors (Q, E) for associating points of different frames, from the features of all three scales."""
        scales = [self._blended_features(points, frame, level) for level in self.levels]
        return self.head(torch.cat(scales, dim=1))

    @torch.no_grad()
    def grid(self, frame: int) -> Tensor:
        """Signed distance (R, R, R) in box sides at all voxel centres of one frame, without gradients.

        Active voxels of the fine scale have its values, other children of the middle scale's voxels that scale's,
        interpolated, and the rest the coarse scale's, interpolated.
        """
        side = self.resolution
        values = upsample(self.known.coarse[frame], side // self.known.coarse.shape[1])
        flat, own = values.view(-1), self._rows(self.middle_grid, frame)
        parents = self.middle_grid.coords[own, 1:].long() * 2
        bit = torch.arange(2, device=values.device)
        octants = (bit[:, None, None] * side**2 + bit[:, None] * side + bit).reshape(8)
        first = (parents[:, 0] * side + parents[:, 1]) * side + parents[:, 2]
        flat[(first[:, None] + octants).reshape(-1)] = self.known.children[own].reshape(-1)
        own = self._rows(self.fine_grid, frame)
        x, y, z = self.fine_grid.coords[own, 1:].long().unbind(1)
        # Only this frame's: one that two windows share is meshed in the first.
        centres, frames = self.fine_grid.centres[own], self.fine_grid.frame_index[own]
        flat[(x * side + y) * side + z] = self._mixed(self.distance(self.fine[own], centres), centres, frames)
        return values

    def _mixed(self, distance: Tensor, points: Tensor, frame: Tensor) -> Tensor:
        """Distances (Q,) by the features together with those along rays, where there are any."""
        return distance if self.rays is None else self.rays.mixed(distance, self.rays.sdf(points, frame))

    def _blend(self, points: Tensor, frame: Tensor, finest: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """For each scale from ``finest`` on: the points (K,) int64 it serves, its share (K,), its features (K, C).

        A sparse scale has the whole of a point whose eight corners are active. Beyond its outermost voxels its share
        falls to nothing over half a voxel, where the interpolation still continues the remaining corners. The next
        coarser scale gets what is left.
        """
        left = torch.arange(len(points), device=points.device)
        remaining = points.new_ones(len(points))
        loops = loops_for("grids", points, self.middle, self.fine)
        for level in reversed([level for level in self.levels[1:] if level <= finest]):
            grid, _ = self._sparse(level)
            if loops is not None:
                known = grid.table, level, self._with_absent(level)
                given = points.contiguous(), frame.contiguous(), left, remaining, *known
                arrays = (each.detach().numpy() if isinstance(each, Tensor) else each for each in given)
                found = loops.read_sparse(*arrays, ROUNDING)
                chosen, share, values, left, remaining = (torch.from_numpy(part) for part in found)
                yield chosen, share, values
                continue
            rows, weights, present = _sparse_corners(grid, points[left], frame[left])
            support = (2 * present - 1).clamp(0, 1)
            some = (support > 0).nonzero()[:, 0]
            weights = weights[some] / present[some, None]
            features = self._with_absent(level)
            values = _CornerSum.apply(features, weights.to(features.dtype), rows[some])
            yield left[some], (remaining * support)[some], values
            remaining = remaining * (1 - support)
            rest = (remaining > ROUNDING).nonzero()[:, 0]
            left, remaining = left[rest], remaining[rest]
        yield left, remaining, interpolate_dense(self.coarse, points[left], frame[left])

    def _blended_features(self, points: Tensor, frame: Tensor, finest: int) -> Tensor:
        """Features (Q, C) of the finest scale there is, none finer than ``finest``."""
        total = self.coarse.new_zeros(len(points), self.coarse.shape[-1])
        for chosen, share, features in self._blend(points, frame, finest):
            total = total.index_add(0, chosen, share[:, None].to(features.dtype) * features)
        return total

    def _sparse(self, level: int) -> tuple[SparseGrid, Tensor]:
        """Grid and features of a sparse scale."""
        if level == self.levels[1]:
            return self.middle_grid, self.middle
        if level == self.levels[2]:
            return self.fine_grid, self.fine
        raise ValueError(f"level {level} is none of the field's resolutions {self.levels}")

    def _with_absent(self, level: int) -> Tensor:
        """The features of a sparse scale with a row for voxels that are not active, made once for all reads alike."""
        kept, features = self._padded.get(level), self._sparse(level)[1]
        # One that was made without recording would keep gradients from the features.
        if kept is None or (recorded(features) and not kept.requires_grad):
            kept = self._padded[level] = with_absent(features)
        return kept

    def _rows(self, grid: SparseGrid, frame: int) -> slice:
        """Which rows of a grid belong to one frame; they are sorted by frame."""
        ends = torch.searchsorted(
            grid.coords[:, 0].contiguous(), torch.tensor([frame, frame + 1], device=grid.device, dtype=torch.int32)
        ).tolist()
        return slice(*ends)


def lattice(resolution: int, like: Tensor) -> Tensor:
    """Box coordinates (R^3, 3) of all voxel centres, z fastest, with the type and device of ``like``."""
    axis = (torch.arange(resolution, device=like.device, dtype=like.dtype) + 0.5) / resolution - 0.5
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).reshape(-1, 3)


def upsample(values: Tensor, factor: int) -> Tensor:
    """Trilinear interpolation of ``values`` (a, b, c) at the voxel centres of a grid ``factor`` times as fine."""

    def shares(position: Tensor, count: int) -> Tensor:
        away = position.clamp(0, count - 1)[:, None] - torch.arange(count, device=values.device)
        return (1 - away.abs()).clamp(min=0)

    return _interpolated(values, factor, shares)


def upsample_smoothly(values: Tensor, factor: int) -> Tensor:
    """Like :func:`upsample`, by cubic convolution: it keeps the valley of a distance along a thin limb."""
    return _interpolated(values, factor, cubic_shares)


def _interpolated(values: Tensor, factor: int, shares: Callable[[Tensor, int], Tensor]) -> Tensor:
    def along(axis: int) -> Tensor:
        """What each of an axis' values has of the finer ones, (n factor, n)."""
        count = values.shape[axis]
        place = torch.arange(count * factor, device=values.device, dtype=values.dtype)
        return shares((place + 0.5) / factor - 0.5, count)

    first, second, third = values.shape
    values = (values.reshape(-1, third) @ along(2).t()).view(first, second, -1)
    values = along(1) @ values  # a product for each of the first axis, without turning anything around
    return (along(0) @ values.view(first, -1)).view(first * factor, second * factor, third * factor)


def cubic_shares(position: Tensor, count: int) -> Tensor:
    """Weights (Q, count) of samples at 0 .. count - 1 in values at ``position`` (Q,): cubic convolution (Keys 1981).

    Linear interpolation would flatten the valley of a distance along a thin limb, and every average make it thinner.
    Beyond the outermost samples the value there continues.
    """
    position = position.clamp(0, count - 1)
    steps = torch.arange(-1, count + 1, dtype=position.dtype, device=position.device)
    x = (position[:, None] - steps).abs()
    near = ((1.5 * x - 2.5) * x) * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    shares = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    shares[:, 1] += shares[:, 0]
    shares[:, -2] += shares[:, -1]
    return shares[:, 1:-1]
