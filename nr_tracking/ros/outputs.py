"""Tracked frames as serialised messages, ready to publish. No ROS is needed to build them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from nr_tracking.normals import face_normals
from nr_tracking.ros import cdr
from nr_tracking.types import Float32, Float64, Int32, TrackedFrame, Tracks

TRACK_FIELDS = np.dtype(
    [(name, "<f4") for name in ("x", "y", "z", "vx", "vy", "vz", "confidence")] + [("id", "<u4"), ("observed", "u1")],
    align=True,
)
_SURFACE, _MOTION = "surface", "motion"  # namespaces of the markers
_MOTION_COLOUR = np.array([1.0, 0.75, 0.1, 1.0], np.float32)


def mesh_marker(frame: TrackedFrame, frame_id: str, colours: NDArray[np.uint8], max_triangles: int) -> bytes:
    """The completed surface as a TRIANGLE_LIST of at most ``max_triangles``; ``colours`` (V, 3) sRGB by vertex."""
    faces = decimated(frame.surface.vertices, frame.surface.faces, max_triangles).reshape(-1)
    rgba = np.ones((len(colours), 4), np.float32)
    rgba[:, :3] = colours / np.float32(255)
    return cdr.marker(
        frame.stamp_ns, frame_id, "triangles", frame.surface.vertices[faces], rgba[faces], namespace=_SURFACE
    )


def motion_marker(frame: TrackedFrame, frame_id: str, max_lines: int) -> bytes | None:
    """Lines from where vertices were in the previous frame to where they are; None where no motion is known."""
    known = np.flatnonzero(np.isfinite(frame.previous).all(axis=1))
    if not len(known):
        return None
    known = known[:: -(-len(known) // max_lines)]
    lines = np.stack([frame.previous[known], frame.surface.vertices[known]], axis=1).reshape(-1, 3)
    colours = np.broadcast_to(_MOTION_COLOUR, (len(lines), 4))
    return cdr.marker(frame.stamp_ns, frame_id, "lines", lines, colours, namespace=_MOTION)


def tracks_cloud(stamp_ns: int, frame_id: str, tracks: Tracks) -> bytes:
    """Persistent points as a PointCloud2 of :data:`TRACK_FIELDS`: metres, m/s."""
    rows = np.zeros(len(tracks.ids), TRACK_FIELDS)
    for axis, name in enumerate("xyz"):
        rows[name] = tracks.positions[:, axis]
        rows[f"v{name}"] = tracks.velocities[:, axis]
    rows["confidence"], rows["id"], rows["observed"] = tracks.confidence, tracks.ids, tracks.observed
    return cdr.point_cloud(stamp_ns, frame_id, rows)


def no_mesh(stamp_ns: int, frame_id: str) -> bytes:
    """Takes the marker of :func:`mesh_marker` away."""
    return cdr.deleted_marker(stamp_ns, frame_id, "triangles", namespace=_SURFACE)


def no_motion(stamp_ns: int, frame_id: str) -> bytes:
    """Takes the marker of :func:`motion_marker` away."""
    return cdr.deleted_marker(stamp_ns, frame_id, "lines", namespace=_MOTION)


def no_tracks(stamp_ns: int, frame_id: str) -> bytes:
    """A PointCloud2 of :data:`TRACK_FIELDS` without any points: nobody is tracked."""
    return cdr.point_cloud(stamp_ns, frame_id, np.empty(0, TRACK_FIELDS))


def no_patches(stamp_ns: int, frame_id: str) -> bytes:
    """A PoseArray without any patches."""
    return cdr.pose_array(stamp_ns, frame_id, np.empty((0, 3)), np.empty((0, 4)))


def patch_poses(frame: TrackedFrame) -> tuple[Float64, Float64]:
    """Where the patches are, (P, 3) metres, and how they turned since the previous frame, (P, 4) unit quaternions xyzw.

    In the first frame, for want of a motion, these are the centres of its patches and the identity.
    """
    patches = frame.previous_patches
    if patches is None:
        centres = frame.patches.centres.astype(np.float64)
        return centres, np.tile([0.0, 0.0, 0.0, 1.0], (len(centres), 1))
    known = np.isfinite(patches.translations).all(axis=1) & np.isfinite(patches.rotations).all(axis=(1, 2))
    quaternions = Rotation.from_matrix(patches.rotations[known]).as_quat() if known.any() else np.empty((0, 4))
    return patches.translations[known].astype(np.float64), quaternions


def patches_message(frame: TrackedFrame, frame_id: str) -> bytes:
    """Patches as a PoseArray of :func:`patch_poses`."""
    return cdr.pose_array(frame.stamp_ns, frame_id, *patch_poses(frame))


def decimated(vertices: Float32, faces: Int32, max_faces: int) -> Int32:
    """Faces of a coarser mesh on a subset of the same vertices, at most ``max_faces`` of them.

    Vertices that share a cell of a grid are replaced by one of them, and faces that collapse are dropped (Rossignac and
    Borrel 1993); the cells grow until the faces are few enough.
    """
    if len(faces) <= max_faces:
        return faces
    area = np.linalg.norm(face_normals(vertices, faces), axis=0).sum() / 2
    cell = np.sqrt(area / max_faces)
    origin = vertices.min(axis=0)
    while True:
        cells = np.floor((vertices - origin) / cell).astype(np.int64)
        key = np.ravel_multi_index(tuple(cells.T), tuple(cells.max(axis=0) + 1))
        _, first, group = np.unique(key, return_index=True, return_inverse=True)
        coarse = first[group].astype(np.int32)[faces]
        a, b, c = coarse.T
        coarse = coarse[(a != b) & (b != c) & (c != a)]
        if len(coarse) <= max_faces:
            return coarse
        cell *= 1.15
