"""Trackers of one process that share their networks: several cameras take the memory of one set of weights."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from nr_tracking.config import Config, SubjectConfig
from nr_tracking.loops import are_compiled
from nr_tracking.ros.ball import breathing_ball, in_a_room
from nr_tracking.types import InputError

if TYPE_CHECKING:
    from torch import nn

    from nr_tracking.tracking.tracker import Tracker

_LOG = logging.getLogger(__name__)
_LOCK = threading.Lock()
_PREPARED: set[str] = set()  # presets whose loops have been called in this process
_LOADED: WeakValueDictionary[tuple[str, ...], nn.Module] = WeakValueDictionary()


def build_tracker(config: Config) -> Tracker:
    """A tracker whose networks are those of every other one with the same weights, as long as any of them lives.

    Raises:
        InputError: the weights are missing, damaged, or made for other settings.
    """
    from nr_tracking.fields.weights import weights_path
    from nr_tracking.tracking.tracker import Networks, Tracker, load_networks

    with _LOCK:
        path = weights_path(config)
        key = (str(path), str(path.stat().st_mtime_ns), config.preset, config.model.model_dump_json(), config.device)
        completion, deformation = (_LOADED.get((*key, part)) for part in ("completion", "deformation"))
        loaded = completion is not None and deformation is not None
        networks = Networks(completion, deformation) if loaded else load_networks(config)  # type: ignore[arg-type]
        if not loaded and config.device != "cpu":
            warm_up(Tracker(config.model_copy(update={"subject": SubjectConfig()}), networks))
        tracker = Tracker(config, networks)
        _LOADED[(*key, "completion")] = networks.completion
        _LOADED[(*key, "deformation")] = networks.deformation
    return tracker


def weights_hash(config: Config) -> str:
    """The SHA-256 that identifies the weights of a configuration; empty where it has none."""
    from nr_tracking.fields.weights import read_weights, weights_path

    try:
        return read_weights(weights_path(config)).sha256
    except InputError:
        return ""


def prepare_loops(tracker: Any) -> None:
    """Have the compiled loops of a :class:`Tracker` on a processor at hand, once in a process.

    Loading them takes two seconds, and compiling them, the first time on a machine, a minute; with networks on a GPU,
    :func:`build_tracker` has done it. Whatever fails here fails again with the first frame.
    """
    networks = getattr(tracker, "networks", None)
    if networks is None or tracker.config.device != "cpu" or not are_compiled() or tracker.config.preset in _PREPARED:
        return
    from nr_tracking.tracking.tracker import Tracker

    try:
        warm_up(Tracker(tracker.config.model_copy(update={"subject": SubjectConfig()}), networks))
    except Exception:
        _LOG.warning("the loops were not prepared, so the first frames will be slow", exc_info=True)
    else:
        _PREPARED.add(tracker.config.preset)


def warm_up(tracker: Tracker) -> None:
    """Put two windows of a generated ball through a tracker, and two in a room; it is of no other use then.

    The first window on a GPU loads libraries and kernels, for seconds; on a processor it loads compiled loops.
    """
    count = 2 * tracker.config.window_frames
    for index, frame in enumerate(breathing_ball(2 * count)):
        tracker.push(frame if index < count else in_a_room(frame))
    tracker.flush()
