"""Things between the camera and the subject: boxes, poles, and hands on an arm.

They make holes in what is seen of the subject, which the subject's mask leaves out; the space behind them is unknown,
unlike a hole that the sensor made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nr_tracking.data.rendering import render_depth
from nr_tracking.data.skeleton import rotation_between, rotations
from nr_tracking.types import Float32, Intrinsics

KINDS = ("box", "pole", "hand")
_AROUND = 10
_LARGEST = 0.45
"""Share of the subject's pixels, over all frames, that may be hidden."""


@dataclass(frozen=True)
class Occluder:
    """``vertices`` (V, 3) metres, camera optical frame, at frame 0; ``faces`` (F, 3); ``velocity`` (3,) a frame."""

    kind: str
    vertices: np.ndarray
    faces: np.ndarray
    velocity: np.ndarray

    def rendered(self, frames: int, intrinsics: Intrinsics) -> Float32:
        """Its depth images (frames, H, W), metres, 0 where it is not."""
        return np.stack(
            [render_depth(self.vertices + frame * self.velocity, self.faces, intrinsics) for frame in range(frames)]
        )


def occlude(
    depth: Float32, mask: np.ndarray, intrinsics: Intrinsics, rng: np.random.Generator
) -> tuple[Float32, np.ndarray]:
    """Put a random thing before the subject of images (N, H, W) with its ``mask`` (N, H, W): new depth and mask.

    The thing stands at 0.35 to 0.9 of the subject's nearest depth and moves a little. One that would hide more than
    45 % of the subject is made smaller; where that does not help, there is none.
    """
    for scale in (1.0, 0.6, 0.35):
        thing = draw_occluder(depth, mask, intrinsics, rng, scale)
        before = thing.rendered(len(depth), intrinsics)
        hides = (before > 0) & ((before < depth) | (depth == 0))
        if (hides & mask).sum() <= _LARGEST * mask.sum():
            return np.where(hides, before, depth).astype(np.float32), mask & ~hides
    return depth, mask


def draw_occluder(
    depth: Float32, mask: np.ndarray, intrinsics: Intrinsics, rng: np.random.Generator, scale: float = 1.0
) -> Occluder:
    """A random thing on the line of sight to some pixel of the subject; ``scale`` is of its width in the image."""
    frame, row, column = np.argwhere(mask)[rng.integers(int(mask.sum()))]
    distance = float(depth[mask].min()) * rng.uniform(0.35, 0.9)
    ray = np.array([(column - intrinsics.cx) / intrinsics.fx, (row - intrinsics.cy) / intrinsics.fy, 1.0])
    rows, columns = np.nonzero(mask.any(0))
    # The subject's extent in the image, carried to the occluder's distance.
    extent = max(np.ptp(rows) / intrinsics.fy, np.ptp(columns) / intrinsics.fx, 0.01) * distance
    kind = KINDS[rng.integers(len(KINDS))]
    vertices, faces = {"box": _box, "pole": _pole, "hand": _hand}[kind](rng, scale * extent)
    velocity = rng.normal(size=3) * [1, 1, 0.3] * extent * rng.choice([0.0, 0.01, 0.04])
    # It stands there at the frame that the pixel was drawn from; nothing comes behind the camera.
    vertices = vertices + ray * distance - frame * velocity
    vertices[:, 2] = np.maximum(vertices[:, 2], 0.2 * distance)
    return Occluder(kind, vertices, faces, velocity)


def _box(rng: np.random.Generator, extent: float) -> tuple[np.ndarray, np.ndarray]:
    corners = np.indices((2, 2, 2)).reshape(3, 8).T - 0.5
    faces = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    size = extent * rng.uniform([0.1, 0.1, 0.05], [0.4, 0.4, 0.3])
    return corners * size @ rotations(rng.normal(size=3)).T, np.concatenate([faces[:, :3], faces[:, [0, 2, 3]]])


def _pole(rng: np.random.Generator, extent: float) -> tuple[np.ndarray, np.ndarray]:
    """Across the whole image, upright or lying or anything between."""
    angle = rng.uniform(0, np.pi)
    along = 2.5 * extent * np.array([np.cos(angle), np.sin(angle), rng.normal() * 0.1])
    radius = extent * rng.uniform(0.02, 0.08)
    return _tube(-along, along, radius, radius)


def _hand(rng: np.random.Generator, extent: float) -> tuple[np.ndarray, np.ndarray]:
    """A forearm that comes from beyond the border, a palm, and five fingers spread."""
    length = extent * rng.uniform(0.15, 0.3)
    fingers = [(-0.5, 0.55), (-0.15, 0.95), (0.0, 1.0), (0.13, 0.92), (0.27, 0.75)]
    up = np.array([0.0, length, 0.0])
    parts = [_tube(-0.35 * up, 0.35 * up, 0.3 * length, 0.34 * length)]
    spread = rng.uniform(0.4, 1.6)
    for lean, long in fingers:
        root = np.array([0.9 * lean * length, 0.3 * length, 0])
        way = np.array([np.sin(spread * lean), np.cos(spread * lean), rng.normal() * 0.2])
        parts.append(_tube(root, root + way * long * length, 0.09 * length, 0.07 * length))
    parts.append(_tube(-0.3 * up, -8 * up, 0.22 * length, 0.4 * length))
    counts = np.cumsum([0, *[len(vertices) for vertices, _ in parts]])
    vertices = np.concatenate([vertices for vertices, _ in parts]) * [1, 1, 0.6]
    turn = rotations(np.array([rng.normal() * 0.3, rng.normal() * 0.5, rng.uniform(0, 2 * np.pi)]))
    return vertices @ turn.T, np.concatenate([faces + start for (_, faces), start in zip(parts, counts, strict=False)])


def _tube(start: np.ndarray, end: np.ndarray, begin: float, finish: float) -> tuple[np.ndarray, np.ndarray]:
    """A closed cone from radius ``begin`` at ``start`` to ``finish`` at ``end``, with pointed caps half as long.

    It is cut into rings about as long as wide: the rasteriser tests the pixels of a triangle's bounding box.
    """
    along = end - start
    length = float(np.linalg.norm(along))
    rings = int(np.clip(length / (3 * max(begin, finish)), 1, 30)) + 1
    share = np.linspace(0, 1, rings)
    angle = 2 * np.pi * np.arange(_AROUND) / _AROUND
    radius = (begin + share * (finish - begin))[:, None]
    wall = np.stack(
        [radius * np.cos(angle), radius * np.sin(angle), np.repeat(share[:, None] * length, _AROUND, 1)], -1
    )
    tips = np.array([[0, 0, -0.5 * begin], [0, 0, length + 0.5 * finish]])
    first = np.arange(_AROUND)
    after = (first + 1) % _AROUND
    base = _AROUND * np.arange(rings - 1)[:, None]
    low, high, last = np.full(_AROUND, rings * _AROUND), np.full(_AROUND, rings * _AROUND + 1), _AROUND * (rings - 1)
    a, b, c, d = (base + corner for corner in (first, after, first + _AROUND, after + _AROUND))
    faces = [np.stack(part, -1).reshape(-1, 3) for part in ((a, b, c), (b, d, c))]
    faces += [np.stack([low, after, first], 1), np.stack([high, last + first, last + after], 1)]
    turn = rotation_between(np.array([[0.0, 0, 1]]), along[None] / length)[0]
    return np.concatenate([wall.reshape(-1, 3), tips]) @ turn.T + start, np.concatenate(faces)
