"""From a moving character to one training window: images, signed distances and corresponding points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from nr_tracking.data import torch_distance
from nr_tracking.data.cache import WindowSample, pack_points, unpack_points
from nr_tracking.data.cameras import Camera, draw_camera
from nr_tracking.data.clips import Clip, face_normals, interpolate, largest_edge, sample_surface
from nr_tracking.data.distance import signed_distance
from nr_tracking.data.rendering import render_depth, visible_points
from nr_tracking.types import Float32, InputError, Intrinsics

NEAR_POINTS, FAR_POINTS, SURFACE_POINTS = 5000, 2000, 1500
NEAR_WIDTHS = (0.01, 0.03, 0.08)
"""Standard deviations of the points around the surface, over the subject's longest edge; a third of them each."""
CUBE = 1.6
"""Side of the cube of uniform points over the longest seen edge."""
_LEAST_PIXELS = 300


def make_window(
    clip: Clip,
    stride: float,
    rng: np.random.Generator,
    camera: Camera | None = None,
    near_points: int = NEAR_POINTS,
    far_points: int = FAR_POINTS,
    device: torch.device | None = None,
    *,
    close_up: bool = False,
) -> WindowSample:
    """Observe all frames of ``clip``, which are ``stride`` frames of 30 Hz apart, with one camera.

    With a ``device``, images and distances are made there in plain torch; without, distances come from libigl. Of a
    ``close_up``, points around the surface are drawn where the cube is, not on what is far out of the picture.
    :class:`InputError` where the camera hardly sees the subject; draw again.
    """
    camera = camera or draw_camera(clip.vertices, rng)
    vertices = camera.to_camera(clip.vertices.astype(np.float64))
    # On a device, meshes go there once, for images and distances.
    meshes = [torch.from_numpy(frame).to(device or "cpu") for frame in vertices]
    faces = torch.from_numpy(clip.faces).to(device or "cpu")
    depth = np.stack([render_depth(mesh, faces, camera.intrinsics) for mesh in meshes])
    if ((depth > 0).sum((1, 2)) < _LEAST_PIXELS).any():
        raise InputError(
            "hardly_seen", f"{clip.identity}/{clip.name}: fewer than {_LEAST_PIXELS} pixels on the subject"
        )
    low, side = sampling_cube(depth, camera.intrinsics)
    within = (low, low + side) if close_up else None
    near = _near_points(vertices, clip.faces, near_points, rng, within)
    far = low + side * rng.random((len(vertices), far_points, 3))
    # The distances belong to the very points that the cache gives back.
    points = unpack_points(*pack_points(np.concatenate([near, far], 1)))
    if device is None:
        sdf = np.stack([signed_distance(q, v, clip.faces) for q, v in zip(points, vertices, strict=True)])
    else:
        asked = [torch.from_numpy(part).to(device) for part in points]
        found = [torch_distance.signed_distance(q, v.float(), faces) for q, v in zip(asked, meshes, strict=True)]
        sdf = torch.stack(found).cpu().numpy()
    face, weights = sample_surface(vertices[0], clip.faces, SURFACE_POINTS, rng)
    surface = interpolate(vertices, clip.faces, face, weights)
    slack = 0.006 * largest_edge(vertices[0])
    visible = [visible_points(s, d, camera.intrinsics, slack).numpy() for s, d in zip(surface, depth, strict=True)]
    cropped, intrinsics = crop(depth, camera.intrinsics)
    return WindowSample(
        depth=cropped,
        intrinsics=intrinsics,
        points=points,
        sdf=sdf,
        surface=surface.astype(np.float32),
        normals=face_normals(vertices, clip.faces[face]).astype(np.float32),
        visible=np.stack(visible),
        up=camera.up.astype(np.float32),
        near=near_points,
        stride=stride,
        family=clip.family,
        identity=clip.identity,
        clip=clip.name,
    )


def crop(depth: Float32, intrinsics: Intrinsics, margin: int = 2) -> tuple[Float32, Intrinsics]:
    """Cut images (N, H, W) to the box that holds all their depth and ``margin`` pixels, and the camera with them."""
    rows = np.flatnonzero((depth > 0).any((0, 2)))
    columns = np.flatnonzero((depth > 0).any((0, 1)))
    top, left = max(rows[0] - margin, 0), max(columns[0] - margin, 0)
    part = depth[:, top : rows[-1] + 1 + margin, left : columns[-1] + 1 + margin]
    camera = replace(
        intrinsics,
        width=part.shape[2],
        height=part.shape[1],
        cx=intrinsics.cx - float(left),
        cy=intrinsics.cy - float(top),
    )
    return np.ascontiguousarray(part), camera


def sampling_cube(depth: Float32, intrinsics: Intrinsics) -> tuple[np.ndarray, float]:
    """Lower corner (3,) and side of a cube that any box around the partial cloud of images (N, H, W) lies in.

    Its centre is pushed back along the view, where what is hidden must be.
    """
    _, v, u = np.nonzero(depth > 0)
    z = depth[depth > 0].astype(np.float64)
    x, y = (u - intrinsics.cx) / intrinsics.fx * z, (v - intrinsics.cy) / intrinsics.fy * z
    low, high = np.percentile(np.stack([x, y, z], 1), [0.3, 99.7], axis=0)
    edge = float((high - low).max())
    centre = (low + high) / 2
    centre = centre + 0.08 * edge * centre / np.linalg.norm(centre)
    return centre - 0.5 * CUBE * edge, CUBE * edge


def _near_points(
    vertices: np.ndarray,
    faces: np.ndarray,
    count: int,
    rng: np.random.Generator,
    within: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Points (N, count, 3) around the surfaces (N, V, 3) at normally distributed offsets of several widths.

    Of each surface only the faces whose middle lies ``within`` two corners count, where they are given.
    """
    size = largest_edge(vertices[0])
    widths = size * np.resize(NEAR_WIDTHS, count)[:, None]
    frames = []
    for frame in vertices:
        near = faces
        if within is not None:
            middles = frame[faces].mean(1)
            near = faces[((middles > within[0]) & (middles < within[1])).all(1)]
            if not face_normals(frame, near).any():
                raise InputError("hardly_seen", "no surface lies within the cube around what is seen")
        face, weights = sample_surface(frame, near, count, rng)
        offset = rng.normal(size=(count, 3)) * widths / np.sqrt(3)
        frames.append(interpolate(frame, near, face, weights) + offset)
    return np.stack(frames)
