"""The table of dtypes, compared with the libraries that it describes."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from aoti.signature.dtypes import DTYPES, numpy_dtype


@pytest.mark.parametrize("name", DTYPES)
def test_sizes_are_those_of_numpy_and_ml_dtypes(name):
    try:
        dtype = numpy_dtype(name)
    except ValueError:
        pytest.skip(f"nothing installed has {name}")
    assert dtype.name == name
    assert dtype.itemsize == DTYPES[name].itemsize


def test_dlpack_numbers_are_told_apart():
    assert len({(dtype.dlpack_code, dtype.bits) for dtype in DTYPES.values()}) == len(DTYPES)


def test_dlpack_numbers_are_those_of_libtorch():
    import torch.utils.cpp_extension as extension

    (folder, *_) = extension.include_paths()
    header = Path(folder, "ATen/dlpack.h").read_text()
    codes = dict(re.findall(r"kDL(\w+) = (\d+)U", header))
    for name, dtype in DTYPES.items():
        family = re.match(r"float8\w*|bfloat|[a-z]+", name)[0]
        spelled = "UInt" if family == "uint" else family.capitalize()
        assert dtype.dlpack_code == int(codes[spelled]), name


@pytest.mark.parametrize("name", DTYPES)
def test_names_are_those_of_torch(name):
    import torch

    assert getattr(torch, name).itemsize == DTYPES[name].itemsize


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_storages_are_those_of_torch():
    import torch

    for name, dtype in DTYPES.items():
        if dtype.storage:
            assert getattr(torch, dtype.storage)().dtype == getattr(torch, name)


def test_codes_are_those_of_safetensors():
    numpy = pytest.importorskip("safetensors.numpy")
    for name in filter(partial(hasattr, np), DTYPES):
        if code := DTYPES[name].safetensors:
            data = numpy.save({"x": np.zeros(1, name)})
            assert f'"dtype":"{code}"'.encode() in data


def test_importing_the_table_imports_no_numpy(run_python):
    program = "import sys, aoti.signature.dtypes; print('numpy' in sys.modules)"
    assert run_python(program) == "False\n"
