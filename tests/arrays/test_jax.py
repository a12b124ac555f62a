"""jax arrays go in and come out. In processes of their own: jax starts threads, and whatever forks
in a process that has imported it is warned of deadlocks.
"""

from __future__ import annotations

import importlib.util

import pytest

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="jax is not installed")

PREAMBLE = """
import sys
import jax, numpy as np, aoti

def pointer(value):
    return value.ctypes.data if isinstance(value, np.ndarray) else value.unsafe_buffer_pointer()
"""


@pytest.fixture
def run(run_python):
    """Run a program with these packages as its arguments."""
    return lambda program, *paths: run_python(PREAMBLE + program, *paths)


def test_jax_arrays_come_back_as_jax_arrays(interop, run):
    program = """
x = jax.numpy.arange(64.0, dtype="float32").reshape(8, 8)
with aoti.load(sys.argv[1]) as model:
    same, plus = model(x)
    assert isinstance(same, jax.Array) and isinstance(plus, jax.Array)
    assert pointer(same) == pointer(x)
    np.testing.assert_array_equal(plus, x + 1)
    assert model.plan(x)[0].action == "shared"
    np.testing.assert_array_equal(model(x.T)[1], x.T + 1)
    for small in (x[:0], x[:1, :1], jax.numpy.zeros((0, 4), "float32")):
        same, plus = model(small)
        assert isinstance(plus, jax.Array) and same.shape == plus.shape == small.shape
        np.testing.assert_array_equal(plus, small + 1)
"""
    run(program, interop / "more.pt2")


def test_every_dtype_is_shared_both_ways(packages, run):
    program = """
with aoti.load(sys.argv[1]) as model, jax.enable_x64(True):
    names = [spec.name for spec in model.inputs]
    inputs = {name: jax.numpy.arange(6).reshape(2, 3).astype(name) for name in names}
    out = model(**inputs)
    numpys = model(**{name: np.asarray(value) for name, value in inputs.items()})
assert len(names) == 14
for name in names:
    assert isinstance(out[name], jax.Array), name
    assert out[name].dtype == inputs[name].dtype == name
    assert pointer(out[name]) == pointer(inputs[name]) == pointer(numpys[name]), name
    np.testing.assert_array_equal(out[name], inputs[name])
"""
    run(program, packages / "dtypes.pt2")


def test_dtypes_that_numpy_lacks_are_shared(interop, run):
    program = """
import torch, warnings

warnings.simplefilter("ignore")  # of complex32
with aoti.load(sys.argv[1]) as model:
    names = [spec.name for spec in model.inputs if spec.name != "complex32"]  # jax lacks it
    inputs = {name: jax.numpy.arange(6).reshape(2, 3).astype(name) for name in names}
    half = torch.ones(2, 3, dtype=torch.complex32)
    out = model(**inputs, complex32=half, outputs="dlpack")
    assert {plan.action for plan in model.plan(**inputs, complex32=half)} == {"shared"}
for name in names:
    assert (out[name].dtype, inputs[name].dtype) == (name, name)
    assert out[name].data_ptr == pointer(inputs[name]), name
    np.testing.assert_array_equal(out[name].numpy(), np.asarray(inputs[name]))
with aoti.load(sys.argv[2]) as model:
    x = jax.numpy.arange(12).reshape(3, 4).astype("bfloat16")
    same, plus = model(x)
    assert same.dtype == plus.dtype == "bfloat16"
    assert pointer(same) == pointer(x)
    assert bool((plus == x + 1).all())
"""
    run(program, interop / "same.pt2", interop / "more_bfloat16.pt2")


def test_scalars_are_shared(interop, run):
    program = """
x = jax.numpy.float32(3)
with aoti.load(sys.argv[1]) as model:
    same, twice = model(x)
assert (same.shape, twice.shape, float(twice)) == ((), (), 6)
assert pointer(same) == pointer(x)
"""
    run(program, interop / "scalar.pt2")


def test_a_model_that_writes_into_its_input_refuses_them(packages, run):
    program = """
with aoti.load(sys.argv[1]) as model:
    try:
        model(jax.numpy.zeros((3, 4), "float32"), np.ones((3, 4), np.float32))
    except aoti.InputError as error:
        assert "the model writes into this input" in str(error)
    else:
        raise AssertionError("it ran")
"""
    run(program, packages / "inplace.pt2")
