import numpy as np
import pytest
from moving_shapes import bend, capsule_distance, figure_distance, mesh_of, rod_distance, rotation, surface_of, unbend
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from nr_tracking.config import RefinementConfig, TracksConfig
from nr_tracking.deformation.patches import build_patches
from nr_tracking.sensing.rigid import Rigid
from nr_tracking.tracking.fitting import Cues
from nr_tracking.tracking.tracks import PersistentTracks
from nr_tracking.tracking.velocities import MotionEstimator
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


def test_both_solvers_follow_a_subject_that_bends():
    rod = surface_of(*mesh_of(rod_distance, CELLS))
    found = {}
    for backend in ("numpy", "torch"):
        tracks = new_tracks(backend=backend)
        start = tracks.start(rod, 0).positions
        for step in range(1, 4):
            bent = mesh_of(lambda points, by=0.5 * step: rod_distance(unbend(points, by)), CELLS)
            found[backend] = tracks.advance(surface_of(*bent), step * STEP_NS).positions
        error = np.linalg.norm(found[backend] - bend(start, 1.5), axis=1).mean()
        assert error < 0.25 * np.linalg.norm(start - bend(start, 1.5), axis=1).mean()


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


def moved_at_once(figure, move, cues=None):
    """How far off the points are, on the mean, after one frame in which everything has moved."""
    vertices, faces = figure
    tracks = new_tracks()
    start = tracks.start(surface_of(vertices, faces), 0).positions
    found = tracks.advance(surface_of(move(vertices).astype(np.float32), faces), STEP_NS, cues).positions
    return np.linalg.norm(found - move(start), axis=1).mean()


def test_a_leap_of_the_whole_body_is_followed(figure):
    leap = np.array([0.2, 0.0, 0.1], np.float32)
    assert moved_at_once(figure, lambda points: points + leap) < 0.3 * VOXEL


def test_the_networks_guess_catches_a_turn_that_is_too_large_otherwise(figure):
    turn, most = rotation([0, 1, 0.2], 1.2), rotation([0, 1, 0.2], 1.1)
    assert moved_at_once(figure, lambda points: points @ turn.T) > 2 * VOXEL
    guess = Cues(guess=lambda points: (points @ most.T).astype(np.float32))
    assert moved_at_once(figure, lambda points: points @ turn.T, guess) < 0.3 * VOXEL


def test_confidence_and_visibility_follow_the_surface(figure):
    vertices, faces = figure
    front = vertices[:, 2] < 0
    surface = surface_of(vertices + np.array([0, 0, 2]), faces)
    seen = type(surface)(surface.vertices, faces, np.where(front, 0.9, 0.3).astype(np.float32), front)
    tracks = new_tracks()
    tracks.start(seen, 0)
    found = tracks.advance(seen, STEP_NS)
    depth = found.positions[:, 2] - 2
    clear = np.abs(depth) > VOXEL
    assert np.array_equal(found.observed[clear], depth[clear] < 0)
    assert found.confidence.min() > 0 and found.confidence.max() <= 1
    doubt = 1 - found.confidence
    assert doubt[clear & found.observed].mean() < 0.6 * doubt[clear & ~found.observed].mean()
    gone = tracks.advance(surface_of(vertices + 3.0, faces), 2 * STEP_NS)
    assert not gone.confidence.any() and not gone.observed.any()
    assert np.isfinite(gone.positions).all()


def without_an_arm(points):
    """The figure without most of its right arm."""
    return np.maximum(figure_distance(points), points[..., 0] - 0.12)


def test_points_die_with_what_they_lie_on_and_are_recognised_when_it_is_back():
    settings = TRACKS.model_copy(update={"patience_s": 0.1, "renew_frames": 4})
    tracks = PersistentTracks(REFINEMENT, settings, first_id=100)
    whole, part = surface_of(*mesh_of(figure_distance, CELLS)), surface_of(*mesh_of(without_an_arm, CELLS))
    first = tracks.start(whole, 0)
    assert np.array_equal(first.ids, 100 + np.arange(800))
    arm = first.positions[:, 0] > 0.20
    for step in range(1, 13):
        found = tracks.advance(part, step * STEP_NS)
    assert not np.isin(first.ids[arm], found.ids).any()
    assert np.isin(first.ids[first.positions[:, 0] < 0.08], found.ids).all()
    for step in range(13, 25):
        found = tracks.advance(whole, step * STEP_NS)
    back = np.isin(first.ids[arm], found.ids)
    assert back.mean() > 0.7
    place = {int(i): p for i, p in zip(found.ids, found.positions, strict=True)}
    now = np.array([place[int(i)] for i in first.ids[arm][back]])
    assert np.linalg.norm(now - first.positions[arm][back], axis=1).mean() < VOXEL


def test_what_stays_away_is_forgotten_and_new_surface_gets_new_points_under_new_ids():
    settings = TRACKS.model_copy(update={"patience_s": 0.1, "memory_s": 0.1, "renew_frames": 4, "birth_ratio": 2.0})
    tracks = PersistentTracks(REFINEMENT, settings)
    whole, part = surface_of(*mesh_of(figure_distance, CELLS)), surface_of(*mesh_of(without_an_arm, CELLS))
    first = tracks.start(part, 0)
    assert first.positions[:, 0].max() < 0.13
    seen = set(first.ids.tolist())
    for step in range(1, 15):
        found = tracks.advance(whole, step * STEP_NS)
    born = ~np.isin(found.ids, first.ids)
    assert born.any() and found.positions[born, 0].min() > 0.08 and found.positions[:, 0].max() > 0.28
    assert len(np.unique(found.ids)) == len(found.ids) and tracks.next_id > found.ids.max()
    assert len(found.ids) <= settings.budget
    # The new points move with the arm that they lie on.
    before = dict(zip(found.ids.tolist(), found.positions, strict=True))
    seen |= set(found.ids.tolist())
    for step in range(15, 20):
        shift = np.array([0.0, 0.006, 0.0]) * (step - 14)
        found = tracks.advance(surface_of(whole.vertices + shift, whole.faces), step * STEP_NS)
    moved = np.array([found.positions[i] - before[j] for i, j in enumerate(found.ids.tolist()) if j in before])
    assert np.linalg.norm(moved - shift, axis=1).mean() < 0.2 * VOXEL
    canonical, _ = tracks.trace(surface_of(whole.vertices + shift, whole.faces))
    assert np.linalg.norm(canonical - whole.vertices, axis=1).mean() < VOXEL
    # Away for longer than they are remembered: forgotten, and their ids are not used again.
    for step in range(20, 45):
        found = tracks.advance(part if step < 33 else whole, step * STEP_NS)
    late = found.ids[found.positions[:, 0] > 0.22]
    assert len(late) and not set(late.tolist()) & seen


def test_new_points_are_as_dense_as_the_old_ones():
    settings = TRACKS.model_copy(update={"patience_s": 0.1, "renew_frames": 2, "birth_ratio": 2.0, "budget": 4000})
    whole = surface_of(*mesh_of(figure_distance, CELLS))
    low = surface_of(*mesh_of(lambda p: np.maximum(figure_distance(p), p[..., 1] + 0.1), CELLS))
    low, whole = (low, whole) if low.vertices[:, 1].max() < 0.05 else (whole, low)
    tracks = PersistentTracks(REFINEMENT, settings)
    first = tracks.start(low, 0)
    for step in range(1, 7):
        found = tracks.advance(whole, step * STEP_NS)
    born = found.positions[~np.isin(found.ids, first.ids)]
    assert born[:, 1].max() > low.vertices[:, 1].max() + 0.1
    spacing = [np.median(cKDTree(points).query(points, k=2)[0][:, 1]) for points in (first.positions, born)]
    assert spacing[1] < 1.6 * spacing[0]


def test_somebody_else_is_followed_afresh_once_nobody_is_left(figure):
    settings = TRACKS.model_copy(update={"patience_s": 0.1, "memory_s": 0.1, "renew_frames": 6})
    tracks, estimator = PersistentTracks(REFINEMENT, settings), MotionEstimator()
    vertices, faces = figure
    first = tracks.start(surface_of(vertices, faces), 0)
    far = surface_of(vertices + np.float32([3.0, 0.0, 0.0]), faces)
    counts = []
    for step in range(1, 12):
        found = tracks.advance(far, step * STEP_NS)
        estimator.observe(found.ids, found.positions, step * STEP_NS, found.velocities)
        counts.append(len(found.ids))
    assert 0 not in counts and counts[-1] == len(first.ids)
    assert not np.isin(found.ids, first.ids).any()
    assert found.positions[:, 0].min() > 2.0 and np.isfinite(estimator.velocities).all()


def test_nodes_are_frames_that_stay_where_they_are_on_the_body(figure):
    vertices, faces = figure
    tracks = new_tracks()
    tracks.start(surface_of(vertices, faces), 0)
    first = tracks.nodes()
    assert len(first.ids) <= REFINEMENT.nodes
    np.testing.assert_array_equal(first.ids, np.arange(len(first.ids)))
    np.testing.assert_allclose(first.rotations, np.tile(np.eye(3), (len(first.ids), 1, 1)))
    for step in range(1, 21):
        turn, shift = rotation([0.2, 1, 0.1], 0.04 * step), np.array([0.01, 0.0, 0.02]) * step
        tracks.advance(surface_of(vertices @ turn.T + shift, faces), step * STEP_NS)
    then = tracks.nodes()
    np.testing.assert_array_equal(then.ids, first.ids)
    assert np.linalg.norm(then.positions - (first.positions @ turn.T + shift), axis=1).mean() < VOXEL
    off = Rotation.from_matrix(then.rotations @ turn.T).magnitude()
    assert np.median(off) < 0.1, "of 0.8 rad"


def test_nodes_of_another_subject_and_nodes_that_come_later_have_ids_of_their_own(figure):
    vertices, faces = figure
    tracks = new_tracks()
    tracks.start(surface_of(vertices, faces), 0)
    before = tracks.nodes()
    tracks.start(surface_of(vertices + 5.0, faces), STEP_NS)
    after = tracks.nodes()
    assert not set(before.ids) & set(after.ids)


def test_a_correction_of_drift_is_shown_at_once_and_is_no_motion(figure):
    tracks, rng = PersistentTracks(REFINEMENT, TRACKS), np.random.default_rng(0)
    for step in range(2):
        (tracks.advance if step else tracks.start)(surface_of(*figure), step * STEP_NS)
    pose, shift, off = tracks._pose, np.zeros(3), []
    for step in range(2, 60):
        if step == 40:
            shift = np.array([0.02, 0.0, 0.0])
            tracks._steadier.corrected(np.broadcast_to(shift, pose.points.shape))
        trembling = shift + 0.002 * rng.normal(size=3)
        landed = pose.points + trembling + 0.002 * rng.normal(size=pose.points.shape)
        shown = tracks._steadier.step(tracks._graph, step * STEP_NS, landed)
        off.append(np.linalg.norm(shown - pose.points - shift, axis=1).mean())
    assert max(off[38:]) < 1.4 * max(off[20:38])


@pytest.mark.parametrize("backend", ["numpy", "torch"])
def test_rotations_stay_rotations_over_many_keyframes(figure, backend):
    """What was found at a keyframe is where the next ones begin: an error of rounding must not double every time."""
    refinement = REFINEMENT.model_copy(update={"backend": backend})
    tracks = PersistentTracks(refinement, TRACKS.model_copy(update={"count": 200, "keyframe_frames": 1}))
    vertices, faces = figure
    first = tracks.start(surface_of(vertices, faces), 0)
    for step in range(1, 45):
        turned = (vertices @ rotation([0, 1, 0], 0.02 * step).T).astype(np.float32)
        found = tracks.advance(surface_of(turned, faces), step * STEP_NS)
    turns = tracks._pose.turns
    assert np.abs(turns @ np.swapaxes(turns, 1, 2) - np.eye(3)).max() < 1e-6
    assert np.isin(first.ids, found.ids).mean() > 0.95


def test_errors_do_not_add_up_over_many_keyframes():
    """Someone who claps and turns, meshed anew each time: two rounds later all is as far off as after the first."""
    tracks = PersistentTracks(REFINEMENT, TRACKS.model_copy(update={"count": 400, "keyframe_frames": 8}))
    generator, errors = np.random.default_rng(0), []
    for step in range(97):
        angle = np.deg2rad(45 - 30 * np.cos(2 * np.pi * step / 16))
        turn = rotation([0, 1, 0], 0.4 * np.sin(2 * np.pi * step / 48))
        offset = generator.uniform(-0.5, 0.5)
        vertices, faces = mesh_of(lambda points, by=angle: clapping_distance(points, by), CELLS, offset=offset)
        surface = surface_of((vertices @ turn.T).astype(np.float32), faces)
        found = (tracks.advance if step else tracks.start)(surface, step * STEP_NS)
        if step == 0:
            first = found
        elif step % 48 == 0:
            assert np.array_equal(found.ids, first.ids)
            errors.append(np.linalg.norm(found.positions - first.positions, axis=1).mean())
    assert errors[0] < 0.15 * VOXEL and errors[1] < 1.5 * errors[0]


def test_patches_keep_their_motion_though_points_are_forgotten_on_the_way():
    """Which point a vertex goes with is found once a surface, and points that are forgotten change their places."""
    settings = TRACKS.model_copy(update={"patience_s": 0.05, "memory_s": 0.0, "renew_frames": 2})
    tracks = PersistentTracks(REFINEMENT, settings)
    whole, part = surface_of(*mesh_of(figure_distance, CELLS)), surface_of(*mesh_of(without_an_arm, CELLS))
    count = len(tracks.start(whole, 0).ids)
    last, forgotten = whole, 0
    for step in range(1, 13):
        shape = whole if step < 4 else part
        tracks.trace(last)
        graph = build_patches(last.vertices, last.faces, 40)
        moved = surface_of(shape.vertices + np.float32([0.0, 0.005, 0.0]) * step, shape.faces)
        found = tracks.advance(moved, step * STEP_NS)
        patches = tracks.patches(last, graph)
        step_of = patches.translations - patches.centres
        body = patches.centres[:, 0] < 0.05
        assert np.abs(step_of[body] - [0.0, 0.005, 0.0]).max() < VOXEL
        last, forgotten = moved, forgotten + (count - len(found.ids))
        count = len(found.ids)
    assert forgotten > 20


def clapping_distance(points, angle):
    """A torso whose two arms swing from its sides to the front, where the hands meet at about 100 degrees."""
    parts = [((0, -0.2, 0), (0, 0.2, 0), 0.07)]
    for side in (-1, 1):
        shoulder = np.array([0.09 * side, 0.15, 0])
        parts.append((shoulder, shoulder + 0.27 * np.array([side * np.cos(angle), 0, -np.sin(angle)]), 0.035))
    return np.min([capsule_distance(points, *part) for part in parts], axis=0)


def test_hands_that_clap_keep_their_own_motion():
    angles = np.deg2rad(np.concatenate((np.arange(0, 104, 6), [102, 102], np.arange(102, -1, -6))))
    tracks = PersistentTracks(REFINEMENT.model_copy(update={"nodes": 60, "samples": 800}), TRACKS)
    touched = 0
    for step, angle in enumerate(angles):
        vertices, faces = mesh_of(lambda points, angle=angle: clapping_distance(points, angle), CELLS)
        surface = surface_of(vertices, faces)
        found = (tracks.advance if step else tracks.start)(surface, step * STEP_NS)
        if step == 0:
            first = found
            hand = np.abs(first.positions[:, 0]) > 0.2
        touched += ((np.abs(vertices[:, 0]) < 0.02) & (vertices[:, 2] < -0.2)).any()
        if step == 17:  # as near as they come: each hand's points are still that hand's
            kept = found.positions[np.isin(found.ids, first.ids[hand])]
            ours = first.positions[np.isin(first.ids, found.ids) & hand]
            assert (np.sign(kept[:, 0]) == np.sign(ours[:, 0])).mean() > 0.9
    assert touched >= 3
    both = np.isin(first.ids[hand], found.ids)
    assert both.mean() > 0.9
    end = found.positions[np.isin(found.ids, first.ids[hand])]
    assert np.linalg.norm(end - first.positions[hand][both], axis=1).mean() < VOXEL


def test_a_camera_that_moves_changes_no_track(figure):
    vertices, faces = figure
    tracks = new_tracks()
    start = tracks.start(surface_of(vertices, faces), 0).positions
    turn, shift = rotation([0, 1, 0.3], 0.5), np.array([0.4, -0.1, 0.2])  # far beyond what matching could bridge
    tracks.moved_camera(Rigid(turn, shift))
    seen = surface_of(vertices @ turn.T + shift, faces)
    found = tracks.advance(seen, STEP_NS)
    assert np.linalg.norm(found.positions - (start @ turn.T + shift), axis=1).mean() < 0.1 * VOXEL
    assert np.abs(found.velocities).max() < 0.5 * VOXEL / 0.0333
    canonical, previous = tracks.trace(seen)
    assert np.linalg.norm(canonical - vertices, axis=1).mean() < 0.5 * VOXEL
    assert np.linalg.norm(previous - seen.vertices, axis=1).mean() < 0.2 * VOXEL


def test_keyframes_look_back_to_the_first_surface_wherever_the_camera_has_gone(figure):
    vertices, faces = figure
    tracks = PersistentTracks(REFINEMENT, TRACKS.model_copy(update={"keyframe_frames": 2}))
    first = tracks.start(surface_of(vertices, faces), 0)
    change, turn, shift = Rigid(rotation([0.1, 1, 0.3], 0.5), np.array([0.1, 0.0, -0.1])), np.eye(3), np.zeros(3)
    for step in range(1, 9):
        tracks.moved_camera(change)
        turn, shift = change.rotation @ turn, change.rotation @ shift + change.translation
        seen = surface_of((vertices @ turn.T + shift).astype(np.float32), faces)
        found = tracks.advance(seen, step * STEP_NS)
        assert np.array_equal(found.ids, first.ids)
        expected = first.positions @ turn.T + shift
        assert np.linalg.norm(found.positions - expected, axis=1).mean() < 0.2 * VOXEL
    canonical, _ = tracks.trace(seen)
    assert np.linalg.norm(canonical - vertices, axis=1).mean() < 0.5 * VOXEL


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


def test_a_refused_frame_of_a_moving_camera_is_not_applied(figure):
    """The camera's motion is told from the last accepted frame: what led to a refused one is no part of it."""
    vertices, faces = figure
    tracks = new_tracks()
    start = tracks.start(surface_of(vertices, faces), 0).positions
    change = Rigid(rotation([0, 1, 0.3], 0.5), np.array([0.4, -0.1, 0.2]))
    flat = surface_of(np.zeros_like(vertices), faces)
    for surface, stamp in ((surface_of(vertices, faces[:0]), STEP_NS), (flat, STEP_NS), (surface_of(*figure), 0)):
        tracks.moved_camera(change)
        with pytest.raises(InputError):
            tracks.advance(surface, stamp)
    tracks.moved_camera(change)
    found = tracks.advance(surface_of(change.points(vertices), faces), STEP_NS)
    assert np.linalg.norm(found.positions - change.points(start), axis=1).mean() < 0.1 * VOXEL


def test_a_camera_that_is_back_after_a_refused_frame_has_not_moved(figure):
    vertices, faces = figure
    tracks = new_tracks()
    start = tracks.start(surface_of(vertices, faces), 0).positions
    tracks.moved_camera(Rigid(rotation([0, 1, 0.3], 0.5), np.array([0.4, -0.1, 0.2])))
    with pytest.raises(InputError):
        tracks.advance(surface_of(vertices, faces[:0]), STEP_NS)
    tracks.moved_camera(None)
    found = tracks.advance(surface_of(vertices, faces), 2 * STEP_NS)
    assert np.linalg.norm(found.positions - start, axis=1).mean() < 0.1 * VOXEL
    assert np.abs(found.velocities).max() < 0.5 * VOXEL / 0.0333


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
