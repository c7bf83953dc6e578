"""Random cameras around a moving subject, as a robot's depth camera may stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from nr_tracking.data.skeleton import rotations
from nr_tracking.sensing.camera import project
from nr_tracking.types import Intrinsics

IMAGE_SIZES = ((640, 480), (640, 480), (512, 424), (424, 240), (320, 240), (480, 640))
"""Width and height of images of common depth cameras; the last one stands on its side."""

_ABOVE_FLOOR = 0.05
"""How far above the subject's lowest point a camera stands at least, in metres."""
_STEEPEST, _RAISED = float(np.radians(60)), float(np.radians(0.5))
"""A camera is raised up to the one, at least by the other at a time; radians."""
_CLOSE = (0.2, 0.8)
"""What a close-up shows, over the subject's longest edge."""
_UPPER = 0.6
"""Share of the vertices that lie below what most close-ups look at."""


@dataclass(frozen=True)
class Camera:
    """``rotation`` (3, 3) and ``translation`` (3,): world, y up, -> camera optical frame."""

    intrinsics: Intrinsics
    rotation: np.ndarray
    translation: np.ndarray

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """World points (..., 3) -> camera optical frame."""
        return points @ self.rotation.T + self.translation

    @property
    def place(self) -> np.ndarray:
        """Where it stands (3,) in the world."""
        return -self.translation @ self.rotation

    @property
    def up(self) -> np.ndarray:
        """The direction against gravity (3,) in the camera optical frame."""
        return self.rotation[:, 1]


def looking_at(
    target: np.ndarray, azimuth: float, elevation: float, roll: float, distance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and translation of a camera that sees ``target`` from ``distance``; angles in radians.

    Azimuth 0 looks along -z (at the front of a subject that faces +z), elevation is above the subject.
    """
    backwards = np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
    forward = -backwards
    right = np.cross(forward, [0.0, 1.0, 0.0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    rotation = rotations(np.array([0.0, 0.0, roll])) @ np.stack([right, down, forward])
    return rotation, np.array([0, 0, distance]) - rotation @ target


def draw_camera(
    subject: np.ndarray,
    rng: np.random.Generator,
    *,
    size: tuple[int, int] | None = None,
    fill: float | None = None,
    aim_off: float | None = None,
) -> Camera:
    """A random static camera for the points ``subject`` (..., 3) of all frames of a window.

    Any azimuth, -20 to 45 degrees of elevation, raised where that would be below the floor that the subject stands on,
    a lens of 38 to 72 degrees across the shorter side of the image; the subject fills a third to all of the image
    (``fill`` sets the share), and one in six is cut by the border.
    """
    width, height = size or IMAGE_SIZES[rng.integers(len(IMAGE_SIZES))]
    points = subject.reshape(-1, 3)
    low, high = points.min(0), points.max(0)
    centre = (low + high) / 2
    cropped = rng.random() < 1 / 6
    fill = fill or (rng.uniform(0.8, 1.4) if cropped else rng.uniform(0.35, 0.95))
    aim_off = aim_off if aim_off is not None else (0.25 if cropped else 0.05)
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(-20, 45))
    roll = np.radians(rng.normal() * 3)
    focal = 0.5 * min(width, height) / np.tan(np.radians(rng.uniform(38, 72)) / 2)
    target = centre + rng.uniform(-1, 1, 3) * aim_off * (high - low)

    def fitting(elevation: float) -> float:
        """The distance at which the subject's reach fills its share of the image, one way or the other."""
        rotation, _ = looking_at(target, azimuth, elevation, roll, 1.0)
        seen = (points - target) @ rotation.T
        reach = np.abs(seen[:, :2]).max(0)
        distance = float(np.max(2 * reach * focal / (fill * np.array([width, height]))))
        return max(distance, 0.3 - float(seen[:, 2].min()))

    elevation = _above_floor(elevation, fitting, float(low[1] - target[1]) + _ABOVE_FLOOR)
    distance = fitting(elevation)
    rotation, translation = looking_at(target, azimuth, elevation, roll, distance)
    centre_pixel = np.array([width, height]) / 2 - 0.5 + rng.normal(size=2) * 0.01 * width
    lens = Intrinsics(width, height, focal, focal * rng.uniform(0.995, 1.005), *centre_pixel.tolist())
    return Camera(lens, rotation, translation)


def draw_close_up(subject: np.ndarray, rng: np.random.Generator) -> Camera:
    """A random static camera that sees a part of a subject: head and shoulders, a torso, an arm, a dog's hind legs.

    ``subject`` (T, V, 3) are its vertices in all frames of a window. The shorter side of the image spans between a
    fifth and four fifths of the subject's longest edge where it looks at, which is a random vertex, more often one of
    the upper two fifths. Angles are those of :func:`draw_camera`; nothing comes nearer than 0.3 m, and where a limb
    would, the camera stands further off with a longer lens.
    """
    width, height = IMAGE_SIZES[rng.integers(len(IMAGE_SIZES))]
    points = subject.reshape(-1, 3)
    low, high = points.min(0), points.max(0)
    upper = rng.random() < 0.6
    order = np.argsort(subject[0, :, 1], kind="stable")
    first = round(_UPPER * len(order)) if upper else 0
    target = subject[rng.integers(len(subject)), order[rng.integers(first, len(order))]].astype(np.float64)
    reach = 0.5 * float((high - low).max()) * float(np.exp(rng.uniform(*np.log(_CLOSE))))
    azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(-20, 45))
    roll = np.radians(rng.normal() * 3)
    lens_angle = np.radians(rng.uniform(38, 72))

    def fitting(elevation: float) -> float:
        """The distance at which the lens spans as much, or from which all of the subject lies before the camera."""
        rotation, _ = looking_at(target, azimuth, elevation, roll, 1.0)
        nearest = float(((points - target) @ rotation[2]).min())
        return max(reach / float(np.tan(lens_angle / 2)), 0.3 - nearest)

    elevation = _above_floor(elevation, fitting, float(low[1] - target[1]) + _ABOVE_FLOOR)
    distance = fitting(elevation)
    rotation, translation = looking_at(target, azimuth, elevation, roll, distance)
    focal = 0.5 * min(width, height) * distance / reach
    lens = Intrinsics(width, height, focal, focal, width / 2 - 0.5, height / 2 - 0.5)
    return Camera(lens, rotation, translation)


def _above_floor(elevation: float, fitting: Callable[[float], float], least: float) -> float:
    """The elevation, raised until a camera at the ``fitting`` distance stands ``least`` metres above its target."""
    while (distance := fitting(elevation)) * np.sin(elevation) < least and elevation < _STEEPEST:
        # From higher up the subject looks larger or smaller, and so the distance changes with the elevation.
        elevation = max(float(np.arcsin(min(least / distance, 1.0))), elevation) + _RAISED
    return elevation


def with_subject_of(pixels: int, subject: np.ndarray, camera: Camera) -> Camera:
    """The camera with an image so coarse that points ``subject`` (..., 3) cover ``pixels`` at most, either way.

    One that shows them smaller stays as it is; nothing gets coarser than one pixel in eight.
    """
    lens = camera.intrinsics
    place = project(camera.to_camera(subject.reshape(-1, 3)), lens)
    seen = np.clip(place, 0, (lens.width - 1, lens.height - 1))
    factor = float(np.clip(pixels / max(np.ptp(seen, axis=0).max(), 1.0), 0.125, 1.0))
    return replace(camera, intrinsics=scaled(lens, factor))


def scaled(lens: Intrinsics, factor: float) -> Intrinsics:
    """The same view on an image ``factor`` times as large; pixel centres lie at whole numbers."""
    width, height = max(1, round(lens.width * factor)), max(1, round(lens.height * factor))
    across, down = width / lens.width, height / lens.height
    return Intrinsics(
        width,
        height,
        lens.fx * across,
        lens.fy * down,
        (lens.cx + 0.5) * across - 0.5,
        (lens.cy + 0.5) * down - 0.5,
    )
