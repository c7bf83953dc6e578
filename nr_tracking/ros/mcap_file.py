"""An MCAP file, read from front to back, so that one whose end is missing reads like any other.

The format is that of mcap.dev/spec: records of an opcode, a length and a content; messages stand alone or in chunks.
"""

from __future__ import annotations

import struct
from binascii import crc32
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nr_tracking.ros.streams import Message, OnDamage, Stream
from nr_tracking.ros.zstd import decompressed

_MAGIC = b"\x89MCAP0\r\n"
_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _STATISTICS, _DATA_END = 2, 3, 4, 5, 6, 0x0B, 0x0F
_READ = {_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _STATISTICS, _DATA_END}  # attachments may be larger than memory
_FOOTER_BYTES = 9 + 20 + len(_MAGIC)
_CHUNK_LIMIT = 1 << 30  # recorders write chunks of a few megabytes


class Damage(ValueError):
    """From here on the records cannot be told apart."""


@dataclass(frozen=True)
class _Channel:
    topic: str
    message_type: str
    encoding: str


class McapFile:
    """One MCAP file. ValueError where it is none at all."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb")
        try:
            self._size = path.stat().st_size
            if self._file.read(len(_MAGIC)) != _MAGIC:
                raise ValueError("it does not begin as an MCAP file" if self._size else "it is empty")
            self._schemas: dict[int, str] = {}
            self._channels: dict[int, _Channel] = {}
            self._counts: Counter[int] = Counter()
            if not self._read_summary():
                self._count_messages()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def streams(self) -> list[Stream]:
        """Its topics."""
        counts: Counter[tuple[str, str]] = Counter()
        for number, channel in self._channels.items():
            if channel.encoding == "cdr":
                counts[channel.topic, channel.message_type] += self._counts[number]
        return [Stream(topic, kind, count) for (topic, kind), count in counts.items()]

    def messages(self, topics: Collection[str], on_damage: OnDamage) -> Iterator[Message]:
        """The messages of some topics, by time within each chunk."""
        wanted = set(topics)
        delivered: Counter[int] = Counter()
        damaged = False

        def found(what: str) -> None:
            nonlocal damaged
            damaged = True
            on_damage(what)

        def of_topic(batch: list[tuple[int, int, bytes]]) -> Iterator[Message]:
            for number, stamp, data in sorted(batch, key=lambda message: message[1]):
                channel = self._channels.get(number)
                if channel is not None and channel.topic in wanted and channel.encoding == "cdr":
                    yield channel.topic, stamp, data

        for batch in self._batches(found):
            delivered.update(number for number, _, _ in batch)
            yield from of_topic(batch)
        missing = sum((self._counts - delivered).values())
        if missing and not damaged:
            on_damage(f"{missing} of the messages that its summary counts are not there")

    def _count_messages(self) -> None:
        """Without a summary everything is read once; damage is told when it is read again."""
        for batch in self._batches(lambda _: None):
            self._counts.update(number for number, _, _ in batch)

    def _batches(self, on_damage: OnDamage) -> Iterator[list[tuple[int, int, bytes]]]:
        """Messages (channel, stamp, data), those of a chunk together."""
        position = len(_MAGIC)
        while True:
            try:
                if position >= self._size:
                    raise Damage("it ends without a footer")
                opcode, content, following = self._record(position)
            except Damage as error:
                on_damage(f"{error}; nothing behind byte {position} of {self._size} can be read")
                return
            if opcode in (_DATA_END, _FOOTER):
                return
            try:
                if opcode == _CHUNK:
                    yield self._unpacked(content)
                elif opcode == _MESSAGE:
                    yield [_message(content)]
                else:
                    self._declare(opcode, content)
            except (ValueError, struct.error) as error:
                on_damage(f"the record at byte {position} is damaged ({error}) and left out")
            position = following

    def _record(self, position: int) -> tuple[int, bytes, int]:
        """Opcode and content of the record at a position, and where the next begins; useless content is left empty."""
        if position + 9 > self._size:  # a damaged summary may point anywhere, even where seeking is an OSError
            raise Damage("it is cut short")
        self._file.seek(position)
        opcode, length = struct.unpack("<BQ", self._file.read(9))
        if not 0 < opcode <= 0xFF or length > self._size - position - 9:
            raise Damage(f"a record of {length} bytes does not fit into the file: it is cut short or damaged")
        content = self._file.read(length) if opcode in _READ else b""
        return opcode, content, position + 9 + length

    def _unpacked(self, content: bytes) -> list[tuple[int, int, bytes]]:
        """The messages of a chunk; what it declares is taken note of."""
        size, checksum = struct.unpack_from("<QI", content, 16)
        compression, position = _text(content, 28)
        (length,) = struct.unpack_from("<Q", content, position)
        packed = content[position + 8 : position + 8 + length]
        if size > _CHUNK_LIMIT:
            raise ValueError(f"a chunk that claims {size} bytes")
        if len(packed) != length:
            raise ValueError("a chunk that is longer than its record")
        records = _decompress(packed, compression, size)
        if len(records) != size or (checksum and crc32(records) != checksum):
            raise ValueError("the checksum of a chunk is wrong")
        messages, position = [], 0
        while position < size:
            opcode, length = struct.unpack_from("<BQ", records, position)
            if length > size - position - 9:
                raise ValueError("a record that is longer than its chunk")
            inner = records[position + 9 : position + 9 + length]
            if opcode == _MESSAGE:
                messages.append(_message(inner))
            else:
                self._declare(opcode, inner)
            position += 9 + length
        return messages

    def _declare(self, opcode: int, content: bytes) -> None:
        """Take note of a schema or a channel; the first declaration of a number holds."""
        if opcode == _SCHEMA:
            (number,) = struct.unpack_from("<H", content)
            self._schemas.setdefault(number, _text(content, 2)[0])
        elif opcode == _CHANNEL:
            number, schema = struct.unpack_from("<HH", content)
            topic, position = _text(content, 4)
            encoding, _ = _text(content, position)
            self._channels.setdefault(number, _Channel(topic, self._schemas.get(schema, ""), encoding))

    def _read_summary(self) -> bool:
        """Channels and their counts from the end of the file; False where that is missing or makes no sense."""
        try:
            self._file.seek(max(0, self._size - _FOOTER_BYTES))
            footer = self._file.read(_FOOTER_BYTES)
            opcode, _, position = struct.unpack_from("<BQQ", footer)
            if opcode != _FOOTER or not footer.endswith(_MAGIC) or not position:
                return False
            while True:
                opcode, content, position = self._record(position)
                if opcode == _FOOTER:
                    break
                self._declare(opcode, content)
                if opcode == _STATISTICS:
                    (length,) = struct.unpack_from("<I", content, 42)
                    self._counts.update(dict(struct.iter_unpack("<HQ", content[46 : 46 + length])))
        except (ValueError, struct.error):
            pass
        else:
            # Recorders may be told not to repeat there what each channel holds.
            known = all(each.message_type for each in self._channels.values() if each.encoding == "cdr")
            if self._channels and self._counts and known:
                return True
        self._schemas.clear()
        self._channels.clear()
        self._counts.clear()
        return False


def _message(content: bytes) -> tuple[int, int, bytes]:
    number, _, stamp, _ = struct.unpack_from("<HIQQ", content)
    return number, stamp, content[22:]


def _text(content: bytes, position: int) -> tuple[str, int]:
    """A string at a position, and what comes behind it."""
    (length,) = struct.unpack_from("<I", content, position)
    end = position + 4 + length
    if end > len(content):
        raise ValueError("a text that is longer than its record")
    return content[position + 4 : end].decode(errors="replace"), end


def _decompress(packed: bytes, compression: str, size: int) -> bytes:
    """Unpack a chunk to at most ``size`` bytes."""
    if compression == "":
        return packed
    if compression == "zstd":
        return decompressed(packed, size)
    if compression == "lz4":
        from lz4.frame import LZ4FrameDecompressor

        try:
            return bytes(LZ4FrameDecompressor().decompress(packed, max_length=size + 1))
        except RuntimeError as error:
            raise ValueError(str(error)) from None
    raise ValueError(f"compression {compression!r} is neither zstd nor lz4")
