"""Shaded pictures of surfaces, made without a display.

Surfaces are lit softly from where the viewer is, without shadows, on a light ground; creases are darkened a little.
They are drawn twice as large and averaged down, so that edges are smooth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from nr_tracking.data.rendering import rasterize
from nr_tracking.normals import vertex_normals
from nr_tracking.types import Bool, Float32, Float64, Int32, Int64, Intrinsics

Picture = NDArray[np.uint8]
"""(H, W, 3) sRGB."""

Size = tuple[int, int]
"""Width and height of a picture in pixels."""

Extent = tuple[float, float]
"""Width and height of a subject in metres."""

_GROUND = (0.99, 0.965)  # brightness of the background at the top and at the bottom
_CLAY = np.array([0.80, 0.775, 0.74])
_SUPERSAMPLING = 2
_AIR = 0.97  # of a picture is used at most, so that nothing touches its edge
# Directions towards the lights in the viewer's frame (x right, y down, z away), and how bright each one is.
_LIGHTS = (
    (np.array([-0.5, -0.75, -0.6]), 0.80),
    (np.array([0.85, -0.15, -0.35]), 0.26),
    (np.array([0.0, 0.9, 0.1]), 0.07),
)
_AMBIENT = 0.17
_EXPOSURE = 1.18
_GAMMA = 2.2


@dataclass(frozen=True)
class View:
    """A viewer: ``rotation`` (3, 3) and ``translation`` (3,) carry camera coordinates to the viewer's."""

    intrinsics: Intrinsics
    rotation: Float64
    translation: Float64

    def see(self, vertices: Float32) -> Float64:
        """Vertices (V, 3) in the viewer's frame."""
        return np.asarray(vertices @ self.rotation.T + self.translation, np.float64)


def camera_view(intrinsics: Intrinsics) -> View:
    """What the camera itself sees."""
    return View(intrinsics, np.eye(3), np.zeros(3))


def orbit_view(
    centre: Float64, extent: Extent, azimuth: float, elevation: float = 8.0, size: Size = (240, 240)
) -> View:
    """A viewer that walked around ``centre`` (3,) by ``azimuth`` degrees and looks down on it by ``elevation``.

    ``extent`` (m) is how wide and how high that is what has to fit into the picture.
    """
    turn, tilt = np.radians(azimuth), np.radians(elevation)
    about_y = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    rotation = about_x @ about_y
    distance = 3.2 * max(extent)  # far enough for little perspective
    focal = _AIR * min(size / (2 * reach) for size, reach in zip(size, _reach(extent, about_x, distance), strict=True))
    intrinsics = Intrinsics(
        width=size[0], height=size[1], fx=focal, fy=focal, cx=(size[0] - 1) / 2, cy=(size[1] - 1) / 2
    )
    return View(intrinsics, rotation, np.array([0, 0, distance]) - rotation @ centre)


def _reach(extent: Extent, tilt: Float64, distance: float) -> Extent:
    """How far, per focal length, an upright cylinder of ``extent`` reaches to the side and up or down in a picture.

    Whatever an orbit shows lies in it, however it is turned: seen from above, what is near reaches further down.
    """
    around = np.linspace(0, 2 * np.pi, 73)
    rim = np.stack([extent[0] * np.cos(around), np.zeros_like(around), extent[0] * np.sin(around)], axis=1) / 2
    ends = np.concatenate([rim + np.array([0, side * extent[1] / 2, 0]) for side in (-1, 1)]) @ tilt.T
    across, down = np.abs(ends[:, :2] / (ends[:, 2:] + distance)).max(axis=0).tolist()
    return across, down


def middle_and_extent(vertices: Float32) -> tuple[Float64, Extent]:
    """Centre of the box of (V, 3), and what an orbit around it has to show."""
    lower, upper = vertices.min(axis=0).astype(np.float64), vertices.max(axis=0).astype(np.float64)
    centre = (lower + upper) / 2
    across = 2 * float(np.linalg.norm((vertices - centre)[:, [0, 2]], axis=1).max())
    return centre, (max(across, 1e-3), max(float(upper[1] - lower[1]), 1e-3))


def draw_surface(vertices: Float32, faces: Int32, view: View, colours: NDArray[np.uint8] | None = None) -> Picture:
    """Draw a surface: ``vertices`` (V, 3) in camera coordinates, sRGB ``colours`` (V, 3), clay without them."""
    large = _enlarged(view.intrinsics, _SUPERSAMPLING)
    ground = np.linspace(np.float64(_GROUND[0]), np.float64(_GROUND[1]), large.height)
    picture = np.broadcast_to(ground[:, None, None], (large.height, large.width, 3)).copy()
    if len(faces):
        seen = view.see(vertices)
        depth, face = (values.numpy() for values in rasterize(torch.from_numpy(seen), torch.from_numpy(faces), large))
        hit = face >= 0
        pixels = np.argwhere(hit)
        corners = faces[face[hit]]
        weights = _barycentric(seen, corners, depth[hit], pixels, large)
        albedo = np.broadcast_to(_CLAY, (len(vertices), 3)) if colours is None else colours / 255.0
        colour = np.einsum("nkc,nk->nc", albedo[corners], weights)
        normals = np.einsum("nkc,nk->nc", vertex_normals(seen, faces)[corners], weights)
        picture[hit] = _lit(colour, normals, _rays(pixels, large), _crevices(depth, hit)[hit])
    small = picture.reshape(view.intrinsics.height, _SUPERSAMPLING, view.intrinsics.width, _SUPERSAMPLING, 3)
    return np.round(255 * np.clip(small.mean(axis=(1, 3)), 0, 1)).astype(np.uint8)


def _lit(colour: Float64, normals: Float64, rays: Float64, crevices: Float64) -> Float64:
    """Light sRGB ``colour`` (N, 3): soft lights that reach around, a sheen, a darker rim and dark crevices."""
    normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
    towards = -rays / np.linalg.norm(rays, axis=1, keepdims=True)
    facing = np.einsum("ij,ij->i", normals, towards)
    normals = np.where(facing[:, None] < 0, -normals, normals)
    light = np.full(len(normals), _AMBIENT)
    for direction, strength in _LIGHTS:
        light += strength * (0.5 + 0.5 * normals @ (direction / np.linalg.norm(direction))) ** 1.8
    light *= (0.72 + 0.28 * np.minimum(1.0, 1.7 * np.abs(facing))) * (1.0 - 0.45 * crevices)
    key = _LIGHTS[0][0]
    halfway = towards + key / np.linalg.norm(key)
    halfway /= np.linalg.norm(halfway, axis=1, keepdims=True)
    sheen = 0.07 * np.maximum(np.einsum("ij,ij->i", normals, halfway), 0) ** 24
    return np.clip(colour**_GAMMA * light[:, None] * _EXPOSURE + sheen[:, None], 0, 1) ** (1 / _GAMMA)


def _crevices(depth: Float32, hit: Bool) -> Float64:
    """How far (H, W) each pixel lies behind its surroundings, 0 to 1: a cue for depth (Luft et al. 2006)."""
    if not hit.any():
        return np.zeros(depth.shape)
    rows = np.flatnonzero(hit.any(axis=1))
    reach = max(1.0, 0.02 * float(rows[-1] - rows[0]))  # follows the subject's size in the picture
    weight = gaussian_filter(hit.astype(np.float64), reach)
    around = gaussian_filter(np.where(hit, depth, 0).astype(np.float64), reach) / np.maximum(weight, 1e-6)
    scale = max(0.15 * float(np.ptp(depth[hit])), 1e-6)
    return np.clip((depth - around) / scale, 0, 1)


def _rays(pixels: Int64, intrinsics: Intrinsics) -> Float64:
    """Rays (N, 3) with z = 1 through pixels (N, 2), row and column."""
    x = (pixels[:, 1] - intrinsics.cx) / intrinsics.fx
    y = (pixels[:, 0] - intrinsics.cy) / intrinsics.fy
    return np.stack([x, y, np.ones_like(x)], axis=1)


def _barycentric(vertices: Float64, corners: Int32, depth: Float32, pixels: Int64, intrinsics: Intrinsics) -> Float64:
    """Barycentric coordinates (N, 3) of what the pixels see on their triangles ``corners`` (N, 3)."""
    a, b, c = (vertices[corners[:, index]] for index in range(3))
    point = _rays(pixels, intrinsics) * depth[:, None]
    normal = np.cross(b - a, c - a)
    area = np.maximum(np.einsum("ij,ij->i", normal, normal), 1e-30)
    second = np.einsum("ij,ij->i", np.cross(point - a, c - a), normal) / area
    third = np.einsum("ij,ij->i", np.cross(b - a, point - a), normal) / area
    weights = np.clip(np.stack([1 - second - third, second, third], axis=1), 0, 1)
    return weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)


def _enlarged(intrinsics: Intrinsics, factor: int) -> Intrinsics:
    """The same camera with ``factor`` times the pixels; pixel centres stay integers."""
    return replace(
        intrinsics,
        width=intrinsics.width * factor,
        height=intrinsics.height * factor,
        fx=intrinsics.fx * factor,
        fy=intrinsics.fy * factor,
        cx=(intrinsics.cx + 0.5) * factor - 0.5,
        cy=(intrinsics.cy + 0.5) * factor - 0.5,
    )
