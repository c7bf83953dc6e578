"""The mirror image of what a training step consumes: another example for next to nothing.

A camera that looks through a mirror sees the same body with left and right exchanged, and everything that was computed
from its image can be exchanged with it, exactly.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from nr_tracking.sensing.ray_images import RayImages
from nr_tracking.sensing.tsdf import TsdfWindow
from nr_tracking.sensing.volume import Volume
from nr_tracking.training.batches import TrainingBatch

_SLOPE_ALONG_X = 2  # of the channels of RayImages


def mirrored_batch(batch: TrainingBatch) -> TrainingBatch:
    """The batch with x turned round, in tensors of its own: either may go to another process without the other."""
    volume = batch.volume
    return replace(
        batch,
        window=_window(batch.window),
        teacher={cells: _voxels(voxels, cells) for cells, voxels in batch.teacher.items()},
        volume=Volume(volume.centre * (-1, 1, 1), volume.side),
        points=_turned(batch.points),
        tracks=_turned(batch.tracks),
        matched=_turned(batch.matched),
        frame=batch.frame.clone(),
        distance=batch.distance.clone(),
        weight=batch.weight.clone(),
    )


def _window(window: TsdfWindow) -> TsdfWindow:
    return replace(
        window,
        coords=_voxels(window.coords, window.resolution),
        values=window.values.clone(),
        seen=window.seen.flip(2),
        rays=None if window.rays is None else _rays(window.rays),
    )


def _rays(rays: RayImages) -> RayImages:
    channels = rays.channels.flip(-1)
    channels[:, _SLOPE_ALONG_X].neg_()
    return RayImages(channels, rays.front.flip(-1), _turned(rays.view), _turned(rays.place))


def _voxels(voxels: Tensor, cells: int) -> Tensor:
    """Voxels (M, 4) [frame, x, y, z] of a grid of so many ``cells`` a side."""
    return torch.stack((voxels[:, 0], cells - 1 - voxels[:, 1], voxels[:, 2], voxels[:, 3]), dim=1)


def _turned(vectors: Tensor) -> Tensor:
    """Vectors (..., 3) or more with their first component negated."""
    turned = vectors.clone()
    turned[..., 0].neg_()
    return turned
