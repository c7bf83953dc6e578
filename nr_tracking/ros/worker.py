"""The inference thread: takes paired messages, decodes them, tracks, and hands on what comes out."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from nr_tracking.ros.beginnings import Beginnings
from nr_tracking.ros.conversions import depth_frame
from nr_tracking.ros.fallback import is_out_of_memory
from nr_tracking.ros.memory import MemoryReturner
from nr_tracking.ros.pairing import PairedFrame
from nr_tracking.ros.queueing import FrameQueue, WaitingFrame
from nr_tracking.ros.repetition import RepeatedFailures
from nr_tracking.ros.statistics import Statistics
from nr_tracking.sensing.following import SubjectFollower
from nr_tracking.tracking.protocols import TrackerLike
from nr_tracking.types import Float64, InputError, TrackedFrame

_WINDOWS = 8  # of frames that wait for their results at most; a tracker has three of them under way
_LOST = {
    "overrun": "the camera outruns inference: choose a smaller preset, a lower rate or ros.queue_policy: all",
    "queue_memory": "waiting frames fill ros.queue_memory_mb: play the recording more slowly or allow more",
    "reset": "the frame was not finished when the tracker was reset",
    "out_of_memory": "memory ran out in the window of the frame: choose a smaller preset or fewer volume.cubes",
    "failure": "the frame was in a window whose computation failed",
    "no_result": "the tracker gave no result for the frame",
    "inactive": "the frame was not finished when the node was deactivated",
}


@dataclass(frozen=True)
class WorkerEvents:
    """Who hears what of a worker, on its thread; only of its end on that of whoever stops it.

    ``on_result`` gets each tracked frame with the messages it came from; ``on_failure`` gets the text of failures that
    are not the input's fault; ``on_new_subject`` is called when the tracker starts anew; ``on_event`` hears in words
    what became of the subject. ``on_gone`` hears, with the stamp of the newest image in nanoseconds, that results of
    before no longer hold: the subject was given up, or the tracker was reset or stopped; it may come several times for
    one loss.
    """

    on_result: Callable[[TrackedFrame, PairedFrame], None]
    on_failure: Callable[[str], None]
    on_new_subject: Callable[[], None] = lambda: None
    on_event: Callable[[str], None] = lambda text: None
    on_gone: Callable[[int], None] = lambda stamp_ns: None


@dataclass(frozen=True)
class QueueLimits:
    """How many frames wait for inference: ``size`` with the policy "latest", and ``memory`` bytes with any."""

    policy: Literal["latest", "all"] = "latest"
    size: int = 8
    memory: int = 1 << 30


class InferenceWorker:
    """Runs a tracker on a thread of its own, so that the node stays live while a window is computed.

    No frame can stop it: one that cannot be used is dropped and counted by its reason, and after any other failure the
    tracker starts anew with the next frame. ``smaller_tracker`` is asked for a tracker that takes less memory when
    memory ran out; None keeps the one there is. ``locate`` tells where the camera was, (4, 4) camera -> world; it
    raises :class:`InputError` where it cannot. A unit of depth images of whole numbers is ``unit_m`` metres.
    ``prepare`` is done before the first frame, on the same thread.
    """

    def __init__(
        self,
        tracker: TrackerLike,
        statistics: Statistics,
        events: WorkerEvents,
        limits: QueueLimits = QueueLimits(),
        *,
        smaller_tracker: Callable[[], TrackerLike | None] = lambda: None,
        locate: Callable[[PairedFrame], Float64 | None] = lambda frame: None,
        unit_m: float = 0.001,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self._tracker = tracker
        self._statistics = statistics
        self._events = events
        self._failures = RepeatedFailures(events.on_failure)
        self._smaller_tracker = smaller_tracker
        self._locate = locate
        self._follower = SubjectFollower(events.on_event)
        self._beginnings = Beginnings()
        self._return_memory = MemoryReturner()
        self._unit_m = unit_m
        self._queue = FrameQueue(limits.policy, limits.size, limits.memory)
        self._unfinished: deque[WaitingFrame] = deque()  # pushed, without a result so far
        self._in_hand_ns = 0
        self._listen(tracker)
        self._queue.command(prepare)
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Frames that wait for inference."""
        return len(self._queue)

    def submit(self, frame: PairedFrame, arrived: float) -> None:
        """Queue a frame whose image arrived at ``arrived`` (``time.monotonic``)."""
        if frame.mask is not None and self._was_unmasked(frame.stamp_ns):
            self._queue.command(self._follower.left_unmasked)
        surplus = self._queue.put(WaitingFrame(frame, arrived))
        if surplus is not None:
            self._drop(*surplus)

    def finish(self, timeout_s: float) -> bool:
        """Wait until all frames received so far are through, unfinished windows included.

        False on timeout, and at once where the worker was stopped.
        """
        done = threading.Event()

        def command() -> None:
            try:
                self._flush()
            finally:
                done.set()

        return self._queue.command(command) is not None and done.wait(timeout_s)

    def reset(self, timeout_s: float, on_reset: Callable[[], None] = lambda: None) -> bool:
        """Forget the subject and the waiting frames; ``on_reset`` is called between its last frame and the next one's.

        False on timeout, when it is done later, and at once where the worker was stopped.
        """
        done = threading.Event()

        def command() -> None:
            try:
                on_reset()
                self._follower.forget()
                self._reset("reset")
            finally:
                done.set()

        dropped = self._queue.command(command, drop_frames=True)
        if dropped is None:
            return False
        for waiting in dropped:
            self._drop(waiting, "reset")
        return done.wait(timeout_s)

    def clock_jumped_back(self, then: Callable[[], None] = lambda: None) -> bool:
        """Finish what came before, then start anew with what comes after; False where the worker was stopped.

        Frames of what comes after may have overtaken the clock: where they have begun anew by their stamps, a moment
        ago, that was this jump, and they are kept.
        """

        def command() -> None:
            try:
                if not self._beginnings.has_just_begun_again():
                    self._start_anew(keep_background=False)  # it may be another recording
                    self._follower.forget_background()
                self._beginnings.clock_jumped_back()
            finally:
                then()

        return self._queue.command(command) is not None

    def stop(self) -> None:
        """End the thread after the frame in hand; waiting and unfinished frames are dropped, the subject forgotten."""
        waiting = self._queue.close()
        self._thread.join()
        self._tracker.on_ready = self._tracker.on_another = self._tracker.on_no_result = None
        for frame in (*self._unfinished, *waiting):
            self._drop(frame, "inactive")
        self._unfinished.clear()
        self._events.on_gone(self._in_hand_ns)
        self._tracker.reset()

    def _run(self) -> None:
        while (job := self._queue.take()) is not None:
            try:
                if isinstance(job, WaitingFrame):
                    self._track(job)
                else:
                    job()
            except InputError as error:
                self._statistics.dropped(error.reason, str(error))
                if isinstance(job, WaitingFrame):
                    self._take_out(job.stamp_ns, job)
                    self._follower.refused(job.stamp_ns, error)
                    self._give_up(job.stamp_ns)
            except Exception as error:  # whatever it was, the next frame deserves a fresh start
                if isinstance(job, WaitingFrame) and job not in self._unfinished:
                    self._unfinished.append(job)
                self._recover(error)

    def _give_up(self, stamp_ns: int) -> None:
        """Start anew once images have shown nobody for long enough."""
        if not self._follower.gives_up(stamp_ns, self._tracker.config.subject):
            return
        try:
            self._start_anew()
        except Exception as error:
            self._recover(error)

    def _track(self, waiting: WaitingFrame) -> None:
        source, self._in_hand_ns = waiting.frame, waiting.stamp_ns
        frame = depth_frame(source.image, source.info, source.mask, self._unit_m, source.rectified)
        frame = replace(frame, pose=self._locate(source))  # first: the follower looks where a moved camera looks
        back = self._beginnings.goes_back(frame.stamp_ns)
        frame, another = self._follower.choose(frame, self._tracker.config.subject)
        if another:
            self._start_anew()
        self._unfinished.append(waiting)
        results = self._tracker.push(frame)
        self._beginnings.took(frame.stamp_ns, back)
        self._follower.tracked(frame.stamp_ns, self._tracker.subject_size_m)
        self._deliver(results)
        while len(self._unfinished) > _WINDOWS * self._tracker.config.window_frames:
            self._drop(self._unfinished.popleft(), "no_result")
        self._return_memory()

    def _recover(self, error: Exception) -> None:
        """Start anew after a failure, with a smaller tracker where memory ran out and there is one."""
        exhausted = is_out_of_memory(error)
        try:
            self._reset("out_of_memory" if exhausted else "failure")
            smaller = self._smaller_tracker() if exhausted else None
            if smaller is not None:
                self._tracker = smaller
                self._listen(smaller)
        except Exception as other:  # a tracker that cannot even be reset is tried again with the next frame
            self._failures.happened(other)
        self._failures.happened(error)
        reason = "out_of_memory" if exhausted else "failure"
        mend = "; a smaller preset or fewer volume.cubes take less" if exhausted else ""
        self._statistics.inference_failed(f"{reason}: {type(error).__name__}: {error}; the tracker starts anew{mend}")

    def _was_unmasked(self, stamp_ns: int) -> bool:
        unmasked, lost_s = self._statistics.dropped_for("no_mask"), self._tracker.config.subject.lost_s
        return self._beginnings.was_unmasked(stamp_ns, unmasked, lost_s)

    def _start_anew(self, keep_background: bool = True) -> None:
        self._flush()
        self._reset("reset", keep_background)

    def _listen(self, tracker: TrackerLike) -> None:
        tracker.on_ready, tracker.on_another = self._results_ready, self._another_subject
        tracker.on_no_result = self._no_result

    def _another_subject(self, event: str) -> None:
        """The frame in hand shows another subject; results of frames before it are still to come."""
        self._beginnings.another_from(self._in_hand_ns)
        self._events.on_event(event)

    def _no_result(self, stamp_ns: int, error: InputError) -> None:
        """A frame that the tracker took has no result; this comes from the calls of the tracker here."""
        if error.reason == "failure":  # of its whole window: the exception that comes with it is met with a reset
            return
        if self._take_out(stamp_ns) is not None:
            self._statistics.dropped(error.reason, f"at {stamp_ns / 1e9:.3f} s: {error}")

    def _take_out(self, stamp_ns: int, waiting: WaitingFrame | None = None) -> WaitingFrame | None:
        """Wait no longer for the first frame of a stamp, or for ``waiting`` alone; None where there is none."""
        for index, frame in enumerate(self._unfinished):
            if frame.stamp_ns == stamp_ns and waiting in (None, frame):
                del self._unfinished[index]
                return frame
        return None

    def _results_ready(self) -> None:
        """Have results fetched on the inference thread, also when no frame comes."""
        self._queue.command(lambda: self._deliver(self._tracker.collect()))

    def _flush(self) -> None:
        self._deliver(self._tracker.flush())

    def _reset(self, reason: str, keep_background: bool = False) -> None:
        """Forget the subject; frames of an unfinished window are lost to ``reason``."""
        while self._unfinished:
            self._drop(self._unfinished.popleft(), reason)
        self._beginnings.reset()
        self._new_subject()
        self._events.on_gone(self._in_hand_ns)
        self._tracker.reset(keep_background)

    def _new_subject(self) -> None:
        self._beginnings.new_subject()
        self._statistics.reset()
        self._events.on_new_subject()

    def _deliver(self, results: list[TrackedFrame]) -> None:
        self._statistics.finished(len(results), self._tracker.windows)
        for result in results:
            if self._beginnings.begins_with(result.stamp_ns):
                self._new_subject()
            self._beginnings.showed(result.stamp_ns)
            if all(waiting.stamp_ns != result.stamp_ns for waiting in self._unfinished):
                continue  # it was given up, and counted, before
            while (waiting := self._unfinished.popleft()).stamp_ns != result.stamp_ns:
                self._drop(waiting, "no_result")
            self._events.on_result(result, waiting.frame)
            self._statistics.tracked(time.monotonic() - waiting.arrived, len(result.tracks.ids), result.timings)

    def _drop(self, waiting: WaitingFrame, reason: str) -> None:
        self._statistics.dropped(reason, _LOST[reason])
