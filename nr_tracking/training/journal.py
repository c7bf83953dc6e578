"""What a run leaves for people: a line of JSON for each step and validation, and a small picture of the curve."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nr_tracking.atomic import prepare_folder, written_file
from nr_tracking.json_text import json_text

_WIDTH, _HEIGHT, _MARGIN = 640, 320, 48
_LOSS, _IOU, _AXIS = (40, 40, 60), (200, 30, 30), (110, 110, 110)
Colour = tuple[int, int, int]


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
        """Draw over the steps: the loss (dark, logarithmic, running mean), the IoU of validations (red, 0 to 1).

        The loss is read on the left, the IoU on the right; above stand the first, the last and the best of each.
        """
        from PIL import Image, ImageDraw

        steps = np.array([(entry["step"], entry["loss"]) for entry in self.entries("step")], np.float64).reshape(-1, 2)
        scores = np.array([(entry["step"], entry["iou"]) for entry in self.entries("validation")], np.float64)
        canvas = np.full((_HEIGHT, _WIDTH, 3), 255, np.uint8)
        canvas[[_MARGIN, (_HEIGHT - 1) // 2, -_MARGIN - 1], _MARGIN:-_MARGIN] = 200
        texts: list[tuple[tuple[float, float], str, str, Colour]] = []
        if len(steps) > 1:
            last = steps[-1, 0]
            mean = np.maximum(_running_mean(steps[:, 1], max(len(steps) // 200, 1)), 1e-9)
            low, high = float(mean.min()), float(mean.max())
            smooth = np.log(mean)
            height = (smooth - smooth.min()) / max(float(np.ptp(smooth)), 1e-9)
            _draw(canvas, steps[-len(smooth) :, 0] / last, height, _LOSS)
            legend = f"loss, running mean: first {mean[0]:.3g}, last {mean[-1]:.3g}, least {low:.3g}"
            texts.append(((_MARGIN, 8), "lt", legend, _LOSS))
            for value, up in ((high, 1.0), (np.sqrt(low * high), 0.5), (low, 0.0)):  # half way in the logarithm
                texts.append(((_MARGIN - 6, _row(up)), "rm", f"{value:.3g}", _LOSS))
            texts += [((_column(x), _HEIGHT - _MARGIN + 6), "mt", f"{x * last:.0f}", _AXIS) for x in (0.0, 0.5, 1.0)]
            texts.append(((_WIDTH / 2, _HEIGHT - 8), "mb", "steps", _AXIS))
            if len(scores):
                _draw(canvas, np.minimum(scores[:, 0] / last, 1.0), scores[:, 1], _IOU)
                first, final, most = scores[0, 1], scores[-1, 1], scores[:, 1].max()
                legend = f"validation IoU: first {first:.3f}, last {final:.3f}, most {most:.3f}"
                texts.append(((_MARGIN, 24), "lt", legend, _IOU))
                texts += [((_WIDTH - _MARGIN + 6, _row(up)), "lm", f"{up:g}", _IOU) for up in (0.0, 0.5, 1.0)]
        picture = Image.fromarray(canvas)
        pen = ImageDraw.Draw(picture)
        for place, anchor, text, colour in texts:
            pen.text(place, text, fill=colour, anchor=anchor)
        picture.save(path)


def _entry(line: bytes) -> dict[str, Any] | None:
    """What a line says; None for one that was cut short."""
    try:
        entry: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return entry


def _running_mean(values: np.ndarray, width: int) -> np.ndarray:
    return np.convolve(values, np.full(width, 1.0 / width), mode="valid")


def _draw(canvas: np.ndarray, x: np.ndarray, y: np.ndarray, colour: Colour) -> None:
    """Draw a polyline through points in the unit square, two pixels thick."""
    across = np.linspace(x[0], x[-1], 4 * _WIDTH)
    up = np.interp(across, x, y)
    column, row = _column(across).astype(int), _row(up).astype(int)
    for offset in (0, 1):
        canvas[np.clip(row + offset, 0, _HEIGHT - 1), column] = colour


def _column(across: Any) -> Any:
    """The pixel, from the left, of places from 0 to 1."""
    return _MARGIN + across * (_WIDTH - 2 * _MARGIN - 1)


def _row(up: Any) -> Any:
    """The pixel, from the top, of heights from 0 to 1."""
    return _HEIGHT - _MARGIN - 1 - up * (_HEIGHT - 2 * _MARGIN - 1)
