"""The speed of the whole node: what a second process receives over DDS while a camera delivers at its own rate."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from nr_tracking.commands.bench import generated_frames
from nr_tracking.config import Config, chosen_settings
from nr_tracking.ros.bags import write_bag
from nr_tracking.ros.demo_session import Session
from nr_tracking.ros.process import holdings
from nr_tracking.types import InputError

_FPS = 30.0
_WARM_UP_FRAMES = 15


def bench_node(config: Config, seconds: float, distance: float) -> dict[str, Any]:
    """Play ``seconds`` of a generated recording at 30 Hz to a tracking node, mesh and tracks subscribed.

    Returns ``frames_per_second``: results with stamps of their own that were received, over the time that the
    recording takes; ``latency_p50_s`` .. ``latency_p99_s`` from an image's arrival to its published result, how many
    images and results went each way, ``dropped`` by reason, and ``peak_memory_mb`` of the node's process.
    """
    count = round(seconds * _FPS)
    with tempfile.TemporaryDirectory() as folder:
        path = write_bag(Path(folder) / "bag", generated_frames(count, distance=distance))
        with Session(_parameters(config), Path(folder) / "logs") as session:
            session.replay(path, rate=0.2, duration=_WARM_UP_FRAMES / _FPS).wait()
            session.reset()
            if session.replay(path).wait():
                raise InputError("replay_failed", f"the replay failed; see {folder}/logs")
            figures = session.figures()
            memory = holdings(session.process_id).peak_memory_mb
    return {
        "frames_per_second": figures.clouds * _FPS / count,
        "images_sent": count,
        "images_received": figures.received,
        "results_received": figures.clouds,
        "dropped": figures.dropped,
        "latency_p50_s": figures.latency_p50_s,
        "latency_p95_s": figures.latency_p95_s,
        "latency_p99_s": figures.latency_p99_s,
        "peak_memory_mb": memory,
    }


def _parameters(config: Config) -> dict[str, Any]:
    """The node's parameters that differ from those of the preset."""
    parameters: dict[str, Any] = {"preset": config.preset, "device": config.device}
    if config.weights:
        parameters["weights"] = Path(config.weights).absolute()
    for section, values in chosen_settings(config).items():
        if section != "training":  # which is none of a node's business
            parameters |= {f"{section}.{name}": value for name, value in values.items()}
    return parameters
