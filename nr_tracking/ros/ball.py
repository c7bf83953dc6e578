"""A ball that swings and swells, as a depth camera sees it: to try things out with where there is no camera."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from nr_tracking.types import DepthFrame, Intrinsics

BALL_CAMERA = Intrinsics(320, 240, 300.0, 300.0, 159.5, 119.5)
BALL_FPS = 10.0


def breathing_ball(count: int = 60) -> Iterator[DepthFrame]:
    """One swing of the ball in ``count`` frames, a tenth of a second apart; the last leads over to the first."""
    camera = BALL_CAMERA
    v, u = np.mgrid[: camera.height, : camera.width]
    rays = np.stack(((u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)), axis=-1)
    length = (rays**2).sum(-1)
    for index in range(count):
        phase = 2 * np.pi * index / count
        centre, radius = np.array([0.15 * np.sin(phase), 0.0, 1.5]), 0.3 + 0.03 * np.cos(2 * phase)
        along = rays @ centre
        root = along**2 - length * (centre @ centre - radius**2)
        depth = np.where(root > 0, (along - np.sqrt(np.maximum(root, 0))) / length, 0).astype(np.float32)
        yield DepthFrame(round(index * 1e9 / BALL_FPS), depth, camera)


def in_a_room(frame: DepthFrame) -> DepthFrame:
    """The frame of a ball with a floor and a wall behind it, and something small beside it."""
    camera, depth = frame.intrinsics, frame.depth.copy()
    v, u = np.mgrid[: camera.height, : camera.width]
    down = (v - camera.cy) / camera.fy
    room = np.where(down > 0.05, np.minimum(0.6 / np.maximum(down, 0.05), 3.0), 3.0).astype(np.float32)
    depth[depth == 0] = room[depth == 0]
    depth[(abs(v - 0.4 * camera.height) < 15) & (abs(u - 0.9 * camera.width) < 15)] = 1.6
    return replace(frame, depth=depth)
