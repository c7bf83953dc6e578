"""Cloth: it hangs, lags, swings on, keeps its size, stays out of the body and comes to rest."""

from __future__ import annotations

import numpy as np
import pytest

from nr_tracking.data.capsules import Capsules, fitted, gap, nearest_on_axes
from nr_tracking.data.cloth import Cloth, swing
from nr_tracking.data.sheet import coloured, sew
from nr_tracking.data.skeleton import Skeleton, rotations, segment_distance

FPS = 30.0
CALM = Cloth(tether=0.0)


def curtain(rows: int = 13, columns: int = 9, side: float = 0.05) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A sheet that hangs from its upper edge at y = 0, facing z: vertices, faces, looseness."""
    y, x = np.mgrid[:rows, :columns]
    vertices = np.stack([(x - columns // 2) * side, -y * side, np.zeros(x.shape)], -1).reshape(-1, 3)
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).reshape(-1, 1)
    one, other = corner + np.array([0, columns, 1]), corner + np.array([1, columns, columns + 1])
    flip = ((x + y)[:-1, :-1].reshape(-1) % 2 == 1)[:, None]
    one = np.where(flip, corner + np.array([0, columns, columns + 1]), one)
    other = np.where(flip, corner + np.array([0, columns + 1, 1]), other)
    return vertices, np.concatenate([one, other]), (y.reshape(-1) > 0).astype(float)


def hung(motion: np.ndarray, cloth: Cloth = CALM, **body: object) -> np.ndarray:
    """The curtain carried along by ``motion`` (T, 3)."""
    vertices, faces, loose = curtain()
    return swing(vertices + motion[:, None], faces, vertices, loose, FPS, cloth, **body)  # type: ignore[arg-type]


def energy(moving: np.ndarray) -> np.ndarray:
    """Kinetic and potential energy of all vertices between frames, J/kg."""
    speed = np.diff(moving, axis=0) * FPS
    height = (moving[1:, :, 1] + moving[:-1, :, 1]) / 2
    return (0.5 * (speed**2).sum(-1) + 9.81 * height).sum(1)


def test_a_hanging_sheet_hangs_still_and_what_is_fixed_stays_fixed() -> None:
    still = hung(np.zeros((10, 3)))
    vertices, _, loose = curtain()
    np.testing.assert_allclose(still[:, loose == 0], np.repeat(vertices[None, loose == 0], 10, 0), atol=1e-6)
    assert np.abs(still - vertices).max() < 0.03
    np.testing.assert_allclose(still[-1], still[-2], atol=2e-3)


def test_nothing_loose_is_left_as_it_is() -> None:
    vertices, faces, _ = curtain()
    moving = vertices + np.linspace(0, 1, 4)[:, None, None]
    np.testing.assert_array_equal(
        swing(moving, faces, vertices, np.zeros(len(vertices)), FPS, CALM), moving.astype(np.float32)
    )
    assert sew(vertices, faces, np.zeros(len(vertices))) is None


def test_it_lags_while_the_body_runs_and_swings_on_when_it_stops() -> None:
    run = np.minimum(np.arange(50), 20)[:, None] * 0.04 * np.array([0.0, 0.0, 1.0])
    moved = hung(run)
    away = moved[:, -5, 2] - run[:, 2]
    assert away[8:20].min() < -0.08, "the hem trails"
    assert away[20:].max() > 0.05, "and swings past its place"
    assert np.abs(away[45:]).max() < np.abs(away).max(), "and calms down"


@pytest.mark.parametrize("seed", range(3))
def test_edges_keep_their_length_and_energy_does_not_grow(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shake = np.cumsum(rng.normal(size=(40, 3)) * 0.02, 0)
    shake[25:] = shake[25]
    moved = hung(shake, Cloth(bending=rng.uniform(5, 30), tether=0.0))
    vertices, faces, _ = curtain()
    edges = np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1), axis=0)
    length = np.linalg.norm(moved[:, edges[:, 0]] - moved[:, edges[:, 1]], axis=-1)
    stretch = length / np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=-1)
    assert np.quantile(stretch, [0.01, 0.99]) == pytest.approx([1, 1], abs=0.12)
    held = energy(moved)[26:]  # the hand that shakes it rests
    assert (np.diff(held) < 0.1 * np.ptp(held)).all() and held[-1] < held[0]


def ball_below() -> tuple[Capsules, np.ndarray]:
    """A capsule along x that rises through the place of the curtain's lower half while coming nearer."""
    ends = np.array([[-0.5, -0.4, -0.25], [0.5, -0.4, -0.25]])
    path = ends + np.linspace(0, 0.4, 40)[:, None, None] * np.array([0.0, 0.0, 1.0])
    return Capsules(np.array([0]), ends[:1], ends[1:], np.array([[0.12, 0.12]])), path[:, None]


@pytest.mark.parametrize("friction", [0.0, 0.6])
def test_a_body_pushes_the_sheet_before_it(friction: float) -> None:
    body, ends = ball_below()
    cloth = Cloth(tether=0.0, friction=friction)
    moved = hung(np.zeros((40, 3)), cloth, body=body, ends=ends)
    for frame in range(40):
        assert gap(moved[frame].astype(float), ends[frame], body.radii).min() > cloth.thickness - 1e-3
    assert moved[-1, 60, 2] > 0.12
    free = hung(np.zeros((40, 3)), cloth)
    assert np.abs(free[-1, 60, 2]) < 0.02


def test_what_begins_inside_a_body_is_not_thrown_out() -> None:
    body, ends = ball_below()
    through = np.repeat(ends[20:21], 10, 0)
    inside = Capsules(body.joints, through[0, :, 0], through[0, :, 1], body.radii)
    assert np.abs(hung(np.zeros((10, 3)), body=inside, ends=through) - curtain()[0]).max() < 0.05


def test_wind_blows_it_out_and_the_same_wind_does_the_same() -> None:
    windy = Cloth(tether=0.0, wind=(0.0, 0.0, 3.0))
    one, again = (hung(np.zeros((25, 3)), windy) for _ in range(2))
    np.testing.assert_array_equal(one, again)
    assert one[-1, -5, 2] > 0.1
    first, other = (Cloth.draw(np.random.default_rng(seed)) for seed in (0, 1))
    assert first == Cloth.draw(np.random.default_rng(0)) != other


def test_half_loose_hangs_nearer_to_its_place_than_loose() -> None:
    vertices, faces, loose = curtain()
    run = np.minimum(np.arange(16), 20)[:, None, None] * 0.04 * np.array([0.0, 0.0, 1.0])
    lag = [
        -(swing(vertices + run, faces, vertices, share * loose, FPS, CALM)[-1, -5, 2] - run[-1, 0, 2])
        for share in (0.2, 0.6, 1.0)
    ]
    assert 0 < lag[0] < lag[1] < lag[2]


def test_what_closes_a_skirt_below_follows_its_hem() -> None:
    """A box without a lid whose walls are cloth: its bottom is no cloth and moves with their lower rims."""
    height, around = 8, 16
    angle = 2 * np.pi * np.arange(around) / around
    ring = np.stack([0.2 * np.cos(angle), np.zeros(around), 0.2 * np.sin(angle)], 1)
    walls = np.concatenate([ring - [0, 0.05 * row, 0] for row in range(height)])
    vertices = np.concatenate([walls, 0.5 * ring - [0, 0.36, 0], [[0, -0.36, 0]]])
    faces = []
    for row in range(height):  # the last row joins the hem to the ring inside
        for k in range(around):
            a, b, c, d = row * around + k, row * around + (k + 1) % around, (row + 1) * around + k, 0
            d = (row + 1) * around + (k + 1) % around
            faces += [[a, b, c], [b, d, c]]
    faces += [[height * around + k, height * around + (k + 1) % around, len(vertices) - 1] for k in range(around)]
    loose = np.clip(-vertices[:, 1] / 0.35, 0, 1)
    sheet = sew(vertices, np.array(faces), loose)
    assert sheet is not None and set(sheet.web) >= set(range(height * around, len(vertices)))
    run = np.arange(10)[:, None, None] * 0.04 * np.array([1.0, 0.0, 0.0])
    moved = swing(vertices + run, np.array(faces), vertices, loose, FPS, CALM)
    lag = (moved - vertices - run)[-1, :, 0]
    hem, middle = lag[(height - 1) * around : height * around], lag[-1]
    assert hem.mean() < -0.01 and hem.min() <= middle <= hem.max()


def test_constraints_of_one_colour_share_no_particle() -> None:
    _, faces, _ = curtain()
    pairs = np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1), axis=0)
    groups = coloured(pairs, 117)
    assert sorted(np.concatenate(groups)) == list(range(len(pairs)))
    for group in groups:
        assert len(np.unique(pairs[group])) == 2 * len(group)
    assert len(groups) < 16


def test_distances_from_capsules_are_those_from_segments() -> None:
    rng = np.random.default_rng(0)
    points, ends = rng.normal(size=(50, 3)), rng.normal(size=(4, 2, 3))
    ends[3, 1] = ends[3, 0]  # a ball
    share, distance = nearest_on_axes(points, ends)
    for k, (head, tail) in enumerate(ends):
        np.testing.assert_allclose(distance[:, k], segment_distance(points, head, tail), atol=1e-9)
    middle = ends[None, :, 0] + share[..., None] * (ends[:, 1] - ends[:, 0])
    np.testing.assert_allclose(np.linalg.norm(points[:, None] - middle, axis=-1), distance, atol=1e-9)
    radii = np.array([[0.1, 0.2]] * 4)
    np.testing.assert_allclose(gap(points, ends, radii), distance - 0.1 - 0.1 * share)


def test_capsules_are_fitted_into_a_limb_and_move_with_it() -> None:
    rng = np.random.default_rng(0)
    heads = np.array([[0.0, 1, 0], [1.0, 1, 0]])
    skeleton = Skeleton(("upper", "lower"), (-1, 0), heads, np.add(heads, [1.0, 0, 0]))
    along, angle = rng.uniform(0, 2, 4000), rng.uniform(0, 6.3, 4000)
    radius = np.where(along < 1, 0.2, 0.1)
    limb = np.stack([along, 1 + radius * np.cos(angle), radius * np.sin(angle)], 1)
    capsules = fitted(limb, np.eye(2)[(along > 1).astype(int)], skeleton, tightness=1.0)
    np.testing.assert_allclose(capsules.radii, [[0.2, 0.2], [0.1, 0.1]], atol=1e-6)
    world = np.broadcast_to(np.eye(3), (1, 2, 3, 3)).copy()
    world[0, 1] = rotations(np.array([0.0, 0, np.pi / 2]))
    ends = capsules.posed(skeleton, world, np.array([[0.0, 1, 5]]))
    np.testing.assert_allclose(ends[0], [[[0, 1, 5], [1, 1, 5]], [[1, 1, 5], [1, 2, 5]]], atol=1e-9)
    assert len(fitted(limb[:5], np.eye(2)[[0] * 5], skeleton).joints) == 0
