"""Images that show no subject are refused in words that name the mend."""

import dataclasses

import numpy as np
import pytest
from test_subject import CAMERA, CONFIG, FLOOR, U, V, capsule, frame, plane

from nr_tracking.config import SubjectConfig
from nr_tracking.sensing.subject import find_subject
from nr_tracking.types import DepthFrame, InputError

ALONE = {
    "a wall": np.full((240, 320), 3.5),
    "a wall aslant": plane((0.8, 0.1, 0.6), 2.2),
    "a floor": FLOOR,
    "a table from above": plane((0.0, 0.05, 1.0), 1.2),
    "a wall through a lens that is not quite known": 3.0 + 0.1 * ((U - 160) ** 2 + (V - 120) ** 2) / 200**2,
    "a wall in a rolling image": 3.0 + 0.02 * np.sin(V / 40),
}


@pytest.mark.parametrize("noise", [0.0, 0.0008])  # that is 10 mm at 3.5 m
@pytest.mark.parametrize("seen", ALONE.values(), ids=ALONE.keys())
def test_a_wall_or_a_floor_alone_is_no_subject_unless_it_is_meant(seen, noise):
    scene = frame(seen, noise=noise)
    with pytest.raises(InputError) as caught:
        find_subject(scene, CONFIG)
    assert caught.value.reason == "no_subject"
    if noise == 0:
        assert "a mask, or subject.region" in str(caught.value)
    meant = (scene.depth > 0) & (scene.depth <= 6.0)
    found = find_subject(dataclasses.replace(scene, mask=np.ones((240, 320), bool)), CONFIG)
    np.testing.assert_array_equal(found, meant)
    if noise == 0:
        box = SubjectConfig(region_min_m=(-9.0, -9.0, 0.0), region_max_m=(9.0, 9.0, 6.0))
        assert find_subject(scene, box).sum() > 0.6 * meant.sum()
    found = find_subject(scene, SubjectConfig(remove_plane=False))
    assert found.sum() > 0.6 * meant.sum()


def test_a_chest_that_fills_the_picture_from_nearby_is_no_wall():
    """It is as flat as a wall is, by the tolerance of depth."""
    scene = frame(capsule((-0.3, -0.2, 0.55), (0.3, 0.2, 0.55), 0.35))
    np.testing.assert_array_equal(find_subject(scene, CONFIG), scene.depth > 0)


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        (1000.0, "between 1750 and 3500 m (median 2625): is it in millimetres? set depth_unit_m (ros.depth_unit_m)"),
        (1000.0, "or divide by 1000"),
        (1e6, "or divide by 1000000"),
        (1e-3, "between 0.00175 and 0.0035 m (median 0.002625): which unit is it in? set depth_unit_m"),
        (1e-6, "or multiply by 1000000"),
        (4.0, "between 7 and 14 m (median 10.5)"),
    ],
)
def test_depth_in_another_unit_is_told(unit, said):
    depth = np.zeros((240, 320))
    depth[60:180, 100:220] = np.linspace(1.75, 3.5, 120)
    with pytest.raises(InputError, match="only 0 pixels with depth within") as caught:
        find_subject(DepthFrame(0, (depth * unit).astype(np.float32), CAMERA), CONFIG)
    assert caught.value.reason == "no_subject"
    assert said in str(caught.value)
    assert ("unit" in str(caught.value)) == (unit != 4.0)
