"""Timed calls, in the process of an engine."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from functools import partial
from threading import Barrier, Semaphore
from typing import Any, NamedTuple

Call = Callable[[], Any]

_MAX_KEPT = 20_000  # stored times of a round: enough for a 99th percentile


class Round(NamedTuple):
    """The calls of one turn.

    Attributes
    ----------
    calls : int
        The number of calls.
    seconds, cpu_seconds : float
        Wall time of the round, and CPU time of all threads of the process.
    least, largest, total : int
        Nanoseconds of the shortest call, the longest call, and all calls.
    kept : bytes
        Nanoseconds of each call, or of every n-th if there are too many, as 64-bit integers.
    """

    calls: int
    seconds: float
    cpu_seconds: float
    least: int
    largest: int
    total: int
    kept: bytes


def in_a_row(call: Call, seconds: float) -> array[int]:
    """Call for so many seconds, at least once; return nanoseconds from one end to the next."""
    clock = time.perf_counter_ns
    times = array("q")
    add = times.append
    last = clock()
    end = last + int(seconds * 1e9)
    while True:
        call()
        now = clock()
        add(now - last)
        last = now
        if now >= end:
            return times


def side_by_side(
    calls: Sequence[Call], seconds: float, context: Callable[[], AbstractContextManager[Any]]
) -> Round:
    """Run calls in one thread each; all threads start together."""
    if len(calls) == 1:
        with context():
            clocks = _Clocks()
            return clocks.round(in_a_row(calls[0], seconds))
    barrier = Barrier(len(calls) + 1)

    def work(call: Call) -> array[int]:
        with context():
            barrier.wait()
            return in_a_row(call, seconds)

    from concurrent.futures import ThreadPoolExecutor  # not part of a start, which is measured

    with ThreadPoolExecutor(len(calls)) as pool:
        workers = [pool.submit(work, call) for call in calls]
        barrier.wait()
        clocks = _Clocks()
        joined = array("q")
        for worker in workers:
            joined.extend(worker.result())
        return clocks.round(joined)


def queued(submit: Callable[[], Future[Any]], window: int, seconds: float) -> Round:
    """Keep `window` calls in the queue; a time is that from queueing to the answer."""
    clock = time.perf_counter_ns
    times, failures = array("q"), list[BaseException]()
    slots = Semaphore(window)

    def done(begun: int, future: Future[Any]) -> None:
        times.append(clock() - begun)
        if (error := future.exception()) is not None:
            failures.append(error)
        slots.release()

    clocks = _Clocks()
    end = clock() + int(seconds * 1e9)
    while not failures:
        slots.acquire()
        begun = clock()
        submit().add_done_callback(partial(done, begun))
        if begun >= end:
            break
    for _ in range(window):
        slots.acquire()
    if failures:
        raise failures[0]
    return clocks.round(times)


class _Clocks:
    """Clocks that are started at the beginning of a round."""

    def __init__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def round(self, times: array[int]) -> Round:
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        kept = times[:: 1 + len(times) // _MAX_KEPT]
        return Round(len(times), wall, cpu, min(times), max(times), sum(times), kept.tobytes())
