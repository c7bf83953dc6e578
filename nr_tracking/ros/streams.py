"""What the files of a recording hold: topics and messages, before anything is decoded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

OnDamage = Callable[[str], None]
Message = tuple[str, int, bytes]
"""Topic, time of recording in nanoseconds, CDR bytes."""


@dataclass(frozen=True)
class Stream:
    """One topic of a recording; ``count`` messages of it can be expected."""

    topic: str
    message_type: str
    count: int


class BagFile(Protocol):
    """One file of a recording."""

    def streams(self) -> list[Stream]:
        """Its topics."""

    def messages(self, topics: Collection[str], on_damage: OnDamage) -> Iterator[Message]:
        """The messages of some of its topics, by time; what cannot be read is told to ``on_damage``."""

    def close(self) -> None:
        """Let go of the file."""
