"""Decoding depth images, camera calibrations, lens distortion and bad input."""

import array
import dataclasses

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nr_tracking.config import SubjectConfig
from nr_tracking.data.sequence import read_sequence, write_sequence
from nr_tracking.evaluation.report import draw_strip
from nr_tracking.sensing.camera import (
    back_project,
    check_frame,
    check_intrinsics,
    decode_depth,
    intrinsics_from_info,
    project,
    rectify,
)
from nr_tracking.sensing.subject import find_subject
from nr_tracking.types import DepthFrame, InputError, Intrinsics

PINHOLE = Intrinsics(width=80, height=60, fx=70.0, fy=68.0, cx=39.0, cy=31.0)
LENSES = {
    "plumb_bob": (0.1, -0.25, 0.001, -0.0005, 0.1),
    "barrel": (-0.28, 0.07, 0.0005, -0.0002, 0.0),
    "rational_polynomial": (2.5, -1.8, 0.0004, -0.0003, 0.4, 2.4, -1.7, 0.35),
    "equidistant": (0.05, -0.01, 0.003, -0.0005),
    "thin prism": (0.1, -0.25, 0.001, -0.0005, 0.1, 0.02, -0.01, 0.005, 0.03, -0.01, -0.02, 0.015),
}
MODELS = {"barrel": "plumb_bob", "thin prism": "rational_polynomial"}


def lens(name: str) -> Intrinsics:
    return dataclasses.replace(PINHOLE, distortion_model=MODELS.get(name, name), distortion=LENSES[name])


def packed(values: np.ndarray, big_endian: bool, padding: int) -> bytes:
    """The rows of an image message: one after another, each followed by padding bytes of rubbish."""
    rows = values.astype(values.dtype.newbyteorder(">" if big_endian else "<"))
    return b"".join(row.tobytes() + b"\xa5" * padding for row in rows)


shapes = st.tuples(st.integers(1, 6), st.integers(1, 7))


@settings(max_examples=60)
@given(hnp.arrays(np.uint16, shapes), st.booleans(), st.integers(0, 5), st.sampled_from(["16UC1", "mono16"]))
def test_integer_depth_survives_the_round_trip(values, big_endian, padding, encoding):
    height, width = values.shape
    data = packed(values, big_endian, padding)
    depth = decode_depth(
        data,
        width=width,
        height=height,
        step=2 * width + padding,
        encoding=encoding,
        big_endian=big_endian,
        unit_m=0.125,
    )
    assert depth.dtype == np.float32
    np.testing.assert_array_equal(depth, values * 0.125)


@settings(max_examples=60)
@given(hnp.arrays(np.float32, shapes, elements=st.floats(width=32)), st.booleans(), st.integers(0, 5))
def test_float_depth_survives_the_round_trip_and_nonsense_becomes_zero(values, big_endian, padding):
    height, width = values.shape
    data = packed(values, big_endian, padding)
    depth = decode_depth(
        data, width=width, height=height, step=4 * width + padding, encoding="32FC1", big_endian=big_endian
    )
    usable = np.isfinite(values) & (values > 0)
    np.testing.assert_array_equal(depth, np.where(usable, values, 0))


@pytest.mark.parametrize("container", [bytes, bytearray, memoryview, lambda b: array.array("B", b)])
def test_every_container_of_message_data_is_read(container):
    values = np.arange(6, dtype=np.uint16).reshape(2, 3)
    depth = decode_depth(
        container(values.tobytes()), width=3, height=2, step=6, encoding="16UC1", big_endian=False, unit_m=1.0
    )
    np.testing.assert_array_equal(depth, values)


@pytest.mark.parametrize(
    ("change", "reason", "named"),
    [
        ({"encoding": "rgb8"}, "unknown_encoding", "'rgb8'"),
        ({"step": 5}, "wrong_step", "5"),
        ({"height": 3}, "wrong_size", "18"),
        ({"width": 0}, "wrong_size", "0 x 2"),
        ({"data": b"\0" * 11}, "wrong_size", "11"),
    ],
)
def test_a_damaged_image_is_refused_with_its_reason(change, reason, named):
    image = {"data": b"\0" * 12, "width": 3, "height": 2, "step": 6, "encoding": "16UC1", "big_endian": False}
    with pytest.raises(InputError, match=named) as caught:
        decode_depth(**(image | change))
    assert caught.value.reason == reason


K = (500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0)


def test_camera_info_without_roi_and_binning():
    k = intrinsics_from_info(640, 480, K, "plumb_bob", [0.0] * 5)
    assert k == Intrinsics(640, 480, 500.0, 510.0, 320.0, 240.0)


def test_roi_and_binning_describe_the_delivered_image():
    k = intrinsics_from_info(640, 480, K, roi=(100, 40, 400, 200), binning=(2, 4))
    assert (k.width, k.height) == (200, 50)
    assert (k.fx, k.fy, k.cx, k.cy) == (250.0, 127.5, 110.0, 50.0)
    # A point is seen by the delivered pixel that its full-resolution pixel went into.
    point = np.array([[0.1, -0.05, 1.0]])
    full = project(point, intrinsics_from_info(640, 480, K, roi=(0, 0, 0, 0), binning=(0, 0)))
    np.testing.assert_allclose(project(point, k), (full - (100, 40)) / (2, 4))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"k": (0.0,) * 9}, "zero_focal_length"),
        ({"k": (float("nan"),) * 9}, "zero_focal_length"),
        ({"k": ()}, "zero_focal_length"),
        ({"width": 0}, "wrong_size"),
        ({"roi": (600, 0, 100, 100)}, "wrong_roi"),
        ({"distortion_model": "thin_prism", "d": [0.1]}, "unknown_distortion"),
        ({"distortion_model": "", "d": [0.1]}, "unknown_distortion"),
        ({"distortion_model": "equidistant", "d": [0.1, 0.1]}, "wrong_distortion"),
        ({"distortion_model": "plumb_bob", "d": [0.1, 0.0, 0.0, 0.0, float("nan")]}, "wrong_distortion"),
    ],
)
def test_a_bad_camera_info_is_refused_with_its_reason(change, reason):
    info = {"width": 640, "height": 480, "k": K, "distortion_model": "plumb_bob", "d": [0.0] * 5}
    with pytest.raises(InputError) as caught:
        intrinsics_from_info(**(info | change))
    assert caught.value.reason == reason


def test_four_plumb_bob_coefficients_leave_out_k3():
    assert intrinsics_from_info(640, 480, K, "plumb_bob", [0.1, 0.2, 0.0, 0.0]).distortion == (0.1, 0.2, 0.0, 0.0, 0.0)


def frame(depth: np.ndarray, intrinsics: Intrinsics = PINHOLE, mask: np.ndarray | None = None) -> DepthFrame:
    return DepthFrame(0, depth.astype(np.float32), intrinsics, mask)


def test_a_good_frame_passes():
    check_frame(frame(np.ones((60, 80)), mask=np.ones((60, 80), bool)))


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (frame(np.zeros((60, 80))), "no_depth"),
        (frame(np.full((60, 80), np.nan)), "no_depth"),
        (frame(np.where(np.eye(60, 80), -1.0, 1.0)), "invalid_depth"),
        (frame(np.where(np.eye(60, 80), np.nan, -1.0)), "no_depth"),
        (frame(np.where(np.eye(60, 80), np.nan, np.linspace(-0.1, 1.0, 80))), "invalid_depth"),
        (frame(np.ones((80, 60))), "wrong_size"),
        (frame(np.ones((60, 80)), mask=np.ones((30, 40), bool)), "wrong_size"),
        (frame(np.ones((60, 80)), dataclasses.replace(PINHOLE, fx=0.0)), "zero_focal_length"),
    ],
)
def test_a_bad_frame_is_refused_with_its_reason(bad, reason):
    with pytest.raises(InputError) as caught:
        check_frame(bad)
    assert caught.value.reason == reason


@pytest.mark.parametrize("none", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_did_not_return(none):
    """Drivers of 32FC1 mark so what did not return; the image itself stays as it was."""
    scene = frame(np.where(np.eye(60, 80), none, 1.0))
    before = scene.depth.copy()
    np.testing.assert_array_equal(check_frame(scene).depth, np.where(np.eye(60, 80), 0, 1))
    np.testing.assert_array_equal(scene.depth, before)
    good = frame(np.eye(60, 80))
    assert check_frame(good) is good


def test_numbers_of_a_lens_may_be_any_sequence():
    given = [0.1, 0, 0, 0, 0]
    expected = Intrinsics(64, 48, 60.0, 60.0, 31.5, 23.5, "plumb_bob", tuple(given))
    depth = np.full((48, 64), 2.0, np.float32)
    for numbers in (given, np.array(given), array.array("d", given)):
        camera = Intrinsics(64, 48, 60.0, 60.0, 31.5, 23.5, "plumb_bob", numbers)
        assert camera == expected and hash(camera) == hash(expected)
        assert np.array_equal(
            rectify(DepthFrame(0, depth, camera)).depth, rectify(DepthFrame(0, depth, expected)).depth
        )


def test_intrinsics_with_an_unknown_lens_are_refused():
    with pytest.raises(InputError, match="fisheye62"):
        check_intrinsics(dataclasses.replace(PINHOLE, distortion_model="fisheye62", distortion=(0.1,)))


def test_back_projection_of_a_pinhole_follows_its_definition():
    depth = np.zeros((60, 80), np.float32)
    depth[20, 70] = 2.0
    points = back_project(depth, PINHOLE)
    np.testing.assert_allclose(points[20, 70], [2 * (70 - 39) / 70, 2 * (20 - 31) / 68, 2.0], rtol=1e-6)
    assert np.count_nonzero(points) == 3


@pytest.mark.parametrize("name", LENSES)
def test_projection_inverts_back_projection(name):
    depth = np.random.default_rng(0).uniform(0.5, 3.0, (60, 80)).astype(np.float32)
    points = back_project(depth, lens(name))
    assert (points[..., 2] > 0).all()
    pixels = project(points.reshape(-1, 3), lens(name)).reshape(60, 80, 2)
    v, u = np.mgrid[:60, :80]
    assert np.abs(pixels - np.stack((u, v), axis=-1)).max() < 0.001


def test_points_behind_the_camera_have_no_pixel():
    assert np.isnan(project(np.array([[0.1, 0.1, -1.0], [0.0, 0.0, 0.0]]), PINHOLE)).all()


def test_equidistant_projection_is_proportional_to_the_angle():
    k = dataclasses.replace(PINHOLE, fy=70.0, distortion_model="equidistant", distortion=(1e-12, 0.0, 0.0, 0.0))
    angles = np.linspace(0.0, 1.3, 14)
    points = np.stack((np.sin(angles), np.zeros(14), np.cos(angles)), axis=1)
    np.testing.assert_allclose(project(points, k)[:, 0], 39.0 + 70.0 * angles, atol=1e-6)


def test_plumb_bob_agrees_with_its_published_formula():
    k1, k2, p1, p2, k3 = LENSES["plumb_bob"]
    x, y = 0.3, -0.2
    r2 = x * x + y * y
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    expected = [
        39.0 + 70.0 * (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)),
        31.0 + 68.0 * (y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y),
    ]
    np.testing.assert_allclose(project(np.array([[x, y, 1.0]]), lens("plumb_bob"))[0], expected)


def test_a_thin_prism_agrees_with_its_published_formula():
    """OpenCV's order of coefficients: k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4."""
    k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = LENSES["thin prism"]
    for x, y in ((0.3, -0.2), (-0.5, 0.1), (0.0, 0.4)):
        r2 = x * x + y * y
        radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
        expected = [
            39.0 + 70.0 * (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) + s1 * r2 + s2 * r2**2),
            31.0 + 68.0 * (y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y + s3 * r2 + s4 * r2**2),
        ]
        np.testing.assert_allclose(project(np.array([[x, y, 1.0]]), lens("thin prism"))[0], expected)


@pytest.mark.parametrize("name", LENSES)
def test_rectified_depth_shows_the_same_points(name):
    """A tilted plane seen through a lens: the rectified image lies on the plane, to within half a pixel of sampling."""
    camera = lens(name)
    rays = back_project(np.ones((60, 80), np.float32), camera)
    normal = np.array([0.2, -0.1, 1.0])
    depth = (1.5 / (rays @ normal)).astype(np.float32)
    original = frame(depth, camera, mask=rays[..., 0] > 0)
    plain = rectify(original)
    assert dataclasses.replace(plain.intrinsics, width=80, height=60, cx=39.0, cy=31.0) == PINHOLE
    margins = plain.intrinsics.cx - 39.0, plain.intrinsics.cy - 31.0
    assert min(margins) >= 0 and all(map(float.is_integer, margins)), "pixels stay where they are, between new ones"
    seen = plain.depth > 0
    assert seen.mean() > 0.6
    points = back_project(plain.depth, plain.intrinsics)[seen]
    assert np.abs(points @ normal - 1.5).max() < 0.02
    assert np.isin(plain.depth[seen], depth).all(), "depth values are taken over, never mixed"
    off_centre = np.abs(points[:, 0] / points[:, 2]) > 1.0 / 70.0
    np.testing.assert_array_equal(plain.mask[seen][off_centre], (points[:, 0] > 0)[off_centre])


AZURE = (7.70, 5.20, -3.6e-5, -2.1e-5, 0.284, 8.03, 7.66, 1.51)
WIDE = {
    "barrel": Intrinsics(160, 120, 125.0, 123.0, 78.0, 64.0, "plumb_bob", (-0.28, 0.07, 0.0005, -0.0002, 0.0)),
    "narrow rational": Intrinsics(160, 144, 126.0, 126.0, 80.0, 82.0, "rational_polynomial", AZURE),
    "wide rational": Intrinsics(128, 128, 63.0, 63.0, 64.0, 62.0, "rational_polynomial", AZURE),
    "fisheye": Intrinsics(160, 120, 50.0, 50.0, 80.0, 60.0, "equidistant", (0.01, 0.0, 0.0, 0.0)),
    "folding": Intrinsics(160, 120, 120.0, 120.0, 79.5, 59.5, "plumb_bob", (-0.3, 0.0, 0.0, 0.0, 0.0)),
    "pincushion": Intrinsics(160, 120, 125.0, 125.0, 80.0, 60.0, "plumb_bob", (0.2, 0.05, 0.0, 0.0, 0.0)),
}


def rays_of(camera: Intrinsics) -> np.ndarray:
    return back_project(np.ones((camera.height, camera.width), np.float32), camera).astype(np.float64)


def nearest_pixels(points: np.ndarray, camera: Intrinsics) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns and rows of points (N, 3), and which of them are in the image."""
    column, row = np.floor(project(points, camera) + 0.5).T
    inside = (column >= 0) & (column < camera.width) & (row >= 0) & (row < camera.height)
    return np.where(inside, column, 0).astype(int), np.where(inside, row, 0).astype(int), inside


@pytest.mark.parametrize("name", WIDE)
def test_rectified_images_keep_what_a_wide_lens_sees(name):
    camera = WIDE[name]
    rays = rays_of(camera)
    within = (rays[..., 2] > 0) & (np.abs(rays[..., :2]) < np.tan(np.radians(60))).all(axis=-1)
    plain = rectify(frame(within, camera))
    column, row, inside = nearest_pixels(rays[within], plain.intrinsics)
    assert (inside & (plain.depth[row, column] > 0)).mean() >= 0.98
    assert plain.intrinsics.width >= camera.width and plain.intrinsics.height >= camera.height
    assert plain.depth.shape == (plain.intrinsics.height, plain.intrinsics.width)
    assert plain.depth.size <= 4 * within.size


@pytest.mark.parametrize("name", WIDE)
def test_rectified_points_lie_on_what_a_wide_lens_saw(name):
    """On a tilted plane, up to the part of it that an original pixel shows; the mask goes with them."""
    camera, normal = WIDE[name], np.array([0.15, -0.1, 1.0])
    rays = rays_of(camera)
    known = rays[..., 2] > 0
    depth = np.where(known & (rays @ normal > 0.1), 1.5 / np.maximum(rays @ normal, 0.1), 0).astype(np.float32)
    original = frame(depth, camera, mask=(rays[..., 0] > 0.2) & (depth > 0))
    plain = rectify(original)
    seen = plain.depth > 0
    points = back_project(plain.depth, plain.intrinsics)[seen].astype(np.float64)
    column, row, inside = nearest_pixels(points, camera)
    assert inside.all()
    np.testing.assert_array_equal(plain.depth[seen], depth[row, column])
    np.testing.assert_array_equal(plain.mask[seen], original.mask[row, column])
    assert not plain.mask[~seen].any()
    known[[0, -1]] = known[:, [0, -1]] = False
    for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1)):  # whose neighbours tell how far apart rays are
        known &= np.roll(rays[..., 2] > 0, (down, right), (0, 1))
    apart = sum(np.linalg.norm(np.gradient(rays, axis=axis), axis=-1) for axis in (0, 1))[row, column]
    judged = known[row, column]
    assert judged.mean() > 0.9
    off = np.abs(points @ normal - 1.5)[judged]
    assert (off <= 0.7 * (apart * points[:, 2])[judged] * np.linalg.norm(normal)).all()


def test_a_ball_beyond_the_border_of_a_pinhole_is_kept():
    """At 38 degrees, where a pinhole camera of the same matrix ends at 32; all its points are on its surface."""
    camera = WIDE["narrow rational"]
    rays, centre, radius = rays_of(camera), np.array([1.02, 0.0, 1.3]), 0.25
    middle, square = rays @ centre, (rays**2).sum(axis=-1)
    inside = middle**2 - square * (centre @ centre - radius**2)
    depth = np.where(inside > 0, (middle - np.sqrt(np.maximum(inside, 0))) / square, 0)
    plain = rectify(frame(depth, camera, mask=depth > 0))
    points = back_project(plain.depth, plain.intrinsics)[plain.mask]
    assert len(points) >= np.count_nonzero(depth) > 100
    np.testing.assert_allclose(np.linalg.norm(points - centre, axis=1), radius, atol=1.3 / 126.0)


def test_far_rays_of_a_lens_that_folds_back_stay_empty_in_the_margins():
    camera = WIDE["folding"]
    plain = rectify(frame(np.ones((120, 160)), camera))
    k, turning = plain.intrinsics, np.sqrt(1 / 0.9)  # where r (1 - 0.3 r^2) is greatest
    assert k.width > 180
    v, u = np.mgrid[: k.height, : k.width]
    radius = np.hypot((u - k.cx) / k.fx, (v - k.cy) / k.fy)
    assert radius.max() > turning
    assert not plain.depth[radius > turning].any()


def test_rectified_images_do_not_grow_without_bounds():
    """A strip at the border of a fisheye: what it sees is 2.5 times as far off the axis for a pinhole."""
    info = {"k": (200.0, 0.0, 320.0, 0.0, 200.0, 240.0, 0.0, 0.0, 1.0), "d": [0.01, 0.0, 0.0, 0.0]}
    strip = intrinsics_from_info(640, 480, distortion_model="equidistant", roi=(490, 0, 40, 480), **info)
    plain = rectify(frame(np.ones((480, 40)), strip))
    assert 3.5 * 480 * 40 < plain.depth.size <= 4 * 480 * 40
    assert np.count_nonzero(plain.depth) > 480 * 40


def test_a_lens_without_any_inverse_leaves_the_image_as_large_as_it_is():
    """Coefficients as of a calibration that failed: nowhere one-to-one, or nowhere within the image."""
    for coefficients in ((-1e9, 0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 50.0, 50.0, 0.0)):
        camera = dataclasses.replace(PINHOLE, distortion_model="plumb_bob", distortion=coefficients)
        plain = rectify(frame(np.ones((60, 80)), camera))
        assert plain.intrinsics == PINHOLE
        assert np.count_nonzero(plain.depth) < 100


def test_a_floor_seen_through_a_barrel_lens_still_reaches_the_border():
    """The corners of such an image are drawn out; cameras measure nothing there, and a wall is no subject."""
    camera = WIDE["narrow rational"]
    rays = rays_of(camera)
    v, u = np.mgrid[: camera.height, : camera.width]
    corner = np.minimum(u, camera.width - 1 - u) / camera.width + np.minimum(v, camera.height - 1 - v) / camera.height
    depth = np.minimum(3.0, 1.0 / np.maximum(rays[..., 1], 0.01))
    thing = (np.abs(rays[..., 0]) < 0.2) & (np.abs(rays[..., 1] - 0.1) < 0.2)
    depth[thing] = 1.5 - 0.3 * np.cos(6 * rays[..., 0][thing])
    depth[corner < 0.25] = 0
    original = frame(depth, camera)
    expected = rectify(dataclasses.replace(original, mask=thing & (depth > 0))).mask
    found = find_subject(rectify(original), SubjectConfig())
    assert (found & expected).sum() > 0.95 * (found | expected).sum()


def test_pictures_of_a_report_show_a_surface_where_it_was_measured():
    """The depth image in its first row, without its lens, and the surface below it have one outline."""
    camera, shape = WIDE["wide rational"], trimesh.creation.icosphere(subdivisions=3, radius=0.25)
    centre = np.array([-0.9, 0.3, 1.2])
    rays = rays_of(camera)
    middle, square = rays @ centre, np.maximum((rays**2).sum(axis=-1), 1e-9)
    inside = middle**2 - square * (centre @ centre - 0.25**2)
    depth = np.where((inside > 0) & (middle > 0), (middle - np.sqrt(np.maximum(inside, 0))) / square, 0)
    vertices = (shape.vertices + centre).astype(np.float32)
    colours = np.tile(np.uint8([200, 40, 40]), (len(vertices), 1))
    strip = draw_strip({0: (vertices, shape.faces.astype(np.int32), colours)}, {0: frame(depth, camera)}, None, 80)
    tile = (len(strip) - 3 * 4) // 4
    measured, drawn = strip[:tile], strip[tile + 4 : 2 * tile + 4]
    measured, drawn = (np.ptp(picture.astype(int), axis=-1) > 40 for picture in (measured, drawn))
    assert (measured & drawn).sum() > 0.85 * (measured | drawn).sum()


def test_a_frame_without_distortion_is_passed_through():
    original = frame(np.ones((60, 80)))
    assert rectify(original) is original


def test_a_lens_is_not_used_beyond_where_it_folds_back():
    """A barrel polynomial bends far rays back into the image; such pixels must stay empty rather than repeat it."""
    wide = Intrinsics(80, 60, 20.0, 20.0, 39.5, 29.5, "plumb_bob", (-0.3, 0.0, 0.0, 0.0, 0.0))
    turning = np.sqrt(1 / 0.9)  # where r (1 - 0.3 r^2) is greatest
    plain = rectify(frame(np.ones((60, 80)), wide))
    v, u = np.mgrid[:60, :80]
    radius = np.hypot(u - 39.5, v - 29.5) / 20.0
    assert not plain.depth[radius > turning + 0.01].any()
    assert plain.depth[radius < turning - 0.01].all()
    points = back_project(np.ones((60, 80), np.float32), wide)
    furthest = turning * (1 - 0.3 * turning**2)
    assert not points[radius > furthest + 0.01].any()
    assert points[radius < furthest - 0.01][:, 2].all()


def test_eight_plumb_bob_coefficients_are_the_rational_model():
    """As drivers of Orbbec send them; where those beyond the fifth are zero, both models are one."""
    d = [0.1, -0.05, 0.001, 0.002, 0.01, 0.12, -0.03, 0.004]
    rational = intrinsics_from_info(640, 480, K, "rational_polynomial", d)
    assert intrinsics_from_info(640, 480, K, "plumb_bob", d) == rational
    assert intrinsics_from_info(640, 480, K, "plumb_bob", [*d[:5], 0, 0, 0]).distortion_model == "plumb_bob"


def test_twelve_and_fourteen_coefficients_are_a_thin_prism_without_tilt():
    d = list(LENSES["thin prism"])
    prism = intrinsics_from_info(640, 480, K, "rational_polynomial", d)
    assert prism.distortion == tuple(d)
    for model, numbers in (("rational_polynomial", [*d, 0, 0]), ("plumb_bob", d), ("plumb_bob", [*d, 0, 0])):
        assert intrinsics_from_info(640, 480, K, model, numbers) == prism
    rational = intrinsics_from_info(640, 480, K, "rational_polynomial", d[:8])
    assert intrinsics_from_info(640, 480, K, "rational_polynomial", [*d[:8], *[0] * 6]) == rational
    only_prism = [0.0] * 8 + [0.01, 0.0, 0.0, 0.0]
    assert intrinsics_from_info(640, 480, K, "plumb_bob", only_prism).distortion == tuple(only_prism)


@pytest.mark.parametrize("tilt", [(0.01, 0.0), (0.0, -0.02)])
def test_a_tilted_sensor_is_refused_with_the_mend(tilt):
    d = [*LENSES["thin prism"], *tilt]
    with pytest.raises(InputError, match=r"rectify the image, and set ros\.image_rectified: always") as caught:
        intrinsics_from_info(640, 480, K, "rational_polynomial", d)
    assert caught.value.reason == "wrong_distortion" and str(tilt[0]) in str(caught.value)


@pytest.mark.parametrize("count", [7, 9, 10, 11, 13, 15])
def test_numbers_of_coefficients_that_opencv_does_not_know_are_refused(count):
    with pytest.raises(InputError, match="8 or 12") as caught:
        intrinsics_from_info(640, 480, K, "rational_polynomial", [0.01] * count)
    assert caught.value.reason == "wrong_distortion"


@pytest.mark.parametrize(
    ("alias", "model", "d"),
    [
        ("fisheye", "equidistant", LENSES["equidistant"]),
        ("Fisheye", "equidistant", LENSES["equidistant"]),
        ("Brown_Conrady", "plumb_bob", LENSES["plumb_bob"]),
        ("brown_conrady", "plumb_bob", LENSES["plumb_bob"]),
        ("Brown Conrady", "plumb_bob", LENSES["plumb_bob"]),
        ("PLUMB_BOB", "plumb_bob", LENSES["plumb_bob"]),
        ("Rational_Polynomial", "rational_polynomial", LENSES["thin prism"]),
    ],
)
def test_lenses_are_known_by_the_names_that_drivers_give_them(tmp_path, alias, model, d):
    """In a CameraInfo, live and in bags, in the camera.json of a recording, and in the Intrinsics of a program."""
    expected = dataclasses.replace(PINHOLE, distortion_model=model, distortion=d)
    matrix = (70.0, 0.0, 39.0, 0.0, 68.0, 31.0, 0.0, 0.0, 1.0)
    assert intrinsics_from_info(80, 60, matrix, alias, d) == expected
    assert dataclasses.replace(PINHOLE, distortion_model=alias, distortion=d) == expected
    recording = write_sequence(tmp_path / "recording", [frame(np.ones((60, 80)), expected)], fps=30.0)
    camera = recording / "camera.json"
    camera.write_text(camera.read_text().replace(f'"{model}"', f'"{alias}"'))
    assert alias in camera.read_text() and read_sequence(recording).intrinsics == expected


def test_other_names_stay_unknown():
    """Models of librealsense that are the inverse of Brown and Conrady's, or another one."""
    for name in ("Inverse Brown Conrady", "modified_brown_conrady", "Thin_Prism"):
        with pytest.raises(InputError, match=name) as caught:
            intrinsics_from_info(640, 480, K, name, [0.1, 0.0, 0.0, 0.0, 0.0])
        assert caught.value.reason == "unknown_distortion"
