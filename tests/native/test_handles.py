"""The functions that make, describe and delete handles of tensors."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from conformance import COMPLEX, FLOATS, INTEGERS, NUMBERS, NUMPY, Operand

ALL = [*INTEGERS, "bool", *FLOATS, *COMPLEX]
VALUES = {
    "float32": ctypes.c_float,
    "float64": ctypes.c_double,
    "uint8": ctypes.c_uint8,
    "uint16": ctypes.c_uint16,
    "uint32": ctypes.c_uint32,
    "uint64": ctypes.c_uint64,
    "int8": ctypes.c_int8,
    "int16": ctypes.c_int16,
    "int32": ctypes.c_int32,
    "int64": ctypes.c_int64,
    "bool": ctypes.c_bool,
}


def described(side, handle):
    """All that the getters say of a tensor, but for where its memory is."""
    found = []
    for name, kind in (
        ("get_dim", ctypes.c_int64),
        ("get_numel", ctypes.c_int64),
        ("get_dtype", ctypes.c_int32),
        ("get_device_type", ctypes.c_int32),
        ("get_device_index", ctypes.c_int32),
        ("get_layout", ctypes.c_int32),
        ("get_storage_offset", ctypes.c_int64),
        ("get_storage_numel", ctypes.c_int64),
        ("get_storage_size", ctypes.c_int64),
        ("is_contiguous", ctypes.c_bool),
        ("is_defined", ctypes.c_bool),
    ):
        value = kind()
        function = side.function(name, ctypes.c_void_p, ctypes.c_void_p)
        found.append((name, function(handle, ctypes.byref(value)), value.value))
    for name in ("get_size", "get_stride"):
        function = side.function(name, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
        for dim in range(-found[0][2] - 1, found[0][2] + 1):
            value = ctypes.c_int64(-1)
            code = function(handle, dim, ctypes.byref(value))
            found.append((name, dim, code and 1, value.value))
    return found


def both(compare, operand, use):
    """What `use(side, handle)` gives for the two libraries. A handle is deleted afterwards."""
    results = []
    for side in (compare.theirs, compare.ours):
        handle = side.handle(operand)
        results.append(use(side, handle))
        side.delete(handle)
    compare.cases += 1
    if results[0] != results[1]:
        wrong = [pair for pair in zip(*results, strict=False) if pair[0] != pair[1]]
        compare.deviations.append(f"{operand!r}: libtorch, then ours: {wrong[:3]}")


@pytest.mark.parametrize("dtype", ALL)
def test_getters(compare, dtype):
    for _ in compare.count(40):
        operand = compare.operand(dtype, compare.sizes(0, 7, 3))
        if 0 in operand.sizes:
            operand.offset = 0  # which of the two are in the storage does not matter
        both(compare, operand, described)


@pytest.mark.parametrize("dtype", ALL)
def test_clones(compare, dtype):
    for _ in compare.count(100):
        operand = compare.operand(dtype, compare.sizes(0, 5, 5), "special")
        compare.check("clone", "t", 1, operand)
        compare.check("clone_preserve_strides", "t", 1, operand)


@pytest.mark.parametrize("dtype", ["float32", "int16", "complex128"])
def test_views(compare, dtype):
    for _ in compare.count(75):
        operand = compare.operand(dtype, compare.sizes(0, 4, 5), repeats=False)
        sizes = compare.sizes(0, 3, 3)
        strides = [compare.integer(0, 3) for _ in sizes]
        reach = 1 + sum((size - 1) * step for size, step in zip(sizes, strides, strict=True))
        room = operand.base.size - operand.offset if 0 not in operand.sizes else 0
        further = compare.integer(0, 3)
        if 0 in sizes or reach + further > room:
            continue
        numbers = (ctypes.c_int64 * (2 * len(sizes)))(*sizes, *strides)
        at = ctypes.addressof(numbers)
        rank = len(sizes)
        both_at = (at, at + 8 * len(sizes))

        def reinterpreted(side, handle, rank=rank, at=both_at, further=further, keep=numbers):
            made = ctypes.c_void_p()
            pointer = ctypes.c_void_p
            function = side.function(
                "_reinterpret_tensor",
                *(pointer, ctypes.c_int64, pointer, pointer, ctypes.c_int64, pointer),
            )
            # libtorch's offset is one in the storage, and ours one from the tensor.
            assert function(handle, rank, *at, further, ctypes.byref(made)) == 0
            found = side.result(made), described(side, made)
            side.delete(made)
            return [found[0].dtype, found[0].sizes, found[0].strides, found[0].bytes, found[1]]

        both(compare, operand, reinterpreted)


@pytest.mark.parametrize("dtype", ALL)
def test_empty_strided(compare, dtype):
    for _ in compare.count(25):
        sizes = compare.sizes(0, 7, 3)
        strides, _ = compare.layout(sizes, repeats=True)
        numbers = (ctypes.c_int64 * (2 * len(sizes)))(*sizes, *strides)
        at = ctypes.addressof(numbers)
        results = []
        for side in (compare.theirs, compare.ours):
            made = ctypes.c_void_p()
            pointer, small = ctypes.c_void_p, ctypes.c_int32
            function = side.function(
                "empty_strided",
                *(ctypes.c_int64, pointer, pointer, small, small, small, pointer),
            )
            number = NUMBERS[dtype][0]
            code = function(len(sizes), at, at + 8 * len(sizes), number, 0, 0, ctypes.byref(made))
            assert code == 0
            results.append(described(side, made))
            side.delete(made)
        compare.cases += 1
        if results[0] != results[1]:
            wrong = [pair for pair in zip(*results, strict=True) if pair[0] != pair[1]]
            compare.deviations.append(f"empty_strided({dtype}, {sizes}, {strides}): {wrong[:3]}")


@pytest.mark.parametrize("dtype", [*VALUES, "float16", "bfloat16", "complex64"])
def test_items(compare, dtype):
    same_size = ctypes.c_uint64 if dtype == "complex64" else ctypes.c_uint16
    kind = VALUES.get(dtype, same_size)
    for _ in compare.count(10):
        operand = compare.operand(dtype, [1] * compare.integer(0, 3), "special")

        def item(side, handle):
            value = kind()
            function = side.function(f"item_{dtype}", ctypes.c_void_p, ctypes.c_void_p)
            return [function(handle, ctypes.byref(value)), bytes(value)]

        both(compare, operand, item)


@pytest.mark.parametrize("dtype", VALUES)
def test_scalars(compare, dtype):
    for value in compare.values(dtype, 20, "special"):
        results = []
        for side in (compare.theirs, compare.ours):
            made = ctypes.c_void_p()
            function = side.function(f"scalar_to_tensor_{dtype}", VALUES[dtype], ctypes.c_void_p)
            assert function(value.item(), ctypes.byref(made)) == 0
            found = side.result(made)
            results.append((found.dtype, found.sizes, found.strides, found.bytes))
            side.delete(made)
        assert results[0] == results[1]
        assert results[1][3] == np.array(value, NUMPY[dtype]).tobytes()


def test_items_of_more_than_one(compare):
    operand = Operand.of(np.ones(2, np.float32))

    def item(side, handle):
        function = side.function("item_float32", ctypes.c_void_p, ctypes.c_void_p)
        return [function(handle, ctypes.byref(ctypes.c_float()))]

    both(compare, operand, item)
