"""How good the fields are on windows that were not trained on, while a run goes on."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from nr_tracking.config import Config
from nr_tracking.data.cache import WindowCache, WindowSample
from nr_tracking.training.batches import TrainingBatch, prepare, sample_weights


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
    frames, count = sample.sdf.shape
    points = torch.from_numpy(batch.volume.to_box(sample.points).astype(np.float32)).reshape(-1, 3)
    frame = torch.arange(frames).repeat_interleave(count)
    predicted = ((field.sdf(points, frame) < 0) & (points.abs() < 0.5).all(-1)).numpy().reshape(frames, count)
    # Weights turn sums over all stored points into volumes: far less noisy than the few uniform ones in a thin body.
    weight = sample_weights(sample, sample.near)
    truth = sample.sdf < 0
    iou = float((weight * (truth & predicted)).sum() / max((weight * (truth | predicted)).sum(), 1e-12))

    inside = (batch.tracks.abs() < 0.5).all(-1)
    on_surface = field.sdf(batch.tracks[inside], inside.nonzero()[:, 0])
    return iou, float(on_surface.abs().mean()) * field.levels[-1]
