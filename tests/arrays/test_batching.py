"""Which calls can be joined, and that results come apart again."""

from __future__ import annotations

import numpy as np
import pytest

import aoti
from aoti.arrays.batching import Batches
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
        ([(N, 3), (3,)], [(N,)]),  # an input without it
        ([(N, 3)], [()]),  # an output without it
        ([(N, 3)], [None]),  # an output of which nothing is known
        ([(N, N)], [(N,)]),  # rows count twice
        ([(N, 3)], [(N, Dim("n + 1"))]),
        ([(Dim("2*n"), 3)], [(Dim("2*n"),)]),
        ([(N, 3), (Dim("m"), 3)], [(N,)]),
        ([], []),
    ],
)
def test_other_calls_are_not_joined(inputs, outputs):
    assert Batches.of(signature(inputs, outputs)) is None


def test_a_model_that_tells_nothing_is_not_joined(packages):
    for name in ("stock", "inplace", "derived"):
        with aoti.Package(packages / f"{name}.pt2") as package:
            assert Batches.of(package.signature()) is None, name


def test_results_come_apart_as_calls_were_joined():
    batches = Batches(2, 64)
    calls = [[np.full((rows, 2), rows), np.full(rows, rows)] for rows in (2, 3, 5)]
    assert len({batches.key(call) for call in calls}) == 1
    joined = batches.join(calls)
    assert [array.shape for array in joined] == [(10, 2), (10,)]
    for (part,), call in zip(batches.split([joined[0] * 2], calls), calls, strict=True):
        assert np.array_equal(part, call[0] * 2)


def test_what_differs_beside_the_rows_is_not_joined():
    key = Batches(2, 64).key
    call = [np.zeros((4, 2)), np.zeros(4)]
    assert key(call) == key([np.zeros((2, 2)), np.zeros(2)])
    assert key(call) != key([np.zeros((4, 3)), np.zeros(4)])
    assert key(call) != key([np.zeros((4, 2), np.int64), np.zeros(4)])
    assert key([np.zeros((4, 2)), np.zeros(3)]) is None
    assert key([np.zeros((1, 2)), np.zeros(1)]) is None  # too few for a call of its own
    assert key([np.zeros(())]) is None
