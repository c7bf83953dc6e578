"""Finding the subject in synthetic scenes of known make-up, and in recordings where they are at hand."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

from nr_tracking.config import SubjectConfig
from nr_tracking.sensing.camera import points_at
from nr_tracking.sensing.planes import NOISE_DEPTH_M, noise_depth_of
from nr_tracking.sensing.subject import find_subject
from nr_tracking.types import DepthFrame, InputError, Intrinsics

CAMERA = Intrinsics(width=320, height=240, fx=260.0, fy=260.0, cx=159.5, cy=119.5)
CONFIG = SubjectConfig()
V, U = np.mgrid[:240, :320].astype(np.float64)
RAYS = np.stack(((U - CAMERA.cx) / CAMERA.fx, (V - CAMERA.cy) / CAMERA.fy, np.ones_like(U)), axis=-1)


def ball(centre, radius) -> np.ndarray:
    """Depth (H, W) of a ball, infinite beside it."""
    centre = np.asarray(centre, float)
    a, b = (RAYS**2).sum(-1), RAYS @ centre
    under_root = b * b - a * (centre @ centre - radius**2)
    return np.where(under_root > 0, (b - np.sqrt(np.maximum(under_root, 0))) / a, np.inf)


def capsule(start, end, radius) -> np.ndarray:
    return np.minimum.reduce([ball(c, radius) for c in np.linspace(start, end, 40)])


def plane(normal, offset) -> np.ndarray:
    """Depth of the plane ``normal . p = offset``, infinite where the ray does not meet it ahead."""
    along = RAYS @ np.asarray(normal, float)
    with np.errstate(divide="ignore"):
        depth = offset / along
    return np.where(depth > 0, depth, np.inf)


def figure(x=0.0, z=2.5, arm=True) -> np.ndarray:
    """A person of 1.7 m whose feet are at y = 0.9."""
    parts = [
        capsule((x, -0.35, z), (x, 0.2, z), 0.18),
        capsule((x - 0.1, 0.2, z), (x - 0.14, 0.82, z), 0.08),
        capsule((x + 0.1, 0.2, z), (x + 0.14, 0.82, z), 0.08),
        ball((x, -0.68, z), 0.12),
    ]
    if arm:
        parts.append(capsule((x + 0.2, -0.4, z), (x + 0.6, -0.1, z - 0.15), 0.05))
    return np.minimum.reduce(parts)


def frame(*layers: np.ndarray, noise=0.0, mask=None) -> DepthFrame:
    depth = np.minimum.reduce(layers)
    depth = np.where(depth < 20, depth, 0.0)
    depth = depth + noise * np.random.default_rng(0).normal(size=depth.shape) * depth**2
    return DepthFrame(0, depth.astype(np.float32), CAMERA, mask)


FLOOR = plane((0.0, 1.0, 0.0), 0.9)
WALL = plane((0.2, 0.0, 1.0), 4.0)
TABLE = plane((0.0, 1.0, 0.7), 1.0)


def test_depth_of_nothing_but_the_subject_passes_untouched():
    for scene in (frame(figure()), frame(figure(), noise=0.002), frame(ball((0, 0, 1), 0.3))):
        np.testing.assert_array_equal(find_subject(scene, CONFIG), scene.depth > 0)


def accuracy(found: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Recall and precision of a mask."""
    both = (found & truth).sum()
    return both / truth.sum(), both / found.sum()


@pytest.mark.parametrize("noise", [0.0, 0.0015])
@pytest.mark.parametrize(
    "support", [(FLOOR,), (WALL,), (FLOOR, WALL)], ids=["on a floor", "before a wall", "on a floor before a wall"]
)
def test_a_figure_is_separated_from_its_room(support, noise):
    body = figure()
    truth = body < np.minimum.reduce(support)
    recall, precision = accuracy(find_subject(frame(body, *support, noise=noise), CONFIG), truth)
    assert recall > 0.95, "all but the soles of its feet"
    assert precision > 0.98


def test_a_floor_cropped_by_the_region_box_goes_too():
    """The crop leaves an island of floor that touches no side of the picture."""
    config = SubjectConfig(region_min_m=(-0.9, -2.0, 1.8), region_max_m=(0.9, 2.0, 3.4))
    recall, precision = accuracy(find_subject(frame(figure(), FLOOR), config), figure() < FLOOR)
    assert recall > 0.95
    assert precision > 0.98


def test_a_toy_on_a_table_is_separated():
    toy = capsule((-0.05, 0.3, 1.0), (0.1, 0.25, 0.95), 0.07)
    recall, precision = accuracy(find_subject(frame(toy, TABLE), CONFIG), toy < TABLE)
    assert recall > 0.9
    assert precision > 0.98


def noisy(depth: np.ndarray, noise: float, apart: int = 1) -> DepthFrame:
    """``depth`` with noise that grows with its square, and is nearly the same in blocks of ``apart`` pixels a side."""
    blocks = np.random.default_rng(1).normal(size=(240 // apart + 1, 320 // apart + 1))
    deviates = np.kron(blocks, np.ones((apart, apart)))[:240, :320]
    return DepthFrame(0, np.where(depth < 20, depth + noise * deviates * depth**2, 0).astype(np.float32), CAMERA)


@pytest.mark.parametrize("apart", [1, 5])
@pytest.mark.parametrize("noise", [0.0028, 0.004, 0.0055])
def test_a_room_goes_though_the_camera_is_a_noisy_one(noise, apart):
    """A stereo camera's noise is 0.004 of depth's square: 6 cm at the wall."""
    body, room = figure(), np.minimum(FLOOR, WALL)
    recall, precision = accuracy(find_subject(noisy(np.minimum(body, room), noise, apart), CONFIG), body < room)
    assert recall > 0.95
    assert precision > 0.97
    with pytest.raises(InputError):
        find_subject(noisy(room, noise, apart), CONFIG)


def places(scene: DepthFrame) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) of a scene and their pixels (N,)."""
    pixels = np.flatnonzero(scene.depth)
    return points_at(pixels, scene.depth, CAMERA), pixels


@pytest.mark.parametrize("noise", [0.003, 0.004, 0.0055])
def test_the_tolerance_grows_sooner_with_noise(noise):
    found = noise_depth_of(*places(frame(figure(), FLOOR, WALL, noise=noise)), 320, 0.015)
    assert found == pytest.approx(np.sqrt(0.55 * 0.015 / noise), rel=0.1)


def test_the_tolerance_is_the_same_for_all_cameras_with_little_noise_and_near_any():
    """Furniture, a lawn, a waving cloth and a person before nothing are rough, but not as noise is."""
    waves = 1.0 + 0.04 * np.sin(U / 25.0) + 0.02 * np.cos(V / 30.0)
    carton_room = frame(figure(), FLOOR, WALL, carton(-0.9, 3.0, 0.7), carton(0.8, 3.3, 0.9), noise=0.0015)
    alone = [frame(figure(z=z), noise=noise) for z in (1.5, 2.5, 4.5) for noise in (0.0, 0.001)]
    near, trunk = frame(ball((0, 0, 1), 0.3), noise=0.02), frame(capsule((-0.5, -0.5, 2.4), (0.5, 0.5, 2.0), 0.4))
    for scene in (trunk, carton_room, frame(rippled(0.05), noise=0.0015), frame(2.2 * waves), near, *alone):
        assert noise_depth_of(*places(scene), 320, 0.015) == NOISE_DEPTH_M


def test_of_few_or_scattered_points_no_noise_is_told():
    cloud, pixels = places(frame(figure(), noise=0.01))
    for kept in (slice(0), slice(169), slice(None, None, 97)):
        assert noise_depth_of(cloud[kept], pixels[kept], 320, 0.015) == NOISE_DEPTH_M


def on_plane(flat: np.ndarray, lower, upper) -> np.ndarray:
    """The part of a plane's depth whose points lie between two corners."""
    points = RAYS * np.where(np.isfinite(flat), flat, 0.0)[..., None]
    return np.where(((points >= lower) & (points <= upper)).all(-1), flat, np.inf)


def carton(x, z, edge=0.4) -> np.ndarray:
    """The front of a box that stands on FLOOR."""
    return on_plane(plane((0.0, 0.0, 1.0), z), (x - edge / 2, 0.9 - edge, 0), (x + edge / 2, 0.9, 9))


def rippled(amplitude) -> np.ndarray:
    """A lawn: FLOOR with hills and hollows, met by fixed-point iteration along each ray."""
    depth = np.where(np.isfinite(FLOOR) & (FLOOR < 9), FLOOR, 0.0)
    for _ in range(60):
        x, z = RAYS[..., 0] * depth, depth
        met = (0.9 + amplitude * np.sin(1.1 * x) * np.cos(0.8 * z)) / np.maximum(RAYS[..., 1], 1e-3)
        depth = np.where(depth > 0, 0.5 * (depth + np.clip(met, 0, 12)), 0.0)
    return np.where(depth > 0, depth, np.inf)


@pytest.mark.parametrize("noise", [0.0, 0.0015])
@pytest.mark.parametrize(
    "clutter",
    [(carton(0.75, 3.2),), (carton(-0.9, 3.0, 0.7), carton(0.8, 3.3, 0.9)), (carton(0.0, 3.4, 1.1),)],
    ids=["a box beside", "boxes on both sides", "a box behind"],
)
def test_furniture_goes(clutter, noise):
    body, room = figure(), np.minimum.reduce((FLOOR, WALL, *clutter))
    recall, precision = accuracy(find_subject(frame(body, room, noise=noise), CONFIG), body < room)
    assert recall > 0.95
    assert precision > 0.97


@pytest.mark.parametrize("noise", [0.0, 0.0015])
def test_a_lawn_goes_though_it_is_not_flat(noise):
    body, lawn = figure(), rippled(0.05)
    recall, precision = accuracy(find_subject(frame(body, lawn, noise=noise), CONFIG), body < lawn)
    assert recall > 0.93
    assert precision > 0.97


def test_a_table_goes_though_the_floor_is_seen_behind_it():
    toy = capsule((-0.05, 0.3, 1.0), (0.1, 0.25, 0.95), 0.07)
    table, floor = on_plane(TABLE, (-9, -9, 0), (9, 9, 1.25)), plane((0.0, 1.0, 0.7), 1.8)
    room = np.minimum(table, floor)
    recall, precision = accuracy(find_subject(frame(toy, room), CONFIG), toy < room)
    assert recall > 0.9
    assert precision > 0.98


def test_a_table_is_told_from_what_is_narrower_than_noise_can_tell():
    """Far away, half a body is within the tolerance: it is a plane then, and might be a table beyond its own hand."""
    normal = np.array((0.0, 1.0, 0.45)) / np.linalg.norm((1.0, 0.45))
    top = plane(normal, float(normal @ np.array((0.0, 0.25, 3.5))))
    table = on_plane(top, (-0.7, -9, 3.1), (0.7, 9, 3.9))
    middle = np.array((0.0, 0.25, 3.5)) - 0.12 * normal
    half = np.array((0.1, 0.0, 0.0))
    toy = capsule(middle - half, middle + half, 0.11)
    recall, precision = accuracy(find_subject(frame(toy, table, noise=0.0015), CONFIG), toy < table)
    assert recall > 0.9
    assert precision > 0.98
    body = on_plane(plane((0.0, 0.0, 1.0), 5.6), (-0.25, -0.85, 0), (0.25, 0.85, 9))
    scene = frame(body, ball((0.0, -0.1, 5.35), 0.1))
    np.testing.assert_array_equal(find_subject(scene, CONFIG), scene.depth > 0)


def test_a_wall_with_a_door_goes():
    body, wall = figure(), plane((0.0, 0.0, 1.0), 3.2)
    room = np.minimum(np.where(np.abs(U - 160) < 55, np.inf, wall), plane((0.0, 0.0, 1.0), 5.5))
    recall, precision = accuracy(find_subject(frame(body, room), CONFIG), body < room)
    assert recall > 0.98
    assert precision > 0.98


@pytest.mark.parametrize("rows", [2, 10], ids=["a few pixels", "more than a subject has at least"])
def test_specks_of_noise_before_the_lens_are_no_subject(rows):
    """At 0.17 m a pixel looms as large as four hundred of somebody at 3.4 m do."""
    body, room = figure(z=3.4), np.minimum(FLOOR, WALL)
    specks = np.where((np.abs(V - 150) < rows) & (np.abs(U - 225) < 5), 0.17, np.inf)
    recall, precision = accuracy(find_subject(frame(body, room, specks), CONFIG), body < np.minimum(room, specks))
    assert recall > 0.9
    assert precision > 0.9


def test_an_empty_room_has_no_subject():
    """Before somebody enters, the walls are nobody."""
    for noise in (0.0, 0.0015):
        with pytest.raises(InputError) as caught:
            find_subject(frame(FLOOR, WALL, noise=noise), CONFIG)
        assert caught.value.reason == "no_subject"


def slab(height, x, y) -> np.ndarray:
    """Something with rounded edges that lies between two x and two y on a table 0.8 m below the camera."""
    across, down = RAYS[..., 0] * 0.8, RAYS[..., 1] * 0.8
    inside = np.minimum.reduce((across - x[0], x[1] - across, down - y[0], y[1] - down)) / 0.02
    return np.where(inside > 0, 0.8 - height * np.sqrt(np.clip(inside, 0, 1)), np.inf)


@pytest.mark.parametrize("noise", [0.0, 0.002])
@pytest.mark.parametrize("height", [0.03, 0.04])
@pytest.mark.parametrize("half", [(0.09, 0.045), (0.15, 0.15)], ids=["a hand", "a cloth"])
def test_what_is_low_on_a_table_is_found_with_and_without_a_crumb_beside_it(half, height, noise):
    low, crumb = slab(height, (-half[0], half[0]), (-half[1], half[1])), slab(0.03, (0.3, 0.32), (0.2, 0.22))
    table = plane((0.0, 0.0, 1.0), 0.8)
    for scene in (frame(low, table, noise=noise), frame(low, crumb, table, noise=noise)):
        recall, precision = accuracy(find_subject(scene, CONFIG), low < 0.785)
        assert recall > 0.85
        assert precision > 0.99


def test_two_low_things_give_way_to_a_high_one():
    """And a heap of crumbs is no subject: none of them is most of what lies there."""
    table = plane((0.0, 0.0, 1.0), 0.8)
    crumbs = [slab(0.021, (x, x + 0.06), (y, y + 0.06)) for x in (-0.3, 0.0, 0.25) for y in (-0.25, 0.15)]
    with pytest.raises(InputError):
        find_subject(frame(*crumbs, table), CONFIG)
    cup = slab(0.09, (-0.1, -0.03), (-0.05, 0.05))
    recall, precision = accuracy(find_subject(frame(*crumbs, cup, table), CONFIG), cup < 0.785)
    assert recall > 0.95
    assert precision > 0.99


@pytest.mark.parametrize("wall", [np.inf, plane((0.0, 0.0, 1.0), 5.8)], ids=["nothing behind", "a wall behind"])
@pytest.mark.parametrize("z", [3.5, 4.0, 4.5])
def test_a_person_lying_on_the_floor_is_found(z, wall):
    down = np.array((0.0, 1.0, 0.35))
    floor = plane(down, 2.0)

    def over(x, z, height):
        return np.array((x, 2.0 - 0.35 * z, z)) - height * down / np.linalg.norm(down)

    legs = [capsule(over(-0.4, z + s, 0.07), over(-1.1, z + 1.5 * s, 0.07), 0.07) for s in (-0.1, 0.1)]
    body = np.minimum.reduce(
        [capsule(over(-0.35, z, 0.12), over(0.3, z, 0.12), 0.12), ball(over(0.5, z, 0.1), 0.1), *legs]
    )
    room = np.minimum(floor, wall)
    recall, precision = accuracy(find_subject(frame(body, room, noise=0.0015), CONFIG), body < room)
    assert recall > 0.7, "its upper side"
    assert precision > 0.98


def test_a_mask_that_reaches_onto_the_wall_is_cut_back_and_a_leg_behind_a_table_stays():
    body = figure()
    body[150:160] = np.inf  # the edge of a table
    edge = np.where((V >= 150) & (V < 160) & (np.abs(U - 160) < 60), 1.8, np.inf)
    scene = frame(body, edge, WALL)
    truth = np.isfinite(body) & (body < WALL)
    wide = truth.copy()
    for shift, axis in ((3, 0), (-3, 0), (3, 1), (-3, 1)):
        wide |= np.roll(truth, shift, axis)
    wide &= ~np.isfinite(edge)
    found = find_subject(dataclasses.replace(scene, mask=wide), CONFIG)
    recall, precision = accuracy(found, truth)
    assert accuracy(wide, truth)[1] < 0.9
    assert recall > 0.99
    assert precision > 0.99


def test_a_mask_whose_subject_is_too_small_is_refused_however_much_wall_it_holds():
    near = np.where((np.abs(U - 160) < 4) & (np.abs(V - 120) < 4), 1.0, np.inf)  # 7 x 7 pixels
    wide = (np.abs(U - 160) < 5) & (np.abs(V - 120) < 5)
    scene = frame(near, plane((0.0, 0.0, 1.0), 3.0), mask=wide)
    assert find_subject(scene, SubjectConfig(minimum_pixels=49)).sum() == 49
    with pytest.raises(InputError, match="only 49 pixels with depth under the mask") as caught:
        find_subject(scene, SubjectConfig(minimum_pixels=50))
    assert caught.value.reason == "no_subject"


def test_planes_stay_where_that_is_asked_for():
    scene = frame(figure(), WALL)
    config = SubjectConfig(remove_plane=False, component_ratio=5.0)
    np.testing.assert_array_equal(find_subject(scene, config), (scene.depth > 0) & (scene.depth <= 6.0))


def test_a_held_cloth_is_a_subject_and_no_wall():
    """Flat, large, with the holder's two hands at its corners; partly out of the picture; waving, and all of it."""
    sheet = np.where((np.abs(U - 160) < 90) & (np.abs(V - 120) < 70), plane((0.1, 0.1, 1.0), 1.2), np.inf)
    hands = np.minimum(ball((-0.42, -0.3, 1.25), 0.06), ball((0.4, -0.3, 1.12), 0.06))
    waves = 1.0 + 0.04 * np.sin(U / 25.0) + 0.02 * np.cos(V / 30.0)
    corner = np.where((U < 250) & (V < 200), plane((0.1, 0.1, 1.0), 1.2), np.inf)
    for scene in (frame(sheet), frame(sheet, hands), frame(corner), frame(sheet * waves), frame(1.2 * waves)):
        np.testing.assert_array_equal(find_subject(scene, CONFIG), scene.depth > 0)


def test_a_box_shown_to_the_camera_keeps_its_face():
    """Two faces of a carton: the front one is a large plane with everything else behind it."""
    front = np.where((np.abs(U - 160) < 60) & (V > 100) & (V < 190), 1.0, np.inf)
    top = np.where((np.abs(U - 160) < 60) & (V > 70) & (V <= 100), 1.0 + (100 - V) * 0.01, np.inf)
    scene = frame(front, top)
    np.testing.assert_array_equal(find_subject(scene, CONFIG), scene.depth > 0)


def test_an_arm_cut_off_by_an_occluder_stays_and_a_bystander_goes():
    body = figure()
    body[:, 180:186] = np.inf  # a gap between the body and the hand
    bystander = figure(x=1.6, z=3.6, arm=False)
    found = find_subject(frame(body, bystander), CONFIG)
    np.testing.assert_array_equal(found, np.isfinite(body))


def test_a_hand_stretched_towards_the_camera_stays_and_something_far_behind_goes():
    """The hand hides its own arm: the two parts are 0.7 m apart in space, but one stands before the other."""
    body = figure(arm=False)
    hand = ball((0.02, -0.2, 1.7), 0.07)
    lamp = ball((0.35, -0.55, 4.2), 0.15)
    scene = frame(body, hand, lamp)
    found = find_subject(scene, CONFIG)
    lit = np.isfinite(lamp) & ~np.isfinite(np.minimum(body, hand))
    np.testing.assert_array_equal(found, (scene.depth > 0) & ~lit)
    assert lit.sum() > 100


def test_legs_behind_the_chest_of_somebody_who_bends_down_stay_and_who_stands_farther_behind_goes():
    """The chest hides the hips: the legs that show below it are 0.6 m behind it."""
    chest = ball((0.0, -0.1, 1.5), 0.22)
    legs = np.minimum(ball((-0.15, 0.3, 2.2), 0.22), ball((0.25, 0.3, 2.2), 0.22))
    far = ball((-0.75, -0.3, 3.6), 0.35)
    touching = np.isfinite(legs) & np.isfinite(chest)
    assert touching.any() and (np.isfinite(far) & np.isfinite(chest)).any()
    scene = frame(chest, legs, far)
    found = find_subject(scene, CONFIG)
    behind = np.isfinite(far) & ~np.isfinite(np.minimum(chest, legs))
    np.testing.assert_array_equal(found, (scene.depth > 0) & ~behind)
    assert behind.sum() > 100


def test_range_region_and_mask_hold():
    scene = frame(figure(), WALL)
    near = find_subject(scene, SubjectConfig(depth_max_m=3.0))
    np.testing.assert_array_equal(near, figure() < 3.0)
    low = find_subject(
        scene, SubjectConfig(depth_max_m=3.0, region_min_m=(-5.0, 0.0, 0.0), region_max_m=(5.0, 5.0, 5.0))
    )
    assert low[130:].sum() > 1000
    assert not low[:119].any()
    mask = U < 160
    masked = find_subject(dataclasses.replace(scene, mask=mask), CONFIG)
    np.testing.assert_array_equal(masked, mask & (scene.depth > 0) & (scene.depth <= 6.0))


@pytest.mark.parametrize(
    ("config", "mask", "named"),
    [
        (SubjectConfig(depth_max_m=1.0), None, "1.0 m of depth"),
        (SubjectConfig(region_min_m=(3.0, 3.0, 0.0)), None, "region box"),
        (SubjectConfig(), np.zeros((240, 320), bool), "mask"),
        (SubjectConfig(minimum_pixels=50_000), None, "50000"),
    ],
)
def test_no_subject_is_an_error_that_says_where_it_went(config, mask, named):
    with pytest.raises(InputError, match=named) as caught:
        find_subject(frame(figure(), mask=mask), config)
    assert caught.value.reason == "no_subject"


def test_equal_input_gives_an_equal_result():
    scene = frame(figure(), FLOOR, WALL, noise=0.0015)
    np.testing.assert_array_equal(find_subject(scene, CONFIG), find_subject(scene, CONFIG))


def recorded_hands() -> list[Path]:
    return sorted(Path(os.environ.get("NR_TRACKING_DATA", "nowhere")).glob("sensor/sr305_hand_*/*.png"))


@pytest.mark.skipif(not recorded_hands(), reason="NR_TRACKING_DATA holds no recorded frames")
def test_a_recorded_person_stays_whole():
    """People before an empty background, chests flat enough for a plane, a hand towards the camera."""
    from skimage.io import imread

    camera = Intrinsics(width=640, height=480, fx=476.007, fy=476.007, cx=313.683, cy=242.755)
    for path in recorded_hands():
        depth = (imread(path) * 0.000125).astype(np.float32)
        found = find_subject(DepthFrame(0, depth, camera), CONFIG)
        assert found.sum() > 0.96 * (depth > 0).sum(), path
