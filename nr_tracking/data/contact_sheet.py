"""A picture of what is in a cache, for a person to look at before anything is trained on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.ndimage import zoom

from nr_tracking.data.cache import WindowCache, WindowSample

_TILE = 150
_COLUMNS = 6
_SEEN, _HIDDEN = (240, 140, 20), (25, 45, 120)  # apart in hue and in brightness: whoever looks, and printed in grey


def write_contact_sheet(folder: str | Path, count: int = 60, seed: int = 0) -> Path:
    """Write ``contact_sheet.png`` into a cache folder: ``count`` windows drawn at random, evenly by family.

    A tile shows the first and the last image, shaded, and beside them the true surface from the camera's right at
    the first frame: seen points orange, hidden ones dark blue. Returns the picture's path.
    """
    from PIL import Image, ImageDraw

    cache = WindowCache(folder)
    rng = np.random.default_rng(seed)
    by_family = [np.flatnonzero(np.array(cache.families) == name) for name in sorted(set(cache.families))]
    share = -(-count // max(len(by_family), 1))
    chosen = [number for group in by_family for number in sorted(rng.permutation(group)[:share].tolist())]
    rows = -(-len(chosen) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * 3 * _TILE, rows * (_TILE + 14)), "white")
    draw = ImageDraw.Draw(sheet)
    for place, number in enumerate(chosen):
        sample = cache[number]
        left, top = (place % _COLUMNS) * 3 * _TILE, (place // _COLUMNS) * (_TILE + 14)
        sheet.paste(Image.fromarray(_tile(sample)), (left, top + 14))
        label = f"{number} {sample.family} {sample.identity} {sample.clip} x{sample.stride}"
        draw.text((left + 2, top + 1), label[:70], fill="black")
    path = Path(folder) / "contact_sheet.png"
    sheet.save(path)
    return path


def _tile(sample: WindowSample) -> np.ndarray:
    shaded = [np.repeat(_shaded(depth, sample)[..., None], 3, -1) for depth in (sample.depth[0], sample.depth[-1])]
    return np.concatenate([*shaded, _from_the_side(sample)], 1)


def _shaded(depth: np.ndarray, sample: WindowSample) -> np.ndarray:
    """Lambert shading (tile, tile) uint8 of one image with a light at the camera; white where there is no depth."""
    camera = sample.intrinsics
    v, u = np.indices(depth.shape)
    points = np.stack([(u - camera.cx) / camera.fx * depth, (v - camera.cy) / camera.fy * depth, depth], -1)
    normal = np.cross(np.gradient(points, axis=1), np.gradient(points, axis=0))
    shade = np.abs(normal[..., 2]) / np.maximum(np.linalg.norm(normal, axis=-1), 1e-12)
    picture = np.where(depth > 0, 40 + 190 * shade, 255)
    scale = (_TILE - 2) / max(depth.shape)
    return _centred(zoom(picture, scale, order=0 if scale < 1 else 1, grid_mode=True, mode="nearest"))


def _from_the_side(sample: WindowSample) -> np.ndarray:
    """(tile, tile, 3) uint8: true surface points of the first frame from the right of the camera, which is left.

    Where both lie on a pixel, it is the seen one that shows.
    """
    points = sample.surface[0]
    size = float(np.ptp(points, axis=0).max())
    place = (points - (points.max(0) + points.min(0)) / 2) / size * (_TILE - 6) + _TILE / 2
    picture = np.full((_TILE, _TILE, 3), 255, np.uint8)
    square = np.stack(np.meshgrid((-1, 0, 1), (-1, 0, 1)), -1).reshape(-1, 2)  # of a dot, three pixels wide
    for seen, colour in ((False, _HIDDEN), (True, _SEEN)):
        chosen = place[sample.visible[0] == seen, 1:].astype(int)
        row, column = (chosen[:, None] + square).reshape(-1, 2).clip(0, _TILE - 1).T
        picture[row, column] = colour
    return picture


def _centred(picture: np.ndarray) -> np.ndarray:
    tile = np.full((_TILE, _TILE), 255.0)
    height, width = (min(edge, _TILE) for edge in picture.shape)
    top, left = (_TILE - height) // 2, (_TILE - width) // 2
    tile[top : top + height, left : left + width] = picture[:height, :width]
    return tile.clip(0, 255).astype(np.uint8)
