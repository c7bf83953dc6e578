"""Clothed people out of MakeHuman's base mesh, morph targets, rig and clothes (all CC0).

A body is the base mesh plus weighted targets: blends of sex, age, build, weight, height and descent, and a few details
of torso and limbs. Clothes are fitted by their .mhclo files, skirt, tights and hair come from the base mesh's helper
geometry. All of it is wrapped into one closed surface, which inherits the rig's weights from the nearest parts.
"""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from nr_tracking.data.base_skin import lidded, thickened, with_lids
from nr_tracking.data.capsules import fitted
from nr_tracking.data.character import Character
from nr_tracking.data.remeshing import cap_holes, carry, smooth, wrap
from nr_tracking.data.skeleton import Skeleton
from nr_tracking.data.splits import Split, split_of_clothes
from nr_tracking.types import InputError

UNIT_M = 0.1
"""MakeHuman's unit, a decimetre."""
_CELLS = 115
"""Cells of the wrapped surface along the longest edge."""
_WORN_LOOSE = 0.35
"""Share of shirts, suits and trousers that hang loose where they stand off the body."""
_HAIRLINE = 0.52
"""How far to the front hair reaches, of what its helper does, which covers the face."""
_HANDS = 0.12
"""How much thicker hands are made on every side, in cells: the wrapped surface cuts off as much."""
_HAND = re.compile("Hand|Finger|Thumb")
_MOST_CHILD = 0.5
"""Share of the child in the youngest of validation and test, to whose bodies published scores refer."""
_PAIRS = (
    *("torso/torso-scale-horiz", "torso/torso-scale-depth", "torso/torso-scale-vert", "torso/torso-vshape"),
    *("hip/hip-scale-horiz", "hip/hip-scale-depth", "stomach/stomach-tone", "buttocks/buttocks-volume"),
    *("neck/neck-scale-vert", "neck/neck-scale-horiz", "torso/torso-muscle-pectoral", "stomach/stomach-pregnant"),
    *("armslegs/lowerlegs-height", "armslegs/upperlegs-height", "armslegs/*-lowerarm-scale-vert"),
    *(
        "armslegs/*-upperarm-scale-vert",
        "armslegs/*-upperleg-fat",
        "armslegs/*-lowerleg-fat",
        "armslegs/*-upperarm-fat",
    ),
    *("armslegs/*-hand-scale", "armslegs/*-foot-scale", "armslegs/*-upperarm-shoulder-muscle"),
)
"""Details that exist as ``-decr`` and ``-incr``; a star stands for both sides."""

_ROLES = {"Hips": "hips", "LowerBack": "spine", "Spine1": "chest", "Neck1": "neck", "Head": "head"}
for _side in ("Left", "Right"):
    for _joint, _role in (
        *(("Shoulder", "collar"), ("Arm", "arm"), ("ForeArm", "forearm"), ("Hand", "hand")),
        *(("UpLeg", "thigh"), ("Leg", "shin"), ("Foot", "foot"), ("ToeBase", "toe")),
    ):
        _ROLES[f"{_side}{_joint}"] = f"{_side.lower()}_{_role}"


@dataclass(frozen=True)
class Part:
    """Triangles ``faces`` (F, 3) over ``vertices`` (V, 3) metres with skinning ``weights`` (V, J).

    ``loose`` (V,) in [0, 1]: how freely a vertex hangs. ``sheet``: without an inside, like hair.
    """

    vertices: np.ndarray
    faces: np.ndarray
    weights: np.ndarray
    loose: np.ndarray
    sheet: bool = False


@dataclass(frozen=True)
class Garment:
    """A fitted piece: each vertex is a weighted mean of three base vertices plus an offset scaled with the body."""

    name: str
    anchors: np.ndarray
    shares: np.ndarray
    offsets: np.ndarray
    scales: np.ndarray
    faces: np.ndarray

    def fitted(self, base: np.ndarray) -> np.ndarray:
        """Vertices (V, 3) on a body (19158, 3), both in MakeHuman's unit."""
        first, second = self.scales[:, 0].astype(int), self.scales[:, 1].astype(int)
        axes = np.arange(3)
        scale = np.abs(base[first, axes] - base[second, axes]) / self.scales[:, 2]
        return np.einsum("vkc,vk->vc", base[self.anchors], self.shares) + self.offsets * scale


@dataclass(frozen=True)
class MakeHuman:
    """The assets in ``folder``: base ``vertices`` (V, 3), ``groups`` of triangles, joint cubes, rig and weights.

    The group "skin" is "body" with lids on mouth and eyes.
    """

    folder: Path
    vertices: np.ndarray
    groups: dict[str, np.ndarray]
    bones: dict[str, dict]
    weights: np.ndarray

    @staticmethod
    @lru_cache(maxsize=2)
    def load(folder: Path) -> MakeHuman:
        """Read the base mesh and the ``cmu_mb`` rig."""
        vertices, groups = read_obj(folder / "base" / "base.obj")
        bones = json.loads((folder / "rigs" / "rig.cmu_mb.json").read_text())
        order = _parents_first(bones)
        listed = json.loads((folder / "rigs" / "weights.cmu_mb.json").read_text())["weights"]
        weights = np.zeros((len(vertices), len(order)))
        for joint, bone in enumerate(order):
            if listed.get(bone):
                index, value = np.array(listed[bone], float).T
                weights[index.astype(int), joint] = value
        weights /= np.maximum(weights.sum(1, keepdims=True), 1e-12)
        groups["skin"] = lidded(groups["body"], len(vertices))
        return MakeHuman(folder, vertices, groups, {bone: bones[bone] for bone in order}, weights)

    def skeleton(self, base: np.ndarray) -> Skeleton:
        """The rig on a body (19158, 3), metres: a joint lies in the middle of its cube."""
        names = tuple(self.bones)
        ends: dict[str, dict[str, np.ndarray]] = {bone: {} for bone in names}
        for bone, entry in self.bones.items():
            for end in ("head", "tail"):
                if entry[end]["strategy"] == "CUBE":
                    cube = np.unique(self.groups[entry[end]["cube_name"]])
                    ends[bone][end] = base[cube].mean(0)
        # The one joint between two cubes, halfway up the neck.
        for bone, entry in self.bones.items():
            if "head" not in ends[bone]:
                ends[bone]["head"] = (ends[entry["parent"]]["head"] + ends[bone]["tail"]) / 2
        for bone, entry in self.bones.items():
            if "head" in ends[bone] and entry["parent"] and "tail" not in ends[entry["parent"]]:
                ends[entry["parent"]]["tail"] = ends[bone]["head"]
        parents = tuple(names.index(entry["parent"]) if entry["parent"] else -1 for entry in self.bones.values())
        heads, tails = (np.array([ends[bone][end] for bone in names]) * UNIT_M for end in ("head", "tail"))
        floor = base[np.unique(self.groups["body"]), 1].min() * UNIT_M
        lift = np.array([0, floor, 0])
        return Skeleton(names, parents, heads - lift, tails - lift)

    def draw(self, rng: np.random.Generator, identity: str, split: Split = "train") -> Character:
        """A random person in random clothes."""
        female = rng.random() < 0.5
        base = self.vertices.copy()
        for target, weight in random_targets(rng, female, most_child=1.0 if split == "train" else _MOST_CHILD):
            index, offset = read_target(self.folder / "targets" / f"{target}.target")
            base[index] += weight * offset
        parts = self._outfit(base, rng, female, split)
        vertices, faces, weights, loose, sheet = _joined(parts)
        lift = np.array([0, base[np.unique(self.groups["body"]), 1].min() * UNIT_M, 0])
        vertices = vertices * UNIT_M - lift
        outside, outside_faces = wrap(
            vertices, faces[~sheet], float(np.ptp(vertices, axis=0).max()) / _CELLS, faces[sheet]
        )
        outside = smooth(outside, outside_faces, int(rng.integers(1, 5)))
        values = carry(np.concatenate([weights, loose[:, None]], 1), vertices, faces, outside)
        looseness = np.clip(values[:, -1], 0, 1)
        skeleton, skin = self.skeleton(base), np.unique(self.groups["body"])
        body = fitted(base[skin] * UNIT_M - lift, self.weights[skin], skeleton)
        return Character(
            "makehuman",
            identity,
            outside,
            outside_faces,
            values[:, :-1] / np.maximum(values[:, :-1].sum(1, keepdims=True), 1e-12),
            skeleton,
            looseness,
            _ROLES,
            body,
        )

    def _outfit(self, base: np.ndarray, rng: np.random.Generator, female: bool, split: Split) -> list[Part]:
        parts = [self._skin(base)]
        dressed = rng.random()
        skirt_share = 0.45 if female else 0.12
        if dressed < skirt_share:
            parts += [self._skirt(base, rng), self._helper(base, "helper-tights")]
        elif dressed < 0.9:
            sex = "female" if female else "male"
            parts += self._fitted(base, rng, split, f"{sex}_*")
        elif dressed < 0.95:
            parts.append(self._helper(base, "helper-tights"))
        if rng.random() < 0.6:
            parts += self._fitted(base, rng, split, "shoes*")
        if rng.random() < (0.55 if female else 0.15):
            parts.append(self._hair(base, rng))
        elif rng.random() < 0.15:
            parts += self._fitted(base, rng, split, "fedora*")
        return parts

    def _skin(self, base: np.ndarray) -> Part:
        faces, vertices, weights = self.groups["skin"], with_lids(base), with_lids(self.weights)
        hand = weights[:, [bool(_HAND.search(bone)) for bone in self.bones]].sum(1)
        cell = float(np.ptp(base[np.unique(self.groups["body"])], axis=0).max()) / _CELLS
        return Part(thickened(vertices, faces, hand, _HANDS * cell), faces, weights, np.zeros(len(vertices)))

    def _helper(self, base: np.ndarray, group: str) -> Part:
        return Part(base, self.groups[group], self.weights, np.zeros(len(base)))

    def _skirt(self, base: np.ndarray, rng: np.random.Generator) -> Part:
        """The skirt helper, cut at a random length and widened, closed at both ends: a solid to the eye of a camera."""
        faces = self.groups["helper-skirt"]
        used = np.unique(faces)
        top, bottom = base[used, 1].max(), base[used, 1].min()
        hem = top - (top - bottom) * rng.uniform(0.45, 1.0)
        faces = faces[(base[faces, 1] > hem).any(1)]
        down = np.clip((top - base[:, 1]) / (top - bottom), 0, 1)
        middle = base[used].mean(0)
        flare = 1 + rng.uniform(0.0, 0.5) * down
        vertices = base.copy()
        vertices[:, [0, 2]] = middle[[0, 2]] + (base[:, [0, 2]] - middle[[0, 2]]) * flare[:, None]
        vertices, faces, rims = cap_holes(vertices, faces)
        loose = rng.uniform(0.5, 1.0) * np.clip(1.6 * down - 0.25, 0, 1)
        weights = np.vstack([self.weights, *[self.weights[rim].mean(0)[None] for rim in rims]])
        loose = np.concatenate([loose, [loose[rim].mean() for rim in rims]])
        return Part(vertices, faces, weights, loose)

    def _hair(self, base: np.ndarray, rng: np.random.Generator) -> Part:
        """The hair helper, cut at a random length, without what hangs in front of the face."""
        faces = self.groups["helper-hair"]
        low, high = base[np.unique(faces)].min(0), base[np.unique(faces)].max(0)
        end = low[1] + (high[1] - low[1]) * rng.uniform(0.0, 0.6)
        front = low[2] + _HAIRLINE * (high[2] - low[2])
        faces = faces[(base[faces, 1] > end).any(1) & (base[faces, 2].mean(1) < front)]
        loose = 0.6 * np.clip((0.55 * high[1] + 0.45 * low[1] - base[:, 1]) / (0.5 * (high[1] - low[1])), 0, 1)
        return Part(base, faces, self.weights, loose, sheet=True)

    def _fitted(self, base: np.ndarray, rng: np.random.Generator, split: Split, pattern: str) -> list[Part]:
        items = sorted((self.folder / "clothes").glob(f"{pattern}/*.mhclo"))
        # Held-out clothes stay out of training; held-out people may wear anything.
        items = [item for item in items if split != "train" or split_of_clothes(item.parent.name) == "train"]
        if not items:
            return []
        garment = read_garment(items[rng.integers(len(items))])
        weights = np.einsum("vkj,vk->vj", self.weights[garment.anchors], garment.shares)
        vertices = garment.fitted(base)
        loose = np.zeros(len(vertices))
        if pattern.endswith("male_*") and rng.random() < _WORN_LOOSE:
            # Cloth hangs where it stands off the skin: shirts around the waist, wide trouser legs.
            off, _ = cKDTree(base[np.unique(self.groups["body"])]).query(vertices)
            loose = rng.uniform(0.5, 0.9) * np.clip((off * UNIT_M - 0.02) / 0.03, 0, 1)
        return [Part(vertices, garment.faces, np.clip(weights, 0, None), loose)]


def random_targets(rng: np.random.Generator, female: bool, most_child: float = _MOST_CHILD) -> list[tuple[str, float]]:
    """Names and weights of the targets of a random person: an adult, or as young as ``most_child``, 1 for a child."""
    sexes = _blend(rng, ("female", "male") if female else ("male", "female"), 0.25)
    pair = [("young", "old"), ("young", "child"), ("old", "young")][rng.choice(3, p=[0.6, 0.2, 0.2])]
    ages = _blend(rng, pair, most_child if "child" in pair else 0.5)
    muscles = _blend(rng, ("averagemuscle", ("minmuscle", "maxmuscle")[rng.integers(2)]), 1.0)
    fats = _blend(rng, ("averageweight", ("minweight", "maxweight")[rng.integers(2)]), 1.0)
    descent = rng.dirichlet(np.ones(3))
    height, tall = ("minheight", "maxheight")[rng.integers(2)], 0.6 * rng.beta(1, 3)
    shape, much = ("idealproportions", "uncommonproportions")[rng.integers(2)], rng.uniform(0, 1.0)
    chosen: list[tuple[str, float]] = []
    for sex, s in sexes:
        for age, a in ages:
            for people, d in zip(("african", "asian", "caucasian"), descent, strict=True):
                chosen.append((f"macrodetails/{people}-{sex}-{age}", s * a * d))
            for muscle, m in muscles:
                for fat, f in fats:
                    build, share = f"{sex}-{age}-{muscle}-{fat}", s * a * m * f
                    chosen.append((f"macrodetails/universal-{build}", share))
                    chosen.append((f"macrodetails/height/{build}-{height}", share * tall))
                    chosen.append((f"macrodetails/proportions/{build}-{shape}", share * much))
    for pair in rng.choice(np.array(_PAIRS), 6, replace=False):
        way, weight = ("decr", "incr")[rng.integers(2)], rng.uniform(0.1, 0.8)
        for side in "lr" if "*" in pair else "-":
            chosen.append((f"{pair.replace('*', side)}-{way}", weight))
    return [(name, weight) for name, weight in chosen if weight > 0.01]


def _blend(rng: np.random.Generator, names: tuple[str, str], most: float) -> list[tuple[str, float]]:
    share = rng.uniform(0, most)
    return [(names[0], 1 - share), (names[1], share)]


@lru_cache(maxsize=700)
def read_target(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertex numbers (N,) and their offsets (N, 3) in MakeHuman's unit; a target may be missing or empty."""
    if not path.is_file():
        return np.zeros(0, int), np.zeros((0, 3))
    try:
        rows = [line for line in path.read_text().splitlines() if line and not line.startswith(("#", '"'))]
        values = np.array(" ".join(rows).split(), np.float32).reshape(-1, 4)
    except ValueError as error:
        raise InputError("corrupt_target", f"{path} is damaged: {error}") from None
    return values[:, 0].astype(int), values[:, 1:].astype(np.float64)


def read_obj(path: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Vertices (V, 3) and the triangles (F, 3) of each group of a Wavefront file; polygons are cut into fans."""
    vertices: list[list[str]] = []
    groups: dict[str, list[tuple[int, int, int]]] = {}
    group = ""
    try:
        for line in path.read_text().splitlines():
            words = line.split()
            if not words:
                continue
            if words[0] == "v":
                vertices.append(words[1:4])
            elif words[0] == "g":
                group = words[1] if len(words) > 1 else ""
            elif words[0] == "f":
                corners = [int(word.split("/")[0]) - 1 for word in words[1:]]
                fan = [(corners[0], b, c) for b, c in itertools.pairwise(corners[1:])]
                groups.setdefault(group, []).extend(fan)
        places = np.array(vertices, float).reshape(-1, 3)
    except (OSError, ValueError) as error:
        raise InputError("corrupt_mesh", f"{path} cannot be read: {error}") from None
    return places, {name: np.array(faces, np.int64) for name, faces in groups.items()}


@lru_cache(maxsize=64)
def read_garment(path: Path) -> Garment:
    """Read a .mhclo file and the mesh that it names."""
    scales, rows, mesh, listing = np.zeros((3, 3)), [], "", False
    try:
        for line in path.read_text().splitlines():
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if words[0].isdigit():
                rows += [words] if listing else []
                continue
            if words[0] in ("verts", "weights", "delete_verts"):
                listing = words[0] == "verts"
            if words[0] == "obj_file":
                mesh = words[1]
            elif words[0] in ("x_scale", "y_scale", "z_scale"):
                scales["xyz".index(words[0][0])] = np.array(words[1:4], float)
        # A vertex that follows a single base vertex is listed by that number alone.
        full = [row if len(row) == 9 else [row[0]] * 3 + ["1", "0", "0", "0", "0", "0"] for row in rows]
        values = np.array(full, float).reshape(-1, 9)
    except (OSError, ValueError, IndexError) as error:
        raise InputError("corrupt_garment", f"{path} cannot be read: {error!r}") from None
    vertices, groups = read_obj(path.parent / mesh)
    if len(vertices) != len(values):
        raise InputError("corrupt_garment", f"{path} fits {len(values)} vertices, {mesh} has {len(vertices)}")
    faces = np.concatenate(list(groups.values()))
    return Garment(path.stem, values[:, :3].astype(int), values[:, 3:6], values[:, 6:], scales, faces)


def _joined(parts: list[Part]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, faces, weights and looseness of all, and which faces are sheets."""
    counts = np.cumsum([0, *[len(part.vertices) for part in parts]])
    faces = np.concatenate([part.faces + start for part, start in zip(parts, counts[:-1], strict=True)])
    vertices, weights = (np.concatenate([getattr(part, key) for part in parts]) for key in ("vertices", "weights"))
    sheet = np.repeat([part.sheet for part in parts], [len(part.faces) for part in parts])
    return vertices, faces, weights, np.concatenate([part.loose for part in parts]), sheet


def _parents_first(bones: dict[str, dict]) -> list[str]:
    def depth(bone: str) -> int:
        parent = bones[bone]["parent"]
        return 0 if not parent else 1 + depth(parent)

    return sorted(bones, key=depth)
