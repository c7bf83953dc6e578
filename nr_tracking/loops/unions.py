"""Disjoint sets as trees: each member knows one above it, the root knows itself."""

from __future__ import annotations

from nr_tracking.loops.compiler import inlined
from nr_tracking.types import Int64


@inlined
def root_of(above: Int64, member: int) -> int:
    """The root of a member's set; the path ``above`` (N,) to it, of any type of whole numbers, is halved on the way."""
    while above[member] != member:
        above[member] = above[above[member]]
        member = above[member]
    return member
