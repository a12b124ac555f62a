"""Many threads, failing calls, closing models: nothing crashes, hangs or grows.

At a reduced size by default; AOTI_STRESS=10 does ten times as much.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SIZE = int(os.environ.get("AOTI_STRESS", "1"))
PRELUDE = "import sys, threading, numpy as np, aoti\nfrom pathlib import Path\n"


def test_eight_threads_construct_models_at_once(packages, run_python):
    program = f"""{PRELUDE}
rows = np.ones((2, 10), np.float32)
wanted = aoti.load(sys.argv[1])(rows).tolist()
failed = []
def work(barrier):
    barrier.wait()
    try:
        with aoti.load(sys.argv[1]) as model:
            assert model(rows).tolist() == wanted
    except BaseException as error:
        failed.append(error)
for _ in range({50 * SIZE}):
    barrier = threading.Barrier(8)
    threads = [threading.Thread(target=work, args=(barrier,)) for _ in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
assert not failed, failed
"""
    run_python(program, packages / "mlp.pt2")


@pytest.mark.timeout(120)
def test_waiting_threads_survive_failing_calls(packages, run_python):
    # The container's own waiting would hang here: a run that throws wakes nobody.
    program = f"""{PRELUDE}
model = aoti.load(sys.argv[1], num_runners=1)
counts = []
def work():
    good = bad = 0
    for i in range({1000 * SIZE}):
        try:
            assert model(np.array([i % 10 and 3 or 99, 3]))[0, 0] == 12
            good += 1
        except aoti.ExecutionError:
            bad += 1
    counts.append((good, bad))
threads = [threading.Thread(target=work) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert counts == [({900 * SIZE}, {100 * SIZE})] * 4, counts
model.close()
"""
    run_python(program, packages / "stock_lookup.pt2")


def test_closing_under_fire(packages, run_python):
    program = f"""{PRELUDE}
rows = np.ones((2, 10), np.float32)
for _ in range({20 * SIZE}):
    model = aoti.load(sys.argv[1], num_runners=2)
    wanted = model(rows).tolist()
    wrong = []
    def work():
        try:
            while True:
                if model(rows).tolist() != wanted:
                    wrong.append(1)
        except aoti.ModelClosedError:
            pass
        except BaseException as error:
            wrong.append(error)
    threads = [threading.Thread(target=work) for _ in range(4)]
    [thread.start() for thread in threads]
    closers = [threading.Thread(target=model.close) for _ in range(2)]
    [thread.start() for thread in closers]
    [thread.join() for thread in threads + closers]
    assert not wrong, wrong
"""
    run_python(program, packages / "mlp.pt2")


def test_failed_calls_leave_nothing(packages, run_python):
    program = f"""{PRELUDE}
import resource
model = aoti.load(sys.argv[1])
def fail(argument, error):
    try:
        model(argument)
    except error:
        return
    raise AssertionError
large = np.zeros((1024, 1024), np.int64)
def batch(n):
    for _ in range(n):
        fail(large, aoti.InputError)
        fail(np.full(1000, 99), aoti.ExecutionError)
        fail(large[0].astype(np.int32), aoti.InputTypeError)
batch(20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
batch({200 * SIZE})
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
assert grown < 10, f"{{grown}} MB"
model.close()
"""
    run_python(program, packages / "stock_lookup.pt2")


def test_load_and_close_cycles_leave_nothing(packages, run_python):
    program = f"""{PRELUDE}
import os, tempfile
def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
rows = np.ones((2, 10), np.float32)
for cycle in range({200 * SIZE}):
    if cycle == 20:
        before = resident()
    with aoti.load(sys.argv[1]) as model:
        model(rows)
    assert os.listdir(tempfile.gettempdir()) == []
grown = resident() - before
assert grown < 10, f"{{grown}} MB"
maps = Path("/proc/self/maps").read_text()
assert len({{line.split()[-2] for line in maps.splitlines() if "wrapper.so" in line}}) == 1
"""
    run_python(program, packages / "mlp.pt2")


def test_failed_loads_leave_nothing(packages, run_python, tmp_path):
    damaged = tmp_path / "damaged.pt2"
    data = bytearray(Path(packages / "mlp.pt2").read_bytes())
    data[len(data) // 2] ^= 0xFF
    damaged.write_bytes(data)
    program = f"""{PRELUDE}
import os, tempfile
for _ in range({50 * SIZE}):
    for path in sys.argv[1:]:
        try:
            aoti.load(path)
        except aoti.AotiError:
            continue
        raise AssertionError(path)
    assert os.listdir(tempfile.gettempdir()) == []
"""
    run_python(program, damaged, packages / "program.pt2", tmp_path / "none.pt2")
