"""Skinned, animated characters from binary glTF files (.glb), read with numpy and json alone.

Covers what skinned characters use: triangle primitives, one skin, and linear or stepped animations of translation,
rotation and scale. Sheets, seams and separate pieces stay as they are; wrap them with
:func:`nr_tracking.data.remeshing.wrap`.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from nr_tracking.types import InputError

_COMPONENT = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_WIDTH = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_AT_LEG_END = 0.02
"""How far from a bone's end a foot may begin, over the skeleton's longest extent."""
_UNMOVED = {"translation": (0.0, 0.0, 0.0), "rotation": (0.0, 0.0, 0.0, 1.0), "scale": (1.0, 1.0, 1.0)}


@dataclass(frozen=True)
class Track:
    """One animated property of a node: ``values`` (K, 3 or 4) at ``times`` (K,) seconds."""

    node: int
    path: str
    times: np.ndarray
    values: np.ndarray
    stepped: bool

    def at(self, times: np.ndarray) -> np.ndarray:
        """Values (T, 3 or 4) at ``times`` (T,), held beyond the ends; quaternions are x y z w."""
        after = np.clip(np.searchsorted(self.times, times, side="right"), 1, max(len(self.times) - 1, 1))
        before = after - 1
        after = np.minimum(after, len(self.times) - 1)
        if self.stepped:
            return self.values[np.where(times >= self.times[after], after, before)]
        gap = np.maximum(self.times[after] - self.times[before], 1e-9)
        share = np.clip((times - self.times[before]) / gap, 0, 1)[:, None]
        first, second = self.values[before], self.values[after]
        if self.path != "rotation":
            return first + share * (second - first)
        step = (Rotation.from_quat(second) * Rotation.from_quat(first).inv()).as_rotvec()
        return (Rotation.from_rotvec(share * step) * Rotation.from_quat(first)).as_quat()


@dataclass(frozen=True)
class GltfCharacter:
    """``vertices`` (V, 3) and ``faces`` (F, 3) in the bind pose, ``weights`` (V, J), ``joints`` (J,) node numbers.

    ``inverse_bind`` (J, 4, 4); ``rest`` per node: its translation, rotation (x y z w) and scale; ``parents`` per node;
    ``names`` per node; ``clips``: the tracks of each animation.
    """

    vertices: np.ndarray
    faces: np.ndarray
    weights: np.ndarray
    joints: np.ndarray
    inverse_bind: np.ndarray
    names: tuple[str, ...]
    parents: tuple[int, ...]
    rest: tuple[dict[str, np.ndarray], ...]
    clips: dict[str, tuple[Track, ...]]

    def duration(self, clip: str) -> float:
        """Seconds of an animation."""
        return max((float(track.times[-1]) for track in self.clips[clip]), default=0.0)

    def transforms(
        self, clip: str, times: np.ndarray, proportions: np.ndarray | None = None, turns: np.ndarray | None = None
    ) -> np.ndarray:
        """Skinning transforms (T, J, 3, 4) of an animation at ``times`` (T,) seconds.

        ``proportions`` (nodes, 3) stretch each node's own axes, flesh and the way to its children alike, and ``turns``
        (T, J, 3, 3) turn each joint besides, in axes of its own; feet that hang on the root go with the legs that end
        at them.
        """
        same = np.ones((len(self.names), 3))
        as_animated = self._skinning(clip, times, same)
        if proportions is None and turns is None:
            return as_animated[:, :, :3]
        stretched = self._skinning(clip, times, same if proportions is None else proportions, turns)
        for foot, leg in self.feet():
            # A foot that hangs on the root is animated where the unstretched leg ends: it moves with that end.
            ankle = np.linalg.inv(self.inverse_bind[foot])[:, 3]
            moved = (as_animated[:, foot] - stretched[:, foot] + stretched[:, leg] - as_animated[:, leg]) @ ankle
            for row in self._at_and_under(foot):
                stretched[:, row, :, 3] += moved
        return stretched[:, :, :3]

    def feet(self) -> list[tuple[int, int]]:
        """Rows in ``joints`` of feet that hang on the root, for inverse kinematics, each with the leg that ends there.

        In the file nothing but the animation joins the two.
        """
        places = self.bind_places()
        near = _AT_LEG_END * float(np.ptp(places, axis=0).max())
        ends = self._bone_ends()
        found = []
        for foot, node in enumerate(self.joints.tolist()):
            above = self._above(node)
            if sum(self._row(up) is not None for up in above) > 1:
                continue
            own = {node, *above, *self.joints[self._at_and_under(foot)].tolist()}
            away = [
                (float(np.linalg.norm(end - places[foot])), leg)
                for leg, end in ends
                if int(self.joints[leg]) not in own
            ]
            if away and min(away)[0] < near:
                found.append((foot, min(away)[1]))
        return found

    def _bone_ends(self) -> list[tuple[int, np.ndarray]]:
        """Where the children of joints are in the bind pose, skinned or mere marks of an end: (row, place) each."""
        bind = np.linalg.inv(self.inverse_bind)
        ends = []
        for node, parent in enumerate(self.parents):
            row = self._row(parent)
            if row is not None:
                own = self._row(node)
                mark = (bind[row] @ np.append(self.rest[node]["translation"], 1))[:3]
                ends.append((row, mark if own is None else bind[own][:3, 3]))
        return ends

    def _row(self, node: int) -> int | None:
        """The row of a node in ``joints``, None where it is no joint."""
        rows = np.flatnonzero(self.joints == node)
        return int(rows[0]) if len(rows) else None

    def _above(self, node: int) -> list[int]:
        """A node's ancestors, the nearest first."""
        above = []
        while self.parents[node] >= 0:
            node = self.parents[node]
            above.append(node)
        return above

    def _at_and_under(self, row: int) -> list[int]:
        """The rows of a joint and of all that hang on it."""
        node = int(self.joints[row])
        return [own for own, other in enumerate(self.joints.tolist()) if node in (other, *self._above(other))]

    def limbs(self) -> np.ndarray:
        """Whether each joint (J,) hangs on another one, and is no foot that goes with a leg."""
        feet = {foot for foot, _ in self.feet()}
        return np.array(
            [
                row not in feet and any(self._row(above) is not None for above in self._above(int(node)))
                for row, node in enumerate(self.joints)
            ]
        )

    def _skinning(
        self, clip: str, times: np.ndarray, stretch: np.ndarray, turns: np.ndarray | None = None
    ) -> np.ndarray:
        """Skinning transforms (T, J, 4, 4) with each node's axes stretched (nodes, 3), and its joints turned."""
        moved = {(track.node, track.path): track.at(times) for track in self.clips[clip]}
        world = np.empty((len(self.names), len(times), 4, 4))
        for node in self._parents_first():
            still = self.rest[node]
            values = {
                path: moved.get((node, path), np.broadcast_to(still[path], (len(times), len(still[path]))))
                for path in still
            }
            parent = self.parents[node]
            place = values["translation"] if parent < 0 else values["translation"] * stretch[parent]
            local = np.zeros((len(times), 4, 4))
            local[:, :3, :3] = Rotation.from_quat(values["rotation"]).as_matrix()
            row = None if turns is None else self._row(node)
            if turns is not None and row is not None:
                local[:, :3, :3] = local[:, :3, :3] @ turns[:, row]
            local[:, :3, :3] *= values["scale"][:, None]
            local[:, :3, 3], local[:, 3, 3] = place, 1
            world[node] = local if parent < 0 else world[parent] @ local
        stretched = self.inverse_bind.copy()
        stretched[:, :3] *= stretch[self.joints][:, :, None]
        return world[self.joints].swapaxes(0, 1) @ stretched

    def bind_places(self) -> np.ndarray:
        """Places (J, 3) of the joints in the bind pose."""
        return np.linalg.inv(self.inverse_bind)[:, :3, 3]

    def _parents_first(self) -> list[int]:
        return sorted(range(len(self.parents)), key=lambda node: len(self._above(node)))


def read_gltf(path: str | Path) -> GltfCharacter:
    """Read a .glb file with one skin; :class:`InputError` where it is damaged or has no skinned triangles."""
    path = Path(path)
    try:
        document, binary = _chunks(path.read_bytes())
        return _character(document, binary)
    except InputError as error:
        raise InputError(error.reason, f"{path}: {error}") from None
    except (KeyError, IndexError, ValueError, struct.error) as error:
        raise InputError("corrupt_gltf", f"{path} is damaged or not a skinned glTF 2.0 file: {error!r}") from None


def _chunks(data: bytes) -> tuple[dict[str, Any], bytes]:
    magic, version, _ = struct.unpack_from("<4sII", data)
    if magic != b"glTF" or version != 2:
        raise InputError("corrupt_gltf", f"starts with {magic!r}, version {version}: not binary glTF 2.0")
    length = struct.unpack_from("<I", data, 12)[0]
    start = 20 + length
    size = struct.unpack_from("<I", data, start)[0]
    return json.loads(data[20:start]), data[start + 8 : start + 8 + size]


def _accessor(document: dict[str, Any], binary: bytes, number: int) -> np.ndarray:
    accessor = document["accessors"][number]
    view = document["bufferViews"][accessor["bufferView"]]
    kind = np.dtype(_COMPONENT[accessor["componentType"]])
    width = _WIDTH[accessor["type"]]
    start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    stride = view.get("byteStride", kind.itemsize * width)
    if stride < kind.itemsize * width:  # with 0 a few bytes would stand for any number of rows
        raise ValueError(f"rows of {kind.itemsize * width} bytes that begin every {stride}")
    values = np.ndarray((accessor["count"], width), kind, binary, start, strides=(stride, kind.itemsize))
    if accessor.get("normalized"):
        return values / float(np.iinfo(kind.name).max)
    return values.copy()


def _character(document: dict[str, Any], binary: bytes) -> GltfCharacter:
    nodes = document["nodes"]
    if not document.get("skins"):
        raise InputError("no_skin", "has no skin: only skinned characters can be animated")
    skin = document["skins"][0]
    joints = np.array(skin["joints"])
    vertices, faces, weights, count = [], [], [], 0
    for node in nodes:
        if "mesh" not in node or "skin" not in node:
            continue
        for part in document["meshes"][node["mesh"]]["primitives"]:
            if part.get("mode", 4) != 4 or "JOINTS_0" not in part["attributes"]:
                continue
            values = {name: _accessor(document, binary, at) for name, at in part["attributes"].items()}
            place = values["POSITION"].astype(np.float64)
            dense = np.zeros((len(place), len(joints)))
            for joint, weight in zip(values["JOINTS_0"].T, values["WEIGHTS_0"].T, strict=True):
                np.add.at(dense, (np.arange(len(place)), joint), weight)
            index = (
                np.arange(len(place)) if "indices" not in part else _accessor(document, binary, part["indices"])[:, 0]
            )
            vertices.append(place)
            weights.append(dense / np.maximum(dense.sum(1, keepdims=True), 1e-12))
            faces.append(index.astype(np.int64).reshape(-1, 3) + count)
            count += len(place)
    if not faces:
        raise InputError("no_skin", "has no skinned triangles")
    inverse_bind = _accessor(document, binary, skin["inverseBindMatrices"]).reshape(-1, 4, 4).swapaxes(1, 2)
    parents = [-1] * len(nodes)
    for number, node in enumerate(nodes):
        for child in node.get("children", []):
            parents[child] = number
    return GltfCharacter(
        np.concatenate(vertices),
        np.concatenate(faces),
        np.concatenate(weights),
        joints,
        inverse_bind.astype(np.float64),
        tuple(node.get("name", str(i)) for i, node in enumerate(nodes)),
        tuple(parents),
        tuple(_rest(node) for node in nodes),
        {
            clip.get("name", str(i)): tuple(_tracks(document, binary, clip))
            for i, clip in enumerate(document.get("animations", []))
        },
    )


def _rest(node: dict[str, Any]) -> dict[str, np.ndarray]:
    if "matrix" not in node:
        return {path: np.array(node.get(path, default), float) for path, default in _UNMOVED.items()}
    matrix = np.array(node["matrix"], float).reshape(4, 4).T
    scale = np.linalg.norm(matrix[:3, :3], axis=0)
    return {
        "translation": matrix[:3, 3],
        "rotation": Rotation.from_matrix(matrix[:3, :3] / scale).as_quat(),
        "scale": scale,
    }


def _tracks(document: dict[str, Any], binary: bytes, clip: dict[str, Any]) -> list[Track]:
    tracks = []
    for channel in clip["channels"]:
        sampler = clip["samplers"][channel["sampler"]]
        times = _accessor(document, binary, sampler["input"])[:, 0].astype(np.float64)
        values = _accessor(document, binary, sampler["output"]).astype(np.float64)
        how = sampler.get("interpolation", "LINEAR")
        if how == "CUBICSPLINE":
            # In-tangent, value, out-tangent: the values alone, joined linearly, are close enough at animation rates.
            values = values[1::3]
        path = channel["target"]["path"]
        if path in _UNMOVED and "node" in channel["target"]:
            tracks.append(Track(channel["target"]["node"], path, times, values, how == "STEP"))
    return tracks
