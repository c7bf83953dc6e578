"""report.html of an evaluation: scores by kind of subject and by method, over time, and the worst frames first."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from nr_tracking.evaluation import page
from nr_tracking.evaluation.error_maps import LARGEST_ERROR, draw_specimen, error_scale
from nr_tracking.evaluation.figures import png_bytes
from nr_tracking.evaluation.protocol import Scores, by_family, summary
from nr_tracking.evaluation.reliability import Reliability
from nr_tracking.evaluation.report import score_curves
from nr_tracking.evaluation.scoreboard import (
    FAMILY_NAMES,
    METHOD_HEADER,
    SCORE_HEADER,
    family_rows,
    method_rows,
    methods_note,
    score_cells,
    sequence_rows,
    unscored_note,
)

WORST_SHOWN = 10


def evaluation_report(scores: list[Scores], lead: str, others: list[Scores] | None = None) -> str:
    """The HTML of an evaluation; ``others`` are the scores of other methods on the same sub-sequences."""
    sections = [_overview(scores), _means(scores), _over_time(scores)]
    if others:
        sections.append(_methods([*scores, *others]))
    if any(item.reliability for item in scores):
        sections.append(_confidence(scores))
    sections += [_worst(scores), _sequences(scores)]
    return page.page("Evaluation", lead, sections)


def worst_first(scores: list[Scores]) -> list[Scores]:
    """Sub-sequences that have a surface, the one with the largest CD in any frame first."""
    return sorted((item for item in scores if item.worst), key=_largest, reverse=True)


def keep_worst(scores: list[Scores]) -> list[Scores]:
    """The same scores, of which only those that the report shows keep a frame to look at: there may be thousands."""
    shown = {id(item) for item in worst_first(scores)[:WORST_SHOWN]}
    return [item if id(item) in shown or item.worst is None else replace(item, worst=None) for item in scores]


def _largest(item: Scores) -> float:
    return max(frame.surface.chamfer_l1 for frame in item.frames if frame.surface)


def _overview(scores: list[Scores]) -> str:
    means = summary(scores)
    frames = sum(len(item.frames) for item in scores)
    missing = sum(len(item.missing) for item in scores)
    items = [
        ("sub-sequences", f"{len(scores)}"),
        ("frames without a surface", f"{missing} of {frames}"),
        ("IoU", f"{means['iou']:.3f}"),
        ("CD (floor)", f"{means['chamfer_l1']:.5f} ({means['chamfer_floor']:.5f})"),
        ("Corr (static)", f"{means['corr']:.4f} ({means['static_corr']:.4f})"),
        ("still tracked", f"{100 * means['tracked']:.1f} %"),
    ]
    seconds = float(np.mean([item.seconds for item in scores]))
    if not math.isnan(seconds):
        items.append(("time a frame", f"{1000 * seconds:.0f} ms"))
    return page.section("Overview", page.facts(items))


def _means(scores: list[Scores]) -> str:
    note = unscored_note(scores)
    rows = [*family_rows(scores), [f"mean of {len(scores)}", *score_cells(summary(scores))]]
    return page.section(
        "By kind of subject",
        page.table(("kind, sub-sequences", *SCORE_HEADER[1:]), rows, strong=[len(rows) - 1]),
        page.note(
            f"Sub-sequences of {len(scores[0].frames)} frames, lengths in units of the first true box, "
            f"{scores[0].count:,} points. IoU, tracked, normals and F-score: higher is better; all else: lower. "
            "The floor is what a perfect surface would score as CD; static and nearest are the Corr of points that "
            "stay where they were, and of points that hop to the nearest point of the next true surface; visible and "
            "hidden are the Corr of points that the camera sees and of the others; jitter is the motion, from one "
            "frame to the next, of points that stand still; tracked is the share of the first frame's points that are "
            "still there under their id." + (f" {note[0].upper()}{note[1:]}." if note else "")
        ),
    )


def _over_time(scores: list[Scores]) -> str:
    return page.section("Over time", score_curves(scores, x_label="frame of the sub-sequence"))


def _methods(scores: list[Scores]) -> str:
    parts = [page.table(METHOD_HEADER, method_rows(scores), strong=[0])]
    groups = by_family(scores)
    if len(groups) > 1:
        for family, group in groups.items():
            name = FAMILY_NAMES.get(family, family or "others")
            parts.append(page.table((name, *METHOD_HEADER[1:]), method_rows(group), strong=[0]))
    note = "Other methods on the same frames. None of them is trained; a hyphen stands where one has no such result."
    if left_out := methods_note(scores):
        note += f" {left_out[0].upper()}{left_out[1:]}."
    return page.section("Other methods", *parts, page.note(note))


def _confidence(scores: list[Scores]) -> str:
    curves = [item.reliability for item in scores if item.reliability]
    stated, measured = _pooled(curves, "stated"), _pooled(curves, "measured")
    chart = page.line_chart({"stated": stated, "measured": measured}, x_label="tenth of confidence", y_label="share")
    gap = float(np.mean([curve.gap for curve in curves]))
    auroc = np.array([curve.auroc for curve in curves])
    known = auroc[np.isfinite(auroc)]
    told = f"; good points are told from bad ones with an AUROC of {known.mean():.2f}" if len(known) else ""
    note = f"Stated confidence of tracked points, and the share that is right (3 cm at 2 m): {gap:.3f} apart{told}."
    return page.section("Confidence", chart, page.note(note))


def _pooled(curves: list[Reliability], name: str) -> list[float]:
    """Mean of ``name`` in each bin over all points of the curves."""
    values = np.stack([getattr(curve, name) for curve in curves])
    counts = np.stack([curve.counts for curve in curves])
    total = np.where(counts > 0, values * counts, 0).sum(axis=0)
    points = counts.sum(axis=0)
    return np.where(points > 0, total / np.maximum(points, 1), np.nan).tolist()


def _worst(scores: list[Scores]) -> str:
    figures = []
    for item in worst_first(scores)[:WORST_SHOWN]:
        if item.worst is None:
            continue
        surface = item.frames[item.worst.frame].surface
        caption = f"{item.name}, frame {item.start + item.worst.frame}"
        if surface is not None:
            caption += f": IoU {surface.iou:.3f}, CD {surface.chamfer_l1:.5f}"
        figures.append(page.image(png_bytes(draw_specimen(item.worst)), "png", caption=caption))
    if not figures:
        return page.section("Worst frames", page.note("No frame gave a surface."))
    scale = page.image(png_bytes(error_scale()), "png", caption=f"0 to {LARGEST_ERROR} of the first box and beyond")
    note = (
        "The worst frame of each sub-sequence, the largest CD first. Above: the surface, coloured by its distance from "
        "the true one; below: the true surface, coloured by its distance from the surface above, so that what is "
        "missing shows. From the camera, from its right, from behind."
    )
    return page.section("Worst frames", page.note(note), scale, page.side_by_side(*figures))


def _sequences(scores: list[Scores]) -> str:
    ordered = sorted(scores, key=_wanting, reverse=True)
    table = page.table(SCORE_HEADER, sequence_rows(ordered))
    return page.section("All sub-sequences, those without a CD and the largest first", table)


def _wanting(item: Scores) -> tuple[bool, float]:
    """What has no mean CD, for want of a surface, is worse than any; a NaN alone would not let itself be sorted."""
    mean = item.mean()["chamfer_l1"]
    return math.isnan(mean), mean
