"""Arrays in files: what the command line reads, refuses and writes."""

from __future__ import annotations

import errno
import json
import time
import zipfile

import numpy as np
import pytest

import aoti
from aoti.cli.io.array_files import read_inputs, write_outputs


@pytest.fixture
def read(tmp_path):
    """Read one array from a JSON document, or from its text."""

    def read(document, dtype=None):
        source = tmp_path / "in.json"
        source.write_text(document if isinstance(document, str) else json.dumps(document))
        (array,) = read_inputs(str(source), [aoti.TensorSpec("data", dtype, None)])
        return array

    return read


@pytest.mark.parametrize(
    ("document", "array"),
    [
        ({"data": [1, 2.5]}, np.array([1, 2.5], np.float32)),
        ({"data": [[1, 2], [3, 4]], "shape": [4]}, np.array([1, 2, 3, 4], np.float32)),
        ({"data": [[1, 2], [3, 4]]}, np.array([[1, 2], [3, 4]], np.float32)),
        ({"data": 5}, np.array(5, np.float32)),
        ({"data": [], "shape": [0, 3]}, np.zeros((0, 3), np.float32)),
        ({"data": [2**70]}, np.array([2.0**70], np.float32)),
        ({"data": [1, "NaN", "-Infinity"]}, np.array([1, np.nan, -np.inf], np.float32)),
        ({"data": [True, 0], "dtype": "bool"}, np.array([True, False])),
        ({"data": [2**64 - 1, 0], "dtype": "uint64"}, np.array([2**64 - 1, 0], np.uint64)),
        ({"data": [2**53 + 1, -1], "dtype": "int64"}, np.array([2**53 + 1, -1])),
        ({"data": [1, 2], "shape": [], "dtype": "complex64"}, np.array(1 + 2j, np.complex64)),
        ({"data": {"data": [1]}}, np.array([1], np.float32)),  # by name
    ],
    ids=str,
)
def test_json_is_read_exactly(read, document, array):
    found = read(document)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"data": [None, 1]}, "not a number"),
        ({"data": ["1_0"]}, "not a number"),
        ({"data": [{}]}, "not a number"),
        ({"data": [[1], [1, 2]]}, "nested unevenly"),
        ({"data": [1, [2]]}, "nested unevenly"),
        ({"data": [1.5], "dtype": "int8"}, "not integers, for int8"),
        ({"data": [1.0], "dtype": "int64"}, "not integers, for int64"),
        ({"data": ["NaN"], "dtype": "int64"}, "not integers, for int64"),
        ({"data": [300], "dtype": "uint8"}, "does not fit into uint8"),
        ({"data": [-1, 2**64 - 1], "dtype": "uint64"}, "does not fit into uint64"),
        ({"data": [2**63, -1], "dtype": "int64"}, "does not fit into int64"),
        ({"data": [1e39]}, "does not fit into float32"),
        ({"data": [10**400]}, "does not fit into float32"),
        ('{"data": [1e400], "dtype": "float64"}', "does not fit into float64"),
        ({"data": [[1e39, 0]], "dtype": "complex64"}, "does not fit into float32"),
        ('{"data": [NaN]}', 'NaN is not JSON; write "NaN"'),
        ({"data": [True]}, "true or false, which are not float32"),
        ({"data": [1, True], "dtype": "int8"}, "true or false, which are not int8"),
        ({"data": [2], "dtype": "bool"}, "for bool must be true and false, or 1 and 0"),
        ({"data": [1.0], "dtype": "bool"}, "for bool must be true and false, or 1 and 0"),
        ({"data": [1], "dtype": "complex64"}, "complex numbers must be pairs"),
        ({"data": [1], "dtype": "float99"}, "unknown dtype 'float99'"),
        ({"data": [1], "dtype": "object"}, "unknown dtype"),
        ({"data": [1], "dtype": None}, "unknown dtype None"),
        ({"data": [1], "dtype": [1]}, "unknown dtype"),
        ({"data": [1], "shape": None}, "a shape must be a list of sizes"),
        ({"data": [1], "shape": "x"}, "a shape must be a list of sizes"),
        ({"data": [1], "shape": [-1]}, "a shape must be a list of sizes"),
        ({"data": [1], "shape": [True]}, "a shape must be a list of sizes"),
        ({"data": [1], "shape": [1] * 65}, "maximum supported dimension"),
        ({"data": [], "shape": [2**64, 0]}, "[dD]imension"),
        ({"data": [1, 2, 3], "shape": [1, 10]}, r"shape \[1, 10\] has 10"),
        ({"data": [1], "strides": [1]}, 'expected {"data"'),
        ([1], 'expected {"data"'),
        ("null", 'expected {"data"'),
        ("[" * 100_000, "recursion"),
        ("", "Expecting value"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_json_that_would_lose_something_is_refused(read, document, message):
    with pytest.raises(aoti.InputError, match=message) as raised:
        read(document)
    assert "in.json" in str(raised.value)


def test_a_dtype_of_ml_dtypes_is_read_or_asked_for(read):
    try:
        import ml_dtypes
    except ImportError:
        with pytest.raises(aoti.InputError, match="bfloat16 needs the package ml_dtypes"):
            read({"data": [1], "dtype": "bfloat16"})
    else:
        assert read({"data": [1], "dtype": "bfloat16"}).dtype == ml_dtypes.bfloat16


def test_a_million_numbers_are_read_in_seconds(read):
    document = json.dumps({"data": [0.5] * 999_999 + ["NaN"]})
    start = time.monotonic()
    assert read(document).shape == (1_000_000,)
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    "array",
    [
        np.array([1.5, np.nan, np.inf, -np.inf], np.float32),
        np.array([1 + 2j, complex(np.nan, -np.inf)], np.complex64),
        np.array([[2**63 - 1, -(2**63)], [9007199254740993, 0]]),
        np.array([2**64 - 1, 0], np.uint64),
        np.array([True, False]),
        np.float16(3.5).reshape(()),
        np.zeros((0, 3), np.float64),
        np.zeros((2, 0), np.complex128),
    ],
    ids=lambda array: array.dtype.name,
)
@pytest.mark.parametrize("kind", [".json", ".npz"])
def test_arrays_survive_a_file(tmp_path, array, kind):
    target = tmp_path / f"x{kind}"
    write_outputs(str(target), {"data": array, "file": array})
    if kind == ".json":
        json.loads(target.read_text(), parse_constant=pytest.fail)
    specs = [aoti.TensorSpec(name, None, None) for name in ("file", "data")]
    for back in read_inputs(str(target), specs):
        assert (back.dtype, back.shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(back, array)


def npy(header):
    return b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("in.npy", b""),
        ("in.npy", b"\x93NUMPY"),
        ("in.npy", npy(b"{'descr': '<f4', 'shape': (2,")),
        ("in.npy", npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}\n")),
        ("in.npz", b""),
        ("in.npz", b"PK\3\4garbage"),
        ("in.json", b"\xff"),
        ("in.json", b"\xef\xbb\xbf[]"),
    ],
)
def test_a_damaged_file_is_an_input_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(aoti.InputError, match=f"cannot read .*{name}: "):
        read_inputs(str(tmp_path / name), None)


def test_an_archive_of_something_else_is_an_input_error(tmp_path):
    with zipfile.ZipFile(tmp_path / "in.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(aoti.InputError, match=r"not \.npy"):
        read_inputs(str(tmp_path / "in.npz"), None)


def test_any_output_name_can_be_written(tmp_path):
    outputs = {name: np.ones(2) for name in ("file", "allow_pickle", "a.b", "x/y")}
    write_outputs(str(tmp_path / ".npz"), outputs)
    with np.load(tmp_path / ".npz") as archive:
        assert set(archive) == set(outputs)
    assert [path.name for path in tmp_path.iterdir()] == [".npz"]


@pytest.mark.parametrize("count", [0, 2])
def test_an_npy_file_holds_one_array(tmp_path, count):
    with pytest.raises(aoti.InputError, match=r"write \.npz"):
        write_outputs(str(tmp_path / "x.npy"), {str(n): np.ones(1) for n in range(count)})


def test_a_file_that_cannot_be_made_is_a_wrong_call(tmp_path):
    with pytest.raises(aoti.InputError, match=r"cannot write .*: No such file"):
        write_outputs(str(tmp_path / "none/x.npz"), {})


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    def full(file, *_args, **_options):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "x.npy").write_bytes(b"old")
    monkeypatch.setattr(np, "save", full)
    with pytest.raises(OSError, match=r"cannot write .*x\.npy: No space") as raised:
        write_outputs(str(tmp_path / "x.npy"), {"output": np.ones(1)})
    assert not isinstance(raised.value, aoti.AotiError)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
