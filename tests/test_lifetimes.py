"""Whose memory results lie in, and how long models and arrays live."""

from __future__ import annotations

import gc
import sys
import threading
import weakref

import numpy as np
import pytest

import aoti


def test_outputs_own_their_memory(packages, rows):
    with aoti.load(packages / "mlp.pt2") as model:
        out = model(rows)
        kept = out.copy()
        for _ in range(50):
            model(rows * 2)
    del model
    gc.collect()
    assert out.tolist() == kept.tolist()
    out[:] = 7  # and may be written


def test_outputs_that_are_inputs_share_and_keep_them(packages):
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    with aoti.load(packages / "alias.pt2") as model:
        same, turned, more, weight, turned_weight = model(x)
    assert np.shares_memory(same, x)
    assert np.shares_memory(turned, x)
    assert not np.shares_memory(more, x)
    kept = weakref.ref(x)
    del x, same
    gc.collect()
    assert kept() is not None
    assert turned.tolist() == np.arange(12).reshape(3, 4).T.tolist()
    # After close: the weights were copied out.
    assert weight.tolist() == turned_weight.T.tolist() == np.arange(12).reshape(3, 4).tolist()
    del turned
    gc.collect()
    assert kept() is None


def test_inputs_that_outputs_lie_in_are_not_those_of_later_calls(packages):
    arrays = [np.full((3, 4), number, np.float32) for number in range(5)]
    with aoti.load(packages / "alias.pt2") as model:
        bound = model.bind(arrays[0])
        first = bound()
        kept = [model(array)[:2] for array in arrays]
        again = bound()
    for array, (same, turned) in zip(arrays, kept, strict=True):
        assert np.shares_memory(same, array)
        assert same.tolist() == turned.T.tolist() == array.tolist()
    assert first[0].tolist() == again[0].tolist() == arrays[0].tolist()


def test_an_output_over_a_read_only_input_is_read_only(packages):
    x = np.ones((3, 4), np.float32)
    x.flags.writeable = False
    with aoti.load(packages / "alias.pt2") as model:
        out = model(x)
    assert [array.flags.writeable for array in out[:3]] == [False, False, True]


def test_calls_keep_no_reference_to_their_arguments(mlp, rows):
    before = sys.getrefcount(rows)
    out = [mlp(rows) for _ in range(10)]
    with pytest.raises(aoti.InputError):
        mlp(rows[:, :5])
    assert sys.getrefcount(rows) == before
    references = sys.getrefcount(out[0])  # the list's and the argument's
    assert references == 2


def test_a_dropped_model_is_freed_at_once(packages, rows):
    model = aoti.load(packages / "mlp.pt2")
    model(rows)
    loader = weakref.ref(model)
    gc.disable()
    try:
        del model
        assert loader() is None
    finally:
        gc.enable()


def test_a_closed_model_refuses(packages, rows):
    model = aoti.load(packages / "mlp.pt2")
    with model:
        model(rows)
    model.close()
    assert model.closed
    assert repr(model).endswith("closed>")
    for call in (model, lambda x: model.run([x]), lambda x: model.boxed_run([x])):
        with pytest.raises(aoti.ModelClosedError):
            call(rows)
    assert model.constant_fqns
    assert model.metadata


def test_close_waits_for_runs_and_turns_waiting_ones_away(packages):
    model = aoti.load(packages / "slow.pt2", num_runners=1)
    x = np.full((1000, 1000), 1e-3, np.float32)
    started, outcomes = threading.Barrier(4), []

    def work():
        started.wait()
        try:
            outcomes.append(model(x).shape)
        except aoti.ModelClosedError:
            outcomes.append("closed")

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    started.wait()
    while not outcomes:  # one has run; the next one runs, the last one waits
        pass
    model.close()
    for thread in threads:
        thread.join()
    assert (1000, 1000) in outcomes
    assert "closed" in outcomes


def test_the_gil_is_free_during_a_run(packages):
    x = np.full((1000, 1000), 1e-3, np.float32)
    with aoti.load(packages / "slow.pt2") as model:
        runner = threading.Thread(target=model, args=(x,))
        ticks = 0
        runner.start()
        while runner.is_alive():
            ticks += 1
            runner.join(0.001)
    assert ticks > 10
