"""Depth images, strips of pictures and turntables for reports."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nr_tracking.evaluation.shading import Picture, Size, draw_surface, middle_and_extent, orbit_view
from nr_tracking.types import Bool, Float32, Float64, Int32, Intrinsics

# Near to far; equal steps in depth look about equally large.
_DEPTH_COLOURS = np.array(
    [[253, 231, 180], [250, 190, 120], [240, 137, 98], [214, 86, 104], [166, 56, 121], [112, 46, 124], [60, 34, 100]]
)
_NO_DEPTH = np.array([240, 240, 242])


@dataclass(frozen=True)
class Crop:
    """A part of a camera's image, in pixels: ``left`` and ``top`` count from the outer edge of pixel 0."""

    left: float
    top: float
    width: float
    height: float

    def camera(self, intrinsics: Intrinsics, size: Size) -> Intrinsics:
        """The camera, without its lens distortion, that sees this part in a picture of ``size``."""
        across, down = size[0] / self.width, size[1] / self.height
        return Intrinsics(
            width=size[0],
            height=size[1],
            fx=intrinsics.fx * across,
            fy=intrinsics.fy * down,
            cx=(intrinsics.cx - self.left + 0.5) * across - 0.5,
            cy=(intrinsics.cy - self.top + 0.5) * down - 0.5,
        )

    def tile(self, longest: int) -> Size:
        """A picture of this part whose longest side has ``longest`` pixels."""
        scale = longest / max(self.width, self.height)
        return round(self.width * scale), round(self.height * scale)


def crop_around(points: Float32 | Float64, intrinsics: Intrinsics, margin: float = 1.12) -> Crop:
    """The part that holds the projections of ``points`` (N, 3), a little widened, not narrower than 3 : 5."""
    ahead = points[points[:, 2] > 1e-3]
    if not len(ahead):
        return Crop(0.0, 0.0, float(intrinsics.width), float(intrinsics.height))
    u = ahead[:, 0] / ahead[:, 2] * intrinsics.fx + intrinsics.cx
    v = ahead[:, 1] / ahead[:, 2] * intrinsics.fy + intrinsics.cy
    longest = margin * max(float(np.ptp(u)), float(np.ptp(v)), 8.0)
    width, height = (max(margin * float(np.ptp(values)), 0.6 * longest) for values in (u, v))
    left = (float(u.min() + u.max()) + 1 - width) / 2
    return Crop(left, (float(v.min() + v.max()) + 1 - height) / 2, width, height)


def draw_depth(depth: Float32, crop: Crop, size: Size, mask: Bool | None = None) -> Picture:
    """Draw the part ``crop`` of a depth image (H, W): near is light, far is dark, no depth is pale grey.

    Where a subject ``mask`` (H, W) is given, all else is faded and colours are spread over the subject.
    """
    column = np.round(crop.left + (np.arange(size[0]) + 0.5) * crop.width / size[0] - 0.5).astype(int)
    row = np.round(crop.top + (np.arange(size[1]) + 0.5) * crop.height / size[1] - 0.5).astype(int)
    inside = ((row >= 0) & (row < depth.shape[0]))[:, None] & ((column >= 0) & (column < depth.shape[1]))
    where = np.ix_(np.clip(row, 0, depth.shape[0] - 1), np.clip(column, 0, depth.shape[1] - 1))
    part = np.where(inside, depth[where], 0)
    subject = (part > 0) if mask is None else (part > 0) & mask[where]
    near, far = np.percentile(part[subject], [1, 99]) if subject.any() else (0.0, 1.0)
    position = np.clip((part - near) / max(far - near, 1e-6), 0, 1) * (len(_DEPTH_COLOURS) - 1)
    steps = np.arange(len(_DEPTH_COLOURS))
    picture = np.stack([np.interp(position, steps, _DEPTH_COLOURS[:, channel]) for channel in range(3)], axis=-1)
    picture = np.where(subject[..., None], picture, 0.25 * picture + 0.75 * _NO_DEPTH)
    picture[part <= 0] = _NO_DEPTH
    return picture.astype(np.uint8)


def grid(rows: list[list[Picture]], gap: int = 4) -> Picture:
    """Put pictures of one size side by side and below each other, on white."""
    height, width = rows[0][0].shape[:2]
    columns = max(len(row) for row in rows)
    canvas = np.full((len(rows) * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            canvas[i * (height + gap) :, j * (width + gap) :][:height, :width] = picture
    return canvas


def turntable(
    vertices: Float32, faces: Int32, colours: NDArray[np.uint8] | None = None, *, views: int = 24, size: int = 300
) -> list[Picture]:
    """Pictures of one surface from all around."""
    centre, extent = middle_and_extent(vertices)
    return [
        draw_surface(vertices, faces, orbit_view(centre, extent, 360.0 * index / views, size=(size, size)), colours)
        for index in range(views)
    ]


def png_bytes(picture: Picture) -> bytes:
    """The picture as a PNG file."""
    return _encode([picture], "png")


def animation_bytes(pictures: list[Picture], seconds: float) -> bytes:
    """Pictures as an endless animated WebP file that takes ``seconds`` a round."""
    duration = max(1, round(1000 * seconds / len(pictures)))
    return _encode(pictures, "webp", save_all=True, duration=duration, loop=0, quality=82, method=2)


def _encode(pictures: list[Picture], kind: str, **options: Any) -> bytes:
    from PIL import Image

    images = [Image.fromarray(picture) for picture in pictures]
    if len(images) > 1:
        options["append_images"] = images[1:]
    buffer = io.BytesIO()
    images[0].save(buffer, kind, **options)
    return buffer.getvalue()
