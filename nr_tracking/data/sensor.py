"""What a depth camera makes of a perfect depth image.

Three kinds of camera are modelled. *Structured light* measures disparity: its steps and its axial noise grow with z^2
(Khoshelham and Elberink 2012), its image is jittered sideways (Nguyen et al. 2012), and what the projector cannot
reach from its own place is dark. *Active stereo* compares blocks of two images: its noise is smooth over several
pixels, its steps are fine, and what is in front grows over what is behind, by up to half a block and unevenly
(foreground fattening). *Time of flight* measures range: noise grows with distance and at grazing angles, and pixels on
an edge mix what lies before and behind. All lose depth at edges, on steep surfaces and in blotches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates, maximum_filter, minimum_filter, zoom

from nr_tracking.types import Bool, Float32, Intrinsics

NOMINAL_FX = 575.0
"""Focal length of the camera whose pixels are meant: 640 x 480, 58 degrees wide."""


@dataclass(frozen=True)
class SensorModel:
    """``model(depth, intrinsics, rng) -> depth``: (H, W) float32 metres, 0 = none, in and out.

    ``axial`` noise in metres at 1 m, growing with z to the ``power``; ``correlation`` pixels over which it is smooth;
    ``lateral`` jitter in pixels; ``disparity`` steps in pixels for a ``baseline`` in metres (0: no steps). These pixels
    are those of a camera with :data:`NOMINAL_FX`: the same sensor, given as a smaller image, is no worse in metres, and
    loses about the same share of an outline.
    ``quantum`` metres of the output; ``edge_loss`` and ``flying``: share of edge pixels that are lost, or that float
    between the surfaces; ``steep_degrees``: steeper surfaces are lost; ``blotches``: share of the image without
    return; ``shadow``: whether the projector's shadow is dark; ``fattening`` pixels by which what is in front grows at
    most.
    """

    axial: float = 0.0015
    power: float = 2.0
    correlation: float = 0.7
    lateral: float = 0.4
    disparity: float = 0.0
    baseline: float = 0.05
    quantum: float = 0.001
    edge_loss: float = 0.3
    flying: float = 0.05
    steep_degrees: float = 82.0
    blotches: float = 0.0
    shadow: bool = False
    fattening: float = 0.0

    def reach(self, intrinsics: Intrinsics) -> int:
        """Whole pixels by which a surface can appear beside its place: it grows so far, and jitters by two deviations.

        At least one; without growth no more than that, since jitter then loses as much of an outline as it adds.
        """
        if self.fattening == 0:
            return 1
        return max(1, int(np.ceil((self.fattening + 2 * self.lateral) * intrinsics.fx / NOMINAL_FX)))

    def __call__(self, depth: Float32, intrinsics: Intrinsics, rng: np.random.Generator) -> Float32:
        """One noisy image of a clean one; ``rng`` decides the noise and nothing else does."""
        valid = depth > 0
        if not valid.any():
            return depth.copy()
        pixel = intrinsics.fx / NOMINAL_FX
        seen = _jittered(depth, self.lateral * pixel, rng)
        if self.fattening > 0:
            seen = _fattened(seen, self.fattening * pixel, rng)
        slope = _slope(depth.astype(np.float64), intrinsics)
        noise = gaussian_filter(rng.standard_normal(depth.shape), self.correlation * pixel)
        noise /= max(float(noise.std()), 1e-9)
        grazing = 1 + 0.5 * np.minimum(slope, 5.0)
        out = seen + noise * self.axial * seen**self.power * grazing
        if self.disparity > 0:
            shift, step = intrinsics.fx * self.baseline / np.maximum(out, 1e-3), self.disparity * pixel
            out = intrinsics.fx * self.baseline / (np.maximum(np.rint(shift / step), 1) * step)
        # A coarser image's edge pixels hold more of the surface, of which the sensor loses no more.
        coarse = min(1.0, pixel)
        edge, before, behind = _edges(seen, 0.03 / coarse)
        lost = edge & (rng.random(depth.shape) < self.edge_loss * coarse)
        floating = edge & ~lost & (rng.random(depth.shape) < self.flying * coarse)
        share = rng.random(depth.shape)
        out = np.where(floating, before + share * (behind - before), out)
        lost |= slope > np.tan(np.radians(self.steep_degrees))
        if self.blotches > 0:
            lost |= blotches(depth.shape, self.blotches, rng)
        if self.shadow:
            lost |= _projector_shadow(seen, intrinsics, self.baseline)
        out = np.where((seen > 0) & ~lost, out, 0)
        if self.quantum > 0:
            out = np.rint(out / self.quantum) * self.quantum
        return np.maximum(out, 0).astype(np.float32)


CLEAN = SensorModel(axial=0, correlation=0, lateral=0, quantum=0, edge_loss=0, flying=0, steep_degrees=90)
"""Changes nothing."""


def structured_light(strength: float = 1.0) -> SensorModel:
    """A short-range structured-light or active stereo camera; ``strength`` 1 is a typical one."""
    return SensorModel(
        axial=0.0014 * strength,
        power=2.0,
        correlation=1.2,
        lateral=0.5 * strength,
        disparity=0.125 * strength,
        baseline=0.06,
        edge_loss=0.4,
        flying=0.02,
        steep_degrees=80.0,
        blotches=0.01 * strength,
        shadow=True,
    )


def active_stereo(strength: float = 1.0) -> SensorModel:
    """A stereo camera with a projector of texture; ``strength`` 1 is a typical one."""
    return SensorModel(
        axial=0.0025 * strength,
        power=2.0,
        correlation=2.5,
        lateral=0.5 * strength,
        disparity=0.03,
        baseline=0.05,
        edge_loss=0.15,
        flying=0.05,
        steep_degrees=80.0,
        blotches=0.02 * strength,
        shadow=True,
        fattening=1.8 * strength,
    )


def time_of_flight(strength: float = 1.0) -> SensorModel:
    """A time-of-flight camera; ``strength`` 1 is a typical one."""
    return SensorModel(
        axial=0.003 * strength,
        power=1.0,
        correlation=0.5,
        lateral=0.3 * strength,
        edge_loss=0.2,
        flying=0.35,
        steep_degrees=84.0,
        blotches=0.005 * strength,
    )


def random_sensor(rng: np.random.Generator, stereo: float = 0.0) -> SensorModel:
    """A random camera, from nearly perfect to twice as bad as usual.

    With probability ``stereo`` it is active stereo, else structured light or time of flight.
    """
    if stereo > 0 and rng.random() < stereo:
        return active_stereo(float(rng.uniform(0.3, 2.0)))
    make = structured_light if rng.random() < 0.5 else time_of_flight
    return make(float(rng.uniform(0.3, 2.0)))


def _jittered(depth: Float32, pixels: float, rng: np.random.Generator) -> np.ndarray:
    """Each pixel reads from a place a little beside its own."""
    if pixels == 0:
        return depth.astype(np.float64)
    beside = np.indices(depth.shape) + rng.normal(size=(2, *depth.shape)) * pixels
    return map_coordinates(depth.astype(np.float64), beside, order=0, mode="nearest")


def _fattened(depth: np.ndarray, pixels: float, rng: np.random.Generator) -> np.ndarray:
    """What is in front, grown over what is behind by nothing to ``pixels``, more here and less there."""
    reach = pixels * _smooth(rng.random, depth.shape, 6)
    grown = np.where(depth > 0, depth, np.inf)
    for step in range(int(np.ceil(pixels))):
        before = minimum_filter(grown, 3)
        # Only a step in depth is grown over: a slope stays as it is.
        grown = np.where((before < 0.97 * grown) & (reach > step + 0.5), before, grown)
    return np.where(np.isfinite(grown), grown, 0)


def _smooth(draw: Callable[[tuple[int, ...]], np.ndarray], shape: tuple[int, ...], pixels: int) -> np.ndarray:
    """What ``draw`` draws for a coarse image, alike over so many ``pixels`` of an image of ``shape`` (H, W)."""
    coarse = draw((shape[0] // pixels + 3, shape[1] // pixels + 3))
    return zoom(coarse, pixels, order=1)[: shape[0], : shape[1]]


def _slope(depth: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
    """Tangent of the angle between the surface and the image plane.

    Of the differences to the two neighbours along an axis the smaller one counts, so that a step from one surface to
    another is no slope.
    """
    steps = []
    for axis in (0, 1):
        change = np.abs(np.diff(depth, axis=axis))
        before = np.concatenate([np.take(change, [0], axis), change], axis)
        after = np.concatenate([change, np.take(change, [-1], axis)], axis)
        steps.append(np.minimum(before, after))
    return np.hypot(*steps) / (np.maximum(depth, 1e-3) / intrinsics.fx)


def _edges(depth: np.ndarray, least: float) -> tuple[Bool, np.ndarray, np.ndarray]:
    """Pixels beside a depth step, ``least`` of the depth, or beside nothing; nearest and farthest depth around them."""
    present = np.where(depth > 0, depth, np.inf)
    before = minimum_filter(present, 3)
    behind = maximum_filter(depth, 3)
    border = (depth > 0) & (minimum_filter(depth, 3) == 0)
    step = (depth > 0) & (behind - before > least * before)
    # Beside nothing, a flying pixel floats off into the empty space behind.
    behind = np.where(border, behind * 1.03, behind)
    return border | step, np.where(np.isfinite(before), before, 0), behind


def blotches(shape: tuple[int, ...], share: float, rng: np.random.Generator) -> Bool:
    """A ``share`` of the pixels of an image of ``shape`` (H, W), in smooth blotches a dozen pixels wide."""
    smooth = _smooth(rng.standard_normal, shape, 12)
    return smooth > np.quantile(smooth, 1 - share)


def _projector_shadow(depth: np.ndarray, intrinsics: Intrinsics, baseline: float) -> Bool:
    """What a projector ``baseline`` metres to the right of the camera cannot see for something nearer to its right."""
    columns = np.arange(depth.shape[1])
    with np.errstate(divide="ignore"):
        shift = np.where(depth > 0, intrinsics.fx * baseline / np.maximum(depth, 1e-3), -np.inf)
    # Along a row, the projector's column of a pixel is its own less the disparity; one that stands to the right in
    # the camera's image but to the left in the projector's has been overtaken: it lies in the shadow.
    seen_at = np.where(depth > 0, columns - shift, np.inf)
    rightmost = np.minimum.accumulate(seen_at[:, ::-1], axis=1)[:, ::-1]
    ahead = np.concatenate([rightmost[:, 1:], np.full((len(depth), 1), np.inf)], 1)
    return (depth > 0) & (ahead < seen_at)
