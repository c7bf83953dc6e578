"""A still subject stays still and a moving one is followed, though every surface is guessed anew and trembles."""

import numpy as np
import pytest
from moving_shapes import figure_distance, mesh_of, rotation, surface_of

from nr_tracking.config import RefinementConfig, TracksConfig
from nr_tracking.normals import vertex_normals
from nr_tracking.sensing.rigid import Rigid
from nr_tracking.tracking.tracks import PersistentTracks

STEP_NS = 33_333_333
HEIGHT = 1.75  # metres; the figure stands 2 m from the camera
REFINEMENT = RefinementConfig(samples=600, nodes=100)
TRACKS = TracksConfig(count=1500)


class Trembling:
    """Surfaces of a figure, each meshed on another grid and off by a noise of its own.

    The noise makes plain tracks tremble as completed surfaces of a still person did under a simulated depth camera (4.8
    mm from frame to frame at 2 m): some 4 mm, of which the greater part is alike over a hand's breadth.
    """

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        scale = HEIGHT / 0.75
        self.meshes = []
        for _ in range(8):
            vertices, faces = mesh_of(figure_distance, 56, offset=self.rng.uniform(-0.5, 0.5))
            vertices = vertices.astype(np.float64) * scale + [0.0, 0.0, 2.0]
            self.meshes.append((vertices, faces, vertex_normals(vertices, faces)))

    def __call__(self, shift=0.0, noise=1.0):
        vertices, faces, normals = self.meshes[self.rng.integers(len(self.meshes))]
        waves = self.rng.normal(0, 2 * np.pi / 0.25, (16, 3))
        smooth = np.sin(vertices @ waves.T + self.rng.uniform(0, 2 * np.pi, 16)) @ self.rng.normal(0, 0.004 / 4, 16)
        rough = self.rng.normal(0, 0.002, len(vertices))
        off = (smooth * np.sqrt(2) + rough) * noise
        return surface_of(vertices + off[:, None] * normals + [shift, 0, 0], faces)


def follow(frames, speed=0.0, noise=1.0, **changes):
    """Positions (T, K, 3) of the points that are tracked all the time."""
    tracks = PersistentTracks(REFINEMENT, TRACKS.model_copy(update=changes))
    surfaces, found = Trembling(), []
    for frame in range(frames):
        surface = surfaces(speed * frame, noise)
        found.append((tracks.advance if frame else tracks.start)(surface, frame * STEP_NS))
    ids = found[0].ids
    for one in found:
        ids = np.intersect1d(ids, one.ids)
    assert len(ids) > 0.95 * len(found[0].ids)
    return np.stack([one.positions[np.searchsorted(one.ids, ids)] for one in found]).astype(np.float64)


def steps(positions):
    return np.linalg.norm(np.diff(positions, axis=0), axis=2)


def test_no_motion_in_gives_no_motion_out_over_three_hundred_noisy_frames():
    still = follow(300)
    # The first frames cannot know yet that what they see is noise.
    assert steps(still[10:]).mean() < 0.001
    off = np.linalg.norm(still[10:] - still[10:].mean(axis=0), axis=2)
    assert np.sqrt((off**2).mean()) < 0.002
    drift = np.linalg.norm(still[-30:].mean(axis=0) - still[:30].mean(axis=0), axis=1)
    assert np.median(drift) < 0.003


def test_the_noise_is_such_that_unsteadied_tracks_tremble_by_more():
    assert steps(follow(30, steady=0.0)[10:]).mean() > 0.0035


def test_five_millimetres_a_frame_are_followed_with_the_same_settings():
    moving = follow(60, speed=0.005)
    speed = (moving[-1] - moving[10]) / 49
    assert np.allclose(speed.mean(axis=0), [0.005, 0, 0], atol=0.0005)
    assert np.abs(np.median(speed[:, 0]) - 0.005) < 0.0005
    gone = (moving[-1] - moving[0]).mean(axis=0)
    assert gone[0] == pytest.approx(0.005 * 59, rel=0.1)


def test_a_start_from_rest_is_caught_up_with():
    tracks, surfaces, found = PersistentTracks(REFINEMENT, TRACKS), Trembling(1), []
    for frame, shift in enumerate(np.concatenate((np.zeros(30), 0.02 * np.arange(1, 11)))):
        found.append((tracks.advance if frame else tracks.start)(surfaces(shift), frame * STEP_NS))
    both, before, after = np.intersect1d(found[29].ids, found[-1].ids, return_indices=True)
    gone = found[-1].positions[after] - found[29].positions[before]
    assert len(both) > 0.95 * len(found[0].ids)
    assert np.median(gone[:, 0]) == pytest.approx(0.2, abs=0.01)


def test_a_clean_recording_is_hardly_filtered():
    plain, steady = (follow(20, speed=0.01, noise=0.0, steady=strength) for strength in (0.0, TRACKS.steady))
    assert np.linalg.norm(plain - steady, axis=2).mean() < 0.001


def test_a_moving_camera_carries_the_filter_along():
    tracks, surfaces = PersistentTracks(REFINEMENT, TRACKS), Trembling(2)
    for frame in range(20):
        before = (tracks.advance if frame else tracks.start)(surfaces(), frame * STEP_NS)
    turn, shift = rotation([0, 1, 0.3], 0.4), np.array([0.4, -0.1, 0.2])
    tracks.moved_camera(Rigid(turn, shift))
    seen = surfaces()
    after = tracks.advance(surface_of(seen.vertices @ turn.T + shift, seen.faces), 20 * STEP_NS)
    _, was, now = np.intersect1d(before.ids, after.ids, return_indices=True)
    moved = np.linalg.norm(after.positions[now] - (before.positions[was] @ turn.T + shift), axis=1)
    assert moved.mean() < 0.003
