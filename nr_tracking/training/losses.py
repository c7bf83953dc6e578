"""The losses, each a pure function of tensors; sums over samples, vertices and patches are means.

Distances inside the network are in box sides. The distance losses compare them in cells of their own level, so that
all levels pull equally; the deformation losses compare squared lengths in box sides, as in Merrouche et al. 2024.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def clamped_distance(predicted: Tensor, target: Tensor, clamp: float, weight: Tensor | None = None) -> Tensor:
    """L1 between signed distances (Q,), blind to how far a point is beyond ``clamp``: eq. 5, truncated.

    Only the target is clamped on both sides. A prediction is free beyond the clamp where the target is there too, on
    the same side; anywhere else it keeps its gradient (clamping both would leave a far point on the wrong side of the
    surface without one).
    """
    aim = target.clamp(-clamp, clamp)
    excess = predicted - aim
    beyond = ((target >= clamp) & (excess > 0)) | ((target <= -clamp) & (excess < 0))
    return _mean(excess.abs().masked_fill(beyond, 0.0), weight)


def close_distance(predicted: Tensor, target: Tensor, reach: float) -> Tensor:
    """L1 between signed distances (Q,) that are within ``reach`` of each other; further ones have no gradient.

    It sharpens a surface that is there already, and has no say in whether there is one.
    """
    return _mean((predicted - target).abs().clamp(max=reach))


def occupancy_entropy(
    predicted: Tensor, target: Tensor, weight: Tensor | None = None, sharpness: float = 3.0
) -> Tensor:
    """Binary cross entropy of being inside, with logit ``-sharpness * predicted``; distances (Q,) in any unit.

    A point on the surface itself is half inside.
    """
    inside = (target < 0).to(predicted.dtype) + 0.5 * (target == 0)
    return _mean(F.binary_cross_entropy_with_logits(-sharpness * predicted, inside, reduction="none"), weight)


def eikonal(gradient: Tensor) -> Tensor:
    """Squared deviation of the gradient's norm from one, of gradients (Q, 3) of a distance by its position: eq. 6."""
    # The square root has no derivative at zero; a tiny floor keeps a constant field from producing NaN.
    return _mean((gradient.square().sum(-1).clamp_min(1e-12).sqrt() - 1.0).square())


def contrast(
    first: Tensor, second: Tensor, first_points: Tensor, second_points: Tensor, *, radius: float, scale: float
) -> Tensor:
    """Contrastive loss of corresponding points in two frames, in both directions.

    ``first`` and ``second`` (K, E) are unit embeddings, row k of both is one point of the surface, at
    ``first_points[k]`` and ``second_points[k]`` (K, 3). Points that lie within about ``radius`` of each other *in both
    frames* share the target, so that neighbours on the surface are not told apart for nothing, while a hand that
    touches a hip in one frame only is.
    """
    cosine = first @ second.T
    apart = torch.maximum(_squared_distances(first_points), _squared_distances(second_points))
    target = torch.softmax(-0.5 * apart / radius**2, dim=-1)
    rows = -(target * torch.log_softmax(scale * cosine, dim=-1)).sum(-1)
    columns = -(target * torch.log_softmax(scale * cosine.T, dim=-1)).sum(-1)
    # Less the entropy of the target: what remains is zero for a perfect embedding whatever the density of the points.
    entropy = -(target * target.clamp_min(1e-12).log()).sum(-1)
    return _mean(0.5 * (rows + columns) - entropy)


def two_cycle(forward: Tensor, backward: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Centres (P, 3), (Q, 3) carried to the other frame and back by row-stochastic (P, Q), (Q, P): eq. 17."""
    return squared_error(forward @ (backward @ first), first) + squared_error(backward @ (forward @ second), second)


def three_cycle(first: Tensor, second: Tensor, third: Tensor, centres: Tensor) -> Tensor:
    """Centres (P, 3) of a frame carried round three frames by ``first @ second @ third``: eq. 18."""
    return squared_error(first @ (second @ (third @ centres)), centres)


def self_reconstruction(association: Tensor, centres: Tensor) -> Tensor:
    """Centres (P, 3) rebuilt from the association (P, P) of a frame with itself: eq. 19."""
    return squared_error(association @ centres, centres)


def squared_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared length of the difference of points (P, 3): eq. 12 for deformed centres and their associations."""
    return _mean((predicted - target).square().sum(-1))


def robust_error(predicted: Tensor, target: Tensor, scale: float) -> Tensor:
    """Mean length of the difference of points (P, 3), quadratic below ``scale``: true correspondences have outliers."""
    squared = (predicted - target).square().sum(-1)
    return _mean((squared + scale**2).sqrt() - scale)


def surface_distance(distance: Tensor) -> Tensor:
    """Mean absolute distance (V,) of deformed vertices in the next frame's field: eq. 14."""
    return _mean(distance.abs())


def _squared_distances(points: Tensor) -> Tensor:
    return torch.cdist(points, points).square()


def _mean(values: Tensor, weight: Tensor | None = None) -> Tensor:
    """Weighted mean that is zero, and still part of the graph, where there is nothing to average."""
    if weight is None:
        return values.sum() / max(values.numel(), 1)
    return (weight * values).sum() / weight.sum().clamp_min(1e-6)
