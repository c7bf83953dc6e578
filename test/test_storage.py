"""Files of recordings, one fault at a time: each has its words."""

import os
import sqlite3
import struct
import tracemalloc

import pytest
from test_bag_damage import packer
from test_bags import depth_frames

from nr_tracking.ros.bags import open_recording, write_bag
from nr_tracking.ros.mcap_file import McapFile
from nr_tracking.ros.sqlite_file import SqliteFile
from nr_tracking.ros.storage import open_storage
from nr_tracking.ros.zstd import decompressed, decompressed_file
from nr_tracking.types import InputError

TOPIC = "/camera/depth/image_raw"


@pytest.fixture
def database(tmp_path):
    bag = write_bag(tmp_path / "bag", depth_frames(), "sqlite3")
    return next(bag.glob("*.db3"))


@pytest.mark.parametrize(
    ("change", "said", "left"),
    [
        ("DELETE FROM messages WHERE id = 3", "1 messages are missing from their numbering", 3),
        ("UPDATE messages SET topic_id = 77 WHERE id = 2", "message 2 belongs to no topic", 3),
        ("UPDATE messages SET timestamp = 'noon' WHERE id = 2", "message 2 belongs to no topic, or has no time", 3),
        ("UPDATE messages SET data = 5 WHERE id = 2", "message 2 cannot be read", 3),
    ],
)
def test_rows_of_a_database_that_make_no_sense(database, change, said, left):
    with sqlite3.connect(database) as connection:
        ids = connection.execute("SELECT topics.id FROM topics WHERE name = ?", (TOPIC,)).fetchone()
        first = connection.execute("SELECT id FROM messages WHERE topic_id = ?", ids).fetchone()[0]
        assert first in (1, 2)
        connection.execute(change.replace("id = 2", f"id = {first}").replace("id = 3", f"id = {first + 2}"))
    connection.close()
    file, damages = SqliteFile(database), []
    messages = list(file.messages([TOPIC], damages.append))
    file.close()
    assert len(messages) == left and len(damages) == 1
    assert said.split("message 2")[-1] in damages[0]


def test_topics_of_other_formats_are_left_out_and_their_rows_are_no_damage(database):
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE topics SET serialization_format = 'json' WHERE name = ?", (TOPIC,))
    connection.close()
    file, damages = SqliteFile(database), []
    assert [stream.topic for stream in file.streams()] == ["/camera/depth/camera_info"]
    assert len(list(file.messages(["/camera/depth/camera_info"], damages.append))) == 4 and not damages
    file.close()


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"SQLite format 3\x00" + bytes(4096)])
def test_files_that_are_nothing_at_all(tmp_path, content):
    for kind, suffix in ((SqliteFile, "db3"), (McapFile, "mcap")):
        (tmp_path / f"bag.{suffix}").write_bytes(content)
        with pytest.raises(ValueError, match=r"empty|database|begin"):
            kind(tmp_path / f"bag.{suffix}")


def record(opcode, content):
    return struct.pack("<BQ", opcode, len(content)) + content


def chunk(size, packed, compression=b"", checksum=0, length=None):
    head = struct.pack("<QQQI", 0, 1, size, checksum) + struct.pack("<I", len(compression)) + compression
    return record(6, head + struct.pack("<Q", len(packed) if length is None else length) + packed)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (chunk(1 << 40, b""), "claims 1099511627776 bytes"),
        (chunk(3, b"abc", length=99), "longer than its record"),
        (chunk(4, b"abc"), "checksum"),
        (chunk(3, b"abc", checksum=1), "checksum"),
        (chunk(3, b"abc", b"brotli"), "neither zstd nor lz4"),
        (chunk(3, b"abc", b"lz4"), "left out"),
        (chunk(3, b"abc", b"zstd"), "left out"),
        (chunk(9, struct.pack("<BQ", 5, 999)), "longer than its chunk"),
        (record(3, b"\x01"), "left out"),
        (record(4, struct.pack("<HHI", 1, 1, 999)), "longer than its record"),
        (record(5, b"short"), "left out"),
        (struct.pack("<BQ", 5, 1 << 60), "does not fit into the file"),
        (struct.pack("<BQ", 0, 1), "does not fit into the file"),
        (b"\x05", "cut short"),
    ],
)
def test_records_of_an_mcap_file_that_make_no_sense(tmp_path, content, said):
    path = tmp_path / "bag.mcap"
    path.write_bytes(b"\x89MCAP0\r\n" + record(1, bytes(8)) + content)
    damages = []
    assert not list(McapFile(path).messages([TOPIC], damages.append))
    assert said in damages[0]


def test_zstandard_is_unpacked_up_to_its_bound(tmp_path):
    pack, plain = packer("zstd"), bytes(range(256)) * 40
    packed = pack(plain)
    assert decompressed(packed, len(plain)) == plain
    source, destination = tmp_path / "packed", tmp_path / "plain"
    for data, limit, said in (
        (packed, len(plain) - 1, "more than"),
        (packed[:-5], len(plain), "cut short"),
        (b"no such thing at all", 100, "."),
    ):
        with pytest.raises(ValueError, match=said):
            decompressed(data, limit)
        source.write_bytes(data)
        with pytest.raises((ValueError, EOFError), match=said):
            decompressed_file(source, destination, limit)
    source.write_bytes(packed)
    decompressed_file(source, destination, len(plain))
    assert destination.read_bytes() == plain


def endless(where):
    """A few lines that aliases make a text of 10^15 letters: reading them must not write it out."""
    lists = [f"l{level}: &l{level} [{', '.join([f'*l{level - 1}' if level else 'x'] * 10)}]" for level in range(15)]
    return "\n".join(lists) + "\nrosbag2_bagfile_information:\n" + where


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (endless("  relative_file_paths: [*l14, bag.mcap]"), "names 1 files by what is no text"),
        (endless("  relative_file_paths: []\n  compression_mode: *l14"), "does not name bag.mcap"),
        (
            endless("  relative_file_paths: []\n  topics_with_message_count: [{topic_metadata: {name: *l14}}]"),
            "does not name bag.mcap",
        ),
        ("rosbag2_bagfile_information: [", "metadata.yaml is damaged"),
        ("rosbag2_bagfile_information: {version: 9}", "names no files"),
        ("just: this", "metadata.yaml is damaged"),
        ("!!python/object/apply:os.system ['true']", "metadata.yaml is damaged"),
        ("rosbag2_bagfile_information: {relative_file_paths: []}", "does not name bag.mcap"),
        ("rosbag2_bagfile_information: {relative_file_paths: [../../etc/gone.mcap, bag.mcap]}", "gone.mcap is missing"),
    ],
)
def test_metadata_that_makes_no_sense(tmp_path, metadata, said):
    bag = write_bag(tmp_path / "bag", depth_frames())
    next(bag.glob("*.mcap")).rename(bag / "bag.mcap")
    (bag / "metadata.yaml").write_text(metadata)
    recording = open_recording(bag)
    assert any(said in damage for damage in recording.damages)
    with pytest.raises(InputError, match="damaged"):
        assert len(list(recording.frames())) == 4
    assert len(list(recording.frames(on_drop=lambda error: None))) == 4


def test_compressed_messages_that_do_not_unpack_are_named(tmp_path):
    storage = open_storage(write_bag(tmp_path / "bag", depth_frames(2)))
    storage.compressed_messages = True
    damages = []
    assert not list(storage.messages([TOPIC], damages.append))
    assert len(damages) == 2 and "cannot be decompressed" in damages[0]


def test_a_summary_that_does_not_repeat_what_its_channels_hold(tmp_path):
    """Recorders can be told so, to make files smaller; the whole file is read then."""
    bag = write_bag(tmp_path / "bag", depth_frames(), "mcap")
    whole = next(bag.glob("*.mcap")).read_bytes()
    footer = len(whole) - 37
    (start,) = struct.unpack_from("<Q", whole, footer + 9)
    kept, position = b"", start
    while position < footer:
        opcode, length = struct.unpack_from("<BQ", whole, position)
        kept += whole[position : position + 9 + length] if opcode in (0x04, 0x0B) else b""
        position += 9 + length
    short = tmp_path / "short.mcap"
    short.write_bytes(whole[:start] + kept + record(2, struct.pack("<QQI", start, 0, 0)) + whole[-8:])
    assert [stream.message_type for stream in open_storage(short).streams()] == [
        "sensor_msgs/msg/CameraInfo",
        "sensor_msgs/msg/Image",
    ]
    assert len(list(open_recording(short).frames())) == 4


def test_attachments_are_passed_over_however_large(tmp_path):
    whole = next(write_bag(tmp_path / "bag", depth_frames(), "mcap").glob("*.mcap")).read_bytes()
    path, size = tmp_path / "attached.mcap", 64 << 20
    with path.open("wb") as file:
        file.write(whole[:8] + struct.pack("<BQ", 9, size))
        file.seek(size, os.SEEK_CUR)
        file.write(whole[8:])
    damages = []
    tracemalloc.start()
    try:
        assert len(list(McapFile(path).messages(["/camera/depth/image_raw"], damages.append))) == 4
        assert tracemalloc.get_traced_memory()[1] < size // 4
    finally:
        tracemalloc.stop()
    path.write_bytes(whole[:8] + struct.pack("<BQ", 9, size) + whole[8:])
    assert not list(McapFile(path).messages(["/camera/depth/image_raw"], damages.append))
    assert "does not fit into the file" in damages[-1]
