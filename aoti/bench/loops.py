"""Timed calls, in the process of an engine."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from threading import Barrier, Semaphore
from typing import Any

Call = Callable[[], Any]

_MAX_KEPT = 20_000  # times of a round that are kept: enough for a 99th percentile


@dataclass(frozen=True, slots=True)
class Round:
    """The calls of one turn.

    Attributes
    ----------
    calls : int
        How many.
    seconds : float
        How long all of it took.
    least, largest, total : int
        Nanoseconds: of the shortest, the longest, and all calls.
    kept : bytes
        Nanoseconds of each call, or of every n-th where they are too many, as 64-bit integers.
    """

    calls: int
    seconds: float
    least: int
    largest: int
    total: int
    kept: bytes


def in_a_row(call: Call, seconds: float) -> array[int]:
    """Call for so long, at least once; give nanoseconds from the end of one call to the next."""
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
    """Make calls from one thread each, all beginning together."""
    if len(calls) == 1:
        with context():
            start = time.perf_counter()
            times = in_a_row(calls[0], seconds)
            return _round(times, time.perf_counter() - start)
    barrier = Barrier(len(calls) + 1)

    def work(call: Call) -> array[int]:
        with context():
            barrier.wait()
            return in_a_row(call, seconds)

    with ThreadPoolExecutor(len(calls)) as pool:
        workers = [pool.submit(work, call) for call in calls]
        barrier.wait()
        start = time.perf_counter()
        all_times = [worker.result() for worker in workers]
        taken = time.perf_counter() - start
    joined = array("q")
    for times in all_times:
        joined.extend(times)
    return _round(joined, taken)


def queued(submit: Callable[[], Future[Any]], window: int, seconds: float) -> Round:
    """Keep `window` calls in the queue; a time is from there to the answer."""
    clock = time.perf_counter_ns
    times, failures = array("q"), list[BaseException]()
    slots = Semaphore(window)

    def done(begun: int, future: Future[Any]) -> None:
        times.append(clock() - begun)
        if (error := future.exception()) is not None:
            failures.append(error)
        slots.release()

    start = clock()
    end = start + int(seconds * 1e9)
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
    return _round(times, (clock() - start) / 1e9)


def _round(times: array[int], seconds: float) -> Round:
    kept = times[:: 1 + len(times) // _MAX_KEPT]
    return Round(len(times), seconds, min(times), max(times), sum(times), kept.tobytes())
