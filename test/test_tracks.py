import numpy as np
import pytest
from moving_shapes import bend, figure_distance, mesh_of, rod_distance, rotation, surface_of, unbend

from nr_tracking.config import RefinementConfig, TracksConfig
from nr_tracking.deformation.patches import build_patches
from nr_tracking.tracking.tracks import Cues, PersistentTracks
from nr_tracking.types import InputError

CELLS = 40
VOXEL = 1 / CELLS
STEP_NS = 33_333_333
REFINEMENT = RefinementConfig(samples=400, nodes=40, iterations=5)
TRACKS = TracksConfig(count=800)


def new_tracks(**changes):
    return PersistentTracks(REFINEMENT.model_copy(update=changes), TRACKS)


@pytest.fixture(scope="module")
def figure():
    return mesh_of(figure_distance, CELLS)


def test_they_cover_the_first_surface_evenly_under_constant_ids(figure):
    vertices, faces = figure
    tracks = new_tracks()
    first = tracks.start(surface_of(vertices, faces), 0)
    assert first.positions.shape == (800, 3) and first.positions.dtype == np.float32
    assert np.array_equal(first.ids, np.arange(800))
    nearest = np.linalg.norm(first.positions[:, None] - vertices[None], axis=2)
    assert nearest.min(axis=1).max() < VOXEL  # on the surface
    assert nearest.min(axis=0).max() < 2.5 * VOXEL  # all over it
    then = tracks.advance(surface_of(vertices + 0.01, faces), STEP_NS)
    assert np.array_equal(then.ids, first.ids)


def test_a_rigidly_moving_subject_is_followed_within_half_a_voxel_for_a_hundred_windows(figure):
    vertices, faces = figure
    tracks = new_tracks(iterations=3)
    start = tracks.start(surface_of(vertices, faces), 0).positions
    worst = 0.0
    for step in range(1, 101):
        turn = rotation([0.2, 1, 0.1], 0.03 * step)
        shift = 0.3 * np.array([np.sin(0.05 * step), 0.2 * np.sin(0.11 * step), 1 - np.cos(0.05 * step)])
        found = tracks.advance(surface_of(vertices @ turn.T + shift, faces), step * STEP_NS)
        worst = max(worst, np.linalg.norm(found.positions - (start @ turn.T + shift), axis=1).mean())
    assert worst < 0.5 * VOXEL


def test_no_motion_in_gives_no_motion_out_though_the_mesh_differs_each_time():
    tracks = new_tracks()
    found, generator = [], np.random.default_rng(0)
    for step in range(25):
        surface = surface_of(*mesh_of(figure_distance, CELLS, offset=generator.uniform(-0.5, 0.5)))
        found.append((tracks.advance if step else tracks.start)(surface, step * STEP_NS).positions)
    moved = np.linalg.norm(np.stack(found) - found[0], axis=2)
    assert moved[-1].mean() < 0.3 * VOXEL
    assert np.linalg.norm(np.diff(found, axis=0), axis=2).mean() < 0.1 * VOXEL


def test_a_bending_rod_is_followed_though_it_is_meshed_anew_each_time():
    tracks, errors, static = new_tracks(), [], []
    for step in range(17):
        angle = 1.6 * np.sin(0.15 * step)
        mesh = mesh_of(rod_distance, CELLS, warp=lambda points, angle=angle: unbend(points, angle))
        if step == 0:
            start = tracks.start(surface_of(*mesh), 0).positions
            continue
        found = tracks.advance(surface_of(*mesh), step * STEP_NS)
        truth = bend(start.astype(float), angle)
        errors.append(np.linalg.norm(found.positions - truth, axis=1).mean())
        static.append(np.linalg.norm(start - truth, axis=1).mean())
    assert np.mean(errors) < 0.35 * np.mean(static)
    assert np.mean(errors) < 0.4 * VOXEL


def test_velocities_come_from_stamps_also_across_dropped_frames(figure):
    vertices, faces = figure
    speed = np.array([0.3, 0.0, -0.15])
    tracks = new_tracks()
    first = tracks.start(surface_of(vertices, faces), 10**18)
    assert not first.velocities.any()
    for elapsed in (0.04, 0.08, 0.2):
        moved = surface_of(vertices + speed * elapsed, faces)
        found = tracks.advance(moved, 10**18 + int(elapsed * 1e9))
    assert np.allclose(found.velocities.mean(axis=0), speed, atol=0.02)
    assert np.allclose(found.positions.mean(axis=0) - first.positions.mean(axis=0), speed * 0.2, atol=0.1 * VOXEL)


def test_vertices_know_where_they_came_from(figure):
    vertices, faces = figure
    tracks = new_tracks()
    first = surface_of(vertices, faces)
    tracks.start(first, 0)
    canonical, previous = tracks.trace(first)
    assert np.linalg.norm(canonical - vertices, axis=1).mean() < VOXEL
    assert np.isnan(previous).all() and previous.shape == vertices.shape
    one, two = rotation([0, 1, 0], 0.06), rotation([0, 1, 0], 0.12)
    tracks.advance(surface_of(vertices @ one.T, faces), STEP_NS)
    last = surface_of(vertices @ two.T, faces)
    tracks.advance(last, 2 * STEP_NS)
    canonical, previous = tracks.trace(last)
    assert np.linalg.norm(previous - vertices @ one.T, axis=1).mean() < 0.2 * VOXEL
    assert np.linalg.norm(canonical - vertices, axis=1).mean() < VOXEL


def test_patches_of_a_surface_carry_the_motion_of_its_tracks(figure):
    vertices, faces = figure
    tracks, turn, shift = new_tracks(), rotation([0, 1, 0.2], 0.15), np.array([0.01, 0.02, -0.02])
    surface = surface_of(vertices, faces)
    graph = build_patches(vertices, faces, 60)
    tracks.start(surface, 0)
    unknown = tracks.patches(surface, graph)
    assert np.isnan(unknown.rotations).all() and np.isnan(unknown.translations).all()
    tracks.advance(surface_of(vertices @ turn.T + shift, faces), STEP_NS)
    patches = tracks.patches(surface, graph)
    assert patches.rotations.dtype == np.float32 and np.array_equal(patches.owner, graph.owner)
    owner = patches.owner
    moved = np.einsum("vij,vj->vi", patches.rotations[owner], vertices - patches.centres[owner])
    error = np.linalg.norm(moved + patches.translations[owner] - (vertices @ turn.T + shift), axis=1)
    assert error.mean() < 0.25 * VOXEL
    assert np.allclose(np.linalg.det(patches.rotations), 1, atol=1e-5)


def test_the_networks_guess_catches_a_leap(figure):
    vertices, faces = figure
    leap = np.array([0.2, 0.0, 0.1], np.float32)
    target = surface_of(vertices + leap, faces)
    for cues, caught in ((None, False), (Cues(guess=lambda points: points + 0.9 * leap), True)):
        tracks = new_tracks()
        start = tracks.start(surface_of(vertices, faces), 0).positions
        found = tracks.advance(target, STEP_NS, cues).positions
        error = np.linalg.norm(found - start - leap, axis=1).mean()
        assert error < 0.3 * VOXEL if caught else error > 2 * VOXEL


def test_confidence_and_visibility_follow_the_surface(figure):
    vertices, faces = figure
    front = vertices[:, 2] < 0
    surface = surface_of(vertices, faces)
    seen = type(surface)(vertices, faces, np.where(front, 0.9, 0.3).astype(np.float32), front)
    tracks = new_tracks()
    tracks.start(seen, 0)
    found = tracks.advance(seen, STEP_NS)
    clear = np.abs(found.positions[:, 2]) > VOXEL
    assert np.array_equal(found.observed[clear], found.positions[clear, 2] < 0)
    assert found.confidence[clear & found.observed].mean() == pytest.approx(0.9, abs=0.05)
    assert found.confidence[clear & ~found.observed].mean() == pytest.approx(0.3, abs=0.05)
    gone = tracks.advance(surface_of(vertices + 3.0, faces), 2 * STEP_NS)
    assert not gone.confidence.any() and not gone.observed.any()
    assert np.isfinite(gone.positions).all()


def test_frames_that_cannot_be_used_are_refused_and_change_nothing(figure):
    vertices, faces = figure
    tracks = new_tracks()
    tracks.start(surface_of(vertices, faces), 5 * STEP_NS)
    for stamp in (5 * STEP_NS, 4 * STEP_NS):
        with pytest.raises(InputError) as error:
            tracks.advance(surface_of(vertices, faces), stamp)
        assert error.value.reason == "stamp_order"
    with pytest.raises(InputError) as error:
        tracks.advance(surface_of(np.zeros((0, 3)), np.zeros((0, 3), np.int32)), 6 * STEP_NS)
    assert error.value.reason == "no_surface"
    shifted = tracks.advance(surface_of(vertices + 0.01, faces), 6 * STEP_NS)
    assert np.abs(shifted.velocities.mean(0) - 0.01 / 0.033333333).max() < 0.1


def test_nothing_can_be_asked_before_the_first_surface(figure):
    tracks = new_tracks()
    with pytest.raises(RuntimeError, match="call start"):
        tracks.advance(surface_of(*figure), 0)


def test_the_same_input_gives_the_same_tracks(figure):
    vertices, faces = figure
    results = []
    for _ in range(2):
        tracks = new_tracks()
        tracks.start(surface_of(vertices, faces), 0)
        results.append(tracks.advance(surface_of(vertices @ rotation([0, 1, 0], 0.1).T, faces), STEP_NS))
    assert np.array_equal(results[0].positions, results[1].positions)
    assert np.array_equal(results[0].confidence, results[1].confidence)
