"""Calls in the background and in event loops; interruption, time limits, closing, exits."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import ctypes
import gc
import os
import pickle
import random
import shutil
import signal
import subprocess
import threading
import time
import weakref

import numpy as np
import pytest

import aoti
from aoti.run_queue import RunQueue

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def slow(packages):
    """A model whose run takes some 200 ms on the input `large`; one at a time."""
    with aoti.load(packages / "slow.pt2", intra_op_threads=1) as model:
        yield model


@pytest.fixture
def large() -> np.ndarray:
    return np.full((1000, 1000), 1e-3, np.float32)


@pytest.fixture
def alarm():
    """Raise KeyboardInterrupt in the main thread, by a signal, after some seconds."""

    def ring(*_):
        raise KeyboardInterrupt

    # Not SIGALRM, which limits the time of tests.
    main, before = threading.main_thread().ident, signal.signal(signal.SIGUSR1, ring)
    timers = []

    def set_alarm(seconds):
        timers.append(threading.Timer(seconds, signal.pthread_kill, (main, signal.SIGUSR1)))
        timers[-1].start()

    yield set_alarm
    for timer in timers:
        timer.cancel()
        timer.join()
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def ctrl_c():
    """Python's own handler of SIGINT, which whoever starts the tests in the background ignores."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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
            return leaves

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


HELD = """
import ctypes, sys, threading, time, torch, aoti
sys.setswitchinterval(1000)
x = torch.full((1000, 1000), 1e-3)
model = aoti.load(sys.argv[1], intra_op_threads=1)
used = []
thread = threading.Thread(target=lambda: (model(x), used.append(time.thread_time())))
thread.start()
time.sleep(0.01)
clock = time.pthread_getcpuclockid(thread.ident)
seen = -1.0
while seen != (now := time.clock_gettime(clock)):
    seen = now
    ctypes.PyDLL(None).usleep(300_000)  # with the GIL
thread.join()
print(seen / used[0])
"""


def test_a_run_on_a_tensor_of_torch_does_not_wait_for_the_gil(packages, run_python):
    """Were Python's tensor itself what the model holds, its last reference would want the GIL."""
    assert float(run_python(HELD, packages / "slow.pt2")) > 0.9


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


# -- interruption and the GIL --------------------------------------------------------------------


def test_ctrl_c_while_waiting_for_a_future_is_immediate(slow, large, alarm):
    futures = [slow.submit(large) for _ in range(10)]
    alarm(0.05)
    with pytest.raises(KeyboardInterrupt):
        futures[-1].result()
    assert not futures[-1].done()  # they take two seconds


def test_ctrl_c_in_run_async_is_immediate(slow, large, ctrl_c):
    async def main():
        futures = [slow.submit(large) for _ in range(10)]
        try:
            await slow.run_async(large)
        finally:
            assert not futures[-1].done()  # they take two seconds

    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    timer.join()


def test_ctrl_c_while_waiting_for_a_runner(slow, large, alarm):
    threads = [threading.Thread(target=slow, args=(large,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.02)
    alarm(0.03)
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        for _ in range(10):
            slow(large)
    assert time.monotonic() - begin < 0.5
    for thread in threads:
        thread.join()
    assert slow(large).shape == (1000, 1000)


def test_ctrl_c_in_a_plain_call_comes_right_after_the_run(slow, large, alarm):
    alarm(0.02)
    with pytest.raises(KeyboardInterrupt):
        slow(large)
        raise AssertionError
    assert slow(large).shape == (1000, 1000)


PAUSES = """
import sys, threading, time, numpy as np, aoti

def longest_pause(work):
    worker = threading.Thread(target=work)
    longest, last = 0, time.monotonic()
    worker.start()
    while worker.is_alive():
        time.sleep(0.001)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    return longest

slow, minilm = sys.argv[1:]
pauses = [longest_pause(lambda: aoti.load(slow).close())]  # loads libtorch
pauses.append(longest_pause(lambda: aoti.load(minilm, cache=False).close()))  # extracts 90 MB
x = np.full((1000, 1000), 1e-3, np.float32)
with aoti.load(slow, intra_op_threads=1) as model:
    pauses.append(longest_pause(lambda: model(x)))
print(*(int(pause * 1000) for pause in pauses))
"""


def test_threads_keep_ticking_during_loads_and_runs(packages, minilm, run_python):
    pauses = run_python(PAUSES, packages / "slow.pt2", minilm)
    assert all(int(pause) < 100 for pause in pauses.split()), pauses


# A thread that Python does not know of calls back: what a library's own may do.
CALLED_BACK = """
import ctypes, sys, threading, time, numpy as np, aoti

libc = ctypes.CDLL(None)
called = []
callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _: called.append(time.monotonic()))

class Event(ctypes.Structure):
    _fields_ = [("value", ctypes.c_void_p), ("signal", ctypes.c_int), ("how", ctypes.c_int),
                ("call", type(callback)), ("unused", ctypes.c_char * 64)]

def call_back_after(seconds):
    by_a_thread = Event(how=2, call=callback)
    timer = ctypes.c_void_p()
    assert libc.timer_create(1, ctypes.byref(by_a_thread), ctypes.byref(timer)) == 0
    at = (ctypes.c_long * 4)(0, 0, int(seconds), int(seconds % 1 * 1e9))
    assert libc.timer_settime(timer, 0, ctypes.byref(at), None) == 0

model = aoti.load(sys.argv[1], intra_op_threads=1)
x = np.full((1000, 1000), 1e-3, np.float32)

def seconds():
    begin = time.monotonic()
    model(x)
    return time.monotonic() - begin

seconds()
took = seconds()
assert threading.active_count() == 1
begin = time.monotonic()
call_back_after(took / 4)
seconds()
while not called:
    time.sleep(0.01)
print((called[0] - begin) / took)
"""


def test_a_thread_that_is_new_to_python_gets_in_during_a_long_run(packages, run_python):
    when = run_python(CALLED_BACK, packages / "slow.pt2")
    assert 0.1 < float(when) < 0.75


# An operator whose own thread calls into Python now and then, and which waits for that thread.
OPERATOR = """
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>

int PyGILState_Ensure(void);
void PyGILState_Release(int state);

static sem_t asked, answered;
static long calls;

static void* work(void* unused) {
  for (;;) {
    sem_wait(&asked);
    PyGILState_Release(PyGILState_Ensure());
    sem_post(&answered);
  }
  return unused;
}
void start(void) {
  pthread_t thread;
  sem_init(&asked, 0, 0);
  sem_init(&answered, 0, 0);
  pthread_create(&thread, 0, work, 0);
}
void operator_(uint64_t* stack, uint64_t inputs, uint64_t outputs) {
  if (++calls % 50 == 0) {
    sem_post(&asked);
    sem_wait(&answered);
  }
}
"""
CALLS_OPERATOR = """
import ctypes, faulthandler, sys, threading, numpy as np, torch, aoti
faulthandler.dump_traceback_later(30, exit=True)
torch.library.define("aoti_tests::halve", "(Tensor x) -> Tensor")
libtorch, library = ctypes.CDLL("libtorch_cpu.so"), ctypes.c_void_p()
assert libtorch.aoti_torch_library_init_impl(
    b"aoti_tests", b"CPU", b"here", ctypes.c_uint32(1), ctypes.byref(library)) == 0
operator = ctypes.CDLL(sys.argv[2])
operator.start()
assert libtorch.aoti_torch_library_impl(library, b"halve", operator.operator_) == 0
model = aoti.load(sys.argv[1], intra_op_threads=1)
assert threading.active_count() == 1
for _ in range(500):
    model(np.ones((3, 4), np.float32))
print("done")
"""


def test_an_operator_may_wait_for_a_thread_that_calls_into_python(packages, run_python, tmp_path):
    if (compiler := shutil.which("gcc")) is None:
        pytest.skip("needs gcc")
    source, library = tmp_path / "operator.c", tmp_path / "operator.so"
    source.write_text(OPERATOR)
    subprocess.run([compiler, "-shared", "-fPIC", source, "-o", library], check=True)
    assert run_python(CALLS_OPERATOR, packages / "custom.pt2", library) == "done\n"


# -- threads of a run ----------------------------------------------------------------------------


def test_intra_op_threads_hold_for_the_run_alone(packages, run_python):
    program = """
import ctypes, os, sys, threading, numpy as np, aoti
x = np.full((1000, 1000), 1e-3, np.float32)
def tasks():
    return len(os.listdir("/proc/self/task"))
before = tasks()
counts = []
for threads in (1, 3):
    model = aoti.load(sys.argv[1], intra_op_threads=threads)
    libgomp = ctypes.CDLL("libgomp.so.1")
    def work():
        libgomp.omp_set_num_threads(2)
        model(x)
        counts.append((libgomp.omp_get_max_threads(), tasks() - before))
    model(x)
    counts.append(tasks() - before)
    if threads == 1:
        assert model.submit(x).result().shape == (1000, 1000)
        counts.append(tasks() - before)  # the worker itself
        model.close()
print(counts)
"""
    assert run_python(program, packages / "slow.pt2") == "[0, 1, 2]\n"


def test_the_callers_number_of_threads_is_left_as_it_was(packages, rows):
    found = []

    def work():
        found.append(libgomp.omp_get_max_threads())
        with contextlib.suppress(aoti.ExecutionError):
            model(index)
        found.append(libgomp.omp_get_max_threads())

    with aoti.load(packages / "stock_lookup.pt2", intra_op_threads=5) as model:
        libgomp = ctypes.CDLL("libgomp.so.1")
        for index in (np.array([1, 2]), np.array([1, 99])):  # noqa: B007
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
    assert found[0] == found[1] == found[2] == found[3] != 5


def test_packages_say_which_number_of_threads_is_compiled_in(packages):
    threads = {}
    for name in ("mlp", "slow", "stock", "stock_abort"):
        with aoti.Package(packages / f"{name}.pt2") as package:
            threads[name] = package.threads()
    assert threads == {"mlp": None, "slow": None, "stock": None, "stock_abort": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"intra_op_threads": 0}, "intra_op_threads must be at least 1, not 0"),
        ({"queue_size": 0}, "queue_size must be at least 1, not 0"),
        ({"timeout": 0}, "above 0, not 0"),
        ({"timeout": float("nan")}, "above 0, not nan"),
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
