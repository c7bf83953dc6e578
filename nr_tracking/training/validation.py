"""How good the fields are on windows that were not trained on, while a run goes on."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from nr_tracking.config import Config
from nr_tracking.data.cache import WindowCache, WindowSample
from nr_tracking.training.batches import TrainingBatch, prepare

_NEAR_SIGMAS = np.array([0.01, 0.03, 0.08])  # spread of the stored near points, over the longest edge of the subject
_NEAR_LIMIT = 0.1


@torch.no_grad()
def validate(completion: nn.Module, windows: WindowCache, config: Config) -> dict[str, float]:
    """Return IoU and mean absolute distance (cells of R, on the surface) over the first windows of a cache.

    Clean depth, the network's own refinement masks, no jitter. Windows are drawn evenly over the cache.
    """
    count = min(config.training.validation_windows, len(windows))
    rows = []
    for number in np.linspace(0, len(windows) - 1, count).round().astype(int):
        sample = windows[int(number)]
        batch = prepare(sample, config, np.random.default_rng(int(number)), augment=False)
        rows.append(_scores(completion, sample, batch))
    iou, distance = np.mean(rows, axis=0)
    return {"iou": float(iou), "surface_cells": float(distance), "windows": count}


def _scores(completion: nn.Module, sample: WindowSample, batch: TrainingBatch) -> tuple[float, float]:
    """Score one window: IoU and mean distance of true surface points from the zero level, in cells."""
    field = completion(batch.window)
    frames, near = len(sample.points), sample.near
    points = torch.from_numpy(batch.volume.to_box(sample.points[:, :near]).astype(np.float32)).reshape(-1, 3)
    frame = torch.arange(frames).repeat_interleave(near)
    predicted = field.sdf(points, frame).numpy().reshape(frames, near) < 0

    # Weighting each point by the inverse of the density it was drawn with (normal offsets of three spreads) turns sums
    # over the near points into volumes: a far less noisy estimate than the few uniform points inside a thin body.
    edge = float(np.ptp(sample.surface, axis=1).max())
    offset = np.abs(sample.sdf[:, :near]) / edge
    density = (np.exp(-0.5 * (offset[..., None] / _NEAR_SIGMAS) ** 2) / _NEAR_SIGMAS).sum(-1)
    weight = np.where(offset < _NEAR_LIMIT, 1.0 / density, 0.0)
    truth = sample.sdf[:, :near] < 0
    iou = float((weight * (truth & predicted)).sum() / max((weight * (truth | predicted)).sum(), 1e-12))

    inside = (batch.tracks.abs() < 0.5).all(-1)
    on_surface = field.sdf(batch.tracks[inside], inside.nonzero()[:, 0])
    return iou, float(on_surface.abs().mean()) * field.levels[-1]
