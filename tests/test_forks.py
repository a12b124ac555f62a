"""Child processes: forked in every state, by os.fork and by multiprocessing."""

from __future__ import annotations

import subprocess

import pytest

pytestmark = pytest.mark.timeout(120)

PRELUDE = """
import os, signal, sys, threading, time, warnings, numpy as np, aoti
warnings.simplefilter("ignore")  # Python 3.12 warns of forks where there are threads
x = np.full((1000, 1000), 1e-3, np.float32)
rows = np.ones((2, 10), np.float32)

def say(*words):  # in one piece, beside other processes
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def fork(work):
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        try:
            work()
        except BaseException as error:
            say(type(error).__name__, error)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


@pytest.fixture
def run(run_python, packages):
    def run(program, *, name="slow", **env):
        return run_python(PRELUDE + program, packages / f"{name}.pt2", **env)

    return run


def test_a_child_can_use_an_idle_model_and_load_others(run):
    run("""
model = aoti.load(sys.argv[1], num_runners=2)
wanted = model(x).tolist()
model.submit(x).result()
def work():
    assert model(x).tolist() == wanted
    assert model.submit(x).result().tolist() == wanted
    with aoti.load(sys.argv[1]) as other:
        assert other(x).tolist() == wanted
    threads = [threading.Thread(target=model, args=(x,)) for _ in range(3)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert fork(lambda: model(x)) == 0  # and so on
    model.close()
for _ in range(3):
    assert fork(work) == 0
    assert model(x).tolist() == wanted
    assert model.submit(x).result().tolist() == wanted
""")


def test_a_child_can_load_where_the_parent_never_ran(run):
    run("""
assert fork(lambda: aoti.load(sys.argv[1])(x)) == 0
model = aoti.load(sys.argv[1])
assert fork(lambda: model(x)) == 0
""")


def test_a_child_can_end_by_an_exit(run):
    run("""
model = aoti.load(sys.argv[1])
futures = [model.submit(x) for _ in range(3)]
child = os.fork()
if child == 0:
    signal.alarm(30)
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert len([future.result() for future in futures]) == 3
""")


def test_after_a_fork_in_the_middle_of_a_run_nothing_runs_in_the_child(run):
    said = run("""
model = aoti.load(sys.argv[1], intra_op_threads=1)
idle = aoti.load(sys.argv[1])
future = model.submit(x)
def closing():
    model.close()
    model.close()
    idle.close()
    for name in ("model", "idle"):
        del globals()[name]
works = [
    lambda: model(x),
    lambda: model.submit(x).result(),
    lambda: idle(x),
    lambda: aoti.load(sys.argv[1])(x),
    lambda: fork(lambda: idle(x)) and sys.exit("so on"),
    closing,
]
while not future.running():
    pass
time.sleep(0.05)
children = []
for work in works:
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        try:
            work()
        except BaseException as error:
            say(error)
            os._exit(1)
        os._exit(0)
    children.append(child)
if future.done():
    say("too slow")
assert future.result().shape == (1000, 1000)
codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
assert codes == [1, 1, 1, 1, 1, 0], codes
assert fork(lambda: model(x)) == 0
""")
    assert set(said.splitlines()) == {
        "so on",
        "this process was forked while a model ran in another thread, and the locks of that thread "
        "are never released here: no model can run in this process; start processes by spawn or "
        "forkserver, or fork when nothing runs",
        "ExecutionError this process was forked while a model ran in another thread, and the locks "
        "of that thread are never released here: no model can run in this process; start processes "
        "by spawn or forkserver, or fork when nothing runs",
    }


def test_forks_while_other_threads_call_load_wait_and_close(run):
    run(
        """
model = aoti.load(sys.argv[1])
wanted = model(rows).tolist()
ended = threading.Event()
failed = []
def guarded(work):
    try:
        while not ended.is_set():
            work()
    except BaseException as error:
        failed.append(error)
def call():
    assert model(rows).tolist() == wanted
def submit():
    assert [f.result().tolist() for f in [model.submit(rows) for _ in range(9)]] == [wanted] * 9
def load():
    with aoti.load(sys.argv[1]) as other:
        assert other.submit(rows).result().tolist() == wanted
threads = [threading.Thread(target=guarded, args=(work,)) for work in (call, call, submit, load)]
[thread.start() for thread in threads]
def work():  # all but a run, which may really wait for a lock forever
    aoti.load(sys.argv[1]).close()
    model.close()
    try:
        model.submit(rows)
    except aoti.ModelClosedError:
        return
for _ in range(60):
    assert fork(work) == 0
ended.set()
[thread.join() for thread in threads]
assert not failed, failed
""",
        name="mlp",
    )


def test_a_fork_waits_for_a_load(run):
    run(
        """
def load():
    for _ in range(30):
        aoti.load(sys.argv[1]).close()
aoti.load(sys.argv[1]).close()
def work():
    with aoti.load(sys.argv[1], cache=False) as model:
        model(rows)
thread = threading.Thread(target=load)
thread.start()
while thread.is_alive():
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        from aoti.engine import libtorch
        assert libtorch.has_operator("aten::add", "Tensor")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
""",
        name="mlp",
    )


@pytest.fixture(scope="session")
def old_openmp(tmp_path_factory):
    """A library that makes OpenMP one that cannot let go of its threads."""
    directory = tmp_path_factory.mktemp("old_openmp")
    source = directory / "old.c"
    source.write_text("int omp_pause_resource_all(int kind) { return -1; }")
    library = directory / "old.so"
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", library], check=True)
    return str(library)


def test_where_openmp_cannot_be_forked_a_run_in_the_child_says_so(run, old_openmp):
    said = run(
        """
model = aoti.load(sys.argv[1])
assert fork(lambda: model(x)) == 0  # nothing has run yet
model(x)
def in_thread():
    thread = threading.Thread(target=model, args=(x,))
    thread.start()
    thread.join()
    model.submit(x).result()
assert fork(lambda: model(x)) == 1
assert fork(lambda: aoti.load(sys.argv[1])(x)) == 1
assert fork(in_thread) == 0
model(x)
""",
        LD_PRELOAD=old_openmp,
    )
    assert set(said.splitlines()) == {
        "ExecutionError this process was forked after a model had run, and this OpenMP cannot "
        "start its threads anew: start processes by spawn or forkserver, or run the model in a "
        "thread that is started after the fork"
    }


MULTIPROCESSING = """
import sys, multiprocessing, warnings, numpy as np, aoti
warnings.simplefilter("ignore")

def work(model, queue):
    queue.put(model(np.full((1000, 1000), 1e-3, np.float32)).sum())

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    model = aoti.load(sys.argv[2])
    wanted = model(np.full((1000, 1000), 1e-3, np.float32)).sum()
    queue = context.SimpleQueue()
    processes = [context.Process(target=work, args=(model, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    assert [queue.get() for _ in processes] == [wanted] * 2
    for process in processes:
        process.join()
        assert process.exitcode == 0
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing_passes_models_on(packages, tmp_path, run_python, method):
    program = tmp_path / "program.py"
    program.write_text(MULTIPROCESSING)
    launch = "import runpy, sys; sys.argv[:] = sys.argv[1:]; "
    launch += "runpy.run_path(sys.argv[0], run_name='__main__')"
    run_python(launch, program, method, packages / "slow.pt2")
