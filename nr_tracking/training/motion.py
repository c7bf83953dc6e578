"""The losses of associations and deformations between successive frames of a window.

Meshes, patches and their centres are constants of a step, as marching cubes is not differentiated. Gradients reach the
fields through the features at the centres, and through the next frame's field at the deformed vertices (eq. 14 of
Merrouche et al. 2024). Lengths are measured in cells of R.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nr_tracking.config import Config, MeshConfig
from nr_tracking.deformation.association import associate
from nr_tracking.deformation.blending import (
    Blend,
    RigidityMoments,
    blend_weights,
    deform,
    rigidity_energy,
    rigidity_moments,
)
from nr_tracking.deformation.patches import PatchGraph, build_patches
from nr_tracking.fields.field import FieldWindow
from nr_tracking.fields.meshing import extract_surface
from nr_tracking.training import losses
from nr_tracking.training.batches import TrainingBatch
from nr_tracking.training.schedule import LossWeights
from nr_tracking.types import InputError

_MESH = MeshConfig(upsample=1, carve=False)  # half a cell is accurate enough for patches, and four times faster


@dataclass(frozen=True)
class PatchSurface:
    """The surface of one frame cut into P patches.

    ``vertices`` (V, 3) and ``centres`` (P, 3) in box coordinates; ``features`` (P, E) embeddings of the centres and
    ``coarse`` (P, C) their features on the coarse scale.
    """

    frame: int
    vertices: Tensor
    graph: PatchGraph
    blend: Blend
    rigidity: RigidityMoments
    centres: Tensor
    features: Tensor
    coarse: Tensor


def motion_losses(
    field: FieldWindow, decoder: nn.Module | None, batch: TrainingBatch, weights: LossWeights, config: Config
) -> dict[str, Tensor]:
    """Weighted losses between frames that follow each other, beginning at the first frame of the batch's pair.

    Two frames suffice for deformations, three serve the cycles of associations (eq. 18). Empty where a field has no
    surface yet. Associations alone need no ``decoder``.
    """
    length = 3 if weights.associates else 2
    first = min(batch.pair[0], field.frames - length)
    try:
        surfaces = [patch_surface(field, first + step, config) for step in range(length)]
    except InputError as error:
        if error.reason != "no_surface":
            raise
        return {}
    found: dict[str, Tensor] = {}
    if weights.associates:
        found |= association_losses(surfaces, weights, config)
    if weights.deforms:
        if decoder is None:
            raise ValueError("losses of deformations need a deformation decoder")
        forward = deformation_losses(field, decoder, batch, surfaces[0], surfaces[1], weights, config)
        backward = deformation_losses(field, decoder, batch, surfaces[1], surfaces[0], weights, config)
        found |= {name: 0.5 * (forward[name] + backward[name]) for name in forward}
    return found


def patch_surface(field: FieldWindow, frame: int, config: Config) -> PatchSurface:
    """Mesh one frame and cut it into patches; raises :class:`InputError` ``no_surface`` where there is nothing."""
    vertices, faces = extract_surface(field, frame, _MESH)
    graph = build_patches(vertices, faces, config.deformation.patches, config.deformation.hierarchy)
    points = torch.from_numpy(vertices).to(field.coarse.device)
    centres = torch.from_numpy(graph.centres).to(points)
    blend = blend_weights(points, graph)
    frames = torch.full((len(centres),), frame, device=points.device)
    return PatchSurface(
        frame,
        points,
        graph,
        blend,
        rigidity_moments(points, graph, blend),
        centres,
        field.embedding(centres, frames),
        field.level_features(field.levels[0], centres, frames)[0],
    )


def association_losses(surfaces: list[PatchSurface], weights: LossWeights, config: Config) -> dict[str, Tensor]:
    """Cycle and self-reconstruction losses (eq. 16-20) of three surfaces, of fine and coarse features."""
    cells = float(config.model.resolution)
    found: dict[str, Tensor] = {}
    for prefix, cycle, own in (("", weights.cycle, weights.own), ("coarse_", weights.coarse_cycle, weights.coarse_own)):
        if cycle == own == 0:
            continue
        features = [surface.coarse if prefix else surface.features for surface in surfaces]
        centres = [cells * surface.centres for surface in surfaces]
        to = {
            (i, j): associate(features[i], features[j], config.deformation.softmax_scale)
            for i in range(3)
            for j in range(3)
        }
        two = [losses.two_cycle(to[i, j], to[j, i], centres[i], centres[j]) for i, j in ((0, 1), (1, 2))]
        three = [
            losses.three_cycle(to[0, 1], to[1, 2], to[2, 0], centres[0]),
            losses.three_cycle(to[2, 1], to[1, 0], to[0, 2], centres[2]),
        ]
        selves = [losses.self_reconstruction(to[i, i], centres[i]) for i in range(3)]
        found[f"{prefix}cycle"] = cycle * (torch.stack(two).mean() + torch.stack(three).mean())
        found[f"{prefix}own"] = own * torch.stack(selves).mean()
    return found


def deformation_losses(
    field: FieldWindow,
    decoder: nn.Module,
    batch: TrainingBatch,
    source: PatchSurface,
    target: PatchSurface,
    weights: LossWeights,
    config: Config,
) -> dict[str, Tensor]:
    """Losses of carrying ``source`` to ``target`` (eq. 12-15), and of where its vertices truly went."""
    cells = float(config.model.resolution)
    association = associate(source.features, target.features, config.deformation.softmax_scale)
    matched = association @ target.centres
    rotations, centres = decoder(source.centres, source.features, matched, association @ target.features, source.graph)
    moved = deform(source.vertices, source.blend, source.centres, rotations, centres)
    found: dict[str, Tensor] = {}
    if weights.match > 0:
        found["match"] = weights.match * losses.squared_error(cells * centres, cells * matched)
    if weights.rigidity > 0:
        found["rigidity"] = weights.rigidity * cells**2 * rigidity_energy(source.rigidity, rotations, centres)
    if weights.surface > 0:
        frames = torch.full((len(moved),), target.frame, device=moved.device)
        found["surface"] = weights.surface * losses.surface_distance(cells * field.sdf(moved, frames))
    if weights.position > 0:
        place, known = true_positions(source.vertices, batch.tracks[source.frame], batch.tracks[target.frame])
        error = losses.robust_error(cells * moved[known], cells * place[known], scale=1.0)
        found["position"] = weights.position * error
    return found


def true_positions(points: Tensor, before: Tensor, after: Tensor, reach: float = 0.03) -> tuple[Tensor, Tensor]:
    """Where points (V, 3) near a surface went: moved like the nearest point of ``before`` -> ``after`` (S, 3).

    Also returns which points (V,) bool are within ``reach`` of the true surface; the others were completed where there
    is nothing, and went nowhere.
    """
    distance, nearest = torch.cdist(points, before).min(1)
    return points + (after - before)[nearest], distance < reach
