"""A rolling ball: its recording with ground truth, and a tracker that knows that everything is a ball."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import trimesh

from nr_tracking.commands.recordings import Recording, open_recordings
from nr_tracking.commands.track import Tracked, track
from nr_tracking.config import Config, load_config
from nr_tracking.data.rendering import render_depth
from nr_tracking.data.sequence import GroundTruth, write_sequence
from nr_tracking.types import DepthFrame, InputError, Intrinsics, Patches, Surface, TrackedFrame, Tracks

CAMERA = Intrinsics(width=64, height=48, fx=60.0, fy=60.0, cx=31.5, cy=23.5)
RADIUS = 0.3
STEP = np.array([0.02, 0.0, 0.01])
BALL = trimesh.creation.icosphere(subdivisions=3, radius=RADIUS)
FACES = BALL.faces.astype(np.int32)
CONFIG = load_config("test")


def ball_at(centre: np.ndarray) -> np.ndarray:
    return (np.asarray(BALL.vertices) + centre).astype(np.float32)


def ball_truth(count: int) -> GroundTruth:
    start = np.array([-0.1, 0.05, 1.5])
    return GroundTruth(np.stack([ball_at(start + STEP * index) for index in range(count)]), FACES)


def ball_frames(count: int) -> list[DepthFrame]:
    truth = ball_truth(count)
    return [
        DepthFrame(33_333_333 * index, render_depth(truth.vertices[index], FACES, CAMERA), CAMERA)
        for index in range(count)
    ]


def write_ball(path: Path, count: int = 17) -> Path:
    return write_sequence(path, ball_frames(count), fps=30.0, depth_unit_m=0.0001, ground_truth=ball_truth(count))


class BallTracker:
    """Puts a ball where the depth is nearest; results come out ``window`` frames at a time. Refuses empty images."""

    subject_size_m = 0.0

    def __init__(self, window: int = 4) -> None:
        self.window = window
        self.pushed = 0
        self._waiting: list[DepthFrame] = []
        self.windows = 0
        self.on_ready: Callable[[], None] | None = None
        self._first: np.ndarray | None = None
        self._last: np.ndarray | None = None

    def push(self, frame: DepthFrame) -> list[TrackedFrame]:
        if not frame.depth.any():
            raise InputError("no_depth", "every pixel is 0")
        self.pushed += 1
        self._waiting.append(frame)
        return self.flush() if len(self._waiting) == self.window else []

    def collect(self) -> list[TrackedFrame]:
        return []

    def flush(self) -> list[TrackedFrame]:
        results = [self._track(frame) for frame in self._waiting]
        self._waiting = []
        return results

    def reset(self, keep_background: bool = False) -> None:
        vars(self).update(vars(BallTracker(self.window)))

    def _track(self, frame: DepthFrame) -> TrackedFrame:
        rows, columns = np.nonzero(frame.depth)
        depth = frame.depth[rows, columns]
        nearest = float(depth.min()) + RADIUS
        centre = np.array(
            [
                (columns.mean() - CAMERA.cx) / CAMERA.fx * nearest,
                (rows.mean() - CAMERA.cy) / CAMERA.fy * nearest,
                nearest,
            ]
        )
        vertices = ball_at(centre)
        self._first = vertices if self._first is None else self._first
        previous = np.full_like(vertices, np.nan) if self._last is None else self._last
        self._last = vertices
        ones, seen = np.ones(len(vertices), np.float32), vertices[:, 2] < nearest
        middle = centre[None].astype(np.float32)
        patches = Patches(
            middle,
            np.eye(3, dtype=np.float32)[None],
            middle,
            np.zeros(len(vertices), np.int32),
            np.zeros((0, 2), np.int32),
        )
        tracks = Tracks(np.arange(len(vertices)), vertices, np.zeros_like(vertices), ones, seen)
        surface = Surface(vertices, FACES, ones, seen)
        timings = {"network": 0.02, "mesh": 0.01}
        return TrackedFrame(frame.stamp_ns, surface, patches, tracks, self._first, previous, timings)


def emptied(frame: DepthFrame) -> DepthFrame:
    return replace(frame, depth=np.zeros_like(frame.depth))


def ball_tracker(config: Config) -> tuple[BallTracker, str]:
    return BallTracker(), "weights of a ball"


def run(source: Path | Recording, output: Path, **options: object) -> Tracked:
    recording = source if isinstance(source, Recording) else open_recordings(source)[0]
    return track(recording, output, CONFIG, points=2000, **{"trackers": ball_tracker, **options})


def contents(output: Path) -> dict[str, bytes]:
    """Every file but the report, which tells how long things took."""
    files = (path for path in output.rglob("*") if path.is_file() and path.name != "report.html")
    return {str(path.relative_to(output)): path.read_bytes() for path in files}
