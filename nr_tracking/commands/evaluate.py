"""``nr_tracking evaluate``: the protocol of the tables over recordings with ground truth."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from nr_tracking.atomic import written_folder
from nr_tracking.commands.progress import Progress
from nr_tracking.commands.track import TrackerLike, make_tracker
from nr_tracking.config import Config
from nr_tracking.data.sequence import Sequence
from nr_tracking.evaluation import page
from nr_tracking.evaluation.metrics import Mesh
from nr_tracking.evaluation.protocol import COUNT, LENGTH, Candidate, Scores, score, subsequences, summary
from nr_tracking.evaluation.report import SCORE_HEADER, score_cells, score_output, scores_section, truth_of
from nr_tracking.tracking.result import Output
from nr_tracking.tracking.rows import Rows
from nr_tracking.types import DepthFrame, InputError, TrackedFrame


def evaluate(
    sequences: list[Sequence],
    config: Config,
    *,
    length: int = LENGTH,
    start_stride: int = LENGTH,
    offset: int = 0,
    points: int = COUNT,
    seed: int = 0,
    trackers: Callable[[Config], tuple[TrackerLike, str]] = make_tracker,
) -> list[Scores]:
    """Track and score every sub-sequence of ``length`` frames; the tracker starts anew for each one.

    :class:`InputError` where a recording has no ground truth or is too short.
    """
    for sequence in sequences:
        if not (sequence.path / "ground_truth.npz").is_file():
            raise _no_ground_truth(sequence)
    jobs = [
        (sequence, start)
        for sequence in sequences
        for start in subsequences(len(sequence), length, start_stride, offset)
    ]
    scores = []
    tracker, _ = trackers(config)
    with Progress("evaluating", len(jobs), "sub-sequence") as progress:
        for sequence, start in jobs:
            truth = sequence.ground_truth(start, length)
            if truth is None:
                raise _no_ground_truth(sequence)
            tracker.reset()
            candidate = track_candidate(tracker, sequence.frames(start, length))
            name = sequence.path.resolve().name
            scores.append(score(name, candidate, truth, start=start, count=points, seed=seed))
            progress.advance()
    return scores


def evaluate_output(output: Output, sequence: Sequence, *, length: int = LENGTH, points: int = COUNT) -> list[Scores]:
    """Score an OUTPUT, of ``nr_tracking track`` or of a node, against the recording that it was made from."""
    truth = truth_of(sequence, output)
    if truth is None:
        raise _no_ground_truth(sequence)
    return score_output(output, truth, name=sequence.path.resolve().name, length=length, count=points)


def track_candidate(tracker: TrackerLike, frames: Iterable[DepthFrame]) -> Candidate:
    """Track frames and collect what the protocol scores; a frame that the tracker refuses stays without a surface."""
    rows = Rows()
    results: dict[int, TrackedFrame] = {}
    for frame in frames:
        row = rows.ask(frame.stamp_ns)
        try:
            emitted = tracker.push(frame)
        except InputError as error:
            rows.drop(row, str(error))
            continue
        results |= {rows.place(result): result for result in emitted}
    results |= {rows.place(result): result for result in tracker.flush()}
    surfaces = {row: Mesh(result.surface.vertices, result.surface.faces) for row, result in results.items()}
    ids = np.unique(np.concatenate([np.empty(0, np.int64), *(result.tracks.ids for result in results.values())]))
    tracks = np.full((len(rows), len(ids), 3), np.nan, np.float32)
    for row, result in results.items():
        tracks[row, np.searchsorted(ids, result.tracks.ids)] = result.tracks.positions
    return Candidate([surfaces.get(row) for row in range(len(rows))], tracks)


def score_table(scores: list[Scores]) -> str:
    """Scores as lines of text in columns, the mean last."""
    lines = [SCORE_HEADER, *((f"{item.name} from {item.start}", *score_cells(item.mean())) for item in scores)]
    lines.append((f"mean of {len(scores)}", *score_cells(summary(scores))))
    widths = [max(len(line[column]) for line in lines) for column in range(len(SCORE_HEADER))]
    return "".join(_columns(line, widths) + "\n" for line in lines)


def _columns(cells: Iterable[str], widths: list[int]) -> str:
    first, *rest = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    return "  ".join([first.strip().ljust(widths[0]), *rest])


def write_scores(folder: Path, scores: list[Scores], config: Config | None) -> Path:
    """Write scores.json, scores.csv (a row for each frame) and report.html into ``folder``, whole or not at all."""
    with written_folder(folder, recognised_by="scores.json") as new:
        values = {
            "config": config.model_dump(mode="json") if config else None,
            "mean": summary(scores),
            "sequences": [item.as_dict() for item in scores],
        }
        (new / "scores.json").write_text(json.dumps(values, indent=1) + "\n")
        with (new / "scores.csv").open("w", newline="") as file:
            names = list(scores[0].frames[0].as_dict())
            writer = csv.writer(file)
            writer.writerow(["sequence", "start", "frame", *names])
            for item in scores:
                for index, frame in enumerate(item.frames):
                    writer.writerow([item.name, item.start, item.start + index, *frame.as_dict().values()])
        preset = f"preset {config.preset}" if config else "a saved OUTPUT"
        html = page.page("Evaluation", f"{len(scores)} sub-sequences, {preset}", [scores_section(scores)])
        (new / "report.html").write_text(html, encoding="utf-8")
    return folder


def _no_ground_truth(sequence: Sequence) -> InputError:
    return InputError("no_ground_truth", f"{sequence.path} has no ground_truth.npz to score against")
