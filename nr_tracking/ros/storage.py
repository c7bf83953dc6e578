"""The files of a rosbag2, intact or not: what they hold, and their messages as far as they can be read.

    storage = open_storage("recording")          # a folder, or one .mcap or .db3 file
    for topic, stamp_ns, data in storage.messages({"/depth"}, damages.append):
        ...

A recording may have been cut off, copied badly or made to do harm. Its metadata may be missing, some of its files too;
what is left is read, and every place at which something is missing is told to ``on_damage``. No length that a file
claims is believed before it was held against the size of that file.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nr_tracking.ros.mcap_file import McapFile
from nr_tracking.ros.sqlite_file import SqliteFile, write_ahead_log
from nr_tracking.ros.streams import BagFile, Message, OnDamage, Stream
from nr_tracking.ros.zstd import FRAME, decompressed, decompressed_file
from nr_tracking.types import InputError

METADATA = "metadata.yaml"
BAG_FILES = (".mcap", ".db3")
_COMPRESSED = ".zstd"
_METADATA_BYTES = 64 << 20
_MESSAGE_BYTES = 1 << 30


@dataclass
class Storage:
    """A recording's files.

    ``damages``: what was found missing on opening; ``promised``: how many messages of each topic its metadata names.
    """

    path: Path
    files: list[Path]
    damages: list[str] = field(default_factory=list)
    compressed_messages: bool = False
    promised: dict[str, int] = field(default_factory=dict)

    def streams(self) -> list[Stream]:
        """All topics, by name, counted over all files.

        Raises:
            InputError: ``corrupt_bag``: nothing can be read.
        """
        counts: Counter[tuple[str, str]] = Counter()
        readable = False
        for _, file in self._open(self.damages.append):
            readable = True
            for stream in file.streams():
                counts[stream.topic, stream.message_type] += stream.count
        if not readable:
            why = "; ".join(self.damages) or "it has neither .mcap nor .db3 files"
            raise InputError(
                "corrupt_bag",
                f"{self.path} cannot be read as a rosbag2: {why}. A recording is a folder with metadata.yaml and its "
                ".mcap or .db3 files; `ros2 bag reindex` repairs one that was interrupted",
            )
        there: Counter[str] = Counter()
        for (topic, _), count in counts.items():
            there[topic] += count
        self.damages += [
            f"{METADATA} promises {count} messages of {topic}, {there[topic]} are there"
            for topic, count in sorted(self.promised.items())
            if there[topic] < count
        ]
        return [Stream(topic, kind, count) for (topic, kind), count in sorted(counts.items())]

    def messages(self, topics: Collection[str], on_damage: OnDamage) -> Iterator[Message]:
        """Messages of some topics, file by file, each by time.

        Compressed ones are unpacked, also where there is no metadata that says so.
        """
        for name, file in self._open(on_damage):
            for topic, stamp, data in file.messages(topics, lambda what, name=name: on_damage(f"{name}: {what}")):  # type: ignore[misc]
                if self.compressed_messages or data.startswith(FRAME):
                    try:
                        data = decompressed(data, _MESSAGE_BYTES)
                    except ValueError as error:
                        on_damage(f"{name}: a message of {topic} cannot be decompressed ({error})")
                        continue
                yield topic, stamp, data

    def _open(self, on_damage: OnDamage) -> Iterator[tuple[str, BagFile]]:
        """Open one file after the other; those of which nothing can be read are reported."""
        for path in self.files:
            with tempfile.TemporaryDirectory(prefix="nr_tracking_") as spare:
                try:
                    plain = _plain(path, Path(spare))
                    file: BagFile = (
                        McapFile(plain) if plain.suffix == ".mcap" else _database(plain, Path(spare), on_damage)
                    )
                except (OSError, ValueError) as error:
                    on_damage(f"{path.name}: {error}")
                    continue
                try:
                    yield path.name, file
                finally:
                    file.close()


def open_storage(path: Path) -> Storage:
    """The files of a recording, in their order, by its metadata or, where that is missing or damaged, by their names.

    Raises:
        InputError: ``corrupt_bag``: there are no such files.
    """
    if path.is_file():
        return Storage(path, [path])
    storage = Storage(path, [])
    metadata = _metadata(path, storage.damages)
    there = sorted((file for file in path.iterdir() if is_bag_file(file)), key=_natural)
    if metadata is None:
        storage.files = there
    else:
        names = metadata["relative_file_paths"]
        named = [path / Path(name).name for name in names if isinstance(name, str)]
        if len(named) < len(names):
            storage.damages.append(f"{METADATA} names {len(names) - len(named)} files by what is no text")
        storage.files = [file for file in named if file.is_file() and _is_bag_file(file)]
        storage.damages += [f"{file.name} is missing" for file in named if not file.is_file()]
        unnamed = [file for file in there if file not in named]
        storage.damages += [f"{METADATA} does not name {file.name}" for file in unnamed]
        storage.files += unnamed
        storage.promised = _promised(metadata)
        storage.compressed_messages = metadata.get("compression_mode") in ("message", "MESSAGE")
    if not storage.files:
        storage.streams()  # says what is wrong
    return storage


def _metadata(path: Path, damages: list[str]) -> dict[str, Any] | None:
    file = path / METADATA
    if not file.is_file():
        if any(_is_bag_file(child) for child in path.iterdir()):
            damages.append(f"{METADATA} is missing: the recording was not closed")
        return None
    try:
        if file.stat().st_size > _METADATA_BYTES:
            raise ValueError(f"{file.stat().st_size} bytes are too many")
        metadata = yaml.safe_load(file.read_text(errors="replace"))["rosbag2_bagfile_information"]
        if not isinstance(metadata.get("relative_file_paths"), list):
            raise ValueError("it names no files")
        return dict(metadata)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        damages.append(f"{METADATA} is damaged ({' '.join(str(error).split())[:200] or type(error).__name__})")
        return None


def _promised(metadata: dict[str, Any]) -> dict[str, int]:
    promised: Counter[str] = Counter()
    with suppress(TypeError, KeyError, AttributeError, ValueError):
        for topic in metadata.get("topics_with_message_count") or []:
            name, form = topic["topic_metadata"]["name"], topic["topic_metadata"].get("serialization_format", "cdr")
            if form == "cdr" and isinstance(name, str):  # aliases can make a few lines a text without end
                promised[name] += int(topic["message_count"])
    return promised


def is_bag_file(path: Path) -> bool:
    """Whether a path is named like a file of a recording."""
    return path.is_file() and _is_bag_file(path)


def _is_bag_file(path: Path) -> bool:
    return path.suffix in BAG_FILES or (path.suffix == _COMPRESSED and path.with_suffix("").suffix in BAG_FILES)


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts bag_2.mcap before bag_10.mcap."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _database(path: Path, spare: Path, on_damage: OnDamage) -> SqliteFile:
    """A database with what the log beside it holds, for which both are copied into ``spare``."""
    log = write_ahead_log(path)
    if log is None:
        return SqliteFile(path)
    taken = path.stat().st_size + log.stat().st_size
    if taken > shutil.disk_usage(spare).free // 2:
        on_damage(f"{log.name} is left out: {spare.parent} has no room for a copy of {taken / 1e6:.0f} MB")
        return SqliteFile(path)
    copy = spare / path.name
    for file in (path, log):
        shutil.copyfile(file, spare / file.name)
    return SqliteFile(copy, own=True)


def _plain(path: Path, spare: Path) -> Path:
    """The file itself, or what is in it, unpacked into ``spare``."""
    if path.suffix != _COMPRESSED:
        return path
    plain = spare / path.with_suffix("").name
    room = shutil.disk_usage(spare).free // 2
    with suppress(EOFError):  # the end is missing; what comes before it has been unpacked
        decompressed_file(path, plain, room)
    return plain
