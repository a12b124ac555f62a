"""Queued calls that are joined: in which runs they go, and when. The model is a function."""

from __future__ import annotations

import concurrent.futures
import threading
import time
import weakref
from dataclasses import dataclass, field
from typing import Any

import pytest

import aoti
from aoti.background.run_queue import RunQueue

pytestmark = pytest.mark.timeout(60)

LONG = 3600.0


@dataclass(eq=False)
class Call:
    value: Any
    key: str | None = "a"
    rows: int = 1
    since: float = field(default_factory=time.monotonic)


class Model:
    """Doubles values, and notes which went together. Runs wait until it is opened."""

    def __init__(self, max_rows=4, max_delay=0.02, workers=1, size=100):
        self.max_rows, self.max_delay = max_rows, max_delay
        self.workers = workers
        self.entered, self.opened = threading.Semaphore(0), threading.Event()
        self.opened.set()
        self.ran = []
        self.queue = RunQueue(self.call, workers=workers, size=size, name="test", joins=self)

    def run(self, calls):
        self.ran.append([call.value for call in calls])
        self.entered.release()
        assert self.opened.wait(30)
        for call in calls:
            if isinstance(call.value, Exception):
                raise call.value
        return [(call.value * 2, 7) for call in calls]

    def call(self, call):
        return self.run([call])[0]

    def call_together(self, calls):
        return self.run(calls)

    def submit(self, *args, **kwargs):
        return self.queue.submit(Call(*args, **kwargs))

    def occupy(self):
        """Let all workers run until it is opened."""
        self.opened.clear()
        self.entered = threading.Semaphore(0)
        for _ in range(self.workers):
            self.submit(0, key=None)
            self.entered.acquire()
        self.ran.clear()


@pytest.fixture
def model():
    made = []

    def make(**options):
        made.append(Model(**options))
        return made[-1]

    yield make
    for model in made:
        model.opened.set()
        model.queue.close()


def results(futures):
    return [future.result(10) for future in futures]


def test_calls_that_wait_go_together_in_their_order(model):
    m = model()
    m.occupy()
    futures = [m.submit(n) for n in range(1, 11)]
    assert m.queue.load()[:2] == (1, 10)
    m.opened.set()
    assert results(futures) == [2 * n for n in range(1, 11)]
    assert m.ran == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
    load = m.queue.load()
    assert (load.running, load.waiting, load.calls, load.runs) == (0, 0, 11, 4)
    assert load.seconds > 0


def test_a_full_run_waits_for_nobody(model):
    m = model(max_delay=LONG)
    assert results([m.submit(n) for n in range(4)]) == [0, 2, 4, 6]
    assert results([m.submit(1, rows=3), m.submit(2, rows=1)]) == [2, 4]
    assert results([m.submit(7, rows=9)]) == [14]


def test_a_call_waits_for_others_as_long_as_it_may(model):
    m = model(max_delay=0.05)
    begin = time.monotonic()
    first = m.submit(1)
    time.sleep(0.01)
    assert not first.done()
    assert results([first, m.submit(2)]) == [2, 4]
    assert 0.05 <= time.monotonic() - begin < 5
    assert m.ran == [[1, 2]]


def test_what_waited_for_a_worker_waits_no_longer(model):
    m = model(max_delay=0.05)
    m.occupy()
    futures = [m.submit(n) for n in range(2)]
    time.sleep(0.06)
    begin = time.monotonic()
    m.opened.set()
    results(futures)
    assert time.monotonic() - begin < 0.05 or m.ran == [[0, 1]]


def test_without_a_delay_only_what_waits_is_joined(model):
    m = model(max_delay=0)
    assert results([m.submit(1)]) == [2]
    m.occupy()
    futures = [m.submit(n) for n in range(3)]
    m.opened.set()
    results(futures)
    assert m.ran == [[0, 1, 2]]


def test_other_keys_go_apart_and_the_oldest_first(model):
    m = model(max_delay=0.001)
    m.occupy()
    keys = "abacbbca"
    futures = [m.submit(n, key=key) for n, key in enumerate(keys)]
    time.sleep(0.002)
    m.opened.set()
    assert results(futures) == [2 * n for n in range(8)]
    assert m.ran == [[0, 2, 7], [1, 4, 5], [3, 6]]


def test_what_cannot_be_joined_runs_alone_and_at_once(model):
    m = model(max_delay=LONG)
    waiting = m.submit(1)
    assert results([m.submit(n, key=None) for n in (2, 3)]) == [4, 6]
    assert m.ran == [[2], [3]]
    assert not waiting.done()
    results([m.submit(n) for n in range(3)] + [waiting])
    assert m.ran[-1] == [1, 0, 1, 2]


def test_rows_count_and_not_calls(model):
    m = model()
    m.occupy()
    futures = [m.submit(n, rows=rows) for n, rows in enumerate((2, 3, 1, 2, 2))]
    m.opened.set()
    results(futures)
    assert m.ran == [[0], [1, 2], [3, 4]]


def test_a_run_that_fails_is_made_again_for_each_call(model):
    m = model()
    m.occupy()
    futures = [m.submit(value) for value in (1, ValueError("mine"), 3)]
    m.opened.set()
    assert futures[0].result(10) == 2
    assert futures[2].result(10) == 6
    with pytest.raises(ValueError, match="mine"):
        futures[1].result(10)
    assert len(m.ran) == 4


def test_a_cancelled_call_is_not_in_the_run(model):
    m = model(max_delay=0.05)
    value = Call(1)
    reference = weakref.ref(value)
    cancelled, kept = m.queue.submit(value), m.submit(2)
    del value
    assert cancelled.cancel()
    assert reference() is None
    assert results([kept]) == [4]
    assert m.ran == [[2]]


def test_the_queue_is_full_by_calls(model):
    m = model(size=3)
    m.occupy()
    futures = [m.submit(n) for n in range(3)]
    with pytest.raises(aoti.QueueFullError):
        m.submit(9)
    assert futures[1].cancel()
    futures.append(m.submit(3))
    m.opened.set()
    assert results([futures[0], *futures[2:]]) == [0, 4, 6]


def test_close_turns_away_who_waits_for_others(model):
    m = model(max_delay=LONG)
    futures = [m.submit(n) for n in range(3)]
    begin = time.monotonic()
    m.queue.close()
    assert time.monotonic() - begin < 10
    for future in futures:
        assert isinstance(future.exception(10), aoti.ModelClosedError)
    with pytest.raises(aoti.ModelClosedError):
        m.submit(1)


def test_a_dropped_queue_finishes_without_delay(model):
    m = model(max_delay=LONG)
    futures = [m.submit(n) for n in range(3)]
    m.queue.retire()
    assert results(futures) == [0, 2, 4]
    assert m.ran == [[0, 1, 2]]


def test_a_worker_that_runs_leaves_the_clock_to_another(model):
    m = model(max_delay=0.02, workers=2)
    m.opened.clear()
    first = m.submit(1, key="a")
    second = m.submit(2, key="b")
    for _ in range(2):  # both run, though the first never ends by itself
        assert m.entered.acquire(timeout=10)
    m.opened.set()
    assert results([first, second]) == [2, 4]
    m.opened.clear()
    running = m.submit(1, key=None)
    assert m.entered.acquire(timeout=10)
    late = m.submit(2)
    assert m.entered.acquire(timeout=10)
    m.opened.set()
    assert results([running, late]) == [2, 4]


@pytest.mark.parametrize("workers", [1, 3])
def test_many_threads_get_their_own_answers(model, workers):
    m = model(max_delay=0.001, workers=workers, size=10_000)

    def client(number):
        for n in range(50):
            value = number * 1000 + n
            future = m.submit(value, key="abc"[value % 3] if value % 7 else None, rows=1 + n % 3)
            if n % 5 == 0:
                future.cancel()
            try:
                assert future.result(30) == 2 * value
            except concurrent.futures.CancelledError:
                assert n % 5 == 0

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        list(pool.map(client, range(16)))
    ran = [value for run in m.ran for value in run]
    assert len(ran) == len(set(ran))
    load = m.queue.load()
    assert (load.running, load.waiting, load.calls) == (0, 0, len(ran))
