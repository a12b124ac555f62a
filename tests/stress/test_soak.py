"""Calls of every kind from many threads, mixed with failures, cancellations, closes, weights read.

At a reduced size by default; AOTI_STRESS=500 makes ten million calls.
"""

from __future__ import annotations

import os

import pytest

SIZE = int(os.environ.get("AOTI_STRESS", "1"))

SOAK = """
import asyncio, concurrent.futures, gc, os, random, sys, threading, numpy as np, aoti
from pathlib import Path

CALLS, THREADS = int(sys.argv[2]), 8
TABLE = np.arange(20, dtype=np.float32).reshape(5, 4)

def load():
    return aoti.load(sys.argv[1], num_runners=3, intra_op_threads=1, queue_size=4)

def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

model = load()
failed, counts = [], {}
closing = threading.Lock()

def check(index, out):
    assert out.tolist() == TABLE[index].tolist()

def plain(index):
    check(index, model(index))

def wrong_input(index):
    try:
        model(index.astype(np.int32))
    except aoti.InputTypeError:
        return
    raise AssertionError

def failing(index):
    try:
        model(np.append(index, 99))
    except aoti.ExecutionError:
        return
    raise AssertionError

def submitted(index):
    check(index, model.submit(index).result(timeout=60))

def failing_in_background(index):
    error = model.submit(np.append(index, 99)).exception(timeout=60)
    assert isinstance(error, (aoti.ExecutionError, aoti.ModelClosedError)), error

def cancelled(index):
    future = model.submit(index)
    if not future.cancel():
        check(index, future.result(timeout=60))

def reading(index):
    (table,) = model.extract_constants().values()
    check(index, table[index])

def close(index):
    global model
    with closing:
        old, model = model, load()
    old.close()
    assert old.closed

async def asynchronous(index, order):
    fate = order.randrange(3)
    task = asyncio.ensure_future(model.run_async(index))
    if fate == 0:
        await asyncio.sleep(0)
        task.cancel()
    try:
        if fate == 1:
            async with asyncio.timeout(order.random() * 1e-3):
                check(index, await task)
        else:
            check(index, await task)
    except (asyncio.CancelledError, TimeoutError):
        assert fate < 2

# A failing run takes libtorch 6 ms: it looks up the names in its backtrace.
KINDS = [plain, wrong_input, submitted, cancelled, reading, failing, failing_in_background]
WEIGHTS = [30, 20, 30, 13, 5, 1, 1]

def work(seed, calls):
    order = random.Random(seed)
    loop = asyncio.new_event_loop()
    try:
        for n in range(calls):
            index = np.array([order.randrange(5) for _ in range(2 + n % 3)])
            (kind,) = order.choices(KINDS, WEIGHTS)
            try:
                if order.random() < 0.15:
                    loop.run_until_complete(asynchronous(index, order))
                elif order.random() < 5e-4:
                    close(index)
                else:
                    kind(index)
            except aoti.QueueFullError:
                counts["full"] = counts.get("full", 0) + 1
            except aoti.ModelClosedError:
                counts["closed"] = counts.get("closed", 0) + 1
    except BaseException as error:
        failed.append(error)
    finally:
        loop.close()

def batch(seed, calls):
    threads = [
        threading.Thread(target=work, args=(seed * THREADS + n, calls // THREADS))
        for n in range(THREADS)
    ]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failed, failed
    gc.collect()

batch(0, CALLS // 4)
before = resident()
batch(1, CALLS)
grown = resident() - before
model.close()
names = [thread.name for thread in threading.enumerate() if thread.name.startswith("aoti ")]
assert names == [], names
assert counts["full"] and counts["closed"], counts
print(f"{CALLS} calls, {counts}, {grown:.1f} MB")
assert grown < 24, f"{grown} MB"
"""


@pytest.mark.slow
@pytest.mark.timeout(60 + 60 * SIZE)
def test_calls_of_every_kind_from_eight_threads(packages, run_python):
    print(run_python(SOAK, packages / "stock_lookup.pt2", 20_000 * SIZE))
