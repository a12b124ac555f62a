"""Calls in the background and in event loops; interruption, time limits, closing, exits."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import pickle
import random
import threading
import time
import weakref

import numpy as np
import pytest

import aoti
from aoti.background.run_queue import RunQueue

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def gate():
    """A queue with one worker and room for two; `call` waits until the gate is opened."""

    class Gate:
        def __init__(self):
            self.opened, self.entered = threading.Event(), threading.Semaphore(0)
            self.ran = []
            self.queue = RunQueue(self.call, workers=1, size=2, name="test")

        def call(self, leaves):
            self.entered.release()
            assert self.opened.wait(30)
            self.ran.append(leaves)
            if isinstance(leaves, Exception):
                raise leaves
            return leaves, 7

        def occupy(self):
            future = self.queue.submit("first")
            self.entered.acquire()
            return future

    gate = Gate()
    yield gate
    gate.opened.set()
    gate.queue.close()


def workers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("aoti ")]


def wait_until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


# -- submit --------------------------------------------------------------------------------------


def test_submit_gives_what_a_call_gives(packages, rows):
    with aoti.load(packages / "mlp.pt2", num_runners=2) as model:
        wanted = [model(rows * n) for n in range(50)]
        futures = [model.submit(rows * n) for n in range(50)]
        assert all(isinstance(future, concurrent.futures.Future) for future in futures)
        for future, want in zip(futures, wanted, strict=True):
            assert future.result().tolist() == want.tolist()
        assert 1 <= len(workers()) <= 2
    assert workers() == []


def test_arguments_are_named_as_in_a_call(packages):
    array = np.ones((3, 4), np.float32)
    with aoti.load(packages / "shared.pt2") as model:
        arguments = {"x": np.ones((2, 3), np.float32), "y": np.ones((2, 5), np.float32)}
        assert model.submit(**arguments).result().tolist() == model(**arguments).tolist()
        assert asyncio.run(model.run_async(**arguments)).tolist() == [[5, 5, 5]] * 2
    with aoti.load(packages / "alias.pt2") as model:
        assert np.shares_memory(model.submit(array).result()[0], array)


def test_a_wrong_structure_is_an_error_at_once_and_a_wrong_array_in_the_future(mlp, rows):
    with pytest.raises(aoti.InputError):
        mlp.submit(rows, rows)
    assert workers() == []
    with pytest.raises(aoti.InputError, match="dimension 1"):
        mlp.submit(rows[:, :5]).result()
    assert mlp.submit(rows).result().shape == (3, 1)


def test_submitted_runs_keep_nothing(packages):
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    gc.disable()
    try:
        with aoti.load(packages / "alias.pt2") as model:
            same = model.submit(x).result()[0]
            argument, result = weakref.ref(x), weakref.ref(same)
            del x, same
            wait_until(lambda: argument() is result() is None)
            wrong = np.ones(3, np.float32)
            assert model.submit(wrong).exception() is not None
            argument = weakref.ref(wrong)
            del wrong
            wait_until(lambda: argument() is None)
    finally:
        gc.enable()


def test_the_queue_has_a_bound(gate):
    first = gate.occupy()
    waiting = [gate.queue.submit(n) for n in range(2)]
    with pytest.raises(aoti.QueueFullError, match=r"2 runs are waiting already \(queue_size\)"):
        gate.queue.submit("too many")
    assert waiting[0].cancel()
    last = gate.queue.submit("last")
    with pytest.raises(aoti.QueueFullError):
        gate.queue.submit("too many")
    assert not first.cancel()
    gate.opened.set()
    done = concurrent.futures.wait([first, *waiting, last])
    assert not done.not_done
    assert gate.ran == ["first", 1, "last"]


def test_what_is_cancelled_is_let_go_of_at_once(gate):
    gate.occupy()
    leaves = np.ones(3)
    reference = weakref.ref(leaves)
    future = gate.queue.submit(leaves)
    del leaves
    assert future.cancel()
    assert reference() is None
    assert concurrent.futures.wait([future], timeout=0).done == {future}


def test_the_next_run_can_be_queued_when_one_is_done(gate):
    gate.opened.set()
    for _ in range(1000):
        futures = [gate.queue.submit(n) for n in range(3)]
        assert [future.result() for future in futures] == [0, 1, 2]


def test_close_turns_away_who_waits_and_finishes_what_runs(slow, large):
    running = slow.submit(large)
    wait_until(running.running)
    waiting = [slow.submit(large) for _ in range(5)]
    closer = threading.Thread(target=slow.close)
    closer.start()
    for future in waiting:
        assert isinstance(future.exception(timeout=10), aoti.ModelClosedError)
    assert not running.done()
    closer.join()
    assert running.done()
    assert running.result().shape == (1000, 1000)
    assert workers() == []
    with pytest.raises(aoti.ModelClosedError):
        slow.submit(large)
    with pytest.raises(aoti.ModelClosedError):
        asyncio.run(slow.run_async(large))


def test_a_callback_may_close_the_model(mlp, rows):
    future = mlp.submit(rows)
    future.add_done_callback(lambda _: mlp.close())
    assert future.result().shape == (3, 1)
    wait_until(lambda: workers() == [])
    assert mlp.closed


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, ValueError])
def test_a_callback_that_raises_ends_neither_the_worker_nor_the_other_callbacks(mlp, rows, error):
    called = []

    def fail(_):
        raise error("of a callback")

    future = mlp.submit(rows)
    future.add_done_callback(fail)
    future.add_done_callback(called.append)
    assert future.result(10) is not None
    assert mlp.submit(rows).result(10) is not None
    wait_until(lambda: called == [future])


def test_a_dropped_model_finishes_what_is_queued(packages, large):
    model = aoti.load(packages / "slow.pt2")
    futures = [model.submit(large) for _ in range(3)]
    dropped = weakref.ref(model)
    gc.disable()
    try:
        del model
        assert dropped() is None
    finally:
        gc.enable()
    assert [future.result().shape for future in futures] == [(1000, 1000)] * 3
    wait_until(lambda: workers() == [])


def test_one_thread_per_runner_runs_at_full_width(packages, large):
    with aoti.load(packages / "slow.pt2", num_runners=3, intra_op_threads=1) as model:
        futures = [model.submit(large) for _ in range(3)]
        wait_until(lambda: all(future.running() for future in futures))
        assert len(workers()) == 3


EXIT = """
import sys, threading, numpy as np, aoti
x = np.full((1000, 1000), 1e-3, np.float32)
model = aoti.load(sys.argv[1])
futures = [model.submit(x) for _ in range(500)]
while not futures[0].running():
    pass
if sys.argv[2] == "idle":
    [future.cancel() for future in futures]
    futures[0].result()
print("bye")
"""


@pytest.mark.parametrize("state", ["busy", "idle"])
def test_an_exit_waits_for_the_run_but_not_for_the_queue(packages, run_python, state):
    begin = time.monotonic()
    assert run_python(EXIT, packages / "slow.pt2", state) == "bye\n"
    assert time.monotonic() - begin < 20


def test_nothing_can_be_submitted_once_the_interpreter_has_shut_down(packages, run_python):
    program = """
import atexit, sys, numpy as np
x = np.ones((2, 10), np.float32)
def late():
    try:
        model.submit(x)
    except aoti.ModelClosedError as error:
        print(error, model(x).shape)
atexit.register(late)
import aoti
model = aoti.load(sys.argv[1])
model.submit(x).result()
"""
    wanted = "the interpreter is shutting down (2, 1)\n"
    assert run_python(program, packages / "mlp.pt2") == wanted


# -- run_async -----------------------------------------------------------------------------------


def test_run_async_gives_what_a_call_gives(mlp, rows):
    async def main():
        with pytest.raises(aoti.InputError):
            await mlp.run_async(rows, rows)
        with pytest.raises(aoti.InputError, match="dimension 1"):
            await mlp.run_async(rows[:, :5])
        return await mlp.run_async(rows)

    assert asyncio.run(main()).tolist() == mlp(rows).tolist()


def test_a_timeout_comes_on_time_and_keeps_the_arrays(slow):
    x = np.full((1000, 1000), 1e-3, np.float32)
    argument = weakref.ref(x)
    slow.timeout = 0.05

    async def late(x):
        begin = time.monotonic()
        with pytest.raises(aoti.RunTimeoutError, match=r"0\.05 s; it ends in the background"):
            await slow.run_async(x)
        return time.monotonic() - begin

    took = asyncio.run(late(x))
    del x
    kept = argument() is not None
    assert kept or not slow.info().running  # on a busy machine it may have ended by now
    assert took >= 0.05
    wait_until(lambda: argument() is None)


def test_a_timeout_in_the_queue_withdraws(slow, large):
    slow.timeout = 0.02

    async def main():
        ahead = [slow.submit(large) for _ in range(10)]
        with pytest.raises(TimeoutError, match="it was withdrawn"):
            await slow.run_async(large)
        assert not ahead[-1].done()

    asyncio.run(main())


@pytest.mark.parametrize("timeout", [1e300, float("inf"), 2**70, 2**2000])
def test_the_longest_timeouts_are_no_limit(packages, rows, timeout):
    with aoti.load(packages / "mlp.pt2", timeout=timeout) as model:
        assert asyncio.run(model.run_async(rows)).tolist() == model(rows).tolist()


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_a_timeout_that_is_set_is_checked(mlp, timeout):
    with pytest.raises(aoti.ConfigError, match="timeout must be a number of seconds above 0"):
        mlp.timeout = timeout


def test_asyncio_can_cancel_and_limit_a_single_call(slow, large):
    async def main():
        ahead = [slow.submit(large) for _ in range(10)]
        task = asyncio.create_task(slow.run_async(large))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.03):
                await slow.run_async(large)
        assert not ahead[-1].done()

    asyncio.run(main())


def test_a_model_can_be_closed_under_run_async(slow, large):
    async def main():
        tasks = [asyncio.create_task(slow.run_async(large)) for _ in range(4)]
        await asyncio.sleep(0.05)
        await asyncio.to_thread(slow.close)
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, *others = asyncio.run(main())
    assert first.shape == (1000, 1000)
    assert {type(other) for other in others} == {aoti.ModelClosedError}


def test_loops_in_several_threads(packages, rows):
    async def main(n):
        return [(await model.run_async(rows * n)).tolist() for _ in range(50)]

    with aoti.load(packages / "mlp.pt2", num_runners=2) as model:
        wanted = [[model(rows * n).tolist()] * 50 for n in range(4)]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda n: asyncio.run(main(n)), range(4)))
    assert found == wanted


def test_a_loop_that_was_closed_meanwhile_is_no_trouble(packages, run_python):
    program = """
import asyncio, gc, sys, numpy as np, aoti
x = np.full((1000, 1000), 1e-3, np.float32)
model = aoti.load(sys.argv[1])
async def main():
    model.timeout = 0.01
    tasks = [asyncio.create_task(model.run_async(x)) for _ in range(3)]
    await asyncio.wait(tasks)
    assert {type(task.exception()) for task in tasks} == {aoti.RunTimeoutError}
    model.timeout = None
    asyncio.create_task(model.run_async(x))  # cancelled by asyncio.run
    await asyncio.sleep(0)
asyncio.run(main())
model.submit(x).result()
gc.collect()
"""
    assert run_python(program + "print('done')", packages / "slow.pt2", check=False) == "done\n"


@pytest.mark.parametrize("seed", range(3))
def test_a_thousand_calls_with_cancellations_and_timeouts(packages, seed):
    order = random.Random(seed)
    arrays = [np.full((1 + n % 7, 10), n / 1000, np.float32) for n in range(1000)]
    with aoti.load(packages / "mlp.pt2", num_runners=3, intra_op_threads=1) as model:
        wanted = [model(array).tolist() for array in arrays]

        async def call(n):
            await asyncio.sleep(order.random() * 0.05)
            fate = order.random()
            if fate < 0.25:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(order.random() * 0.002):
                        assert (await model.run_async(arrays[n])).tolist() == wanted[n]
                return "limited"
            task = asyncio.ensure_future(model.run_async(arrays[n]))
            if fate < 0.5:
                await asyncio.sleep(order.random() * 0.002)
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    assert (await task).tolist() == wanted[n]
                return "cancelled"
            assert (await task).tolist() == wanted[n]
            return "answered"

        async def main():
            return await asyncio.gather(*map(call, range(1000)))

        fates = asyncio.run(main())
    assert all(fates.count(fate) > 100 for fate in ("limited", "cancelled", "answered"))
    assert len(fates) == 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"intra_op_threads": 0}, "intra_op_threads must be at least 1, not 0"),
        ({"queue_size": 0}, "queue_size must be at least 1, not 0"),
        ({"queue_size": 2**70}, "queue_size must be at most 1073741824, not a number of 71 bits"),
        ({"intra_op_threads": 2**40}, "intra_op_threads must be at most 4096, not 1099511627776"),
        ({"num_runners": 2**70}, "num_runners must be at most 1024, not a number of 71 bits"),
        ({"num_runners": 100_000}, "num_runners must be at most 1024, not 100000"),
        ({"num_runners": 10**5000}, "num_runners must be at most 1024, not a number of"),
        ({"device_index": 2**70}, "device_index must be at most 2147483647, not a number of 71"),
        ({"timeout": 0}, "above 0, not 0"),
        ({"timeout": float("nan")}, "above 0, not nan"),
        ({"timeout": -(10**5000)}, "above 0, not a number of"),
    ],
)
def test_wrong_options_are_clear_errors(packages, options, message):
    with pytest.raises(aoti.ConfigError, match=message):
        aoti.load(packages / "mlp.pt2", **options)


# -- pickling ------------------------------------------------------------------------------------


def test_a_pickle_loads_the_same_package_in_the_same_way(packages, rows, tmp_path, monkeypatch):
    path = tmp_path / "model.pt2"
    path.write_bytes((packages / "mlp.pt2").read_bytes())
    monkeypatch.chdir(tmp_path)
    options = {"num_runners": 2, "queue_size": 3, "intra_op_threads": 1, "limits": aoti.Limits()}
    with aoti.load("model.pt2", device="cpu", **options) as model:
        model.timeout = 7
        pickled = pickle.dumps(model)
        monkeypatch.chdir("/")
        with pickle.loads(pickled) as again:
            assert again(rows).tolist() == model(rows).tolist()
            assert (again.num_runners, again.timeout, again.path) == (2, 7, str(path))
            assert pickle.dumps(again) != b""
    path.write_bytes((packages / "slow.pt2").read_bytes())
    with pytest.raises(aoti.IntegrityError, match="not the package that was asked for"):
        pickle.loads(pickled)
    with pytest.raises(aoti.ModelClosedError, match="closed model cannot be pickled"):
        pickle.dumps(model)


def test_a_model_without_a_file_is_not_pickled(packages):
    content = (packages / "mlp.pt2").read_bytes()
    with aoti.load(content) as model, pytest.raises(TypeError, match="loaded from its content"):
        pickle.dumps(model)
