"""Planes in a cloud of points, and what is nearly one: a lawn, a carpet, a wall in the depth of an imperfect camera."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from nr_tracking.loops import compiled_loops
from nr_tracking.types import Float32, Int64

_HYPOTHESES = 400  # they all miss a plane that covers a fifth of the pixels with probability 0.04
_FINALISTS = 30  # of them go on to more points
_JUDGES = (300, 1000)  # points that judge all hypotheses; that judge the finalists, and bend the plane found
_PLANES = 6  # a corner of a room has three, and furniture has some
NOISE_DEPTH_M = 2.0  # beyond it the tolerance grows with the square of depth, as a depth camera's noise does
_NOISIEST_DEPTH_M = 1.1  # where it begins to grow with the noisiest camera: nearer, noise is small with every one
_NOISE_SHARE = 0.55  # of the tolerance that one standard deviation of noise may take: of a plane, 93 % lie within
_SQUARES = 500  # of pixels that tell the noise
_FEW_SQUARES = 170  # lie on surfaces where no room is seen, and tell nothing
_SQUARE = 1 / 24  # of the image's width is their side: noise alike over a few pixels differs over this
_NORMAL_MEDIAN = 0.6745  # of the sizes of normal deviates with standard deviation 1
_BEND = 6.0  # tolerances by which a surface may depart from its plane
_BEND_RATIO = 0.04  # and share of half its width: a chest is bent more
_BEND_STEPS = 6  # each takes in what the last one has come near to
_RIDGE = 1e-3  # of the number of points: keeps the cubic terms of a narrow strip small


def depth_tolerance(depth: Float32, near: float, noise_depth: float = NOISE_DEPTH_M) -> Float32:
    """How much depth (...,) may differ by noise, in metres, if up to ``noise_depth`` metres it is ``near`` metres."""
    return np.float32(near) * np.maximum(1.0, (depth / np.float32(noise_depth)) ** 2)


def noise_depth_of(cloud: Float32, pixels: Int64, width: int, near: float) -> float:
    """Depth from which on the tolerance must grow to hold the noise in points (N, 3), if before it is ``near`` metres.

    It is ``NOISE_DEPTH_M`` for most cameras and less for noisier ones. ``pixels`` (N,) are the points' places, flat
    indices in order, of an image of this ``width``. What is about the same in squares and in those of half their size
    is noise; the shape of a body, which may be all there is to see, shows more in the larger ones.
    """
    little = _NOISE_SHARE * near / NOISE_DEPTH_M**2
    if (narrow := _twist(cloud, pixels, width, max(1, int(_SQUARE / 2 * width)))) is None or narrow <= little:
        return NOISE_DEPTH_M
    if (wide := _twist(cloud, pixels, width, max(1, int(_SQUARE * width)))) is None:
        return NOISE_DEPTH_M
    noise = min(narrow, 2 * (2 * narrow - wide))
    return NOISE_DEPTH_M if noise <= little else max(_NOISIEST_DEPTH_M, float(np.sqrt(_NOISE_SHARE * near / noise)))


def _twist(cloud: Float32, pixels: Int64, width: int, side: int) -> float | None:
    """The spread of one over depth about planes, as a standard deviation of one pixel, in squares of ``side`` pixels.

    One over depth is linear in the image where a surface is flat: two corners less the other two are 0, but for noise.
    None where too few squares lie on surfaces and are far enough to matter.
    """
    chosen = np.linspace(0, len(pixels) - 1, min(len(pixels), _SQUARES)).astype(np.int64)
    chosen = chosen[pixels[chosen] % width < width - side]
    corners = pixels[chosen] + side * np.array((0, 1, width, width + 1))[:, None]
    places = np.searchsorted(pixels, corners).clip(0, len(pixels) - 1)
    depth = cloud[places, 2]
    far = ((pixels[places] == corners) & (depth > _NOISIEST_DEPTH_M)).all(axis=0)
    if np.count_nonzero(far) < _FEW_SQUARES:
        return None
    twists = np.array((0.5, -0.5, -0.5, 0.5)) @ (1 / depth[:, far])
    return float(np.median(np.abs(twists))) / _NORMAL_MEDIAN


@dataclass(frozen=True, eq=False)
class Plane:
    """Points p with ``normal . p = offset``; the unit normal (3,) points away from the camera, so ``offset`` >= 0.

    A bent one has ``bend`` (10,), in tolerances: the coefficients of a cubic height field over ``axes`` (3, 2), which
    are scaled so that the points it was fitted to lie within -1 and 1 about ``middle`` (2,) along them. It departs from
    the plane by ``most`` metres at most.
    """

    normal: Float32
    offset: float
    axes: Float32
    middle: Float32
    bend: Float32 | None = None
    most: float = 0.0

    @staticmethod
    def of_row(row: Float32, most: float) -> Plane:
        """The plane that compiled loops have as a ``row`` (22,)."""
        return Plane(row[:3], float(row[3]), row[4:10].reshape(2, 3).T, row[10:12], row[12:], most)

    @property
    def row(self) -> Float32:
        """All but ``most``, (22,), for compiled loops."""
        bend = np.zeros(10, np.float32) if self.bend is None else self.bend
        return np.concatenate((self.normal, [self.offset], self.axes.T.ravel(), self.middle, bend), dtype=np.float32)

    def heights(self, cloud: Float32, tolerance: Float32) -> Float32:
        """How far points (N, 3) stand before it, towards the camera, in tolerances: (N,)."""
        heights = self._flat(cloud, tolerance)
        if self.bend is not None:
            near = np.flatnonzero(np.abs(heights) < _BEND + 3)  # for what is farther away it makes no difference
            bends = _polynomial(self.bend, *self._places(cloud.take(near, axis=0)))
            heights[near] -= self._limited(bends, tolerance[near])
        return heights

    def bent(self, cloud: Float32, tolerance: Float32) -> Plane:
        """The height field through the points (N, 3) near this plane, and near what they lead on to."""
        flat, terms = self._flat(cloud, tolerance), _monomials(*self._places(cloud))
        width = float(1 / np.linalg.norm(self.axes, axis=0).max())
        plane, bend = replace(self, most=_BEND_RATIO * width), np.zeros(terms.shape[1], np.float32)
        for _ in range(_BEND_STEPS):
            near = np.abs(flat - plane._limited(terms @ bend, tolerance)) < 2
            taken = terms[near].astype(np.float64)
            squares = taken.T @ taken + _RIDGE * max(len(taken), 1) * np.eye(len(bend))
            bend = np.linalg.solve(squares, taken.T @ flat[near]).astype(np.float32)
        return replace(plane, bend=bend)

    def _flat(self, cloud: Float32, tolerance: Float32) -> Float32:
        return (np.float32(self.offset) - cloud @ self.normal) / tolerance

    def _limited(self, bends: Float32, tolerance: Float32) -> Float32:
        """Departures (N,) from the plane, no larger than they may be."""
        most = np.minimum(np.float32(_BEND), np.float32(self.most) / tolerance)
        return np.clip(bends, -most, most)

    def _places(self, cloud: Float32) -> tuple[Float32, Float32]:
        """Where points (N, 3) are on the plane, two (N,); beyond its ends at the ends."""
        u, v = np.clip(self.axes.T @ cloud.T - self.middle[:, None], -1, 1)
        return u, v


def _monomials(u: Float32, v: Float32) -> Float32:
    """Those of a cubic (N, 10) at the places ``u`` and ``v`` (N,)."""
    uu, vv = u * u, v * v  # products: a power takes many times as long
    return np.stack([np.ones_like(u), u, v, uu, u * v, vv, uu * u, uu * v, u * vv, vv * v], axis=1)


def _polynomial(bend: Float32, u: Float32, v: Float32) -> Float32:
    """A cubic (N,) of these coefficients, :func:`_monomials` by ``bend``, without a row for each point."""
    one, first, second, uu, uv, vv, uuu, uuv, uvv, vvv = bend
    along = (uuu * u + (uuv * v + uu)) * u + ((uvv * v + uv) * v + first)
    found: Float32 = along * u + (((vvv * v + vv) * v + second) * v + one)
    return found


def fit_plane(cloud: Float32) -> Plane:
    """Least-squares plane of (N, 3) points."""
    centre = cloud.mean(axis=0)
    _, axes = np.linalg.eigh((cloud - centre).T @ (cloud - centre))
    normal, along = axes[:, 0], axes[:, 1:]
    reach = np.maximum(np.abs((cloud - centre) @ along).max(axis=0), 1e-6)
    offset = float(normal @ centre)
    axes = along / reach
    return Plane(normal if offset >= 0 else -normal, abs(offset), axes, centre @ axes)


def heights_over(cloud: Float32, planes: list[Plane], near: float, noise_depth: float = NOISE_DEPTH_M) -> Float32:
    """The least height (N,) of points (N, 3) over all ``planes``, in tolerances: :func:`depth_tolerance`."""
    if (loops := compiled_loops("bends")) is not None:
        rows, most = np.stack([plane.row for plane in planes]), np.array([plane.most for plane in planes], np.float32)
        found: Float32 = loops.heights_over(cloud, rows, most, near, noise_depth, _BEND)
        return found
    tolerance = depth_tolerance(cloud[:, 2], near, noise_depth)
    return np.minimum.reduce([plane.heights(cloud, tolerance) for plane in planes])


def find_planes(cloud: Float32, tolerance: Float32, first: float, further: float) -> Iterator[tuple[Plane, Float32]]:
    """The largest planes of (N, 3) points, one after the other, each fitted to what the ones before left over.

    Each comes with how far all points stand before it, in tolerances, (N,). Points within ``tolerance`` (N,) metres
    belong to a plane. The first covers a share ``first`` of all points at least, others ``further``; they are bent
    where the points are. The search is random with a fixed seed.
    """
    generator = np.random.default_rng(0)
    left, least = np.arange(len(cloud)), first * len(cloud)
    for _ in range(_PLANES):
        if len(left) <= max(3.0, least):
            return
        found = _next_plane(cloud, tolerance, left, generator.integers(0, len(left), (_HYPOTHESES, 3)))
        if found is None:
            return
        plane, heights, rest = found
        if len(left) - len(rest) < least:
            return
        yield plane, heights
        left, least = rest, further * len(cloud)


def _next_plane(cloud: Float32, tolerance: Float32, left: Int64, triples: Int64) -> tuple[Plane, Float32, Int64] | None:
    """The largest plane of the points ``left`` (L,), the heights of all, and what it leaves over.

    It is tried through ``triples`` (H, 3) of those left; None where each of these is in a line.
    """
    if (loops := compiled_loops("planes")) is not None:
        few_more, bent = np.array(_JUDGES), (_BEND_STEPS, _BEND, _BEND_RATIO, _RIDGE)
        row, most, heights, inside, rest = loops.next_plane(
            cloud, tolerance, left, triples, few_more, _FINALISTS, *bent
        )
        return None if inside < 0 else (Plane.of_row(row, most), heights, rest)
    triangles = cloud[left[triples]]
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    proper = lengths > 1e-9
    if not proper.any():
        return None
    normals = normals[proper] / lengths[proper, None]
    offsets = (normals * triangles[proper, 0]).sum(axis=1)
    few, more = (left[:: max(1, len(left) // count)] for count in _JUDGES)
    votes = _votes(normals, offsets, cloud[few], tolerance[few])
    finalists = np.argsort(-votes, kind="stable")[:_FINALISTS]
    votes = _votes(normals[finalists], offsets[finalists], cloud[more], tolerance[more])
    best = finalists[votes.argmax()]
    points = cloud[left]
    plane = fit_plane(points[np.abs(points @ normals[best] - offsets[best]) < tolerance[left]])
    plane = plane.bent(cloud[more], tolerance[more])
    heights = plane.heights(cloud, tolerance)
    return plane, heights, left[~(np.abs(heights[left]) < 1)]


def _votes(normals: Float32, offsets: Float32, cloud: Float32, tolerance: Float32) -> Int64:
    """How many points (N, 3) lie within ``tolerance`` (N,) of planes by ``normals`` (H, 3), ``offsets`` (H,): (H,)."""
    heights = normals @ cloud.T
    heights -= offsets[:, None]
    return np.count_nonzero(np.abs(heights, out=heights) < tolerance, axis=1)
