"""Readers of character and motion files, each on a tiny file written here; real data where NR_TRACKING_DATA is set."""

from __future__ import annotations

import json
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nr_tracking.data.clips import is_closed, static_correspondence_error
from nr_tracking.data.families import FAMILIES, available_families
from nr_tracking.data.gaits import dance
from nr_tracking.data.gltf import Track, read_gltf
from nr_tracking.data.makehuman import Garment, random_targets, read_garment, read_obj, read_target
from nr_tracking.data.mocap import read_amc, read_bvh, read_deepmimic
from nr_tracking.data.motion import JOINTS, Motion, retarget
from nr_tracking.data.procedural import draw_person
from nr_tracking.data.skeleton import Skeleton, blend, joint_places, rotations
from nr_tracking.types import InputError

BVH = (
    """HIERARCHY
ROOT Hips
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
"""
    + "".join(
        f"""  JOINT {side}Hip
  {{
    OFFSET {x} 0 0
    CHANNELS 3 Zrotation Yrotation Xrotation
    JOINT {side}Knee
    {{
      OFFSET 0 -5 0
      CHANNELS 3 Zrotation Yrotation Xrotation
      JOINT {side}Ankle
      {{
        OFFSET 0 -4 0
        CHANNELS 3 Zrotation Yrotation Xrotation
        End Site
        {{
          OFFSET 0 0 2
        }}
      }}
    }}
  }}
"""
        for side, x in (("Left", 1), ("Right", -1))
    )
    + "}\nMOTION\nFrames: 2\nFrame Time: 0.01\n"
)


def bvh_frame(root: tuple[float, ...], hip: tuple[float, ...]) -> str:
    return " ".join(map(str, [*root, 0, 0, 0, *hip, *[0] * 15])) + "\n"


def test_a_bvh_file_gives_rotations_in_the_world(tmp_path: Path) -> None:
    path = tmp_path / "walk.bvh"
    path.write_text(BVH + bvh_frame((1, 9, 0), (0, 0, 0)) + bvh_frame((2, 9, 0), (0, 0, -90)))
    motion = read_bvh(path)
    assert motion.fps == pytest.approx(100) and motion.name == "walk"
    assert motion.hip_height == pytest.approx(9 * 1.08)
    np.testing.assert_allclose(motion.root, [[1, 9, 0], [2, 9, 0]])
    thigh, shin = motion.joints.index("left_thigh"), motion.joints.index("left_shin")
    np.testing.assert_allclose(motion.directions[thigh], [0, -1, 0])
    # The hip turns by -90 degrees about x: the leg that hung down now points forwards, the shin with it.
    for joint in (thigh, shin):
        np.testing.assert_allclose(motion.rotations[1, joint] @ [0, -1, 0], [0, 0, 1], atol=1e-9)
    np.testing.assert_allclose(motion.rotations[1, motion.joints.index("right_thigh")], np.eye(3), atol=1e-9)


ASF = (
    """:version 1.10
:units
  angle deg
:root
   order TX TY TZ RX RY RZ
:bonedata
"""
    + "".join(
        f"""  begin
     id {number}
     name {letter}{bone}
     direction 0 -1 0
     length {length}
     axis 0 0 {axis} XYZ
     {dof}
  end
"""
        for number, (letter, bone, length, axis, dof) in enumerate(
            (letter, bone, length, axis, dof)
            for letter in "lr"
            for bone, length, axis, dof in (("femur", 7, 90, "dof rx ry rz"), ("tibia", 6, 0, "dof rx"))
        )
    )
    + """:hierarchy
  begin
    root lfemur rfemur
    lfemur ltibia
    rfemur rtibia
  end
"""
)


def test_an_amc_file_turns_bones_about_their_own_axes(tmp_path: Path) -> None:
    (tmp_path / "01.asf").write_text(ASF)
    path = tmp_path / "01_01.amc"
    path.write_text("#\n:DEGREES\n1\nroot 1 17 0 0 0 0\nlfemur 0 90 0\nltibia 0\nrfemur 0 0 0\nrtibia 90\n")
    motion = read_amc(path, tmp_path / "01.asf")
    assert motion.hip_height == pytest.approx(13 * 1.08)
    thigh = motion.rotations[0, motion.joints.index("left_thigh")]
    # The femur's y axis is the world's -x (its frame stands turned by 90 degrees about z).
    np.testing.assert_allclose(thigh, rotations(np.array([-np.pi / 2, 0, 0])), atol=1e-9)
    shin = motion.rotations[0, motion.joints.index("right_shin")]
    np.testing.assert_allclose(shin, rotations(np.array([np.pi / 2, 0, 0])), atol=1e-9)


def test_a_deepmimic_file_is_turned_to_face_z(tmp_path: Path) -> None:
    unit = [1.0, 0, 0, 0]
    half = [np.sqrt(0.5), 0, 0, np.sqrt(0.5)]
    frame = [0.02, 3, 0.9, 1, *unit, *unit, *unit, *half, -0.5, *unit, *unit, 0.3, *unit, 0, *unit, *unit, 0]
    path = tmp_path / "humanoid3d_kick.txt"
    path.write_text(json.dumps({"Loop": "none", "Frames": [frame, frame]}))
    motion = read_deepmimic(path)
    assert motion.fps == pytest.approx(50)
    # Their z is our -x, their x our z: a right thigh turned by +90 degrees about their z swings forwards.
    np.testing.assert_allclose(motion.root[0], [-1, 0.9, 3])
    thigh = motion.rotations[0, motion.joints.index("right_thigh")]
    np.testing.assert_allclose(thigh @ [0, -1, 0], [0, 0, 1], atol=1e-9)


@pytest.mark.parametrize("reader", [read_bvh, lambda p: read_amc(p, p), read_deepmimic])
@pytest.mark.parametrize("text", ["", "nonsense", "HIERARCHY\nROOT a\n{\nMOTION\nFrames: x", '{"Frames": [[1, 2]]}'])
def test_damaged_motions_are_named(tmp_path: Path, reader: object, text: str) -> None:
    path = tmp_path / "motion.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=r"motion\.txt") as caught:
        reader(path)  # type: ignore[operator]
    assert caught.value.reason == "corrupt_motion"


@settings(max_examples=40)
@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_as_a_bvh_file(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.mktemp("bvh") / "any.bvh"
    path.write_text(text)
    with pytest.raises(InputError):
        read_bvh(path)


def test_a_motion_moves_another_body_in_its_own_proportions() -> None:
    heads = np.array([[0.0, 2, 0], [0.5, 2, 0], [0.5, 1, 0]])
    tails = np.array([[0.0, 3, 0], [0.5, 1, 0], [0.5, 0, 0]])
    giant = Skeleton(("pelvis", "leg", "calf"), (-1, 0, 1), heads, tails)
    turn = np.stack([np.eye(3)] * 2)
    turn[1] = rotations(np.array([-np.pi / 2, 0, 0]))
    # The source holds its leg out sideways at rest and swings it: the giant's hanging leg must point the same way.
    motion = Motion(
        "kick", 30, ("hips", "left_thigh"), np.array([[0, 1.0, 0], [1, 0, 0]]), turn[None], np.array([[1.0, 1, 0]]), 1.0
    )
    world, root = retarget(motion, giant, {"pelvis": "hips", "leg": "left_thigh", "calf": "left_shin"})
    np.testing.assert_allclose(root, [[2, 2, 0]])
    np.testing.assert_allclose(world[0, 1] @ [0, -1, 0], turn[1] @ [1, 0, 0], atol=1e-9)
    np.testing.assert_allclose(world[0, 2], world[0, 1], err_msg="what a motion does not know turns with its parent")
    places = joint_places(giant, world, root)[0]
    np.testing.assert_allclose(np.linalg.norm(places[2] - places[1]), 1)


def test_resampling_keeps_the_poses_and_mirroring_twice_changes_nothing() -> None:
    motion = dance(np.random.default_rng(1), 31, 30.0)
    finer = motion.resampled(60.0, 0.0, 61)
    np.testing.assert_allclose(finer.rotations[::2], motion.rotations, atol=1e-9)
    np.testing.assert_allclose(
        finer.rotations @ finer.rotations.swapaxes(-1, -2), np.broadcast_to(np.eye(3), finer.rotations.shape), atol=1e-9
    )
    back = motion.mirrored().mirrored()
    np.testing.assert_allclose(back.rotations, motion.rotations, atol=1e-12)
    left, right = JOINTS.index("left_hand"), JOINTS.index("right_hand")
    flip = np.diag([-1.0, 1, 1])
    np.testing.assert_allclose(motion.mirrored().rotations[:, left], flip @ motion.rotations[:, right] @ flip)


def glb(document: dict, binary: bytes) -> bytes:
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def two_bones() -> bytes:
    """A triangle whose tip hangs on a second bone, one up, that turns by 90 degrees about z in a second."""
    arrays = {
        "position": np.array([[0, 0, 0], [1, 0, 0], [0, 2, 0]], "<f4"),
        "joints": np.array([[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]], "u1"),
        "weights": np.array([[1, 0, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0]], "<f4"),
        "index": np.array([0, 1, 2], "<u2"),
        "bind": np.stack([np.eye(4), np.eye(4) - np.eye(4, k=-2).T * 0]).astype("<f4"),
        "times": np.array([0, 1], "<f4"),
        "turns": np.array([[0, 0, 0, 1], [0, 0, np.sqrt(0.5), np.sqrt(0.5)]], "<f4"),
    }
    arrays["bind"][1, 3, 1] = -1  # column-major: the second bone binds one unit up
    kinds = {"u1": 5121, "<u2": 5123, "<f4": 5126}
    widths = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}
    views, accessors, binary = [], [], b""
    for name, array in arrays.items():
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": array.nbytes})
        kind = "MAT4" if name == "bind" else widths[1 if array.ndim == 1 else array.shape[-1]]
        component = kinds[{"|u1": "u1"}.get(array.dtype.str, array.dtype.str)]
        accessors.append({"bufferView": len(views) - 1, "componentType": component, "count": len(array), "type": kind})
        binary += array.tobytes() + b"\0" * (-array.nbytes % 4)
    document = {
        "asset": {"version": "2.0"},
        "nodes": [
            {"name": "root", "children": [1]},
            {"name": "tip", "translation": [0, 1, 0]},
            {"name": "body", "mesh": 0, "skin": 0},
        ],
        "skins": [{"joints": [0, 1], "inverseBindMatrices": 4}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0, "JOINTS_0": 1, "WEIGHTS_0": 2}, "indices": 3}]}],
        "animations": [
            {
                "name": "wave",
                "samplers": [{"input": 5, "output": 6}],
                "channels": [{"sampler": 0, "target": {"node": 1, "path": "rotation"}}],
            }
        ],
        "bufferViews": views,
        "accessors": accessors,
        "buffers": [{"byteLength": len(binary)}],
    }
    return glb(document, binary)


def test_a_glb_file_is_skinned_and_animated(tmp_path: Path) -> None:
    path = tmp_path / "flag.glb"
    path.write_bytes(two_bones())
    flag = read_gltf(path)
    assert flag.duration("wave") == 1 and flag.weights.tolist() == [[1, 0], [1, 0], [0, 1]]
    np.testing.assert_allclose(flag.bind_places(), [[0, 0, 0], [0, 1, 0]])
    posed = blend(flag.vertices, flag.weights, flag.transforms("wave", np.array([0.0, 0.5, 1.0, 9.0])))
    np.testing.assert_allclose(posed[:, :2], np.broadcast_to(flag.vertices[:2], (4, 2, 3)), atol=1e-6)
    slant = np.sqrt(0.5)
    np.testing.assert_allclose(posed[:, 2], [[0, 2, 0], [-slant, 1 + slant, 0], [-1, 1, 0], [-1, 1, 0]], atol=1e-6)
    longer = np.array([[1.0, 2, 1], [1, 3, 1], [1, 1, 1]])
    stretched = blend(flag.vertices, flag.weights, flag.transforms("wave", np.zeros(1), longer))
    np.testing.assert_allclose(stretched[0, 2], [0, 5, 0], err_msg="two up to the bone, then three along it", atol=1e-6)


def test_stepped_tracks_jump_and_linear_ones_glide() -> None:
    values = np.array([[0.0, 0, 0], [2, 0, 0]])
    times = np.array([-1.0, 0.5, 0.999, 1.0, 3.0])
    glide = Track(0, "translation", np.array([0.0, 1.0]), values, False).at(times)
    jump = Track(0, "translation", np.array([0.0, 1.0]), values, True).at(times)
    np.testing.assert_allclose(glide[:, 0], [0, 1, 1.998, 2, 2])
    np.testing.assert_allclose(jump[:, 0], [0, 0, 0, 2, 2])


@pytest.mark.parametrize("cut", [0, 3, 30, 400, 1500])
def test_a_damaged_glb_file_is_named(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "broken.glb"
    path.write_bytes(two_bones()[:cut])
    with pytest.raises(InputError, match=r"broken\.glb"):
        read_gltf(path)


def test_a_glb_file_without_a_skin_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "stone.glb"
    path.write_bytes(glb({"asset": {"version": "2.0"}, "nodes": [], "meshes": []}, b""))
    with pytest.raises(InputError, match="no skin"):
        read_gltf(path)


def test_an_obj_file_is_cut_into_triangles_by_group(tmp_path: Path) -> None:
    path = tmp_path / "a.obj"
    path.write_text("# x\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nvt 0 0\ng one\nf 1/1 2/1 3/1 4/1\ng two\nf 1 3 4\n")
    vertices, groups = read_obj(path)
    assert vertices.shape == (4, 3)
    assert groups["one"].tolist() == [[0, 1, 2], [0, 2, 3]] and groups["two"].tolist() == [[0, 2, 3]]
    path.write_text("v 0 nought 0\n")
    with pytest.raises(InputError, match=r"a\.obj"):
        read_obj(path)


def test_targets_may_be_missing_or_empty_but_not_damaged(tmp_path: Path) -> None:
    path = tmp_path / "t.target"
    path.write_text("# comment\n3 .1 0 -.2\n7 0 1 0\n")
    index, offset = read_target(path)
    assert index.tolist() == [3, 7]
    np.testing.assert_allclose(offset, [[0.1, 0, -0.2], [0, 1, 0]], atol=1e-7)
    (tmp_path / "empty.target").write_text("")
    assert len(read_target(tmp_path / "empty.target")[0]) == len(read_target(tmp_path / "none.target")[0]) == 0
    (tmp_path / "bad.target").write_text("1 2 three 4\n")
    with pytest.raises(InputError, match=r"bad\.target"):
        read_target(tmp_path / "bad.target")


GARMENT = """name hat
obj_file hat.obj
x_scale 0 1 2.0
y_scale 0 2 1.0
z_scale 0 3 1.0
verts 0
material hat.mhmat
 0 1 2 0.5 0.5 0 0.1 0.2 0.3
3
1 1 1 1 0 0 0 0 0
delete_verts
0 1 2
"""


def test_a_garment_follows_the_body_and_scales_with_it(tmp_path: Path) -> None:
    (tmp_path / "hat.mhclo").write_text(GARMENT)
    (tmp_path / "hat.obj").write_text("v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n")
    garment = read_garment(tmp_path / "hat.mhclo")
    assert isinstance(garment, Garment) and len(garment.anchors) == 3
    body = np.array([[0.0, 0, 0], [4, 0, 0], [0, 1, 0], [0, 0, 2]])
    # x is twice as wide as the garment was made for, y as high, z twice as deep.
    np.testing.assert_allclose(garment.fitted(body), [[2 + 0.2, 0.2, 0.6], [0, 0, 2], [4, 0, 0]])
    (tmp_path / "hat2.mhclo").write_text(GARMENT.replace("\n3\n", "\n"))
    with pytest.raises(InputError, match="fits 2 vertices"):
        read_garment(tmp_path / "hat2.mhclo")


def test_targets_of_a_random_person_blend_to_one() -> None:
    for seed in range(5):
        chosen = random_targets(np.random.default_rng(seed), female=bool(seed % 2))
        descent = [w for name, w in chosen if name.split("/")[1].split("-")[0] in ("african", "asian", "caucasian")]
        assert sum(descent) == pytest.approx(1, abs=0.06)
        assert all(0 < weight <= 1 for _, weight in chosen)


def child_share(targets: list[tuple[str, float]]) -> float:
    return sum(weight for name, weight in targets if re.fullmatch(r"macrodetails/[a-z]+-[a-z]+-child", name))


def test_some_people_are_children_and_nobody_else_changes_with_them() -> None:
    people = [[random_targets(np.random.default_rng(seed), True, *most) for seed in range(60)] for most in ((), (1.0,))]
    shares = [[child_share(person) for person in group] for group in people]
    assert max(shares[0]) <= 0.5 and max(shares[1]) > 0.9
    assert sum(share > 0 for share in shares[1]) in range(5, 25)
    for usual, young, share in zip(*people, shares[1], strict=True):
        assert usual == young or share > 0


def test_a_captured_walk_and_a_dance_suit_a_generated_body(tmp_path: Path) -> None:
    body = draw_person(np.random.default_rng(3))
    clip = body.perform(dance(np.random.default_rng(1), 12, 30.0), np.random.default_rng(0))
    lowest = clip.vertices[..., 1].min(1)
    assert (np.abs(lowest) < 0.35).all(), "feet stay about the floor"
    path = tmp_path / "walk.bvh"
    path.write_text(BVH + bvh_frame((0, 9.7, 0), (0, 0, 0)) + bvh_frame((0, 9.7, 0), (0, 0, -60)))
    kick = body.perform(read_bvh(path), np.random.default_rng(0))
    assert kick.vertices[1, :, 2].max() > kick.vertices[0, :, 2].max() + 0.3


@pytest.mark.parametrize("family", ["makehuman", "person", "animal"])
def test_real_characters_are_closed_and_move(family: str) -> None:
    if not os.environ.get("NR_TRACKING_DATA"):
        pytest.skip("NR_TRACKING_DATA is not set: the character files are not there")
    assert family in available_families()
    clip = FAMILIES[family](np.random.default_rng(3), "test")(np.random.default_rng(1), 17)
    assert is_closed(clip.faces) and clip.family == family and np.isfinite(clip.vertices).all()
    assert 0.3 < np.ptp(clip.vertices[0], axis=0).max() < 2.6
    assert static_correspondence_error(clip.vertices) > 1e-4
