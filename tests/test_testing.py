"""The model for tests of applications: like the real one, without what the real one needs."""

from __future__ import annotations

import asyncio
import inspect
from collections import namedtuple

import numpy as np
import pytest

import aoti
from aoti.testing import FakeModel

Pair = namedtuple("Pair", ["first", "second"])
X = np.ones((3, 10), np.float32)


def test_both_models_are_runners(mlp):
    assert isinstance(mlp, aoti.ModelRunner)
    fake = FakeModel(lambda x: x)
    assert isinstance(fake, aoti.ModelRunner)
    for name in ("submit", "run_async", "infer_async", "boxed_run", "infer", "close"):
        real = inspect.signature(getattr(aoti.AOTIModel, name))
        assert inspect.signature(getattr(FakeModel, name)) == real, name
    # Compiled: without annotations at run time; the stubs have them.
    real, fakes = (inspect.signature(kind.__call__) for kind in (aoti.AOTIModel, FakeModel))
    for one, other in zip(real.parameters.values(), fakes.parameters.values(), strict=True):
        assert one.name == other.name
        assert one.kind == other.kind or one.name == "self"


def test_a_function_stands_in_for_the_model():
    model = FakeModel(lambda x, *, scale=1: {"y": [x * scale, x]})
    assert model(2, scale=3) == {"y": [6, 2]}
    assert model.submit(2).result() == {"y": [2, 2]}
    assert asyncio.run(model.run_async(3)) == {"y": [3, 3]}
    assert asyncio.run(model.infer_async([3])).outputs == [3, 3]
    inputs = [4]
    assert model.boxed_run(inputs) == [4, 4]
    assert inputs == []
    assert model.infer([5]).outputs == [5, 5]
    assert model.calls == [
        ((2,), {"scale": 3}),
        ((2,), {}),
        ((3,), {}),
        *[((n,), {}) for n in (3, 4, 5)],
    ]
    assert (model.inputs, model.outputs) == (None, None)
    with pytest.raises(aoti.InputTypeError, match="list of arrays"):
        model.run(X)
    with model:
        pass
    assert model.closed
    with pytest.raises(aoti.ModelClosedError):
        model(1)


def test_what_the_function_raises_comes_as_from_a_model():
    def fail(x):
        raise aoti.ExecutionError("no memory")

    model = FakeModel(fail)
    with pytest.raises(aoti.ExecutionError):
        model(1)
    future = model.submit(1)
    assert isinstance(future.exception(), aoti.ExecutionError)


def test_a_package_gives_checks_structure_and_sizes(packages):
    fake = FakeModel(package=packages / "mlp.pt2")
    assert fake.inputs[0].name == "x"
    assert fake(X).shape == (3, 1)
    assert fake(x=X).dtype == np.float32
    with aoti.load(packages / "mlp.pt2") as real:
        for arguments in ((X.astype(np.float64),), (X[:, :9],), (X[0],), (np.ones((2000, 10)),)):
            said = []
            for model in (real, fake):
                with pytest.raises(aoti.InputError) as caught:
                    model(*arguments)
                said.append((type(caught.value), str(caught.value)))
            assert said[0] == said[1]
    for call in ({"y": X}, {}):
        with pytest.raises(aoti.InputError, match="the model takes 'x'"):
            fake(**call)
    with pytest.raises(aoti.InputError, match="takes 1 input, got 2"):
        fake.run([X, X])


def test_structures_come_back_as_exported(packages):
    fake = FakeModel(package=packages / "tree.pt2")
    x = np.ones((3, 4), np.float32)
    result = fake({"x": x, "y": {"z": x}}, [x, x], Pair(x, x), options={"scale": x}, mask=x > 0)
    assert set(result) == {"sum", "list", "pair", "mask"}
    assert result["mask"]["inverse"].dtype == bool
    assert len(fake.run([x] * 7 + [x > 0])) == len(fake.outputs)


def test_what_cannot_be_told_needs_a_function(packages):
    with pytest.raises(ValueError, match="a function, or a package"):
        FakeModel()
    with pytest.raises(ValueError, match="pass a function"):
        FakeModel(package=packages / "stock.pt2")(X)
    assert FakeModel(lambda x: 7, package=packages / "stock.pt2")(X) == 7
    # Its result is of a type that only the exporting program knows.
    assert FakeModel(lambda x: 7, package=packages / "registered.pt2")(X) == 7


def test_it_needs_no_libtorch(packages, run_python):
    program = """
import sys, numpy as np
from aoti.testing import FakeModel
print(FakeModel(package=sys.argv[1])(np.ones((2, 10), np.float32)).shape)
"""
    assert run_python(program, packages / "mlp.pt2", LIBTORCH="/nowhere") == "(2, 1)\n"
