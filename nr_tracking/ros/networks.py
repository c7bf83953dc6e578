"""Trackers of one process that share their networks: several cameras take the memory of one set of weights."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from nr_tracking.config import Config

if TYPE_CHECKING:
    from torch import nn

    from nr_tracking.tracking.tracker import Tracker

_LOCK = threading.Lock()
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
        if completion is None or deformation is None:
            networks = load_networks(config)
        else:
            networks = Networks(completion, deformation)  # type: ignore[arg-type]
        tracker = Tracker(config, networks)
        _LOADED[(*key, "completion")] = networks.completion
        _LOADED[(*key, "deformation")] = networks.deformation
    return tracker
