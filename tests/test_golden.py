"""Comparing outputs with what they should be."""

from __future__ import annotations

import numpy as np
import pytest

from aoti.golden import TOLERANCES, compare

INF, NAN = np.inf, np.nan


def result(got, expected, dtype="float64", **tolerances):
    return compare("y", dtype, np.array(got), np.array(expected), **tolerances)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_what_may_differ_depends_on_the_dtype(dtype):
    rtol, atol = TOLERANCES[dtype]
    assert result([1 + rtol, atol], [1.0, 0.0], dtype).ok
    assert not result([1 + 2 * (rtol + atol), 0.0], [1.0, 0.0], dtype).ok
    assert not result([1.0, 2 * atol], [1.0, 0.0], dtype).ok


def test_tolerances_can_be_chosen():
    assert not result([1.1], [1.0]).ok
    assert result([1.1], [1.0], rtol=0.2).ok
    assert result([1.1], [1.0], atol=0.2).ok


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_what_is_not_finite_must_be_so_in_both(value):
    assert result([value, 1.0], [value, 1.0]).ok
    for got, expected in (([value], [1.0]), ([1.0], [value])):
        compared = result(got, expected)
        assert not compared.ok
        assert (compared.nan, compared.inf) == ((1, 0) if np.isnan(value) else (0, 1))


def test_infinities_of_two_signs_differ():
    compared = result([INF], [-INF])
    assert (compared.ok, compared.inf) == (False, 1)


def test_integers_and_truth_must_be_equal():
    assert result([1, 2], [1, 2], "int64").ok
    compared = result([1, 3], [1, 2], "int64")
    assert "1 of 2 elements differ, the first at [1]: 3, expected 2" in compared.reason
    assert compared.max_error == 1
    assert not result([True], [False], "bool").ok


def test_the_worst_difference_is_told():
    compared = result([1.0, 2.5, -4.0], [1.0, 2.0, -4.0])
    assert (compared.max_error, compared.max_value) == (0.5, 4.0)


@pytest.mark.parametrize("shape", [(0,), (), (2, 0)])
def test_any_shape_will_do(shape):
    assert result(np.zeros(shape), np.zeros(shape)).ok
    assert "its shape is (1,)" in result([0.0], np.zeros((2, 2))).reason
