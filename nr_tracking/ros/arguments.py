"""What stands on a node's command line besides the arguments of ROS."""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Iterable, Iterator

from nr_tracking.section import ConfigError

_HELP = ("-h", "--help")
_NAMESPACE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")


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


def camera_namespaces(words: Iterable[str], *, within: str = "", depth_topic: str = "") -> list[str]:
    """Namespaces of several cameras without outer slashes, each below ``within``, which may be empty.

    Raises:
        ConfigError: there is none, one that ROS does not allow, or one twice; or ``depth_topic`` is one for all.
    """
    words = list(words)
    for word in [*([within] if within.strip("/") else []), *words]:
        if not _NAMESPACE.fullmatch(word.strip("/")):
            raise ConfigError(f"{word!r} is no namespace")
    names = [posixpath.join(within, word.strip("/")).strip("/") for word in words]
    if not names or len(set(names)) < len(names):
        raise ConfigError("name the cameras, each once")
    if len(names) > 1 and depth_topic.startswith("/"):
        raise ConfigError(f"depth_topic: {depth_topic} is one for all cameras; leave out the slash at its beginning")
    return names


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
