"""How tracks hold over time and against speed: over many frames, and with frames left out.

    python -m nr_tracking.evaluation.endurance SEQUENCE... [--surfaces true|completed] [--strides 1 2 4]
        [--frames 17 90 300 900] [--refiner on off] [--preset base]

One row for each recording, stride and refiner; for each number of frames the median distance of the points of the first
frame from where they ought to be, and the share of them that is still tracked under its id. With a stride of 2 or 4
only every second or fourth frame is seen, so everything moves as much faster. ``true`` surfaces are those of the ground
truth, meshed anew in each frame: what is left is the error of tracking alone. ``completed`` ones are the network's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from nr_tracking.config import Config, load_config
from nr_tracking.data.clips import interpolate, sample_surface
from nr_tracking.data.sequence import Sequence, read_sequence
from nr_tracking.normals import vertex_normals
from nr_tracking.tracking.tracker import Tracker
from nr_tracking.tracking.tracks import PersistentTracks
from nr_tracking.types import Float64, InputError, Int64, Surface, Tracks

MARKS = (17, 90, 300, 900)
_TRUE_POINTS = 40_000
_CELL = 0.009  # cells in which vertices are merged, over the size of the subject


@dataclass(frozen=True)
class Mark:
    """After ``frame`` frames: ``median`` error in metres, and the share ``kept`` of the first points, by their ids."""

    frame: int
    median: float
    kept: float


def endurance(tracked: Iterable[tuple[int, Tracks]], truth: Float64, marks: tuple[int, ...] = MARKS) -> list[Mark]:
    """Hold tracks against ``truth`` (T, N, 3), points in correspondence.

    ``tracked`` gives the index of a frame and its tracks, in order. A mark is taken at the last frame seen up to it,
    counting the first frame as 1; one beyond the end is left out.
    """
    found: list[Mark] = []
    partner: Int64 | None = None
    last: Mark | None = None
    stride = 1
    for index, tracks in tracked:
        if partner is None:
            ids = tracks.ids
            partner = np.asarray(cKDTree(truth[index]).query(tracks.positions)[1], np.int64)
        _, first, now = np.intersect1d(ids, tracks.ids, assume_unique=True, return_indices=True)
        error = np.linalg.norm(tracks.positions[now] - truth[index][partner[first]], axis=1)
        median = float(np.median(error)) if len(error) else float("nan")
        if last is not None:
            found += [last for mark in marks if last.frame <= mark < index + 1]
            stride = index + 1 - last.frame
        last = Mark(index + 1, median, len(now) / len(ids))
    if last is not None:
        found += [last for mark in marks if last.frame <= mark < last.frame + stride]
    return found


def true_surfaces(sequence: Sequence, stride: int, frames: int) -> Iterator[tuple[int, Surface]]:
    """The surfaces of the ground truth, each meshed anew, as if all of it were seen."""
    rng = np.random.default_rng(0)
    for index in range(0, min(frames, len(sequence)), stride):
        truth = _truth(sequence, index, 1)
        vertices, faces = remeshed(truth[0][0], truth[1], rng)
        yield index, Surface(
            vertices.astype(np.float32), faces.astype(np.int32), np.ones(len(vertices), np.float32),
            np.ones(len(vertices), np.bool_),
        )  # fmt: skip


def remeshed(vertices: Float64, faces: np.ndarray, rng: np.random.Generator) -> tuple[Float64, Int64]:
    """Merge the vertices of a mesh that share a cell of a randomly placed grid, and face the same way."""
    normals = vertex_normals(vertices, faces)
    cell = _CELL * float(np.ptp(vertices, axis=0).max())
    places = np.floor((vertices - vertices.min(axis=0)) / cell + rng.random(3)).astype(np.int64)
    axis = np.abs(normals).argmax(axis=1)
    side = 2 * axis + (np.take_along_axis(normals, axis[:, None], 1)[:, 0] > 0)
    spans = places.max(axis=0) + 1
    code = ((places[:, 0] * spans[1] + places[:, 1]) * spans[2] + places[:, 2]) * 6 + side
    _, group, size = np.unique(code, return_inverse=True, return_counts=True)
    merged = np.stack([np.bincount(group, column) / size for column in vertices.T], axis=1)
    corners = group[faces]
    whole = (corners != np.roll(corners, 1, axis=1)).all(axis=1)
    used, kept = np.unique(corners[whole], return_inverse=True)
    return merged[used], kept.reshape(-1, 3)


def tracked_truth(sequence: Sequence, config: Config, stride: int, frames: int) -> Iterator[tuple[int, Tracks]]:
    """Tracks over the true surfaces."""
    tracks = PersistentTracks(config.refinement, config.tracks, device=config.device)
    for index, surface in true_surfaces(sequence, stride, frames):
        stamp = int(sequence.stamps_ns[index])
        yield index, tracks.advance(surface, stamp) if index else tracks.start(surface, stamp)


def tracked_depth(sequence: Sequence, config: Config, stride: int, frames: int) -> Iterator[tuple[int, Tracks]]:
    """Tracks of the whole tracker, from depth images."""
    tracker = Tracker(config)
    row = {int(stamp): index for index, stamp in enumerate(sequence.stamps_ns)}
    for index in range(0, min(frames, len(sequence)), stride):
        for result in tracker.push(sequence.frame(index)):
            yield row[result.stamp_ns], result.tracks
    for result in tracker.flush():
        yield row[result.stamp_ns], result.tracks


def true_points(sequence: Sequence, frames: int) -> Float64:
    """Points on the true surface in correspondence, (T, N, 3)."""
    vertices, faces = _truth(sequence, 0, min(frames, len(sequence)))
    face, weights = sample_surface(vertices[0], faces, _TRUE_POINTS, np.random.default_rng(0))
    return np.stack([interpolate(frame, faces, face, weights) for frame in vertices])


def _truth(sequence: Sequence, start: int, count: int) -> tuple[Float64, np.ndarray]:
    truth = sequence.ground_truth(start, count)
    if truth is None:
        raise InputError("no_ground_truth", "the recording has no ground_truth.npz to hold tracks against")
    return truth.vertices.astype(np.float64), truth.faces


def main(arguments: list[str] | None = None) -> None:
    """Print the table that the docstring of the module describes."""
    parser = argparse.ArgumentParser(
        prog="python -m nr_tracking.evaluation.endurance",
        description="Print the median error of the tracks of recordings after several numbers of frames, and the share "
        "of the first points that still have their ids.",
    )
    parser.add_argument("sequences", nargs="+", type=Path, metavar="SEQUENCE", help="recording with ground_truth.npz")
    parser.add_argument(
        "--surfaces",
        choices=("true", "completed"),
        default="true",
        help="what is tracked: the true surfaces, meshed anew in each frame (the error of tracking alone), or the "
        "surfaces that the network completes from the depth images; default: %(default)s",
    )
    parser.add_argument(
        "--strides",
        nargs="+",
        type=int,
        default=[1],
        metavar="S",
        help="use every S-th frame only, so that everything moves S times as fast; one row for each; default: 1",
    )
    parser.add_argument(
        "--frames",
        nargs="+",
        type=int,
        default=list(MARKS),
        metavar="N",
        help=f"numbers of frames after which errors are measured; default: {' '.join(map(str, MARKS))}",
    )
    parser.add_argument(
        "--refiner",
        nargs="+",
        choices=("on", "off"),
        default=["on"],
        help="values of refinement.enabled; one row for each; default: on",
    )
    parser.add_argument("--preset", default="base", help="preset of the configuration; default: %(default)s")
    chosen = parser.parse_args(arguments)
    marks, follow = tuple(chosen.frames), tracked_truth if chosen.surfaces == "true" else tracked_depth
    print(f"| recording | every | refiner |{'|'.join(f' {mark} frames ' for mark in marks)}|")
    print("|---" * (3 + len(marks)) + "|")
    for path in chosen.sequences:
        sequence = read_sequence(path)
        truth = true_points(sequence, max(marks))
        for stride in chosen.strides:
            for refiner in chosen.refiner:
                config = load_config(chosen.preset, refinement={"enabled": refiner == "on"})
                reached = endurance(follow(sequence, config, stride, max(marks)), truth, marks)
                cells = [f"{1e3 * one.median:.1f} mm, {one.kept:.1%}" for one in reached]
                cells += ["-"] * (len(marks) - len(cells))
                print(f"| {path.name} | {stride} | {refiner} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
