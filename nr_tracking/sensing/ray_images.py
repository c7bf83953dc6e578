"""A depth image along the rays that pass the cube: the input of the network that completes along rays.

Each frame has a cube of its own, fitted to its subject, and is seen through the cube's middle plane. Pixel (i, j) of
P x P is the ray through the point ((j + 0.5) / P - 0.5, (i + 0.5) / P - 0.5, 0) in the cube's box coordinates, x to the
right and y down. So the subject fills the image alike whatever the camera, the distance, the subject's size and how far
it walks within a window. ``place`` leads from the window's cube to the frame's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from nr_tracking.config import VolumeConfig
from nr_tracking.loops import compiled_loops
from nr_tracking.sensing.tensors import loops_for
from nr_tracking.sensing.volume import Volume, fit_volume
from nr_tracking.types import Int64, Intrinsics, check_same_shape

CHANNELS = 7
REACH = 12  # pixels beyond its outline within which the subject's surface is continued, to both sides of a hole
FAR = 0.5  # box z of the front where there is none within reach: the far side of the cube
_STEEP = 4.0  # slopes are given in units of this one, and cut off there
_LOOKED_AT = 5000  # points that tell how far a subject reaches in the image
_REACHED = 99.8  # percent of them: flying pixels do not make the subject small
_RIM = 0.02  # of the cube's side, left around it
_WIDEST = 1.6  # times the fitted cube, at most
_NEAREST = 0.05  # a point nearer to the camera than this share of the cube's distance is taken to be there


@dataclass(frozen=True)
class RayImages:
    """The frames of one or more windows along their cubes' rays.

    ``channels`` (N, 7, P, P) float32: subject or not, its box z, its two slopes, box z of whatever else returned,
    whether anything else returned, box z of the continued front. ``front`` (N, P, P) float32: box z of the nearest seen
    surface within :data:`REACH` pixels, :data:`FAR` where there is none. ``view`` (N, 3) float32: x and y over z of
    the cube's centre in the camera frame, and the cube's side over that z. ``place`` (N, 4) float32: centre and side of
    the frame's cube in box coordinates of the window's.
    """

    channels: Tensor
    front: Tensor
    view: Tensor
    place: Tensor

    def to(self, device: torch.device) -> RayImages:
        """Return the images on a device."""
        return replace(
            self,
            channels=self.channels.to(device),
            front=self.front.to(device),
            view=self.view.to(device),
            place=self.place.to(device),
        )


def ray_image(
    depth: Tensor,
    mask: Tensor | None,
    intrinsics: Intrinsics,
    volume: Volume,
    pixels: int,
    window: Volume | None = None,
) -> RayImages:
    """One frame along the rays of its cube ``volume``, in a ``window`` with another one or the same.

    ``depth`` (H, W) float32 metres, 0 where there is none; ``mask`` (H, W) bool, True on the subject, or None for all.
    The camera must be free of distortion. Each ray reads the nearest pixel; one that misses the image has no return.
    A subject's pixel in front of or behind the cube counts as something else.
    """
    if intrinsics.distortion_model != "none":
        raise ValueError(f"rectify the frame first: its camera has {intrinsics.distortion_model} distortion")
    distance = float(volume.centre[2])
    if distance <= 0:
        raise ValueError(f"the cube's centre is at z = {distance} m: it must lie before the camera")
    view = np.array([volume.centre[0] / distance, volume.centre[1] / distance, volume.side / distance])
    steps = ((np.arange(pixels) + 0.5) / pixels - 0.5) * view[2]
    columns = np.rint((view[0] + steps) * intrinsics.fx + intrinsics.cx).astype(np.int64)
    rows = np.rint((view[1] + steps) * intrinsics.fy + intrinsics.cy).astype(np.int64)
    channels, front = _image(depth, mask, rows, columns, distance, volume.side)
    view_of = torch.from_numpy(view.astype(np.float32)).to(depth.device)
    place = place_in(window or volume, volume).to(depth.device)
    return RayImages(channels[None], front[None], view_of[None], place)


def _image(
    depth: Tensor, mask: Tensor | None, rows: Int64, columns: Int64, distance: float, side: float
) -> tuple[Tensor, Tensor]:
    """Channels (7, P, P) and continued front (P, P) of an image read at ``rows`` and ``columns`` (P,).

    The middle of the cube, whose ``side`` is in metres, is at a ``distance`` of so many.
    """
    check_same_shape(depth=depth.shape, mask=depth.shape if mask is None else mask.shape)
    if (loops := loops_for("images", depth)) is not None:
        whole = torch.ones_like(depth, dtype=torch.bool) if mask is None else mask
        images = (image.detach().contiguous().numpy() for image in (depth, whole))
        read = loops.along_cube(*images, rows, columns, distance, float(side), FAR, REACH, _STEEP)
        return torch.from_numpy(read[0]), torch.from_numpy(read[1])
    height, width = depth.shape
    pixels = len(rows)
    outside = ~(((rows >= 0) & (rows < height))[:, None] & (columns >= 0) & (columns < width))
    nearest = np.where(outside, 0, rows[:, None] * width + columns)
    pixel, beside = torch.from_numpy(nearest).to(depth.device), torch.from_numpy(outside).to(depth.device)
    seen = depth.flatten().index_select(0, pixel.flatten()).view(pixels, pixels).masked_fill(beside, 0.0)
    z = (seen - distance) / side
    subject = seen > 0
    if mask is not None:
        subject &= mask.flatten().index_select(0, pixel.flatten()).view(pixels, pixels)
    subject &= z.abs() < FAR
    other = (seen > 0) & ~subject
    front = continued(z, subject)
    near = (front < FAR).float()
    slopes = _slopes(front) / _STEEP
    on, off = subject.float(), other.float()
    channels = (on, on * z, *(on * slopes.clamp(-1, 1)), off * z.clamp(-1, 1), off, near * front)
    return torch.stack(channels), front


def ray_cube(points: NDArray[np.floating], config: VolumeConfig) -> Volume:
    """The cube through whose middle plane a frame is seen: :func:`fit_volume`, larger where its image would cut it.

    What is nearer than the middle plane looks larger through it, and reaches beyond an image of the cube's side if the
    camera is close. ``points`` (N, 3) are the subject's, in metres in the camera optical frame. Raises InputError
    ``no_subject`` where there is nothing to fit.
    """
    volume = fit_volume(points, config)
    step = max(1, len(points) // _LOOKED_AT)
    if points.dtype == np.float32 and (loops := compiled_loops("percentiles")) is not None:
        farthest = loops.percentile_beside(np.ascontiguousarray(points), step, volume.centre, _REACHED)
    else:
        seen = points[::step]
        away = np.abs(seen[:, :2] * (volume.centre[2] / seen[:, 2:]) - volume.centre[:2]).max(axis=1)
        farthest = float(np.percentile(away, _REACHED))
    reach = 2 * farthest / volume.side
    return Volume(volume.centre, volume.side * min(max(reach + _RIM, 1.0), _WIDEST))


def place_in(window: Volume, volume: Volume) -> Tensor:
    """Centre and side (1, 4) of a frame's own cube ``volume`` in box coordinates of its window's."""
    lies = np.append(window.to_box(volume.centre), volume.side / window.side)
    return torch.from_numpy(lies.astype(np.float32))[None]


def continued(z: Tensor, subject: Tensor) -> Tensor:
    """``z`` (P, P) on the ``subject`` (P, P) bool, around it that of the nearest pixel, the frontmost of several.

    It grows by a pixel a time, diagonally too, :data:`REACH` times; :data:`FAR` beyond.
    """
    grown = torch.where(subject, z, torch.inf)
    for _ in range(REACH):
        framed = functional.pad(grown, (1, 1, 1, 1), value=torch.inf)
        rows = torch.minimum(torch.minimum(framed[:-2], framed[1:-1]), framed[2:])
        wider = torch.minimum(torch.minimum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
        grown = torch.where(torch.isinf(grown), wider, grown)
    return torch.where(torch.isinf(grown), FAR, grown)


def joined(frames: list[RayImages]) -> RayImages:
    """Frames of a window, one after another."""
    names = ("channels", "front", "view", "place")
    return RayImages(*(torch.cat([getattr(frame, name) for frame in frames]) for name in names))


def along_rays(points: Tensor, view: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where points lie in the image, how deep, and how far beside it.

    ``points`` (Q, 3) box coordinates and ``view`` (Q, 3) of their frames -> places (Q, 2) on the cube's middle plane,
    x and y in [-0.5, 0.5] inside the image; box z (Q,); and distance (Q,) across the view, in box sides, from the
    nearest ray of the image at that depth, 0 inside.
    """
    z = points[:, 2]
    nearer = (1 + view[:, 2] * z).clamp(min=_NEAREST)
    place = (points[:, :2] - view[:, :2] * z[:, None]) / nearer[:, None]
    return place, z, (place.abs().amax(1) - 0.5).clamp(min=0) * nearer


def _slopes(front: Tensor) -> Tensor:
    """Change (2, P, P) of ``front`` (P, P) along x and y, box sides over box sides, by Sobel's filter."""
    padded = functional.pad(front[None, None], (1, 1, 1, 1), mode="replicate")
    smooth, change = front.new_tensor([1.0, 2.0, 1.0]), front.new_tensor([-1.0, 0.0, 1.0])
    kernels = torch.stack((smooth[:, None] * change, change[:, None] * smooth))[:, None] / 8
    return functional.conv2d(padded, kernels)[0] * front.shape[-1]
