"""Pictures show what they should: shapes where they are, colours where they belong, pages that need nothing else."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import trimesh
from ball_recording import CAMERA, FACES, RADIUS, ball_at, ball_frames, ball_truth
from fake_tracker import tracked
from PIL import Image

from nr_tracking.evaluation import page
from nr_tracking.evaluation.figures import Crop, animation_bytes, crop_around, draw_depth, grid, png_bytes, turntable
from nr_tracking.evaluation.report import KeyFrames, tracking_report
from nr_tracking.evaluation.shading import camera_view, draw_surface, middle_and_extent, orbit_view
from nr_tracking.tracking.result import Run, read_output, write_output

BALL = ball_at(np.array([0.1, -0.05, 1.5]))


def drawn(picture: np.ndarray) -> np.ndarray:
    """Where a picture differs from its ground, which is neutral grey and lighter than any surface."""
    return (picture.min(axis=2) < 235) | (np.ptp(picture.astype(int), axis=2) > 6)


def test_the_camera_view_shows_the_surface_on_the_pixels_that_measured_it() -> None:
    frame = ball_frames(1)[0]
    picture = draw_surface(ball_truth(1).vertices[0], FACES, camera_view(CAMERA))
    assert picture.shape == (48, 64, 3) and picture.dtype == np.uint8
    assert (drawn(picture) != (frame.depth > 0)).mean() < 0.02


def test_a_crop_is_the_same_picture_enlarged() -> None:
    crop = crop_around(BALL, CAMERA)
    camera = crop.camera(CAMERA, crop.tile(100))
    u = BALL[:, 0] / BALL[:, 2] * camera.fx + camera.cx
    v = BALL[:, 1] / BALL[:, 2] * camera.fy + camera.cy
    assert crop.tile(100) == (camera.width, camera.height) and max(crop.tile(100)) == 100
    for values, size in ((u, camera.width), (v, camera.height)):
        assert values.min() > 0 and values.max() < size - 1
        assert values.min() + values.max() == pytest.approx(size - 1, abs=0.5)
        assert np.ptp(values) > 0.8 * size


def test_depth_and_surface_of_one_crop_cover_the_same_pixels() -> None:
    frame = ball_frames(1)[0]
    ball = ball_truth(1).vertices[0]
    crop = crop_around(ball, CAMERA)
    size = crop.tile(120)
    surface = drawn(draw_surface(ball, FACES, camera_view(crop.camera(CAMERA, size))))
    depth = draw_depth(frame.depth, crop, size)
    there = np.ptp(depth.astype(int), axis=2) > 10
    assert (surface != there).mean() < 0.05


def test_near_depth_is_lighter_and_what_is_not_the_subject_fades() -> None:
    depth = np.tile(np.linspace(1, 2, 40, dtype=np.float32), (40, 1))
    depth[:5] = 0
    mask = np.zeros((40, 40), bool)
    mask[20:] = True
    picture = draw_depth(depth, Crop(0, 0, 40, 40), (40, 40), mask).astype(int)
    brightness = picture.sum(axis=2)
    assert (np.diff(brightness[30]) <= 0).all() and brightness[30, 0] > brightness[30, -1] + 200
    assert (picture[:5] == picture[0, 0]).all()
    assert brightness[10, 35] > brightness[30, 35]


def test_orbiting_by_half_a_turn_shows_the_other_side() -> None:
    colours = np.where(BALL[:, 2:] < BALL[:, 2].mean(), np.uint8([200, 40, 40]), np.uint8([40, 40, 200]))
    centre, extent = middle_and_extent(BALL)
    assert extent == pytest.approx((2 * RADIUS, 2 * RADIUS), rel=0.02)
    front, behind = (
        draw_surface(BALL, FACES, orbit_view(centre, extent, turn, 0, (64, 64)), colours) for turn in (0, 180)
    )
    red, blue = (picture[drawn(picture)].mean(axis=0) for picture in (front, behind))
    assert red[0] > 2 * red[2] and blue[2] > 2 * blue[0]
    side = draw_surface(BALL, FACES, orbit_view(centre, extent, 90, 0, (64, 64)), colours)
    left, right = side[32, 22].astype(int), side[32, 42].astype(int)
    assert (left[0] > left[2]) != (right[0] > right[2])


@pytest.mark.parametrize("size", [(90, 180), (120, 120), (180, 90)])
def test_a_turned_surface_is_whole_whatever_lies_near_the_viewer(size: tuple[int, int]) -> None:
    box = trimesh.creation.box((0.8, 1.8, 0.8))
    vertices, faces = np.float32(box.vertices + np.array([0.3, 0.1, 3])), np.int32(box.faces)
    centre, extent = middle_and_extent(vertices)
    for turn in range(0, 360, 15):
        shown = drawn(draw_surface(vertices, faces, orbit_view(centre, extent, turn, size=size)))
        assert not (shown[[0, -1]].any() or shown[:, [0, -1]].any()), turn
        fills = shown.any(axis=0).sum() / size[0], shown.any(axis=1).sum() / size[1]
        assert max(fills) > 0.75, turn


def test_a_report_tells_the_usual_work_of_a_frame_not_that_of_the_first(tmp_path: Path) -> None:
    """Loops are compiled in the first frame, which says nothing of the others."""
    stamps = np.arange(5, dtype=np.int64) * 33_000_000
    made = write_output(
        tmp_path / "out", stamps, [(row, tracked(int(stamp), 2.0)) for row, stamp in enumerate(stamps)], Run(frames=5)
    )
    timings = {row: {"network": 16.0 if row == 0 else 0.2} for row in range(5)}
    html = tracking_report(read_output(made), {0: ball_frames(1)[0]}, timings, title="a ball")
    overview = html[: html.index("Timings")]
    assert "200 ms" in overview and "work a frame (median)" in overview
    assert "Frame 0. A point" in html


def test_light_comes_from_above() -> None:
    picture = draw_surface(BALL, FACES, camera_view(crop_around(BALL, CAMERA).camera(CAMERA, (80, 80))))
    assert picture[15, 40].mean() > picture[64, 40].mean() + 25


def test_an_empty_or_unseen_surface_is_an_empty_picture() -> None:
    for vertices, faces in ((np.zeros((0, 3), np.float32), FACES[:0]), (BALL - np.float32([0, 0, 5]), FACES)):
        assert not drawn(draw_surface(vertices, faces, camera_view(CAMERA))).any()


def test_pictures_become_files_that_browsers_read() -> None:
    tiles = turntable(BALL, FACES, views=3, size=40)
    sheet = grid([tiles, tiles[:2]], gap=2)
    assert sheet.shape == (82, 124, 3) and (sheet[42:, 84:] == 255).all()
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(png_bytes(sheet)))), sheet)
    animation = Image.open(io.BytesIO(animation_bytes(tiles, seconds=1)))
    assert animation.format == "WEBP" and animation.n_frames == 3


def test_a_page_is_one_file_and_says_what_it_was_given() -> None:
    chart = page.line_chart({"a<b": [0.0, 1.0, float("nan"), 3.0], "c": [2.0]}, x_label="frame", y_label="ms & more")
    html = page.page(
        "<script>", "lead", [page.section("A & B", page.table(["x"], [["<td>"]]), chart, page.image(b"x", "png"))]
    )
    assert "<script>" not in html and "&lt;script&gt;" in html and "A &amp; B" in html
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(|@import""", html)
    svg = ElementTree.fromstring(chart)
    lines = [element.get("d") for element in svg.iter() if element.get("fill") == "none"]
    assert [line.count("M") for line in lines] == [1, 2]  # one point of c; a gap in a


@pytest.mark.parametrize(
    ("largest", "top"), [(0.0, 1.0), (0.9, 1.0), (1.0, 1.0), (37, 40), (1234, 1500), (0.013, 0.015)]
)
def test_axes_end_at_round_numbers(largest: float, top: float) -> None:
    svg = ElementTree.fromstring(page.line_chart({"a": [0.0, largest]}, x_label="", y_label=""))
    ticks = [float(element.text) for element in svg.iter("text") if element.get("text-anchor") == "end"]
    assert max(ticks) == pytest.approx(top) and min(ticks) == 0 and 4 <= len(ticks) <= 7


def test_key_frames_stay_few_and_even() -> None:
    frame = ball_frames(1)[0]
    kept = KeyFrames(limit=12)
    for row in range(1000):
        kept.keep(row, frame)
    rows = list(kept.frames)
    assert 6 <= len(rows) <= 12 and rows[0] == 0 and len(set(np.diff(rows))) == 1 and rows[-1] > 800
