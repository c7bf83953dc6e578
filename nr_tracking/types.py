"""The values that travel between the stages, from a depth image to a tracked surface.

Conventions, everywhere in the package:

* Metric points are in the **camera optical frame**: x right, y down, z forward, metres.
* Depth is z, not range. Pixel centres are integers: pixel (u, v) looks along ((u - cx) / fx, (v - cy) / fy, 1).
* Stamps are integer nanoseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]


class InputError(ValueError):
    """Input that cannot be used: says what was wrong, with which value, and what to do about it.

    ``reason`` is a short stable identifier (``"no_depth"``, ``"zero_focal_length"``, ...) by which a node counts
    dropped frames.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str]]:
        """Pickle the reason with the message, so that both survive the way from one process to another."""
        return type(self), (self.reason, str(self))


def check_same_shape(**shapes: tuple[int, ...]) -> None:
    """Raise ValueError unless all ``shapes`` are equal; compiled loops would read beyond the end of a smaller array."""
    if len(set(map(tuple, shapes.values()))) > 1:
        raise ValueError("shapes differ: " + ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items()))


_LENSES = {
    **{name: name for name in ("none", "plumb_bob", "rational_polynomial", "equidistant")},
    "brown_conrady": "plumb_bob",  # as librealsense says
    "fisheye": "equidistant",  # as OpenCV says
}


def lens_name(model: str) -> str:
    """The name that ``sensor_msgs/CameraInfo`` has for a distortion model: drivers have others, in other cases.

    ``Brown_Conrady`` and ``Brown Conrady`` are ``plumb_bob``, ``fisheye`` is ``equidistant``. What is not known stays.
    """
    return _LENSES.get(str(model).lower().replace(" ", "_"), model)


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera with optional lens distortion.

    ``fx, fy, cx, cy`` are in pixels. ``distortion_model`` is ``"none"`` or one of the names of
    ``sensor_msgs/CameraInfo``: ``plumb_bob`` (k1 k2 p1 p2 k3), ``rational_polynomial`` (k1 k2 p1 p2 k3 k4 k5 k6, or
    these and s1 s2 s3 s4) and ``equidistant`` (k1 k2 k3 k4); other names for them become these (:func:`lens_name`).
    Its numbers may be given as any sequence, such as the ``d`` of a message.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion_model: str = "none"
    distortion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Keep one name of the lens, and its coefficients as a tuple: cameras are compared, and are keys of caches."""
        object.__setattr__(self, "distortion_model", lens_name(self.distortion_model))
        object.__setattr__(self, "distortion", tuple(map(float, self.distortion)))


@dataclass(frozen=True)
class DepthFrame:
    """One depth image.

    ``depth`` (H, W) float32 metres, 0 where there is no depth. ``mask`` (H, W) bool, True on the subject, or None
    where the subject has to be found. ``pose`` (4, 4) float64 camera -> world, or None for a static camera.
    """

    stamp_ns: int
    depth: Float32
    intrinsics: Intrinsics
    mask: Bool | None = None
    pose: Float64 | None = None


@dataclass(frozen=True)
class Surface:
    """A closed triangle mesh, outward oriented.

    ``vertices`` (V, 3) float32 metres in the camera optical frame; ``faces`` (F, 3) int32, counter-clockwise seen from
    outside; ``confidence`` (V,) float32 in [0, 1]; ``observed`` (V,) bool, True where the camera saw the vertex and
    False where the network completed it.
    """

    vertices: Float32
    faces: Int32
    confidence: Float32
    observed: Bool


@dataclass(frozen=True)
class Patches:
    """Near-rigid patches of one surface and their motion to the next frame.

    ``centres`` (P, 3) metres; ``rotations`` (P, 3, 3) and ``translations`` (P, 3) carry a vertex v of patch k to
    ``R_k (v - c_k) + t_k``, so a translation is the new position of its centre (Merrouche et al. 2024, eq. 22); NaN
    where the motion is not known (the last frame). ``owner`` (V,) int32, the patch of each vertex; ``neighbours``
    (E, 2) int32.
    """

    centres: Float32
    rotations: Float32
    translations: Float32
    owner: Int32
    neighbours: Int32


@dataclass(frozen=True)
class Tracks:
    """Persistent points on the surface.

    ``ids`` (K,) int64, unique over the life of a tracker; ``positions`` (K, 3) float32 metres; ``velocities`` (K, 3)
    float32 m/s; ``confidence`` (K,) float32 in [0, 1]; ``observed`` (K,) bool, seen by the camera in this frame.
    """

    ids: Int64
    positions: Float32
    velocities: Float32
    confidence: Float32
    observed: Bool


@dataclass(frozen=True)
class Nodes:
    """Nodes of the deformation graph that carries the tracks: frames that stay on the same places of the subject.

    ``ids`` (P,) int64, unique over the life of a tracker; ``positions`` (P, 3) float32 metres; ``rotations`` (P, 3, 3)
    float32 by which each turned since the first surface of its subject.
    """

    ids: Int64
    positions: Float32
    rotations: Float32


@dataclass(frozen=True)
class TrackedFrame:
    """What comes out for one accepted frame.

    ``canonical`` (V, 3) float32: where each vertex of ``surface`` was in the first tracked frame (it colours the mesh
    by correspondence). ``previous`` (V, 3) float32: where it was one frame ago, NaN where that is not known.
    ``timings``: seconds by stage. ``previous_patches``: the patches of the frame before with their motion to this one;
    None for the first frame. ``patches`` holds the motion to the next frame only where that frame was already there
    (inside a window), else NaN: a live consumer waits for nothing, and a writer completes its rows from this field.
    ``pose`` (4, 4) float64: the camera's, to a fixed frame, where it is known.
    """

    stamp_ns: int
    surface: Surface
    patches: Patches
    tracks: Tracks
    canonical: Float32
    previous: Float32
    timings: dict[str, float] = field(default_factory=dict)
    previous_patches: Patches | None = None
    pose: Float64 | None = None
    nodes: Nodes | None = None
