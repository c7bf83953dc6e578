"""What a run leaves for people: a line of JSON for each step and validation, and a small picture of the curve."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from skimage.io import imsave

from nr_tracking.atomic import prepare_folder, written_file
from nr_tracking.json_text import json_text

_WIDTH, _HEIGHT, _MARGIN = 640, 320, 12


class Journal:
    """The log of a run, ``log.jsonl``; each entry has a ``kind`` and a ``step``.

    Kinds are ``step``, ``validation``, ``noisy_validation`` and ``gate``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        prepare_folder(path.parent)

    @property
    def size(self) -> int:
        """How many bytes have been logged."""
        return self.path.stat().st_size if self.path.is_file() else 0

    def rewind(self, step: int, done: float = 0) -> None:
        """Drop what a run that goes on from before ``step`` does again, and a last line that a kill cut short.

        That is ``step`` itself and those after it, and of what else was logged between it and the step before, all but
        what lies within the first ``done`` bytes: the :attr:`size` that the log had when the run was saved.
        """
        kept, place = [], 0
        for line in self.path.read_bytes().splitlines(keepends=True) if self.path.is_file() else ():
            place += len(line)
            entry = _entry(line)
            # Lines are kept as they are, so that a size that was saved before still means the same.
            between = entry is not None and entry["kind"] != "step" and entry["step"] == step
            if entry and (entry["step"] < step or (between and place <= done)):
                kept.append(line)
        with written_file(self.path) as partial:
            partial.write_bytes(b"".join(kept))

    def write(self, kind: str, step: int, **values: Any) -> None:
        """Append one entry."""
        with self.path.open("a") as file:
            file.write(json_text({"kind": kind, "step": step, **values}) + "\n")

    def entries(self, kind: str | None = None) -> Iterator[dict[str, Any]]:
        """Read the entries back, in order; one that was cut short is left out."""
        if not self.path.is_file():
            return
        for line in self.path.read_bytes().splitlines():
            entry = _entry(line)
            if entry and (kind is None or entry["kind"] == kind):
                yield entry

    def plot(self, path: Path) -> None:
        """Draw over the steps: the loss (dark, logarithmic, running mean), the IoU of validations (red, 0 to 1)."""
        steps = np.array([(entry["step"], entry["loss"]) for entry in self.entries("step")], np.float64).reshape(-1, 2)
        scores = np.array([(entry["step"], entry["iou"]) for entry in self.entries("validation")], np.float64)
        canvas = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
        canvas[[_MARGIN, -_MARGIN - 1], _MARGIN:-_MARGIN] = 200
        if len(steps) > 1:
            last = steps[-1, 0]
            smooth = np.log(np.maximum(_running_mean(steps[:, 1], max(len(steps) // 200, 1)), 1e-9))
            height = (smooth - smooth.min()) / max(float(np.ptp(smooth)), 1e-9)
            _draw(canvas, steps[-len(smooth) :, 0] / last, height, (40, 40, 60))
            if len(scores):
                _draw(canvas, np.minimum(scores[:, 0] / last, 1.0), scores[:, 1], (200, 30, 30))
        imsave(path, canvas, check_contrast=False)


def _entry(line: bytes) -> dict[str, Any] | None:
    """What a line says; None for one that was cut short."""
    try:
        entry: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return entry


def _running_mean(values: np.ndarray, width: int) -> np.ndarray:
    return np.convolve(values, np.full(width, 1.0 / width), mode="valid")


def _draw(canvas: np.ndarray, x: np.ndarray, y: np.ndarray, colour: tuple[int, int, int]) -> None:
    """Draw a polyline through points in the unit square, two pixels thick."""
    across = np.linspace(x[0], x[-1], 4 * _WIDTH)
    up = np.interp(across, x, y)
    column = (_MARGIN + across * (_WIDTH - 2 * _MARGIN - 1)).astype(int)
    row = (_HEIGHT - _MARGIN - 1 - up * (_HEIGHT - 2 * _MARGIN - 1)).astype(int)
    for offset in (0, 1):
        canvas[np.clip(row + offset, 0, _HEIGHT - 1), column] = colour
