"""How good the fields are on windows that were not trained on, while a run goes on."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from nr_tracking.config import Config
from nr_tracking.data.cache import WindowCache, WindowSample
from nr_tracking.fields.completion import CompletionNetwork
from nr_tracking.fields.field import FieldWindow
from nr_tracking.sensing.ray_images import RayImages
from nr_tracking.training.batches import TrainingBatch, prepare, sample_weights
from nr_tracking.types import InputError

_OTHER = (
    "stretch",
    "warp",
    "on_its_side",
    "mirror",
    "reverse",
    "dropout",
    "background",
    "occluder",
    "dark",
    "stereo",
    "single_frame_cube",
    "centre_jitter",
)
_ONLY_NOISE = {
    **dict.fromkeys(_OTHER, 0.0),
    "side_jitter": (1.0, 1.0),
    "noise": 1.0,
}


@torch.no_grad()
def validate(networks: nn.ModuleDict, windows: WindowCache, config: Config, *, noisy: bool = False) -> dict[str, float]:
    """Score fields and embedding of ``networks["completion"]`` over windows drawn evenly over a cache.

    The network finds its own refinement masks, and nothing is jittered; depth is clean unless ``noisy``, when it comes
    through random sensors, the same ones for everybody. Means over the windows: ``iou`` and ``coarse_iou`` (of the
    coarsest level alone), ``surface_cells``: distance of true surface points from the zero level in cells of R, and
    ``match``: how far the embedding's choice among the points of another frame lies from the true one, in box sides.
    With rays, ``ray_iou`` is that of what is known along them alone, and ``student_iou`` the same of a student.
    Windows that the noise empties are left out.
    """
    if noisy:
        config = config.model_copy(update={"training": config.training.model_copy(update=_ONLY_NOISE)})
    device = next(networks.parameters()).device
    count = min(config.training.validation_windows, len(windows))
    rows = []
    for number in np.linspace(0, len(windows) - 1, count).round().astype(int):
        sample = windows[int(number)]
        try:
            batch = prepare(sample, config, np.random.default_rng(int(number)), augment=noisy)
        except InputError as error:
            if error.reason != "no_subject":
                raise
            continue
        rows.append(_scores(networks, sample, batch.to(device)))
    if not rows:
        raise InputError("no_subject", f"none of the {count} validation windows in {windows.folder} shows a subject")
    means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    return {**means, "windows": len(rows)}


def _scores(networks: nn.ModuleDict, sample: WindowSample, batch: TrainingBatch) -> dict[str, float]:
    """Score one window."""
    field = networks["completion"](batch.window)
    frames, count = sample.sdf.shape
    points = torch.from_numpy(batch.volume.to_box(sample.points).astype(np.float32)).reshape(-1, 3).to(batch.points)
    frame = torch.arange(frames, device=points.device).repeat_interleave(count)
    coarse, known = field.level_sdf(field.levels[0], points, frame)
    inside = (batch.tracks.abs() < 0.5).all(-1)
    on_surface = field.sdf(batch.tracks[inside], inside.nonzero()[:, 0])
    along = {} if field.rays is None else {"ray_iou": field.rays}
    if "student" in networks:
        along["student_iou"] = cast(CompletionNetwork, networks["student"]).complete_rays(
            cast(RayImages, batch.window.rays)
        )
    return {
        "iou": _iou(field.sdf(points, frame), points, sample),
        **{name: _iou(rays.sdf(points, frame), points, sample) for name, rays in along.items()},
        "coarse_iou": _iou(torch.where(known, coarse, 1.0), points, sample),
        "surface_cells": float(on_surface.abs().mean()) * field.levels[-1],
        "match": _match_error(field, batch),
    }


def _iou(predicted: Tensor, points: Tensor, sample: WindowSample) -> float:
    """IoU of where ``predicted`` (N * Q,) is negative with the sample's inside; nothing is inside beyond the cube."""
    inside = ((predicted < 0) & (points.abs() < 0.5).all(-1)).cpu().numpy().reshape(sample.sdf.shape)
    # Weights turn sums over all stored points into volumes: far less noisy than the few uniform ones in a thin body.
    weight = sample_weights(sample, sample.near)
    truth = sample.sdf < 0
    return float((weight * (truth & inside)).sum() / max((weight * (truth | inside)).sum(), 1e-12))


def _match_error(field: FieldWindow, batch: TrainingBatch) -> float:
    """Mean distance, in box sides, of the most similar point of the pair's other frame from the corresponding one."""
    first, second = batch.matched
    frame = torch.tensor(batch.pair, device=first.device).repeat_interleave(len(first))
    ours, theirs = field.embedding(torch.cat((first, second)), frame).chunk(2)
    chosen = (ours @ theirs.T).argmax(1)
    return float((second[chosen] - second).norm(dim=-1).mean())
