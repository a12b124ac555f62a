"""Tensors that are filled, copied, joined, and seen in another way."""

from __future__ import annotations

import pytest
from conformance import COMPLEX, FLOATS, INTEGERS, volume

NUMBERS = [*INTEGERS, "bool", *FLOATS]
ALL = [*NUMBERS, *COMPLEX]


@pytest.mark.parametrize("dtype", [*ALL, "uint16", "uint32", "uint64"])
def test_copy(compare, dtype):
    for _ in compare.count(150):
        sizes = compare.sizes(0, 4, 6)
        source = compare.choose(dtype, *ALL)
        own = [1 if compare.chance(0.15) else size for size in sizes]
        own = own[compare.integer(0, len(own)) if compare.chance(0.2) else 0 :]
        # What an integer becomes that does not hold the number, nobody defines.
        kind = "special" if source == dtype or (dtype in FLOATS and source in FLOATS) else "plain"
        if dtype in ("uint8", "uint16", "uint32", "uint64") and source not in INTEGERS:
            source = "bool"
        call = compare.output(dtype, sizes), compare.operand(source, own, kind), 0
        compare.check("copy_", "mtb", 0, *call)


@pytest.mark.parametrize("dtype", ALL)
def test_fill(compare, dtype):
    for _ in compare.count(50):
        operand = compare.output(dtype, compare.sizes(0, 4, 6))
        compare.check("zero_", "m", 0, operand)
        value = compare.choose(0.0, 1.0, 2.7, -3.2, 300.0, 1e30, float("nan"))
        if dtype == "float16" and volume(operand.sizes) == 1:
            value = 1.5  # libtorch does not check a single float16
        compare.check("cpu_fill__Scalar", "md", 0, operand, value, fails=True)


@pytest.mark.parametrize("dtype", ALL)
def test_cat(compare, dtype):
    for _ in compare.count(100):
        sizes = compare.sizes(1, 4, 4)
        dim = compare.integer(0, len(sizes) - 1)
        operands = []
        for _ in range(compare.integer(1, 4)):
            own = list(sizes)
            own[dim] = compare.integer(0, 4)
            other = compare.choose(dtype, dtype, dtype, *ALL)
            if {other, dtype} in ({"float16", "complex64"}, {"float16", "complex128"}):
                other = dtype
            if compare.chance(0.1):
                own = [0]
            operands.append(compare.operand(other, own))
        if "float16" in {operand.dtype for operand in operands} and any(
            operand.dtype in COMPLEX for operand in operands
        ):
            continue
        given = dim - len(sizes) if compare.chance(0.3) else dim
        compare.check("cpu_cat", "li", 1, operands, given, fails=True)


def test_cat_of_channels_last(compare):
    for _ in compare.count(100):
        operands = []
        sizes = [compare.integer(1, 3) for _ in range(4)]
        for _ in range(2):
            _, c, h, w = sizes
            last = compare.chance(0.8)
            strides = [h * w * c, 1, w * c, c] if last else [c * h * w, h * w, w, 1]
            operands.append(compare.operand("float32", sizes, strides=strides))
        compare.check("cpu_cat", "li", 1, operands, compare.integer(0, 3))


@pytest.mark.parametrize("dtype", [*FLOATS, *COMPLEX, "int32"])
def test_views(compare, dtype):
    for _ in compare.count(75):
        sizes = compare.sizes(0, 4, 4)
        operand = compare.operand(dtype, sizes)
        dims = list(range(len(sizes)))
        compare.random.shuffle(dims)
        dims = [dim - len(sizes) if compare.chance(0.3) else dim for dim in dims]
        compare.check("cpu_permute", "tv", 1, operand, dims)
        if dtype in COMPLEX:
            compare.check("cpu_view_as_real", "t", 1, operand)
        elif dtype in ("float32", "float64"):
            pairs = compare.operand(dtype, [*sizes, 2])
            compare.check("cpu_view_as_complex", "t", 1, pairs, fails=True)
