"""Reports of an evaluation: what is worst comes first, and colours say how wrong a surface is."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from nr_tracking.evaluation import error_maps
from nr_tracking.evaluation.error_maps import LARGEST_ERROR, draw_specimen, error_colours, error_scale
from nr_tracking.evaluation.evaluation_report import evaluation_report, worst_first
from nr_tracking.evaluation.metrics import Mesh, SurfaceScores
from nr_tracking.evaluation.protocol import FrameScores, Scores, Specimen
from nr_tracking.evaluation.scoreboard import METHOD_HEADER, SCORE_HEADER, method_rows, score_table

SHAPE = trimesh.creation.icosphere(subdivisions=3, radius=0.3)
BALL = Mesh((np.asarray(SHAPE.vertices) + np.array([0, 0, 1.5])).astype(np.float32), SHAPE.faces.astype(np.int32))


def surface_scores(distance: float) -> SurfaceScores:
    return SurfaceScores(1 - distance, distance, distance**2, distance, distance, 1 - distance, 0.5)


def scores_of(name: str, distances: list[float], method: str = "nr_tracking", family: str = "") -> Scores:
    frames = [
        FrameScores(surface_scores(value), value, 0.2, 0.1, value / 2, 2 * value, 0.001, 1.0) for value in distances
    ]
    worst = int(np.argmax(distances))
    error = np.full(len(BALL.vertices), distances[worst])
    specimen = Specimen(worst, BALL, BALL, error, error)
    return Scores(name, 0, frames, 0.001, 100, family=family, method=method, seconds=0.05, worst=specimen)


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(error_maps, "TILE", 60)


def test_the_worst_frame_of_all_comes_first_whatever_the_means() -> None:
    steady = scores_of("steady", [0.02, 0.02, 0.02])
    spike = scores_of("spike", [0.001, 0.05, 0.001])
    good = scores_of("good", [0.001, 0.001, 0.001])
    assert [item.name for item in worst_first([good, steady, spike])] == ["spike", "steady", "good"]
    html = evaluation_report([good, steady, spike], "lead")
    assert (
        html.index("spike, frame 1: IoU 0.950, CD 0.05000")
        < html.index("steady, frame 0")
        < html.index("good, frame 0")
    )


def test_a_wrong_place_is_coloured_where_it_is() -> None:
    error = np.where(BALL.vertices[:, 0] > 0, LARGEST_ERROR, 0.0)
    missed = LARGEST_ERROR - error
    picture = draw_specimen(Specimen(0, BALL, BALL, error, missed)).astype(int)
    front, truth = picture[:60, :60], picture[64:, :60]
    right, left = front[30, 40], front[30, 20]
    assert right[0] > right[1] + 30  # purple
    assert np.ptp(left) < 25  # nearly white
    assert truth[30, 20][0] > truth[30, 20][1] + 30 and np.ptp(truth[30, 40]) < 25  # missed on the other side
    behind = picture[:60, 128:]
    assert behind[30, 20][0] > behind[30, 20][1] + 30  # from behind, right is left
    aside = picture[:60, 64:124]
    assert aside[30, 30][0] > aside[30, 30][1] + 30  # from the right, where the camera's x grows, only what is wrong
    assert np.ptp(picture[64:, 64:124][30, 30]) < 25
    page = evaluation_report([scores_of("a", [0.01])], "lead")
    assert "From the camera, from its right, from behind." in page


def test_colours_run_from_pale_to_dark_and_stay_there() -> None:
    colours = error_colours(np.array([0.0, LARGEST_ERROR / 2, LARGEST_ERROR, 10.0])).astype(int)
    assert (np.diff(colours.sum(axis=1)) <= 0).all() and (colours[2] == colours[3]).all()
    assert error_scale(50, 3).shape == (3, 50, 3)


def test_methods_are_compared_on_the_same_page_and_in_the_same_columns() -> None:
    ours = [scores_of("a", [0.01], family="animal"), scores_of("b", [0.02], family="person")]
    theirs = [scores_of("a", [0.03], "inflated", "animal"), scores_of("b", [0.05], "inflated", "person")]
    rows = method_rows([*ours, *theirs])
    assert [row[0] for row in rows] == ["nr_tracking", "inflated"]
    assert [row[METHOD_HEADER.index("CD")] for row in rows] == ["0.01500", "0.04000"]
    assert rows[0][-1] == "50"
    html = evaluation_report(ours, "lead", theirs)
    assert "Other methods" in html and html.count("inflated") == 3  # all, animals, people
    text = score_table(ours, theirs)
    assert "inflated" in text and "0.04000" in text


def test_methods_are_compared_where_all_of_them_have_a_score() -> None:
    ours = [scores_of("easy", [0.01]), scores_of("hard", [0.05]), scores_of("fair", [0.02])]
    theirs = [scores_of("easy", [0.02], "inflated"), scores_of("fair", [0.04], "inflated")]
    theirs.insert(1, Scores("hard", 0, [FrameScores(None, 0.3, 0.2, 0.1)], 0.001, 100, method="inflated"))
    lost = FrameScores(surface_scores(0.1), float("nan"), 0.2, 0.1)
    sheets = [Scores(item.name, 0, [lost], 0.001, 100, method="sheet") for item in ours]
    everything = [*ours, *theirs, *sheets]
    cells = {row[0]: dict(zip(METHOD_HEADER, row, strict=True)) for row in method_rows(everything)}
    assert [cells[name]["CD"] for name in ("nr_tracking", "inflated", "sheet")] == ["0.01500", "0.03000", "0.10000"]
    assert cells["sheet"]["Corr"] == "-" and cells["nr_tracking"]["Corr"] == "0.02667", "no sheet has points to follow"
    assert cells["inflated"]["IoU"] == "0.647", "without a surface it is 0, which counts"
    said = "as one of them has no such score: CD, tracked, normals, F-score 1 of 3"
    assert said in score_table(ours, [*theirs, *sheets]) and said in evaluation_report(ours, "lead", theirs)
    assert "all methods" not in score_table(ours[::2], theirs[::2])


def test_what_was_not_measured_is_a_hyphen_not_a_number() -> None:
    item = Scores("bare", 0, [FrameScores(None, float("nan"), 0.1, 0.1)], 0.001, 100)
    lines = score_table([item]).splitlines()
    cells = dict(zip(SCORE_HEADER, lines[1].replace("bare from 0", "bare").split(), strict=True))
    assert cells["IoU"] == "0.000" and cells["CD"] == "-" and cells["visible"] == "-"
    assert "No frame gave a surface" in evaluation_report([item], "lead")


def test_the_table_of_all_sub_sequences_begins_with_those_that_failed() -> None:
    late = [FrameScores(None, 0.3, 0.1, 0.1), FrameScores(surface_scores(0.02), 0.3, 0.1, 0.1)]
    failed = [Scores(name, 0, late, 0.001, 100) for name in ("late", "later")]
    some = [scores_of(name, [cd]) for name, cd in (("good", 0.01), ("bad", 0.05), ("fair", 0.03))]
    page = evaluation_report([some[0], failed[0], some[1], failed[1], some[2]], "lead")
    table = page[page.index("All sub-sequences") :]
    places = [table.index(f"{name} from 0") for name in ("late", "later", "bad", "fair", "good")]
    assert places == sorted(places)


def test_a_sub_sequence_without_a_surface_is_left_out_of_the_means_and_counted() -> None:
    bare = Scores("bare", 0, [FrameScores(None, 0.3, 0.1, 0.1)], 0.001, 100)
    *_, mean, note = score_table([scores_of("a", [0.01]), scores_of("b", [0.03]), bare]).splitlines()
    cells = dict(zip(SCORE_HEADER, mean.replace("mean of 3", "mean").split(), strict=True))
    assert cells["CD"] == "0.02000" and cells["F-score"] == "0.500", "over those that have a surface"
    assert float(cells["IoU"]) == pytest.approx((0.99 + 0.97) / 3, abs=1e-3), "over all: without a surface it is 0"
    assert note.endswith("CD, tracked, normals, F-score 1 of 3")
    page = evaluation_report([scores_of("a", [0.01]), bare], "lead")
    assert "CD, tracked, normals, F-score 1 of 2." in page
    assert "left out" not in score_table([scores_of("a", [0.01])])
