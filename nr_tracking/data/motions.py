"""The motions that people perform: captured ones where there is data, and made-up dances and postures."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from nr_tracking.data.gaits import dance
from nr_tracking.data.mocap import read_amc, read_bvh, read_deepmimic
from nr_tracking.data.motion import Motion
from nr_tracking.data.postures import postures
from nr_tracking.data.splits import Split, split_of_motion

DANCES = 0.25
"""Share of made-up dances among the motions of people."""
POSTURES = 0.3
"""Share of postures in training. Validation and test, to whose motions published scores refer, have none."""


def captured_motions(data: Path | None, split: Split) -> list[Callable[[], Motion]]:
    """Readers of all captured motions of a split below ``data``, in a fixed order."""
    if data is None:
        return []
    files = [
        *sorted((data / "mocap" / "cmu_bvh").glob("*.bvh")),
        *sorted((data / "mocap" / "cmu_amc").glob("*/*.amc")),
        *sorted((data / "mocap" / "deepmimic").glob("humanoid3d_*.txt")),
    ]
    return [partial(_read, path) for path in files if split_of_motion(path.stem) == split]


@lru_cache(maxsize=64)
def _read(path: Path) -> Motion:
    if path.suffix == ".bvh":
        return read_bvh(path)
    if path.suffix == ".amc":
        return read_amc(path, path.parent / f"{path.parent.name}.asf")
    return read_deepmimic(path)


def draw_motion(rng: np.random.Generator, data: Path | None, split: Split, frames: int, fps: float) -> Motion:
    """``frames`` frames of a random motion, sped up or slowed down, mirrored half of the time."""
    if split == "train" and rng.random() < POSTURES:
        return postures(rng, frames, fps)
    captured = captured_motions(data, split)
    if not captured or rng.random() < DANCES:
        motion = dance(rng, frames, fps)
        return motion.mirrored() if rng.random() < 0.5 else motion
    motion = captured[rng.integers(len(captured))]()
    speed = rng.uniform(0.75, 1.5)
    start = rng.uniform(0, max(motion.duration - frames * speed / fps, 0.0))
    motion = motion.resampled(fps, start, frames, speed)
    return motion.mirrored() if rng.random() < 0.5 else motion
