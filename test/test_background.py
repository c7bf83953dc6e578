"""What a camera that stands still has learnt of a room: who sits on its furniture, lies on its floor, or has left."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_subject import CAMERA, CONFIG, FLOOR, WALL, accuracy, ball, capsule, figure
from twins import both, needs_loops

from nr_tracking.sensing.background import BackgroundModel
from nr_tracking.sensing.following import Sighting, SubjectFollower
from nr_tracking.tracking.reconstruction import observe
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
    depths = [depth + noise * generator.normal(size=depth.shape) * depth**2 for depth in depths]
    return [
        DepthFrame(index * STEP_NS, np.where(depth < 20, depth, 0).astype(np.float32), CAMERA)
        for index, depth in enumerate(depths)
    ]


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


@needs_loops
@settings(max_examples=30, deadline=None)
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
