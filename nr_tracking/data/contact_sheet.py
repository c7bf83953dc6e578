"""A picture of what is in a cache, for a person to look at before anything is trained on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.ndimage import zoom

from nr_tracking.data.cache import WindowCache, WindowSample

_TILE = 150
_COLUMNS = 6


def write_contact_sheet(folder: str | Path, count: int = 60, seed: int = 0) -> Path:
    """Write ``contact_sheet.png`` into a cache folder: ``count`` windows drawn at random, evenly by family.

    A tile shows the first and the last image, shaded, and beside them the true surface from the camera's right at
    the first frame: seen points bright, hidden ones dark. Returns the picture's path.
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
    pictures = [_shaded(sample.depth[0], sample), _shaded(sample.depth[-1], sample), _from_the_side(sample)]
    return np.concatenate([np.repeat(picture[..., None], 3, -1) for picture in pictures], 1)


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
    """The true surface points of the first frame seen from the right of the camera, which stands on the left."""
    points = sample.surface[0]
    size = float(np.ptp(points, axis=0).max())
    place = (points - (points.max(0) + points.min(0)) / 2) / size * (_TILE - 6) + _TILE / 2
    picture = np.full((_TILE, _TILE), 255.0)
    for seen, grey in ((False, 90.0), (True, 190.0)):
        chosen = place[sample.visible[0] == seen].astype(int).clip(0, _TILE - 1)
        picture[chosen[:, 1], chosen[:, 2]] = grey
    return picture.astype(np.uint8)


def _centred(picture: np.ndarray) -> np.ndarray:
    tile = np.full((_TILE, _TILE), 255.0)
    height, width = (min(edge, _TILE) for edge in picture.shape)
    top, left = (_TILE - height) // 2, (_TILE - width) // 2
    tile[top : top + height, left : left + width] = picture[:height, :width]
    return tile.clip(0, 255).astype(np.uint8)
