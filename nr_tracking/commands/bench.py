"""``nr_tracking bench``: how fast this machine tracks a generated dancer."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import nr_tracking
from nr_tracking.commands.track import TrackerLike, make_tracker
from nr_tracking.config import Config
from nr_tracking.data.procedural import procedural_clip
from nr_tracking.data.rendering import render_depth
from nr_tracking.types import DepthFrame, Intrinsics, TrackedFrame

CAMERA = Intrinsics(width=640, height=480, fx=525.0, fy=525.0, cx=319.5, cy=239.5)
_OPTICAL = np.array([1, -1, -1], np.float32)  # from y up to y down, facing the camera
_PLACE = np.array([0, 0, 2.4], np.float32)


def bench(
    config: Config,
    *,
    frames: int = 33,
    seed: int = 0,
    trackers: Callable[[Config], tuple[TrackerLike, str]] = make_tracker,
) -> dict[str, Any]:
    """Track a generated clip of ``frames`` frames and measure.

    Returns ``frames_per_second``, ``peak_memory_mb`` (``peak_gpu_memory_mb`` on CUDA), ``stages`` (mean seconds a
    frame) and what was measured. The first window warms up and is not counted.
    """
    recording = generated_frames(frames, seed)
    tracker, weights = trackers(config)
    warm = tracked = 0
    begun = time.perf_counter()
    stages: dict[str, float] = {}

    def count(results: list[TrackedFrame]) -> None:
        nonlocal begun, warm, tracked
        for result in results if warm else []:
            for stage, seconds in result.timings.items():
                stages[stage] = stages.get(stage, 0.0) + seconds
        tracked += len(results)
        if results and not warm:
            warm, begun = tracked, time.perf_counter()

    for frame in recording:
        count(tracker.push(frame))
    count(tracker.flush())
    if config.device == "cuda":
        torch.cuda.synchronize()
    seconds, measured = time.perf_counter() - begun, tracked - warm
    result: dict[str, Any] = {
        "preset": config.preset,
        "device": config.device,
        "version": nr_tracking.__version__,
        "weights": weights,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "resolution": config.model.resolution,
        "frames": measured,
        "frames_per_second": measured / seconds if measured else 0.0,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "stages": {stage: total / max(measured, 1) for stage, total in stages.items()},
    }
    if config.device == "cuda":
        result["peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 2**20
    return result


def generated_frames(count: int, seed: int = 0) -> list[DepthFrame]:
    """Clean depth images of a generated person who dances about 2.4 m before a camera of 640 x 480 pixels."""
    clip = procedural_clip(np.random.default_rng(seed), count, kind="person")
    lower, upper = clip.vertices[0].min(axis=0), clip.vertices[0].max(axis=0)
    vertices = (clip.vertices - (lower + upper) / 2) * _OPTICAL + _PLACE
    return [
        DepthFrame(round(index * 1e9 / clip.fps), render_depth(vertices[index], clip.faces, CAMERA), CAMERA)
        for index in range(count)
    ]


def bench_table(result: dict[str, Any]) -> str:
    """The measurements as lines of text."""
    head = f"preset {result['preset']} on {result['device']}, {result['threads']} threads, {result['frames']} frames\n"
    lines = [f"{result['frames_per_second']:8.2f} frames a second", f"{result['peak_memory_mb']:8.0f} MB at most"]
    lines += [f"{1000 * seconds:8.1f} ms a frame  {stage}" for stage, seconds in result["stages"].items()]
    return head + "".join(f"{line}\n" for line in lines)
