"""``nr_tracking track``: a recording in, an OUTPUT folder out."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import nr_tracking
from nr_tracking.atomic import beside, replace_folder, written_file
from nr_tracking.commands import checkpoint
from nr_tracking.commands.extras import how_to_install
from nr_tracking.commands.progress import Progress
from nr_tracking.commands.recordings import Recording, Unusable
from nr_tracking.config import Config, SubjectConfig
from nr_tracking.data.sequence import GroundTruth
from nr_tracking.evaluation.protocol import Scores
from nr_tracking.evaluation.report import KeyFrames, score_output, tracking_report
from nr_tracking.fields.weights import read_weights, weights_path
from nr_tracking.sensing.following import SubjectFollower
from nr_tracking.tracking.protocols import TrackerLike
from nr_tracking.tracking.result import ResultWriter, Run, check_output, read_output, tidy_output
from nr_tracking.tracking.rows import Rows
from nr_tracking.types import DepthFrame, InputError, TrackedFrame

CHECKPOINT_FRAMES = 32
"""So many frames are lost at most when a run is interrupted and continued."""
REPORT_POINTS = 30_000
"""For the scores, a third of what `evaluate` takes: the report should not cost more than the tracking."""
_CHECKPOINT = "checkpoint.npz"
_FORMAT = 7  # counts the changes of what trackers and fields consist of
_LISTENERS = ("on_another", "on_no_result")  # of a tracker: they belong to the run under way
_LAST = "report.html"  # the last file that a run writes: where it is, all others are


@dataclass(frozen=True)
class Tracked:
    """What became of a recording: where the OUTPUT is, its manifest, and scores where there is ground truth."""

    output: Path
    run: Run
    scores: list[Scores] = field(default_factory=list)


def make_tracker(config: Config) -> tuple[TrackerLike, str]:
    """The tracker of a configuration, and the hash of the weights in it."""
    import torch

    from nr_tracking.tracking.tracker import Tracker

    if config.device == "cuda" and not torch.cuda.is_available():
        raise InputError("no_gpu", f"device cuda: torch {torch.__version__} sees no GPU here; use --device cpu")
    return Tracker(config), read_weights(weights_path(config)).sha256


def track(
    recording: Recording,
    output: Path,
    config: Config,
    *,
    start: int = 0,
    frames: int | None = None,
    resume: bool = False,
    points: int | None = None,
    trackers: Callable[[Config], tuple[TrackerLike, str]] = make_tracker,
) -> Tracked:
    """Track ``frames`` frames from ``start`` (None: all) and write them as OUTPUT, which appears whole or not at all.

    With ``resume`` an interrupted run goes on where it stopped, and a finished one is left as it is, provided that
    input, configuration and weights are the same; otherwise :class:`InputError`. ``points`` for the scores, None for a
    third of those of the protocol.
    """
    check_output(output)
    count = recording.count(start, frames)
    tracker, weights = trackers(config)
    run = Run(nr_tracking.__version__, config.model_dump(mode="json"), weights, start=start, frames=count)
    folder = beside(output, "partial")
    if resume and (output / "run.json").is_file() and not folder.is_dir():
        return Tracked(output, _complete(recording, output, run))
    if resume and (folder / _LAST).is_file():  # all was written when it was cut off
        return Tracked(output, _arrived(folder, output, _complete(recording, folder, run)))
    continued = resume and (folder / _CHECKPOINT).is_file()
    if not continued:  # a run that was interrupted before its first checkpoint leaves nothing to go on with
        shutil.rmtree(folder, ignore_errors=True)
    session = _Session(folder, run, tracker, config.subject)
    if continued:
        session.restore()
    _write_manifest(run, folder)
    session.consume(recording, count)
    timings = session.finish()
    scores = _report(recording, folder, session.key_frames.frames, timings, run, points)
    return Tracked(output, _arrived(folder, output, run), scores)


def _arrived(folder: Path, output: Path, run: Run) -> Run:
    """Remove what only a run under way needs, and make it the OUTPUT."""
    for pattern in (f"*{_CHECKPOINT}*", f".{_LAST}.*"):  # and what a run that was killed left of them
        for remains in folder.glob(pattern):
            remains.unlink()
    tidy_output(folder)
    replace_folder(folder, output)
    return run


class _Session:
    """One pass over a recording; everything needed to continue it lies in its folder."""

    def __init__(self, folder: Path, run: Run, tracker: TrackerLike, subject: SubjectConfig) -> None:
        self.folder, self.run, self.tracker, self.subject = folder, run, tracker, subject
        self.writer = ResultWriter(folder)
        self.rows = Rows()
        self.key_frames = KeyFrames()
        self.events: list[str] = []  # what became of the subject, in words
        self._follower = SubjectFollower(self._note)
        self._modules = checkpoint.modules_of(vars(tracker))
        tracker.on_another, tracker.on_no_result = self._note, self._missed
        self._done = 0
        self._done_digest = ""

    @property
    def _checkpoint(self) -> Path:
        return self.folder / _CHECKPOINT

    def restore(self) -> None:
        """Take up the state of an interrupted run of the same request."""
        _require_same(self.folder, Run.read(self.folder), self.run)
        state = checkpoint.load(self._checkpoint, self._modules)
        known = {"tracker", "rows", "whereabouts", "events", "done", "digest"}
        if state.get("format") != _FORMAT or known - state.keys():
            raise InputError("bad_checkpoint", f"another version wrote {self._checkpoint}; run without --resume")
        vars(self.tracker).update(state["tracker"])
        self.rows = state["rows"]
        self.events[:] = state["events"]
        self._follower.whereabouts = state["whereabouts"]
        self._done, self._done_digest = state["done"], state["digest"]
        if gone := self.writer.lacks(self.rows.placed()):
            lost = f"{self.folder} no longer holds {len(gone)} of the rows that {_CHECKPOINT} tells of"
            raise InputError("bad_checkpoint", f"{lost}; run without --resume")

    def consume(self, recording: Recording, count: int) -> None:
        """Feed the tracker and write what comes out."""
        digest = Digest()
        with Progress(f"tracking {recording.name}", count) as progress:
            for index, item in enumerate(recording.read(self.run.start, count)):
                digest.add(item)
                if index < self._done:  # a continued run: tracked before, read again only to compare
                    self._show(index, item)
                    if index == self._done - 1 and digest.value != self._done_digest:
                        raise _disagrees(self.folder, ["input"])
                    continue
                self._take(item)
                self._show(index, item)
                progress.advance()
                if (index + 1) % CHECKPOINT_FRAMES == 0:
                    self._save(index + 1, digest.value)
            self._write(self.tracker.flush())
        self.run.input = digest.value
        self.run.notices = [*recording.notices, *self.events]

    def finish(self) -> dict[int, dict[str, float]]:
        """Assemble the files; returns seconds by stage of each row. Fails if no frame could be used at all."""
        stamps = self.rows.finish()
        if len(self.rows.dropped) == len(self.rows):
            said = dict.fromkeys(self.rows.dropped.values())
            events = [event for event in self.run.notices if not any(reason in event for reason in said)]
            reasons = "; ".join(_kinds(dict.fromkeys([*said, *events])))
            shutil.rmtree(self.folder)
            raise InputError("nothing_tracked", f"none of {len(self.rows)} frames could be tracked: {reasons}")
        self.run.dropped = self.rows.dropped
        timings = self.writer.finish(stamps)
        self.run.tracked = len(timings)
        _write_manifest(self.run, self.folder)
        return timings

    def _save(self, done: int, digest: str) -> None:
        state = {
            "format": _FORMAT,
            "tracker": {name: value for name, value in vars(self.tracker).items() if name not in _LISTENERS},
            "rows": self.rows,
            "whereabouts": self._follower.whereabouts,
            "events": self.events,
            "done": done,
            "digest": digest,
        }
        checkpoint.save(self._checkpoint, state, self._modules)

    def _take(self, item: DepthFrame | Unusable) -> None:
        if isinstance(item, Unusable):
            self.rows.refuse(str(item.error), item.stamp_ns)
            if item.error.reason == "no_mask":
                self._follower.left_unmasked()
            return
        row = self.rows.ask(item.stamp_ns)
        try:
            frame, another = self._follower.choose(item, self.subject)
            if another:  # its tracks have ids of their own
                self._write(self.tracker.flush())
                self.tracker.reset(keep_background=True)
            results = self.tracker.push(frame)
        except InputError as error:
            self._follower.refused(item.stamp_ns, error)
            self.rows.drop(row, str(error))
        else:
            self._follower.tracked(item.stamp_ns, self.tracker.subject_size_m)
            self._write(results)

    def _show(self, row: int, item: DepthFrame | Unusable) -> None:
        """Offer an image that the tracker took to the report."""
        if isinstance(item, DepthFrame) and row not in self.rows.dropped:
            self.key_frames.keep(row, item)

    def _note(self, event: str) -> None:
        self.events.append(f"row {len(self.rows) - 1}: {event}")

    def _missed(self, stamp_ns: int, error: InputError) -> None:
        self.rows.miss(stamp_ns, str(error))

    def _write(self, results: list[TrackedFrame]) -> None:
        for result in results:
            self.writer.add(self.rows.place(result), result)


def _kinds(messages: Iterable[str]) -> list[str]:
    """The first message of each kind, and how many more there are; those of a kind differ in nothing but numbers."""
    kinds: dict[str, list[str]] = {}
    for message in messages:
        kinds.setdefault(re.sub(r"\d+", "0", message), []).append(message)
    return [first + (f" (and {len(more)} more like it)" if more else "") for first, *more in kinds.values()]


class Digest:
    """SHA-256 over frames as decoded; the same for a recording as a folder and as a bag."""

    def __init__(self) -> None:
        self.value = ""

    def add(self, item: DepthFrame | Unusable) -> None:
        """Chain one more frame onto ``value``."""
        state = hashlib.sha256(self.value.encode())
        if isinstance(item, Unusable):
            state.update(item.error.reason.encode())
        else:
            state.update(repr((item.stamp_ns, item.depth.shape, item.intrinsics)).encode())
            state.update(item.depth.tobytes())
            for extra in (item.mask, item.pose):
                state.update(b"none" if extra is None else extra.tobytes())
        self.value = state.hexdigest()


def _complete(recording: Recording, output: Path, run: Run) -> Run:
    """The manifest of a complete OUTPUT, once it is certain that this request would give the same."""
    finished = Run.read(output)
    _require_same(output, finished, run)
    digest = Digest()
    for item in recording.read(run.start, run.frames):
        digest.add(item)
    if digest.value != finished.input:
        raise _disagrees(output, ["input"])
    return finished


def _write_manifest(run: Run, folder: Path) -> None:
    """Write ``run.json`` by write-then-rename: a run that is killed at any moment can be continued."""
    aside = folder / "manifest"
    aside.mkdir(exist_ok=True)
    run.write(aside)
    (aside / "run.json").replace(folder / "run.json")
    aside.rmdir()


def _require_same(folder: Path, former: Run, run: Run) -> None:
    names = ("version", "config", "weights", "start", "frames")
    different = [name for name in names if getattr(former, name) != getattr(run, name)]
    if different:
        raise _disagrees(folder, different)


def _disagrees(folder: Path, what: list[str]) -> InputError:
    return InputError(
        "resume_disagrees",
        f"{folder} was made with a different {', '.join(what)} and cannot be continued; run `track` without --resume, "
        "choose another --output, or remove that folder",
    )


def _report(
    recording: Recording,
    folder: Path,
    frames: dict[int, DepthFrame],
    timings: dict[int, dict[str, float]],
    run: Run,
    points: int | None,
) -> list[Scores]:
    """Write report.html, with scores where there is ground truth; a fault there does not cost the results."""
    output = read_output(folder)
    truth: GroundTruth | None = None
    scores: list[Scores] = []
    remarks = [f"The recording: {notice}." for notice in run.notices]
    try:
        truth = recording.ground_truth(run.start, run.frames)
        if truth is not None:
            scores = score_output(
                output,
                truth,
                name=recording.name,
                at_most=2,
                count=points or REPORT_POINTS,
                intrinsics=recording.intrinsics,
                scans=recording.true_surfaces(run.start, run.frames),
                poses=recording.poses(run.start, run.frames),
            )
    except ValueError as error:  # InputError, and whatever a strange truth makes of the arithmetic
        remarks.append(f"No scores: {error}")
    except ModuleNotFoundError as error:
        remarks.append(f"No scores: they need {error.name}: {how_to_install(error.name or '')}.")
    title = f"Tracked surface of {recording.name}"
    html = tracking_report(output, frames, timings, title=title, scores=scores, truth=truth, remarks=remarks)
    with written_file(folder / _LAST) as file:
        file.write_text(html, encoding="utf-8")
    return scores
