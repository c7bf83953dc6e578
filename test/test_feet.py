"""Feet that hang on the root of a glTF character, for inverse kinematics, stay at the ends of stretched legs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from nr_tracking.data.families import _proportions, gltf_files
from nr_tracking.data.gaits import restless
from nr_tracking.data.gltf import GltfCharacter, Track, read_gltf

NAMES = ("armature", "root", "body", "leg", "leg_end", "foot", "toe")
PARENTS = (-1, 0, 1, 2, 3, 1, 5)
PLACES = np.array([[0, 0, 0], [0, 0, 0], [0, 1, 0], [0, 1, 0.2], [0, 0.1, 0.2], [0, 0.1, 0.2], [0, 0, 0.4]])
TIMES = np.array([0.0, 1.0])
ANKLE = np.array([0.0, 0.1, 0.2, 1.0])


def animal() -> GltfCharacter:
    """A body with one leg that swings, and a foot that is animated to follow it."""
    joints = np.array([1, 2, 3, 5, 6])
    bind = np.tile(np.eye(4), (len(joints), 1, 1))
    bind[:, :3, 3] = PLACES[joints]
    still = {"rotation": np.array([0.0, 0, 0, 1]), "scale": np.ones(3)}
    rest = tuple(
        {"translation": place - (PLACES[up] if up >= 0 else 0), **still}
        for place, up in zip(PLACES, PARENTS, strict=True)
    )
    swing = Rotation.from_rotvec([[0, 0, 0], [0.5, 0, 0]])
    ankle = PLACES[3] + swing.apply(PLACES[4] - PLACES[3])
    return GltfCharacter(
        *(np.zeros((1, 3)), np.zeros((0, 3), int), np.ones((1, 5)) / 5, joints, np.linalg.inv(bind)),
        *(NAMES, PARENTS, rest),
        clips={
            "walk": (
                Track(3, "rotation", TIMES, swing.as_quat(), False),
                Track(5, "translation", TIMES, ankle, False),
            )
        },
    )


@pytest.mark.parametrize("root", [1.0, 1.2])
def test_a_foot_goes_with_the_end_of_a_stretched_leg(root: float) -> None:
    character = animal()
    assert character.feet() == [(3, 2)]
    stretch = np.array([[1, 1, 1], [1, root, 1], [1, 1.1, 0.9], [1, 1.4, 1], [1, 1, 1], [1, 0.8, 1], [1, 1, 1]])
    moved = character.transforms("walk", TIMES, stretch)
    np.testing.assert_allclose(moved[:, 3] @ ANKLE, moved[:, 2] @ ANKLE, atol=1e-12)
    toe = np.append(PLACES[6], 1)
    np.testing.assert_allclose(moved[:, 4] @ toe, moved[:, 3] @ toe, atol=1e-12)


def test_a_foot_goes_with_the_end_of_a_leg_that_is_turned_besides() -> None:
    character = animal()
    np.testing.assert_array_equal(character.limbs(), [False, True, True, False, True])
    turns = restless(np.random.default_rng(1), character.limbs(), TIMES)
    moved, as_animated = character.transforms("walk", TIMES, turns=turns), character.transforms("walk", TIMES)
    np.testing.assert_allclose(moved[:, 3] @ ANKLE, moved[:, 2] @ ANKLE, atol=1e-12)
    np.testing.assert_array_equal(moved[:, 0], as_animated[:, 0])
    assert np.abs(moved[:, 2] - as_animated[:, 2]).max() > 0.02
    for row in (1, 2, 4):
        turned = moved[:, row, :, :3]
        np.testing.assert_allclose(turned @ turned.swapaxes(1, 2), np.tile(np.eye(3), (2, 1, 1)), atol=1e-12)
    still = np.tile(np.eye(3), (2, 5, 1, 1))
    np.testing.assert_allclose(character.transforms("walk", TIMES, turns=still), as_animated, atol=1e-12)


def test_restless_joints_sway_smoothly_about_what_they_hold() -> None:
    limbs, times = np.array([True, False, True]), np.arange(60) / 30
    drawn = [restless(np.random.default_rng(seed), limbs, times) for seed in range(40)]
    angles = np.array([[Rotation.from_matrix(turns[:, joint]).magnitude() for joint in range(3)] for turns in drawn])
    assert (angles[:, 1] == 0).all() and 0.05 < angles[:, [0, 2]].mean() < 0.35 and angles.max() < 1.2
    step = np.abs(np.diff(np.array(drawn), axis=1)).max()
    assert 0.001 < step < 0.1, "from one frame of 30 Hz to the next"


def test_unstretched_feet_stay_where_the_file_has_them() -> None:
    character = animal()
    as_animated = character.transforms("walk", TIMES)
    np.testing.assert_allclose(character.transforms("walk", TIMES, np.ones((7, 3))), as_animated, atol=1e-12)


@pytest.mark.parametrize("folder", ["animals", "people"])
def test_feet_of_real_characters_keep_their_distance_from_the_legs(folder: str) -> None:
    if not gltf_files(folder):
        pytest.skip("needs the data that NR_TRACKING_DATA names")
    found = 0
    for path in gltf_files(folder):
        character = read_gltf(path)
        clip = next(iter(character.clips))
        times = np.linspace(0, character.duration(clip), 3)
        stretched = character.transforms(clip, times, _proportions(character, np.random.default_rng(0), 1.8))
        plain = character.transforms(clip, times)
        for foot, leg in character.feet():
            ankle = np.append(character.bind_places()[foot], 1)
            gaps = [(moved[:, foot] - moved[:, leg]) @ ankle for moved in (plain, stretched)]
            size = np.ptp((plain @ ankle)[..., :3], axis=(0, 1)).max()
            np.testing.assert_allclose(gaps[1], gaps[0], atol=1e-6 * max(size, 1))
            found += 1
    assert found >= 32
