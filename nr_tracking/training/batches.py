"""From a cached window to what one training step consumes: augmentation, the cube, TSDFs, samples, true masks.

The cube comes from the noisy partial cloud through the very estimator that serves at run time; a network trained on
cubes around the truth fails on the first subject that is seen from an unlucky side.

Everything random is drawn from one generator that the caller seeds by step, so a window prepared anywhere, in any
process, at any time, is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from nr_tracking.config import Config, TrainingConfig, VolumeConfig
from nr_tracking.data.cache import WindowSample
from nr_tracking.sensing.camera import back_project
from nr_tracking.sensing.ray_images import joined, ray_cube, ray_image
from nr_tracking.sensing.tsdf import SparseTsdf, TsdfWindow, make_window, projective_tsdf, seen_space
from nr_tracking.sensing.volume import Volume, fit_volume
from nr_tracking.training.scenes import is_cut, observed
from nr_tracking.training.warping import warped
from nr_tracking.types import Float32, Intrinsics

_SHELLS = np.array(
    [-0.05, -0.03, -0.02, -0.01, 0, 0.01, 0.02, 0.03, 0.045, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3]
)  # of its size


@dataclass(frozen=True)
class TrainingBatch:
    """One window of N frames, in box coordinates (lengths in box sides).

    ``window``: the network's input. ``teacher``: resolution -> (M, 4) int32 [frame, x, y, z], the voxels around the
    true surface at R/2 and R. ``points`` (Q, 3), ``frame`` (Q,) int64, ``distance`` (Q,): signed distances, points on
    the surface included; ``weight`` (Q,): the volume that each stands for, up to a factor, and 0 for those on the
    surface. ``tracks`` (N, S, 3): points of the true surface in correspondence over time, some outside the
    cube. ``pair`` and ``matched`` (2, K, 3): two frames and K corresponding points inside the cube in both.
    """

    window: TsdfWindow
    teacher: dict[int, Tensor]
    points: Tensor
    frame: Tensor
    distance: Tensor
    weight: Tensor
    tracks: Tensor
    pair: tuple[int, int]
    matched: Tensor
    volume: Volume

    def to(self, device: torch.device) -> TrainingBatch:
        """Return the batch with its tensors on a device."""
        return replace(
            self,
            window=self.window.to(device),
            teacher={cells: voxels.to(device) for cells, voxels in self.teacher.items()},
            **{
                name: getattr(self, name).to(device)
                for name in ("points", "frame", "distance", "weight", "tracks", "matched")
            },
        )


def prepare(sample: WindowSample, config: Config, rng: np.random.Generator, *, augment: bool = True) -> TrainingBatch:
    """Make a batch of one window; without ``augment`` only the choice of samples is random."""
    training, resolution = config.training, config.model.resolution
    depth, mask, camera = sample.depth, sample.depth > 0, sample.intrinsics
    if augment:
        # A warp bends the border of the image, beyond which a background must not show through the rest of the subject.
        cut = is_cut(depth)
        straight = cut and rng.random() < 0.5
        sample = turned(sample, training, rng, warp=not straight)
        depth, mask, camera = observed(sample, training, rng, background=straight or not cut)
    on_subject = np.where(mask, depth, 0)
    volume = subject_volume(on_subject, camera, config, rng if augment else None)
    frames, rays = [], []
    for index, (image, subject) in enumerate(zip(torch.from_numpy(depth), torch.from_numpy(mask), strict=True)):
        tsdf = projective_tsdf(image, subject, camera, volume, resolution, config.tsdf.truncation_voxels)
        if augment:
            tsdf = with_dropout(tsdf, rng.uniform(0.0, training.dropout), rng)
        frames.append((tsdf, seen_space(image, subject, camera, volume, resolution // 4)))
        if config.model.rays:
            here = on_subject[[index]]
            own = subject_volume(here, camera, config, rng if augment else None, ray_cube) if here.any() else volume
            rays.append(ray_image(image, subject, camera, own, config.model.ray_pixels, volume))

    surface = volume.to_box(sample.surface).astype(np.float32)
    near = volume.to_box(sample.points).astype(np.float32)
    distance = (sample.sdf / volume.side).astype(np.float32)
    window = make_window(frames, rays=joined(rays) if rays else None)
    chosen = chosen_samples(near, sample.near, window.seen.numpy(), training, rng)
    weight = sample_weights(sample, min(training.points, sample.near))
    points, frame, target, weight = joined_samples(near, distance, weight, chosen, surface, training, rng)
    pair, matched = matched_points(surface, training.contrast_points, rng)
    return TrainingBatch(
        window=window,
        teacher={cells: surface_voxels(surface, near, distance, cells) for cells in (resolution // 2, resolution)},
        points=torch.from_numpy(points),
        frame=torch.from_numpy(frame),
        distance=torch.from_numpy(target),
        weight=torch.from_numpy(weight),
        tracks=torch.from_numpy(surface),
        pair=pair,
        matched=torch.from_numpy(matched),
        volume=volume,
    )


def one_frame(sample: WindowSample, rng: np.random.Generator) -> WindowSample:
    """A window of one frame, drawn from those of ``sample``."""
    index = int(rng.integers(len(sample.depth)))
    per_frame = ("depth", "points", "sdf", "surface", "normals", "visible")
    return replace(sample, **{name: getattr(sample, name)[index : index + 1] for name in per_frame})


def turned(
    sample: WindowSample, training: TrainingConfig, rng: np.random.Generator, *, warp: bool = True
) -> WindowSample:
    """Stretch the window at random; warp, roll, mirror and reverse it, each with its configured probability.

    Without ``warp``, it is never warped.
    """
    if training.stretch > 0:
        sample = stretched(sample, np.exp(rng.uniform(-training.stretch, training.stretch, 3)))
    if warp and training.warp > 0 and rng.random() < training.warp:
        sample = warped(sample, rng)
    if training.on_its_side > 0 and rng.random() < training.on_its_side:
        sample = rolled(sample, int(rng.integers(1, 4)))
    if rng.random() < training.mirror:
        sample = mirrored(sample)
    if rng.random() < training.reverse:
        sample = reversed_in_time(sample)
    return sample


def mirrored(sample: WindowSample) -> WindowSample:
    """The window as a camera would see its mirror image: x -> -x, columns of the image reversed."""
    flip = np.array([-1, 1, 1], np.float32)
    camera = replace(sample.intrinsics, cx=sample.intrinsics.width - 1 - sample.intrinsics.cx)
    return replace(
        sample,
        depth=np.ascontiguousarray(sample.depth[:, :, ::-1]),
        intrinsics=camera,
        points=sample.points * flip,
        surface=sample.surface * flip,
        normals=sample.normals * flip,
        up=sample.up * flip,
    )


def rolled(sample: WindowSample, quarters: int) -> WindowSample:
    """The window as a camera would see it that is rolled about its optical axis by so many quarters of a turn.

    Each of them turns the image counter-clockwise.
    """
    for _ in range(quarters):
        camera = sample.intrinsics
        camera = replace(
            camera,
            width=camera.height,
            height=camera.width,
            fx=camera.fy,
            fy=camera.fx,
            cx=camera.cy,
            cy=camera.width - 1 - camera.cx,
        )
        sample = replace(
            sample,
            depth=np.rot90(sample.depth, axes=(1, 2)),
            intrinsics=camera,
            points=_quarter(sample.points),
            surface=_quarter(sample.surface),
            normals=_quarter(sample.normals),
            up=_quarter(sample.up),
        )
    return replace(sample, depth=np.ascontiguousarray(sample.depth))


def _quarter(points: Float32) -> Float32:
    """Points or directions (..., 3) seen by a camera that was rolled so: the x axis becomes -y, the y axis x."""
    return np.stack((points[..., 1], -points[..., 0], points[..., 2]), axis=-1)


def stretched(sample: WindowSample, factors: np.ndarray) -> WindowSample:
    """The window of a body of other proportions: scaled by ``factors`` (3,) along the camera's x, y and z axes.

    Depth stays exact, because a pinhole camera of other focal lengths sees the scaled body in the same pixels. Signed
    distances keep their signs; their size is scaled as along the normal of the nearest surface point, which is exact
    where the surface is flat and right to first order near it.
    """
    factors = factors.astype(np.float32)
    camera = sample.intrinsics
    camera = replace(
        camera, fx=camera.fx * float(factors[2] / factors[0]), fy=camera.fy * float(factors[2] / factors[1])
    )
    across = sample.normals / factors  # normals of the scaled surface, not yet of unit length
    length = np.linalg.norm(across, axis=-1)
    # The distance between two parallel planes with normal n shrinks or grows by 1 / |n / factors|.
    nearest = np.stack([cKDTree(on).query(at)[1] for on, at in zip(sample.surface, sample.points, strict=True)])
    up = sample.up / factors
    return replace(
        sample,
        depth=sample.depth * factors[2],
        intrinsics=camera,
        points=sample.points * factors,
        sdf=sample.sdf / np.take_along_axis(length, nearest, axis=1),
        surface=sample.surface * factors,
        normals=across / length[..., None],
        up=up / np.linalg.norm(up),
    )


def reversed_in_time(sample: WindowSample) -> WindowSample:
    """The window played backwards."""
    return replace(
        sample,
        depth=sample.depth[::-1].copy(),
        points=sample.points[::-1].copy(),
        sdf=sample.sdf[::-1].copy(),
        surface=sample.surface[::-1].copy(),
        normals=sample.normals[::-1].copy(),
        visible=sample.visible[::-1].copy(),
    )


def with_dropout(tsdf: SparseTsdf, share: float, rng: np.random.Generator) -> SparseTsdf:
    """Leave out a share of the voxels, at random."""
    keep = torch.from_numpy(rng.random(len(tsdf.coords)) >= share)
    return SparseTsdf(tsdf.coords[keep], tsdf.values[keep])


def subject_volume(
    depth: Float32,
    camera: Intrinsics,
    config: Config,
    rng: np.random.Generator | None,
    fit: Callable[[NDArray[np.floating], VolumeConfig], Volume] = fit_volume,
) -> Volume:
    """Fit the cube to the partial cloud of the subject's depth (N, H, W), and jitter it.

    At run time a cube may have been fitted to another moment of the motion; so some are fitted to one frame alone.
    """
    if rng is not None and rng.random() < config.training.single_frame_cube:
        depth = depth[[int(rng.integers(len(depth)))]]
    cloud = np.concatenate([back_project(image, camera)[image > 0] for image in depth])
    volume = fit(cloud, config.volume)
    if rng is None:
        return volume
    shift = rng.uniform(-1.0, 1.0, 3) * config.training.centre_jitter * volume.side
    low, high = config.training.side_jitter
    return Volume(volume.centre + shift, volume.side * float(np.exp(rng.uniform(np.log(low), np.log(high)))))


def sample_weights(sample: WindowSample, near: int) -> Float32:
    """The volume (N, Q) that each stored point stands for, in units of that of a uniform point far from the surface.

    ``near`` of the points around the surface take part. They lie hundreds of times as densely as the uniform ones, and
    where they lie depends on the truth; unweighted, they make every doubtful limb worth predicting (its inside is
    sampled densely when it is there, and hardly at all when it is not) and bodies grow on the side that nobody sees.
    How much denser is counted, in shells of equal distance from the surface.
    """
    edge = float(np.ptp(sample.surface, axis=1).max())
    shell = np.digitize(sample.sdf / edge, _SHELLS)
    around = np.bincount(shell[:, : sample.near].ravel(), minlength=len(_SHELLS) + 1) * (near / sample.near)
    uniform = np.bincount(shell[:, sample.near :].ravel(), minlength=len(_SHELLS) + 1)
    return ((uniform + 1) / (uniform + around + 1)).astype(np.float32)[shell]


def chosen_samples(
    points: Float32, near: int, seen: Float32, training: TrainingConfig, rng: np.random.Generator
) -> list[np.ndarray]:
    """Draw rows of points (N, Q, 3), frame by frame: around the surface, in hidden space, in seen space.

    Whether space was seen is read from ``seen`` (N, 2, r, r, r); all points inside the cube can be drawn.
    """
    chosen = []
    for index in range(len(points)):
        rows = _inside(points[index])
        around, anywhere = rows[rows < near], rows[rows >= near]
        # A point just inside the cube may be rounded onto its border.
        cells = np.minimum((points[index][anywhere] + 0.5) * seen.shape[-1], seen.shape[-1] - 1).astype(np.int64)
        known = seen[index].sum(0)[tuple(cells.T)] > 0.5
        chosen.append(
            np.concatenate(
                (
                    _choose(around, training.points, rng),
                    _choose(anywhere[~known], training.hidden_points, rng),
                    _choose(anywhere[known], training.empty_points, rng),
                )
            )
        )
    return chosen


def joined_samples(
    points: Float32,
    distance: Float32,
    weight: Float32,
    chosen: list[np.ndarray],
    surface: Float32,
    training: TrainingConfig,
    rng: np.random.Generator,
) -> tuple[Float32, np.ndarray, Float32, Float32]:
    """Chosen points of all frames with some on the surface: points (K, 3), frame (K,), distance (K,), weight (K,)."""
    blocks = []
    for index, rows in enumerate(chosen):
        on = _choose(_inside(surface[index]), training.surface_points, rng)
        nothing = np.zeros(len(on), np.float32)
        blocks.append(
            (
                np.concatenate((points[index][rows], surface[index][on])),
                np.full(len(rows) + len(on), index, np.int64),
                np.concatenate((distance[index][rows], nothing)),
                np.concatenate((weight[index][rows], nothing)),
            )
        )
    places, frame, distances, weights = (np.concatenate(part) for part in zip(*blocks, strict=True))
    return places, frame, distances, weights


def matched_points(surface: Float32, count: int, rng: np.random.Generator) -> tuple[tuple[int, int], Float32]:
    """Draw two frames and up to ``count`` surface points (2, K, 3) that lie inside the cube in both.

    A window of one frame is its own pair.
    """
    first, second = sorted(int(frame) for frame in rng.choice(len(surface), 2, replace=len(surface) == 1))
    both = np.isin(_inside(surface[first]), _inside(surface[second]))
    chosen = _choose(_inside(surface[first])[both], count, rng)
    return (first, second), surface[[first, second]][:, chosen]


def surface_voxels(surface: Float32, points: Float32, distance: Float32, resolution: int) -> Tensor:
    """Voxels (M, 4) int32 [frame, x, y, z] that interpolation on the true surface touches, sorted by frame.

    They are the eight nearest voxel centres of every known point within half a voxel of the surface.
    """
    blocks = []
    corners = np.indices((2, 2, 2)).reshape(3, 8).T
    for index in range(len(surface)):
        near = points[index][np.abs(distance[index]) < 0.5 / resolution]
        lower = np.floor((np.concatenate((surface[index], near)) + 0.5) * resolution - 0.5).astype(np.int64)
        lower = lower[((lower >= 0) & (lower < resolution - 1)).all(-1)]
        flat = np.unique(lower @ (resolution**2, resolution, 1))
        flat = np.unique(flat[:, None] + corners @ (resolution**2, resolution, 1))
        voxels = np.stack(np.unravel_index(flat, (resolution,) * 3), axis=-1)
        blocks.append(np.insert(voxels, 0, index, axis=1))
    return torch.from_numpy(np.concatenate(blocks).astype(np.int32))


def _inside(points: Float32) -> np.ndarray:
    """Rows (K,) of the points (Q, 3) inside the cube."""
    return np.flatnonzero((np.abs(points) < 0.5).all(-1))


def _choose(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= count else rng.choice(rows, count, replace=False, shuffle=False)
