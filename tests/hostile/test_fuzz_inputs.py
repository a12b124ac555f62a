"""Arrays of any dtype, shape and layout give what eager torch gives, or are refused: never else.

At a reduced size by default; AOTI_FUZZ=10 does ten times as much.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import aoti
from aoti import Dim, InputError, TensorSpec

EXAMPLES = 300 * int(os.environ.get("AOTI_FUZZ", "1"))
MODELS = "mlp shared layouts derived lookup".split()
DTYPES = "bool uint8 int8 int16 int32 int64 uint32 uint64 float16 float32 float64 complex64".split()


def misaligned(array: np.ndarray) -> np.ndarray:
    flat = np.frombuffer(b"\0" + array.tobytes(), array.dtype, offset=1)
    return flat.reshape(array.shape)


def padded(array: np.ndarray) -> np.ndarray:
    """The same in the middle of more memory, in steps."""
    if not array.ndim:
        return array
    wide = np.repeat(np.repeat(array, 3, axis=-1), 2, axis=0)
    return wide[::2, ..., ::3] if array.ndim > 1 else wide[::6]


def overlapping(array: np.ndarray) -> np.ndarray:
    """Another array of that shape, whose elements share memory."""
    flat = np.resize(array, sum(array.shape) + 1).astype(array.dtype)
    steps = (array.itemsize,) * array.ndim
    return np.lib.stride_tricks.as_strided(flat, array.shape, steps)


# Each gives an array of the same dtype and shape, if not of the same values.
LAYOUTS: list[Callable[[np.ndarray], np.ndarray]] = [
    lambda a: a,
    np.ascontiguousarray,
    np.asfortranarray,
    lambda a: a.copy()[::-1] if a.ndim else a,
    lambda a: a[..., ::-1] if a.ndim else a,
    lambda a: np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1) if a.ndim > 1 else a,
    lambda a: np.broadcast_to(a[:1], a.shape) if a.ndim and len(a) else a,
    lambda a: a.astype(a.dtype.newbyteorder()),
    misaligned,
    padded,
    overlapping,
    lambda a: a.view(np.matrix) if a.ndim == 2 else a,
]


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.view()
    array.flags.writeable = False
    return array


@st.composite
def calls(draw: Any, specs: tuple[TensorSpec, ...]) -> list[np.ndarray]:
    """Arguments that are mostly what the model takes, of any layout."""
    sizes = {}
    for spec in specs:
        for dim in spec.shape:
            if isinstance(dim, Dim):
                sizes.setdefault(dim.form[0], draw(st.sampled_from([1, 2, 3, 4, 7, 16, 100, 1025])))
    arrays = []
    for spec in specs:
        shape = [
            size if isinstance(size, int) else size.form[1] * sizes[size.form[0]] + size.form[2]
            for size in spec.shape
        ]
        dtype = spec.dtype
        match draw(st.integers(0, 19)):
            case 0:
                shape = draw(st.lists(st.integers(0, 5), max_size=5))
            case 1:
                dtype = draw(st.sampled_from(DTYPES))
            case 2:
                shape[draw(st.integers(0, len(shape) - 1))] += draw(st.sampled_from([-1, 1]))
            case 3:
                shape = shape[::-1]
        generator = np.random.default_rng(draw(st.integers(0, 1 << 30)))
        if spec.values is not None:
            low, high = draw(
                st.sampled_from([(-5, 5), (-5, 5), (-6, 5), (-5, 6), (-(2**63), 2**63)])
            )
            values = generator.integers(low, high - 1, shape, endpoint=True)
        else:
            values = np.asarray(generator.standard_normal(shape) * 3)
        with np.errstate(all="ignore"):  # some dtypes cannot hold what was drawn
            values = values.astype(dtype)
        array = draw(st.sampled_from(LAYOUTS))(values)
        arrays.append(read_only(array) if draw(st.booleans()) else array)
    return arrays


def fits(specs: tuple[TensorSpec, ...], arrays: list[np.ndarray]) -> bool:
    """Whether the model takes these, going by the signature alone."""
    symbols: dict[str, int] = {}
    for spec, array in zip(specs, arrays, strict=True):
        if array.dtype.newbyteorder("=") != spec.dtype or array.ndim != len(spec.shape):
            return False
        for wanted, size in zip(spec.shape, array.shape, strict=True):
            if isinstance(wanted, int):
                if wanted != size:
                    return False
                continue
            symbol, scale, offset = wanted.form
            meaning = symbols.setdefault(symbol, (size - offset) // scale)
            if scale * meaning + offset != size or not wanted.min <= size <= wanted.max:
                return False
        if spec.values is not None and array.size:
            low, high = spec.values
            if array.min() < low or array.max() > high:
                return False
    return True


@pytest.fixture(scope="module")
def eager(packages) -> dict[str, Any]:
    """The modules that the packages were exported from."""
    torch = pytest.importorskip("torch")
    path = Path(__file__).parents[1] / "packages.py"
    spec = importlib.util.spec_from_file_location("packages_of_the_tests", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclasses look for it there
    spec.loader.exec_module(module)
    mlp = module.MLP().eval()
    mlp.load_state_dict(torch.load(packages / "mlp.pth"))
    return {
        "mlp": mlp,
        "shared": module.Shared(),
        "layouts": module.Layouts(),
        "derived": module.Derived(),
        "lookup": module.Lookup(),
    }


@pytest.mark.parametrize("name", MODELS)
def test_any_arrays_give_what_eager_torch_gives_or_are_refused(packages, eager, name):
    import torch

    with aoti.load(packages / f"{name}.pt2") as model:
        specs = model.inputs

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        )
        @given(calls(specs))
        def check(arrays: list[np.ndarray]) -> None:
            before = [array.tobytes() for array in arrays]
            try:
                got = model(*arrays)
            except InputError:
                assert not fits(specs, arrays)
                return
            assert fits(specs, arrays)
            plain = [np.array(a, a.dtype.newbyteorder("="), order="C", subok=False) for a in arrays]
            with torch.no_grad():
                wanted = eager[name](*map(torch.from_numpy, plain))
            several = isinstance(wanted, tuple)
            pairs = zip(got, wanted, strict=True) if several else [(got, wanted)]
            for ours, theirs in pairs:
                theirs = theirs.numpy()  # noqa: PLW2901
                assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
                # A scalar is a sum, whose terms may cancel: its error grows with them.
                terms = 0 if ours.ndim else sum(float(np.abs(a).sum()) for a in plain)
                np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 + 1e-5 * terms)
            assert [array.tobytes() for array in arrays] == before

        check()
