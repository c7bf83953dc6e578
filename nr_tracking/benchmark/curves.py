"""How the cost of tracking grows with the work: voxels, frames of a window, patches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from nr_tracking.benchmark.machine import median_seconds
from nr_tracking.benchmark.statistics import exponent
from nr_tracking.config import Config
from nr_tracking.deformation.decoder import DeformationDecoder
from nr_tracking.deformation.patches import build_patches
from nr_tracking.deformation.prediction import PlacedFrame, predict_motion
from nr_tracking.fields.averaging import AveragedField, PlacedField
from nr_tracking.fields.completion import CompletionNetwork
from nr_tracking.fields.meshing import extract_surface
from nr_tracking.fields.sparse import SparseGrid
from nr_tracking.sensing.tsdf import TsdfWindow
from nr_tracking.sensing.volume import Volume, fit_volume
from nr_tracking.tracking.reconstruction import View, observe, tsdf_window
from nr_tracking.types import DepthFrame

_WINDOWS = (1, 2, 3, 5, 8)
_PATCHES = (50, 100, 200, 400)
_RESOLUTIONS = (32, 48, 64, 96, 128)
_REPEATS = 3
_CPU = torch.device("cpu")


def curves(config: Config, network: CompletionNetwork, frames: Sequence[DepthFrame]) -> dict[str, Any]:
    """Time against work on generated ``frames``, at least eight: ``{curve: {work, seconds, exponent}}``.

    ``voxels``: the sparse encoder at the TSDF's voxels, neighbour tables included, for finer and finer grids.
    ``frames``: the network on windows of more and more frames. ``patches``: patches, associations and deformation of a
    pair for more and more patches. The exponent is that of the fitted power law: 1 is linear.
    """
    views = [observe(frame, config.subject) for frame in frames[: max(_WINDOWS)]]
    volume = fit_volume(np.concatenate([view.cloud for view in views]), config.volume)
    found = {
        "voxels": list(_voxels(config, network, views, volume)),
        "frames": list(_windows(config, network, views, volume)),
        "patches": list(_patch_counts(config, network, views, volume)),
    }
    result = {}
    for name, points in found.items():
        work, seconds = (list(column) for column in zip(*points, strict=True))
        result[name] = {"work": work, "seconds": seconds, "exponent": exponent(work, seconds)}
    return result


@torch.no_grad()
def _voxels(
    config: Config, network: CompletionNetwork, views: Sequence[View], volume: Volume
) -> Iterator[tuple[int, float]]:
    for resolution in _RESOLUTIONS:
        window = _window(config, views[:5], volume, resolution)

        def encode(window: TsdfWindow = window) -> int:
            grid = SparseGrid.from_coords(window.coords, window.resolution, len(window.seen))
            network.sparse_encoder(torch.ones(len(grid), 1), grid)
            return len(grid)

        yield encode(), _seconds(encode)


@torch.no_grad()
def _windows(
    config: Config, network: CompletionNetwork, views: Sequence[View], volume: Volume
) -> Iterator[tuple[int, float]]:
    for length in _WINDOWS:
        window = _window(config, views[:length], volume, config.model.resolution)

        def complete(window: TsdfWindow = window) -> None:
            network(window)

        yield length, _seconds(complete)


@torch.no_grad()
def _patch_counts(
    config: Config, network: CompletionNetwork, views: Sequence[View], volume: Volume
) -> Iterator[tuple[int, float]]:
    field = network(_window(config, views[:2], volume, config.model.resolution))
    averaged = AveragedField([PlacedField(field, volume)])
    meshes = [extract_surface(averaged, index, config.mesh) for index in range(2)]
    decoder = DeformationDecoder(config.model).eval()
    for count in _PATCHES:

        def pair(count: int = count) -> None:
            first, second = (
                build_patches(volume.to_metric(vertices), faces, count, (count // 3, count // 9))
                for vertices, faces in meshes
            )
            source, target = (PlacedFrame(field, volume, index) for index in range(2))
            predict_motion((source, first), (target, second), decoder, config.deformation.softmax_scale)

        yield count, _seconds(pair)


def _window(config: Config, views: Sequence[View], volume: Volume, resolution: int) -> TsdfWindow:
    model = config.model.model_copy(update={"resolution": resolution})
    return tsdf_window(views, volume, config.model_copy(update={"model": model}), _CPU)


def _seconds(work: Callable[[], object]) -> float:
    return median_seconds(work, _CPU, _REPEATS)
