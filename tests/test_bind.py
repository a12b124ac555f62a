"""`out=` and `bind`: outputs in the caller's arrays, inputs fixed."""

from __future__ import annotations

import gc
import sys
import threading

import numpy as np
import pytest

import aoti

pytestmark = pytest.mark.engines("auto", "libtorch")


def ones(*shape):
    return np.ones(shape, np.float32)


def test_outputs_are_written_where_the_caller_says(more, torch):
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    places = [
        ones(3, 4),
        np.asfortranarray(ones(3, 4)),
        ones(3, 8)[:, ::2],
        torch.ones(3, 4),
        more(x, outputs="dlpack")[1],
    ]
    for place in places:
        same, plus = more(x, out=(None, place))
        assert plus is place
        assert type(same) is np.ndarray
        np.testing.assert_array_equal(np.asarray(place), x + 1)
    out = (ones(3, 4), ones(3, 4))
    for call in (lambda: more(x, out=out), lambda: more.run([x], out=out)):
        assert all(a is b for a, b in zip(call(), out, strict=True))
        np.testing.assert_array_equal(out[0], x)
        out[0][:] = 0


def test_an_output_may_go_where_the_input_is(more):
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    more(x, out=(None, x))
    np.testing.assert_array_equal(x, np.arange(1, 13).reshape(3, 4))


@pytest.mark.parametrize(
    ("place", "error", "message"),
    [
        (ones(3, 5), aoti.InputError, r"out\[1\]: the model gives float32 \(3, 4\), .* \(3, 5\)"),
        (np.ones((3, 4)), aoti.InputError, r"gives float32 \(3, 4\), and the array is float64"),
        (np.broadcast_to(ones(1, 4), (3, 4)), aoti.InputError, "read-only"),
        (ones(3, 4)[::-1], aoti.InputError, "negative or zero"),
        (ones(3, 4).astype(">f4"), aoti.InputTypeError, "native byte order"),
        ([1.0], aoti.InputTypeError, r"out\[1\]: expected one array|numpy arrays"),
    ],
)
def test_what_cannot_be_written_to_is_refused(more, place, error, message):
    first = ones(3, 4) * 7
    with pytest.raises(error, match=message):
        more.run([ones(3, 4)], out=[first, place])
    assert (first == 7).all()
    with pytest.raises(aoti.InputError, match="gives 2 outputs, and out has 1"):
        more.run([ones(3, 4)], out=[first])


def test_out_has_the_structure_of_the_result(more):
    with pytest.raises(aoti.InputError, match="tuple"):
        more(ones(3, 4), out=ones(3, 4))


def test_a_bound_model_runs_on_what_the_arrays_hold(packages, mlp, rows):
    bound = mlp.bind(rows)
    first = bound()
    assert first.tolist() == mlp(rows).tolist()
    rows *= 2
    assert bound().tolist() == mlp(rows).tolist() != first.tolist()
    target = np.empty_like(first)
    bound = mlp.bind(rows, out=target)
    assert bound() is bound() is target
    assert target.tolist() == mlp(rows).tolist()
    assert type(mlp.bind(rows, outputs="dlpack")()) is aoti.Tensor


def test_bound_torch_tensors(more, torch):
    x, target = torch.ones(3, 4), torch.empty(3, 4)
    bound = more.bind(x, out=(None, target))
    same, plus = bound()
    assert plus is target
    assert same.data_ptr() == x.data_ptr()
    x += 1
    assert bound()[1].max() == 3
    x.resize_(30, 40)
    with pytest.raises(aoti.InputError, match="given other memory; bind again"):
        bound()


def test_values_of_bound_inputs_are_checked_at_each_call(packages):
    index = np.array([0, 1])
    with aoti.load(packages / "lookup.pt2") as model:
        bound = model.bind(index)
        assert bound()[1].tolist() == [4, 5, 6, 7]
        index[1] = 9
        with pytest.raises(aoti.InputError, match=r"got 9 at \[1\]"):
            bound()


def test_inputs_that_would_be_copied_cannot_be_bound(mlp, rows, torch):
    for value in (np.asfortranarray(rows), torch.from_numpy(rows).t().contiguous().t()):
        with pytest.raises(aoti.InputError, match="would be copied"):
            mlp.bind(value)
    assert mlp.bind(memoryview(rows))().tolist() == mlp(rows).tolist()
    with pytest.raises(aoti.InputError, match="dimension 1 must be 10"):
        mlp.bind(rows[:, :3])


def test_a_bound_model_keeps_the_model_and_ends_with_it(packages, rows):
    model = aoti.load(packages / "mlp.pt2")
    before = sys.getrefcount(rows)
    bound = model.bind(rows)
    expected = model(rows).tolist()
    model_of = model
    del model
    gc.collect()
    assert bound().tolist() == expected
    model_of.close()
    with pytest.raises(aoti.ModelClosedError):
        bound()
    del bound
    gc.collect()
    assert sys.getrefcount(rows) == before


def test_threads_share_a_bound_model(packages, rows):
    with aoti.load(packages / "mlp.pt2", num_runners=2) as model:
        bound, expected, wrong = model.bind(rows), model(rows).tolist(), []

        def work():
            for _ in range(200):
                if bound().tolist() != expected:
                    wrong.append(1)

        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert wrong == []


def test_a_bound_output_that_was_given_other_memory_is_refused(packages, rows, torch):
    with aoti.load(packages / "mlp.pt2") as model:
        out = torch.empty(len(rows), 1)
        bound = model.bind(rows, out=out)
        assert bound() is out
        np.testing.assert_array_equal(out.numpy(), model(rows))
        out.set_(torch.empty(len(rows), 1))
        with pytest.raises(aoti.InputError, match="given other memory; bind again"):
            bound()


OVERLAPS = {
    "the same array twice": lambda memory: (memory[:3], memory[:3]),
    "rows in common": lambda memory: (memory[:3], memory[2:5]),
    "elements in common": lambda memory: (memory[:6:2], memory[0:9:4]),
}


@pytest.mark.parametrize("name", OVERLAPS)
def test_outputs_that_would_be_written_over_one_another_are_refused(more, name):
    memory = np.zeros((9, 4), np.float32)
    first, second = OVERLAPS[name](memory)
    x = np.ones((3, 4), np.float32)
    for call in (
        lambda: more.run([x], out=[first, second]),
        lambda: more(x, out=(first, second)),
        lambda: more.bind(x, out=(first, second)),
    ):
        with pytest.raises(aoti.InputError, match=r"out\[0\] and out\[1\] share memory"):
            call()
    assert not memory.any()


def test_outputs_may_be_columns_or_alternate_rows_of_one_array(more):
    x = np.ones((3, 4), np.float32)
    memory = np.zeros((3, 8), np.float32)
    more(x, out=(memory[:, :4], memory[:, 4:]))
    assert memory.tolist() == [[1] * 4 + [2] * 4] * 3
    rows = np.zeros((6, 4), np.float32)
    more(x, out=(rows[::2], rows[1::2]))
    assert rows.tolist() == [[1] * 4, [2] * 4] * 3
    empty = np.zeros((0, 4), np.float32)
    more(empty, out=(empty, empty))
