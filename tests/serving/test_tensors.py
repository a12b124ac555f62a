"""Tensors of the protocol as arrays, and what contradicts itself. Needs no server."""

from __future__ import annotations

import numpy as np
import pytest

import aoti
from aoti.serving.tensors import datatype_of, decoded, described, numbers
from aoti.signature.dtypes import DTYPES
from aoti.signature.spec import Dim, TensorSpec

KNOWN = {
    "bool": "BOOL", "int8": "INT8", "uint64": "UINT64", "float16": "FP16", "bfloat16": "BF16",
    "float32": "FP32", "float64": "FP64",
}  # fmt: skip


def test_every_datatype_has_its_name():
    for dtype, datatype in KNOWN.items():
        assert datatype_of(dtype) == datatype
    assert {dtype for dtype in DTYPES if datatype_of(dtype) is None} == {
        *(dtype for dtype in DTYPES if dtype.startswith(("complex", "float8"))),
    }


def test_sizes_that_may_change_are_minus_one():
    spec = TensorSpec("x", "bfloat16", (Dim("batch"), 3))
    assert described([spec]) == [{"name": "x", "datatype": "BF16", "shape": [-1, 3]}]
    for spec, message in (
        (TensorSpec("x", "complex64", (3,)), "no datatype for complex64"),
        (TensorSpec("x", None, (3,)), "does not describe x"),
    ):
        with pytest.raises(aoti.ConfigError, match=message):
            described([spec])


@pytest.mark.parametrize("dtype", KNOWN)
def test_bytes_are_shared_and_numbers_come_back(dtype):
    pytest.importorskip("ml_dtypes")
    from aoti.signature.dtypes import numpy_dtype

    array = np.array([[1, 0, 1]]).astype(numpy_dtype(dtype))
    raw = array.tobytes()
    read = decoded("x", KNOWN[dtype], [1, 3], None, raw)
    assert (read.dtype, read.shape) == (array.dtype, (1, 3))
    assert np.shares_memory(read, np.frombuffer(raw, np.uint8))
    data = numbers(array)
    assert decoded("x", KNOWN[dtype], [1, 3], data, None).tolist() == array.tolist()


def test_numbers_may_be_nested_and_empty():
    assert decoded("x", "FP32", [2, 1], [[1], [2.5]], None).tolist() == [[1], [2.5]]
    assert decoded("x", "INT64", [0, 4], [], None).shape == (0, 4)
    assert decoded("x", "UINT64", [1], [2**64 - 1], None).tolist() == [2**64 - 1]


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "raw", "message"),
    [
        ("FP32", [2], [1.0], None, r"the shape \[2\] has 2 elements, and the data has 1"),
        ("FP32", [-1], [1.0], None, "negative size"),
        ("FP32", [1], None, b"\0" * 5, "5 bytes are not a whole number of FP32"),
        ("FP32", [1], None, b"\0" * 8, "has 1 elements, and the data has 2"),
        ("INT8", [1], [200], None, "out of the range of INT8"),
        ("INT64", [1], [1.5], None, "the data is not INT64"),
        ("BOOL", [1], [1], None, "the data is not BOOL"),
        ("FP32", [1], ["1"], None, "the data is not FP32"),
        ("FP32", [3], [[1], [2, 3]], None, "the data is not FP32"),
        ("FP32", [1], None, None, "the data is not FP32"),
        ("BYTES", [1], ["a"], None, "'BYTES' is not a datatype that models take"),
        ("FP8", [1], [1], None, "'FP8' is not a datatype that models take"),
    ],
)
def test_what_contradicts_itself_is_refused_by_name(datatype, shape, data, raw, message):
    with pytest.raises(aoti.InputError, match=f"^x: .*{message}"):
        decoded("x", datatype, shape, data, raw)
