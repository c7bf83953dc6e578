"""Which points of a completed surface the camera saw, and how far they lie from what it measured."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from nr_tracking.loops import compiled_loops
from nr_tracking.types import Bool, DepthFrame, Float32

_EVIDENCE_POINTS = 500  # distances of many voxels need no dense tree, and queries far from one are slow


def depth_at(points: Float32, depth: Float32, frame: DepthFrame) -> Float32:
    """Depth of the pixel that each point falls on: (N, 3) metres -> (N,) metres, 0 outside the image or without depth.

    ``depth`` is the frame's depth image, possibly masked; the frame has no lens distortion (see ``camera.rectify``).
    """
    k = frame.intrinsics
    if points.dtype == depth.dtype == np.float32 and (loops := compiled_loops("visibility")) is not None:
        arrays = np.ascontiguousarray(points), np.ascontiguousarray(depth)
        found: Float32 = loops.depth_at(*arrays, k.fx, k.fy, k.cx, k.cy)
        return found
    z = points[:, 2]
    ahead = z > 1e-6
    safe = np.where(ahead, z, 1.0)
    u = np.rint(points[:, 0] * (k.fx / safe) + k.cx)
    v = np.rint(points[:, 1] * (k.fy / safe) + k.cy)
    inside = ahead & (u >= 0) & (u < k.width) & (v >= 0) & (v < k.height)
    result = np.zeros(len(points), np.float32)
    result[inside] = depth[v[inside].astype(np.int64), u[inside].astype(np.int64)]
    return result


def observed_points(points: Float32, depth: Float32, frame: DepthFrame, tolerance: float) -> Bool:
    """True where the measured depth confirms a point to within ``tolerance`` metres along z: (N, 3) -> (N,)."""
    measured = depth_at(points, depth, frame)
    return (measured > 0) & (np.abs(measured - points[:, 2]) < tolerance)


def confidence_of(points: Float32, observed: Bool, depth: Float32, frame: DepthFrame, voxel: float) -> Float32:
    """A plain confidence in [0, 1] for surface points, (N, 3) -> (N,).

    Seen points: a Gaussian of their distance to the measured depth, one and a half voxels wide. Completed points: at
    most one half, falling with the distance to the nearest seen point, because a guess far from any evidence is worth
    less. Not a calibrated probability.
    """
    measured = depth_at(points, depth, frame)
    if points.dtype == np.float32 and (loops := compiled_loops("visibility")) is not None:
        known = np.ascontiguousarray(points), observed, measured
        found: Float32 = loops.confidence_of(*known, float(voxel), _EVIDENCE_POINTS)
        return found
    residual = np.where(measured > 0, points[:, 2] - measured, 0.0)
    confidence = np.exp(-0.5 * (residual / (1.5 * voxel)) ** 2)
    if observed.all() or not observed.any():
        return np.where(observed, confidence, 0.0).astype(np.float32)
    evidence = points[observed]
    tree = cKDTree(evidence[:: max(1, len(evidence) // _EVIDENCE_POINTS)])
    away, _ = tree.query(points[~observed])
    confidence[~observed] = 0.5 * np.exp(-away / (10.0 * voxel))
    return confidence.astype(np.float32)
