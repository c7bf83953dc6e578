"""What stands on a node's command line besides the arguments of ROS."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

_HELP = ("-h", "--help")


def answered(program: str, args: list[str] | None, *, names: str = "", example: str = "name:=value") -> int | None:
    """Answer a command line that a node cannot start with: the exit code then, and None where it can start.

    Parameters and remappings without ``--ros-args`` before them would silently be left out, so they are refused.
    ``names`` is what the node takes besides, in words for the usage; empty where that is nothing.
    """
    others = list(_outside((sys.argv if args is None else args)[1:]))
    usage = f"usage: {' '.join(filter(None, [program, names]))} --ros-args -p {example} -r topic:=other_topic"
    if any(word in _HELP for word in others):
        print(usage)
        return 0
    strange = [word for word in others if not names or word.startswith("-") or ":=" in word]
    if strange:
        print(f"{program}: {strange[0]!r} is no argument of this node; {usage}", file=sys.stderr)
        return 2
    return None


def _outside(words: Iterable[str]) -> Iterator[str]:
    """The words that are not between ``--ros-args`` and ``--``. ROS takes ``a:=b`` there for an outdated remapping."""
    inside = False
    for word in words:
        if word == "--ros-args":
            inside = True
        elif inside and word == "--":
            inside = False
        elif not inside:
            yield word
