"""Compressed depth images give back the depth of the camera, or are refused by name."""

import struct
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rosbags.typesys.stores import ros2_kilted as ros
from test_bags import CAMERA, Bag, assert_same, depth_frames

from nr_tracking.commands.recordings import open_recordings
from nr_tracking.ros.bags import open_cameras, open_recording
from nr_tracking.ros.compressed import compress_png, raw_image
from nr_tracking.ros.messages import frame_messages
from nr_tracking.ros.replay_node import open_source
from nr_tracking.types import InputError

PNG = "16UC1; compressedDepth png"
RVL = "16UC1; compressedDepth rvl"
_COMPRESSED = "sensor_msgs/msg/CompressedImage"


def rvl(depth):
    """Encodes as Wilson's published C code does, number by number."""
    nibbles, previous, flat, position = [], 0, depth.reshape(-1).astype(int), 0

    def number(value):
        while True:
            nibble, value = value & 7, value >> 3
            nibbles.append(nibble | 8 if value else nibble)
            if not value:
                return

    while position < len(flat):
        zeros = position
        while position < len(flat) and flat[position] == 0:
            position += 1
        number(position - zeros)
        end = position
        while end < len(flat) and flat[end]:
            end += 1
        number(end - position)
        for value in flat[position:end]:
            step = int(value) - previous
            number((step << 1) ^ (step >> 63))
            previous = int(value)
        position = end
    nibbles += [0] * (-len(nibbles) % 8)
    words = [sum(n << (28 - 4 * i) for i, n in enumerate(nibbles[k : k + 8])) for k in range(0, len(nibbles), 8)]
    return (
        struct.pack("<iff", 0, 0, 0) + struct.pack("<II", *depth.shape[::-1]) + struct.pack(f"<{len(words)}I", *words)
    )


def message(format_, data):
    return SimpleNamespace(header=None, format=format_, data=np.frombuffer(data, np.uint8))


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 9), width=st.integers(1, 9), holes=st.floats(0, 1))
def test_depth_comes_back_bit_for_bit(seed, height, width, holes):
    generator = np.random.default_rng(seed)
    depth = generator.integers(1, 65536, (height, width)).astype(np.uint16)
    depth[generator.random(depth.shape) < holes] = 0
    for format_, data in (
        (PNG, compress_png(depth)),
        ("16UC1; compressedDepth", compress_png(depth)),
        (RVL, rvl(depth)),
    ):
        raw = raw_image(message(format_, data))
        assert (raw.width, raw.height, raw.step) == (width, height, 2 * width)
        np.testing.assert_array_equal(raw.data.view(np.uint16).reshape(height, width), depth)


@settings(max_examples=200)
@given(format_=st.sampled_from([PNG, RVL]), seed=st.integers(0, 10**6), junk=st.binary(max_size=60))
def test_damaged_data_are_refused_and_take_no_memory(format_, seed, junk):
    generator = np.random.default_rng(seed)
    depth = generator.integers(0, 5000, (12, 16)).astype(np.uint16)
    data = bytearray(compress_png(depth) if format_ == PNG else rvl(depth))
    position = int(generator.integers(len(data)))
    data[position : position + len(junk)] = junk
    try:
        raw = raw_image(message(format_, bytes(data)))
    except InputError as error:
        assert error.reason in ("bad_image", "wrong_size")
    else:
        assert len(raw.data) == 2 * raw.width * raw.height


def png_header(width, height, bits, colour):
    return bytes(12) + b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBxxxI", width, height, bits, colour, 0)


@pytest.mark.parametrize(
    ("format_", "data", "reason"),
    [
        ("32FC1; compressedDepth png", b"", "lossy_depth"),
        ("jpeg", b"", "unknown_encoding"),
        ("rgb8; jpeg compressed bgr8", b"", "unknown_encoding"),
        (PNG, b"", "bad_image"),
        (RVL, bytes(12), "bad_image"),
        (RVL, bytes(12) + struct.pack("<II", 2**31, 2**31), "wrong_size"),
        (PNG, png_header(16000, 16000, 16, 0), "wrong_size"),
        (PNG, png_header(64, 48, 8, 2), "bad_image"),
    ],
)
def test_what_is_no_lossless_depth_is_refused_by_name(format_, data, reason):
    with pytest.raises(InputError) as caught:
        raw_image(message(format_, data))
    assert caught.value.reason == reason


def compressed_bag(path, encode=compress_png, format_=PNG):
    entries = []
    for frame in depth_frames():
        messages = frame_messages(frame, "optical")
        depth = messages["depth"]
        pixels = depth.data.view(np.uint16).reshape(depth.height, depth.width)
        packed = ros.sensor_msgs__msg__CompressedImage(depth.header, format_, np.frombuffer(encode(pixels), np.uint8))
        entries += [
            ("/camera/depth/camera_info", "camera_info", messages["camera_info"], frame.stamp_ns),
            ("/camera/depth/image_raw/compressedDepth", _COMPRESSED, packed, frame.stamp_ns),
        ]
    return Bag(path).write(*entries)


@pytest.mark.parametrize(("format_", "encode"), [(PNG, compress_png), (RVL, rvl)])
def test_bag_of_compressed_depth_gives_the_same_frames(tmp_path, format_, encode):
    bag = compressed_bag(tmp_path / "bag", encode=encode, format_=format_)
    recording = open_recording(bag)
    assert recording.topics.camera_info == "/camera/depth/camera_info" and recording.frame_id == "optical"
    assert_same(recording.frames(), depth_frames())
    replayed = [m for m in open_source(bag).messages() if m.kind == "depth"]
    from nr_tracking.ros.typestore import TYPES

    first = TYPES.deserialize_cdr(replayed[0].data, "sensor_msgs/msg/Image")
    assert (first.encoding, first.width, first.height) == ("16UC1", CAMERA.width, CAMERA.height)


def test_quantised_depth_is_no_depth_topic_and_the_bag_says_what_it_has(tmp_path):
    bag = compressed_bag(tmp_path / "bag", format_="32FC1; compressedDepth png")
    with pytest.raises(InputError, match="32FC1; compressedDepth") as caught:
        open_recording(bag)
    assert caught.value.reason == "no_depth_topic"


def test_every_camera_of_a_bag_is_a_recording_of_its_own(tmp_path):
    entries = []
    for frame in depth_frames():
        for name, shift in (("left", 0.0), ("right", 5.0)):
            moved = replace(frame, intrinsics=replace(CAMERA, cx=CAMERA.cx + shift))
            for kind, each in frame_messages(moved, name).items():
                topic = f"/{name}/depth/{'image_raw' if kind == 'depth' else kind}"
                entries.append((topic, kind, each, frame.stamp_ns))
        entries.append(("/left/depth/second", "depth", frame_messages(frame, "left")["depth"], frame.stamp_ns))
    left, right = open_cameras(Bag(tmp_path / "bag").write(*entries))
    assert (left.frame_id, right.frame_id) == ("left", "right")
    assert left.topics.camera_info == "/left/depth/camera_info"
    assert [frame.intrinsics.cx for frame in right.frames()] == [CAMERA.cx + 5.0] * 4
    assert_same(left.frames(), depth_frames())
    names = [recording.name for recording in open_recordings(tmp_path / "bag", every_camera=True)]
    assert names == ["bag_left_depth_image_raw", "bag_right_depth_image_raw"]
