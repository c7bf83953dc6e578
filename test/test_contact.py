"""Limbs that touch keep their own points: a figure that folds its arms one upon the other, and opens them again."""

import numpy as np
import pytest
from moving_shapes import capsule_distance, mesh_of, rotation, surface_of

from nr_tracking.config import RefinementConfig, TracksConfig
from nr_tracking.tracking.tracks import PersistentTracks

STEP_NS = 33_333_333
RADIUS = 0.03
CLOSE = 0.028  # half of the height between the arms: less than their radius, so they sink into each other
REFINEMENT = RefinementConfig(samples=800, nodes=80)


def arm(side, fold):
    """The two capsules of an arm whose forearm has turned inwards by ``fold`` radians; the left one lies above."""
    shoulder = np.array([0.12 * side, 0.12 - CLOSE * side, 0.0])
    elbow = shoulder + np.array([0.02 * side, 0, -0.16])
    hand = elbow + 0.2 * np.array([side * np.cos(fold), 0, -np.sin(fold)])
    return (shoulder, elbow, RADIUS), (elbow, hand, RADIUS)


def to_arms(points, fold):
    """Distances (2, ...) to the left and the right arm."""
    return np.stack([np.min([capsule_distance(points, *part) for part in arm(side, fold)], axis=0) for side in (-1, 1)])


def figure(fold):
    def distance(points):
        return np.minimum(to_arms(points, fold).min(axis=0), capsule_distance(points, (0, -0.25, 0), (0, 0.2, 0), 0.07))

    return mesh_of(distance, 56)


def test_crossed_arms_keep_their_own_points():
    folds = np.deg2rad(np.concatenate((np.arange(60, 172, 7), [172, 172], np.arange(172, 59, -7))))
    tracks, touching, wrong, kept = PersistentTracks(REFINEMENT, TracksConfig(count=800)), 0, [], []
    for frame, fold in enumerate(folds):
        vertices, faces = figure(fold)
        touching += (np.abs(to_arms(vertices, fold)).max(axis=0) < 0.004).any()
        found = (tracks.advance if frame else tracks.start)(surface_of(vertices, faces), frame * STEP_NS)
        if frame == 0:
            first, distance = found, to_arms(found.positions, fold)
            on_arm, own = distance.min(axis=0) < 0.005, distance.argmin(axis=0)
        _, before, now = np.intersect1d(first.ids, found.ids, return_indices=True)
        before, now = before[on_arm[before]], now[on_arm[before]]
        distance = to_arms(found.positions[now], fold)
        each = np.arange(len(now))
        mine, other = distance[own[before], each], distance[1 - own[before], each]
        # Where the arms touch, a point is near both: it is on the wrong one if it is clearly nearer to that.
        wrong.append(((other < 0.02) & (mine > other + 0.5 * RADIUS)).mean())
        kept.append(len(now) / on_arm.sum())
    assert touching >= 6
    assert max(wrong) < 0.02
    assert min(kept) > 0.9
    end = np.linalg.norm(found.positions[now] - first.positions[before], axis=1)
    assert np.median(end) < 0.015
    assert (end < 0.04).mean() > 0.95


def two_limbs(swing):
    """Two parallel limbs that are one piece, until the right one turns about its upper end."""

    def distance(points):
        left = capsule_distance(points, (-0.045, 0, -0.3), (-0.045, 0, 0.3), 0.05)
        turned = (points - HIP) @ rotation([0, 1, 0], -swing) + HIP
        return np.minimum(left, capsule_distance(turned, HIP - [0, 0, 0.6], HIP, 0.05))

    return surface_of(*mesh_of(distance, 48))


HIP = np.array([0.045, 0, 0.3])


@pytest.mark.parametrize(("limit", "follows"), [(RefinementConfig().rigidity_limit, True), (0.0, False)])
def test_what_was_completed_as_one_piece_comes_apart(limit, follows):
    """Edges that stretch give way; without that, they hold the limb back until its surface is out of reach."""
    refinement = RefinementConfig(samples=600, nodes=60, rigidity_limit=limit)
    tracks = PersistentTracks(refinement, TracksConfig(count=1500))
    first = found = tracks.start(two_limbs(0.0), 0)
    for frame in range(1, 8):
        found = tracks.advance(two_limbs(0.04 * frame), frame * STEP_NS)
    _, before, now = np.intersect1d(first.ids, found.ids, return_indices=True)
    start = first.positions[before]
    goal = (start - HIP) @ rotation([0, 1, 0], -0.04 * 7).T + HIP
    swung = (start[:, 0] > 0.05) & (start[:, 2] < 0)
    error = np.linalg.norm(found.positions[now] - goal, axis=1)[swung].mean()
    assert (error < 0.04) == follows, error
