"""Triangle meshes as binary PLY files, with what the camera saw of each vertex."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nr_tracking.types import Bool, Float32, InputError, Int32

_PLAIN = [("position", "<f4", 3), ("colour", "u1", 3)]
_VERTEX = np.dtype([*_PLAIN, ("confidence", "<f4"), ("observed", "u1")])
_FACE = np.dtype([("count", "u1"), ("corners", "<i4", 3)])
_HEADER_BYTES = 1024
_HEADER = """ply
format binary_little_endian 1.0
comment metres, camera optical frame, colour = correspondence
element vertex {vertices}
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
{known}element face {faces}
property list uchar int vertex_indices
end_header
"""
_KNOWN = "property float confidence\nproperty uchar observed\n"


def write_ply(
    path: Path, vertices: Float32, faces: Int32, colours: NDArray[np.uint8], confidence: Float32, observed: Bool
) -> None:
    """Write vertices (V, 3), faces (F, 3) and sRGB colours (V, 3) as little-endian binary PLY.

    ``confidence`` and ``observed`` (V,) are those of a :class:`~nr_tracking.types.Surface`.
    """
    vertex = np.empty(len(vertices), _VERTEX)
    vertex["position"], vertex["colour"] = vertices, colours
    vertex["confidence"], vertex["observed"] = confidence, observed
    face = np.empty(len(faces), _FACE)
    face["count"], face["corners"] = 3, faces
    header = _HEADER.format(vertices=len(vertices), known=_KNOWN, faces=len(faces)).encode("ascii")
    path.write_bytes(header + vertex.tobytes() + face.tobytes())


def read_ply(path: Path) -> tuple[Float32, Int32, NDArray[np.uint8]]:
    """Read a mesh that :func:`write_ply` wrote: vertices, faces, colours. Other kinds are an :class:`InputError`."""
    data = path.read_bytes()
    counts = re.findall(rb"^element (?:vertex|face) (\d{1,18})$", data[:_HEADER_BYTES], re.MULTILINE)
    vertices, faces = map(int, counts) if len(counts) == 2 else (0, 0)
    kind = _VERTEX if _KNOWN.encode("ascii") in data[:_HEADER_BYTES] else np.dtype(_PLAIN)  # as it was in the beginning
    known = _KNOWN if kind is _VERTEX else ""
    header = _HEADER.format(vertices=vertices, known=known, faces=faces).encode("ascii")
    vertex_bytes = vertices * kind.itemsize
    if not data.startswith(header) or len(data) != len(header) + vertex_bytes + faces * _FACE.itemsize:
        raise InputError("bad_mesh", f"{path} is no mesh written by nr_tracking, or it is cut short")
    vertex = np.frombuffer(data, kind, vertices, len(header))
    face = np.frombuffer(data, _FACE, faces, len(header) + vertex_bytes)
    return vertex["position"].copy(), face["corners"].copy(), vertex["colour"].copy()
