"""Running sums, products, minima and maxima."""

from __future__ import annotations

import pytest
from conformance import COMPLEX, FLOATS, INTEGERS

ALL = [*INTEGERS, "bool", *FLOATS]
KINDS = ("plain", "special", "few")


def operand_and_dim(compare, dtype):
    sizes = compare.sizes(0, 4, 7)
    kind = compare.choose(*KINDS)
    dim = compare.integer(-max(len(sizes), 1), max(len(sizes), 1) - 1)
    return compare.operand(dtype, sizes, kind), dim


@pytest.mark.parametrize("dtype", [*ALL, *COMPLEX])
@pytest.mark.parametrize("name", ["cumsum", "cumprod"])
def test_accumulations(compare, name, dtype):
    for _ in compare.count(75):
        operand, dim = operand_and_dim(compare, dtype)
        wanted = None
        if compare.chance(0.3):
            wanted = compare.choose("float32", "float64", "int64", "bfloat16", "int32")
            if dtype not in ("bool", *INTEGERS) and wanted.startswith("int"):
                wanted = "float64"  # what a float that no integer holds becomes, nobody defines
            if dtype in COMPLEX:
                wanted = "complex128"
        name_of = f"cpu_{name}"
        compare.check(name_of, "tin", 1, operand, dim, wanted, tolerance=4, atol=1e-30)


@pytest.mark.parametrize("dtype", ALL)
@pytest.mark.parametrize("name", ["cummin", "cummax"])
def test_extremes(compare, name, dtype):
    for _ in compare.count(75):
        operand, dim = operand_and_dim(compare, dtype)
        compare.check(f"cpu_{name}", "ti", 2, operand, dim)


@pytest.mark.parametrize("dtype", FLOATS)
def test_logcumsumexp(compare, dtype):
    for _ in compare.count(75):
        operand, dim = operand_and_dim(compare, dtype)
        atol = 1e-15 if dtype == "float64" else 1e-6
        compare.check("cpu_logcumsumexp", "ti", 1, operand, dim, tolerance=4, atol=atol)


@pytest.mark.parametrize("sizes", [(300_000,), (64, 3000), (3000, 64), (7, 300, 60)])
def test_long_ones(compare, sizes):
    for dtype in ("float32", "int64"):
        for dim in range(len(sizes)):
            operand = compare.operand(dtype, sizes)
            compare.check("cpu_cumsum", "tin", 1, operand, dim, None, tolerance=4)
            compare.check("cpu_cummax", "ti", 2, operand, dim)
