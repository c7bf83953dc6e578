"""The tracker as its users meet it: frames in, tracked frames out, faults named, time respected.

The completion network is replaced by true surfaces, so that what is tested is the tracker and not a set of weights;
the networks themselves take part in ``test_end_to_end.py``.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from skimage.measure import marching_cubes

from nr_tracking import DepthFrame, InputError, Intrinsics, Surface, Tracker, load_config
from nr_tracking.data.rendering import rasterize, render_depth
from nr_tracking.deformation.decoder import DeformationDecoder
from nr_tracking.fields.completion import CompletionNetwork
from nr_tracking.tracking.reconstruction import observe
from nr_tracking.tracking.tracker import Networks, load_networks

CAMERA = Intrinsics(160, 120, 150.0, 150.0, 79.5, 59.5)
CONFIG = load_config("test", deformation={"backend": "none"}, tracks={"count": 500}, refinement={"nodes": 40})
OVERLAPPING, IN_STEP = (
    CONFIG.model_copy(update={"window": CONFIG.window.model_copy(update={"overlap": overlap})})
    for overlap in (True, False)
)
STEP_NS = 33_333_333


def body() -> tuple[np.ndarray, np.ndarray]:
    """A lopsided figure of three balls, about 0.6 m tall, closed."""
    axis = np.linspace(-0.5, 0.5, 48)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    balls = [((0, 0.15, 0), 0.14), ((0.03, -0.08, 0.02), 0.17), ((0.16, -0.02, 0.05), 0.07)]
    distance = np.min([np.linalg.norm(grid - centre, axis=-1) - radius for centre, radius in balls], axis=0)
    vertices, faces, _, _ = marching_cubes(distance, 0.0, spacing=(axis[1] - axis[0],) * 3)
    return (vertices - 0.5).astype(np.float32), faces.astype(np.int32)


VERTICES, FACES = body()


def vertices_at(index: int) -> np.ndarray:
    """The figure at a frame: it turns by 1.5 degrees and walks 8 mm a frame."""
    angle = np.deg2rad(1.5 * index)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    return (VERTICES @ turn.T + [0.008 * index, 0.0, 1.5]).astype(np.float32)


def frame_at(index: int, stamp_ns: int | None = None) -> DepthFrame:
    depth, _ = rasterize(torch.from_numpy(vertices_at(index)), torch.from_numpy(FACES).long(), CAMERA)
    return DepthFrame(STEP_NS * (index + 1) if stamp_ns is None else stamp_ns, depth.numpy(), CAMERA)


class TrueSurfaces:
    """Stands in for the reconstructor: answers with the figure itself at the view's stamp."""

    def __init__(self, missing: frozenset[int] = frozenset()) -> None:
        self.missing = missing
        self.windows: list[int] = []

    def window(self, views, volume, new):
        self.windows.append(len(views))

    def complete(self, window, clock):
        """The figure needs no field."""
        return SimpleNamespace(first=None)

    def begin(self, view, volume):
        """Nothing can be begun."""

    def forget(self):
        """Nothing was begun."""

    def surface(self, field, index, view, volume):
        time = round(view.frame.stamp_ns / STEP_NS) - 1
        if time in self.missing:
            raise InputError("no_surface", "nothing there")
        vertices = vertices_at(time)
        count = len(vertices)
        return Surface(vertices, FACES, np.ones(count, np.float32), np.ones(count, np.bool_))


def tracker(config=CONFIG, missing: frozenset[int] = frozenset()) -> Tracker:
    networks = Networks(CompletionNetwork(config.model), DeformationDecoder(config.model))
    made = Tracker(config, networks)
    made._reconstructor = TrueSurfaces(missing)
    return made


def run(made: Tracker, indices) -> list:
    return [result for i in indices for result in made.push(frame_at(i))] + made.flush()


def test_every_frame_comes_out_once_in_order_and_whole():
    results = run(tracker(), range(11))
    assert [r.stamp_ns for r in results] == [STEP_NS * (i + 1) for i in range(11)]
    for result in results:
        vertices, patches = len(result.surface.vertices), result.patches
        assert result.canonical.shape == result.previous.shape == (vertices, 3)
        assert patches.owner.shape == (vertices,) and patches.owner.max() < len(patches.centres)
        assert result.tracks.positions.shape == (500, 3)
        assert {"tsdf", "mesh"} - result.timings.keys() <= {"tsdf"}


def test_tracks_keep_their_ids_and_follow_the_motion():
    results = run(tracker(), range(13))
    first, last = results[0].tracks, results[-1].tracks
    assert (first.ids == last.ids).all()
    angle = np.deg2rad(1.5 * 12)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    true = (first.positions - [0, 0, 1.5]) @ turn.T + [0.008 * 12, 0, 1.5]
    error = np.linalg.norm(last.positions - true, axis=1)
    still = np.linalg.norm(first.positions - true, axis=1)
    assert np.median(error) < 0.1 * np.median(still)
    speed = np.linalg.norm(last.velocities, axis=1) / 30.0
    expected = np.linalg.norm(vertices_at(12) - vertices_at(11), axis=1)
    assert np.median(speed) == pytest.approx(np.median(expected), rel=0.15)


def test_patches_carry_each_surface_onto_the_next():
    results = run(tracker(), range(9))
    assert np.isnan(results[-1].patches.translations).all()
    for i, (result, following) in enumerate(zip(results[1:], results[:-1], strict=True)):
        patches = result.previous_patches
        assert patches is not None and len(patches.centres) == len(following.patches.centres)
        k = patches.owner
        vertices = following.surface.vertices
        offset = (vertices - patches.centres[k])[:, :, None]
        moved = (patches.rotations[k] @ offset)[..., 0] + patches.translations[k]
        error = np.linalg.norm(moved - vertices_at(i + 1), axis=1)
        step = np.linalg.norm(vertices_at(i + 1) - vertices_at(i), axis=1)
        assert np.median(error) < 0.35 * np.median(step)


def test_motion_within_a_window_is_known_at_once():
    results = run(tracker(), range(9))
    known = [bool(np.isfinite(r.patches.translations).all()) for r in results]
    assert known == [True, True, True, True, False, True, True, True, False]


def test_a_body_that_becomes_the_larger_one_is_not_taken_for_the_subject():
    made = tracker()
    seen = []
    made._reconstructor.begin = lambda view, volume: seen.append(view.cloud)
    for index, distance in enumerate((3.0, 1.2)):
        left, right = ((0.28 * side * z, 0.0, z - 1.5) for side, z in ((-1, 1.5), (1, distance)))
        layers = [render_depth(vertices_at(index) + place, FACES, CAMERA) for place in (left, right)]
        made.push(replace(frame_at(index), depth=np.where(layers[0] > 0, *layers)))
    np.testing.assert_allclose(seen[0].mean(axis=0), seen[1].mean(axis=0), atol=0.02)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("aside", "another"), [(0.2, False), (0.9, True)])
def test_a_subject_that_is_elsewhere_at_once_is_another_one_with_ids_of_its_own(aside, another, masked):
    made, told = tracker(), []
    made.on_another = told.append

    def vertices(index: int) -> np.ndarray:
        return VERTICES + np.float32([-0.3 + aside * (index >= 7), 0, 1.5])

    made._reconstructor.surface = lambda field, index, view, volume: Surface(
        vertices(round(view.frame.stamp_ns / STEP_NS) - 1),
        FACES,
        np.ones(len(VERTICES), np.float32),
        np.ones(len(VERTICES), np.bool_),
    )
    given = []
    for index in range(9):
        depth, _ = rasterize(torch.from_numpy(vertices(index)), torch.from_numpy(FACES).long(), CAMERA)
        mask = depth.numpy() > 0 if masked else None
        given.append(made.push(DepthFrame(STEP_NS * (index + 1), depth.numpy(), CAMERA, mask=mask)))
    results = [result for some in given for result in some] + made.flush()
    assert [r.stamp_ns for r in results] == [STEP_NS * (i + 1) for i in range(9)], "no frame is lost"
    assert len(told) == another and all("another subject, 0." in event and "0.03 s before" in event for event in told)
    assert len(given[7]) == (2 if another else 0), "what was begun is finished first"
    assert np.isin(results[-1].tracks.ids, results[0].tracks.ids).any() != another
    assert np.abs(results[7].tracks.positions[:, 0].mean() - vertices(7)[:, 0].mean()) < 0.1


def test_stride_one_gives_a_result_for_each_frame_once_a_window_is_full():
    config = load_config(
        "test", deformation={"backend": "none"}, tracks={"count": 300}, refinement={"nodes": 30}, window={"stride": 1}
    )
    made = tracker(config)
    counts = [len(made.push(frame_at(i))) for i in range(8)]
    assert counts == [0, 0, 0, 0, 5, 1, 1, 1]
    assert made.flush() == []


def test_a_frame_without_a_surface_is_left_out_and_the_rest_goes_on(caplog):
    results = run(tracker(missing=frozenset({3})), range(9))
    assert [round(r.stamp_ns / STEP_NS) - 1 for r in results] == [0, 1, 2, 4, 5, 6, 7, 8]
    assert "no result for stamp 0.133 s: nothing there" in caplog.text
    assert (results[0].tracks.ids == results[-1].tracks.ids).all()


@pytest.mark.parametrize("config", [CONFIG, OVERLAPPING])
def test_an_accepted_frame_without_a_result_is_told_with_its_stamp_and_reason(config):
    made, told, ready = tracker(config, missing=frozenset({3, 8})), [], threading.Semaphore(0)
    made.on_no_result = lambda stamp_ns, error: told.append((stamp_ns, error.reason, threading.current_thread()))
    made.on_ready = ready.release
    results = run(made, range(9))
    here = threading.current_thread()
    assert told == [(4 * STEP_NS, "no_surface", here), (9 * STEP_NS, "no_surface", here)]
    assert len(results) == 7 and made.collect() == []
    made.on_no_result = None
    assert len(run(tracker(config, missing=frozenset({3})), range(9))) == 8, "nobody need listen"


def test_the_network_is_asked_about_the_frames_that_have_surfaces(monkeypatch):
    asked = []

    def motion(source, target, decoder, scale):
        asked.append((source[0].index, target[0].index))
        return SimpleNamespace(carry=lambda points, vertices: points)

    monkeypatch.setattr("nr_tracking.tracking.cues.predict_motion", motion)
    # Without refinement nothing else tells the motion, so the network is asked at every frame.
    config = load_config("test", tracks={"count": 300}, refinement={"nodes": 30, "enabled": False})
    run(tracker(config, missing=frozenset({3})), range(9))
    # Frames of the second window, whose first one is the last of the first window, are counted from 0 again.
    assert asked == [(0, 1), (1, 2), (2, 4), (4, 0), (0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("threads", [1, 2])
def test_live_it_gives_the_same_results_a_window_later_at_most(threads, monkeypatch):
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    expected, live, told = run(tracker(), range(19)), tracker(OVERLAPPING), threading.Semaphore(0)
    live.on_ready = told.release
    results = []
    for i in range(19):
        results += live.push(frame_at(i))
        windows = i // 4  # begun so far, the first with its fifth frame
        assert len(results) >= (0 if windows < 2 else 4 * (windows - 1) + 1)
    for _ in range(17):
        assert told.acquire(timeout=30)
    results += live.collect()
    assert len(results) == 17, "what is finished can be had without another frame"
    results += live.flush()
    assert [r.stamp_ns for r in results] == [r.stamp_ns for r in expected]
    for one, other in zip(results, expected, strict=True):
        np.testing.assert_array_equal(one.tracks.positions, other.tracks.positions)
        np.testing.assert_array_equal(one.patches.translations, other.patches.translations)
    # Forgetting waits for what is under way, and nothing of it comes out afterwards.
    for i in range(19, 24):
        live.push(frame_at(i))
    live.reset()
    assert live.collect() == live.flush() == []
    again = [result for i in range(5) for result in live.push(frame_at(i))] + live.flush()
    assert [r.stamp_ns for r in again] == [r.stamp_ns for r in expected[:5]]
    assert not np.isin(again[0].tracks.ids, expected[0].tracks.ids).any()


def test_without_overlap_live_results_come_with_the_frame_that_completes_their_window():
    live = tracker(IN_STEP)
    live.on_ready = lambda: None
    assert [len(live.push(frame_at(i))) for i in range(9)] == [0, 0, 0, 0, 5, 0, 0, 0, 4]


def test_a_failure_in_a_window_is_told_with_a_later_frame_when_live(monkeypatch):
    live = tracker(OVERLAPPING)
    live.on_ready = lambda: None

    def fails(*_):
        raise InputError("resolution", "the weights are for another network")

    monkeypatch.setattr(TrueSurfaces, "complete", fails)
    with pytest.raises(RuntimeError, match="another network"):
        for i in range(13):
            live.push(frame_at(i))


@pytest.mark.parametrize("fails", ["network", "surface"])
@pytest.mark.parametrize("config", [IN_STEP, OVERLAPPING])
def test_each_frame_of_a_window_that_failed_is_told_of_once_and_a_reset_mends_it(config, fails):
    made, told = tracker(config), []
    made.on_no_result = lambda stamp_ns, error: told.append((stamp_ns // STEP_NS - 1, error.reason))
    made.on_ready = lambda: None
    results = run(made, range(5))
    stand_in = made._reconstructor

    def exhausted(field, index, *_):
        if fails == "surface" and index < 2:  # of the four frames, two have been seen to by then
            return TrueSurfaces.surface(stand_in, field, index, *_)
        raise RuntimeError("out of memory")

    setattr(stand_in, "surface" if fails == "surface" else "complete", exhausted)
    with pytest.raises(RuntimeError, match="out of memory"):
        run(made, range(5, 9))
    results += made.collect()
    assert len(results) == (6 if fails == "surface" else 5)
    assert told == [(index, "failure") for index in range(len(results), 9)]
    made.reset()
    made._reconstructor = TrueSurfaces()
    assert len(run(made, range(9, 14))) == 5 and len(told) == 9 - len(results)


def test_whoever_watches_the_tracks_goes_on_when_the_tracker_starts_anew():
    made, seen = tracker(), []
    made._tracks.watch = seen.append
    results = run(made, range(5))
    made.reset()
    results += run(made, range(5, 10))
    assert len(seen) == len(results) == 10


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (DepthFrame(9 * STEP_NS, np.zeros((120, 160), np.float32), CAMERA), "no_depth"),
        (DepthFrame(9 * STEP_NS, np.full((120, 160), np.nan, np.float32), CAMERA), "no_depth"),
        (DepthFrame(9 * STEP_NS, np.ones((12, 16), np.float32), CAMERA), "wrong_size"),
        (frame_at(4, stamp_ns=5 * STEP_NS), "stamp_repeated"),
        (frame_at(3), "stamp_out_of_order"),
        (replace(frame_at(9), pose=np.eye(4)), "bad_pose"),
    ],
)
def test_a_bad_frame_is_refused_by_name_and_changes_nothing(frame: DepthFrame, reason: str):
    undisturbed, disturbed = tracker(), tracker()
    for i in range(5):
        undisturbed.push(frame_at(i))
        disturbed.push(frame_at(i))
    with pytest.raises(InputError) as raised:
        disturbed.push(frame)
    assert raised.value.reason == reason
    for expected, found in zip(run(undisturbed, range(5, 9)), run(disturbed, range(5, 9)), strict=True):
        np.testing.assert_array_equal(expected.tracks.positions, found.tracks.positions)


def test_a_subject_of_one_pixel_is_refused_alone():
    """No cube can be put around it, and the frames before and after it do not suffer."""
    config = load_config("test", subject={"minimum_pixels": 1})
    depth = np.zeros((120, 160), np.float32)
    depth[60, 80] = 1.0
    with pytest.raises(InputError, match="single point") as raised:
        observe(DepthFrame(STEP_NS, depth, CAMERA), config.subject)
    assert raised.value.reason == "no_subject"


def test_a_recording_that_starts_again_does_so_whatever_its_third_frame_is_like():
    """The third earlier stamp in a row tells; where that frame cannot be used, the one after it starts anew."""
    made = tracker()
    for index in range(8):
        made.push(frame_at(index))
    reasons = []
    for frame in (frame_at(0), frame_at(1), replace(frame_at(2), depth=np.zeros((120, 160), np.float32))):
        with pytest.raises(InputError) as raised:
            made.push(frame)
        reasons.append(raised.value.reason)
    assert reasons == ["stamp_out_of_order", "stamp_out_of_order", "no_depth"]
    made.push(frame_at(3))


def test_depth_and_masks_of_other_types_and_strides_give_the_same_results():
    config = load_config("lite", window={"length": 2, "stride": 1}, tracks={"count": 500}, refinement={"nodes": 40})
    networks = load_networks(config)

    def results(change):
        made = Tracker(config, networks)
        given = [made.push(change(replace(frame_at(i), mask=frame_at(i).depth > 0))) for i in range(2)]
        return [(r.surface.vertices, r.tracks.positions) for some in given for r in some]

    def mirrored(values):  # the same values in memory that runs backwards
        return np.ascontiguousarray(values[::-1])[::-1]

    plain = results(lambda frame: frame)
    assert len(plain) == 2
    for change in (
        lambda frame: replace(frame, depth=frame.depth.astype(np.float64)),
        lambda frame: replace(frame, depth=mirrored(frame.depth), mask=mirrored(frame.mask)),
        lambda frame: replace(frame, mask=frame.mask.astype(np.uint8) * 255),
    ):
        for ours, theirs in zip(results(change), plain, strict=True):
            np.testing.assert_array_equal(ours[0], theirs[0])
            np.testing.assert_array_equal(ours[1], theirs[1])


def test_what_did_not_return_may_be_no_number():
    """The arrays of the caller stay as they are."""
    made, none = tracker(), frame_at(1)
    depth = np.where(none.depth > 0, none.depth, np.float32(np.nan))
    depth[0] = np.inf
    for index in (0, 2, 3):
        if index == 2:
            made.push(replace(none, depth=depth))
        made.push(frame_at(index))
    assert np.isnan(depth).any()
    assert np.isinf(depth[0]).all()


@pytest.mark.parametrize("name", ["base", None])
def test_a_tracker_takes_a_configuration_and_says_how_to_get_one(name):
    with pytest.raises(TypeError, match=r"Tracker\(load_config\(" + (f"'{name}'" if name else r"\)")):
        Tracker(name)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"depth": np.full((120, 160), 1500, np.uint16)}, "multiply integers by their unit"),
        ({"depth": [[1.5] * 160] * 120}, "not list"),
        ({"mask": np.ones((120, 160), np.float32)}, "not float32"),
        ({"stamp_ns": None}, "not None"),
        ({"stamp_ns": 0.5}, "nanoseconds, not 0.5"),
        ({"intrinsics": None}, "Intrinsics of its camera, not None"),
    ],
)
def test_what_is_no_depth_in_metres_or_no_mask_is_refused_by_name(changes, said):
    with pytest.raises(InputError, match=said) as caught:
        tracker().push(replace(frame_at(0), **changes))
    assert caught.value.reason == "wrong_type"


def test_a_clock_that_jumps_back_finishes_what_was_begun_and_starts_anew():
    made = tracker()
    late = 100 * STEP_NS
    begun = [made.push(frame_at(i, stamp_ns=late + i * STEP_NS)) for i in range(3)]
    assert begun == [[], [], []]
    made._reconstructor.surface = lambda field, index, view, volume: Surface(
        VERTICES + np.float32([0, 0, 1.5]), FACES, np.ones(len(VERTICES), np.float32), np.ones(len(VERTICES), np.bool_)
    )
    finished = made.push(frame_at(0, stamp_ns=STEP_NS))
    assert [r.stamp_ns for r in finished] == [late, late + STEP_NS, late + 2 * STEP_NS]
    again = made.flush()
    assert [r.stamp_ns for r in again] == [STEP_NS]
    assert np.isnan(again[0].previous).all()
    assert not set(finished[0].tracks.ids) & set(again[0].tracks.ids)


def test_a_tracker_that_takes_the_place_of_another_uses_none_of_its_ids_again():
    before = tracker()
    used = run(before, range(5))[-1].tracks.ids
    after = tracker()
    after.next_id = before.next_id
    again = run(after, range(5, 10))[0].tracks.ids
    assert again.min() > used.max()
    after.reset()
    assert after.next_id > again.max()


def test_two_runs_are_equal_to_the_bit():
    for first, second in zip(run(tracker(), range(7)), run(tracker(), range(7)), strict=True):
        np.testing.assert_array_equal(first.tracks.positions, second.tracks.positions)
        np.testing.assert_array_equal(first.canonical, second.canonical)


def pose_at(index: int) -> np.ndarray:
    """A camera that turns by 0.8 degrees and moves 10 mm aside a frame: camera -> world."""
    angle = np.deg2rad(0.8 * index)
    pose = np.eye(4)
    pose[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    pose[:3, 3] = [-0.01 * index, 0.0, 0.002 * index]
    return pose


def test_a_moving_camera_is_not_a_moving_subject():
    def seen(index: int) -> np.ndarray:
        pose = pose_at(index)
        return ((VERTICES + np.array([0, 0, 1.5]) - pose[:3, 3]) @ pose[:3, :3]).astype(np.float32)

    def surface(field, index, view, volume):
        vertices = seen(round(view.frame.stamp_ns / STEP_NS) - 1)
        return Surface(vertices, FACES, np.ones(len(vertices), np.float32), np.ones(len(vertices), np.bool_))

    speeds, errors = {}, {}
    for known in (True, False):
        made = tracker()
        made._reconstructor.surface = surface
        results = []
        for index in range(9):
            depth, _ = rasterize(torch.from_numpy(seen(index)), torch.from_numpy(FACES).long(), CAMERA)
            pose = pose_at(index) if known else None
            results += made.push(DepthFrame(STEP_NS * (index + 1), depth.numpy(), CAMERA, pose=pose))
        world = [r.tracks.positions @ pose_at(i)[:3, :3].T + pose_at(i)[:3, 3] for i, r in enumerate(results)]
        errors[known] = np.linalg.norm(world[8] - world[0], axis=1).mean()
        speeds[known] = np.linalg.norm(results[8].tracks.velocities, axis=1).mean()
        for i, (result, before) in enumerate(zip(results[1:], results[:-1], strict=True)):
            patches, k = result.previous_patches, before.patches.owner
            moved = np.einsum("vij,vj->vi", patches.rotations[k], before.surface.vertices - patches.centres[k])
            assert np.linalg.norm(moved + patches.translations[k] - seen(i + 1), axis=1).mean() < 0.004
    assert errors[True] < 0.002 and errors[True] <= errors[False]
    assert speeds[True] < 0.02 and speeds[False] > 0.3


@pytest.mark.parametrize("fault", ["nan", "mirrored", "shape"])
def test_a_pose_that_is_no_pose_is_refused(fault: str):
    pose = np.eye(4)
    if fault == "nan":
        pose[0, 3] = np.nan
    elif fault == "mirrored":
        pose[0, 0] = -1.0
    else:
        pose = np.eye(3)
    frame = frame_at(0)
    with pytest.raises(InputError) as raised:
        tracker().push(DepthFrame(frame.stamp_ns, frame.depth, CAMERA, pose=pose))
    assert raised.value.reason == "bad_pose"
