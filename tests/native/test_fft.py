"""Fourier transforms."""

from __future__ import annotations

import pytest
from conformance import volume


def dims_of(compare, sizes):
    dims = list(range(len(sizes)))
    compare.random.shuffle(dims)
    return dims[: compare.integer(1, len(dims))]


def sizes_of(compare):
    sizes = [compare.integer(1, 9) for _ in range(compare.integer(1, 4))]
    if compare.chance(0.3):
        sizes[compare.integer(0, len(sizes) - 1)] = compare.choose(16, 31, 60, 64, 97)
    return sizes


def bound(dtype, sizes, dims):
    epsilon = 1e-6 if dtype in ("float32", "complex64") else 1e-14
    return 32 * epsilon * volume([sizes[dim] for dim in dims]) ** 0.5


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_real_ones(compare, dtype):
    for _ in compare.count(150):
        sizes = sizes_of(compare)
        dims = dims_of(compare, sizes)
        call = compare.operand(dtype, sizes), dims, compare.integer(0, 2), compare.integer(0, 1)
        compare.check("cpu__fft_r2c", "tvib", 1, *call, atol=bound(dtype, sizes, dims))


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
def test_complex_ones(compare, dtype):
    for _ in compare.count(150):
        sizes = sizes_of(compare)
        dims = dims_of(compare, sizes)
        call = compare.operand(dtype, sizes), dims, compare.integer(0, 2), compare.integer(0, 1)
        compare.check("cpu__fft_c2c", "tvib", 1, *call, atol=bound(dtype, sizes, dims))
