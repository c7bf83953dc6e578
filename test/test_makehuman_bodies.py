"""MakeHuman bodies against what they are made of: hair, heads, hands, statures. All but one need the files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from nr_tracking.data import makehuman
from nr_tracking.data.base_skin import thickened
from nr_tracking.data.character import Character
from nr_tracking.data.clips import is_closed
from nr_tracking.data.distance import nearest_point, winding_number
from nr_tracking.data.makehuman import UNIT_M, MakeHuman, random_targets, read_target
from nr_tracking.data.remeshing import surface_of_field


@pytest.fixture(scope="module")
def assets() -> MakeHuman:
    if not os.environ.get("NR_TRACKING_DATA"):
        pytest.skip("NR_TRACKING_DATA is not set: the character files are not there")
    return MakeHuman.load(Path(os.environ["NR_TRACKING_DATA"]) / "makehuman")


@pytest.fixture(scope="module")
def worn(assets: MakeHuman) -> list[tuple[Character, np.ndarray, list[makehuman.Part]]]:
    """Two dressed people, the second with long hair: the character, the bare body in metres, and what they wear."""
    kept: dict[str, list] = {"base": [], "parts": []}
    outfit = MakeHuman._outfit

    def remembered(self: MakeHuman, base: np.ndarray, *rest: object) -> list[makehuman.Part]:
        parts = outfit(self, base, *rest)  # type: ignore[arg-type]
        kept["base"].append(base)
        kept["parts"].append(parts)
        return parts

    found: dict[bool, tuple] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MakeHuman, "_outfit", remembered)
        for seed in range(20):
            body = assets.draw(np.random.default_rng(seed), "somebody")
            base, parts = kept["base"][-1], kept["parts"][-1]
            lift = np.array([0, base[np.unique(assets.groups["body"]), 1].min() * UNIT_M, 0])
            found.setdefault(any(part.sheet for part in parts), (body, base * UNIT_M - lift, parts))
            if len(found) == 2:
                break
    return [found[False], found[True]]


def overlap(
    low: np.ndarray, high: np.ndarray, first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]
) -> tuple[float, float]:
    """Intersection over union of two solids in a box, and the second's volume over the first's."""
    points = low + (high - low) * np.random.default_rng(0).random((20000, 3))
    one, two = (winding_number(points, *mesh) > 0.5 for mesh in (first, second))
    return float((one & two).sum() / (one | two).sum()), float(two.sum() / one.sum())


def test_what_is_thickened_grows_where_it_shall() -> None:
    vertices, faces = surface_of_field(
        lambda q: np.linalg.norm(q, axis=1) - 0.5, np.full(3, -0.5), np.full(3, 0.5), 0.1
    )
    grown = thickened(vertices, faces, np.where(vertices[:, 0] > 0.2, 1.0, 0.0), 0.03)
    moved = np.linalg.norm(grown, axis=1) - np.linalg.norm(vertices, axis=1)
    assert np.median(moved[vertices[:, 0] > 0.2]) == pytest.approx(0.03, abs=1e-3) and moved.max() < 0.0301
    np.testing.assert_array_equal(grown[vertices[:, 0] <= 0.2], vertices[vertices[:, 0] <= 0.2])


def test_mouth_and_sockets_are_shut(assets: MakeHuman) -> None:
    skin, count = assets.groups["skin"], len(assets.vertices)
    assert is_closed(skin) and skin.max() == count + 2
    vertices = makehuman.with_lids(assets.vertices)
    hollow = assets.vertices[np.unique(np.concatenate([assets.groups["helper-tongue"], assets.groups["helper-l-eye"]]))]
    hollow = hollow[hollow[:, 2] < 1.3]
    assert (winding_number(hollow, assets.vertices, assets.groups["body"]) < 0.5).mean() > 0.8
    assert (winding_number(hollow, vertices, skin) > 0.5).all()


def test_heads_have_faces_without_gaps(assets: MakeHuman, worn: list) -> None:
    body, base, _ = worn[0]
    eye, mouth = (base[np.unique(assets.groups[name])].mean(0) for name in ("joint-l-eye", "joint-mouth"))
    vertices = makehuman.with_lids(base)
    low, high = np.array([-0.05, mouth[1] - 0.05, mouth[2]]), np.array([0.05, eye[1] + 0.03, eye[2] + 0.06])
    shared, volume = overlap(low, high, (vertices, assets.groups["skin"]), (body.vertices, body.faces))
    assert shared > 0.93 and 0.95 < volume < 1.05


def test_hands_keep_their_volume_and_their_fingers(assets: MakeHuman, worn: list) -> None:
    for body, base, _ in worn:
        ends = [base[np.unique(assets.groups[f"joint-l-finger-{finger}-4"])].mean(0) for finger in range(1, 6)]
        starts = [base[np.unique(assets.groups[f"joint-l-finger-{finger}-1"])].mean(0) for finger in range(2, 6)]
        # Sleeves may reach over the wrist, so the box begins at the knuckles.
        places = np.array(ends + starts)
        low, high = places.min(0) - 0.02, places.max(0) + 0.02
        shared, volume = overlap(low, high, (base, assets.groups["body"]), (body.vertices, body.faces))
        assert shared > 0.65 and 0.9 < volume < 1.1
        assert nearest_point(np.array(ends), body.vertices, body.faces)[0].max() < 0.02


def test_long_hair_is_solid_behind_and_off_the_face(assets: MakeHuman, worn: list) -> None:
    body, base, parts = worn[1]
    (hair,) = [part for part in parts if part.sheet]
    vertices, faces = body.vertices.astype(float), body.faces
    cell = float(np.ptp(base[np.unique(assets.groups["body"])], axis=0).max()) / 115
    middles = base[hair.faces].mean(1)
    assert (winding_number(middles, vertices, faces) > 0.5).mean() > 0.97
    assert middles[:, 2].max() < base[np.unique(assets.groups["joint-mouth"]), 2].mean() + 0.05
    # The skull below is whole: all of the head is inside, but for the width of a cell.
    top = base[np.unique(assets.groups["body"]), 1].max()
    points = np.array([-0.1, top - 0.2, -0.1]) + np.array([0.2, 0.2, 0.27]) * np.random.default_rng(0).random(
        (20000, 3)
    )
    skin = makehuman.with_lids(base), assets.groups["skin"]
    deep = points[(winding_number(points, *skin) > 0.5) & (nearest_point(points, *skin)[0] > 0.4 * cell)]
    assert (winding_number(deep, vertices, faces) > 0.5).mean() > 0.99


def test_grown_people_are_as_tall_as_people_are(assets: MakeHuman) -> None:
    skin = np.unique(assets.groups["body"])
    tall = []
    for seed in range(160):
        height = assets.vertices[:, 1].copy()
        chosen = random_targets(np.random.default_rng(seed), bool(seed % 2))
        if any("-child" in name for name, _ in chosen):
            continue
        for name, weight in chosen:
            index, offset = read_target(assets.folder / "targets" / f"{name}.target")
            height[index] += weight * offset[:, 1]
        tall.append(np.ptp(height[skin]) * UNIT_M)
    np.testing.assert_allclose(np.quantile(tall, [0.25, 0.5, 0.75]), [1.60, 1.68, 1.77], atol=0.03)
    assert np.quantile(tall, 0.05) > 1.47 and np.quantile(tall, 0.95) < 2.0
