"""Scores as tables: by sub-sequence, by kind of subject, by method."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from nr_tracking.evaluation.protocol import OPTIONAL, Scores, by_family, columns, mean_of_known, summary, unscored
from nr_tracking.types import Float64

_COLUMNS = (
    ("IoU", "iou", 3),
    ("CD", "chamfer_l1", 5),
    ("CD floor", "chamfer_floor", 5),
    ("Corr", "corr", 5),
    ("static", "static_corr", 5),
    ("nearest", "chain_corr", 5),
    ("visible", "visible_error", 5),
    ("hidden", "hidden_error", 5),
    ("jitter", "jitter", 5),
    ("tracked", "tracked", 3),
    ("normals", "normal_consistency", 3),
    ("F-score", "f_score", 3),
)
"""Heading, score and decimals of each column after the first."""

SCORE_HEADER = ("sequence", *(heading for heading, _, _ in _COLUMNS))

FAMILY_NAMES = {
    "makehuman": "clothed MakeHuman",
    "person": "glTF people",
    "animal": "animals",
    "procedural": "procedural bodies",
    "object": "other objects",
    "cloth": "thin cloth",
    "hand": "hands",
}
"""What kinds of generated subjects are called in tables; a kind that is not here is called by its own name."""


def score_cells(mean: dict[str, float]) -> list[str]:
    """Mean scores as text, for the columns of :data:`SCORE_HEADER` after the first."""
    return [_cell(mean[key], places) for _, key, places in _COLUMNS]


def sequence_rows(scores: list[Scores]) -> list[list[str]]:
    """A row for each sub-sequence."""
    return [[f"{item.name} from {item.start}", *score_cells(item.mean())] for item in scores]


def family_rows(scores: list[Scores]) -> list[list[str]]:
    """A row of means for each kind of subject; none where there is only one kind."""
    groups = by_family(scores)
    if len(groups) < 2:
        return []
    return [
        [f"{FAMILY_NAMES.get(family, family or 'others')}, {len(group)}", *score_cells(summary(group))]
        for family, group in groups.items()
    ]


def method_rows(scores: list[Scores]) -> list[list[str]]:
    """A row of means for each method, with the time that it takes for a frame.

    Of each method the same sub-sequences in the same order. A mean is over those of them in which every method has the
    score, so that none looks better for having failed where it is hard; :func:`methods_note` says how many are left
    out. A method that has a score nowhere, such as Corr without points to follow, leaves the others theirs.
    """
    methods = _by_method(scores)
    shared = _shared(methods)
    rows = []
    for number, (method, group) in enumerate(methods.items()):
        means = {key: mean_of_known(values[number]) for key, values in shared.items()}
        seconds = sum(item.seconds for item in group) / len(group)
        rows.append([method, *score_cells(means), _cell(1000 * seconds, 0)])
    return rows


def methods_note(scores: list[Scores]) -> str:
    """A line that says which means of :func:`method_rows` leave out how many sub-sequences; empty where none does."""
    methods = _by_method(scores)
    count = len(next(iter(methods.values()), []))
    missing: dict[int, list[str]] = {}
    shared = _shared(methods)
    for heading, key, _ in _COLUMNS:
        wanting = count - int(np.isfinite(shared[key]).any(axis=0).sum())
        if wanting and key not in OPTIONAL:
            missing.setdefault(wanting, []).append(heading)
    parts = [f"{', '.join(headings)} {number} of {count}" for number, headings in sorted(missing.items())]
    return (
        f"left out of the means of all methods, as one of them has no such score: {'; '.join(parts)}" if parts else ""
    )


def _by_method(scores: list[Scores]) -> dict[str, list[Scores]]:
    methods: dict[str, list[Scores]] = {}
    for item in scores:
        methods.setdefault(item.method, []).append(item)
    return methods


def _shared(methods: dict[str, list[Scores]]) -> dict[str, Float64]:
    """Scores (methods, sub-sequences) by name, NaN where a method lacks one that it has elsewhere."""
    each = [columns(group) for group in methods.values()]
    shared = {}
    for _, key, _ in _COLUMNS:
        values = np.array([by_score[key] for by_score in each])
        known = np.isfinite(values)
        able = known.any(axis=1)
        shared[key] = np.where(known[able].all(axis=0), values, np.nan)
    return shared


def unscored_note(scores: list[Scores]) -> str:
    """A line that says which means leave out how many sub-sequences; empty where none does."""
    missing = unscored(scores)
    counts = sorted(set(missing.values()))
    parts = [
        f"{', '.join(heading for heading, key, _ in _COLUMNS if missing.get(key) == count)} {count} of {len(scores)}"
        for count in counts
    ]
    return f"left out of the means, for want of a surface or of tracks: {'; '.join(parts)}" if parts else ""


METHOD_HEADER = ("method", *SCORE_HEADER[1:], "ms a frame")


def score_table(scores: list[Scores], others: list[Scores] | None = None) -> str:
    """Scores as lines of text in columns: sub-sequences, kinds of subjects, the mean last.

    ``others``: the scores of other methods on the same sub-sequences, in a table of their own below.
    """
    mean = [f"mean of {len(scores)}", *score_cells(summary(scores))]
    text = _aligned([SCORE_HEADER, *sequence_rows(scores), *family_rows(scores), mean])
    if note := unscored_note(scores):
        text += f"{note}\n"
    if others:
        text += "\n" + _aligned([METHOD_HEADER, *method_rows([*scores, *others])])
        if note := methods_note([*scores, *others]):
            text += f"{note}\n"
    return text


def _aligned(lines: list[Iterable[str]]) -> str:
    cells = [list(line) for line in lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "".join(
        "  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))])
        + "\n"
        for first, *rest in cells
    )


def _cell(value: float, places: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{places}f}"
