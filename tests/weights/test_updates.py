"""Weights that are replaced while the model runs."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import aoti

pytestmark = pytest.mark.engines("auto", "libtorch")


def test_versions_and_rollback(model, state, other, rows, right):
    third = {k: v + 1 for k, v in other.items()}
    assert (model.version, model.infer([rows]).version) == (1, 1)
    with pytest.raises(aoti.ConstantError, match="no weights to go back to"):
        model.rollback()
    assert model.update_weights(other) == 2
    assert right(model, other, rows)
    assert model.infer([rows]).version == 2
    assert model.update_weights(third) == 3
    assert model.rollback() == 2
    assert (right(model, other, rows), model.infer([rows]).version) == (True, 2)
    with pytest.raises(aoti.ConstantError, match="no weights to go back to"):
        model.rollback()
    assert model.update_weights(state) == 4
    model.load_constants(other)
    assert model.version == 5
    with pytest.raises(aoti.ConstantError, match="no weights to go back to"):
        model.rollback()
    model.update_weights(third, keep=False)
    with pytest.raises(aoti.ConstantError, match="no weights to go back to"):
        model.rollback()
    assert right(model, third, rows)


def test_a_part_of_the_weights_may_be_replaced(model, state, other, rows, right, equal):
    model.update_weights({"l2.bias": other["l2.bias"]}, full=False)
    assert right(model, {**state, "l2.bias": other["l2.bias"]}, rows)
    model.update_weights({"l1.bias": other["l1.bias"]}, full=False)
    now = {**state, "l2.bias": other["l2.bias"], "l1.bias": other["l1.bias"]}
    assert right(model, now, rows)
    assert equal(model.extract_constants(), now)
    model.rollback()
    now = {**state, "l2.bias": other["l2.bias"]}
    assert right(model, now, rows)
    model.update_weights({"l2.weight": other["l2.weight"]}, full=False)
    assert right(model, {**now, "l2.weight": other["l2.weight"]}, rows)


@pytest.mark.parametrize("name", ["fold", "fold_inside"])
def test_what_is_computed_from_weights_is_computed_anew(weight_packages, name):
    x = np.random.default_rng(0).standard_normal((3, 4), dtype=np.float32)

    def wanted(w):
        return x @ (w["weight"].T * 2 + 1) + w["bias"] + w["offset"] + w["_tensor_constant0"]

    with aoti.load(weight_packages / f"{name}.pt2") as model:
        weights = model.extract_constants()
        assert {c.fqn: c.kind for c in model.constants} == {
            "weight": "parameter", "bias": "parameter", "offset": "buffer",
            "_tensor_constant0": "constant",
        }  # fmt: skip
        for number in range(2, 6):
            assert np.allclose(model(x), wanted(weights))
            weights = {k: v + number for k, v in weights.items()}
            model.update_weights(weights)
            assert np.allclose(model(x), wanted(weights))
            # What is no parameter may be left out.
            weights |= {"weight": weights["weight"] * 2, "bias": weights["bias"] - 1}
            model.update_weights({k: weights[k] for k in ("weight", "bias")})
        assert np.allclose(model(x), wanted(weights))


def test_a_bound_call_sees_new_weights(model, other, rows, right):
    bound = model.bind(rows)
    bound()
    model.update_weights(other)
    assert right(model, other, rows, bound)


def test_a_closed_model_takes_no_weights(weight_packages, state):
    model = aoti.load(weight_packages / "blob.pt2")
    model.close()
    for call in (lambda: model.load_constants(state), lambda: model.update_weights(state),
                 model.rollback, model.extract_constants):  # fmt: skip
        with pytest.raises(aoti.ModelClosedError):
            call()


def test_an_array_that_calls_back_meets_a_lock_of_its_own(model, state):
    """What is given is looked at before anything is locked by the core."""
    other = aoti.load(model.path)

    class Nosy(np.ndarray):
        def __array_finalize__(self, _):
            if other.version == 1:
                other.load_constants(state)

    model.load_constants({**state, "l2.bias": state["l2.bias"].view(Nosy)})
    other.close()


@pytest.fixture
def quick_switches():
    """Threads get the GIL more often, so that busy ones leave some of it to the others."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.parametrize("name", ["same", "same_inside"])
@pytest.mark.parametrize("fail", [False, True])
def test_swaps_under_traffic(weight_packages, name, fail, quick_switches):
    """Every answer belongs to exactly one set of weights, and its version says which."""
    swaps, threads = 1000, 8
    x = np.ones(64, np.float32)
    sets = [{"first": x * n, "second": x * n} for n in (3, 5)]
    wrong, versions = [], {1: 1.0}
    done = threading.Event()

    def work():
        while not done.is_set():
            result = model.infer([x])
            values = {float(v) for out in result.outputs for v in (out.min(), out.max())}
            if len(values) != 1:
                wrong.append(values)
            seen.add((result.version, values.pop()))

    seen: set[tuple[int, float]] = set()
    with aoti.load(weight_packages / f"{name}.pt2", num_runners=4) as model:
        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        try:
            for n in range(swaps):
                if fail and n % 3 == 2:
                    version = model.version
                    with pytest.raises(aoti.ConstantError):
                        model.update_weights({**sets[n % 2], "second": x[:63]})
                    assert model.version == version
                else:
                    versions[model.version + 1] = float(sets[n % 2]["first"][0])
                    model.update_weights(sets[n % 2])
        finally:
            done.set()
            for worker in workers:
                worker.join()
        assert wrong == []
        assert all(versions[version] == value for version, value in seen)
        assert len(seen) > 10


# In a process of its own: where other tests had large arrays, memory comes in pieces of 2 MiB.
MEMORY_OF_SWAPS = """
import sys, threading
from pathlib import Path
import numpy as np
import aoti

def anonymous():
    text = Path("/proc/self/smaps_rollup").read_text()
    return int(text.partition("\\nAnonymous:")[2].split()[0]) << 10

sys.setswitchinterval(1e-4)
fail, swaps = sys.argv[2] == "True", 1000
x = np.ones(64, np.float32)
sets = [{"first": x * n, "second": x * n} for n in (3, 5)]
done = threading.Event()

def work():
    while not done.is_set():
        model.infer([x])

with aoti.load(sys.argv[1], num_runners=4) as model:
    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for n in range(swaps):
        try:
            second = x[:63] if fail and n % 3 == 2 else sets[n % 2]["second"]
            model.update_weights({**sets[n % 2], "second": second})
        except aoti.ConstantError:
            assert fail
        if n == swaps // 5:
            before = anonymous()
    print(anonymous() - before)
    done.set()
    for worker in workers:
        worker.join()
"""


@pytest.mark.parametrize("name", ["same", "same_inside"])
@pytest.mark.parametrize("fail", [False, True])
def test_swaps_keep_memory_flat(weight_packages, run_python, name, fail):
    assert int(run_python(MEMORY_OF_SWAPS, weight_packages / f"{name}.pt2", fail)) < 4 << 20


def test_updates_take_turns(model, state, rows, quick_switches, right):
    sets = [{k: v + n for k, v in state.items()} for n in range(4)]
    found = []

    def work(weights):
        for _ in range(20):
            found.append(model.update_weights(weights))

    workers = [threading.Thread(target=work, args=(weights,)) for weights in sets]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert model.version == 81
    assert any(right(model, weights, rows) for weights in sets)


def test_a_close_in_the_middle_of_updates(weight_packages, state):
    for _ in range(10):
        model = aoti.load(weight_packages / "blob.pt2")
        file = model.info().weights_file
        closed = []

        def work(model=model, closed=closed):
            try:
                while True:
                    model.update_weights(state)
            except aoti.ModelClosedError:
                closed.append(True)

        workers = [threading.Thread(target=work) for _ in range(2)]
        for worker in workers:
            worker.start()
        model.close()
        for worker in workers:
            worker.join()
        assert closed == [True, True]
        assert str(file) not in Path("/proc/self/maps").read_text()


def test_a_fork_in_the_middle_of_updates(run_python, weight_packages):
    """The child goes on, with updates of its own."""
    program = """
import os, sys, threading, warnings, numpy as np, aoti
warnings.simplefilter("ignore")
model = aoti.load(sys.argv[1], intra_op_threads=1)
state = model.extract_constants()
done = threading.Event()
def work():
    while not done.is_set():
        model.update_weights(state)
thread = threading.Thread(target=work)
thread.start()
codes = []
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        before = model.version
        ok = model.update_weights(state) > before and model.rollback() >= before
        os._exit(0 if ok else 1)
    codes.append(os.waitpid(pid, 0)[1])
done.set()
thread.join()
print(set(codes))
"""
    assert run_python(program, weight_packages / "blob.pt2", check=True) == "{0}\n"


def test_a_change_from_inside_of_a_change_is_an_error_and_leaves_the_weights(model, state, rows):
    class Changing(dict):
        def __getitem__(self, key):
            model.weights.update(state)
            return super().__getitem__(key)

    before, version = model(rows).tolist(), model.weights.version
    with pytest.raises(aoti.ConstantError, match="are being changed already"):
        model.weights.update(Changing(state))
    assert (model(rows).tolist(), model.weights.version) == (before, version)
    model.weights.update(state)
