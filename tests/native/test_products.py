"""Products of matrices and vectors."""

from __future__ import annotations

import numpy as np
import pytest
from conformance import COMPLEX, FLOATS, INTEGERS

ALL = [*INTEGERS, *FLOATS, *COMPLEX]


def rounding(dtype, k, scale=1.0):
    """Sums come in another order: their errors are those of their terms."""
    if dtype in INTEGERS:
        return {}
    least = {"float16": 2e-2, "bfloat16": 0.15, "float64": 1e-13, "complex128": 1e-13}
    return {"tolerance": 8, "atol": least.get(dtype, 3e-5) * scale * max(k, 1)}


def factors(compare, dtype, limit=9):
    m, n, k = (compare.integer(0 if compare.chance(0.06) else 1, limit) for _ in range(3))
    if dtype in INTEGERS:
        k = max(k, 1)  # without products, libtorch refuses weights of float
    if compare.chance(0.05):
        m, n, k = compare.integer(30, 70), compare.integer(30, 70), compare.integer(30, 300)
    return m, n, k


def broadcast(compare, dtype, sizes):
    own = [1 if compare.chance(0.25) else size for size in sizes]
    return compare.operand(dtype, own[compare.integer(0, len(own)) if compare.chance(0.4) else 0 :])


def weights_of(compare, dtype):
    """beta and alpha. Integers get whole ones."""
    if dtype in INTEGERS:
        return float(compare.integer(0, 3)), float(compare.integer(0, 3))
    beta, alpha = compare.choose(0.0, 1.0, 0.5, -2.0), compare.choose(1.0, 1.0, 0.5, 0.0, -1.5)
    # Where the CPU has instructions for 16 bits, libtorch ignores beta if alpha is 0, or makes
    # uninitialised vectors.
    return (1.0 if dtype in ("bfloat16", "float16") and alpha == 0 else beta), alpha


@pytest.mark.parametrize("dtype", ALL)
def test_matrices(compare, dtype):
    for _ in compare.count(125):
        m, n, k = factors(compare, dtype)
        one, other = compare.operand(dtype, (m, k)), compare.operand(dtype, (k, n))
        out = compare.output(dtype, (m, n))
        bound = rounding(dtype, k)
        compare.check("cpu_mm_out", "mtt", 0, out, one, other, **bound)
        self = broadcast(compare, dtype, (m, n))
        both = weights_of(compare, dtype)
        compare.check(*("cpu_addmm_out", "mtttdd", 0, out, self, one, other, *both), **bound)


@pytest.mark.parametrize("dtype", ALL)
def test_batches(compare, dtype):
    for _ in compare.count(100):
        batch = compare.integer(0 if compare.chance(0.05) else 1, 4)
        m, n, k = factors(compare, dtype, 7)
        one, other = compare.operand(dtype, (batch, m, k)), compare.operand(dtype, (batch, k, n))
        out = compare.output(dtype, (batch, m, n))
        bound = rounding(dtype, k)
        compare.check("cpu_bmm_out", "mtt", 0, out, one, other, **bound)
        self = broadcast(compare, dtype, (batch, m, n))
        both = weights_of(compare, dtype)
        compare.check(*("cpu_baddbmm_out", "mtttdd", 0, out, self, one, other, *both), **bound)


@pytest.mark.parametrize("dtype", [*FLOATS, *COMPLEX])
def test_vectors(compare, dtype):
    for _ in compare.count(100):
        m, _, k = factors(compare, dtype, 12)
        m, k = max(m, 1), max(k, 1)  # else libtorch's result has the sizes of `self`
        matrix, vector = compare.operand(dtype, (m, k)), compare.operand(dtype, (k,))
        self = broadcast(compare, dtype, (m,))
        call = (self, matrix, vector, *weights_of(compare, dtype))
        compare.check("cpu_addmv", "tttdd", 1, *call, **rounding(dtype, k))


def test_what_is_not_read(compare):
    """With a beta of 0, not a number in `self` stays there."""
    for name, rank in (("cpu_addmm_out", 2), ("cpu_baddbmm_out", 3)):
        for dtype in ("float32", "float64", "bfloat16"):
            one = compare.operand(dtype, (3, 4, 4)[3 - rank :])
            self = compare.operand(dtype, one.sizes)
            self.array()[...] = 0x7FC0 if dtype == "bfloat16" else np.nan
            out = compare.output(dtype, one.sizes)
            call = (out, self, one, one, 0.0, 1.0)
            compare.check(name, "mtttdd", 0, *call, **rounding(dtype, 4))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_bytes(compare, dtype):
    for _ in compare.count(100):
        # Where the CPU has AVX-512, libtorch reads beside operands whose strides are both 1, or 0.
        most = 20 if compare.chance(0.9) else 200
        m, n, k = (compare.integer(2, most) for _ in range(3))
        one = compare.operand(dtype, (m, k), "special", repeats=False)
        other = compare.operand("int8", (k, n), "special", repeats=False)
        out = compare.output("int32", (m, n), strides=(n, 1))  # libtorch takes no other
        compare.check("cpu__int_mm_out", "mtt", 0, out, one, other)


def test_refused(compare):
    one, out = compare.operand("float32", (3, 4)), compare.output("float32", (3, 3))
    for other in ((3, 3), (4, 2)):
        wrong = compare.operand("float32", other)
        compare.check("cpu_addmm_out", "mtttdd", 0, out, out, one, wrong, 1.0, 1.0, fails=True)
    other = compare.operand("float64", (4, 3))
    compare.check("cpu_mm_out", "mtt", 0, out, one, other, fails=True)
