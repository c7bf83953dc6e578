"""Work side by side: results and errors arrive, and PyTorch's threads are what they were."""

import threading

import pytest
import torch

from nr_tracking.tracking.parallel import Workers


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [1, 3])
def test_results_and_errors_belong_to_their_work(count):
    workers = Workers(count)
    futures = [workers.submit(divmod, 7, divisor) for divisor in (2, 0, 3)]
    assert futures[0].result() == (3, 1)
    with pytest.raises(ZeroDivisionError):
        futures[1].result()
    assert futures[2].result() == (2, 1)


def test_workers_use_one_thread_each_and_nobody_else_notices():
    workers = Workers(2)
    assert workers.submit(torch.get_num_threads).result() == 1
    assert torch.get_num_threads() == 2
    seen = []
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert seen == [2]


def test_work_is_done_side_by_side():
    meeting = threading.Barrier(2)
    workers = Workers(2)

    def lead():
        futures = [workers.submit(meeting.wait, 30) for _ in range(2)]  # either waits for the other
        return sorted(future.result() for future in futures)

    assert workers.submit(lead).result() == [0, 1]


@pytest.mark.parametrize("count", [1, 3])
def test_work_in_line_is_done_in_order(count):
    line, done, gate = Workers(count).in_line(), [], threading.Event()
    if count == 1:
        gate.set()
    futures = [line.submit(lambda: gate.wait(30) and done.append(0)), *(line.submit(done.append, n) for n in (1, 2))]
    gate.set()
    for future in futures:
        future.result()
    assert done == [0, 1, 2]


def test_threads_go_with_their_workers():
    before = set(threading.enumerate())
    workers = Workers(2)
    threads = set(threading.enumerate()) - before
    assert len(threads) == 3
    del workers
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()
