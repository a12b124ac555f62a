"""Sorted elements, and the greatest or least of them."""

from __future__ import annotations

import pytest
from conformance import FLOATS, INTEGERS

KINDS = ("plain", "special", "few")


def operand_and_dim(compare, dtype, limit=7):
    sizes = compare.sizes(0, 4, limit)
    kind = compare.choose(*KINDS)
    dim = compare.integer(-max(len(sizes), 1), max(len(sizes), 1) - 1)
    return compare.operand(dtype, sizes, kind), dim


@pytest.mark.parametrize("dtype", [*INTEGERS, "bool", "uint16", "uint32", "uint64", *FLOATS])
def test_sort(compare, dtype):
    for _ in compare.count(150):
        operand, dim = operand_and_dim(compare, dtype)
        descending = compare.integer(0, 1)
        compare.check("cpu_sort_stable", "tnib", 2, operand, "int8", dim, descending)


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
def test_topk(compare, dtype):
    for _ in compare.count(150):
        operand, dim = operand_and_dim(compare, dtype)
        size = operand.sizes[dim] if operand.sizes else 1
        k = compare.integer(0, size)
        flags = compare.integer(0, 1), compare.integer(0, 1)
        compare.check("cpu_topk", "tiibb", 2, operand, k, dim, *flags)


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
def test_kthvalue(compare, dtype):
    for _ in compare.count(100):
        operand, dim = operand_and_dim(compare, dtype)
        size = operand.sizes[dim] if operand.sizes else 1
        k = compare.integer(1, max(size, 1))
        keeps = compare.integer(0, 1)
        compare.check("cpu_kthvalue", "tiib", 2, operand, k, dim, keeps, fails=size == 0)


@pytest.mark.parametrize("sizes", [(70_000,), (40, 1500), (1500, 40)])
def test_long_ones(compare, sizes):
    for dtype in ("float32", "int64", "float64", "bfloat16"):
        for dim in range(len(sizes)):
            operand = compare.operand(dtype, sizes)
            compare.check("cpu_sort_stable", "tnib", 2, operand, "int8", dim, dim)
            for k in (1, 10, 900):
                if k <= sizes[dim]:
                    compare.check("cpu_topk", "tiibb", 2, operand, k, dim, 1 - dim, 1)


def test_refused(compare):
    operand = compare.operand("float32", (3, 4))
    compare.check("cpu_topk", "tiibb", 2, operand, 5, 1, 1, 1, fails=True)
    compare.check("cpu_kthvalue", "tiib", 2, operand, 0, 1, 0, fails=True)
    compare.check("cpu_sort_stable", "tnib", 2, operand, "int8", 2, 0, fails=True)
