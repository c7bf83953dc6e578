"""Recordings that were cut off, copied badly, or made to do harm.

The normal run takes a sample; ``NR_TRACKING_DAMAGES=1000`` asks for as many truncations and bit flips.
"""

import contextlib
import os
import shutil
import signal
import struct
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from ball_recording import ball_frames, contents, run, write_ball
from rosbags.rosbag2 import StoragePlugin, Writer
from test_bags import assert_same, depth_frames

from nr_tracking.ros.bags import find_bags, open_recording, write_bag
from nr_tracking.ros.mcap_file import McapFile
from nr_tracking.ros.messages import MESSAGE_TYPES, frame_messages
from nr_tracking.ros.typestore import TYPES, encode
from nr_tracking.tracking.result import read_output
from nr_tracking.types import InputError

CASES = int(os.environ.get("NR_TRACKING_DAMAGES", "120"))
FRAMES = list(depth_frames(6))
LIMIT_S = 10


@contextlib.contextmanager
def time_limit():
    def too_long(*_):
        raise AssertionError(f"a damaged recording was read for more than {LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LIMIT_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def write_split(path, storage, compression=None):
    """A recording in two files, as `ros2 bag record --max-bag-size` leaves it; mcap in several chunks."""
    parts = [write_bag(path.with_name(f"{path.name}-{i}"), FRAMES[3 * i :][:3], storage) for i in range(2)]
    path.mkdir()
    names = []
    for index, part in enumerate(parts):
        file = next(file for file in part.iterdir() if file.suffix != ".yaml")
        names.append(f"{path.name}_{index}{file.suffix}")
        file.rename(path / names[-1])
        shutil.rmtree(part)
    lines = "".join(f"  - {name}\n" for name in names)
    topics = "".join(
        f"  - topic_metadata: {{name: /camera/depth/{name}}}\n    message_count: {len(FRAMES)}\n"
        for name in ("image_raw", "camera_info")
    )
    text = f"rosbag2_bagfile_information:\n  version: 9\n  relative_file_paths:\n{lines}"
    text += f"  topics_with_message_count:\n{topics}"
    (path / "metadata.yaml").write_text(text)
    return path


def spoil(data, generator):
    """A truncation, one flipped bit, or a burst of noise."""
    position = int(generator.integers(len(data)))
    kind = ("cut", "flip", "burst")[int(generator.integers(3))]
    if kind == "cut":
        return kind, data[:position]
    spoilt = bytearray(data)
    if kind == "flip":
        spoilt[position] ^= 1 << int(generator.integers(8))
    else:
        spoilt[position : position + 16] = generator.bytes(min(16, len(data) - position))
    return kind, bytes(spoilt)


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_damage_is_an_error_that_names_it_or_leaves_a_marked_part(tmp_path, storage):
    source = write_split(tmp_path / "source", storage)
    damaged = shutil.copytree(source, tmp_path / "damaged")
    files = sorted(source.iterdir())
    generator = np.random.default_rng(11)
    outcomes = Counter()
    tracemalloc.start()
    try:
        for _ in range(CASES // 2):
            file = files[int(generator.choice(3, p=[0.1, 0.45, 0.45]))]
            kind, data = spoil(file.read_bytes(), generator)
            (damaged / file.name).write_bytes(data)
            with time_limit():
                outcomes[kind, read(damaged)] += 1
            shutil.copy(file, damaged / file.name)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 << 20
    assert sum(outcomes.values()) == CASES // 2
    assert {outcome for _, outcome in outcomes} >= {"part, marked", "whole"}
    print(storage, dict(outcomes))


def read(path):
    """Read a damaged recording; what came of it."""
    errors = []
    try:
        frames = list(open_recording(path).frames(on_drop=errors.append))
    except InputError as error:
        assert str(path) in str(error) and len(str(error)) > len(str(path)) + 20
        return "error"
    for error in errors:
        assert str(error) and error.reason
    by_stamp = {frame.stamp_ns: frame for frame in FRAMES}
    intact = 0
    for frame in frames:
        whole = by_stamp.get(frame.stamp_ns)
        same = whole is not None and frame.depth.shape == whole.depth.shape
        # Neither format has a checksum over what is flipped within an image or a stamp.
        intact += same and np.count_nonzero(frame.depth != whole.depth) <= 16
    if len(frames) < len(FRAMES):
        assert errors, "frames are missing and nobody said so"
    assert intact >= len(frames) - 1
    return "part, marked" if errors else "whole"


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_missing_metadata_and_a_last_file_that_is_cut_off(tmp_path, storage):
    bag = write_split(tmp_path / "bag", storage)
    assert_same(open_recording(bag).frames(), FRAMES)
    (bag / "metadata.yaml").unlink()
    assert find_bags(tmp_path) == [bag]
    errors = []
    assert_same(open_recording(bag).frames(on_drop=errors.append), FRAMES)
    assert ["metadata.yaml is missing" in str(error) for error in errors] == [True]
    last = sorted(bag.iterdir())[-1]
    last.write_bytes(last.read_bytes()[: int(0.55 * last.stat().st_size)])
    recording, errors = open_recording(bag), []
    frames = list(recording.frames(on_drop=errors.append))
    assert_same(frames[:3], FRAMES[:3])
    assert len(frames) < 6 and any(last.name in str(error) for error in errors)
    with pytest.raises(InputError, match="damaged"):
        list(recording.frames())
    last.unlink()
    assert_same(open_recording(bag).frames(on_drop=errors.append), FRAMES[:3])


@pytest.mark.parametrize("bit", [0, 9, 20, 31, 42, 53, 62, 63])
def test_a_flipped_bit_in_where_the_summary_begins_costs_no_frame(tmp_path, bit):
    bag = write_bag(tmp_path / "bag", FRAMES)
    (file,) = bag.glob("*.mcap")
    data = bytearray(file.read_bytes())
    data[len(data) - 28 + bit // 8] ^= 1 << bit % 8  # behind it: 8 + 4 bytes of the footer, 8 of the magic
    file.write_bytes(data)
    assert_same(open_recording(bag).frames(), FRAMES)
    assert_same(open_recording(file).frames(), FRAMES)


@pytest.mark.parametrize("format_", ["zstd", "lz4"])
def test_chunks_are_unpacked_and_never_to_more_than_they_say(tmp_path, format_):
    bag = write_bag(tmp_path / "bag", FRAMES)
    file = next(bag.glob("*.mcap"))
    plain = mcap_of(file, "", lambda data: data)
    pack = packer(format_)
    packed = tmp_path / "packed.mcap"
    packed.write_bytes(mcap_of(file, format_, pack))
    assert_same(open_recording(packed).frames(), FRAMES)
    bomb = tmp_path / "bomb.mcap"
    bomb.write_bytes(mcap_of(file, format_, lambda data: pack(bytes(200 << 20))))
    assert len(plain) > bomb.stat().st_size / 100
    tracemalloc.start()
    errors = []
    with contextlib.suppress(InputError):
        list(open_recording(bomb).frames(on_drop=errors.append))
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()


def packer(format_):
    if format_ == "zstd":
        from nr_tracking.ros import zstd

        module = __import__(zstd.ZstdDecompressor.__module__.split("._")[0], fromlist=["compress"])
        return module.compress
    import lz4.frame

    return lz4.frame.compress


def mcap_of(file, compression, pack):
    """The messages of an MCAP file as one with a single chunk and neither index nor summary."""
    record = lambda opcode, content: struct.pack("<BQ", opcode, len(content)) + content  # noqa: E731
    text = lambda words: struct.pack("<I", len(words)) + words  # noqa: E731
    source, numbers, records = McapFile(file), {}, b""
    for stream in source.streams():
        number = len(numbers) + 1
        numbers[stream.topic] = number
        name = stream.message_type.encode()
        records += record(3, struct.pack("<H", number) + text(name) + text(b"") + text(b""))
        channel = struct.pack("<HH", number, number) + text(stream.topic.encode()) + text(b"cdr") + text(b"")
        records += record(4, channel)
    for topic, stamp, data in source.messages(list(numbers), pytest.fail):
        records += record(5, struct.pack("<HIQQ", numbers[topic], 0, stamp, stamp) + data)
    packed = pack(records)
    chunk = struct.pack("<QQQI", 0, 1, len(records), 0) + text(compression.encode()) + struct.pack("<Q", len(packed))
    magic = b"\x89MCAP0\r\n"
    return magic + record(1, text(b"ros2") + text(b"")) + record(6, chunk + packed) + record(15, bytes(4))


def test_compressed_files_and_messages_of_rosbag2(tmp_path):
    bag = write_split(tmp_path / "bag", "sqlite3")
    pack = packer("zstd")
    metadata = (bag / "metadata.yaml").read_text()
    for file in bag.glob("*.db3"):
        file.with_name(file.name + ".zstd").write_bytes(pack(file.read_bytes()))
        file.unlink()
    (bag / "metadata.yaml").write_text(metadata.replace(".db3", ".db3.zstd") + "  compression_mode: FILE\n")
    assert_same(open_recording(bag).frames(), FRAMES)
    messages = tmp_path / "messages"
    with Writer(messages, version=9, storage_plugin=StoragePlugin.SQLITE3) as writer:
        topics = {
            kind: writer.add_connection(f"/c/{kind}", MESSAGE_TYPES[kind], typestore=TYPES) for kind in MESSAGE_TYPES
        }
        for frame in FRAMES:
            for kind, message in frame_messages(frame, "camera").items():
                writer.write(topics[kind], frame.stamp_ns, pack(encode(kind, message)))
    text = (messages / "metadata.yaml").read_text()
    mode = [line for line in text.splitlines() if "compression_mode" in line]
    (messages / "metadata.yaml").write_text(text.replace(mode[0], "  compression_mode: MESSAGE"))
    assert_same(open_recording(messages).frames(), FRAMES)
    assert_same(open_recording(next(messages.glob("*.db3"))).frames(), FRAMES)
    (messages / "metadata.yaml").unlink()
    assert_same(open_recording(messages).frames(on_damage=lambda error: None, on_drop=pytest.fail), FRAMES)


def test_damage_is_told_beside_the_rows_which_stay_those_of_the_frames(tmp_path, small_pictures):
    bag = write_split(tmp_path / "bag", "sqlite3")
    (bag / "metadata.yaml").unlink()
    done = run(bag, tmp_path / "output")
    output = read_output(done.output)
    np.testing.assert_array_equal(output.stamps_ns, [frame.stamp_ns for frame in FRAMES])
    assert done.run.dropped == {} and done.run.tracked == 6 and np.isfinite(output.positions[0]).all()
    assert ["metadata.yaml is missing" in notice for notice in done.run.notices] == [True]
    assert "metadata.yaml is missing" in (done.output / "report.html").read_text()
    again = run(bag, tmp_path / "output", resume=True)
    assert again.run == done.run


def test_frames_that_were_lost_do_not_count_as_tracked(tmp_path, small_pictures):
    source = write_split(tmp_path / "source", "sqlite3")
    (source / "source_1.db3").unlink()
    done = run(source, tmp_path / "output")
    assert done.run.tracked == len(list((done.output / "meshes").iterdir())) == 3 and done.run.notices
    assert np.isfinite(read_output(done.output).positions[0]).all()


def test_a_damaged_recording_never_costs_an_earlier_result(tmp_path, small_pictures):
    output = tmp_path / "output"
    run(write_ball(tmp_path / "ball", 4), output)
    before = contents(output)
    source = write_bag(tmp_path / "source", ball_frames(6), "mcap")
    file = next(source.glob("*.mcap"))
    whole, generator = file.read_bytes(), np.random.default_rng(2)
    replaced = 0
    for _ in range(max(6, CASES // 20)):
        file.write_bytes(spoil(whole, generator)[1])
        try:
            done = run(source, output)
        except InputError:
            assert contents(output) == before
        else:
            replaced += 1
            before = contents(output)
            frames = sum(read_output(output).mesh(row) is not None for row in range(done.run.frames))
            assert frames == done.run.tracked and (frames == 6 or done.run.dropped or done.run.notices)
        assert not list(tmp_path.glob(".output.*"))
    assert replaced
