"""What a camera might see of a training window: things before and behind the subject, noise, an imperfect mask.

Renderings show a subject alone, without noise. Real cameras get returns beside it too, and what they lose, and what is
taken for the subject, depends on these: so the scene is put together first, the sensor sees all of it, and the mask is
what the sensor and the removal of floors leave.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.ndimage import maximum_filter, minimum_filter
from scipy.spatial import cKDTree

from nr_tracking.config import TrainingConfig
from nr_tracking.data.cache import WindowSample
from nr_tracking.data.occluders import occlude
from nr_tracking.data.sensor import blotches, random_sensor
from nr_tracking.sensing.camera import back_project
from nr_tracking.sensing.planes import depth_tolerance
from nr_tracking.types import Bool, Float32, Intrinsics

_FARTHEST_RETURN = 12.0  # metres
_SPREAD = 0.05  # of its depth, by which noise moves a pixel of the subject at most
_DARK = (0.05, 0.25)  # of the subject's size: radius, or half the width, of a patch that returns nothing
_MOST_DARK = 0.6
_TAKEN = (0.007, 0.022)  # metres from a floor or wall within which near pixels may be taken for a part of it


def observed(
    sample: WindowSample, training: TrainingConfig, rng: np.random.Generator, *, background: bool = True
) -> tuple[Float32, Bool, Intrinsics]:
    """Depth (N, H, W) of a scene around the subject, the subject's mask, and the camera.

    Without ``background`` there never is one: behind a subject that was cut by a border which is bent since.
    """
    depth, mask, camera = sample.depth, sample.depth > 0, sample.intrinsics
    cut = cut_sides(depth)
    if rng.random() < training.occluder:
        depth, mask = occlude(depth, mask, camera, rng)
    if rng.random() < training.background and background:
        depth, mask, camera = with_background(depth, mask, camera, sample.surface, sample.up, rng, cut)
    if training.dark > 0 and rng.random() < training.dark:
        dark = dark_patch(depth, mask, camera, sample.surface, rng)
        depth, mask = np.where(dark, 0, depth).astype(np.float32), mask & ~dark
    if rng.random() < training.noise:
        sensor = random_sensor(rng, training.stereo)
        subject = np.where(mask, depth, 0)
        depth = np.stack([sensor(image, camera, rng) for image in depth])
        reach = sensor.reach(camera)
        mask = np.stack([_found_again(noisy, clean, reach) for noisy, clean in zip(depth, subject, strict=True)])
    return depth, mask & (depth > 0), camera


def is_cut(depth: Float32) -> bool:
    """Whether a subject reaches the border of its images (N, H, W); cropped ones have a margin otherwise."""
    return any(cut_sides(depth))


def cut_sides(depth: Float32) -> tuple[bool, bool, bool, bool]:
    """Whether a subject reaches the top, the bottom, the left and the right border of its images (N, H, W)."""
    top, bottom = ((depth[:, row] > 0).any() for row in (0, -1))
    left, right = ((depth[:, :, column] > 0).any() for column in (0, -1))
    return bool(top), bool(bottom), bool(left), bool(right)


def with_background(
    depth: Float32,
    mask: Bool,
    camera: Intrinsics,
    surface: Float32,
    up: np.ndarray,
    rng: np.random.Generator,
    cut: tuple[bool, bool, bool, bool] = (False, False, False, False),
) -> tuple[Float32, Bool, Intrinsics]:
    """Put a wall, a floor or both behind all there is, the same in all frames.

    The floor lies under the whole subject and the wall behind it, seen or not: ``surface`` (N, S, 3) are points all
    over it, ``up`` (3,) points against gravity. The image, cropped to the subject, is widened by half its size on each
    side, so that the background fills the view of the cube, but for the sides on which the subject is ``cut`` (top,
    bottom, left, right): no camera sees a background there. There is no floor where the camera would be below it.
    Pixels within a tolerance of a plane may leave the mask, as when planes are taken for the subject's support.
    """
    pad = max(depth.shape[1:]) // 2
    top, bottom, left, right = (0 if at else pad for at in cut)
    camera = replace(
        camera,
        width=camera.width + left + right,
        height=camera.height + top + bottom,
        cx=camera.cx + left,
        cy=camera.cy + top,
    )
    sides = ((0, 0), (top, bottom), (left, right))
    depth, mask = np.pad(depth, sides), np.pad(mask, sides)
    points = surface.reshape(-1, 3)
    size = float(np.ptp(points, axis=0).max())
    planes = []
    if rng.random() < 0.7:
        normal = np.array([*rng.normal(size=2) * 0.3, 1.0])
        normal /= np.linalg.norm(normal)
        planes.append((normal, float((points @ normal).max()) + rng.uniform(0.05, 1.5) * size))
    if not planes or rng.random() < 0.7:
        planes.append((-up, float((points @ -up).max()) + rng.uniform(0.0, 0.03) * size))
    taken = rng.uniform(*_TAKEN) if rng.random() < 0.5 else 0.0
    rays = back_project(np.ones(depth.shape[1:], np.float32), camera)
    behind = np.full(rays.shape[:2], np.inf)
    for normal, offset in planes:
        if offset <= 0:  # no camera looks up through a floor
            continue
        slope = rays @ normal
        behind = np.minimum(behind, np.where(slope > 1e-3, offset / np.maximum(slope, 1e-3), np.inf))
        mask = mask & ~(offset - slope * depth < depth_tolerance(depth, taken))
    behind[behind > _FARTHEST_RETURN] = 0
    return np.where(depth > 0, depth, behind).astype(np.float32), mask, camera


def dark_patch(depth: Float32, mask: Bool, camera: Intrinsics, surface: Float32, rng: np.random.Generator) -> Bool:
    """Pixels (N, H, W) of the subject that return nothing, as black cloth and hair do in infrared light.

    The patch sits on the body and moves with it: it is what lies nearest to those of the points ``surface`` (N, S, 3),
    in correspondence, that surround one of them in the first frame. Some of it may return all the same, in blotches.
    At most 60 % of the subject are dark; where it would be more there is no patch.
    """
    dark = np.zeros(mask.shape, bool)
    seen = np.argwhere(mask[0])
    if len(seen) == 0:
        return dark
    row, column = seen[rng.integers(len(seen))]
    anchor = back_project(depth[0], camera)[row, column]
    size = float(np.ptp(surface[0], axis=0).max())
    from_it = np.linalg.norm(surface[0] - anchor, axis=1) / size
    # A ball, or a band all around the body, as trousers are.
    if rng.random() < 0.5:
        from_it = np.abs((surface[0] - anchor) @ _unit(surface[0] - surface[0].mean(0))) / size
    part = from_it < rng.uniform(*_DARK)
    returning = rng.uniform(0.0, 0.4) if rng.random() < 0.5 else 0.0
    for index, image in enumerate(mask):
        nearest = cKDTree(surface[index]).query(back_project(depth[index], camera)[image])[1]
        dark[index][image] = part[nearest]
        if returning > 0:
            dark[index] &= ~blotches(image.shape, returning, rng)
    return dark if dark.sum() <= _MOST_DARK * mask.sum() else np.zeros_like(dark)


def _unit(points: np.ndarray) -> np.ndarray:
    """The direction (3,) in which points (S, 3) about their mean reach furthest."""
    return np.asarray(np.linalg.svd(points, full_matrices=False)[2][0])


def _found_again(noisy: Float32, clean: Float32, reach: int) -> Bool:
    """Pixels (H, W) whose noisy depth is that of the subject there or up to ``reach`` beside; ``clean`` is 0 off it."""
    size = 2 * reach + 1
    nearest, farthest = minimum_filter(np.where(clean > 0, clean, np.inf), size), maximum_filter(clean, size)
    return (noisy > (1 - _SPREAD) * nearest) & (noisy < (1 + _SPREAD) * farthest)
