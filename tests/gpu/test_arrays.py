"""Arrays on the GPU and on the host, of every library, in and out."""

from __future__ import annotations

import numpy as np
import pytest

import aoti

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.mark.parametrize("name", ["mlp", "conv", "same", "lookup"])
def test_results_equal_eager(gpu_packages, modules, examples, torch, name):
    with aoti.load(gpu_packages / f"{name}.pt2") as model, torch.no_grad():
        got, expected = model(examples[name]), modules[name](examples[name])
    for one, other in zip(
        got.values() if isinstance(got, dict) else (got,),
        expected.values() if isinstance(expected, dict) else (expected,),
        strict=True,
    ):
        assert one.device == other.device
        torch.testing.assert_close(one, other, **CLOSE)


def test_a_stock_package_runs(gpu_packages, rows, wanted):
    with aoti.load(gpu_packages / "stock.pt2") as model:
        x = np.concatenate([rows, rows, rows[:2]])
        np.testing.assert_allclose(model(x)[:3], wanted, **CLOSE)


def test_golden_values_and_warm_up(gpu_packages):
    aoti.load(gpu_packages / "mlp.pt2", self_test=True, warmup=True).close()


def test_numpy_goes_up_and_comes_back(mlp, rows, wanted):
    got = mlp(rows)
    assert type(got) is np.ndarray
    np.testing.assert_allclose(got, wanted, **CLOSE)
    np.testing.assert_allclose(mlp(np.asfortranarray(rows)), wanted, **CLOSE)
    out = np.empty_like(wanted)
    assert mlp(rows, out=out) is out
    np.testing.assert_allclose(out, wanted, **CLOSE)
    (plan,) = mlp.plan(rows)
    assert "is taken to cuda:0" in plan.reason


def test_torch_shares_its_memory(gpu_packages, torch):
    x = torch.randn(3, 4, device="cuda:0")
    with aoti.load(gpu_packages / "same.pt2") as model:
        got = model(x)
        assert got["same"].data_ptr() == x.data_ptr()
        torch.testing.assert_close(got["more"], x + 1)
        (plan,) = model.plan(x)
        assert plan.action == "shared"
    del model
    torch.testing.assert_close(got["more"], x + 1)


def test_what_is_not_laid_out_as_wanted_is_copied_on_the_gpu(mlp, modules, torch):
    wide = torch.randn(10, 6, device="cuda:0")
    for x in (wide.t(), wide.t()[::2], torch.randn(3, 20, device="cuda:0")[:, ::2]):
        (plan,) = mlp.plan(x)
        assert plan.action == "copied"
        with torch.no_grad():
            torch.testing.assert_close(mlp(x), modules["mlp"](x), **CLOSE)


def test_misaligned_inputs(mlp, modules, torch):
    x = torch.randn(31, device="cuda:0")[1:].view(3, 10)
    assert x.data_ptr() % 16
    with torch.no_grad():
        torch.testing.assert_close(mlp(x), modules["mlp"](x), **CLOSE)


def test_cupy(gpu_packages, rows, wanted, mlp):
    cupy = pytest.importorskip("cupy")
    x = cupy.asarray(rows)
    got = mlp(x)
    assert isinstance(got, cupy.ndarray)
    np.testing.assert_allclose(got.get(), wanted, **CLOSE)
    with aoti.load(gpu_packages / "same.pt2") as model:
        small = cupy.ones((3, 4), "float32")
        assert model(small)["same"].data.ptr == small.data.ptr
    stream = cupy.cuda.Stream(non_blocking=True)
    got = mlp(x, stream=stream)
    stream.synchronize()
    np.testing.assert_allclose(got.get(), wanted, **CLOSE)


def test_jax(gpu_packages, rows, wanted, mlp, monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    jax = pytest.importorskip("jax")
    if jax.default_backend() != "gpu":
        pytest.skip("jax sees no GPU")
    x = jax.numpy.asarray(rows)
    got = mlp(x)
    assert isinstance(got, jax.Array)
    np.testing.assert_allclose(np.asarray(got), wanted, **CLOSE)
    with aoti.load(gpu_packages / "same.pt2") as model:
        small = jax.numpy.ones((3, 4), "float32")
        same = model(small)["same"]
        assert same.unsafe_buffer_pointer() == small.unsafe_buffer_pointer()


def test_tensors_of_our_own(mlp, rows, wanted, torch):
    got = mlp.run([rows], outputs="dlpack")[0]
    assert (got.device, got.__dlpack_device__()[1]) == ("cuda:0", 0)
    np.testing.assert_allclose(got.numpy(), wanted, **CLOSE)
    np.testing.assert_allclose(torch.from_dlpack(got).cpu(), wanted, **CLOSE)
    with pytest.raises(TypeError, match="lies on cuda:0"):
        np.asarray(got)


def test_indices_from_the_host_are_checked(gpu_packages):
    with aoti.load(gpu_packages / "lookup.pt2") as model:
        with pytest.raises(aoti.InputError, match="expected values in"):
            model(np.array([0, 5, 1]))
        assert model(np.array([0, 4, 1])).shape == (3, 4)


def test_bound_calls_and_measured_ones(mlp, rows, wanted, torch):
    x = torch.from_numpy(rows).cuda()
    out = torch.empty(3, 1, device="cuda:0")
    bound = mlp.bind(x, out=out)
    assert bound() is out
    np.testing.assert_allclose(out.cpu(), wanted, **CLOSE)
    x.zero_()
    assert not np.allclose(bound().cpu(), wanted)
    result = mlp.infer([rows])
    np.testing.assert_allclose(result.outputs[0], wanted, **CLOSE)
    assert result.memory_bytes > 0
