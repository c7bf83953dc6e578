"""Changes of frame between the places from which a moving camera looks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nr_tracking.types import Float64, InputError

_TOLERANCE = 2e-3  # poses that were rounded to three decimals still pass: their products are off by up to 1.74e-3


@dataclass(frozen=True)
class Rigid:
    """``x -> rotation x + translation``; ``rotation`` (3, 3), ``translation`` (3,) metres."""

    rotation: Float64
    translation: Float64

    def points(self, points: np.ndarray) -> Float64:
        """Points (..., 3) in the other frame."""
        moved: Float64 = points @ self.rotation.T + self.translation
        return moved

    def vectors(self, vectors: np.ndarray) -> Float64:
        """Directions (..., 3) in the other frame."""
        turned: Float64 = vectors @ self.rotation.T
        return turned

    def after(self, first: Rigid) -> Rigid:
        """The composition: ``first`` and then this motion."""
        return Rigid(self.rotation @ first.rotation, self.points(first.translation))

    def inverse(self) -> Rigid:
        """The inverse motion."""
        return Rigid(self.rotation.T, -self.rotation.T @ self.translation)


def check_pose(pose: np.ndarray | None) -> None:
    """Raise :class:`InputError` ("bad_pose") where a camera's pose is no rigid motion (4, 4)."""
    if pose is None:
        return
    try:
        given = np.asarray(pose, np.float64)
    except (TypeError, ValueError):  # rows of different lengths, or words
        given = np.empty(0)
    if given.shape != (4, 4) or not np.isfinite(given).all():
        shown = pose.tolist() if isinstance(pose, np.ndarray) else pose
        raise InputError("bad_pose", f"the camera's pose is {shown}: expected 4 x 4 finite numbers")
    turn = given[:3, :3]
    off = float(np.abs(turn @ turn.T - np.eye(3)).max())
    if off > _TOLERANCE or np.linalg.det(turn) < 0 or np.abs(given[3] - [0, 0, 0, 1]).max() > _TOLERANCE:
        raise InputError(
            "bad_pose",
            f"the camera's pose {np.round(given, 4).tolist()} is not rigid (off by {off:.2g}): "
            "give a rotation and a translation, camera to a fixed frame",
        )


def change_of_view(before: np.ndarray | None, after: np.ndarray | None) -> Rigid | None:
    """From the camera frame of one pose (4, 4) to that of another; None where either is unknown or they are equal."""
    if before is None or after is None or np.array_equal(before, after):
        return None
    return fixed_frame(after).inverse().after(fixed_frame(before))


def fixed_frame(pose: np.ndarray | None) -> Rigid:
    """From the camera frame of a pose (4, 4) to the fixed frame; a camera without a pose is taken to stand there.

    A pose that was rounded turns by the rotation nearest to it, so that the inverse leads back to where points were.
    """
    if pose is None:
        return Rigid(np.eye(3), np.zeros(3))
    given = np.array(pose, np.float64)
    left, _, right = np.linalg.svd(given[:3, :3])
    return Rigid(left @ right, given[:3, 3])
