"""Somebody passes close before or behind the subject, which stays itself, and whole."""

from dataclasses import replace

import numpy as np
import pytest
from test_subject import CONFIG, U, V, capsule, figure, frame

from nr_tracking.sensing.following import Sighting
from nr_tracking.sensing.passers import Bodies, Known
from nr_tracking.tracking.reconstruction import observe

STEP_NS = 100_000_000


def followed(scenes):
    """Masks of the subject in scenes, 0.1 s apart, as the tracker goes from one to the next."""
    seen, masks = None, []
    for index, scene in enumerate(scenes):
        scene, asked = replace(scene, stamp_ns=index * STEP_NS), ()
        if seen is not None:
            asked = seen.place_for(None), seen.known_for(None, scene.stamp_ns)
        view = observe(scene, CONFIG, *asked)
        seen = Sighting.of(view.cloud, None, scene.stamp_ns, seen, view.area)
        masks.append(view.mask)
    return masks


@pytest.mark.parametrize("way", [1, -1], ids=["from the right", "from the left"])
@pytest.mark.parametrize("z", [2.2, 3.7])
def test_whoever_passes_close_by_is_neither_joined_nor_taken_for_the_subject(z, way):
    body = figure(z=3.0, arm=False)
    path = np.linspace(1.5, -1.5, 16) if z > 3 else (*np.linspace(1.5, 0.15, 9), *np.linspace(0.3, 1.5, 6))
    crossing = [
        figure(x=way * x, z=z, arm=False) for x in path
    ]  # in front, it turns before it hides all of the subject
    scenes = [frame(body, noise=0.0005)] + [frame(np.minimum(body, other), noise=0.0005) for other in crossing]
    masks = followed(scenes)[1:]
    for mask, other in zip(masks, crossing, strict=True):
        truth = np.isfinite(body) & (body < other)
        assert (mask & truth).sum() > 0.95 * mask.sum()
        assert (mask & truth).sum() > (0.8 if truth.sum() > 0.3 * np.isfinite(body).sum() else 0.1) * truth.sum()


def test_what_a_person_swings_stays_with_it_and_a_hand_that_comes_out_joins_it():
    body = figure(z=2.5, arm=False)
    scenes = []
    for angle in np.linspace(-1.2, 1.2, 13):
        box = np.where(
            (np.abs(U - 160 - 45 * np.sin(angle)) < 30) & (np.abs(V - 110) < 25), 2.15 - 0.1 * np.cos(angle), np.inf
        )
        scenes.append(frame(np.minimum(body, box)))
    for mask, scene in zip(followed(scenes), scenes, strict=True):
        assert mask.sum() > 0.92 * (scene.depth > 0).sum(), "all, but for the head where the box hides the neck"
    hand = capsule((0.3, -0.4, 2.3), (0.42, -0.4, 2.3), 0.06)
    scenes = [frame(body), frame(np.minimum(body, hand))]
    np.testing.assert_array_equal(followed(scenes)[1], scenes[1].depth > 0)


def test_another_body_that_is_far_larger_is_the_subject_though_one_is_known():
    """Something small was taken for the subject before a person came."""
    cloud = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32) * 0.05 + np.float32((0, 0, 2))
    known, barred = Known(cloud, 0.1, 0.05), np.zeros(3, bool)
    other = cloud + np.float32((1, 0, 0))
    points, part = np.concatenate((cloud, other)), np.repeat(np.int32((1, 2)), 500)
    for pixel, subject in ((2.5e-5, 1), (0.0, None)):
        bodies = Bodies.of(points, part, 2, known, pixel)
        assert bodies.subject(known, barred) == subject
        larger = Bodies(bodies.area * np.array((0, 1, 3)), bodies.within)
        assert larger.subject(known, barred) is None
    assert not bodies.strangers(known, 1, barred).any()
    near = Bodies(np.array((0, 0.05, 0.04)), bodies.within).strangers(known, 1, barred)
    np.testing.assert_array_equal(near, [False, False, True])
