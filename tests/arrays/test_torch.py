"""Tensors of torch: shared, copied where they must be, and never kept too long."""

from __future__ import annotations

import gc
import re
import sys
import threading
import weakref

import numpy as np
import pytest

import aoti

FLOATS = "float32 float64 float16 complex64 complex128"
INTEGERS = "bool uint8 int8 int16 int32 int64 uint16 uint32 uint64"


def test_torch_tensors_come_back_as_torch_tensors_over_the_same_memory(more, torch):
    x = torch.arange(12.0).reshape(3, 4)
    same, plus = more(x)
    assert type(same) is type(plus) is torch.Tensor
    assert same.data_ptr() == x.data_ptr()
    assert torch.equal(plus, x + 1)
    assert plus.data_ptr() != x.data_ptr()
    plus += 1  # ours to write to


@pytest.mark.parametrize("name", (FLOATS + " " + INTEGERS).split())
def test_every_dtype_of_torch_is_shared_both_ways(packages, torch, name, pointer):
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
def test_ml_dtypes_arrays_go_in_and_out(interop, torch, pointer):
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


def test_a_pending_negation_of_a_contiguous_tensor_is_computed(mlp, torch):
    x = torch.randn(4, 10)
    negated, expected = torch._neg_view(x), mlp(-x)
    assert negated.is_contiguous()
    assert mlp.plan(negated)[0].action == "copied"
    for result in (
        mlp(negated),
        mlp.run([negated])[0],
        mlp.boxed_run([negated])[0],
        mlp.submit(negated).result(10),
    ):
        assert torch.equal(result, expected)
    with pytest.raises(aoti.InputError, match="negation of it is still to be computed"):
        mlp.bind(negated)
    out = torch.zeros(4, 1)
    with pytest.raises(aoti.InputTypeError, match=r"out\[0\]"):
        mlp(x, out=torch._neg_view(out))
    assert not out.any()


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


def test_boxed_run_gives_what_run_gives(more, torch, pointer):
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
