"""What a camera that stands still has learnt of a room: who sits on its furniture, lies on its floor, or has left."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_subject import CAMERA, CONFIG, FLOOR, WALL, accuracy, ball, capsule, figure
from twins import both, needs_loops

from nr_tracking.config import load_config
from nr_tracking.deformation.decoder import DeformationDecoder
from nr_tracking.fields.completion import CompletionNetwork
from nr_tracking.sensing.background import BackgroundModel
from nr_tracking.sensing.following import Sighting, SubjectFollower
from nr_tracking.sensing.subject import find_subject
from nr_tracking.tracking.reconstruction import observe
from nr_tracking.tracking.tracker import Networks, Tracker
from nr_tracking.types import Bool, DepthFrame, Float32, InputError

STEP_NS = 100_000_000
NOBODY = np.full_like(FLOOR, np.inf)
SOFA = np.minimum(capsule((-0.5, 0.55, 2.9), (1.6, 0.55, 2.9), 0.35), capsule((-0.5, 0.2, 3.1), (1.6, 0.2, 3.1), 0.2))
ROOM = np.minimum.reduce((FLOOR, WALL, SOFA))
EMPTY = np.minimum(FLOOR, WALL)


def images(bodies: list[np.ndarray], room: np.ndarray, noise: float = 0.0015) -> list[DepthFrame]:
    """Ten images a second of bodies in a room, with noise that is another one in each."""
    generator = np.random.default_rng(3)
    depths = [np.minimum(body, room) for body in bodies]
    depths = [np.where(depth < 20, depth, 0) for depth in depths]
    depths = [depth + noise * generator.normal(size=depth.shape) * depth**2 for depth in depths]
    return [DepthFrame(index * STEP_NS, depth.astype(np.float32), CAMERA) for index, depth in enumerate(depths)]


def followed(frames: list[DepthFrame], background: BackgroundModel | None, config=CONFIG) -> list[Bool | None]:
    """Masks of the subject, as the tracker goes from one image to the next; None where there is none."""
    seen, masks = None, []
    for scene in frames:
        asked = (None, None)
        if seen is not None:
            asked = seen.place_for(None), seen.known_for(None, scene.stamp_ns)
        try:
            view = observe(scene, config, *asked, background)
        except InputError as error:
            assert error.reason == "no_subject"
            seen = None if seen is None else seen.missed(scene.stamp_ns)
            masks.append(None)
            continue
        another = seen is not None and seen.distance(view.cloud, None, scene.stamp_ns) > seen.reach(scene.stamp_ns)
        seen = Sighting.of(view.cloud, None, scene.stamp_ns, None if another else seen, view.area)
        masks.append(view.mask)
    return masks


def walk(steps: int = 12, z: float = 2.45) -> list[np.ndarray]:
    """A person who walks into the picture from the left."""
    return [figure(x=x, z=z) for x in np.linspace(-1.1, 0.2, steps)]


def test_who_sits_down_on_a_sofa_is_alone_though_the_sofa_was_taken_for_the_subject_at_first():
    """It is larger than a person, and he comes close to it: one image cannot tell them apart."""
    bodies = [*walk(), *[figure(x=0.5, z=2.35)] * 5]
    frames = images(bodies, ROOM)
    last = bodies[-1] < ROOM
    one_by_one, learnt = followed(frames, None)[-1], followed(frames, BackgroundModel())[-1]
    assert accuracy(one_by_one, last)[1] < 0.5, "otherwise this scene tests nothing"
    recall, precision = accuracy(learnt, last)
    assert recall > 0.98
    assert precision > 0.98


@pytest.mark.parametrize(("noise", "least"), [(0.0015, 0.85), (0.004, 0.6)])
def test_who_lies_on_the_floor_is_seen(noise, least):
    """He hardly rises above it, and a noisy camera's floor is as thick as he is."""
    lying = np.minimum(capsule((-0.8, 0.8, 3.6), (0.5, 0.8, 3.4), 0.13), ball((0.75, 0.8, 3.4), 0.1))
    frames = images([*walk(z=3.0), *[lying] * 5], EMPTY, noise)
    mask = followed(frames, BackgroundModel())[-1]
    recall, precision = accuracy(mask, lying < EMPTY)
    assert recall > least
    assert precision > 0.98
    alone = followed(frames, None)[-1]
    assert alone is None or (alone & (lying < EMPTY)).sum() < (mask & (lying < EMPTY)).sum()


def test_when_the_subject_has_left_the_room_is_no_subject():
    frames = images([*[figure(x=x, z=2.45) for x in np.linspace(-0.9, 0.9, 16)], *[NOBODY] * 12], ROOM)
    masks = followed(frames, BackgroundModel())
    left = [0 if mask is None else mask.sum() for mask in masks[-3:]]
    assert max(left) < 0.1 * followed(frames, None)[-1].sum(), "a scrap of the sofa that he hid, not all of it"


@pytest.mark.parametrize("posture", ["horse", "arms up", "lying"])
def test_who_holds_still_is_not_given_up_for_somebody_who_passes(posture):
    """Though it is longer than people are tall, as furniture is."""
    held = {
        "horse": np.minimum(
            capsule((-0.9, 0.0, 3.0), (0.6, 0.0, 3.0), 0.3), capsule((0.6, 0.0, 3.0), (1.0, -0.7, 3), 0.15)
        ),
        "arms up": np.minimum(figure(z=2.8, arm=False), capsule((0.2, -0.4, 2.8), (0.25, -1.1, 2.8), 0.06)),
        "lying": np.minimum(
            capsule((-0.9, 0.6, 2.8), (0.7, 0.6, 2.8), 0.2), capsule((0.7, 0.55, 2.8), (1.2, 0.5, 2.8), 0.07)
        ),
    }[posture]
    passing = [figure(x=x, z=1.9, arm=False) for x in np.linspace(-1.4, -0.5, 10)]
    bodies = [*[held] * 12, *[np.minimum(held, other) for other in passing], *[held] * 8]
    for index, mask in enumerate(followed(images(bodies, EMPTY), BackgroundModel())):
        other = passing[index - 12] if 12 <= index < 22 else NOBODY
        seen = (held < EMPTY) & (held < other)
        assert mask is not None, index
        assert (mask & seen).sum() > 0.8 * seen.sum(), index
        assert (mask & (other < held)).sum() < 0.1 * mask.sum(), index


@pytest.mark.parametrize(("choice", "z"), [("largest", 2.3), ("nearest", 1.8)])
def test_the_tracker_forgets_a_subject_that_has_left_but_not_the_room(choice, z):
    """As the node and the command drive it: for longer than ``lost_s`` nobody is there."""
    config = load_config("test", subject={"choice": choice, "lost_s": 0.5})
    frames = images([*[figure(x=x, z=z) for x in np.linspace(-0.9, 1.2, 18)], *[NOBODY] * 25], ROOM)
    events: list[str] = []
    follower, taken = SubjectFollower(events.append), []
    tracker = Tracker(config, Networks(CompletionNetwork(config.model), DeformationDecoder(config.model)))
    tracker._reconstructor.begin = lambda view, volume: None  # what a subject is made of is not asked here
    tracker._window.push = lambda view: None
    for scene in frames:
        try:
            found, another = follower.choose(scene, config.subject)
            if another:
                tracker.reset(keep_background=True)
            tracker.push(found)
            follower.tracked(scene.stamp_ns, tracker.subject_size_m)
            taken.append(True)
        except InputError as error:
            follower.refused(scene.stamp_ns, error)
            taken.append(False)
    assert all(taken[:18])
    assert not any(taken[-10:]), events


def test_somebody_who_holds_still_stays_whole_and_moves_again():
    body = figure(z=2.6, arm=False)
    frames = images([body] * 40 + [figure(x=0.02 * step, z=2.6, arm=False) for step in range(8)], EMPTY)
    for mask, scene in zip(followed(frames, BackgroundModel())[::6], frames[::6], strict=True):
        plain = followed([scene], None)[0]
        assert (mask & plain).sum() > 0.99 * plain.sum()


def test_a_bystander_who_moves_at_last_is_seen_where_he_has_moved():
    """He was no part of the subject while he stood still, and is not lost for ever when that has left."""
    bystander, gone = figure(x=1.0, z=3.2, arm=False), figure(x=0.3, z=2.8, arm=False)
    subject = [figure(x=x, z=2.2, arm=False) for x in np.linspace(-0.6, -1.6, 10)]
    frames = images([*[np.minimum(body, bystander) for body in subject], *[gone] * 3], EMPTY)
    masks = followed(frames, BackgroundModel())
    recall, precision = accuracy(masks[-1], gone < EMPTY)
    assert recall > 0.95
    assert precision > 0.95


def test_a_camera_that_moves_learns_nothing():
    """Its images alone show that, or its poses do."""
    model = BackgroundModel()
    frames = images([figure(x=0.0)] * 20, EMPTY)
    for index, scene in enumerate(frames):
        turned = np.roll(scene.depth, 4 * index, axis=1)
        change = model.change(replace(scene, depth=turned), CONFIG.plane_distance_m)
        assert change is None or change.background.mean() < 0.5 or index < 10
        model.learn(replace(scene, depth=turned), None, CONFIG.plane_distance_m)
    model.forget()
    for index, scene in enumerate(frames[:12]):
        pose = np.eye(4)
        pose[0, 3] = 0.02 * index
        posed = replace(scene, pose=pose)
        assert model.change(posed, CONFIG.plane_distance_m) is None
        model.learn(posed, None, CONFIG.plane_distance_m)


def test_it_can_be_switched_off():
    frames = images([*walk(), *[figure(x=0.5, z=2.35)] * 3], ROOM)
    off = CONFIG.model_copy(update={"learn_background": False})
    for mask, plain in zip(followed(frames, BackgroundModel(), off), followed(frames, None), strict=True):
        np.testing.assert_array_equal(mask, plain)


def test_the_nearest_one_is_told_from_the_furniture_as_well():
    """Where the follower chooses, it learns: he comes from afar, and sits down on a chair that is as large as he is."""
    nearest, events = CONFIG.model_copy(update={"choice": "nearest"}), []
    chair = np.minimum(
        capsule((0.6, 0.55, 2.9), (1.1, 0.55, 2.9), 0.35), capsule((0.6, 0.1, 3.1), (1.1, 0.1, 3.1), 0.25)
    )
    room = np.minimum(EMPTY, chair)
    bodies = [*walk(), *[figure(x=0.6, z=2.35)] * 5]
    follower, frames = SubjectFollower(events.append), images(bodies, room)
    assert accuracy(followed(frames, None)[-1], bodies[-1] < room)[1] < 0.8, "otherwise this scene tests nothing"
    for scene in frames:
        found, _ = follower.choose(scene, nearest)
        follower.tracked(scene.stamp_ns)
    recall, precision = accuracy(found.mask, bodies[-1] < room)
    assert recall > 0.95
    assert precision > 0.95


def test_what_was_moved_a_little_becomes_known_again():
    """By less than tells two surfaces apart, nearer or farther."""
    for metres in (-0.035, 0.035):
        model, shape = BackgroundModel(), (CAMERA.height, CAMERA.width)
        for index in range(300):
            depth = np.full(shape, 2.0 if index < 30 else 2.0 + metres, np.float32)
            scene = DepthFrame(index * STEP_NS, depth, CAMERA)
            change = model.change(scene, CONFIG.plane_distance_m)
            model.learn(scene, None, CONFIG.plane_distance_m)
        assert change is not None
        assert change.background.all()


def test_what_the_settings_leave_out_is_not_learnt():
    """Somebody beyond ``depth_max_m`` is no background once he is within it."""
    body, model = figure(z=3.5, arm=False), BackgroundModel()
    near = CONFIG.model_copy(update={"depth_max_m": 3.0})
    scenes = images([np.minimum(body, ball((-0.9, 0, 1.5), 0.2))] * 16, FLOOR)
    for index, scene in enumerate(scenes):
        mask = followed([scene], None, near if index < 12 else CONFIG)  # the scene itself is fit for the test
        assert mask[0] is not None
        find_subject(scene, near if index < 12 else CONFIG, background=model)
    found = find_subject(scenes[-1], CONFIG, np.float32((0, 0, 3.5)), background=model)
    assert (found & (body < FLOOR)).sum() > 0.9 * (body < FLOOR).sum()


@needs_loops
@settings(max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), moves=st.booleans())
def test_loops_and_arrays_learn_the_same(seed, moves):
    """Depth that stays, comes, goes and is missing, a subject that wanders."""

    def learnt() -> list[np.ndarray]:
        generator, model, found = np.random.default_rng(seed), BackgroundModel(), []
        surfaces = generator.uniform(0.3, 6.0, (3, 12, 16))
        for index in range(12):
            chosen = generator.choice(3, (12, 16), p=(0.8, 0.15, 0.05))
            depth = np.take_along_axis(surfaces, chosen[None], axis=0)[0] + generator.normal(0, 0.004, (12, 16))
            depth = np.where(generator.random((12, 16)) < 0.1, 0, depth).astype(np.float32)
            scene = DepthFrame(index * STEP_NS, depth, CAMERA)
            change = model.change(scene, 0.015)
            found += [] if change is None else list(change)
            model.learn(scene, generator.random((12, 16)) < 0.2, 0.015, moves=moves)
        return [*found, *(_state(model))]

    compiled, plain = both(learnt)
    assert len(compiled) == len(plain)
    for one, other in zip(compiled, plain, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def _state(model: BackgroundModel) -> tuple[Float32, Float32]:
    return model._depth, model._seconds  # nothing else tells all that was learnt
