"""Motion capture files: BVH, ASF/AMC and DeepMimic's JSON, each read into the same :class:`Motion`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from nr_tracking.data.motion import Motion
from nr_tracking.types import InputError

AMC_FPS = 120.0
"""AMC files do not say it; the CMU database is captured at 120 Hz."""
_ANKLE_OVER_FLOOR = 1.08
"""Hip height over the length of the leg down to the ankle."""

_BVH = {"Hips": "hips", "Chest": "spine", "Chest2": "chest", "Neck": "neck", "Head": "head"}
_ASF = {"root": "hips", "lowerback": "spine", "thorax": "chest", "lowerneck": "neck", "head": "head"}
for _side, _letter in (("left", "l"), ("right", "r")):
    for _joint, _role in (
        *(("Collar", "collar"), ("Shoulder", "arm"), ("Elbow", "forearm"), ("Wrist", "hand")),
        *(("Hip", "thigh"), ("Knee", "shin"), ("Ankle", "foot"), ("Toe", "toe")),
    ):
        _BVH[f"{_side.title()}{_joint}"] = f"{_side}_{_role}"
    for _joint, _role in (
        *(("clavicle", "collar"), ("humerus", "arm"), ("radius", "forearm"), ("hand", "hand")),
        *(("femur", "thigh"), ("tibia", "shin"), ("foot", "foot"), ("toes", "toe")),
    ):
        _ASF[f"{_letter}{_joint}"] = f"{_side}_{_role}"


def read_bvh(path: str | Path) -> Motion:
    """Read a BVH file that uses the joint names of CMU's; any rotation order, any indentation."""
    path = Path(path)
    try:
        head, _, data = path.read_text().partition("MOTION")
        names, parents, offsets, channels = _bvh_hierarchy(head.split())
        lines = data.strip().splitlines()
        count, step = int(lines[0].split(":")[1]), float(lines[1].split(":")[1])
        values = np.array(" ".join(lines[2:]).split(), float).reshape(count, -1)
        return _bvh_motion(path.stem, 1 / step, names, parents, offsets, channels, values)
    except (ValueError, IndexError, KeyError) as error:
        raise InputError("corrupt_motion", f"{path} is damaged or not a BVH file: {error!r}") from None


def _bvh_hierarchy(words: list[str]) -> tuple[list[str], list[int], list[np.ndarray], list[list[str]]]:
    """Joints in the order of their channels; end sites appear as joints without channels."""
    names: list[str] = []
    parents: list[int] = []
    offsets: list[np.ndarray] = []
    channels: list[list[str]] = []
    stack = [-1]
    at = 0
    while at < len(words):
        word = words[at]
        if word in ("ROOT", "JOINT", "End"):
            names.append(words[at + 1])
            parents.append(stack[-1])
            offsets.append(np.zeros(3))
            channels.append([])
            at += 1
        elif word == "{":
            stack.append(len(names) - 1)
        elif word == "}":
            stack.pop()
        elif word == "OFFSET":
            offsets[-1] = np.array(words[at + 1 : at + 4], float)
            at += 3
        elif word == "CHANNELS":
            channels[-1] = words[at + 2 : at + 2 + int(words[at + 1])]
            at += 1 + len(channels[-1])
        at += 1
    if not names:
        raise ValueError("no joints")
    return names, parents, offsets, channels


def _bvh_motion(
    name: str,
    fps: float,
    names: list[str],
    parents: list[int],
    offsets: list[np.ndarray],
    channels: list[list[str]],
    values: np.ndarray,
) -> Motion:
    world = np.empty((len(values), len(names), 3, 3))
    root = np.zeros((len(values), 3))
    column = 0
    for joint, kinds in enumerate(channels):
        part = values[:, column : column + len(kinds)]
        column += len(kinds)
        turning = [i for i, kind in enumerate(kinds) if kind.endswith("rotation")]
        order = "".join(kinds[i][0] for i in turning)
        local = Rotation.from_euler(order, part[:, turning], degrees=True).as_matrix() if order else np.eye(3)[None]
        world[:, joint] = local if parents[joint] < 0 else world[:, parents[joint]] @ local
        if parents[joint] < 0:
            for axis, letter in enumerate("XYZ"):
                if f"{letter}position" in kinds:
                    root[:, axis] = part[:, kinds.index(f"{letter}position")]
    directions = np.zeros((len(names), 3))
    for joint, parent in enumerate(parents):
        if parent >= 0 and not directions[parent].any():
            directions[parent] = offsets[joint] / max(float(np.linalg.norm(offsets[joint])), 1e-12)
    legs = [
        np.linalg.norm(offsets[names.index(f"{side}{joint}")])
        for side in ("Left", "Right")
        for joint in ("Knee", "Ankle")
    ]
    return _known(name, fps, names, _BVH, directions, world, root, _ANKLE_OVER_FLOOR * float(sum(legs)) / 2)


def read_amc(path: str | Path, skeleton: str | Path) -> Motion:
    """Read an AMC file on its ASF ``skeleton``."""
    path, skeleton = Path(path), Path(skeleton)
    try:
        bones, parents = _asf(skeleton.read_text())
    except (ValueError, IndexError, KeyError) as error:
        raise InputError("corrupt_motion", f"{skeleton} is damaged or not an ASF file: {error!r}") from None
    try:
        frames = _amc_frames(path.read_text())
        return _amc_motion(path.stem, bones, parents, frames)
    except (ValueError, IndexError, KeyError) as error:
        raise InputError("corrupt_motion", f"{path} is damaged or not an AMC file: {error!r}") from None


def _asf(text: str) -> tuple[dict[str, dict[str, list[str]]], dict[str, str]]:
    """Properties of each bone, parents first, and each bone's parent."""
    bones: dict[str, dict[str, list[str]]] = {"root": {"dof": ["rx", "ry", "rz"]}}
    parents: dict[str, str] = {}
    _, _, bone_data = text.partition(":bonedata")
    bone_data, _, hierarchy = bone_data.partition(":hierarchy")
    for block in bone_data.split("begin")[1:]:
        rows = {words[0]: words[1:] for words in map(str.split, block.splitlines()) if words}
        bones[rows["name"][0]] = rows
    for line in hierarchy.splitlines():
        words = line.split()
        if len(words) > 1:
            parents.update(dict.fromkeys(words[1:], words[0]))
    return {name: bones[name] for name in ["root", *parents]}, parents


def _amc_frames(text: str) -> dict[str, np.ndarray]:
    values: dict[str, list[list[str]]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and not words[0].startswith(("#", ":")):
            values.setdefault(words[0], []).append(words[1:])
    return {name: np.array(rows, float) for name, rows in values.items()}


def _amc_motion(
    name: str, bones: dict[str, dict[str, list[str]]], parents: dict[str, str], frames: dict[str, np.ndarray]
) -> Motion:
    count = len(frames["root"])
    names = list(bones)
    world = np.empty((count, len(names), 3, 3))
    directions = np.zeros((len(names), 3))
    for joint, bone in enumerate(names):
        angles = np.zeros((count, 3))
        given = frames["root"][:, 3:6] if bone == "root" else frames.get(bone, np.zeros((count, 0)))
        for column, freedom in enumerate(bones[bone].get("dof", [])[: given.shape[1]]):
            angles[:, "xyz".index(freedom[1])] = given[:, column]
        local = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
        if bone == "root":
            world[:, joint] = local
            directions[joint] = (0, 1, 0)
            continue
        axis = Rotation.from_euler("xyz", np.array(bones[bone]["axis"][:3], float), degrees=True).as_matrix()
        world[:, joint] = world[:, names.index(parents[bone])] @ axis @ local @ axis.T
        directions[joint] = np.array(bones[bone]["direction"], float)
    legs = sum(float(bones[f"{letter}{bone}"]["length"][0]) for letter in "lr" for bone in ("femur", "tibia"))
    root = frames["root"][:, :3]
    return _known(name, AMC_FPS, names, _ASF, directions, world, root, _ANKLE_OVER_FLOOR * legs / 2)


_DEEPMIMIC = (
    *(("hips", "", 4), ("chest", "hips", 4), ("neck", "chest", 4)),
    *(("right_thigh", "hips", 4), ("right_shin", "right_thigh", 1), ("right_foot", "right_shin", 4)),
    *(("right_arm", "chest", 4), ("right_forearm", "right_arm", 1)),
    *(("left_thigh", "hips", 4), ("left_shin", "left_thigh", 1), ("left_foot", "left_shin", 4)),
    *(("left_arm", "chest", 4), ("left_forearm", "left_arm", 1)),
)
_DEEPMIMIC_HIP_HEIGHT = 0.89
_DEEPMIMIC_AXES = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
"""Their x is forward, y up, z to the right; ours z forward, y up, x to the left."""


def read_deepmimic(path: str | Path) -> Motion:
    """Read a humanoid3d motion: root position, then quaternions (w x y z) and hinge angles about z, joint by joint."""
    path = Path(path)
    try:
        frames = np.array(json.loads(path.read_text())["Frames"], float)
        if frames.ndim != 2 or frames.shape[1] != 4 + sum(width for _, _, width in _DEEPMIMIC):
            raise ValueError(f"frames of shape {frames.shape}")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError("corrupt_motion", f"{path} is damaged or no humanoid motion: {error!r}") from None
    names = [name for name, _, _ in _DEEPMIMIC]
    world = np.empty((len(frames), len(names), 3, 3))
    column = 4
    for joint, (_, parent, width) in enumerate(_DEEPMIMIC):
        part = frames[:, column : column + width]
        column += width
        if width == 4:
            local = Rotation.from_quat(part[:, [1, 2, 3, 0]]).as_matrix()
        else:
            local = Rotation.from_rotvec(part * np.array([0.0, 0.0, 1.0])).as_matrix()
        world[:, joint] = world[:, names.index(parent)] @ local if parent else local
    turn = _DEEPMIMIC_AXES
    directions = np.array(
        [(0, 0, 1) if "foot" in n else (0, 1, 0) if "_" not in n else (0, -1, 0) for n in names], float
    )
    return Motion(
        path.stem,
        1 / float(frames[0, 0]),
        tuple(names),
        directions,
        turn @ world @ turn.T,
        frames[:, 1:4] @ turn.T,
        _DEEPMIMIC_HIP_HEIGHT,
    )


def _known(
    name: str,
    fps: float,
    names: list[str],
    roles: dict[str, str],
    directions: np.ndarray,
    world: np.ndarray,
    root: np.ndarray,
    hip_height: float,
) -> Motion:
    """Keep the joints that have a role."""
    kept = [joint for joint, own in enumerate(names) if own in roles]
    if not any(roles[names[joint]] == "hips" for joint in kept):
        raise ValueError(f"no hips among the joints {', '.join(names[:8])}, ...")
    joints = tuple(roles[names[joint]] for joint in kept)
    return Motion(name, fps, joints, directions[kept], world[:, kept], root, hip_height)
