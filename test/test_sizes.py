"""Sizes that a header claims are held against the bytes that are there, before memory is taken."""

from __future__ import annotations

import io
import json
import resource
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_sequence import CAMERA, make_frames, make_truth

from nr_tracking.arrays import DEFLATE_RATIO, read_array, read_arrays
from nr_tracking.data.cache import unpack_depth
from nr_tracking.data.gltf import _accessor
from nr_tracking.data.png import read_png
from nr_tracking.data.sequence import read_sequence, write_sequence
from nr_tracking.fields.weights import read_weights
from nr_tracking.ros.compressed import compress_png, raw_image
from nr_tracking.ros.conversions import depth_frame
from nr_tracking.ros.messages import frame_messages
from nr_tracking.tracking.ply import read_ply, write_ply
from nr_tracking.tracking.result import Run, read_output
from nr_tracking.types import DepthFrame, InputError, Intrinsics

SIZES = st.one_of(st.integers(0, 40), st.sampled_from([16384, 65536, 100_000, 2**31 - 1, 2**32 - 1]))
HUGE = 10**12
REUSED = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@contextmanager
def little_memory(most: int = 16 << 20) -> Iterator[None]:
    """What Python and numpy take within the block, and what the process holds, rises by no more than ``most`` bytes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) - before < 4 * most


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_sequence(tmp_path / "clip", make_frames(), fps=30.0, ground_truth=make_truth())


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, bits: int = 16, colour: int = 0, content: bytes = b"") -> bytes:
    """A PNG with right checksums whose header claims what it likes."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(content))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def npy(shape: tuple[int, ...], kind: str, content: bytes = bytes(64)) -> bytes:
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(member, {"descr": kind, "fortran_order": False, "shape": shape})
    return member.getvalue() + content


@REUSED
@example(width=37, height=5, bits=16, colour=0)  # four rows of five are there
@given(width=SIZES, height=SIZES, bits=st.sampled_from([1, 8, 16, 200]), colour=st.integers(0, 7))
def test_no_png_takes_what_its_header_claims(tmp_path: Path, width: int, height: int, bits: int, colour: int) -> None:
    data = png(width, height, bits, colour, bytes(300))
    (tmp_path / "000000.png").write_bytes(data)
    camera = Intrinsics(width, height, 10.0, 10.0, 5.0, 5.0)  # which believes it
    message = SimpleNamespace(header=None, format="16UC1; compressedDepth png", data=bytes(12) + data)
    with little_memory():
        try:
            image = read_png(tmp_path / "000000.png", camera, np.uint16)
        except InputError as error:
            assert error.reason in ("bad_image", "wrong_size")
        else:
            # Whole rows that are missing at the end are without depth; what is there bounds how many there may be.
            assert image.shape == (height, width) and image.nbytes <= len(data) * DEFLATE_RATIO
        try:
            assert 2 * raw_image(message).height * width <= len(data) * DEFLATE_RATIO
        except InputError as error:
            assert error.reason in ("bad_image", "wrong_size")


def test_a_hundred_thousand_pixels_a_side_are_refused_by_name(folder: Path) -> None:
    (folder / "depth" / "000001.png").write_bytes(png(100_000, 100_000))
    values = json.loads((folder / "camera.json").read_text())
    with little_memory(), pytest.raises(InputError, match=r"000001\.png claims 100000 x 100000 pixels"):
        list(read_sequence(folder).frames())
    (folder / "camera.json").write_text(json.dumps(values | {"width": 100_000, "height": 100_000}))
    with little_memory(), pytest.raises(InputError, match=r"camera\.json.* claims 100000 x 100000 pixels"):
        read_sequence(folder)


def test_an_image_that_no_bytes_can_hold_is_refused_though_it_is_not_too_large(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(8000, 7000))
    with little_memory(), pytest.raises(InputError, match="claims 8000 x 7000 pixels in 65 bytes"):
        read_png(tmp_path / "a.png", Intrinsics(8000, 7000, 1.0, 1.0, 0.0, 0.0), np.uint16)


def test_of_an_animation_only_its_first_image_is_unpacked(tmp_path: Path) -> None:
    rows, count = bytes(1 + 640) * 480, 200
    parts = [chunk(b"acTL", struct.pack(">II", count, 0))]
    for number in range(count):
        control = struct.pack(">IIIIIHHBB", max(0, 2 * number - 1), 640, 480, 0, 0, 1, 10, 0, 0)
        data = zlib.compress(rows, 9)
        parts += [chunk(b"fcTL", control)]
        parts += [chunk(b"fdAT", struct.pack(">I", 2 * number) + data) if number else chunk(b"IDAT", data)]
    header = struct.pack(">IIBBBBB", 640, 480, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(parts) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(data)
    with little_memory():
        image = read_png(tmp_path / "a.png", Intrinsics(640, 480, 500.0, 500.0, 320.0, 240.0), np.uint8)
    assert image.shape == (480, 640) and not image.any()


@pytest.mark.parametrize("codec", ["png", "rvl"])
def test_compressed_depth_of_another_size_than_the_camera_is_not_unpacked(codec: str) -> None:
    frame = DepthFrame(0, np.ones((9, 12), np.float32), CAMERA)
    messages = frame_messages(frame, "optical")
    data = {
        "png": compress_png(np.zeros((4000, 4000), np.uint16)),
        "rvl": bytes(12) + struct.pack("<III", 8000, 8000, 0x80000000),
    }[codec]
    image = SimpleNamespace(header=messages["depth"].header, format=f"16UC1; compressedDepth {codec}", data=data)
    with little_memory(), pytest.raises(InputError, match="12 x 9") as caught:
        depth_frame(image, messages["camera_info"])
    assert caught.value.reason == "size_mismatch"


@REUSED
@given(
    shape=st.lists(st.integers(-2, 4) | st.sampled_from([10**6, HUGE, 2**62]), max_size=4).map(tuple),
    kind=st.sampled_from(["<f8", "<i8", "<f4", "|b1", "|u1", "<U40", "|S0", "<U0", "|V0", "<c16"]),
    method=st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]),
)
def test_no_array_takes_what_its_header_claims(tmp_path: Path, shape: tuple[int, ...], kind: str, method: int) -> None:
    data = npy(shape, kind)
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        archive.writestr("values.npy", data)
    (tmp_path / "a.npy").write_bytes(data)
    for read in (lambda: read_arrays(tmp_path / "a.npz")["values"], lambda: read_array(tmp_path / "a.npy")):
        with little_memory():
            try:
                array = read()
            except InputError as error:
                assert "a.np" in str(error)
            else:
                assert array.shape == shape and array.nbytes <= 64


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1), value=st.integers(0, 2**32 - 1))
def test_no_number_in_an_archive_is_believed(tmp_path: Path, position: float, value: int) -> None:
    expected = {"values": np.arange(50.0), "ids": np.arange(5)}
    np.savez_compressed(tmp_path / "a.npz", **expected)
    data = bytearray((tmp_path / "a.npz").read_bytes())
    place = int(position * (len(data) - 4))
    data[place : place + 4] = struct.pack("<I", value)
    (tmp_path / "a.npz").write_bytes(data)
    with little_memory():
        try:
            arrays = read_arrays(tmp_path / "a.npz")
        except InputError as error:
            assert "a.npz" in str(error)
        else:
            assert all(array.nbytes <= 400 for array in arrays.values())


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    """Many entries of the directory for one member: each believable, together beyond any bound."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("000.npy", npy((10**6,), "|u1", bytes(10**6)))
        (entry,) = archive.infolist()
        for number in range(1, 200):
            copy = zipfile.ZipInfo(f"{number:03d}.npy")
            for name in ("compress_type", "CRC", "compress_size", "file_size", "header_offset", "external_attr"):
                setattr(copy, name, getattr(entry, name))
            archive.filelist.append(copy)
    with little_memory(), pytest.raises(InputError, match="its members claim more than"):
        read_arrays(tmp_path / "a.npz")


def test_large_archives_are_read(tmp_path: Path) -> None:
    expected = {"zeros": np.zeros((1000, 1000)), "ids": np.arange(10)}
    np.savez_compressed(tmp_path / "a.npz", **expected)
    arrays = read_arrays(tmp_path / "a.npz")
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array)
    assert read_arrays(tmp_path / "a.npz", ("ids",)).keys() == {"ids"}


@pytest.mark.parametrize(("name", "shape"), [("stamps.npy", (HUGE,)), ("poses.npy", (HUGE, 4, 4))])
def test_arrays_beside_the_images_are_checked(folder: Path, name: str, shape: tuple[int, ...]) -> None:
    (folder / name).write_bytes(npy(shape, "<i8" if len(shape) == 1 else "<f8"))
    with little_memory(), pytest.raises(InputError, match=rf"{name} claims \({HUGE},"):
        read_sequence(folder)


def test_true_surfaces_are_checked(folder: Path) -> None:
    with zipfile.ZipFile(folder / "ground_truth.npz", "w") as archive:
        archive.writestr("vertices.npy", npy((4, HUGE, 3), "<f4"))
        archive.writestr("faces.npy", npy((1, 3), "<i4"))
    with little_memory(), pytest.raises(InputError, match=r"ground_truth\.npz.*claims") as caught:
        read_sequence(folder).ground_truth()
    assert caught.value.reason == "bad_ground_truth"


ARRAYS = {
    "positions": np.zeros((2, 3, 3), np.float32),
    "ids": np.arange(3),
    "confidence": np.zeros((2, 3), np.float32),
    "observed": np.zeros((2, 3), np.bool_),
    "stamps_ns": np.arange(2),
}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"positions": npy((2, HUGE, 3), "<f4")}, "claims"),
        ({"positions": np.zeros((2, 4, 3), np.float32)}, r"positions is float32 \(2, 4, 3\), expected"),
        ({"velocities": np.zeros((2, 3), np.float32)}, "velocities"),
        ({"stamps_ns": np.int64(3)}, "stamps_ns"),
        ({"confidence": np.full((2, 3), "high")}, "confidence"),
    ],
)
def test_an_output_is_checked(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    Run().write(tmp_path)
    np.savez(tmp_path / "tracks.npz", **ARRAYS)
    assert len(read_output(tmp_path)) == 2
    with zipfile.ZipFile(tmp_path / "tracks.npz", "w") as archive:
        for name, value in (ARRAYS | changes).items():
            with archive.open(f"{name}.npy", "w") as file:
                if isinstance(value, bytes):
                    file.write(value)
                else:
                    np.lib.format.write_array(file, np.asarray(value))
    with little_memory(), pytest.raises(InputError, match=says) as caught:
        read_output(tmp_path)
    assert caught.value.reason == "bad_output"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ('{"width": 1' + "0" * 400 + "}", "expected a number"),
        ("[" * 100_000, "not valid JSON"),
        ('{"width": ' + "9" * 5000 + "}", "not valid JSON"),
    ],
)
def test_json_beyond_all_bounds_is_refused(folder: Path, values: str, says: str) -> None:
    (folder / "camera.json").write_text(values)
    with pytest.raises(InputError, match=says):
        read_sequence(folder)


def test_registrations_that_were_never_written_take_no_memory(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    from nr_tracking.data.adapters.dfaust import DynamicFaust

    with h5py.File(tmp_path / "registrations_m.hdf5", "w") as file:
        file.create_dataset("50002_hips", (6890, 3, 10**7), "f8", chunks=(6890, 3, 1))
        file["faces"] = np.zeros((1, 3), np.int64)
    with little_memory(), pytest.raises(InputError, match=r"claims \(6890, 3, 10000000\)"):
        DynamicFaust(tmp_path).read("50002_hips")


def test_depth_of_a_cache_unpacks_to_its_shape_and_no_further() -> None:
    bomb = np.frombuffer(zlib.compress(bytes(64 << 20), 9), np.uint8)
    with little_memory(), pytest.raises(ValueError, match="reshape"):
        unpack_depth(bomb, np.array([0.0, 1.0]), (1, 4, 4))


def test_rows_of_a_character_that_lie_on_top_of_each_other_are_refused() -> None:
    accessor = {"bufferView": 0, "componentType": 5126, "type": "VEC3", "count": HUGE}
    document = {"accessors": [accessor], "bufferViews": [{"byteStride": 0}]}
    with little_memory(), pytest.raises(ValueError, match="rows of 12 bytes"):
        _accessor(document, bytes(64), 0)


def safetensors(header: dict[str, object], body: bytes = bytes(64), length: int | None = None) -> bytes:
    packed = json.dumps(header).encode()
    return struct.pack("<Q", len(packed) if length is None else length) + packed + body


@pytest.mark.parametrize(
    "data",
    [
        safetensors({}, length=10**15),
        safetensors({"a.b": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]}}),
        safetensors({"a.b": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 64]}}),
        safetensors({"a.b": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 64]}}),
        safetensors({"a.b": {"dtype": "F32", "shape": [16], "data_offsets": [32, 96]}}),
    ],
)
def test_weights_that_claim_more_than_they_have_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(data)
    with little_memory(64 << 20), pytest.raises(InputError) as caught:
        read_weights(tmp_path / "a.safetensors")
    assert caught.value.reason == "damaged_weights"


@REUSED
@given(place=st.floats(0, 1), junk=st.binary(max_size=12), counts=st.tuples(st.integers(-1, HUGE), st.integers(0, 3)))
def test_a_mesh_is_read_whole_or_refused(tmp_path: Path, place: float, junk: bytes, counts: tuple[int, int]) -> None:
    vertices, faces = np.zeros((3, 3), np.float32), np.array([[0, 1, 2]], np.int32)
    write_ply(tmp_path / "a.ply", vertices, faces, np.zeros((3, 3), np.uint8), np.ones(3, np.float32), np.ones(3, bool))
    whole = (tmp_path / "a.ply").read_bytes()
    position = int(place * len(whole))
    claimed = whole.replace(b"vertex 3", b"vertex %d" % counts[0]).replace(b"face 1", b"face %d" % counts[1])
    for data in (whole[:position] + junk + whole[position + len(junk) :], whole[:position], claimed):
        (tmp_path / "a.ply").write_bytes(data)
        with little_memory():
            try:
                read, triangles, colours = read_ply(tmp_path / "a.ply")
            except InputError as error:
                assert error.reason == "bad_mesh"
            else:
                assert read.shape == colours.shape == (3, 3) and triangles.shape == (1, 3)
