"""Postures: whole rotations, smooth ways between them, feet above the floor, limbs where their names say."""

import numpy as np
import pytest

from nr_tracking.data import postures as made_up
from nr_tracking.data.motion import JOINTS
from nr_tracking.data.motions import draw_motion
from nr_tracking.data.postures import postures


def bones(motion) -> dict[str, np.ndarray]:
    """Direction (T, 3) of each bone in the world."""
    return {name: motion.rotations[:, i] @ motion.directions[i] for i, name in enumerate(JOINTS)}


@pytest.mark.parametrize("seed", range(8))
def test_a_body_goes_smoothly_from_posture_to_posture(seed: int) -> None:
    motion = postures(np.random.default_rng(seed), 90, 30.0)
    turned = motion.rotations
    assert turned.shape == (90, len(JOINTS), 3, 3) and motion.root.shape == (90, 3)
    np.testing.assert_allclose(turned @ turned.swapaxes(-1, -2), np.broadcast_to(np.eye(3), turned.shape), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(turned), 1, atol=1e-9)
    step = turned[1:] @ turned[:-1].swapaxes(-1, -2)
    angle = np.arccos(np.clip((np.trace(step, axis1=-2, axis2=-1) - 1) / 2, -1, 1))
    assert angle.max() < 1.2 and angle.mean() < 0.15
    assert np.ptp(motion.rotations, axis=0).max() > 0.3  # it does move


def test_the_hips_are_above_the_floor_by_as_much_as_the_legs_reach_down() -> None:
    for seed in range(8):
        motion = postures(np.random.default_rng(seed), 60, 30.0)
        along = bones(motion)
        for side in ("left", "right"):
            knee = motion.root[:, 1] + 0.45 * along[f"{side}_thigh"][:, 1]
            ankle = knee + 0.45 * along[f"{side}_shin"][:, 1]
            assert min(knee.min(), ankle.min()) > 0.05
        assert motion.root[:, 1].min() >= 0.12 and motion.root[:, 1].max() < 1.1


@pytest.mark.parametrize(
    ("arms", "legs", "holds"),
    [
        ("overhead", "standing", lambda b: b["left_forearm"][:, 1].min() > 0.5 and b["left_thigh"][:, 1].max() < -0.5),
        ("crossed", "sitting", lambda b: b["left_forearm"][:, 0].max() < 0 < b["right_forearm"][:, 0].min()),
        ("sideways", "kneeling", lambda b: b["left_shin"][:, 1].min() > -0.75 and b["left_arm"][:, 0].min() > 0.5),
    ],
)
def test_limbs_are_where_their_names_say(arms, legs, holds, monkeypatch) -> None:
    monkeypatch.setattr(made_up, "_ARMS", {arms: made_up._ARMS[arms]})
    monkeypatch.setattr(made_up, "_LEGS", {legs: made_up._LEGS[legs]})
    monkeypatch.setattr(made_up, "_LOOSE", 0.02)
    monkeypatch.setattr(made_up, "_LYING", 0.0)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        upright = {name: made_up._vector(np.zeros(3)) for name in ("hips", "spine", "chest")}
        monkeypatch.setattr(made_up, "_posture", lambda rng, of=made_up._posture, still=upright: of(rng) | still)
        assert holds(bones(postures(rng, 30, 30.0)))


def test_only_training_has_postures() -> None:
    drawn = {split: [draw_motion(np.random.default_rng(seed), None, split, 10, 30.0).name for seed in range(30)]
             for split in ("train", "val", "test")}  # fmt: skip
    assert sum(name.startswith("postures") for name in drawn["train"]) in range(3, 18)
    assert all(name.startswith("dance") for name in drawn["val"] + drawn["test"])
