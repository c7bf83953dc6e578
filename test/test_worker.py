"""The inference thread: nothing stops it, nothing piles up, and every frame is accounted for."""

import ctypes
import os
import subprocess
import sys
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from fake_tracker import FakeTracker, flat_frame, tracked

from nr_tracking.config import load_config
from nr_tracking.ros import memory
from nr_tracking.ros.messages import frame_messages
from nr_tracking.ros.pairing import FramePairing, PairedFrame
from nr_tracking.ros.queueing import FrameQueue, WaitingFrame
from nr_tracking.ros.statistics import Statistics
from nr_tracking.ros.worker import InferenceWorker, QueueLimits, WorkerEvents
from nr_tracking.types import InputError

PERIOD_NS = 33_333_333


def paired(stamp_ns, **changes):
    frame = flat_frame(stamp_ns)
    frame.depth[[0, -1]] = frame.depth[:, [0, -1]] = 0  # a card that ends within the image: a wall is no subject
    messages = frame_messages(frame, "camera")
    return PairedFrame(stamp_ns, replace(messages["depth"], **changes), messages["camera_info"], None)


class Bench:
    """A worker with a fake tracker, and what came out of it."""

    def __init__(self, lag=0, **options):
        self.tracker = FakeTracker(lag=lag)
        self.statistics = Statistics(time.monotonic())
        self.results = []
        self.failures = []
        given = {name: options.pop(name) for name in [*options] if name.startswith("on_")}
        events = WorkerEvents(
            lambda frame, source: self.results.append((frame.stamp_ns, source.image.header.frame_id)),
            self.failures.append,
            **given,
        )
        limits = QueueLimits(**{name: options.pop(name) for name in [*options] if name in ("policy", "memory")})
        self.worker = InferenceWorker(self.tracker, self.statistics, events, limits, **options)

    def submit(self, *frames):
        for frame in frames:
            self.statistics.received(time.monotonic())
            self.worker.submit(frame, time.monotonic())

    def stamps(self):
        assert self.worker.finish(30)
        return [stamp for stamp, _ in self.results]

    def dropped(self):
        return self.statistics.summary(time.monotonic()).dropped


@pytest.fixture
def bench():
    benches = []

    def make(**options):
        benches.append(Bench(**options))
        return benches[-1]

    yield make
    for each in benches:
        each.tracker.gate.set()
        each.worker.stop()
        summary = each.statistics.summary(time.monotonic())
        assert summary.received == summary.tracked + summary.dropped_total  # no frame goes missing unnamed


def test_frames_come_out_in_order_with_their_frame_id(bench):
    each = bench(lag=2)
    each.submit(*(paired(PERIOD_NS * i) for i in range(6)))
    assert each.stamps() == [PERIOD_NS * i for i in range(6)]
    assert {frame_id for _, frame_id in each.results} == {"camera"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encoding": "rgb8"}, "unknown_encoding"),
        ({"step": 3}, "wrong_step"),
        ({"data": np.zeros(7, np.uint8)}, "wrong_size"),
        ({"width": 15}, "size_mismatch"),
        ({"data": np.zeros(16 * 12 * 2, np.uint8)}, "no_depth"),
        ({"encoding": "32FC1", "step": 64, "data": np.full(16 * 12, np.nan, np.float32).view(np.uint8)}, "no_depth"),
    ],
)
def test_bad_frame_is_dropped_by_name_and_the_next_one_is_tracked(bench, changes, reason):
    each = bench()
    each.submit(paired(0), paired(PERIOD_NS, **changes), paired(2 * PERIOD_NS))
    assert each.stamps() == [0, 2 * PERIOD_NS]
    assert each.dropped() == {reason: 1}


def test_zero_focal_length_is_dropped_by_name(bench):
    each = bench()
    frame = paired(0)
    each.submit(replace(frame, info=replace(frame.info, k=np.zeros(9))), paired(PERIOD_NS))
    assert each.stamps() == [PERIOD_NS]
    assert each.dropped() == {"zero_focal_length": 1}


def test_the_rate_of_results_is_that_of_the_tracker_and_not_of_the_camera(monkeypatch):
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("nr_tracking.ros.statistics.time", clock)
    now, statistics = [0.0], Statistics(0.0)
    for frame in range(300):
        now[0] = frame / 30
        statistics.received(now[0])
        if frame % 12 == 11:  # four of twelve come out, together
            statistics.finished(4, 1)
            for _ in range(4):
                statistics.tracked(0.1, 10, {})
        else:
            statistics.finished(0, 1)
    summary = statistics.summary(now[0])
    assert summary.rate_hz == pytest.approx(30) and summary.result_rate_hz == pytest.approx(10)


def test_the_rate_of_images_is_that_of_the_last_seconds():
    statistics = Statistics(0.0)
    for frame in range(300):
        statistics.received(frame / 30)
    summary = statistics.summary(70.0)
    assert np.isnan(summary.rate_hz) and np.isnan(summary.jitter_s)
    for frame in range(30):
        statistics.received(70 + frame / 30)
    summary = statistics.summary(71.0)
    assert summary.rate_hz == pytest.approx(30) and summary.jitter_s < 0.001


def test_a_result_is_missing_from_the_first_image_on_that_could_have_one(monkeypatch):
    monkeypatch.setattr("nr_tracking.ros.statistics.time", SimpleNamespace(monotonic=lambda: now[0]))
    now, statistics = [0.0], Statistics(0.0)

    def missing(at):
        return pytest.approx(statistics.summary(at).since_last_result_s)

    assert missing(26.0) == 26.0, "since the beginning"
    statistics.received(26.0)
    statistics.received(27.0)
    assert missing(27.2) == 1.2
    now[0] = 27.5
    statistics.tracked(0.1, 10, {})
    assert missing(60.0) == 32.5, "nobody takes the last rate for that of now"
    statistics.received(60.0)
    assert missing(60.2) == 0.2
    statistics.activated(70.0)
    assert missing(71.0) == 1.0


def test_a_subject_that_was_gone_for_long_comes_back_as_another(bench):
    events = []
    each = bench(lag=2, on_event=events.append)
    each.tracker.config = load_config("test", subject={"lost_s": 0.5})
    gone = {"data": np.zeros(16 * 12 * 2, np.uint8)}
    short, long = range(3, 8), range(10, 40)
    for index in range(50):
        each.submit(paired(PERIOD_NS * index, **(gone if index in short or index in long else {})))
        assert each.worker.finish(30) and each.tracker.resets == (index >= 26)
    assert len(each.results) == 15 and len(events) == 5
    assert events[3] == "no subject for 0.53 s: the next one is a new one"


def test_who_is_missing_where_a_recording_begins_again_is_given_up_once(bench):
    gone = []
    each = bench(policy="all", on_gone=gone.append)
    each.tracker.config = load_config("test", subject={"lost_s": 0.5})
    empty = {"data": np.zeros(16 * 12 * 2, np.uint8)}
    for index in (*range(40), *range(60)):
        each.submit(paired(PERIOD_NS * index, **(empty if index == 39 or (gone or len(each.results) > 38) else {})))
        assert each.worker.finish(30)
    assert gone == [16 * PERIOD_NS] and len(each.results) == 39


@pytest.mark.parametrize("lag", [0, 2])
def test_another_subject_that_the_tracker_found_begins_with_its_first_result(bench, lag):
    order = []
    each = bench(lag=lag, on_event=order.append, on_new_subject=lambda: order.append(len(each.results)))
    push = each.tracker.push

    def exchanged(frame):
        if frame.stamp_ns != 4 * PERIOD_NS:
            return push(frame)
        before = each.tracker.flush()
        each.tracker.reset()
        each.tracker.on_another("another subject")
        return before + push(frame)

    each.tracker.push = exchanged
    each.submit(*(paired(PERIOD_NS * index) for index in range(8)))
    assert each.stamps() == [PERIOD_NS * index for index in range(8)]
    assert order == ["another subject", 4]
    assert each.statistics.summary(0.0).resets == 1 and not each.dropped()


@pytest.mark.parametrize(("count", "masks", "resets"), [(40, False, 1), (10, False, 0), (40, True, 0)])
def test_images_that_had_no_mask_for_long_lose_the_subject(bench, count, masks, resets):
    each = bench(policy="all")
    mask = np.ones((12, 16), bool)

    def masked(index):
        messages = frame_messages(replace(flat_frame(PERIOD_NS * index), mask=mask), "camera")
        return PairedFrame(PERIOD_NS * index, messages["depth"], messages["camera_info"], messages["mask"])

    each.submit(masked(1), masked(2))
    for index in range(3, 3 + count):
        if masks:
            each.submit(masked(index))
        else:
            each.statistics.received(time.monotonic())
            each.statistics.dropped("no_mask", "nobody in view")
    each.submit(masked(3 + count), masked(4 + count), masked(100 + count))  # the camera pauses: nobody is lost
    assert len(each.stamps()) == 5 + (count if masks else 0) and each.tracker.resets == resets


def test_failing_inference_starts_anew_and_says_so(bench):
    each = bench()
    each.submit(paired(0))
    assert each.stamps() == [0]
    each.tracker.error = ZeroDivisionError("no number left")
    each.submit(paired(PERIOD_NS), paired(2 * PERIOD_NS))
    assert each.stamps() == [0, 2 * PERIOD_NS]
    assert each.dropped() == {"failure": 1} and each.tracker.resets == 1
    assert "no number left" in each.failures[0]
    assert "no number left" in each.statistics.summary(0.0).last_error


def test_frames_of_a_window_that_failed_are_counted_once_and_by_what_failed(bench):
    each = bench(lag=2, policy="all")
    push = each.tracker.push

    def exhausted(frame):
        if frame.stamp_ns < 2 * PERIOD_NS:
            return push(frame)
        for stamp_ns in (0, PERIOD_NS):
            each.tracker.on_no_result(stamp_ns, InputError("failure", "its window failed"))
        raise MemoryError("out of memory")

    each.tracker.push = exhausted
    each.submit(*(paired(PERIOD_NS * index) for index in range(3)))
    assert each.stamps() == [] and each.dropped() == {"out_of_memory": 3}


def test_frames_without_a_surface_are_let_go_at_once_and_counted(bench):
    each = bench(lag=2, policy="all")
    each.tracker.bare = lambda stamp_ns: stamp_ns != 4 * PERIOD_NS
    for index in range(100):
        each.submit(paired(PERIOD_NS * index))
        assert index % 20 or each.stamps() is not None
    assert each.stamps() == [4 * PERIOD_NS]
    assert each.dropped() == {"no_surface": 99} and not each.worker._unfinished
    assert "no_surface: at 3.300 s: the field is nowhere" in each.statistics.summary(0.0).last_error


def test_frames_of_a_tracker_that_says_nothing_at_all_do_not_pile_up(bench):
    each = bench(policy="all")
    each.tracker.push, push = lambda frame: [], each.tracker.push
    each.submit(*(paired(PERIOD_NS * index) for index in range(300)))
    assert each.stamps() == []
    held = len(each.worker._unfinished)
    assert held <= 8 * each.tracker.config.window_frames and each.dropped() == {"no_result": 300 - held}
    each.tracker.push = push
    each.submit(paired(PERIOD_NS * 300))
    assert each.stamps() == [PERIOD_NS * 300] and each.dropped() == {"no_result": 300}
    each.tracker.push = lambda frame: [*push(frame), tracked(0)]
    each.submit(paired(PERIOD_NS * 301))
    assert each.stamps() == [PERIOD_NS * 300, PERIOD_NS * 301], "what comes too late has no image any more"


def test_a_failure_that_persists_is_told_in_full_once_and_counted_from_then_on(bench, monkeypatch):
    each, now = bench(), [0.0]
    monkeypatch.setattr("nr_tracking.ros.repetition.time", SimpleNamespace(monotonic=lambda: now[0]))
    each.submit(paired(0))
    assert each.stamps() == [0]
    for index in range(1, 41):
        now[0] = index / 2
        each.tracker.error = ZeroDivisionError(f"no number left at {index}")
        each.submit(paired(PERIOD_NS * index))
        assert each.worker.finish(30)
    full, *counts = each.failures
    assert "Traceback" in full and "no number left at 1" in full
    assert counts == ["ZeroDivisionError: no number left at 21: so 20 more times in 10 s"]
    summary = each.statistics.summary(0.0)
    assert summary.failures == 40 and "no number left at 40" in summary.last_failure
    each.submit(paired(PERIOD_NS * 50))
    assert each.stamps()[-1] == PERIOD_NS * 50 and each.statistics.summary(0.0).failures == 0


@pytest.mark.parametrize("choice", ["nearest", "clicked"])
def test_nobody_is_told_of_while_a_chosen_subject_stays_away(bench, choice):
    gone = []
    each = bench(on_gone=gone.append)
    each.tracker.config = load_config("test", subject={"lost_s": 0.5, "choice": choice, "minimum_pixels": 9})
    empty = {"data": np.zeros(16 * 12 * 2, np.uint8)}
    for index in range(60):
        each.submit(paired(PERIOD_NS * index, **(empty if index > 10 else {})))
        assert each.worker.finish(30)
    told = [stamp_ns for stamp_ns in gone if stamp_ns > 10 * PERIOD_NS]
    assert len(told) == 1 and 0.45e9 < told[0] - 11 * PERIOD_NS < 0.6e9
    each.submit(paired(PERIOD_NS * 60))
    assert each.stamps()[-1] == PERIOD_NS * 60


def test_what_no_longer_holds_is_told_once_the_subject_is_given_up(bench):
    gone = []
    each = bench(lag=2, on_gone=lambda stamp_ns: gone.append((stamp_ns, len(each.results))))
    each.tracker.config = load_config("test", subject={"lost_s": 0.5})
    empty = {"data": np.zeros(16 * 12 * 2, np.uint8)}
    for index in range(40):
        each.submit(paired(PERIOD_NS * index, **(empty if index in range(3, 8) or index > 10 else {})))
        assert each.worker.finish(30) and len(gone) == (index >= 27)
    assert gone == [(27 * PERIOD_NS, 6)], "after the last result of the one who is gone"
    assert each.worker.reset(30) and gone[1:] == [(39 * PERIOD_NS, 6)]
    each.worker.stop()
    assert len(gone) == 3


def test_repeated_and_disordered_stamps_are_left_out(bench):
    each = bench()
    each.submit(*(paired(PERIOD_NS * i) for i in (3, 4, 4, 2, 5)))
    assert each.stamps() == [PERIOD_NS * i for i in (3, 4, 5)]
    assert each.dropped() == {"stamp_repeated": 1, "stamp_out_of_order": 1}
    assert each.tracker.resets == 0


def test_looped_recording_finishes_the_window_and_starts_anew(bench):
    each = bench(lag=2, policy="all")
    loop = [PERIOD_NS * i for i in range(40)]
    each.submit(*(paired(stamp) for stamp in loop + loop))
    assert each.stamps() == loop + loop
    assert each.tracker.resets == 1 and not each.dropped()


def test_short_loop_is_recognised_after_a_few_frames(bench):
    each = bench(policy="all")
    loop = [PERIOD_NS * i for i in range(10)]
    each.submit(*(paired(stamp) for stamp in loop + loop))
    assert each.stamps() == loop + loop[2:]
    assert each.dropped() == {"stamp_out_of_order": 2}


def test_clock_that_jumps_back_loses_nothing_of_a_short_loop(bench):
    each = bench(lag=3, policy="all")
    loop = [PERIOD_NS * i for i in range(10)]
    each.submit(*map(paired, loop))
    each.worker.clock_jumped_back()
    each.submit(*map(paired, loop))
    assert each.stamps() == loop + loop


@pytest.mark.parametrize(
    ("choice", "early", "resets"), [("largest", 0, 1), ("largest", 4, 1), ("largest", 35, 2), ("nearest", 4, 1)]
)
def test_frames_that_overtake_the_clock_begin_the_next_pass_once(bench, choice, early, resets):
    each = bench(lag=2, policy="all")
    subject = each.tracker.config.subject.model_copy(update={"choice": choice})
    each.tracker.config = each.tracker.config.model_copy(update={"subject": subject})
    loop, told = [PERIOD_NS * i for i in range(40)], []
    each.submit(*map(paired, loop))
    each.stamps()
    before = each.tracker.resets
    each.submit(*map(paired, loop[:early]))
    each.worker.clock_jumped_back(lambda: told.append(True))
    each.submit(*map(paired, loop[early:]))
    assert each.stamps() == loop + loop and told == [True]
    assert each.tracker.resets - before == resets
    each.worker.clock_jumped_back()
    each.submit(*map(paired, loop))
    assert each.stamps() == 3 * loop


def test_reset_forgets_waiting_frames_and_goes_on(bench):
    each = bench(policy="all")
    each.tracker.gate.clear()
    each.submit(*(paired(PERIOD_NS * i) for i in range(5)))
    assert not each.worker.reset(0)  # it waits for the frame in hand
    each.tracker.gate.set()
    each.submit(paired(PERIOD_NS))
    assert each.stamps()[-1] == PERIOD_NS
    assert each.tracker.resets == 1 and each.dropped()["reset"] >= 4


def test_waiting_frames_never_fill_more_than_the_allowed_memory(bench):
    each = bench(policy="all", memory=10 * 16 * 12 * 2)
    each.tracker.gate.clear()
    each.submit(*(paired(PERIOD_NS * i) for i in range(30)))
    assert each.worker.waiting <= 10
    each.tracker.gate.set()
    assert len(each.stamps()) in (10, 11) and set(each.dropped()) == {"queue_memory"}


def test_stopping_does_not_wait_for_the_queue_but_keeps_its_word(bench):
    each = bench(policy="all")
    each.tracker.gate.clear()
    each.submit(*(paired(PERIOD_NS * i) for i in range(9)))
    each.tracker.gate.set()
    each.worker.stop()
    assert each.statistics.summary(0.0).tracked + each.dropped().get("inactive", 0) == 9
    each.submit(paired(10**9))
    assert each.dropped()["inactive"] >= 1


# Camera and inference as a simulation on a common clock: no threads, no waiting.
def test_a_worker_that_was_stopped_says_so_at_once(bench):
    each = bench()
    each.submit(paired(0))
    assert each.stamps() == [0]
    each.worker.stop()
    begun = time.monotonic()
    assert not each.worker.finish(60) and not each.worker.reset(60)
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("ratio", [1.5, 3.0, 7.3])
def test_camera_faster_than_inference_is_thinned_evenly(ratio):
    queue = FrameQueue("latest", size=8, memory=1 << 30)
    taken, dropped, next_take = [], 0, 0.0
    for index in range(600):
        dropped += queue.put(WaitingFrame(paired(index * PERIOD_NS), 0.0)) is not None
        assert len(queue) <= 8
        while next_take <= index and len(queue):
            taken.append(queue.take().stamp_ns // PERIOD_NS)
            next_take += ratio
    gaps = np.diff(taken[20:])
    assert len(taken) + dropped + len(queue) == 600
    assert abs(gaps.mean() - ratio) < 0.1 * ratio
    assert gaps.max() <= 2 * np.ceil(ratio)


def test_windows_taken_in_bursts_are_thinned_evenly():
    queue = FrameQueue("latest", size=8, memory=1 << 30)
    taken = []
    for index in range(600):
        queue.put(WaitingFrame(paired(index * PERIOD_NS), 0.0))
        if index % 12 == 11:  # a window of four new frames takes as long as twelve frames of the camera
            taken += [queue.take().stamp_ns // PERIOD_NS for _ in range(4)]
    gaps = np.diff(taken[8:])
    assert gaps.mean() == pytest.approx(3, abs=0.2)
    assert gaps.max() <= 6


def test_images_wait_for_the_first_camera_info_and_are_given_up_by_name():
    pairing = FramePairing(capacity=3)
    messages = [frame_messages(flat_frame(PERIOD_NS * i), "camera") for i in range(5)]
    outcomes = [outcome for message in messages for outcome in pairing.image(message["depth"])]
    assert [outcome.reason for outcome in outcomes] == ["no_camera_info"] * 2
    released = pairing.info(messages[0]["camera_info"])
    assert [frame.stamp_ns for frame in released] == [2 * PERIOD_NS, 3 * PERIOD_NS, 4 * PERIOD_NS]


def test_live_no_more_images_wait_for_the_first_camera_info_than_the_queue_takes():
    pairing = FramePairing(capacity=300, uninformed=4)
    messages = [frame_messages(flat_frame(PERIOD_NS * i), "camera") for i in range(60)]
    outcomes = [outcome for message in messages[:50] for outcome in pairing.image(message["depth"])]
    assert [outcome.reason for outcome in outcomes] == ["no_camera_info"] * 46
    queue = FrameQueue("latest", size=4, memory=1 << 30)
    released = pairing.info(messages[0]["camera_info"])
    assert [frame.stamp_ns // PERIOD_NS for frame in released] == [46, 47, 48, 49]
    assert not any(queue.put(WaitingFrame(frame, 0.0)) for frame in released), "none of them is an overrun"
    pairing.expects_mask = True
    assert not any(pairing.image(message["depth"]) for message in messages[50:]), "as many as before wait for masks"
    assert pairing.waiting.images == 10


def test_image_waits_for_a_camera_info_on_its_way_but_not_for_ever():
    pairing = FramePairing()
    messages = [frame_messages(flat_frame(PERIOD_NS * i), "camera") for i in range(9)]
    assert len(pairing.info(messages[0]["camera_info"]) + pairing.image(messages[0]["depth"])) == 1
    assert pairing.image(messages[1]["depth"]) == []
    assert len(pairing.info(messages[1]["camera_info"])) == 1
    waiting = [len(pairing.image(message["depth"])) for message in messages[2:]]  # no camera info any more
    assert waiting == [0, 0, 0, 0, 5, 1, 1]


@pytest.mark.parametrize("late", [0, 3])  # masks, by so many images
@pytest.mark.parametrize(("count", "clock"), [(90, False), (40, False), (12, True)])
def test_masks_of_a_recording_that_begins_again_are_waited_for(count, clock, late):
    pairing = FramePairing(expects_mask=True)
    mask = np.ones((12, 16), bool)
    run = [frame_messages(replace(flat_frame(PERIOD_NS * i), mask=mask), "camera") for i in range(count)]
    messages, outcomes = run + run, []
    for index in range(len(messages) + late):
        if index < len(messages):
            if clock and index == count:
                pairing.clock_jumped_back()
            outcomes += pairing.info(messages[index]["camera_info"]) + pairing.image(messages[index]["depth"])
        if index >= late:
            outcomes += pairing.mask(messages[index - late]["mask"])
    assert [frame.stamp_ns for frame in outcomes] == 2 * [PERIOD_NS * i for i in range(count)]


def test_images_of_the_end_of_a_recording_do_not_wait_for_masks_when_it_has_begun_again():
    pairing = FramePairing(expects_mask=True)
    run = [
        frame_messages(replace(flat_frame(PERIOD_NS * i), mask=np.ones((12, 16), bool)), "camera") for i in range(90)
    ]
    outcomes = pairing.info(run[0]["camera_info"])
    for index, message in enumerate(run + run):
        outcomes += pairing.image(message["depth"])
        outcomes += pairing.mask(message["mask"]) if index != 89 else []
    assert [outcome.reason for outcome in outcomes if isinstance(outcome, InputError)] == ["no_mask"]
    assert len(outcomes) == 180


HEAPS = """
import ctypes, threading
from nr_tracking.ros.memory import share_heaps
if {shared}:
    share_heaps()
together = threading.Barrier(12)
def work():
    together.wait()
    kept = [bytes(50_000) for _ in range(20)]
    together.wait()
threads = [threading.Thread(target=work) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
library = ctypes.CDLL(None)
library.malloc_info(0, ctypes.c_void_p.in_dll(library, "stdout"))
library.fflush(None)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="the allocator is not that of glibc")
def test_threads_of_a_process_share_one_heap():
    def heaps(shared):
        command = [sys.executable, "-c", HEAPS.format(shared=shared)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.count("<heap nr=")

    assert heaps(True) == 1 < heaps(False)


def test_freed_memory_goes_back_every_ten_seconds_at_most(monkeypatch):
    now, trimmed = [100.0], []
    monkeypatch.setattr(memory.time, "monotonic", lambda: now[0])
    give_back = memory.MemoryReturner()
    monkeypatch.setattr(give_back, "_trim", trimmed.append)
    for seconds in (1, 9, 10, 11, 19.9, 20.5):
        now[0] = 100.0 + seconds
        give_back()
    assert len(trimmed) == 2
    give_back._trim = None
    now[0] = 1000.0
    give_back()


FAULTS = """
import resource
import numpy as np
from nr_tracking.ros.memory import share_heaps
if {kept}:
    share_heaps()
def copies():
    return [np.ones(614_400, np.uint8) for _ in range(3)]
copies()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    copies()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="the allocator is not that of glibc")
def test_the_memory_of_an_image_serves_for_the_next_one():
    def faults(kept):
        command = [sys.executable, "-c", FAULTS.format(kept=kept)]
        own = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
        return int(subprocess.run(command, capture_output=True, text=True, check=True, env=own).stdout)

    pages = 3 * 614_400 // os.sysconf("SC_PAGE_SIZE")
    assert faults(True) < pages < 10 * pages < faults(False)
