"""The sensor models: noise of the stated size, losses where they belong, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from nr_tracking.data.sensor import (
    CLEAN,
    NOMINAL_FX,
    SensorModel,
    active_stereo,
    random_sensor,
    structured_light,
    time_of_flight,
)
from nr_tracking.types import Intrinsics

CAMERA = Intrinsics(160, 120, 200.0, 200.0, 79.5, 59.5)
NOISE_ONLY = SensorModel(axial=0.002, correlation=0.0, lateral=0.0, quantum=0.0, edge_loss=0.0, flying=0.0)


def wall(z: float) -> np.ndarray:
    return np.full((120, 160), z, np.float32)


def step() -> np.ndarray:
    depth = wall(2.0)
    depth[30:90, 40:120] = 1.0
    return depth


def test_a_clean_sensor_changes_nothing() -> None:
    np.testing.assert_array_equal(CLEAN(step(), CAMERA, np.random.default_rng(0)), step())


@pytest.mark.parametrize(("power", "ratio"), [(1.0, 3.0), (2.0, 9.0)])
def test_axial_noise_grows_with_the_stated_power_of_depth(power: float, ratio: float) -> None:
    model = SensorModel(**{**vars(NOISE_ONLY), "power": power})
    spread = [float((model(wall(z), CAMERA, np.random.default_rng(1)) - z)[2:-2, 2:-2].std()) for z in (1.0, 3.0)]
    assert spread[0] == pytest.approx(0.002, rel=0.05)
    assert spread[1] / spread[0] == pytest.approx(ratio, rel=0.05)


def test_noise_has_no_bias_and_depends_on_the_seed_alone() -> None:
    noisy = NOISE_ONLY(wall(1.5), CAMERA, np.random.default_rng(5))
    assert abs(float(noisy.mean()) - 1.5) < 2e-4
    np.testing.assert_array_equal(noisy, NOISE_ONLY(wall(1.5), CAMERA, np.random.default_rng(5)))
    assert (noisy != NOISE_ONLY(wall(1.5), CAMERA, np.random.default_rng(6))).any()


def test_disparity_comes_in_steps_that_widen_with_depth() -> None:
    model = SensorModel(**{**vars(CLEAN), "disparity": 0.36, "baseline": 0.06})
    ramp = np.linspace(1.0, 4.0, 160, dtype=np.float32)[None].repeat(120, 0)
    levels = np.unique(model(ramp, CAMERA, np.random.default_rng(0)))
    gaps = np.diff(levels)
    assert len(levels) < 160 and gaps[-1] > 5 * gaps[0]
    shift = NOMINAL_FX * 0.06 / levels  # whatever the image's own pixels
    np.testing.assert_allclose(shift / 0.36, np.rint(shift / 0.36), atol=0.02)


@pytest.mark.parametrize("model", [structured_light(), time_of_flight()])
def test_depth_is_lost_and_flies_at_edges_rather_than_on_faces(model: SensorModel) -> None:
    model = SensorModel(**{**vars(model), "blotches": 0.0, "shadow": False})
    noisy = model(step(), CAMERA, np.random.default_rng(0))
    edge = np.zeros((120, 160), bool)
    edge[27:93, 37:123] = True
    edge[33:87, 43:117] = False
    lost = noisy == 0
    assert lost[edge].mean() > 0.02 and lost[~edge][:].mean() < 0.02
    flying = (noisy > 1.1) & (noisy < 1.9)
    assert not flying[~edge].any()


def test_flying_pixels_float_between_the_two_surfaces() -> None:
    model = SensorModel(**{**vars(CLEAN), "flying": 1.0})
    noisy = model(step(), CAMERA, np.random.default_rng(0))
    between = (noisy > 1.001) & (noisy < 1.999)
    assert between.sum() > 100 and noisy[noisy > 0].min() >= 0.999 and noisy.max() <= 2.001


def test_steep_surfaces_are_lost() -> None:
    model = SensorModel(**{**vars(CLEAN), "steep_degrees": 60.0})
    columns = np.arange(160, dtype=np.float32)
    for degrees, kept in ((45, True), (72, False)):
        ramp = (1.0 + np.tan(np.radians(degrees)) * (columns - 80) / 200)[None].repeat(120, 0).astype(np.float32)
        seen = model(ramp, CAMERA, np.random.default_rng(0)) > 0
        assert seen[:, 75:85].all() if kept else not seen[:, 75:85].any()


def test_the_projector_casts_a_shadow_beside_a_near_surface() -> None:
    model = SensorModel(**{**vars(CLEAN), "shadow": True, "baseline": 0.06})
    dark = model(step(), CAMERA, np.random.default_rng(0)) == 0
    # Disparity 12 pixels on the near surface, 6 on the far one: the shadow is 6 pixels wide, on one side alone.
    assert dark[60].sum() == pytest.approx(6, abs=1) and not dark[10].any()


def test_nothing_comes_from_nothing() -> None:
    empty = np.zeros((12, 16), np.float32)
    for seed in range(3):
        assert not random_sensor(np.random.default_rng(seed))(empty, CAMERA, np.random.default_rng(0)).any()


@pytest.mark.parametrize("model", [structured_light(), time_of_flight()])
def test_a_coarser_image_of_the_same_sensor_loses_no_more_of_the_outline(model: SensorModel) -> None:
    model = SensorModel(**{**vars(model), "blotches": 0.0, "shadow": False})
    shares = []
    for factor in (1.0, 0.75, 0.5):
        camera = Intrinsics(round(400 * factor), round(400 * factor), *[NOMINAL_FX * factor] * 2, *[200 * factor] * 2)
        rows, columns = np.indices((camera.height, camera.width)) / factor
        depth = np.where(np.hypot(rows - 200, columns - 200) < 150, 1.5, 0).astype(np.float32)
        noisy = [model(depth, camera, np.random.default_rng(seed)) for seed in range(5)]
        shares.append(np.mean([(image == 0)[depth > 0].mean() for image in noisy]))
    np.testing.assert_allclose(shares[1:], shares[0], rtol=0.25)


def test_a_slope_in_a_coarser_image_is_no_edge() -> None:
    model = SensorModel(**{**vars(CLEAN), "edge_loss": 1.0})
    for factor in (1.0, 0.25):
        camera = Intrinsics(60, 40, *[NOMINAL_FX * factor] * 2, 29.5, 19.5)
        # 2.4 % of its depth over three pixels of a full image, and as steep in the coarse one.
        depth = 1.5 * np.exp(0.012 / factor * np.arange(60, dtype=np.float32))[None].repeat(40, 0)
        assert (model(depth, camera, np.random.default_rng(0)) > 0).all()


def test_what_is_in_front_grows_unevenly_and_no_further_than_stated() -> None:
    model = SensorModel(**{**vars(CLEAN), "fattening": 6.0})
    grown = np.zeros((120, 160))
    for seed in range(5):
        noisy = model(step(), CAMERA, np.random.default_rng(seed))
        inner = noisy[30:90, 40:120]
        np.testing.assert_array_equal(inner, 1.0)
        assert set(np.unique(noisy)) == {1.0, 2.0}
        grown += noisy == 1.0
    reach = model.reach(CAMERA)
    assert reach == int(np.ceil(6.0 * CAMERA.fx / NOMINAL_FX)) == 3
    outside = np.ones((120, 160), bool)
    outside[30 - reach : 90 + reach, 40 - reach : 120 + reach] = False
    assert not grown[outside].any()
    beside = grown[30:90, 38]
    assert 0 < beside.mean() < 5, "by two pixels here and there"


def test_a_slope_does_not_grow_over_itself() -> None:
    ramp = np.linspace(1.0, 1.6, 160, dtype=np.float32)[None].repeat(120, 0)
    model = SensorModel(**{**vars(CLEAN), "fattening": 6.0})
    np.testing.assert_array_equal(model(ramp, CAMERA, np.random.default_rng(0)), ramp)


def test_active_stereo_is_noisy_and_gives_back_more_of_the_outline_than_it_loses() -> None:
    camera = Intrinsics(400, 400, NOMINAL_FX, NOMINAL_FX, 200.0, 200.0)
    rows, columns = np.indices((400, 400))
    depth = np.where(np.hypot(rows - 200, columns - 200) < 100, 1.5, 0).astype(np.float32)
    model = SensorModel(**{**vars(active_stereo()), "blotches": 0.0, "shadow": False})
    noisy = model(depth, camera, np.random.default_rng(0))
    inner = np.hypot(rows - 200, columns - 200) < 90
    error = (noisy - depth)[inner & (noisy > 0)]
    assert 0.002 < error.std() < 0.02 and abs(error.mean()) < 0.002
    assert 1.0 < (noisy > 0).sum() / (depth > 0).sum() < 1.06
    middle = np.where(noisy > 0, noisy - depth, 0)[150:250, 150:250]
    assert np.corrcoef(middle[:, :-2].ravel(), middle[:, 2:].ravel())[0, 1] > 0.4, "alike over two pixels"
