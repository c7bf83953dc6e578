"""An analytic subject for tests: two limbs of capsules that bend at a joint, with exact depth and distances."""

import numpy as np

from nr_tracking.data.cache import WindowSample, write_manifest, write_shard
from nr_tracking.types import Intrinsics

RADIUS, LENGTH = 0.12, 0.45
CAMERA = Intrinsics(width=72, height=96, fx=95.0, fy=95.0, cx=35.5, cy=47.5)


def limbs(angle: float, turn: float, centre: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """End points of the capsules: one stands, one bends away by ``angle``; ``turn`` is about the vertical."""
    about = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    up = np.array([0.0, -1.0, 0.0])
    bent = about @ np.array([np.sin(angle), -np.cos(angle), 0.0])
    return [(centre, centre - LENGTH * up), (centre, centre + LENGTH * bent)]


def distance(points: np.ndarray, body: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Signed distance (Q,) to the union of capsules."""
    each = []
    for start, end in body:
        along = np.clip((points - start) @ (end - start) / LENGTH**2, 0, 1)
        each.append(np.linalg.norm(points - start - along[..., None] * (end - start), axis=-1) - RADIUS)
    return np.minimum(*each)


def depth_image(body: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Depth (H, W) by sphere tracing."""
    rows, columns = np.mgrid[0 : CAMERA.height, 0 : CAMERA.width]
    rays = np.stack([(columns - CAMERA.cx) / CAMERA.fx, (rows - CAMERA.cy) / CAMERA.fy, np.ones(rows.shape)], -1)
    length = np.linalg.norm(rays, axis=-1)
    depth = np.full(rows.shape, 0.5)
    for _ in range(60):
        depth += distance(rays * depth[..., None], body) / length
        depth = np.minimum(depth, 10.0)
    return np.where(np.abs(distance(rays * depth[..., None], body)) < 1e-3, depth, 0).astype(np.float32)


def bending_window(seed: int = 0, frames: int = 5, points: int = 3000, surface: int = 800) -> WindowSample:
    """A window in which the upper limb bends and the whole drifts a little."""
    rng = np.random.default_rng(seed)
    start, speed, turn = rng.uniform(0.2, 1.2), rng.uniform(0.05, 0.2), rng.uniform(-np.pi, np.pi)
    drift = rng.uniform(-0.02, 0.02, 3)
    centres = np.array([0.0, 0.0, 1.5]) + rng.uniform(-0.1, 0.1, 3) + np.arange(frames)[:, None] * drift
    bodies = [limbs(start + speed * t, turn, centres[t]) for t in range(frames)]

    # Points on the capsules keep their place along and around each axis; those in the other limb are left out.
    limb = rng.integers(0, 2, 2 * surface)
    along = rng.uniform(-0.25, 1.25, 2 * surface)  # beyond 0 and 1 lie the round caps
    tilt = np.clip(4 * (along - np.clip(along, 0, 1)), -1, 1)[:, None]
    along = np.clip(along, 0, 1)
    around = rng.normal(size=(2 * surface, 3))
    tracks, normals = [], []
    for body in bodies:
        begin = np.stack([body[i][0] for i in limb])
        axis = np.stack([body[i][1] for i in limb]) - begin
        sideways = np.cross(axis, around)
        sideways /= np.linalg.norm(sideways, axis=1, keepdims=True)
        outward = np.sqrt(1 - tilt**2) * sideways + tilt * axis / LENGTH
        tracks.append(begin + along[:, None] * axis + RADIUS * outward)
        normals.append(outward)
    outside = np.min([distance(p, b) for p, b in zip(tracks, bodies, strict=True)], axis=0) > -1e-3
    tracks = np.stack(tracks)[:, outside][:, :surface]
    normals = np.stack(normals)[:, outside][:, :surface]

    near = 2 * points // 3
    spread = rng.choice([0.01, 0.03, 0.08], (frames, near, 1))
    chosen = rng.integers(0, tracks.shape[1], (frames, near))
    offset = rng.normal(size=(frames, near, 1)) * spread
    around_surface = np.take_along_axis(tracks, chosen[..., None], 1)
    around_surface = around_surface + offset * np.take_along_axis(normals, chosen[..., None], 1)
    uniform = centres[:, None] + rng.uniform(-0.75, 0.75, (frames, points - near, 3))
    samples = np.concatenate([around_surface, uniform], axis=1)
    return WindowSample(
        depth=np.stack([depth_image(body) for body in bodies]),
        intrinsics=CAMERA,
        points=samples.astype(np.float32),
        sdf=np.stack([distance(p, b) for p, b in zip(samples, bodies, strict=True)]).astype(np.float32),
        surface=tracks.astype(np.float32),
        normals=normals.astype(np.float32),
        visible=np.ones(tracks.shape[:2], bool),
        up=np.array([0, -1, 0], np.float32),
        near=near,
        stride=1,
        family="procedural",
        identity=f"bending-{seed}",
        clip="bend",
    )


def write_cache(folder, windows: int, frames: int) -> None:
    """A cache of one shard, of windows drawn with seeds 0, 1, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    entry = write_shard(folder, 0, [bending_window(seed, frames) for seed in range(windows)])
    write_manifest(folder, {"format": 1, "shards": [entry]})
