"""The cube around the subject: where it is put, and how it follows."""

import numpy as np
import pytest
import torch

from nr_tracking.config import VolumeConfig
from nr_tracking.sensing.volume import Volume, fit_volume, follow
from nr_tracking.types import InputError

CONFIG = VolumeConfig()
EIGHTHS = 8


def front_of_ellipsoid(centre, radii, seed=0, count=5000, seen=0.0):
    """Points on the half of an ellipsoid that faces the camera, which is all a depth camera sees of it.

    With ``seen`` above 0 some of the far half shows too, as the neck and the haunches of a horse do.
    """
    directions = np.random.default_rng(seed).normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions[:, 2] *= np.where(directions[:, 2] > seen, -1, 1)
    return (np.asarray(centre) + directions * radii).astype(np.float32)


def contains(volume: Volume, centre, radii, slack=0.0) -> bool:
    lower, upper = volume.to_box(np.asarray(centre) - radii), volume.to_box(np.asarray(centre) + radii)
    return bool((lower > -0.5 + slack).all() and (upper < 0.5 - slack).all())


@pytest.mark.parametrize("as_array", [lambda p: p, torch.from_numpy])
def test_box_coordinates_span_the_cube_and_return(as_array):
    volume = Volume(centre=np.array([0.5, -1.0, 2.0]), side=2.0)
    corners = as_array(np.array([[-0.5, -2.0, 1.0], [1.5, 0.0, 3.0], [0.5, -1.0, 2.0]], np.float32))
    box = volume.to_box(corners)
    assert box.dtype == corners.dtype
    np.testing.assert_allclose(box, [[-0.5] * 3, [0.5] * 3, [0.0] * 3], atol=1e-7)
    np.testing.assert_allclose(volume.to_metric(box), corners, atol=1e-6)


@pytest.mark.parametrize(
    ("radii", "seen"),
    [((0.4, 0.4, 0.4), 0.0), ((0.3, 0.9, 0.2), 0.0), ((0.4, 0.8, 1.2), 0.54), ((1.2, 0.8, 0.4), 0.0)],
    ids=["ball", "standing person", "horse seen from the front", "horse seen from the side"],
)
def test_the_hidden_back_of_the_subject_lies_inside(radii, seen):
    radii = np.array(radii)
    volume = fit_volume(front_of_ellipsoid((0.1, 0.2, 3.0), radii, seen=seen), CONFIG)
    assert contains(volume, (0.1, 0.2, 3.0), radii, slack=0.02)
    assert volume.side < 1.6 * 2 * radii.max(), "and the cube is not wastefully large"


def test_what_is_assumed_behind_a_long_subject_hardly_makes_voxels_larger():
    points = front_of_ellipsoid((0.1, 0.2, 3.0), (0.3, 0.5, 1.2), seen=0.54)
    seen = float(np.ptp(points[:, 2]))
    volume = fit_volume(points, CONFIG)
    assert volume.side < 1.15 * CONFIG.margin * seen
    # Where there is hardly any margin, what is seen stays inside all the same.
    tight = fit_volume(points, VolumeConfig(margin=1.05, depth_prior=0.5)).to_box(points)
    assert (np.abs(tight) < 0.5).mean() > 0.98


def test_a_few_flying_pixels_do_not_matter():
    points = front_of_ellipsoid((0, 0, 2), (0.3, 0.8, 0.2))
    noisy = np.concatenate((points, [[3.0, -3.0, 5.0]] * 10)).astype(np.float32)
    clean, outliers = fit_volume(points, CONFIG), fit_volume(noisy, CONFIG)
    assert abs(outliers.side / clean.side - 1) < 0.02
    assert np.abs(outliers.centre - clean.centre).max() < 0.02 * clean.side


@pytest.mark.parametrize("points", [np.zeros((0, 3)), np.ones((50, 3))])
def test_nothing_to_fit_is_refused(points):
    with pytest.raises(InputError) as caught:
        fit_volume(points, CONFIG)
    assert caught.value.reason == "no_subject"


def test_the_box_follows_a_walking_subject_in_whole_cells():
    """A person walks three metres across and two towards the camera, with a sway of the body and sensor noise."""
    radii = np.array([0.3, 0.9, 0.2])
    generator = np.random.default_rng(1)
    volume = first = fit_volume(front_of_ellipsoid((-1.5, 0, 4), radii), CONFIG)
    moves = 0
    for step in np.linspace(0, 1, 150):
        centre = np.array([-1.5 + 3 * step + 0.02 * np.sin(40 * step), 0.0, 4 - 2 * step])
        points = front_of_ellipsoid(centre, radii, seed=int(1000 * step)) + generator.normal(0, 0.004, (5000, 3))
        after = follow(volume, points, CONFIG)
        assert after.side == first.side
        cells = (after.centre - volume.centre) / (volume.side / EIGHTHS)
        np.testing.assert_allclose(cells, np.round(cells), atol=1e-9)
        assert (after is volume) == (not np.round(cells).any())
        assert contains(after, centre, radii)
        moves += after is not volume
        volume = after
    cell = first.side / EIGHTHS
    assert moves <= np.ceil(3 / cell) + np.ceil(2 / cell), "it never goes back and forth"


def test_a_subject_that_sways_on_the_spot_keeps_its_box():
    radii = np.array([0.3, 0.9, 0.2])
    volume = fit_volume(front_of_ellipsoid((0, 0, 3), radii), CONFIG)
    # Even where it stands right between two positions of the box.
    half_way = 0.5 * volume.side / EIGHTHS
    volume = follow(volume, front_of_ellipsoid((half_way, 0, 3), radii), CONFIG)
    for step in range(60):
        points = front_of_ellipsoid((half_way + 0.02 * np.sin(step), 0, 3), radii, seed=step)
        assert follow(volume, points, CONFIG) is volume


def test_the_box_grows_with_its_subject_but_waits_before_it_shrinks():
    crouching, standing = np.array([0.4, 0.5, 0.3]), np.array([0.3, 0.9, 0.2])
    low = fit_volume(front_of_ellipsoid((0, 0, 3), crouching), CONFIG)
    tall = follow(low, front_of_ellipsoid((0, -0.4, 3), standing), CONFIG)
    assert tall.side > 1.5 * low.side
    assert contains(tall, (0, -0.4, 3), standing)
    bent = front_of_ellipsoid((0, -0.2, 3), 0.75 * standing)
    assert follow(tall, bent, CONFIG).side == tall.side
    assert follow(tall, 0.4 * bent, CONFIG).side < 0.5 * tall.side
