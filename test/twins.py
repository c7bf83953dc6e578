"""Runs what has compiled loops with them and without, so that each is the oracle of the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nr_tracking import loops

needs_loops = pytest.mark.skipif(not loops.are_compiled(), reason="loops are not compiled here")


def both(function: Callable[[], Any]) -> tuple[Any, Any]:
    """What ``function()`` gives with compiled loops, and with their twins in numpy or PyTorch."""
    compiled = function()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loops, "are_compiled", lambda: False)
        plain = function()
    return compiled, plain
