"""Elementwise operators, with the dtypes and strides of their results."""

from __future__ import annotations

import pytest
from conformance import COMPLEX, FLOATS, INTEGERS

ALL = [*INTEGERS, "bool", *FLOATS, *COMPLEX]
ROUNDING = {"tolerance": 4, "atol": 1e-6}
EXPONENTS = (0.0, 1.0, 2.0, 3.0, 0.5, -0.5, -1.0, -2.0, 1.5, -3.0, 4.0, 0.25)


def pair(compare, one, other, kind="plain"):
    """Two operands that are broadcast together, often of the same sizes and strides."""
    sizes = compare.sizes(0, 4, 5)
    if compare.chance(0.4):
        strides, offset = compare.layout(sizes, repeats=True)
        both = {"strides": strides, "offset": offset}
        return compare.operand(one, sizes, kind, **both), compare.operand(
            other, sizes, kind, **both
        )
    operands = []
    for dtype in (one, other):
        own = [1 if compare.chance(0.2) else size for size in sizes]
        own = own[compare.integer(0, len(own)) if compare.chance(0.25) else 0 :]
        operands.append(compare.operand(dtype, own, kind))
    return operands


@pytest.mark.parametrize("dtype", ALL)
def test_sums_and_products(compare, dtype):
    for _ in compare.count(150):
        other = compare.choose(dtype, dtype, *ALL)
        if "float16" in (dtype, other) and {dtype, other} & {*COMPLEX}:
            other = dtype  # of complex numbers of float16 there is nothing
        operands = pair(compare, dtype, other)
        alpha = 1.0
        if dtype in FLOATS and other in FLOATS:
            alpha = compare.choose(1.0, 2.0, -0.5)
        whole = alpha == 1.0 and {dtype, other} <= {*INTEGERS, "bool"}
        # libtorch refuses an alpha of float, which is the only one, for integers.
        if not whole:
            compare.check("cpu_add_Tensor", "ttd", 1, *operands, alpha, **ROUNDING)
        compare.check("cpu_mul_Tensor", "tt", 1, *operands, **ROUNDING)
        compare.check("cpu_mul_Scalar", "td", 1, operands[0], compare.choose(2.0, -0.3), **ROUNDING)


@pytest.mark.parametrize("dtype", [*FLOATS, *COMPLEX])
def test_special_values(compare, dtype):
    for _ in compare.count(75):
        one, other = pair(compare, dtype, dtype, "special")
        if dtype in FLOATS:
            compare.check("cpu_add_Tensor", "ttd", 1, one, other, 1.0)
            compare.check("cpu_mul_Tensor", "tt", 1, one, other)
            compare.check("cpu_pow_Tensor_Tensor", "tt", 1, one, other, **ROUNDING)
            for exponent in EXPONENTS:
                compare.check("cpu_pow_Tensor_Scalar", "td", 1, one, exponent, **ROUNDING)
        compare.check("cpu_abs", "t", 1, one, tolerance=4)


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS])
def test_powers(compare, dtype):
    for _ in compare.count(100):
        other = compare.choose(dtype, dtype, *INTEGERS, *FLOATS)
        one, exponent = pair(compare, dtype, other, "few")
        compare.check("cpu_pow_Tensor_Tensor", "tt", 1, one, exponent, **ROUNDING)
        compare.check("cpu_pow_Tensor_Scalar", "td", 1, one, compare.choose(*EXPONENTS), **ROUNDING)
        base = compare.choose(1.0, 2.0, 0.5)
        compare.check("cpu_pow_Scalar", "dt", 1, base, exponent, **ROUNDING)


@pytest.mark.parametrize("dtype", COMPLEX)
def test_powers_of_complex_numbers(compare, dtype):
    for _ in compare.count(50):
        one = compare.operand(dtype, compare.sizes(0, 4, 5))
        rounding = {"tolerance": 1e3, "atol": 1e-4}
        compare.check("cpu_pow_Tensor_Scalar", "td", 1, one, compare.choose(2.0, 3.0), **rounding)
        compare.check("cpu_pow_Tensor_Scalar", "td", 1, one, 0.5, **rounding)


@pytest.mark.parametrize("dtype", [*INTEGERS, *FLOATS, *COMPLEX])
def test_abs(compare, dtype):
    for _ in compare.count(75):
        operand = compare.operand(dtype, compare.sizes(0, 5, 5), "few")
        compare.check("cpu_abs", "t", 1, operand, tolerance=2)


@pytest.mark.parametrize("dtype", FLOATS)
def test_histc(compare, dtype):
    for _ in compare.count(75):
        # No more elements than libtorch counts on one thread, and float16 counts exactly.
        operand = compare.operand(dtype, compare.sizes(0, 2, 14))
        low, high = compare.choose((0.0, 0.0), (-1.0, 2.0), (-3.0, 3.0), (1.0, 1.0))
        bins = compare.integer(1, 12)
        compare.check("cpu_histc", "tidd", 1, operand, bins, low, high, fails=True)
