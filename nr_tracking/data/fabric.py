"""Pieces of cloth on their own: curtains, flags, towels over a bar, blankets and rags that somebody holds and shakes.

A sheet of particles is simulated as clothes are (:mod:`nr_tracking.data.cloth`) and then given its thickness, so the
surface is closed and thin: 0.6 to 3 % of its longer side.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nr_tracking.data.clips import Clip
from nr_tracking.data.cloth import Cloth, swing
from nr_tracking.normals import vertex_normals

WAYS = ("curtain", "corners", "flag", "bar", "blanket", "handful")
"""How a piece is held: by its upper edge, two corners, one side, its middle, four corners or one place."""

_ROWS = 40  # particles along the longer side
_WARM_UP_S = 0.8
_UNEVEN = 0.01  # of the longer side: without it, a sheet that is pushed together would not know where to fold


def fabric_clip(
    rng: np.random.Generator,
    frames: int = 17,
    fps: float = 30.0,
    *,
    identity: str = "",
    way: str = "",
    body: np.random.Generator | None = None,
) -> Clip:
    """A piece of cloth of 0.3 to 1.6 m, held in one of :data:`WAYS` (any where ``way`` is empty) and moved.

    ``rng`` draws the motion and the weather, and the piece too unless a generator of its own, ``body``, is given.
    """
    body = body or rng
    longer = float(np.exp(body.uniform(np.log(0.3), np.log(1.6))))
    shape = np.array([longer, longer * body.uniform(0.35, 1.0)])
    if body.random() < 0.5:
        shape = shape[::-1]
    thickness = longer * float(np.exp(body.uniform(np.log(0.006), np.log(0.03))))
    way = way or WAYS[rng.integers(len(WAYS))]
    place, faces = grid(float(shape[0]), float(shape[1]), longer / _ROWS)
    start, held = _held(way, place, rng)
    start = start + rng.normal(size=start.shape) * _UNEVEN * longer * ~held[:, None]
    warm_up = round(_WARM_UP_S * fps)
    target = start + _shaken(start, held, longer, np.arange(warm_up + frames) / fps, rng)
    fabric = replace(Cloth.draw(rng), tether=0.02)
    if way == "flag" and not any(fabric.wind):
        fabric = replace(fabric, wind=(float(rng.uniform(2, 6)), 0.0, float(rng.normal())))
    rest = np.column_stack([place, np.zeros(len(place))])  # upright: what faces down would be no cloth
    sheet = swing(target, faces, rest, np.where(held, 0.0, 1.0), fps, fabric)[warm_up:]
    vertices, closed = thickened_sheet(sheet, faces, thickness)
    turn = rng.uniform(0, 2 * np.pi)
    cos, sin = np.cos(turn), np.sin(turn)
    vertices = vertices @ np.array([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]])
    name = f"{way}{rng.integers(10_000):04d}"
    return Clip(name, "cloth", identity or "cloth", vertices.astype(np.float32), closed, fps)


def grid(width: float, height: float, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """A flat sheet: places (V, 2), x in the middle of ``width`` and y from 0 down, and triangles (F, 3), both ways."""
    columns, rows = (max(round(side / spacing), 2) + 1 for side in (width, height))
    x, y = np.meshgrid(np.linspace(-width / 2, width / 2, columns), np.linspace(0, -height, rows))
    number = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = (part.ravel() for part in (number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1]))
    # Diagonals go either way in turn, so that the sheet bends alike to both sides.
    even = (np.add.outer(np.arange(rows - 1), np.arange(columns - 1)) % 2 == 0).ravel()[:, None]
    first = np.where(even, np.stack([a, c, b], 1), np.stack([a, d, b], 1))
    second = np.where(even, np.stack([a, d, c], 1), np.stack([b, d, c], 1))
    return np.column_stack([x.ravel(), y.ravel()]), np.concatenate([first, second]).astype(np.int32)


def thickened_sheet(sheet: np.ndarray, faces: np.ndarray, thickness: float) -> tuple[np.ndarray, np.ndarray]:
    """A closed surface (T, 2 V, 3), (G, 3) half of ``thickness`` to both sides of the open ones (T, V, 3), (F, 3)."""
    offset = np.stack([vertex_normals(frame, faces) for frame in sheet.astype(np.float64)]) * (thickness / 2)
    count = sheet.shape[1]
    directed = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    _, index, uses = np.unique(np.sort(directed, 1), axis=0, return_inverse=True, return_counts=True)
    start, end = directed[uses[index.reshape(-1)] == 1].T
    rim = np.concatenate([np.stack([end, start, start + count], 1), np.stack([end, start + count, end + count], 1)])
    closed = np.concatenate([faces, faces[:, ::-1] + count, rim]).astype(np.int32)
    return np.concatenate([sheet + offset, sheet - offset], 1), closed


def _held(way: str, place: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Where the sheet's points (V, 2) are in the beginning (V, 3), and which (V,) stay in somebody's hand."""
    x, y = place.T
    width, height = np.ptp(place, axis=0)
    near = 0.06 * max(width, height)  # what a hand or a peg holds
    zero, together = np.zeros_like(x), rng.uniform(0.5, 0.97)
    if way == "curtain":
        folds = np.sin(2 * np.pi * rng.integers(1, 7) * x / width + rng.uniform(0, 6.3))
        held = y > -1e-9
        start = np.stack([x * together, y, 0.06 * width * folds * np.sqrt(1 - together**2)], 1)
    elif way == "corners":
        held = (y > -near) & (np.abs(x) > width / 2 - near)
        start = np.stack([x * together, y, zero], 1)
    elif way == "flag":
        held = (x < -width / 2 + 1e-9) & ((np.abs(y + height / 2) > height / 2 - near) | (rng.random() < 0.5))
        start = np.stack([x, y, 0.05 * width * np.sin(5 * x / width)], 1)
    elif way == "bar":
        over = rng.uniform(0.25, 0.75) * height
        held = np.abs(y + over) < near / 2
        start = np.stack([x, -np.abs(y + over), 0.4 * near * np.tanh(3 * (y + over) / near)], 1)
    elif way == "blanket":
        held = (np.abs(np.abs(y + height / 2) - height / 2) < near) & (np.abs(x) > width / 2 - near)
        start = np.stack([x * together, zero, (y + height / 2) * rng.uniform(0.6, 0.97)], 1)
    else:
        grip = np.array([rng.uniform(-0.5, 0.5) * width, -rng.uniform(0, 0.5) * height])
        away = np.linalg.norm(place - grip, axis=1)
        held = away < max(near, away.min() + 1e-9)
        around = np.arctan2(y - grip[1], x - grip[0])
        out = 0.45 * away
        start = np.stack([out * np.cos(around), -0.89 * away, out * np.sin(around)], 1)
    return start, held


def _shaken(
    start: np.ndarray, held: np.ndarray, longer: float, time: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Displacements (T, V, 3) of what is held: all of it together, and the left hand against the right a little."""
    force = rng.choice([0.0, 0.04, 0.08, 0.14], p=[0.15, 0.35, 0.3, 0.2]) * longer

    def wave() -> np.ndarray:
        rate, phase = rng.uniform(0.2, 1.3, 3), rng.uniform(0, 6.3, 3)
        return force * rng.normal(size=3) * np.sin(2 * np.pi * rate * time[:, None] + phase)

    both, apart = wave(), 0.35 * wave()
    side = start[:, 0] / max(float(np.abs(start[held, 0]).max()), 1e-9)
    return both[:, None] + apart[:, None] * np.clip(side, -1, 1)[:, None]
