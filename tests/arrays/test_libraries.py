"""The kinds of arrays: what goes in, what comes out, whose memory it is, what is refused."""

from __future__ import annotations

import array
import ctypes

import numpy as np
import pytest

import aoti
from aoti.arrays import libraries


class Foreign:
    """An array of a library that aoti does not know: numpy's, behind DLPack alone."""

    def __init__(self, array, device=(1, 0), legacy=False):
        self.array, self.device_, self.legacy = array, device, legacy
        self.capsules = []

    def __dlpack_device__(self):
        return self.device_

    def __dlpack__(self, **options):
        if self.legacy and options:
            raise TypeError("of before version 1")
        self.capsules.append(self.array.__dlpack__(**options))
        return self.capsules[-1]


# -- other libraries -----------------------------------------------------------------------------


@pytest.mark.parametrize("legacy", [False, True])
def test_dlpack_alone_is_enough(more, legacy):
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    foreign = Foreign(x, legacy=legacy)
    same, plus = more(foreign)
    assert type(same) is type(plus) is aoti.Tensor
    assert same.data_ptr == x.ctypes.data
    assert plus.numpy().tolist() == (x + 1).tolist()
    assert [repr(capsule).split('"')[1] for capsule in foreign.capsules] == [
        "used_dltensor" if legacy else "used_dltensor_versioned"
    ]
    assert [type(value) for value in more(same)] == [aoti.Tensor, aoti.Tensor]


def test_a_capsule_is_consumed_only_on_success(more):
    strange = Foreign(np.ones((3, 4), "longdouble"))
    with pytest.raises(aoti.InputTypeError, match=r"args\[0\] \(x\): .*"):
        more(strange)
    for capsule in strange.capsules:
        assert '"dltensor_versioned"' in repr(capsule)
    strange.capsules.clear()
    backwards = Foreign(np.arange(12, dtype=np.float32).reshape(3, 4)[::-1])
    np.testing.assert_array_equal(more(backwards)[1].numpy(), backwards.array + 1)
    assert '"dltensor_versioned"' in repr(backwards.capsules[0])
    (plan,) = more.plan(backwards)
    assert (plan.action, "strides" in plan.reason) == ("copied", True)


def test_a_used_capsule_is_refused():
    foreign = Foreign(np.ones(3))
    aoti.Tensor.from_dlpack(foreign)
    used = foreign.capsules[0]
    foreign.__class__ = type("Again", (Foreign,), {"__dlpack__": lambda self, **_: used})
    with pytest.raises(BufferError, match="used before"):
        aoti.Tensor.from_dlpack(foreign)


def test_another_device_is_refused_naming_both(more):
    with pytest.raises(
        aoti.InputError, match=r"args\[0\] \(x\): the model runs on the cpu, .* lies on cuda:3"
    ):
        more(Foreign(np.ones((3, 4), np.float32), device=(2, 3)))


def test_the_read_only_flag_is_honoured(packages, more):
    x = np.ones((3, 4), np.float32)
    x.flags.writeable = False
    same, plus = more(Foreign(x))
    assert (same.readonly, plus.readonly) == (True, False)
    assert not same.numpy().flags.writeable
    with aoti.load(packages / "inplace.pt2") as model:
        y = np.ones_like(x)
        with pytest.raises(aoti.InputError, match="the model writes into this input"):
            model(Foreign(x), y)


def test_buffers_and_array_interfaces_are_taken(more, interop):
    x = np.arange(12, dtype=np.float32).reshape(3, 4)

    class Interface:
        __array_interface__ = x.__array_interface__

    same, plus = more(Interface())
    assert same.ctypes.data == x.ctypes.data
    assert (more(memoryview(x))[1] == plus).all()
    assert more.plan(memoryview(x))[0].action == more.plan(Interface())[0].action == "shared"
    shared = (ctypes.c_float * 4 * 3)()
    same, plus = more(shared)
    assert plus.max() == 1
    shared[0][0] = 5
    assert same[0, 0] == 5
    with pytest.raises(aoti.InputError, match=r"expected 2 dimensions.*got float32 \(2,\)"):
        more(array.array("f", [1, 2]))
    with pytest.raises(aoti.InputTypeError, match=r"got uint8 \(3,\)"):
        more(b"abc")
    with aoti.load(interop / "scalar.pt2") as model:
        assert model(np.float32(3))[1] == 6
        assert model.plan(np.float32(3))[0].action == "copied"


def test_no_arrays_are_refused(more):
    for value in (1.0, "text", object(), [[1.0]]):
        with pytest.raises(aoti.InputTypeError, match=r"args\[0\]"):
            more(value)
    assert more.plan(1.0)[0].action == "refused"


def test_cupy_arrays_are_refused_by_a_model_on_the_cpu(more):
    cupy = pytest.importorskip("cupy", reason="cupy is not installed")
    with pytest.raises(aoti.InputError, match=r"runs on the cpu, .* lies on cuda"):
        more(cupy.ones((3, 4), "float32"))


# -- which kind comes out ------------------------------------------------------------------------


def test_mixed_kinds_follow_the_first_that_is_not_numpy(packages, torch):
    wide, x, y = np.ones((3, 5), np.float32), np.ones((3, 3), np.float32), torch.ones(3, 3)
    with aoti.load(packages / "shared.pt2") as model:
        assert type(model(x, wide)) is np.ndarray
        assert type(model(x, torch.from_numpy(wide))) is type(model(y, wide)) is torch.Tensor
        assert type(model(Foreign(x), torch.from_numpy(wide))) is aoti.Tensor
        assert type(model(y, Foreign(wide))) is torch.Tensor


@pytest.mark.parametrize("where", ["load", "call", "run"])
def test_outputs_asks_for_a_kind(interop, torch, where, pointer):
    x = np.ones((3, 4), np.float32)
    wanted = {"numpy": np.ndarray, "torch": torch.Tensor, "dlpack": aoti.Tensor}
    for name, kind in wanted.items():
        for value in (x, torch.ones(3, 4)):
            with aoti.load(
                interop / "more.pt2", outputs=name if where == "load" else None
            ) as model:
                if where == "load":
                    out = model(value)
                elif where == "call":
                    out = model(value, outputs=name)
                else:
                    out = model.run([value], outputs=name)
            assert [type(array) for array in out] == [kind, kind]
            assert pointer(out[0]) == pointer(value)


def test_a_kind_must_be_known_and_imported(interop, run_python):
    with pytest.raises(aoti.ConfigError, match="outputs='tensorflow': known are 'numpy'"):
        aoti.load(interop / "more.pt2", outputs="tensorflow")
    program = """
import sys, aoti
try:
    aoti.load(sys.argv[1], outputs="torch")
except aoti.ConfigError as error:
    print(error)
assert "torch" not in sys.modules
"""
    assert "import torch first" in run_python(program, interop / "more.pt2")


def test_an_argument_of_the_module_goes_before_an_option(interop, torch):
    x = np.ones((3, 4), np.float32)
    with aoti.load(interop / "out.pt2") as model:
        assert model(x, out=x * 2).tolist() == (x * 3).tolist()
        assert type(model(x, out=x * 2, outputs="torch")) is torch.Tensor
        target = np.empty_like(x)
        assert model.run([x, x], out=[target])[0] is target
        assert target.tolist() == (x * 2).tolist()


def test_types_that_are_no_arrays_have_no_kind():
    assert libraries.find(int) is libraries.find(np.ndarray) is libraries.find(np.float32) is None
    assert libraries.named("numpy") is None


DELETER = """
import ctypes, sys
import numpy as np, aoti

Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

class DLTensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device", ctypes.c_int32 * 2), ("ndim", ctypes.c_int32),
                ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
                ("shape", ctypes.c_void_p), ("strides", ctypes.c_void_p),
                ("offset", ctypes.c_uint64)]

class Managed(ctypes.Structure):
    _fields_ = [("tensor", DLTensor), ("context", ctypes.c_void_p), ("deleter", Deleter)]

new = ctypes.pythonapi.PyCapsule_New
new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
deleted = []
delete = Deleter(lambda _: deleted.append(sum(range(10))))
memory, shape = (ctypes.c_double * 40)(), (ctypes.c_int64 * 2)(4, 10)
address = ctypes.addressof

class Foreign:
    def __dlpack_device__(self):
        return 1, 0

    def __dlpack__(self, **options):
        tensor = DLTensor(address(memory), (1, 0), 2, 2, 64, 1, address(shape), None, 0)
        self.managed = Managed(tensor, None, delete)
        return new(address(self.managed), b"dltensor", None)

model, foreign = aoti.load(sys.argv[1]), Foreign()
for _ in range(3):
    try:
        model(foreign)
    except aoti.InputTypeError as error:
        assert "expected float32" in str(error), error
        del error
def fail():
    tensor = aoti.Tensor.from_dlpack(foreign)
    raise KeyError("of the caller")
for _ in range(3):
    try:
        fail()
    except KeyError as error:
        assert error.args == ("of the caller",)
        del error
print(len(deleted))
"""


def test_a_deleter_in_python_does_not_replace_the_error_under_way(packages, run_python):
    assert run_python(DELETER, packages / "mlp.pt2") == "6\n"
