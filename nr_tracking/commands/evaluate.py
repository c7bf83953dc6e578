"""``nr_tracking evaluate``: the protocol of the tables over recordings with ground truth."""

from __future__ import annotations

import csv
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from nr_tracking.atomic import finished, written_folder
from nr_tracking.commands.progress import Progress
from nr_tracking.commands.recordings import Unusable, frames_of, scans_of
from nr_tracking.commands.track import Digest, make_tracker
from nr_tracking.config import Config
from nr_tracking.data.scans import check_scans
from nr_tracking.data.sequence import Sequence, is_sequence
from nr_tracking.evaluation.classical_tracking import METHODS, classical_candidate
from nr_tracking.evaluation.evaluation_report import evaluation_report, keep_worst
from nr_tracking.evaluation.metrics import Mesh
from nr_tracking.evaluation.protocol import (
    COUNT,
    LENGTH,
    Candidate,
    Scores,
    by_family,
    check_points,
    score,
    subsequences,
    summary,
    unscored,
)
from nr_tracking.evaluation.report import score_output, truth_of
from nr_tracking.json_text import json_text
from nr_tracking.tracking.protocols import TrackerLike
from nr_tracking.tracking.result import Output
from nr_tracking.tracking.rows import Rows
from nr_tracking.types import DepthFrame, InputError, TrackedFrame
from nr_tracking.wording import counted

SCORES = "scores.json"
"""The file by which a folder of scores is recognised."""


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

    Recordings that are :func:`too_short` are left out. :class:`InputError` where a recording has no ground truth, or
    all of them are too short.
    """
    check_points(points, seed)
    jobs = _jobs(sequences, length, start_stride, offset)
    scores: list[Scores] = []
    tracker, _ = trackers(config)
    with Progress("evaluating", len(jobs), "sub-sequence") as progress:
        for sequence, start in jobs:
            tracker.reset()
            candidate = track_candidate(tracker, _readable(sequence, start, length))
            _tell_dropped(sequence, start, candidate)
            scores = keep_worst([*scores, _score(sequence, candidate, start, length, points, seed)])
            progress.advance()
    return scores


def evaluate_baselines(
    sequences: list[Sequence],
    config: Config,
    *,
    length: int = LENGTH,
    start_stride: int = LENGTH,
    offset: int = 0,
    points: int = COUNT,
    seed: int = 0,
) -> list[Scores]:
    """Score methods that need no network, on the sub-sequences that :func:`evaluate` would take with the same options.

    The ``method`` of each score says which one it is; see :mod:`nr_tracking.evaluation.classical_tracking`.
    """
    check_points(points, seed)
    jobs = _jobs(sequences, length, start_stride, offset)
    scores = []
    with Progress("baselines", len(jobs) * len(METHODS), "sub-sequence") as progress:
        for method in METHODS:
            for sequence, start in jobs:
                candidate = classical_candidate(method, _readable(sequence, start, length), config)
                scored = replace(_score(sequence, candidate, start, length, points, seed), worst=None)
                scores.append(scored)  # of these nobody is shown a picture
                progress.advance()
    return scores


def _jobs(sequences: list[Sequence], length: int, stride: int, offset: int) -> list[tuple[Sequence, int]]:
    check_scorable(sequences)  # of each before any is tracked, which takes hours
    long = [sequence for sequence in sequences if not _is_short(sequence, length, offset)]
    if sequences and not long:
        longest = max(sequences, key=len)
        raise InputError(
            "too_short",
            f"{longest.path} has {len(longest)} frames, and no recording has more: from {offset} on they hold no "
            f"sub-sequence of {length}",
        )
    for sequence in long:
        sequence.ground_truth()
        check_scans(sequence.path, len(sequence))
    return [(sequence, start) for sequence in long for start in subsequences(len(sequence), length, stride, offset)]


def check_scorable(sequences: list[Sequence]) -> None:
    """Raise an :class:`InputError` for a recording without a truth, or whose kind of subject cannot be read."""
    for sequence in sequences:
        if not (sequence.path / "ground_truth.npz").is_file():
            raise _no_ground_truth(sequence)
        family_of(sequence.path)


def too_short(sequences: list[Sequence], length: int = LENGTH, offset: int = 0) -> list[Sequence]:
    """Those that hold no sub-sequence: the published protocol leaves them out."""
    return [sequence for sequence in sequences if _is_short(sequence, length, offset)]


def _is_short(sequence: Sequence, length: int, offset: int) -> bool:
    return len(sequence) - offset < length


def _readable(sequence: Sequence, start: int, count: int) -> Iterator[DepthFrame | None]:
    """Frames of a recording; None, and a line on stderr, for one that cannot be read."""
    for index, frame in enumerate(frames_of(sequence, start, count), start):
        if isinstance(frame, Unusable):
            print(f"nr_tracking: {sequence.path.name}: frame {index}: {frame.error}", file=sys.stderr)
        yield None if isinstance(frame, Unusable) else frame


def _tell_dropped(sequence: Sequence, start: int, candidate: Candidate) -> None:
    """A line on stderr for each reason why frames have no surface."""
    for reason, count in Counter(candidate.dropped.values()).items():
        print(f"nr_tracking: {sequence.path.name} from {start}: {count} without a surface: {reason}", file=sys.stderr)


def _score(sequence: Sequence, candidate: Candidate, start: int, length: int, points: int, seed: int) -> Scores:
    truth = sequence.ground_truth(start, length)
    if truth is None:
        raise _no_ground_truth(sequence)
    return score(
        sequence.path.resolve().name,
        candidate,
        truth,
        start=start,
        count=points,
        seed=seed,
        family=family_of(sequence.path),
        intrinsics=sequence.intrinsics,
        scans=scans_of(sequence, range(start, start + length)),
        poses=None if sequence.poses is None else sequence.poses[start : start + length],
    )


def evaluate_output(output: Output, sequence: Sequence, *, length: int = LENGTH, points: int = COUNT) -> list[Scores]:
    """Score an OUTPUT, of ``nr_tracking track`` or of a node, against the recording that it was made from.

    :class:`InputError` ``wrong_recording`` for another one; an OUTPUT of a node does not know which one it was.
    """
    truth = truth_of(sequence, output)
    if truth is None:
        raise _no_ground_truth(sequence)
    if output.run.input and output.run.input not in _digests(sequence, output.run.start, output.run.frames):
        raise InputError(
            "wrong_recording",
            f"{output.path} was not made from {sequence.path}: the frames of its stamps are others there",
        )
    order = np.argsort(sequence.stamps_ns)
    rows = order[np.searchsorted(sequence.stamps_ns, output.stamps_ns, sorter=order)]  # truth_of has found all of them
    return score_output(
        output,
        truth,
        name=sequence.path.resolve().name,
        length=length,
        count=points,
        family=family_of(sequence.path),
        intrinsics=sequence.intrinsics,
        scans=scans_of(sequence, rows.tolist()),
        poses=None if sequence.poses is None else sequence.poses[rows],
    )


def _digests(sequence: Sequence, start: int, count: int) -> set[str]:
    """What a span of frames is known by: as they are, and as in a bag, which holds no poses."""
    whole, bare = Digest(), Digest()
    for item in frames_of(sequence, start, count):
        whole.add(item)
        bare.add(item if isinstance(item, Unusable) else replace(item, pose=None))
    return {whole.value, bare.value}


def find_sequences(paths: Iterable[Path]) -> list[Path]:
    """SEQUENCE folders: those named, and those within a folder that is none itself, by name.

    A path that is neither is given back as it is, for the reader of sequences to say what is wrong with it.
    """
    found: list[Path] = []
    for path in paths:
        within = [] if is_sequence(path) or not path.is_dir() else list(filter(is_sequence, finished(path)))
        found += within or [path]
    return found


def family_of(path: Path) -> str:
    """What kind of subject a recording shows: "family" of its meta.json, or its folder's name without a number."""
    file = path / "meta.json"
    if file.is_file():
        try:
            about = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise InputError("bad_meta", f"{file} is no JSON: {error}") from None
        if not isinstance(about, dict):
            raise InputError("bad_meta", f"{file} is no JSON object, but {type(about).__name__}")
        if "family" in about:
            return str(about["family"])
    return re.sub(r"[_-]?\d+$", "", path.resolve().name)


def track_candidate(tracker: TrackerLike, frames: Iterable[DepthFrame | None]) -> Candidate:
    """Track frames and collect what the protocol scores.

    A frame that cannot be read, None, or that the tracker refuses stays without a surface.
    """
    rows = Rows()
    results: dict[int, TrackedFrame] = {}
    seconds = 0.0
    for frame in frames:
        if frame is None:
            rows.refuse("it cannot be read")
            continue
        row = rows.ask(frame.stamp_ns)
        begun = time.perf_counter()
        try:
            emitted = tracker.push(frame)
        except InputError as error:
            rows.drop(row, str(error))
            continue
        finally:
            seconds += time.perf_counter() - begun
        results |= {rows.place(result): result for result in emitted}
    begun = time.perf_counter()
    emitted = tracker.flush()
    seconds += time.perf_counter() - begun
    results |= {rows.place(result): result for result in emitted}
    surfaces = {row: Mesh(result.surface.vertices, result.surface.faces) for row, result in results.items()}
    ids = np.unique(np.concatenate([np.empty(0, np.int64), *(result.tracks.ids for result in results.values())]))
    tracks = np.full((len(rows), len(ids), 3), np.nan, np.float32)
    confidence = np.full((len(rows), len(ids)), np.nan, np.float32)
    for row, result in results.items():
        columns = np.searchsorted(ids, result.tracks.ids)
        tracks[row, columns] = result.tracks.positions
        confidence[row, columns] = result.tracks.confidence
    meshes = [surfaces.get(row) for row in range(len(rows))]
    rows.finish()
    return Candidate(meshes, tracks, confidence, seconds / max(len(rows), 1), dropped=dict(rows.dropped))


def write_scores(
    folder: Path,
    scores: list[Scores],
    config: Config | None,
    baselines: list[Scores] | None = None,
    left_out: Iterable[str] = (),
) -> Path:
    """Write scores.json, scores.csv (a row for each frame) and report.html into ``folder``, whole or not at all.

    ``baselines``: scores of other methods, as of :func:`evaluate_baselines`; the means are not theirs. ``left_out``:
    names of recordings that were too short.
    """
    with written_folder(folder, recognised_by=SCORES) as new:
        values = {
            "config": config.model_dump(mode="json") if config else None,
            "mean": summary(scores),
            "unscored": unscored(scores),
            "families": {family: summary(group) for family, group in by_family(scores).items()},
            "sequences": [item.as_dict() for item in scores],
            "baselines": [item.as_dict() for item in baselines or []],
            "too_short": list(left_out),
        }
        (new / SCORES).write_text(json_text(values, indent=1) + "\n")
        with (new / "scores.csv").open("w", newline="") as file:
            names = list(scores[0].frames[0].as_dict())
            writer = csv.writer(file)
            writer.writerow(["sequence", "start", "frame", *names, "method", "family"])
            for item in [*scores, *(baselines or [])]:
                for index, frame in enumerate(item.frames):
                    place = [item.name, item.start, item.start + index]
                    writer.writerow([*place, *frame.as_dict().values(), item.method, item.family])
        preset = f"preset {config.preset}" if config else "a saved OUTPUT"
        html = evaluation_report(scores, f"{counted(len(scores), 'sub-sequence')}, {preset}", baselines)
        (new / "report.html").write_text(html, encoding="utf-8")
    return folder


def _no_ground_truth(sequence: Sequence) -> InputError:
    return InputError("no_ground_truth", f"{sequence.path} has no ground_truth.npz to score against")
