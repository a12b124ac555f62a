"""The GIL, signals and threads during runs: who waits for whom."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import threading
import time

import numpy as np
import pytest

import aoti

pytestmark = pytest.mark.timeout(60)


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


SIGNALS = """
import random, signal, sys, time
from concurrent.futures import TimeoutError
from aoti.background.run_queue import RunQueue

class Stop(Exception):
    pass

def ring(*_):
    raise Stop

signal.signal(signal.SIGALRM, ring)
random.seed(int(sys.argv[1]))
stopped = 0
for _ in range(150):
    queue = RunQueue(lambda leaves: (leaves, 1), workers=1, size=1000, name="test")
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 4e-4), 5e-5)
        while True:
            future = queue.submit(1)
            future.add_done_callback(lambda future: None)
            future.result(5)
            future.cancel()
    except Stop:
        stopped += 1
    finally:
        while True:
            try:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, signal.SIG_IGN)  # one may be under way
                break
            except Stop:
                pass
    assert queue.submit(2).result(20) == 2
    queue.close()
    signal.signal(signal.SIGALRM, ring)
print(stopped)
"""


@pytest.mark.parametrize("seed", range(3))
def test_a_signal_handler_that_raises_leaves_the_queue_usable(run_python, seed):
    assert int(run_python(SIGNALS, seed)) == 150


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
