"""A rosbag2 database (.db3), read row by row, so that damaged pages cost no more than what lay on them."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from urllib.parse import quote

from nr_tracking.ros.streams import Message, OnDamage, Stream

_FAULTS = (sqlite3.Error, UnicodeDecodeError, OverflowError, ValueError, TypeError)


def write_ahead_log(path: Path) -> Path | None:
    """The log beside a database, where a recorder that was interrupted left its last messages; None if there is none.

    Recorders keep one with the storage preset ``resilient``.
    """
    log = path.with_name(f"{path.name}-wal")
    return log if log.is_file() and log.stat().st_size else None


class SqliteFile:
    """One database. ValueError where it is none, or its table of topics is lost.

    With ``own`` the file is a copy for this reader, which may write what a log beside it holds into it.
    """

    def __init__(self, path: Path, own: bool = False) -> None:
        logged = write_ahead_log(path)
        size = path.stat().st_size + (logged.stat().st_size if own and logged else 0)
        uri = f"file:{quote(str(path.absolute()))}?{'mode=rw' if own else 'mode=ro&immutable=1'}"
        try:
            self._database = sqlite3.connect(uri, uri=True, check_same_thread=False)
        except sqlite3.Error as error:
            raise ValueError(f"not a database: {error}") from None
        try:
            self._database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, min(size + 1024, 2**31 - 1))
            rows = self._database.execute("SELECT id, name, type, serialization_format FROM topics").fetchall()
            self._topics = {int(number): (str(topic), str(kind)) for number, topic, kind, form in rows if form == "cdr"}
            self._others = {int(row[0]) for row in rows} - set(self._topics)
            self._damages: list[str] = []
            self._index = self._read_index(size)
        except _FAULTS as error:
            self.close()
            raise ValueError(f"not a rosbag2 database: {error}" if size else "it is empty") from None

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def streams(self) -> list[Stream]:
        """Its topics."""
        counts = Counter(topic for _, _, topic in self._index)
        return [Stream(topic, kind, counts[number]) for number, (topic, kind) in self._topics.items()]

    def messages(self, topics: Collection[str], on_damage: OnDamage) -> Iterator[Message]:
        """The messages of some topics, by time."""
        for damage in self._damages:
            on_damage(damage)
        wanted = {number: topic for number, (topic, _) in self._topics.items() if topic in set(topics)}
        for stamp, row, number in self._index:
            if number not in wanted:
                continue
            try:
                found = self._database.execute("SELECT data FROM messages WHERE id = ?", (row,)).fetchone()
                if found is None or not isinstance(found[0], bytes):
                    raise ValueError("it is not there")
            except _FAULTS as error:
                on_damage(f"message {row} cannot be read ({error})")
                continue
            yield wanted[number], stamp, found[0]

    def _read_index(self, size: int) -> list[tuple[int, int, int]]:
        """Time, row and topic of every message whose row can be read, by time."""
        index: list[tuple[int, int, int]] = []
        try:
            for row, number, stamp in self._database.execute("SELECT id, topic_id, timestamp FROM messages"):
                if number in self._topics and type(row) is int and type(stamp) is int:
                    index.append((stamp, row, number))
                elif number not in self._others:
                    self._damages.append(f"message {row} belongs to no topic, or has no time")
                if len(index) + len(self._damages) > size:  # rows take bytes: a table that goes round in circles
                    raise ValueError("it has more rows than bytes")
        except _FAULTS as error:
            self._damages.append(f"{len(index)} messages can be listed, then {error}")
        index.sort()
        # Recorders number messages without gaps.
        missing = 0 if self._others else max((row for _, row, _ in index), default=0) - len(index)
        if missing > 0 and not self._damages:
            self._damages.append(f"{missing} messages are missing from their numbering")
        return index
