"""Numbers of things, as people say them."""

from __future__ import annotations


def counted(count: int, what: str) -> str:
    """``1 recording``, ``2 recordings``."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
