"""Other bodies from the same window: a smooth map of space that keeps every ray of the camera a ray.

What a camera sees of warped space is its image, warped, so depth stays exact without rendering anything; inside stays
inside. Directions (x / z, y / z) are turned and bent, which changes outlines and proportions, and depth gets a smooth
relief, which leans the body to and fro.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nr_tracking.data.cache import WindowSample
from nr_tracking.sensing.camera import back_project

_TURN = np.radians(8.0)  # largest roll
_BEND = 0.012  # of the view: typical sideways shift by each wave
_RELIEF = 0.02  # of the subject's size: typical shift in depth by each wave
_TILT = 0.12  # typical slope of the relief
_ROOM = 1.35  # the view over the subject's longest edge in the image
_MARGIN = 0.12  # of the image, added on each side
_INVERSIONS = 6  # fixed-point steps; each shrinks the error by the bend's slope, 0.3 at most


class RayWarp:
    """A random map of directions and depths.

    ``centre`` (2,) and ``scale``: middle and size of the part of the plane z = 1 that is looked at; ``size`` in metres,
    the subject's.
    """

    def __init__(self, centre: np.ndarray, scale: float, size: float, rng: np.random.Generator) -> None:
        self.centre, self.scale, self.size = centre, scale, size
        angle = rng.uniform(-_TURN, _TURN)
        self.turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        waves, phases = 2 * np.pi * rng.normal(size=(4, 2)), rng.uniform(0, 2 * np.pi, (4, 2))
        bends = _BEND * rng.normal(size=(4, 2)) / _steepness(waves)[:, None]
        # A shift along x or y is a sum of bends * sin(place . wave + phase): of the waves' sines and cosines then.
        self.waves = waves.astype(np.float32)
        self.bends = np.concatenate([bends * np.cos(phases), bends * np.sin(phases)]).astype(np.float32)
        self.relief_waves, self.relief_phases = 1.6 * np.pi * rng.normal(size=(3, 2)), rng.uniform(0, 2 * np.pi, 3)
        self.reliefs = _RELIEF * rng.normal(size=3) / _steepness(self.relief_waves)
        self.tilt = _TILT * rng.normal(size=2)

    def source(self, directions: np.ndarray) -> np.ndarray:
        """Where in the unwarped view (..., 2) a direction (..., 2) of the warped one comes from."""
        place = (directions - self.centre) / self.scale
        return self.centre + self.scale * (place @ self.turn.T + self._bent(place))

    def target(self, directions: np.ndarray) -> np.ndarray:
        """The inverse of :meth:`source`."""
        aim = (directions - self.centre) / self.scale
        place = aim @ self.turn
        for _ in range(_INVERSIONS):
            place = (aim - self._bent(place)) @ self.turn
        return self.centre + self.scale * place

    def relief(self, directions: np.ndarray) -> np.ndarray:
        """What is added to depth, in metres (...), at directions (..., 2) of the warped view."""
        place = (directions - self.centre) / self.scale
        return self.size * (np.sin(place @ self.relief_waves.T + self.relief_phases) @ self.reliefs + place @ self.tilt)

    def moved(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) in metres in the warped space."""
        directions = self.target(points[..., :2].astype(np.float64) / points[..., 2:])
        z = np.maximum(points[..., 2] + self.relief(directions), 1e-3)
        return np.concatenate([directions * z[..., None], z[..., None]], axis=-1).astype(np.float32)

    def _bent(self, place: np.ndarray) -> np.ndarray:
        angles = place.astype(np.float32) @ self.waves.T
        return np.concatenate([np.sin(angles), np.cos(angles)], axis=-1) @ self.bends


def warped(sample: WindowSample, rng: np.random.Generator) -> WindowSample:
    """The window as a camera would see it in warped space; the same warp in all frames.

    Signed distances keep their signs and sizes; the sizes are then wrong by the warp's strain, a tenth.
    """
    sample = _widened(sample)
    cloud = np.concatenate([back_project(image, sample.intrinsics)[image > 0] for image in sample.depth])
    directions = cloud[:, :2] / cloud[:, 2:]
    low, high = directions.min(0), directions.max(0)
    scale = _ROOM * float((high - low).max())
    warp = RayWarp((low + high) / 2, scale, scale * float(np.median(cloud[:, 2])), rng)

    camera = sample.intrinsics
    rays = back_project(np.ones(sample.depth.shape[1:], np.float32), camera)[..., :2].astype(np.float64)
    source = warp.source(rays) * (camera.fx, camera.fy) + (camera.cx, camera.cy)
    column, row = np.rint(np.moveaxis(source, -1, 0)).astype(np.int64)
    inside = (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    depth = sample.depth[:, np.clip(row, 0, camera.height - 1), np.clip(column, 0, camera.width - 1)]
    depth = np.where(inside & (depth > 0), np.maximum(depth + warp.relief(rays), 1e-3), 0).astype(np.float32)
    ahead = warp.moved(sample.surface + 1e-3 * sample.normals)
    surface = warp.moved(sample.surface)
    normals = ahead - surface
    return replace(
        sample,
        depth=depth,
        points=warp.moved(sample.points),
        surface=surface,
        normals=normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-12),
    )


def _widened(sample: WindowSample) -> WindowSample:
    """With room around the subject, to which images are cropped, so that the warp does not push it out of them."""
    camera, pad = sample.intrinsics, int(_MARGIN * max(sample.depth.shape[1:]))
    camera = replace(
        camera, width=camera.width + 2 * pad, height=camera.height + 2 * pad, cx=camera.cx + pad, cy=camera.cy + pad
    )
    return replace(sample, depth=np.pad(sample.depth, ((0, 0), (pad, pad), (pad, pad))), intrinsics=camera)


def _steepness(waves: np.ndarray) -> np.ndarray:
    """By how much (K,) to divide amplitudes so that short waves are no steeper than long ones."""
    return np.maximum(np.linalg.norm(waves, axis=1) / 6, 0.6)
