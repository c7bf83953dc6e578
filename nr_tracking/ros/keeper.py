"""Keeps the latest tracked frames, so that ``~/save`` can write them."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path

import numpy as np

import nr_tracking
from nr_tracking.config import Config
from nr_tracking.tracking.result import Run, write_output
from nr_tracking.types import InputError, TrackedFrame


class ResultKeeper:
    """The last ``ros.kept_frames`` tracked frames of the subject. Safe to use from several threads."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._frames: deque[TrackedFrame] = deque(maxlen=config.ros.kept_frames)
        self._lock = threading.Lock()

    def keep(self, frame: TrackedFrame) -> None:
        """Remember a frame."""
        with self._lock:
            self._frames.append(frame)

    def clear(self) -> None:
        """Forget all frames."""
        with self._lock:
            self._frames.clear()

    def save(self) -> Path:
        """Write an OUTPUT below ``ros.output_folder``, in a folder of its own; returns that folder.

        Raises:
            InputError: ``nothing_tracked``.
            OSError: the folder cannot be written.
        """
        with self._lock:
            frames = list(self._frames)
        if not frames:
            raise InputError("nothing_tracked", "no frame has been tracked yet, so there is nothing to save")
        stamps = np.array([frame.stamp_ns for frame in frames], np.int64)
        run = Run(version=nr_tracking.__version__, config=self._config.model_dump(mode="json"), frames=len(frames))
        return write_output(self._next_folder(), stamps, enumerate(frames), run)

    def _next_folder(self) -> Path:
        parent = Path(self._config.ros.output_folder).expanduser().absolute()
        parent.mkdir(parents=True, exist_ok=True)
        taken = [int(path.name[5:]) for path in parent.glob("save_*") if path.name[5:].isdecimal()]
        return parent / f"save_{max(taken, default=-1) + 1:03d}"
