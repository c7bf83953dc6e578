"""Rooms as cameras really see them: floors whose sides furniture hides, walls that scatter, curtains."""

import numpy as np
import pytest
from test_subject import CAMERA, CONFIG, RAYS, U, V, accuracy, ball, figure, frame, plane

from nr_tracking.sensing.subject import find_subject
from nr_tracking.sensing.walls import parts_of_room
from nr_tracking.types import DepthFrame

TILTED_FLOOR = plane((0.0, 0.9, 0.44), 1.95)  # of a camera that looks down at it


def scattered(depth: np.ndarray, metres: float) -> np.ndarray:
    """Depth that is off by so much over patches of 20 pixels, which is no noise of single pixels."""
    patches = np.random.default_rng(4).normal(size=(12, 16))
    return depth + metres * np.kron(patches, np.ones((20, 20)))


def waving(depth: np.ndarray, metres: float) -> np.ndarray:
    """A curtain in place of a wall."""
    return depth + metres * np.sin(RAYS[..., 0] * depth * 9)


def test_a_floor_whose_sides_are_hidden_goes() -> None:
    """Shiny furniture left and right gives no depth: the floor leaves the picture below alone, and a curtain above."""
    body = figure(z=2.3)
    floor, curtain = TILTED_FLOOR, waving(plane((0.0, -0.44, 0.9), 3.6), 0.25)
    room = np.minimum(floor, curtain)
    room[((U < 40) | (U > 280)) & (floor < curtain)] = np.inf
    scene = np.minimum(body, room)
    recall, precision = accuracy(find_subject(frame(scene), CONFIG), body < room)
    assert recall > 0.9
    assert precision > 0.95


def test_a_floor_of_which_little_is_seen_goes() -> None:
    """It covers less than a first support must, but is vast, runs out of the picture, and hides nothing."""
    curtain = waving(plane((0.0, -0.44, 0.9), 2.9), 0.25)
    bodies = np.minimum.reduce((figure(z=2.3), ball((-0.3, 0.5, 1.5), 0.3), ball((0.35, 0.5, 1.5), 0.3)))
    floor, scene = TILTED_FLOOR, np.minimum.reduce((TILTED_FLOOR, curtain, bodies))
    shown = floor == scene
    assert 0.12 < shown.mean() < CONFIG.plane_fraction, "otherwise this scene tests nothing"
    found = find_subject(frame(scene), CONFIG)
    assert (found & shown).sum() < 0.05 * shown.sum()


@pytest.mark.parametrize("metres", [0.04, 0.06, 0.08])
def test_a_wall_that_scatters_goes_where_there_is_a_floor(metres: float) -> None:
    body = figure()
    floor, wall = plane((0.0, 1.0, 0.0), 0.9), scattered(plane((0.2, 0.0, 1.0), 4.0), metres)
    room = np.minimum(floor, wall)
    recall, precision = accuracy(find_subject(frame(np.minimum(body, room)), CONFIG), body < room)
    assert recall > 0.95
    assert precision > 0.97


def test_a_curtain_along_a_wall_is_no_subject() -> None:
    body = figure(x=0.3, z=2.6)
    floor, curtain = plane((0.0, 1.0, 0.0), 0.9), waving(plane((0.0, 0.0, 1.0), 3.9), 0.25)
    room = np.minimum(floor, curtain)
    recall, precision = accuracy(find_subject(frame(np.minimum(body, room)), CONFIG), body < room)
    assert recall > 0.95
    assert precision > 0.97


def test_what_is_no_longer_than_a_person_or_ends_inside_the_picture_is_no_part_of_the_room() -> None:
    shape = (CAMERA.height, CAMERA.width)
    labels = np.zeros(shape, np.int32)
    labels[:120, :200] = 1  # leaves the picture at the top and on the left
    labels[150:200, 60:300] = 2  # ends inside
    part = labels[labels > 0]
    pixels = np.bincount(part, minlength=3)
    window = (slice(0, shape[0]), slice(0, shape[1]))
    for depth, expected in ((5.0, [False, True, False]), (3.0, [False, False, False])):
        cloud = (RAYS * depth)[labels > 0].astype(np.float32)
        np.testing.assert_array_equal(parts_of_room(cloud, part, pixels, labels, window, shape), expected)


def test_a_body_that_fills_the_picture_stays_where_nothing_else_is() -> None:
    """A horse before the camera leaves the picture on two sides, and a wall is all that stands behind it."""
    near = np.where((V > 60) & (V < 200), 2.4 + 0.3 * np.cos((V - 130) / 45.0), np.inf)
    wall = plane((0.0, 0.0, 1.0), 4.0)
    scene: DepthFrame = frame(np.minimum(near, wall))
    recall, precision = accuracy(find_subject(scene, CONFIG), near < wall)
    assert recall > 0.95
    assert precision > 0.95
