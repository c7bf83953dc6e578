"""report.html of an OUTPUT: what went in, what came out, how long it took and, with ground truth, how good it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from nr_tracking.data.sequence import GroundTruth, Sequence
from nr_tracking.evaluation import page
from nr_tracking.evaluation.figures import animation_bytes, crop_around, draw_depth, grid, png_bytes, turntable
from nr_tracking.evaluation.metrics import Mesh
from nr_tracking.evaluation.protocol import COUNT, LENGTH, Candidate, Scores, score, subsequences, summary
from nr_tracking.evaluation.scoreboard import SCORE_HEADER, score_cells, sequence_rows
from nr_tracking.evaluation.shading import Picture, camera_view, draw_surface, middle_and_extent, orbit_view
from nr_tracking.sensing.camera import rectified_camera, rectify
from nr_tracking.tracking.result import ColouredMesh, Output
from nr_tracking.types import DepthFrame, Float64, InputError, Intrinsics

_COLUMNS = 6
TILE = 250
TURNTABLE = {"views": 20, "size": 280}


@dataclass
class KeyFrames:
    """Depth images for the report, evenly thinned so that memory stays bounded however long the recording is."""

    limit: int = 2 * _COLUMNS
    frames: dict[int, DepthFrame] = field(default_factory=dict)
    _step: int = 1
    _offered: int = 0

    def keep(self, row: int, frame: DepthFrame) -> None:
        """Offer the image of a row; rows come in order, but not each has an image that is offered."""
        self._offered += 1
        if (self._offered - 1) % self._step:
            return
        self.frames[row] = frame
        if len(self.frames) > self.limit:
            self._step *= 2
            self.frames = dict(list(self.frames.items())[::2])


def truth_of(sequence: Sequence, output: Output) -> GroundTruth | None:
    """The true surfaces of the rows of an OUTPUT, found by their stamps; None where the SEQUENCE has none."""
    truth = sequence.ground_truth()
    if truth is None:
        return None
    index = {int(stamp): position for position, stamp in enumerate(sequence.stamps_ns)}
    strange = [int(stamp) for stamp in output.stamps_ns if int(stamp) not in index]
    if strange:
        raise InputError("wrong_stamps", f"{output.path}: {sequence.path} has no frame of stamp {strange[0]} ns")
    return GroundTruth(truth.vertices[[index[int(stamp)] for stamp in output.stamps_ns]], truth.faces)


def score_output(
    output: Output,
    truth: GroundTruth,
    *,
    name: str = "",
    length: int = LENGTH,
    count: int = COUNT,
    at_most: int = 10**9,
    family: str = "",
    intrinsics: Intrinsics | None = None,
    scans: list[Mesh] | None = None,
    poses: Float64 | None = None,
) -> list[Scores]:
    """Score an OUTPUT in sub-sequences of ``length`` frames, or all of it where it is shorter.

    Of many sub-sequences, ``at_most`` so many are taken, evenly over the recording. ``truth`` covers the frames of
    ``output``, and so do ``scans``, where the true surfaces do not correspond; ``intrinsics`` is the camera that saw
    it, and ``poses`` (T, 4, 4) camera -> world say where that was, if it moved. The tracks of an OUTPUT run on through
    all sub-sequences: each one takes those that are there in its first frame.
    """
    rows = len(output)
    if len(truth.vertices) != rows:
        raise InputError("wrong_length", f"{output.path}: {rows} rows, {len(truth.vertices)} frames of ground truth")
    length = min(length, rows)
    starts = list(subsequences(rows, length, length))
    chosen = np.unique(np.linspace(0, len(starts) - 1, min(at_most, len(starts))).round().astype(int))
    scores = []
    for start in (starts[index] for index in chosen):
        found = (output.mesh(row) for row in range(start, start + length))
        meshes = [Mesh(mesh[0], mesh[1]) if mesh else None for mesh in found]
        span = slice(start, start + length)
        candidate = Candidate(meshes, output.positions[span], output.confidence[span])
        part = GroundTruth(truth.vertices[span], truth.faces)
        scores.append(
            score(
                name or output.path.name,
                candidate,
                part,
                start=start,
                count=count,
                family=family,
                intrinsics=intrinsics,
                scans=scans[span] if scans else None,
                poses=None if poses is None else poses[span],
            )
        )
    return scores


def tracking_report(
    output: Output,
    frames: dict[int, DepthFrame],
    timings: dict[int, dict[str, float]],
    *,
    title: str,
    scores: Iterable[Scores] = (),
    truth: GroundTruth | None = None,
    remarks: Iterable[str] = (),
) -> str:
    """The HTML of an OUTPUT.

    ``frames``: some of the input's images, by row; ``timings``: seconds by stage, by row; ``truth`` and ``scores``
    where there is ground truth; ``remarks``: lines of small print.
    """
    scored, preset = list(scores), output.run.config.get("preset", "unknown")
    lead = f"{len(output)} frames, preset {preset}, nr_tracking {output.run.version}"
    parts = [_overview(output, timings, scored), _pictures(output, frames, truth)]
    if scored:
        parts.append(scores_section(scored))
    parts += [_timings(timings), _tracks(output), _dropped(output, remarks)]
    return page.page(title, lead, parts)


def scores_section(scores: list[Scores]) -> str:
    """Tables of scores beside the baselines, and the first sub-sequence frame by frame."""
    rows = sequence_rows(scores)
    if len(scores) > 1:
        rows.append(["mean", *score_cells(summary(scores))])
    first = scores[0]
    return page.section(
        "Scores",
        page.table(SCORE_HEADER, rows, strong=[len(rows) - 1]),
        page.note(
            f"Sub-sequences of {len(first.frames)} frames in units of the first true box, {first.count:,} points. "
            "IoU, tracked, normals and F-score: higher is better; all else: lower. The floor is what a perfect surface "
            "would score as CD; static and nearest are the Corr of points that stay where they were, and of points "
            "that hop to the nearest point of the next true surface; visible and hidden are the Corr of points that "
            "the camera sees and of the others."
        ),
        score_curves([first], x_label=f"frame from {first.start}"),
    )


def score_curves(scores: list[Scores], x_label: str) -> str:
    """IoU, CD and errors of tracks over the frames of a sub-sequence, as means over sub-sequences of one length."""
    frames = [[frame.as_dict() for frame in item.frames] for item in scores]
    length = min(len(rows) for rows in frames)

    def curve(key: str) -> list[float]:
        columns = np.array([[row[key] for row in rows[:length]] for rows in frames])
        known = np.isfinite(columns)
        total = np.where(known, columns, 0).sum(axis=0)
        return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan).tolist()

    def chart(label: str, **series: str) -> str:
        named = {name.replace("_", " "): curve(key) for name, key in series.items()}
        known = {name: values for name, values in named.items() if np.isfinite(values).any()}
        return page.line_chart(known, x_label=x_label, y_label=label)

    return page.side_by_side(
        chart("IoU", IoU="iou"),
        chart("CD", CD="chamfer_l1"),
        chart("Corr", tracked="corr", static="static_corr", nearest="chain_corr"),
        chart("error", visible="visible_error", hidden="hidden_error"),
    )


def _overview(output: Output, timings: dict[int, dict[str, float]], scores: list[Scores]) -> str:
    seconds = [sum(stages.values()) for stages in timings.values()]
    usual = float(np.median(seconds)) if seconds else float("nan")  # loops are compiled in the first ones
    items = [
        ("frames asked for", f"{len(output)}"),
        ("frames tracked", f"{len(output) - len(output.run.dropped)}"),
        ("tracked points", f"{output.positions.shape[1]:,}"),
        ("work a frame (median)", f"{1000 * usual:.0f} ms"),
    ]
    if scores:
        means = summary(scores)
        items += [
            ("IoU", f"{means['iou']:.3f}"),
            ("CD", f"{means['chamfer_l1']:.4f}"),
            ("Corr (static)", f"{means['corr']:.4f} ({means['static_corr']:.4f})"),
        ]
    return page.section("Overview", page.facts(items))


def _pictures(output: Output, frames: dict[int, DepthFrame], truth: GroundTruth | None) -> str:
    """The strip of pictures, and the first surface from all around."""
    meshes = {row: mesh for row in frames if (mesh := output.mesh(row)) is not None and len(mesh[1])}
    rows = list(meshes)
    if not rows:
        of = " of which an image was kept" if output.run.tracked else ""
        return page.section("Input and surface", page.note(f"No frame{of} gave a surface."))
    spread = np.unique(np.linspace(0, len(rows) - 1, min(_COLUMNS, len(rows))).round().astype(int))
    shown = {rows[index]: meshes[rows[index]] for index in spread}
    which = "Frames" if len(shown) > 1 else "Frame"
    labels = ["depth", "from the camera", "turned 60°", "from behind", *(["truth, from behind"] if truth else [])]
    first = rows[0]
    vertices, faces, colours = meshes[first]
    turning = animation_bytes(turntable(vertices, faces, colours, **TURNTABLE), seconds=4.0)
    return page.section(
        "Input and surface",
        page.labelled(labels, page.image(png_bytes(draw_strip(shown, frames, truth, TILE)), "png")),
        page.note(f"{which} {', '.join(map(str, shown))}. A point of the subject keeps its colour in every frame."),
        page.image(turning, "webp", caption=f"Frame {first} from all around.", width=TURNTABLE["size"]),
    )


def draw_strip(
    meshes: dict[int, ColouredMesh], frames: dict[int, DepthFrame], truth: GroundTruth | None, tile: int
) -> Picture:
    """One column for each row of ``meshes``: depth, the surface from the camera, from the side, from behind, the truth.

    All columns of the camera's own view show the same part of the image; the turned views follow the subject.
    """
    camera = rectified_camera(frames[next(iter(meshes))].intrinsics)
    crop = crop_around(np.concatenate([vertices for vertices, _, _ in meshes.values()]), camera)
    size = crop.tile(tile)
    extents = [middle_and_extent(vertices)[1] for vertices, _, _ in meshes.values()]
    extent = max(width for width, _ in extents), max(height for _, height in extents)
    columns = []
    for row, (vertices, faces, colours) in meshes.items():
        frame = rectify(frames[row])
        centre, _ = middle_and_extent(vertices)
        behind = orbit_view(centre, extent, 180, size=size)
        column = [
            draw_depth(frame.depth, crop, size, frame.mask),
            draw_surface(vertices, faces, camera_view(crop.camera(camera, size)), colours),
            draw_surface(vertices, faces, orbit_view(centre, extent, 60, size=size), colours),
            draw_surface(vertices, faces, behind, colours),
        ]
        if truth is not None:
            column.append(draw_surface(truth.vertices[row], truth.faces, behind))
        columns.append(column)
    return grid([list(pictures) for pictures in zip(*columns, strict=True)])


def _timings(timings: dict[int, dict[str, float]]) -> str:
    if not timings:
        return ""
    stages = list(dict.fromkeys(stage for row in timings.values() for stage in row))
    total = [sum(row.values()) for row in timings.values()]
    rows = []
    for name in stages:
        seconds = np.array([row.get(name, 0.0) for row in timings.values()])
        rows.append([name, *_time_cells(seconds), f"{100 * seconds.sum() / max(sum(total), 1e-12):.0f} %"])
    rows.append(["all", *_time_cells(np.array(total)), "100 %"])
    chart = page.line_chart({"total": [1000 * value for value in total]}, x_label="tracked frame", y_label="ms a frame")
    header = ("stage", "mean ms", "median ms", "95 % ms", "share")
    note = page.note(
        "Stages and frames are worked on side by side: the sum is the work of a frame, not the time it took."
    )
    return page.section("Timings", page.side_by_side(page.table(header, rows, strong=[len(rows) - 1]), chart), note)


def _time_cells(seconds: np.ndarray) -> list[str]:
    return [f"{1000 * value:.1f}" for value in (seconds.mean(), np.median(seconds), np.percentile(seconds, 95))]


def _tracks(output: Output) -> str:
    tracked, seen = [], []
    for places, observed in zip(output.positions, output.observed, strict=True):  # all rows at once may be gigabytes
        known = np.isfinite(places).all(axis=-1)
        tracked.append(int(known.sum()))
        seen.append(int((observed & known).sum()))
    series = {"tracked": tracked, "seen": seen}
    chart = page.line_chart(series, x_label="frame", y_label="points")
    return page.section("Tracks", chart, page.note("Tracked points, and those of them that the camera saw."))


def _dropped(output: Output, remarks: Iterable[str]) -> str:
    dropped = output.run.dropped
    parts = [page.note(remark) for remark in remarks]
    if dropped:
        parts.insert(
            0, page.table(("frame", "why it has no result"), [[str(row), why] for row, why in dropped.items()])
        )
        return page.section("Dropped frames", *parts)
    return page.section("Dropped frames", page.note("None."), *parts)
