"""The kinds of arrays: what goes in, what comes out, whose memory it is, what is refused."""

from __future__ import annotations

import array
import ctypes
import gc
import re
import sys
import threading
import weakref

import numpy as np
import pytest

import aoti
from aoti.arrays import libraries

FLOATS = "float32 float64 float16 complex64 complex128"
INTEGERS = "bool uint8 int8 int16 int32 int64 uint16 uint32 uint64"


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def more(interop):
    """`x -> (x, x + 1)`, float32, of any two sizes."""
    with aoti.load(interop / "more.pt2") as model:
        yield model


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


def pointer(value):
    if isinstance(value, np.ndarray):
        return value.ctypes.data
    return value.data_ptr if isinstance(value, aoti.Tensor) else value.data_ptr()


# -- torch ---------------------------------------------------------------------------------------


def test_torch_tensors_come_back_as_torch_tensors_over_the_same_memory(more, torch):
    x = torch.arange(12.0).reshape(3, 4)
    same, plus = more(x)
    assert type(same) is type(plus) is torch.Tensor
    assert same.data_ptr() == x.data_ptr()
    assert torch.equal(plus, x + 1)
    assert plus.data_ptr() != x.data_ptr()
    plus += 1  # ours to write to


@pytest.mark.parametrize("name", (FLOATS + " " + INTEGERS).split())
def test_every_dtype_of_torch_is_shared_both_ways(packages, torch, name):
    with aoti.load(packages / "dtypes.pt2") as model:
        inputs = {
            spec.name: torch.arange(6).reshape(2, 3).to(getattr(torch, spec.dtype))
            for spec in model.inputs
        }
        out = model(**inputs)
        numpys = model(**{key: value.numpy() for key, value in inputs.items()})
    assert out[name].dtype == inputs[name].dtype
    assert out[name].data_ptr() == inputs[name].data_ptr() == pointer(numpys[name])
    assert torch.equal(out[name], inputs[name])


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_dtypes_that_numpy_lacks_are_shared(interop, torch):
    with aoti.load(interop / "same.pt2") as model:
        inputs = {
            spec.name: torch.arange(6).reshape(2, 3).to(getattr(torch, spec.dtype))
            for spec in model.inputs
        }
        out = model(**inputs)
        tensors = model(**inputs, outputs="dlpack")
        again = model(**tensors)
    assert sorted(out) == sorted(inputs)
    for name, value in inputs.items():
        assert out[name].dtype == value.dtype
        assert out[name].data_ptr() == value.data_ptr() == tensors[name].data_ptr
        assert torch.equal(out[name].view(torch.uint8), value.view(torch.uint8))
        assert again[name].dtype == tensors[name].dtype == name
        assert repr(tensors[name]).startswith("aoti.Tensor(")
        assert torch.from_dlpack(tensors[name]).data_ptr() == value.data_ptr()


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_ml_dtypes_arrays_go_in_and_out(interop, torch):
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    x = np.arange(12).reshape(3, 4).astype(ml_dtypes.bfloat16)
    with aoti.load(interop / "more_bfloat16.pt2") as model:
        same, plus = model(x)
        turned = model(np.asfortranarray(x))
    assert same.dtype == plus.dtype == ml_dtypes.bfloat16
    assert np.shares_memory(same, x)
    np.testing.assert_array_equal(plus, x + 1)
    np.testing.assert_array_equal(turned[0], x)
    names = [name for name in ("float8_e4m3fn", "float8_e5m2") if hasattr(ml_dtypes, name)]
    with aoti.load(interop / "same.pt2") as model:
        inputs = {
            spec.name: torch.ones(2, 3).to(getattr(torch, spec.dtype)) for spec in model.inputs
        }
        for name in names:
            inputs[name] = np.ones((2, 3), getattr(ml_dtypes, name))
        out = model(**inputs, outputs="dlpack")
    for name in names:
        assert pointer(out[name]) == pointer(inputs[name])
        assert out[name].numpy().dtype == inputs[name].dtype


def test_without_ml_dtypes_the_error_says_what_to_do(interop, run_python):
    program = f"""
import sys
sys.modules["ml_dtypes"] = None
import torch, aoti
x = torch.ones(3, 4, dtype=torch.bfloat16)
with aoti.load({str(interop / "more_bfloat16.pt2")!r}, outputs="numpy") as model:
    try:
        model(x)
    except aoti.ExecutionError as error:
        print(error)
    print(model(x, outputs="dlpack")[1])
"""
    error, shown = run_python(program).splitlines()
    assert re.search(r"ml_dtypes.*outputs='dlpack'", error)
    assert shown == "aoti.Tensor(dtype=bfloat16, shape=(3, 4))"


def test_torch_layouts_are_shared_or_copied_and_equal_to_eager(more, interop, torch):
    x = torch.arange(24.0).reshape(4, 6)
    with torch.inference_mode():
        inference = x.clone()
    layouts = {
        "contiguous": x,
        "of inference mode": inference,
        "a row": x[1:2],
        "transposed": x.t(),
        "strided": x[:, ::2],
        "expanded": x[:1].expand(3, 6),
        "empty": x[:0],
        "no columns": x[:, :0],
        "requires grad": x.clone().requires_grad_(),
        "parameter": torch.nn.Parameter(x.clone()),
        "one element": x[2:3, 3:4],
        "imaginary part": torch.complex(x, x + 1).conj().imag,
        "one negated element": torch.complex(x, x + 1).conj().imag[:1, :1],
    }
    shared = {"contiguous", "a row", "empty", "no columns", "requires grad", "parameter"}
    shared |= {"one element", "of inference mode"}
    for name, value in layouts.items():
        same, plus = more(value)
        assert torch.equal(same, value), name
        assert torch.equal(plus, value.detach() + 1), name
        (plan,) = more.plan(value)
        assert plan.action == ("shared" if name in shared else "copied"), name
        assert plan.reason or name in shared
        if name in shared:
            assert same.data_ptr() == value.data_ptr(), name
    with aoti.load(interop / "more_bfloat16.pt2") as model:
        half = x.to(torch.bfloat16)
        assert torch.equal(model(half.t())[1], half.t() + 1)  # copied without numpy's help
    with aoti.load(interop / "scalar.pt2") as model:
        zero_d = torch.tensor(3.0)
        assert model(zero_d)[0].data_ptr() == zero_d.data_ptr()
        assert model(zero_d)[1].item() == 6


def test_a_pending_conjugation_is_computed(packages, torch):
    with aoti.load(packages / "dtypes.pt2") as model:
        inputs = {
            spec.name: torch.arange(6).reshape(2, 3).to(getattr(torch, spec.dtype))
            for spec in model.inputs
        }
        inputs["complex64"] = (inputs["complex64"] * (1 + 2j)).conj()
        assert torch.equal(model(**inputs)["complex64"], inputs["complex64"])
        plans = {plan.path: plan for plan in model.plan(**inputs)}
    assert "conjugation" in plans["kwargs['complex64']"].reason
    assert sum(plan.action == "copied" for plan in plans.values()) == 1


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda t: t.ones(3, 4, dtype=t.float64), aoti.InputTypeError, r"got float64 \(3, 4\)\. "
         r"Convert it: \.to\(torch\.float32\)"),
        (lambda t: t.ones(3), aoti.InputError, r"expected 2 dimensions.*got float32 \(3,\)"),
        (lambda t: t.ones(3, 4, device="meta"), aoti.InputError, "meta"),
        (lambda t: t.eye(3).to_sparse(), aoti.InputError, "layout"),
        (lambda t: t.quantize_per_tensor(t.ones(3, 4), 1.0, 0, t.quint8), aoti.InputError, "x"),
    ],
    ids=["dtype", "rank", "meta", "sparse", "quantized"],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_torch_tensors_are_checked_as_numpy_arrays_are(more, torch, make, error, message):
    value = make(torch)
    with pytest.raises(error, match=rf"^args\[0\] \(x\): .*{message}"):
        more(value)
    (plan,) = more.plan(value)
    assert plan.action == "refused"
    assert plan.reason.startswith("args[0] (x): ")


def test_sizes_ranges_and_values_of_torch_tensors_are_checked(packages, mlp, torch):
    with pytest.raises(aoti.InputError, match=r"dimension 1 must be 10, not 9"):
        mlp(torch.ones(3, 9))
    with pytest.raises(aoti.InputError, match=r"dimension 0 is 2000, but must be in 1\.\.1024"):
        mlp(torch.ones(2000, 10))
    with aoti.load(packages / "lookup.pt2") as model:
        with pytest.raises(aoti.InputError, match=r"expected values in -5\.\.4.*got 7 at \[1\]"):
            model(torch.tensor([0, 7]))
        (plan,) = model.plan(torch.tensor([0, 7]))
        assert (plan.action, "got 7 at [1]" in plan.reason) == ("refused", True)
        assert model(torch.tensor([1]))[0].tolist() == [4, 5, 6, 7]
    x, y = torch.ones(3, 3), torch.ones(4, 5)
    with aoti.load(packages / "shared.pt2") as model:
        with pytest.raises(aoti.InputError, match="dimension 0 is 4, but must be 3"):
            model(x, y)
        assert model(x, y[:3]).shape == (3, 3)


def test_what_a_model_writes_into_a_tensor_is_seen_or_refused(packages, torch):
    x, y = torch.zeros(3, 4), torch.ones(3, 4)
    with aoti.load(packages / "inplace.pt2") as model:
        assert model(x, y).item() == 13
        assert torch.equal(x, y)
        for wrong in (torch.zeros(4, 3).t(), torch.complex(x, x).conj().imag):
            with pytest.raises(aoti.InputError, match="the model writes into this input"):
                model(wrong, y)
            assert model.plan(wrong, y)[0].action == "refused"


def test_outputs_of_torch_keep_their_inputs_and_outlive_the_model(packages, torch):
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    x = torch.from_numpy(array)
    with aoti.load(packages / "alias.pt2") as model:
        same, turned, more, weight, _ = model(x)
    assert same.data_ptr() == x.data_ptr()
    same.unsqueeze_(0)
    assert x.shape == (3, 4)  # the memory is shared, not the tensor
    died = weakref.ref(array)
    del array, x, same, model
    gc.collect()
    assert died() is not None
    assert turned.tolist() == np.arange(12).reshape(3, 4).T.tolist()
    assert weight.tolist() == np.arange(12).reshape(3, 4).tolist()
    del turned
    gc.collect()
    assert died() is None
    assert more.shape == (3, 4)


def test_what_torch_copies_when_it_is_written_to_is_copied_first(packages, torch):
    origin, y = torch.zeros(3, 4), torch.ones(3, 4)
    with aoti.load(packages / "inplace.pt2") as model:
        for write in (model, lambda *args: model.boxed_run(list(args))):
            lazy = torch._lazy_clone(origin)
            write(lazy, y)
            assert torch.equal(lazy, y)
            assert torch.equal(origin, torch.zeros(3, 4))


def test_calls_with_torch_keep_no_reference(more, torch):
    x = torch.ones(3, 4)
    before = sys.getrefcount(x)
    for _ in range(10):
        more(x)
        more.plan(x)
        with pytest.raises(aoti.InputError):
            more(torch.ones(3))
    gc.collect()
    assert sys.getrefcount(x) == before


def test_a_read_only_input_is_not_handed_out_as_a_tensor_that_can_be_written(packages, torch):
    x = np.ones((3, 4), np.float32)
    x.flags.writeable = False
    with aoti.load(packages / "alias.pt2", outputs="torch") as model:
        same = model(x)[0]
    assert same.data_ptr() != x.ctypes.data
    same += 1
    assert x.max() == 1


def test_threads_may_drop_outputs_that_keep_inputs(more, torch):
    kept = [more(torch.ones(3, 4))[0] for _ in range(100)]
    tensors = [more.run([np.ones((3, 4), np.float32)], outputs="torch")[0] for _ in range(100)]
    workers = [threading.Thread(target=values.clear) for values in (kept, tensors)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def test_outputs_may_outlive_the_interpreter(interop, run_python):
    pytest.importorskip("torch")
    program = """
import sys, numpy as np, aoti, torch
model = aoti.load(sys.argv[1])
x = np.ones((3, 4), np.float32)
torch.kept = model.run([x], outputs="torch")  # modules are taken down last
sys.kept = model.run([torch.ones(3, 4)]), model.run([x], outputs="dlpack"), model.run([x])
print("done")
"""
    assert run_python(program, interop / "more.pt2") == "done\n"


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_boxed_run_frees_inputs_in_the_middle_of_the_run(packages, torch, kind):
    events = []
    with aoti.load(packages / "slow.pt2") as model:
        value = np.full((1000, 1000), 1e-3, np.float32)
        weakref.finalize(value, lambda: events.append("freed"))
        inputs = [value if kind == "numpy" else torch.from_numpy(value)]
        del value
        watcher = threading.Thread(target=lambda: (events.append("start"), model.boxed_run(inputs)))
        watcher.start()
        while "freed" not in events:
            assert watcher.is_alive()
        assert watcher.is_alive()
        assert inputs == []
        watcher.join()


def test_boxed_run_gives_what_run_gives(more, torch):
    for value in (torch.ones(3, 4), np.ones((3, 4), np.float32)):
        inputs = [value]
        same, plus = more.boxed_run(inputs)
        assert inputs == []
        assert pointer(same) == pointer(value)
        assert plus.tolist() == (value + 1).tolist()
    value.flags.writeable = False
    assert not more.boxed_run([value])[0].flags.writeable
    with pytest.raises(aoti.InputError):
        more.boxed_run(wrong := [torch.ones(3)])
    assert wrong == []


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
def test_outputs_asks_for_a_kind(interop, torch, where):
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
