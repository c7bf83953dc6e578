"""``nr_tracking bench``: how fast this machine tracks a generated dancer, stage by stage, and how fast it might."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import chain
from typing import Any

import numpy as np
import torch

import nr_tracking
from nr_tracking.benchmark.machine import Limits, measure_limits
from nr_tracking.benchmark.network import NetworkWatch
from nr_tracking.benchmark.statistics import percentiles
from nr_tracking.commands.track import make_tracker
from nr_tracking.config import Config
from nr_tracking.data.procedural import procedural_clip
from nr_tracking.data.rendering import render_depth
from nr_tracking.ros.outputs import mesh_marker, motion_marker, patches_message, tracks_cloud
from nr_tracking.sensing.camera import decode_depth
from nr_tracking.tracking.colours import canonical_box, correspondence_colours
from nr_tracking.tracking.protocols import TrackerLike
from nr_tracking.tracking.reconstruction import observe
from nr_tracking.tracking.tracker import Tracker
from nr_tracking.types import DepthFrame, Intrinsics, TrackedFrame

CAMERA = Intrinsics(width=640, height=480, fx=525.0, fy=525.0, cx=319.5, cy=239.5)
_WARMING = 5  # frames, at least, that are not counted
_OPTICAL = np.array([1, -1, -1], np.float32)  # from y up to y down, facing the camera


def bench(
    config: Config,
    *,
    frames: int = 33,
    distance: float = 2.4,
    seed: int = 0,
    trackers: Callable[[Config], tuple[TrackerLike, str]] = make_tracker,
) -> dict[str, Any]:
    """Track a generated clip of ``frames`` frames at ``distance`` metres, as fast as it goes, and measure.

    Windows overlap (``window.overlap``): nothing else wants the processor, and nobody waits for a single frame.

    Returns ``frames_per_second``, ``peak_memory_mb`` (``peak_gpu_memory_mb`` on CUDA), ``stages`` (mean seconds of work
    a frame, on whichever thread; stages run side by side, so they add up to more than a frame takes), ``percentiles``
    of stages and of the parts of the network, ``floors`` (least seconds that the machine needs to move a stage's data
    or do its arithmetic), ``machine`` and what was measured. The first frames warm up and are not counted.
    """
    config = config.model_copy(update={"window": config.window.model_copy(update={"overlap": True})})
    recording = list(generated_frames(frames, seed, distance))
    tracker, weights = trackers(config)
    networks = getattr(tracker, "networks", None)
    everything: list[TrackedFrame] = []
    ready: list[float] = []  # when each result was there
    with NetworkWatch(networks.completion) if networks else nullcontext() as watch:
        if isinstance(tracker, Tracker):
            tracker.on_ready = lambda: ready.append(time.perf_counter())
        for batch in chain(map(tracker.push, recording), (tracker.flush() for _ in range(1))):
            everything.extend(batch)
            ready.extend([time.perf_counter()] * (len(everything) - len(ready)))
        if config.device == "cuda":
            torch.cuda.synchronize()
            ready[-1:] = [time.perf_counter()]
    warming = max(config.window_frames, _WARMING)
    warm, results = everything[:warming], everything[warming:]
    seconds = ready[-1] - ready[len(warm) - 1] if results else 0.0
    stages = dict.fromkeys(stage for each in results or warm for stage in each.timings)  # not each frame has all
    times = {stage: [each.timings[stage] for each in results if stage in each.timings] for stage in stages}
    result: dict[str, Any] = {
        "preset": config.preset,
        "device": config.device,
        "version": nr_tracking.__version__,
        "weights": weights,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "resolution": config.model.resolution,
        "frames": len(results),
        "frames_per_second": len(results) / seconds if seconds > 0 else 0.0,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "stages": {stage: float(np.mean(values)) if values else 0.0 for stage, values in times.items()},
    }
    if config.device == "cuda":
        result["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
    device = torch.device(config.device)
    limits = measure_limits(device, _network_type(networks))
    ends, moved = _ends(recording, results or warm, config)
    result["machine"] = {"copy_gb_s": limits.bandwidth / 1e9, "matrix_gflop_s": limits.rate / 1e9}
    result["percentiles"] = {stage: percentiles(values) for stage, values in {**times, **ends}.items()}
    result["floors"] = {
        stage: limits.floor(moved=count) for stage, count in moved.items() if stage in result["percentiles"]
    }
    if watch is not None:
        _add_network(result, watch, config, limits)
    return result


def _add_network(result: dict[str, Any], watch: NetworkWatch, config: Config, limits: Limits) -> None:
    """The parts of the network, a frame: all cubes of a window over the frames that are new in it.

    Nothing where the network in the cube did not run: surfaces along rays alone do not need it.
    """
    share = config.volume.cubes / config.window.stride
    if counted := watch.operations():
        for part, values in watch.seconds.items():
            result["percentiles"][part] = percentiles([share * seconds for seconds in values[config.volume.cubes :]])
        for part, count in counted.items():
            result["floors"][part] = limits.floor(operations=share * count)
        result["floors"]["network"] = limits.floor(operations=share * sum(counted.values()))
    if along := watch.ray_operations():
        result["floors"]["rays"] = limits.floor(operations=config.volume.cubes * along)


def _network_type(networks: Any) -> torch.dtype:
    if networks is None:
        return torch.float32
    mixed = networks.completion.uses_bfloat16(next(networks.completion.parameters()).device)
    return torch.bfloat16 if mixed else torch.float32


def _ends(
    recording: Sequence[DepthFrame], results: Sequence[TrackedFrame], config: Config
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """What happens to a frame outside the tracker's clock, timed here; and bytes that the stages move at least."""
    times: dict[str, list[float]] = {"decode": [], "subject": [], "serialise": []}
    pixels = CAMERA.width * CAMERA.height
    for frame in recording:
        image = np.round(frame.depth * 1000).astype("<u2").tobytes()
        started = time.perf_counter()
        decode_depth(
            image,
            width=CAMERA.width,
            height=CAMERA.height,
            step=2 * CAMERA.width,
            encoding="16UC1",
            big_endian=False,
        )
        decoded = time.perf_counter()
        observe(frame, config.subject)
        times["subject"].append(time.perf_counter() - decoded)
        times["decode"].append(decoded - started)
    published = surface = 0.0
    for result in results:
        colours = correspondence_colours(result.canonical, *canonical_box(result.canonical))
        started = time.perf_counter()
        messages = [
            mesh_marker(result, "camera", colours, config.ros.mesh_max_triangles),
            motion_marker(result, "camera", config.ros.mesh_max_triangles),
            tracks_cloud(result.stamp_ns, "camera", result.tracks),
            patches_message(result, "camera"),
        ]
        times["serialise"].append(time.perf_counter() - started)
        published += sum(len(message) for message in messages if message) / len(results)
        surface += (result.surface.vertices.nbytes + result.surface.faces.nbytes) / len(results)
    # Each byte of input is read once, and each byte of output written once.
    moved = {
        "decode": pixels * (2 + 4),
        "subject": pixels * (4 + 1),
        "tsdf": config.volume.cubes * pixels * (4 + 1),
        "mesh": 4 * (config.model.resolution * config.mesh.upsample) ** 3 + surface,
        "patches": surface,
        "tracks": 2 * config.tracks.count * 12 + surface,
        "serialise": surface + published,
    }
    return times, moved


def generated_frames(count: int, seed: int = 0, distance: float = 2.4) -> Iterator[DepthFrame]:
    """Yield clean depth images of a generated person who dances before a camera of 640 x 480 pixels."""
    clip = procedural_clip(np.random.default_rng(seed), count, kind="person")
    lower, upper = clip.vertices[0].min(axis=0), clip.vertices[0].max(axis=0)
    vertices = (clip.vertices - (lower + upper) / 2) * _OPTICAL + np.array([0, 0, distance], np.float32)
    for index in range(count):
        depth = render_depth(vertices[index], clip.faces, CAMERA)
        yield DepthFrame(round(index * 1e9 / clip.fps), depth, CAMERA)
