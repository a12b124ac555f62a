"""Which calls can be joined, and that results come apart again."""

from __future__ import annotations

import numpy as np
import pytest

import aoti
from aoti.arrays.batching import Batches, Rows, differ, same
from aoti.signature.signature import Signature
from aoti.signature.spec import Dim, TensorSpec

N = Dim("n", 2, 64)


def signature(inputs, outputs):
    def specs(shapes):
        return tuple(TensorSpec(f"t{i}", "float32", shape) for i, shape in enumerate(shapes))

    return Signature(arguments=specs(inputs), results=specs(outputs), ranges={"n": (2, 64)})


def test_a_free_first_dimension_of_all_joins_calls():
    batches = Batches.of(signature([(N, 3), (N,)], [(N, Dim("k"))]))
    assert (batches.min_rows, batches.max_rows) == (2, 64)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([(4, 3)], [(4,)]),  # fixed
        ([(N, 3)], [()]),  # an output without it
        ([(N, 3)], [None]),  # an output of which nothing is known
        ([(N, N)], [(N,)]),  # rows count twice
        ([(N, 3)], [(N, Dim("n + 1"))]),
        ([(Dim("n + 1"), 3)], [(N,)]),
        ([(3, N)], [(N,)]),  # not the first one everywhere
        ([(3,)], [(N,)]),
        ([], []),
    ],
)
def test_other_calls_are_not_joined(inputs, outputs):
    assert Batches.of(signature(inputs, outputs)) is None


def test_inputs_may_have_no_rows_or_several_elements_for_each():
    batches = Batches.of(signature([(N, 3), (3,), (Dim("2*n"), Dim("m"))], [(N,)]))
    assert batches.inputs == (Rows(0), None, Rows(0, 2))
    assert batches.outputs == (Rows(0),)


def test_all_dimensions_that_could_hold_the_rows_are_found():
    found = Batches.all_of(signature([(Dim("t"), N, 3), (1, N)], [(Dim("t"), N), (N, Dim("t"))]))
    assert [batches.dim for batches in found] == ["t", "n"]
    assert found[1].inputs == (Rows(1), Rows(1))
    assert found[1].outputs == (Rows(1), Rows(0))


def test_sizes_in_guards_and_in_the_values_of_indices_are_not_rows():
    index = TensorSpec("i", "int64", (N,), values=(0, Dim("n - 1")))
    out = TensorSpec("o", "float32", (N,))
    assert Batches.of(Signature(arguments=(index,), results=(out,))) is None
    plain = TensorSpec("i", "int64", (N,))
    assert Batches.of(Signature(arguments=(plain,), results=(out,))) is not None
    guarded = Signature(arguments=(plain,), results=(out,), guards=("n % 2 == 0",))
    assert Batches.of(guarded) is None
    for guard, free in (("n >= 2", True), ("n % 2 == 0", False), ("n < m", False)):
        ranges = {"n": (2, 64), "m": (1, 9)}
        guarded = Signature(arguments=(plain,), results=(out,), guards=(guard,), ranges=ranges)
        assert (Batches.of(guarded) is not None) == free, guard


def test_a_model_that_tells_nothing_is_not_joined(packages):
    for name in ("stock", "inplace", "derived"):
        with aoti.Package(packages / f"{name}.pt2") as package:
            assert Batches.of(package.signature()) is None, name


PAIR = Batches("n", (Rows(), Rows()), (Rows(),), 2, 64)


def test_results_come_apart_as_calls_were_joined():
    calls = [[np.full((rows, 2), rows), np.full(rows, rows)] for rows in (2, 3, 5)]
    assert len({PAIR.key(call) for call in calls}) == 1
    assert [PAIR.rows(call) for call in calls] == [2, 3, 5]
    joined = PAIR.join(calls)
    assert [array.shape for array in joined] == [(10, 2), (10,)]
    for (part,), call in zip(PAIR.split([joined[0] * 2], [2, 3, 5]), calls, strict=True):
        assert np.array_equal(part, call[0] * 2)


def test_rows_are_joined_and_cut_wherever_they_are():
    inputs = (Rows(1), None, Rows(0, 2))
    batches = Batches("n", inputs, (Rows(1), Rows(0, 2)))
    fixed = np.arange(3.0)
    calls = [[np.full((4, n), n), fixed, np.full((2 * n, 3), n)] for n in (1, 2, 3)]
    assert len({batches.key(call) for call in calls}) == 1
    joined = batches.join(calls)
    assert [array.shape for array in joined] == [(4, 6), (3,), (12, 3)]
    for parts, call in zip(batches.split([joined[0], joined[2]], [1, 2, 3]), calls, strict=True):
        assert np.array_equal(parts[0], call[0])
        assert np.array_equal(parts[1], call[2])


def test_a_part_is_a_view_where_no_other_part_shares_its_memory():
    output = np.arange(12.0).reshape(4, 3)
    assert np.shares_memory(Rows().cut(output, 1, 3), output)
    assert np.shares_memory(Rows().cut(output[:, 0], 1, 3), output)
    across = Rows(1).cut(output, 1, 3)
    assert not np.shares_memory(across, output)
    assert across.tolist() == output[:, 1:3].tolist()
    shared = np.broadcast_to(output[0], (4, 3))
    part = Rows().cut(shared, 1, 3)
    part[0] = -1
    assert part[1].tolist() == output[0].tolist() == [0, 1, 2]
    assert not np.shares_memory(Rows().cut(np.asfortranarray(output), 1, 3), output)


def test_what_differs_beside_the_rows_is_not_joined():
    key = PAIR.key
    call = [np.zeros((4, 2)), np.zeros(4)]
    assert key(call) == key([np.zeros((2, 2)), np.zeros(2)])
    assert key(call) != key([np.zeros((4, 3)), np.zeros(4)])
    assert key(call) != key([np.zeros((4, 2), np.int64), np.zeros(4)])
    assert key([np.zeros((4, 2)), np.zeros(3)]) is None
    assert key([np.zeros((1, 2)), np.zeros(1)]) is None  # too few for a call of its own
    assert key([np.zeros(()), np.zeros(4)]) is None
    assert key([np.zeros((4, 2))]) is None


def test_inputs_without_rows_must_be_the_same():
    key = Batches("n", (Rows(), None), (Rows(),)).key
    x, one = np.zeros((4, 2)), np.ones(3)
    assert key([x, one]) == key([x[:2], one.copy()])
    assert key([x, one]) != key([x, one * 2])
    assert key([x, one]) != key([x, one[:2]])


def test_results_are_compared_but_for_rounding():
    x = np.arange(6, dtype=np.float32)
    assert same(x, x * np.float32(1 + 1e-5))
    assert not same(x, x * np.float32(1.01))
    assert not same(x, x[:5])
    assert not same(np.arange(6), np.arange(6) + (np.arange(6) == 3))
    assert same(np.full(2, np.nan), np.full(2, np.nan))
    assert not differ([x], [x.copy()])
    assert differ([x], [x + 1])
    assert differ([x], [x[:5]])
