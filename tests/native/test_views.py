"""Parts of tensors, and tensors with other sizes or of another type over the same memory."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from conformance import COMPLEX, FLOATS, INTEGERS, NUMBERS, NUMPY, Operand, volume

ALL = [*INTEGERS, "bool", *FLOATS, *COMPLEX]


def other_sizes(compare, sizes):
    """Sizes of as many elements: dimensions joined, split, added, and one perhaps left open."""
    found = list(sizes)
    for _ in range(compare.integer(1, 4)):
        at = compare.integer(0, max(len(found) - 1, 0))
        kind = compare.choose("join", "split", "add", "shuffle")
        if kind == "join" and len(found) > 1:
            found[at : at + 2] = [volume(found[at : at + 2])]
        elif kind == "split" and found:
            part = compare.choose(1, 2, 3)
            if found[at] % part == 0:
                found[at : at + 1] = [part, found[at] // part]
        elif kind == "add":
            found.insert(at, 1)
        elif kind == "shuffle" and compare.chance(0.3):
            compare.random.shuffle(found)
    if found and compare.chance(0.3):
        found[compare.integer(0, len(found) - 1)] = -1
    elif found and compare.chance(0.1):
        found[compare.integer(0, len(found) - 1)] = compare.choose(-1, -2, 0, 5)
    return found


@pytest.mark.parametrize("dtype", ALL)
def test_reshape(compare, dtype):
    for _ in compare.count(150):
        sizes = compare.sizes(0, 4, 6)
        operand = compare.operand(dtype, sizes)
        compare.check("cpu_reshape", "tv", 1, operand, other_sizes(compare, sizes), fails=True)


@pytest.mark.parametrize("dtype", ["float32", "complex64", "int8"])
def test_slice(compare, dtype):
    for _ in compare.count(300):
        sizes = compare.sizes(0, 4, 6)
        ends = [compare.choose(None, *range(-8, 9), 2**63 - 1, -(2**63)) for _ in range(2)]
        dim, step = compare.integer(-5, 5), compare.choose(1, 1, 2, 3, 7, 0, -1)
        call = compare.operand(dtype, sizes), dim, *ends, step
        compare.check("cpu_slice_Tensor", "tiqqi", 1, *call, fails=True)


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_squeeze(compare, dtype):
    for _ in compare.count(100):
        call = compare.operand(dtype, compare.sizes(0, 4, 3)), compare.integer(-4, 4)
        compare.check("cpu_squeeze_dim", "ti", 1, *call, fails=True)


@pytest.mark.parametrize("dtype", ALL)
def test_other_types(compare, dtype):
    types = {name: NUMBERS[name][0] for name in ALL if name != "bool"}
    for _ in compare.count(75):
        operand = compare.operand(dtype, compare.sizes(0, 4, 6))
        other = compare.choose(*types)
        compare.check("cpu_view_dtype", "tb", 1, operand, types[other], fails=True)


def test_views_share_memory(compare):
    side = compare.ours
    reshape = side.function(
        "cpu_reshape", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p
    )
    operand = Operand.of(np.arange(6, dtype=NUMPY["float32"]).reshape(2, 3))
    handle, made, where = side.handle(operand), ctypes.c_void_p(), ctypes.c_void_p()
    assert reshape(handle, (ctypes.c_int64 * 1)(6), 1, ctypes.byref(made)) == 0
    side.getters[-1](made, ctypes.byref(where))
    assert where.value == operand.address
    side.delete(made)
    side.delete(handle)
