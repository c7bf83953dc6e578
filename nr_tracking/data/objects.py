"""Things that are neither people nor animals: bending tubes, twisting slabs of cloth, squeezed balls, lumps and rings.

They keep what is learnt from being tied to limbs. Each is a closed rest surface under a smooth deformation of space.
"""

from __future__ import annotations

import numpy as np

from nr_tracking.data.clips import Clip
from nr_tracking.data.procedural import smooth_union
from nr_tracking.data.remeshing import surface_of_field
from nr_tracking.data.skeleton import rotations

KINDS = ("tube", "slab", "ball", "lump", "ring")

_CELLS = 70


def object_clip(
    rng: np.random.Generator,
    frames: int = 17,
    fps: float = 30.0,
    *,
    identity: str = "",
    kind: str = "",
    body: np.random.Generator | None = None,
) -> Clip:
    """A random thing of 0.2 to 1 m, one of :data:`KINDS` (any where ``kind`` is empty), deforming and tumbling.

    ``rng`` draws the motion, and the shape too unless a generator of its own, ``body``, is given.
    """
    body = body or rng
    kind = kind or KINDS[body.integers(len(KINDS))]
    size = body.uniform(0.2, 1.0)
    rest, faces = rest_surface(kind, body)
    time = np.arange(frames) / fps
    moved = np.stack([_deformed(rest, pose) for pose in _poses(kind, rng, time)])
    axis = rng.normal(size=3)
    spin = axis / np.linalg.norm(axis) * rng.uniform(0, 2.0)
    start = rng.normal(size=3) * 1.5
    turn = rotations(start) @ rotations(time[:, None] * spin)
    drift = 0.15 * np.sin(2 * np.pi * rng.uniform(0.3, 1.0, 3) * time[:, None] + rng.uniform(0, 6.3, 3))
    vertices = (moved @ turn.swapaxes(1, 2) + drift[:, None]) * size
    return Clip(
        f"{kind}{rng.integers(10_000):04d}", "object", identity or kind, vertices.astype(np.float32), faces, fps
    )


def rest_surface(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A closed surface of the given kind, about 1 long, along y."""
    half = rng.uniform([0.05, 0.05, 0.05], [0.16, 0.16, 0.16])
    lumps = rng.uniform(-0.22, 0.22, (5, 3))
    radii = rng.uniform(0.1, 0.22, 5)
    wide, thick, thin = rng.uniform(0.2, 0.45), rng.uniform(0.02, 0.05), rng.uniform(0.05, 0.12)

    def field(q: np.ndarray) -> np.ndarray:
        if kind == "tube":
            radius = half[0] + (half[1] - half[0]) * (q[:, 1] + 0.5)
            gap = np.maximum(np.abs(q[:, 1]) - 0.45, 0)
            return np.hypot(np.hypot(q[:, 0], q[:, 2]), gap) - radius
        if kind == "slab":
            over = np.abs(q) - [wide, 0.46, 0.0]
            return np.linalg.norm(np.maximum(over, 0), axis=1) - thick
        if kind == "ball":
            stretch = 1 + 2 * half
            return (np.linalg.norm(q * stretch, axis=1) - 0.45) / stretch.max()
        if kind == "ring":
            return np.hypot(np.hypot(q[:, 0] * (1 + half[0]), q[:, 1]) - 0.38, q[:, 2]) - thin
        return smooth_union(np.linalg.norm(q - lumps[:, None], axis=2) - radii[:, None], 0.05)

    return surface_of_field(field, np.full(3, -0.65), np.full(3, 0.65), 1.3 / _CELLS)


def _poses(kind: str, rng: np.random.Generator, time: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Strengths of the deformations at each time; what suits the kind is the strongest."""
    liking = {"tube": "bend", "slab": "twist", "ball": "squeeze", "lump": "squeeze", "ring": "twist"}[kind]
    strength = {name: rng.uniform(0.0, 0.4) for name in ("bend", "twist", "squeeze", "wave")}
    strength[liking] = rng.uniform(0.6, 1.0)
    if kind == "slab":
        strength["wave"] = rng.uniform(0.4, 1.0)
    rate = 2 * np.pi * rng.uniform(0.3, 1.6, 4)
    phase = rng.uniform(0, 6.3, 4)
    ripple, heave, way = rng.normal(size=3) * 6, rng.normal(size=3) * 0.035, rng.uniform(0, 6.3)
    return [
        {
            "bend": 2.8 * strength["bend"] * np.sin(rate[0] * t + phase[0]),
            "twist": 2.6 * strength["twist"] * np.sin(rate[1] * t + phase[1]),
            "squeeze": np.exp(0.5 * strength["squeeze"] * np.sin(rate[2] * t + phase[2])),
            "heave": strength["wave"] * heave,
            "ripple": ripple,
            "phase": np.array(rate[3] * t * 2 + phase[3]),
            "way": np.array(way),
        }
        for t in time
    ]


def _deformed(points: np.ndarray, pose: dict[str, np.ndarray]) -> np.ndarray:
    """Squeeze along y, twist about y, bend y into an arc, and add a travelling wave."""
    squeeze = float(pose["squeeze"])
    x, y, z = (points * [squeeze**-0.5, squeeze, squeeze**-0.5]).T
    angle = pose["twist"] * y + pose["way"]
    x, z = np.cos(angle) * x - np.sin(angle) * z, np.sin(angle) * x + np.cos(angle) * z
    curvature = float(pose["bend"])
    if abs(curvature) > 1e-6:
        turn, radius = curvature * y, 1 / curvature - x
        x, y = 1 / curvature - radius * np.cos(turn), radius * np.sin(turn)
    moved = np.stack([x, y, z], 1)
    return moved + np.sin(points @ pose["ripple"] + pose["phase"])[:, None] * pose["heave"]
