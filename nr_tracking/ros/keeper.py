"""Keeps the latest tracked frames, so that ``~/save`` can write them."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import shutil
import threading
import time
import uuid
from collections import deque
from pathlib import Path

import numpy as np

import nr_tracking
from nr_tracking.config import Config, ConfigError
from nr_tracking.ros.conversions import depth_frame
from nr_tracking.ros.pairing import PairedFrame
from nr_tracking.tracking.result import ResultWriter, Run, read_output, tidy_output
from nr_tracking.types import DepthFrame, InputError, TrackedFrame

_LOG = logging.getLogger(__name__)
_PICTURES = 12  # input images in a report
_WRITING = ".save.writing-"
_REMAINS_S = 3600.0  # nobody who still writes pauses for so long, nor do clocks of hosts differ by as much


class ResultKeeper:
    """The last ``ros.kept_frames`` tracked frames of the subject. Safe to use from several threads.

    The frames of a subject that has left are kept until the next subject is tracked. ``config`` and ``weights`` (their
    hash) are those of the tracker that frames come from; set them as they change.
    """

    def __init__(self, config: Config, weights: str = "") -> None:
        self.config = config
        self.weights = weights
        self._frames: deque[tuple[TrackedFrame, PairedFrame]] = deque(maxlen=config.ros.kept_frames)
        self._tracked_with = config, weights  # the latest of them
        self._anew = False  # whether the next frame is the first one of another subject
        self._lock = threading.Lock()

    def keep(self, frame: TrackedFrame, source: PairedFrame) -> None:
        """Remember a frame and the messages that it came from."""
        with self._lock:
            if self._anew:
                self._frames.clear()
            self._anew = False
            self._frames.append((frame, source))
            self._tracked_with = self.config, self.weights

    def next_subject(self) -> None:
        """The next frame is of another subject, and takes the place of all that is kept."""
        with self._lock:
            self._anew = True

    def clear(self) -> None:
        """Forget all frames."""
        with self._lock:
            self._frames.clear()

    def save(self) -> Path:
        """Write an OUTPUT below ``ros.output_folder``, in a folder of its own; returns that folder.

        Beside what ``nr_tracking track`` writes there is ``timings.json``: seconds by stage, by row.

        Raises:
            InputError: ``nothing_kept``.
            ConfigError: there is no such folder and cannot be one.
            OSError: the folder cannot be written.
        """
        with self._lock:
            kept, (config, weights) = list(self._frames), self._tracked_with
        if not kept:
            raise InputError("nothing_kept", "no tracked frame is kept, so there is nothing to save")
        parent = output_folder(self.config)
        parent.mkdir(parents=True, exist_ok=True)
        _remove_remains(parent)
        folder = parent / f"{_WRITING}{os.getpid()}-{uuid.uuid4().hex}"
        folder.mkdir()
        try:
            self._write(folder, kept, config, weights)
            return _named(folder, parent)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _write(self, folder: Path, kept: list[tuple[TrackedFrame, PairedFrame]], config: Config, weights: str) -> None:
        count = len(kept)
        settings = config.model_dump(mode="json")
        run = Run(nr_tracking.__version__, settings, weights, frames=count, tracked=count)
        writer = ResultWriter(folder)
        for row, (frame, _) in enumerate(kept):
            writer.add(row, frame)
        timings = writer.finish(np.array([frame.stamp_ns for frame, _ in kept], np.int64))
        tidy_output(folder)
        run.write(folder)
        (folder / "timings.json").write_text(json.dumps(timings) + "\n")
        if self.config.ros.save_report:
            self._report(folder, [source for _, source in kept], timings)

    def _report(self, folder: Path, sources: list[PairedFrame], timings: dict[int, dict[str, float]]) -> None:
        """Write report.html; a fault there does not cost the results."""
        try:
            from nr_tracking.evaluation.report import tracking_report

            rows = np.unique(np.linspace(0, len(sources) - 1, min(_PICTURES, len(sources))).round().astype(int))
            frames: dict[int, DepthFrame] = {int(row): self._decode(sources[row]) for row in rows}
            html = tracking_report(read_output(folder), frames, timings, title="Tracked by the node")
        except Exception:
            _LOG.exception("%s is complete but for its report", folder)
        else:
            (folder / "report.html").write_text(html, encoding="utf-8")

    def _decode(self, source: PairedFrame) -> DepthFrame:
        return depth_frame(source.image, source.info, source.mask, self.config.ros.depth_unit_m, source.rectified)


def output_folder(config: Config) -> Path:
    """Where ``~/save`` writes, with ``~`` expanded; ConfigError where that names no home."""
    try:
        return Path(config.ros.output_folder).expanduser().absolute()
    except RuntimeError as error:
        raise ConfigError(f"ros.output_folder: {config.ros.output_folder!r} is no folder: {error}") from None


def _named(folder: Path, parent: Path) -> Path:
    """Give a folder the next free name, ``save_000``, ``save_001``, ...; others may be saving here at the same time."""
    taken = [int(path.name[5:]) for path in parent.glob("save_*") if re.fullmatch(r"save_\d{1,9}", path.name, re.ASCII)]
    number = max(taken, default=-1)
    while True:
        number += 1
        try:
            return folder.rename(parent / f"save_{number:03d}")  # which replaces nothing that holds anything
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise


def _remove_remains(parent: Path) -> None:
    """Remove hidden folders that processes left behind which were killed while saving.

    Whether one is still being written its age alone can tell: who writes it may run in another container or on another
    host, where processes have numbers of their own.
    """
    for path in parent.glob(f"{_WRITING}*"):
        if not re.fullmatch(rf"{re.escape(_WRITING)}\d+(-\w+)+", path.name) or path.is_symlink():
            continue
        with contextlib.suppress(OSError):  # complete, or removed by another process, meanwhile
            touched = max(each.lstat().st_mtime for each in (path, *path.iterdir()))
            if time.time() - touched > _REMAINS_S:
                shutil.rmtree(path, ignore_errors=True)
