"""Recordings: every way to store one gives the same frames, and a faulty one says what is wrong."""

import sqlite3
from dataclasses import replace

import numpy as np
import pytest
from rosbags.rosbag2 import Writer

from nr_tracking.data.sequence import read_sequence, write_sequence
from nr_tracking.ros.bags import find_bags, is_bag, open_cameras, open_recording, write_bag
from nr_tracking.ros.conversions import depth_frame, intrinsics
from nr_tracking.ros.messages import MESSAGE_TYPES, frame_messages
from nr_tracking.ros.typestore import TYPES, encode, without_lens
from nr_tracking.types import DepthFrame, InputError, Intrinsics

CAMERA = Intrinsics(32, 24, 30.1, 30.2, 15.4, 11.6)


def depth_frames(count=4, unit_m=0.001, camera=CAMERA, masks=False):
    """Random depth in whole units, holes included, at an uneven rate."""
    generator = np.random.default_rng(3)
    for index in range(count):
        units = generator.integers(0, 9000, (camera.height, camera.width)).astype(np.uint16)
        units[units < 1500] = 0
        mask = units > 4000 if masks else None
        yield DepthFrame(33_333_333 * index + index**2, (units * np.float64(unit_m)).astype(np.float32), camera, mask)


def assert_same(first, second):
    first, second = list(first), list(second)
    assert len(first) == len(second) > 0
    for a, b in zip(first, second, strict=True):
        assert a.stamp_ns == b.stamp_ns
        assert a.intrinsics == b.intrinsics
        assert a.depth.dtype == b.depth.dtype == np.float32
        np.testing.assert_array_equal(a.depth, b.depth)
        assert (a.mask is None) == (b.mask is None)
        if a.mask is not None:
            np.testing.assert_array_equal(a.mask, b.mask)


LENS = replace(CAMERA, distortion_model="plumb_bob", distortion=(0.1, -0.2, 0.001, 0.002, 0.05))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize(("unit_m", "masks", "camera"), [(0.001, True, CAMERA), (0.000125, False, LENS)])
def test_sequence_and_bags_of_one_recording_give_the_same_frames(tmp_path, storage, unit_m, masks, camera):
    frames = list(depth_frames(unit_m=unit_m, masks=masks, camera=camera))
    sequence = read_sequence(write_sequence(tmp_path / "sequence", frames, fps=30, depth_unit_m=unit_m))
    bag = write_bag(tmp_path / "bag", sequence.frames(), storage)
    assert_same(sequence.frames(), frames)
    assert_same(open_recording(bag).frames(), frames)
    assert len(open_recording(bag)) == len(frames)


def test_depth_in_eighths_of_a_millimetre_is_stored_as_float(tmp_path):
    messages = [frame_messages(frame, "camera") for frame in depth_frames(1, 0.000125)]
    assert messages[0]["depth"].encoding == "32FC1"
    assert frame_messages(next(depth_frames(1)), "camera")["depth"].encoding == "16UC1"


def test_span_of_frames(tmp_path):
    bag = write_bag(tmp_path / "bag", depth_frames(6))
    assert_same(open_recording(bag).frames(2, 3), list(depth_frames(6))[2:5])


def test_messages_keep_order_and_kinds(tmp_path):
    recording = open_recording(write_bag(tmp_path / "bag", depth_frames(2, masks=True)))
    assert [message.kind for message in recording.messages()] == ["camera_info", "depth", "mask"] * 2
    assert recording.frame_id == "camera_depth_optical_frame"
    assert recording.topics.mask == "/camera/depth/mask"


def test_single_file_and_folder_of_bags(tmp_path):
    for name, storage in (("second", "sqlite3"), ("first", "mcap")):
        write_bag(tmp_path / name, depth_frames(), storage)
    (tmp_path / "notes").mkdir()
    assert find_bags(tmp_path) == [tmp_path / "first", tmp_path / "second"]
    file = next((tmp_path / "second").glob("*.db3"))
    assert is_bag(file) and not is_bag(tmp_path / "notes")
    assert_same(open_recording(file).frames(), depth_frames())


class Bag:
    """A bag with whatever is put into it."""

    def __init__(self, path):
        self.path = path

    def write(self, *entries):
        """Entries are (topic, kind, message, stamp) or (topic, message type, message, stamp)."""
        with Writer(self.path, version=9) as writer:
            connections = {}
            for topic, kind, message, stamp in entries:
                message_type = MESSAGE_TYPES.get(kind, kind)
                if topic not in connections:
                    connections[topic] = writer.add_connection(topic, message_type, typestore=TYPES)
                writer.write(connections[topic], stamp, TYPES.serialize_cdr(message, message_type))
        return self.path


def camera_messages(count=2, **changes):
    return [frame_messages(replace(frame, **changes), "camera") for frame in depth_frames(count)]


def test_topics_are_found_by_type_whatever_their_names(tmp_path):
    first, second = camera_messages()
    colour = replace(first["depth"], encoding="rgb8", step=32, data=np.zeros(32 * 24, np.uint8))
    bag = Bag(tmp_path / "bag").write(
        ("/z/colour", "depth", colour, 0),
        ("/front/range", "depth", first["depth"], 1),
        ("/calibration", "camera_info", first["camera_info"], 2),
        ("/front/range", "depth", second["depth"], 3),
    )
    recording = open_recording(bag)
    assert (recording.topics.depth, recording.topics.camera_info) == ("/front/range", "/calibration")
    assert_same(recording.frames(), depth_frames(2))


@pytest.mark.parametrize("cameras", [("depth",), ("depth", "left")])
def test_a_map_of_confidence_is_not_taken_for_depth(tmp_path, cameras):
    """Its encoding and rate are those of the depth image, and its name comes first; it has no camera info beside it."""
    entries = []
    for stamp, (frame, message) in enumerate(zip(depth_frames(2), camera_messages(), strict=True)):
        sure = frame_messages(replace(frame, depth=np.full_like(frame.depth, 90.0)), "camera", "32FC1")
        depth = frame_messages(frame, "camera", "32FC1")
        entries += [
            ("/zed/confidence/map", "depth", sure["depth"], stamp),
            ("/zed/depth/z", "depth", depth["depth"], stamp),
        ]
        entries += [(f"/zed/{name}/camera_info", "camera_info", message["camera_info"], stamp) for name in cameras]
    bag = Bag(tmp_path / "bag").write(*entries)
    assert open_recording(bag).topics.depth == "/zed/depth/z"
    assert [camera.topics.depth for camera in open_cameras(bag)] == ["/zed/depth/z"]
    assert_same(open_recording(bag).frames(), depth_frames(2))


def test_named_topics_are_taken(tmp_path):
    a, b = camera_messages()
    bag = Bag(tmp_path / "bag").write(
        *(
            (f"/{name}/{kind}", kind, m[kind], 0)
            for name, m in (("a", a), ("b", b))
            for kind in ("depth", "camera_info")
        )
    )
    assert_same(open_recording(bag, "/b/depth", "/a/camera_info").frames(), list(depth_frames(2))[1:])


def test_camera_info_is_paired_by_stamp_and_the_last_one_serves(tmp_path):
    messages = camera_messages(4)
    infos = [replace(m["camera_info"], k=m["camera_info"].k + np.eye(9)[0] * i) for i, m in enumerate(messages)]
    pairs = [
        (("/d", "depth", m["depth"], 0), ("/i", "camera_info", i, 0)) for m, i in zip(messages, infos, strict=True)
    ]
    late = Bag(tmp_path / "late").write(*(entry for pair in pairs for entry in pair))  # each info follows its image
    assert [f.intrinsics.fx for f in open_recording(late).frames()] == [CAMERA.fx + i for i in range(4)]
    latched = Bag(tmp_path / "latched").write(
        ("/d", "depth", messages[0]["depth"], 0),
        ("/i", "camera_info", infos[1], 1),
        *(("/d", "depth", m["depth"], 2 + i) for i, m in enumerate(messages[1:])),
    )
    assert [f.intrinsics.fx for f in open_recording(latched).frames()] == [CAMERA.fx + 1] * 4


def test_frame_without_a_mask_is_dropped_with_its_reason(tmp_path):
    frames = list(depth_frames(3, masks=True))
    entries = []
    for index, frame in enumerate(frames):
        for kind, message in frame_messages(frame, "camera").items():
            if (index, kind) != (1, "mask"):
                entries.append((f"/camera/{kind}", kind, message, frame.stamp_ns))
    reasons = []
    recording = open_recording(Bag(tmp_path / "bag").write(*entries))
    assert_same(recording.frames(on_drop=lambda error: reasons.append(error.reason)), [frames[0], frames[2]])
    assert reasons == ["no_mask"]


def test_masks_that_another_program_added_are_found_however_far_behind(tmp_path):
    frames = list(depth_frames(150, masks=True))
    messages = [frame_messages(frame, "camera") for frame in frames]
    entries = [
        (f"/camera/{kind}", kind, m[kind], i) for i, m in enumerate(messages) for kind in ("camera_info", "depth")
    ]
    entries += [("/camera/mask", "mask", m["mask"], 1000) for m in messages]
    assert_same(open_recording(Bag(tmp_path / "bag").write(*entries)).frames(), frames)


def test_bad_frames_are_dropped_and_the_good_ones_stay(tmp_path):
    good, cut, unknown, last = camera_messages(4)
    broken = [good, cut, unknown, last]
    cut["depth"] = replace(cut["depth"], data=cut["depth"].data[:-1])
    unknown["depth"] = replace(unknown["depth"], encoding="jpeg")
    bag = Bag(tmp_path / "bag").write(
        *((f"/{kind}", kind, m[kind], index) for index, m in enumerate(broken) for kind in ("camera_info", "depth"))
    )
    reasons = []
    frames = list(open_recording(bag).frames(on_drop=lambda error: reasons.append(error.reason)))
    assert_same(frames, [f for i, f in enumerate(depth_frames(4)) if i in (0, 3)])
    assert reasons == ["wrong_size", "unknown_encoding"]
    with pytest.raises(InputError, match="bytes"):
        list(open_recording(bag).frames())


def complaint(path, **named):
    with pytest.raises(InputError) as caught:
        open_recording(path, **named)
    return caught.value


def test_path_that_does_not_exist(tmp_path):
    assert complaint(tmp_path / "nothing").reason == "no_such_path"


def test_folder_that_is_no_bag(tmp_path):
    error = complaint(tmp_path)
    assert error.reason == "corrupt_bag" and "metadata.yaml" in str(error)


def test_empty_bag(tmp_path):
    with Writer(tmp_path / "bag", version=9):
        pass
    assert complaint(tmp_path / "bag").reason == "empty_bag"


def test_bag_without_depth_lists_what_it_has(tmp_path):
    message = camera_messages(1)[0]
    colour = replace(message["depth"], encoding="rgb8")
    bag = Bag(tmp_path / "bag").write(
        ("/colour", "depth", colour, 0), ("/info", "camera_info", message["camera_info"], 0)
    )
    error = complaint(bag)
    assert error.reason == "no_depth_topic"
    assert "/colour (sensor_msgs/msg/Image rgb8, 1)" in str(error) and "/info (sensor_msgs/msg/CameraInfo, 1)" in str(
        error
    )
    assert complaint(bag, depth_topic="/depth").reason == "no_depth_topic"


def test_bag_without_camera_info(tmp_path):
    message = camera_messages(1)[0]
    bag = Bag(tmp_path / "bag").write(("/camera/depth", "depth", message["depth"], 0))
    error = complaint(bag)
    assert error.reason == "no_camera_info" and "/camera/camera_info" in str(error)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_bag_whose_file_is_missing(tmp_path, storage):
    bag = write_bag(tmp_path / "bag", depth_frames(), storage)
    next(file for file in bag.iterdir() if file.suffix != ".yaml").unlink()
    assert complaint(bag).reason == "corrupt_bag"


def test_bag_of_garbage(tmp_path):
    bag = write_bag(tmp_path / "bag", depth_frames(), "sqlite3")
    file = next(bag.glob("*.db3"))
    file.write_bytes(b"not a database" * 100)
    assert complaint(bag).reason == "corrupt_bag"
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(file).execute("select * from messages")


def test_writing_replaces_an_earlier_bag_but_nobody_elses_folder(tmp_path):
    write_bag(tmp_path / "bag", depth_frames(5))
    write_bag(tmp_path / "bag", depth_frames(2), "sqlite3")
    assert len(open_recording(tmp_path / "bag")) == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(InputError):
        write_bag(tmp_path / "mine", depth_frames(1))
    with pytest.raises(InputError, match="no frame"):
        write_bag(tmp_path / "none", [])
    assert not (tmp_path / "none").exists()


def test_rclpy_reads_the_messages_as_rosbags_does():
    serialization = pytest.importorskip("rclpy.serialization")
    from sensor_msgs.msg import CameraInfo, Image

    frame = next(depth_frames(1, masks=True, camera=LENS))
    classes = {"depth": Image, "camera_info": CameraInfo, "mask": Image}
    decoded = {
        kind: serialization.deserialize_message(encode(kind, message), classes[kind])
        for kind, message in frame_messages(frame, "camera").items()
    }
    assert decoded["depth"].header.frame_id == "camera"
    assert_same([depth_frame(decoded["depth"], decoded["camera_info"], decoded["mask"])], [frame])


def test_the_camera_info_of_another_camera_is_not_taken(tmp_path):
    """Of a bag without that of its depth images, only the colour camera's would be left: another focal length."""
    message = camera_messages(1)[0]
    depth = ("/camera/depth/image_raw", "depth", message["depth"], 0)
    other = replace(message["camera_info"], header=replace(message["camera_info"].header, frame_id="colour"))
    error = complaint(Bag(tmp_path / "bag").write(depth, ("/camera/color/camera_info", "camera_info", other, 0)))
    assert error.reason == "no_camera_info" and "name one of /camera/color/camera_info" in str(error)
    named = open_recording(tmp_path / "bag", camera_info_topic="/camera/color/camera_info")
    assert_same(named.frames(), depth_frames(1))


def test_infrared_images_are_not_taken_for_depth(tmp_path):
    """Their encoding, mono16, is one of depth too, and one depth image may be lost."""
    first, second = camera_messages()
    entries = [("/camera/depth/image", "depth", first["depth"], 0)]
    for kind in ("camera/depth", "camera/ir"):
        entries.append((f"/{kind}/camera_info", "camera_info", first["camera_info"], 0))
    for message in (first, second):
        entries.append(("/camera/ir/image", "depth", replace(message["depth"], encoding="mono16"), 0))
    bag = Bag(tmp_path / "bag").write(*entries)
    assert open_recording(bag).topics.depth == "/camera/depth/image"
    assert [camera.topics.depth for camera in open_cameras(bag)] == ["/camera/depth/image"]
    alone = Bag(tmp_path / "alone").write(*(entry for entry in entries if "/ir/" in entry[0]))
    assert open_recording(alone).topics.depth == open_cameras(alone)[0].topics.depth == "/camera/ir/image"


def test_rectified_images_of_a_bag_have_no_lens(tmp_path):
    frames = list(depth_frames(2, camera=LENS))
    entries = []
    for frame in frames:
        message = frame_messages(frame, "camera")
        entries.append(("/depth/camera_info", "camera_info", message["camera_info"], frame.stamp_ns))
        entries.append(("/depth/image_rect", "depth", message["depth"], frame.stamp_ns))
    recording = open_recording(Bag(tmp_path / "bag").write(*entries))
    straight = replace(LENS, distortion_model="none", distortion=())
    assert_same(recording.frames(), [replace(frame, intrinsics=straight) for frame in frames])
    info = next(message.data for message in recording.messages() if message.kind == "camera_info")
    played = TYPES.deserialize_cdr(without_lens(info), MESSAGE_TYPES["camera_info"])
    assert intrinsics(played) == straight, "as it is played under a name that does not tell"


def test_what_the_log_beside_a_database_holds_is_read(tmp_path):
    """Recorders that write ahead leave their last messages there when they are interrupted."""
    frames = list(depth_frames(6))
    whole = write_bag(tmp_path / "whole", frames, "sqlite3")
    file = next(whole.glob("*.db3"))
    live = sqlite3.connect(file)
    try:
        live.execute("PRAGMA journal_mode=WAL")
        live.execute("PRAGMA wal_autocheckpoint=0")
        rows = live.execute("SELECT id, topic_id, timestamp, data FROM messages ORDER BY id").fetchall()
        live.execute("DELETE FROM messages WHERE id > 4")
        live.commit()
        live.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        live.executemany("INSERT INTO messages VALUES (?, ?, ?, ?)", rows[4:])
        live.commit()
        (tmp_path / "killed").mkdir()
        for each in (file, file.with_name(f"{file.name}-wal")):
            (tmp_path / "killed" / each.name.replace("whole", "killed")).write_bytes(each.read_bytes())
    finally:
        live.close()
    before = {path.name: path.read_bytes() for path in (tmp_path / "killed").iterdir()}
    assert len(before) == 2 and any(len(data) for name, data in before.items() if name.endswith("-wal"))
    damages = []
    found = open_recording(tmp_path / "killed").frames(on_damage=damages.append)
    assert_same(found, frames)
    assert ["metadata.yaml is missing" in str(damage) for damage in damages] == [True]
    assert {path.name: path.read_bytes() for path in (tmp_path / "killed").iterdir()} == before
