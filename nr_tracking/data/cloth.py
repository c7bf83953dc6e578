"""Secondary motion: what hangs loose lags behind, swings on, flutters and flares.

Each loose point is a damped spring on the place where skinning puts it. Neighbours have nearly the same place and the
same spring, so the sheet stays whole; inertia, air and wind do the rest. It is no cloth simulation, and it costs
nothing: one pass over the frames for all points at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nr_tracking.types import Float32


@dataclass(frozen=True)
class Cloth:
    """How a loose part swings.

    ``frequency`` Hz of the free swing, ``damping`` relative to critical, ``air``: share of the damping against the
    still air rather than against the body; ``wind`` (3,) m/s^2; ``flutter`` metres, amplitude of waves in it.
    """

    frequency: float
    damping: float
    air: float
    wind: tuple[float, float, float]
    flutter: float

    @staticmethod
    def draw(rng: np.random.Generator, size: float) -> Cloth:
        """A random cloth for a subject of ``size`` metres."""
        wind = rng.normal(size=3) * [1, 0.15, 1] * rng.choice([0.0, 1.5, 4.0])
        return Cloth(
            frequency=rng.uniform(1.0, 2.4),
            damping=rng.uniform(0.15, 0.6),
            air=rng.uniform(0.2, 1.0),
            wind=tuple(wind.tolist()),
            flutter=size * rng.choice([0.0, 0.003, 0.006]),
        )


def swing(
    skinned: np.ndarray, rest: np.ndarray, looseness: np.ndarray, fps: float, cloth: Cloth, rng: np.random.Generator
) -> Float32:
    """Let the loose points of a skinned surface (T, V, 3) swing.

    ``rest`` (V, 3) is the rest pose (it places the waves of the flutter), ``looseness`` (V,) in [0, 1]: 0 stays where
    skinning puts it, 1 swings freely. Displacements stay below 0.3 of the subject's size.
    """
    loose = np.flatnonzero(looseness > 1e-3)
    if len(loose) == 0:
        return skinned.astype(np.float32)
    target = skinned[:, loose].astype(np.float64)
    share = looseness[loose, None]
    limit = 0.3 * float(np.ptp(rest, axis=0).max())
    omega = 2 * np.pi * cloth.frequency * (1.4 - 0.6 * share)
    drag = 2 * cloth.damping * omega
    wave = _flutter(rest[loose], len(target), fps, cloth.flutter, rng)
    place, speed = target[0].copy(), np.zeros_like(target[0])
    out = skinned.astype(np.float32)
    substeps = max(1, round(240 / fps))
    dt = 1 / (fps * substeps)
    for frame in range(1, len(target)):
        body_speed = (target[frame] - target[frame - 1]) * fps
        for step in range(1, substeps + 1):
            goal = target[frame - 1] + (target[frame] - target[frame - 1]) * (step / substeps)
            push = omega**2 * (goal - place) - drag * (speed - (1 - cloth.air) * body_speed) + np.array(cloth.wind)
            speed = speed + dt * push
            place = place + dt * speed
        away = (place - target[frame] + wave[frame]) * share
        length = np.linalg.norm(away, axis=1, keepdims=True)
        out[frame, loose] = target[frame] + away * (limit * np.tanh(length / limit) / np.maximum(length, 1e-9))
    return out


def _flutter(rest: np.ndarray, frames: int, fps: float, amplitude: float, rng: np.random.Generator) -> np.ndarray:
    """Travelling waves (T, V, 3) of a few random directions."""
    size = max(float(np.ptp(rest, axis=0).max()), 1e-6)
    total = np.zeros((frames, len(rest), 3))
    if amplitude == 0:
        return total
    time = np.arange(frames)[:, None] / fps
    for _ in range(3):
        ripple = rng.normal(size=3) * 2 * np.pi * rng.uniform(1.0, 3.0) / size
        heave = rng.normal(size=3) * amplitude
        phase = rest @ ripple + 2 * np.pi * rng.uniform(0.5, 2.5) * time + rng.uniform(0, 6.3)
        total += np.sin(phase)[..., None] * heave
    return total
