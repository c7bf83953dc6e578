"""What a node counts: frames in, out and dropped by reason, rates and latencies. Safe to use from several threads."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from nr_tracking.sensing.following import NO_SUBJECT

_RECENT = 300  # frames over which latencies and the rate of results are taken
_INPUT_S = 5.0  # over which the rate of images is taken
LEFT_OUT = "overrun"
"""Reason of frames that are left out by design, as the camera is faster than inference."""


@dataclass(frozen=True)
class Summary:
    """A moment's figures; rates in Hz, latencies in seconds, NaN where nothing was measured yet.

    ``rate_hz`` and ``jitter_s`` are of images that came in during the last seconds, ``result_rate_hz`` of results that
    go out, between which ``result_gap_s`` usually pass. ``last_drop`` is the last frame that was given up since the
    last result, empty where there is none, and ``last_loss`` the last one ever whose image showed a subject; frames
    that are left out by the policy of the queue count in neither. ``failures`` of inference came in a row, without a
    result between them. ``since_last_result_s`` counts from the first image that came since then, where there is one:
    no result was due before it.
    """

    received: int
    tracked: int
    dropped: dict[str, int]
    windows: int
    resets: int
    rate_hz: float
    result_rate_hz: float
    result_gap_s: float
    jitter_s: float
    latency_p50_s: float
    latency_p95_s: float
    latency_p99_s: float
    stages_s: dict[str, float]
    tracks: int
    last_error: str
    since_last_frame_s: float
    since_last_result_s: float
    last_drop: str
    since_last_drop_s: float
    last_loss: str
    failures: int
    last_failure: str

    @property
    def dropped_total(self) -> int:
        """Frames dropped for whatever reason."""
        return sum(self.dropped.values())


@dataclass
class Statistics:
    """Counts events; times are of a steady clock, in seconds."""

    started: float
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _received: int = 0
    _tracked: int = 0
    _resets: int = 0
    _tracks: int = 0
    _dropped: Counter[str] = field(default_factory=Counter)
    _windows: int = 0
    _last_error: str = ""
    _last_drop: str = ""
    _last_loss: str = ""
    _dropped_at: float = -math.inf
    _failures: int = 0
    _last_failure: str = ""
    _last_result: float | None = None
    _awaited: float | None = None  # when the first image since then came in
    _arrivals: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    _finished: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=_RECENT))  # when, how many
    _latencies: deque[float] = field(default_factory=lambda: deque(maxlen=_RECENT))
    _stages: deque[dict[str, float]] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def received(self, now: float) -> None:
        """A depth image came in."""
        with self._lock:
            self._received += 1
            self._arrivals.append(now)
            if self._awaited is None:
                self._awaited = now

    def tracked(self, latency_s: float, tracks: int, stages_s: dict[str, float]) -> None:
        """A frame came out, ``latency_s`` after its image came in."""
        with self._lock:
            self._tracked += 1
            self._tracks = tracks
            self._last_result, self._awaited = time.monotonic(), None
            self._last_drop = ""
            self._failures = 0
            self._latencies.append(latency_s)
            self._stages.append(stages_s)

    def finished(self, results: int, windows: int) -> None:
        """So many frames were finished together, after so many windows in all."""
        if not results:
            return
        with self._lock:
            self._windows = windows
            self._finished.append((time.monotonic(), results))

    def activated(self, now: float) -> None:
        """Input is expected from now on."""
        with self._lock:
            self.started = now
            self._last_result = self._awaited = None
            self._last_drop = ""
            self._failures = 0
            self._arrivals.clear()
            self._finished.clear()

    def dropped(self, reason: str, message: str) -> None:
        """A frame was given up."""
        with self._lock:
            self._dropped[reason] += 1
            if reason != LEFT_OUT:
                self._last_error = self._last_drop = f"{reason}: {message}"
                if reason not in NO_SUBJECT:
                    self._last_loss = self._last_drop
                self._dropped_at = time.monotonic()

    def failed(self, message: str) -> None:
        """Something went wrong that cost no frame."""
        with self._lock:
            self._last_error = message

    def inference_failed(self, message: str) -> None:
        """The computation of a window failed; the frames that it cost are told by themselves."""
        with self._lock:
            self._failures += 1
            self._last_error = self._last_failure = message

    def reset(self) -> None:
        """The tracker started anew, and with it the figures of its speed."""
        with self._lock:
            self._resets += 1
            self._tracks = 0
            self._finished.clear()
            self._latencies.clear()
            self._stages.clear()

    def dropped_for(self, reason: str) -> int:
        """How many frames were given up for one reason: cheaper than a summary, for every frame."""
        with self._lock:
            return self._dropped[reason]

    def summary(self, now: float) -> Summary:
        """The figures at time ``now``."""
        with self._lock:
            gaps = np.diff([arrival for arrival in self._arrivals if now - arrival <= _INPUT_S])
            latencies = np.array(self._latencies)
            due = self._awaited if self._awaited is not None else self._last_result
            quiet = now - (self._arrivals[-1] if self._arrivals else self.started)
            return Summary(
                received=self._received,
                tracked=self._tracked,
                dropped=dict(self._dropped),
                windows=self._windows,
                resets=self._resets,
                rate_hz=float(len(gaps) / gaps.sum()) if gaps.sum() > 0 else float("nan"),
                result_rate_hz=_rate(self._finished),
                result_gap_s=_usual_gap(self._finished),
                jitter_s=float(gaps.std()) if len(gaps) else float("nan"),
                latency_p50_s=float(np.percentile(latencies, 50)) if len(latencies) else float("nan"),
                latency_p95_s=float(np.percentile(latencies, 95)) if len(latencies) else float("nan"),
                latency_p99_s=float(np.percentile(latencies, 99)) if len(latencies) else float("nan"),
                stages_s=_mean_by_stage(self._stages),
                tracks=self._tracks,
                last_error=self._last_error,
                since_last_frame_s=quiet,
                since_last_result_s=now - (self.started if due is None else due),
                last_drop=self._last_drop,
                since_last_drop_s=now - self._dropped_at,
                last_loss=self._last_loss,
                failures=self._failures,
                last_failure=self._last_failure,
            )


def _rate(finished: Sequence[tuple[float, int]]) -> float:
    """Results per second, from when the first were finished; several may come together."""
    seconds = finished[-1][0] - finished[0][0] if finished else 0.0
    return sum(results for _, results in itertools.islice(finished, 1, None)) / seconds if seconds > 0 else float("nan")


def _usual_gap(finished: Iterable[tuple[float, int]]) -> float:
    """The median time between results."""
    gaps = np.diff([when for when, _ in finished])
    return float(np.median(gaps)) if len(gaps) else float("nan")


def _mean_by_stage(frames: Iterable[dict[str, float]]) -> dict[str, float]:
    rows = list(frames)
    stages = dict.fromkeys(stage for row in rows for stage in row)
    return {stage: sum(row.get(stage, 0.0) for row in rows) / len(rows) for stage in stages}
