"""Lenses: from where a pinhole would see a point to where the image shows it, and back.

The models are those of ``sensor_msgs/CameraInfo``, as OpenCV defines them: ``plumb_bob`` (k1 k2 p1 p2 k3),
``rational_polynomial`` (k1 k2 p1 p2 k3 k4 k5 k6, and s1 s2 s3 s4 of a thin prism) and ``equidistant`` (fisheye, k1 k2
k3 k4). Coordinates are normalised: x / z and y / z of a point, without unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from nr_tracking.types import Float64, InputError, Intrinsics, lens_name

Lens = Callable[[Float64, Float64], tuple[Float64, Float64]]
"""Normalised coordinates x and y, two arrays of one shape, to distorted ones."""

_COEFFICIENTS = {"plumb_bob": (5,), "rational_polynomial": (8, 12), "equidistant": (4,)}
_TILT = slice(12, 14)  # tau_x and tau_y of OpenCV, behind those of the thin prism


def checked_distortion(model: str, d: Sequence[float]) -> tuple[str, tuple[float, ...]]:
    """The name of a model in ``sensor_msgs/CameraInfo`` and exactly its coefficients; ``none`` where they are all zero.

    ``model`` is such a name, or one that drivers use for it (:func:`~nr_tracking.types.lens_name`). Coefficients that
    are zero may be left out or added where OpenCV does so. Raises InputError ``unknown_distortion`` or
    ``wrong_distortion``.
    """
    coefficients = tuple(float(value) for value in d)
    known = lens_name(model)
    if known in ("", "none") or not any(coefficients):
        if any(coefficients):
            raise InputError("unknown_distortion", f"coefficients {coefficients} come without a distortion model")
        return "none", ()
    if known not in _COEFFICIENTS:
        raise InputError("unknown_distortion", f"distortion model {model!r} is none of {', '.join(_COEFFICIENTS)}")
    if known == "plumb_bob" and len(coefficients) == 4:  # some drivers leave k3 out
        coefficients = (*coefficients, 0.0)
    if known == "plumb_bob" and any(coefficients[5:]):  # and some name both by the shorter one
        known = "rational_polynomial"
    if known == "rational_polynomial" and len(coefficients) == 14 and any(coefficients[_TILT]):
        raise InputError(
            "wrong_distortion",
            f"the sensor is tilted by tau_x, tau_y = {coefficients[12]}, {coefficients[13]}, which is not undone here: "
            "rectify the image, and set ros.image_rectified: always",
        )
    counts = _COEFFICIENTS[known]
    count = next((n for n in counts if not any(coefficients[n:])), counts[-1])
    if len(coefficients) < count or any(coefficients[count:]) or not all(map(math.isfinite, coefficients)):
        expected = " or ".join(map(str, counts))
        raise InputError("wrong_distortion", f"{known} takes {expected} finite coefficients, not {coefficients}")
    return known, coefficients[:count]


def lens_of(intrinsics: Intrinsics) -> Lens:
    """The lens of a camera. Raises as :func:`checked_distortion` does."""
    model, d = checked_distortion(intrinsics.distortion_model, intrinsics.distortion)
    if model == "none":
        return lambda x, y: (x, y)
    if model == "equidistant":

        def fisheye(x: Float64, y: Float64) -> tuple[Float64, Float64]:
            radius = np.hypot(x, y)
            angle = np.arctan(radius)
            square = angle * angle
            bent = angle * (1 + square * (d[0] + square * (d[1] + square * (d[2] + square * d[3]))))
            scale = np.where(radius > 1e-12, bent / np.maximum(radius, 1e-12), 1.0)
            return x * scale, y * scale

        return fisheye
    k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = (*d, *[0.0] * 7)[:12]

    def brown(x: Float64, y: Float64) -> tuple[Float64, Float64]:
        r2 = x * x + y * y
        radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        xy = 2 * x * y
        bent_x = x * radial + p1 * xy + p2 * (r2 + 2 * x * x) + r2 * (s1 + r2 * s2)
        bent_y = y * radial + p1 * (r2 + 2 * y * y) + p2 * xy + r2 * (s3 + r2 * s4)
        return bent_x, bent_y

    return brown


def undistorted(bent_x: Float64, bent_y: Float64, intrinsics: Intrinsics) -> tuple[Float64, Float64]:
    """Invert the lens by Newton's method, for coordinates of any one shape.

    NaN where it does not converge to 1e-4 pixel within the model's reach.
    """
    lens = lens_of(intrinsics)
    x, y = bent_x.copy(), bent_y.copy()
    tolerance = 1e-4 / max(intrinsics.fx, intrinsics.fy)
    with np.errstate(all="ignore"):
        for _ in range(30):
            (miss_x, miss_y), (xx, xy, yx, yy) = lens(x, y), _jacobian(lens, x, y)
            miss_x, miss_y = miss_x - bent_x, miss_y - bent_y
            error = np.hypot(miss_x, miss_y)
            if np.nanmax(error, initial=0.0) < 0.1 * tolerance:
                break
            determinant = xx * yy - xy * yx
            x -= (yy * miss_x - xy * miss_y) / determinant
            y -= (xx * miss_y - yx * miss_x) / determinant
        lost = ~(error < tolerance) | ~(np.hypot(x, y) < reach(intrinsics))
    x[lost] = np.nan
    y[lost] = np.nan
    return x, y


def reach(intrinsics: Intrinsics) -> float:
    """Radius in normalised coordinates up to which the lens model is one-to-one: polynomials fold back farther out."""
    radius = np.linspace(0.0, 10.0, 2001)[1:, None]
    direction = np.arange(16) * (math.pi / 8)
    x, y = radius * np.cos(direction), radius * np.sin(direction)
    with np.errstate(all="ignore"):
        xx, xy, yx, yy = _jacobian(lens_of(intrinsics), x, y)
        folded = ~(xx * yy - xy * yx > 0).all(axis=1)
    return float(radius[max(int(folded.argmax()) - 1, 0), 0]) if folded.any() else math.inf


def _jacobian(lens: Lens, x: Float64, y: Float64) -> tuple[Float64, Float64, Float64, Float64]:
    """Derivatives dx'/dx, dx'/dy, dy'/dx, dy'/dy of the lens by central differences."""
    step = 1e-6
    (x_right, y_right), (x_left, y_left) = lens(x + step, y), lens(x - step, y)
    (x_below, y_below), (x_above, y_above) = lens(x, y + step), lens(x, y - step)
    scale = 0.5 / step
    return (
        (x_right - x_left) * scale,
        (x_below - x_above) * scale,
        (y_right - y_left) * scale,
        (y_below - y_above) * scale,
    )
