"""How loops are compiled: without the interpreter's lock, and kept for the next process."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numba
from numba.core import config, event

_NUMBA: Any = config
_LOG = logging.getLogger(__name__)
_LOCK = threading.Lock()  # numba's folder is a setting of the process
_HERE = Path(__file__).parent


class _Notice(event.Listener):
    """Says once why nothing seems to happen, the first time on a machine."""

    def __init__(self) -> None:
        self._said = False

    def on_start(self, event: event.Event) -> None:
        ours = str(event.data["dispatcher"].py_func.__module__).startswith(__package__)
        if ours and not self._said:
            _LOG.warning("compiling loops for this processor, which takes a minute; later starts find them")
            self._said = True

    def on_end(self, event: event.Event) -> None:
        """Do nothing; numba requires the method."""


event.register("numba:compile", _Notice())


class _Kept:
    """What numba keeps on disk for a loop, without its errors: a file that was cut short is written anew.

    numba itself would raise at each call, for ever, once the power had failed at the wrong moment.
    """

    def __init__(self, kept: Any) -> None:
        self._kept = kept

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kept, name)

    def load_overload(self, *of: Any) -> Any:
        try:
            return self._kept.load_overload(*of)
        except Exception as error:
            _LOG.warning("a compiled loop in %s is damaged (%r): compiled anew", self._kept.cache_path, error)
            with suppress(OSError):
                self._kept.flush()
            return None

    def save_overload(self, *of: Any) -> None:
        try:
            self._kept.save_overload(*of)
        except OSError as error:
            _LOG.warning("a compiled loop cannot be kept: %s", error)


def compiled(loop: Callable[..., Any]) -> Any:
    """``loop`` compiled for the types that it is called with; division by zero gives what it gives in numpy.

    It holds no lock, so threads run loops side by side, and one thread runs each.
    """
    options = {"nogil": True, "error_model": "numpy"}
    with _LOCK:
        chosen = _NUMBA.CACHE_DIR
        try:
            _NUMBA.CACHE_DIR = str(_kept_in(chosen, loop.__module__.rpartition(".")[2]))
            made = numba.njit(cache=True, **options)(loop)  # type: ignore[call-overload]
            made._cache = _Kept(made._cache)
            return made
        except RuntimeError:  # nowhere to keep it
            return numba.njit(**options)(loop)  # type: ignore[call-overload]
        finally:
            _NUMBA.CACHE_DIR = chosen


def _kept_in(chosen: str, module: str) -> Path:
    """The folder for the machine code of a module: in that which the user has ``chosen``, or beside the source.

    Its name tells the source of the module and of all others whose loops it calls: numba itself looks at the one alone.
    """
    beside = _HERE / "__pycache__"
    if chosen:
        root = Path(chosen)
    elif os.access(beside if beside.is_dir() else _HERE, os.W_OK):
        root = beside
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nr_tracking"
    return root / f"{module}-{_digest(module)[:16]}"


@cache
def _digest(module: str) -> str:
    source = (_HERE / f"{module}.py").read_text(encoding="utf-8")
    called = re.findall(r"^from nr_tracking\.loops\.(\w+) import", source, re.MULTILINE)
    return sha256("".join([source, *map(_digest, called)]).encode()).hexdigest()


def inlined(part: Callable[..., Any]) -> Any:
    """A part of loops, written out wherever it is called: handing arrays on to a call counts their references."""
    return numba.njit(inline="always", error_model="numpy")(part)


@compiled
def clamped(value: float, low: float, high: float) -> float:
    """``value`` within ``low`` and ``high``; ``low`` if it is no number, which as an index would read anywhere."""
    if not value > low:
        return low
    return min(value, high)
