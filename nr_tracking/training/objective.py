"""What a step minimises: the losses of its windows, by name, for whichever weights are not zero.

The fields are compared with true distances (eq. 3-7 of Merrouche et al. 2024, with occupancy beside them) and their
embedding with true correspondences. How patches are associated and deformed is in :mod:`.motion`.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from nr_tracking.config import Config, TrainingConfig
from nr_tracking.fields.completion import CompletionNetwork
from nr_tracking.fields.field import FieldWindow
from nr_tracking.fields.rays import LIMIT, RayField
from nr_tracking.sensing.ray_images import joined
from nr_tracking.training import losses
from nr_tracking.training.batches import TrainingBatch
from nr_tracking.training.motion import motion_losses
from nr_tracking.training.schedule import Stage


def window_losses(
    networks: nn.ModuleDict, batch: TrainingBatch, stage: Stage, config: Config, taught: bool
) -> dict[str, Tensor]:
    """Run the networks on one window and return the weighted losses; ``taught``: with true refinement masks."""
    completion = cast(CompletionNetwork, networks["completion"])
    with torch.set_grad_enabled(_learns(completion)):
        field = completion(batch.window, batch.teacher if taught else None)
    found = field_losses(field, batch, stage, config.training)
    if stage.weights.associates or stage.weights.deforms:
        decoder = networks["deformation"] if stage.weights.deforms else None
        found |= motion_losses(field, decoder, batch, stage.weights, config)
    return found


def frame_losses(
    networks: nn.ModuleDict, batches: list[TrainingBatch], training: TrainingConfig
) -> list[dict[str, Tensor]]:
    """Complete the frames of all windows along their rays; a student learns from the truth and from the result."""
    images = joined([batch.window.rays for batch in batches if batch.window.rays is not None])
    teacher = cast(CompletionNetwork, networks["completion"])
    learns = _learns(teacher)
    with torch.set_grad_enabled(learns):
        field = teacher.complete_rays(images)
    rows: list[dict[str, Tensor]] = [{} for _ in batches]
    if learns:
        rows = [
            ray_losses(predicted, batch, training)
            for predicted, batch in zip(along_rays(field, batches), batches, strict=True)
        ]
    if "student" in networks:
        learnt = cast(CompletionNetwork, networks["student"]).complete_rays(images)
        taught = training.distillation * (learnt.distances - field.distances.detach()).abs().mean()
        for row, predicted, batch in zip(rows, along_rays(learnt, batches), batches, strict=True):
            row |= {f"student_{name}": value for name, value in ray_losses(predicted, batch, training).items()}
            row["student_taught"] = taught  # a mean over the windows already, as the mean of the rows will be
    return rows


def field_losses(field: FieldWindow, batch: TrainingBatch, stage: Stage, training: TrainingConfig) -> dict[str, Tensor]:
    """Weighted losses of the fields on every level that counts, and of the embedding."""
    found: dict[str, Tensor] = {}
    weights = stage.weights
    volume = batch.weight.clamp_min(1e-9).pow(stage.volume) * (batch.weight > 0)
    for position, level in enumerate(field.levels):
        distance = weights.fine_distance if position else weights.coarse_distance
        smooth = weights.fine_eikonal if position else weights.coarse_eikonal
        if distance == smooth == 0:
            continue
        points = batch.points.detach().requires_grad_(smooth > 0)
        predicted, valid = field.level_sdf(level, points, batch.frame)
        # Cells of this level: the same error then weighs the same in proportion to what the level can resolve.
        cells, target, weight = level * predicted[valid], level * batch.distance[valid], volume[valid]
        clamped = losses.clamped_distance(cells, target, training.clamp_cells[position], weight)
        found[f"distance_{level}"] = distance * clamped
        if weights.close > 0:
            close = losses.close_distance(cells, target, training.precision_cells)
            found[f"close_{level}"] = distance * weights.close * close
        if weights.occupancy > 0:
            found[f"occupancy_{level}"] = distance * weights.occupancy * losses.occupancy_entropy(cells, target, weight)
        if smooth > 0:
            (gradient,) = torch.autograd.grad(predicted.sum(), points, create_graph=True)
            found[f"eikonal_{level}"] = smooth * losses.eikonal(gradient[valid])
    if weights.completes and field.rays is not None and field.rays.share == 1 and field.rays.distances.requires_grad:
        # No level has a part of them: where they learn, they need a loss of their own.
        found |= ray_losses(field.rays.sdf(batch.points, batch.frame), batch, training)
    if weights.contrast > 0:
        found["contrast"] = weights.contrast * contrast_loss(field, batch, training)
    return found


def contrast_loss(field: FieldWindow, batch: TrainingBatch, training: TrainingConfig) -> Tensor:
    """Contrastive loss between the two frames of the batch's pair."""
    first, second = batch.matched
    count = len(first)
    frame = torch.tensor(batch.pair, device=first.device).repeat_interleave(count)
    embedding = field.embedding(torch.cat((first, second)), frame)
    return losses.contrast(
        embedding[:count],
        embedding[count:],
        first,
        second,
        radius=training.contrast_radius,
        scale=training.contrast_scale,
    )


def ray_losses(predicted: Tensor, batch: TrainingBatch, training: TrainingConfig) -> dict[str, Tensor]:
    """Distances ``predicted`` (Q,) along rays at the points of a batch, and whether these are inside or outside.

    The latter over the volume of space in units of the body's own volume; of a thin sheet's, which nothing is left of
    as it gets thinner, in units of the shell around its surface in which the logits of inside and outside overlap.
    """
    distance = losses.clamped_distance(predicted, batch.distance, LIMIT)
    entropy = losses.occupancy_entropy(predicted, batch.distance, batch.weight, training.ray_sharpness)
    space, body = batch.weight.sum(), batch.weight[batch.distance < 0].sum()
    shell = batch.weight[batch.distance.abs() < 1 / training.ray_sharpness].sum()
    return {
        "ray_distance": training.ray_distance * distance,
        "ray_occupancy": entropy * space / torch.maximum(body, shell).clamp(min=1e-6),
    }


def along_rays(field: RayField, batches: list[TrainingBatch]) -> tuple[Tensor, ...]:
    """Distances (Q,) that a field of all batches' frames, one after another, has at the points of each batch."""
    frames = np.cumsum([0, *(len(batch.window.seen) for batch in batches[:-1])]).tolist()
    points = torch.cat([batch.points for batch in batches])
    frame = torch.cat([batch.frame + first for batch, first in zip(batches, frames, strict=True)])
    # At once: each backward pass through a part of the field would fill the gradient of all of it.
    return field.sdf(points, frame).split([len(batch.points) for batch in batches])


def _learns(network: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in network.parameters())
