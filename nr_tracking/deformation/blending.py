"""Blending the rigid motions of patches over a surface, and what it costs when neighbours disagree.

    blend = blend_weights(vertices, graph)
    moved = deform(vertices, blend, graph.centres, rotations, translations)
    energy = rigidity_energy(rigidity_moments(vertices, graph, blend), rotations, translations)

Patch k predicts ``x_k(v) = R_k (v - c_k) + u_k`` for a vertex v. A vertex follows the mean of the predictions of its
own patch and the adjacent ones, weighted by a Gaussian of its distance to their centres; the rigidity energy is the
weighted squared difference between the predictions of adjacent patches over their vertices (Merrouche et al. 2024, eq.
21-22, after Cagniart, Boyer and Ilic, CVPR 2010). A rigid motion of the whole is reproduced exactly and costs nothing.

Everything is differentiable in rotations and translations; vertices and graph are constants.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nr_tracking.deformation.patches import PatchGraph, neighbour_table


@dataclass(frozen=True)
class Blend:
    """Which patches move each point: ``index`` (V, S) int64 and ``weight`` (V, S), rows sum to 1.

    The own patch comes first, then its neighbours, unless only the largest weights were kept: these come by their size,
    and the own patch may be none of them. Slots beyond a patch's neighbours repeat the own patch with weight 0.
    """

    index: Tensor
    weight: Tensor


@dataclass(frozen=True)
class RigidityMoments:
    """All that the rigidity energy needs of the vertices, gathered once per surface.

    The difference of two rigid motions is affine in v, so a weighted sum of its square needs only the weighted zeroth,
    first and second moments of v. ``pairs`` (E, 2) adjacent patches; ``arms`` (E, 2, 3) from either centre to the mean
    vertex of the edge; ``covariance`` (E, 3, 3) about that mean; weights of an edge sum to 1.
    """

    pairs: Tensor
    arms: Tensor
    covariance: Tensor


def blend_weights(
    points: Tensor | np.ndarray, graph: PatchGraph, owner: Tensor | np.ndarray | None = None, limit: int | None = None
) -> Blend:
    """Weights of the patches that move each of ``points`` (V, 3): own patch and adjacent ones.

    ``owner`` (V,) names the own patch of each point; None where the points are the vertices of the graph's surface.
    ``limit`` keeps only that many largest weights, the largest first. The Gaussian of patch k has its ``widths[k]`` as
    standard deviation.
    """
    points = torch.as_tensor(points)
    owners = torch.as_tensor(graph.owner if owner is None else owner, device=points.device).long()
    table, _, valid = neighbour_table(graph.neighbours, len(graph))
    own = np.arange(len(graph))[:, None]
    support = torch.as_tensor(np.concatenate((own, table), axis=1), device=points.device)
    usable = torch.as_tensor(np.concatenate((own >= 0, valid), axis=1), device=points.device)
    index, usable = support[owners], usable[owners]
    centres = torch.as_tensor(graph.centres, dtype=points.dtype, device=points.device)
    widths = torch.as_tensor(graph.widths, dtype=points.dtype, device=points.device)
    exponent = -0.5 * ((points[:, None] - centres[index]) ** 2).sum(-1) / widths[index] ** 2
    exponent = exponent.masked_fill(~usable, -torch.inf)
    if limit is not None and limit < index.shape[1]:
        exponent, kept = exponent.topk(limit, dim=1)
        index = index.gather(1, kept)
    return Blend(index, torch.softmax(exponent, dim=1))


def deform(
    points: Tensor, blend: Blend, centres: Tensor | np.ndarray, rotations: Tensor, translations: Tensor
) -> Tensor:
    """Move points (V, 3) by the blend of the patch motions ``x -> R_k (x - c_k) + u_k``.

    ``centres`` c (P, 3), ``rotations`` R (P, 3, 3), ``translations`` u (P, 3); returns (V, 3).
    """
    # The mean of the predictions is one affine map per vertex: blend the maps, then apply once.
    centres = torch.as_tensor(centres, dtype=translations.dtype, device=translations.device)
    offsets = translations - (rotations @ centres[:, :, None])[..., 0]
    maps = torch.cat((rotations, offsets[:, :, None]), dim=2)
    blended = (blend.weight[:, :, None, None].to(maps.dtype) * maps[blend.index]).sum(1)
    return (blended[:, :, :3] @ points[:, :, None].to(maps.dtype))[..., 0] + blended[:, :, 3]


def rigidity_moments(points: Tensor | np.ndarray, graph: PatchGraph, blend: Blend | None = None) -> RigidityMoments:
    """Gather the moments of the vertices ``points`` (V, 3) of the graph's surface for :func:`rigidity_energy`.

    ``blend`` is that of :func:`blend_weights` without limit, computed here where it is None.
    """
    points = torch.as_tensor(points)
    blend = blend_weights(points, graph) if blend is None else blend
    table, edge, valid = neighbour_table(graph.neighbours, len(graph))
    if blend.index.shape[1] != table.shape[1] + 1:
        raise ValueError("rigidity needs the weights of all adjacent patches: call blend_weights without a limit")
    owner = torch.as_tensor(graph.owner, device=points.device).long()
    used = torch.as_tensor(valid, device=points.device)[owner]
    rows = torch.as_tensor(edge, device=points.device)[owner][used]
    vertex = torch.arange(len(points), device=points.device)[:, None].expand(used.shape)[used]
    weight = (blend.weight[:, :1] + blend.weight[:, 1:])[used].to(points.dtype)

    count = len(graph.neighbours)

    def total(values: Tensor) -> Tensor:
        return values.new_zeros((count, *values.shape[1:])).index_add_(0, rows, values)

    share = weight / total(weight).clamp_min(torch.finfo(points.dtype).tiny)[rows]
    mean = total(share[:, None] * points[vertex])
    arm = points[vertex] - mean[rows]
    covariance = total(share[:, None, None] * arm[:, :, None] * arm[:, None, :])
    pairs = torch.as_tensor(graph.neighbours, device=points.device).long()
    centres = torch.as_tensor(graph.centres, dtype=points.dtype, device=points.device)
    return RigidityMoments(pairs, mean[:, None] - centres[pairs], covariance)


def rigidity_energy(moments: RigidityMoments, rotations: Tensor, translations: Tensor) -> Tensor:
    """Mean over adjacent patches of the weighted squared difference of their predictions (eq. 21-22), a scalar.

    ``rotations`` (P, 3, 3) and ``translations`` (P, 3) as in :func:`deform`; the unit is that of the points, squared.
    """
    if len(moments.pairs) == 0:
        return translations.sum() * 0.0
    turn, place = rotations[moments.pairs], translations[moments.pairs]
    predicted = (turn @ moments.arms[..., None])[..., 0] + place
    gap = predicted[:, 0] - predicted[:, 1]
    shear = turn[:, 0] - turn[:, 1]
    spread = ((shear @ moments.covariance) * shear).sum((1, 2))
    return (gap.square().sum(1) + spread).mean()
