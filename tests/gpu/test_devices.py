"""Devices, memory, weights, and what is said where something does not fit."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import aoti
from aoti.engine.devices import check_device


def test_devices_are_listed_and_work(torch):
    cpu, *gpus = aoti.devices()
    assert str(cpu.device) == "cpu"
    assert len(gpus) == torch.cuda.device_count()
    for number, gpu in enumerate(gpus):
        properties = torch.cuda.get_device_properties(number)
        assert str(gpu.device) == f"cuda:{number}"
        assert gpu.name == properties.name or gpu.architecture.startswith("gfx")
        assert gpu.cores == properties.multi_processor_count
        assert gpu.memory_bytes >= properties.total_memory * 0.9
        assert gpu.memory_free_bytes is None or 0 < gpu.memory_free_bytes <= gpu.memory_bytes
        assert gpu.driver
        assert gpu.runtime
    assert check_device("cuda:0") > 0
    with pytest.raises(aoti.DeviceError, match="cannot use cuda:99"):
        check_device("cuda:99")


def test_memory_returns_when_a_model_is_closed(gpu_packages, examples, torch):
    def cycle() -> None:
        with aoti.load(gpu_packages / "mlp.pt2", num_runners=2) as model:
            model(examples["mlp"])
            model.update_weights(model.extract_constants())

    cycle()
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    allocated, (free, _) = torch.cuda.memory_allocated(), torch.cuda.mem_get_info()
    for _ in range(5):
        cycle()
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated() == allocated
    # Code of kernels stays loaded (libtorch never unloads it), in steps of some megabytes.
    assert free - torch.cuda.mem_get_info()[0] < 64 << 20


def test_weights_can_be_replaced_by_host_arrays(mlp, examples, torch):
    assert {constant.device for constant in mlp.constants} == {"cuda"}
    x, weights = examples["mlp"], mlp.extract_constants()
    before = mlp(x)
    assert not bool((before == before[0]).all())
    zeros = {name: value * 0 for name, value in weights.items()}
    mlp.update_weights(zeros)
    assert bool((mlp(x) == mlp(x)[0]).all()), "nothing of the input counts any more"
    mlp.rollback()
    torch.testing.assert_close(mlp(x), before)
    mlp.load_constants({name: torch.from_numpy(value).cuda() for name, value in zeros.items()})
    assert bool((mlp(x) == mlp(x)[0]).all())
    mlp.load_constants(weights)
    torch.testing.assert_close(mlp(x), before)


def test_what_lies_elsewhere_is_refused(mlp, rows, torch):
    with pytest.raises(
        aoti.InputError, match=r"runs on cuda:0, and this torch\.Tensor lies on cpu"
    ):
        mlp(torch.from_numpy(rows))
    if torch.cuda.device_count() > 1:
        with pytest.raises(aoti.InputError, match="lies on cuda:1; move it to cuda:0"):
            mlp(torch.from_numpy(rows).to("cuda:1"))


def test_models_on_several_gpus(gpu_packages, rows, wanted, torch):
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU")
    with (
        aoti.load(gpu_packages / "mlp.pt2", device="cuda:1") as one,
        aoti.load(gpu_packages / "mlp.pt2", device_index=0) as zero,
    ):
        for model in (one, zero):
            np.testing.assert_allclose(model(rows), wanted, rtol=1e-4, atol=1e-5)
        assert str(one(torch.from_numpy(rows).to("cuda:1")).device) == "cuda:1"
        assert torch.cuda.current_device() == 0


@pytest.mark.parametrize(
    ("capability", "words"),
    [("999", "kernels are for 999"), ("gfx000", "kernels are for gfx000")],
)
def test_another_architecture_is_refused(gpu_packages, tmp_path, capability, words):
    with (
        zipfile.ZipFile(gpu_packages / "mlp.pt2") as old,
        zipfile.ZipFile(tmp_path / "other.pt2", "w") as new,
    ):
        for info in old.infolist():
            content = old.read(info)
            if info.filename.endswith("_metadata.json"):
                record = json.loads(content)
                content = json.dumps({**record, "AOTI_COMPUTE_CAPABILITY": capability}).encode()
            new.writestr(info, content)
    with pytest.raises(aoti.IncompatiblePackageError, match=words):
        aoti.load(tmp_path / "other.pt2")


def test_hidden_gpus_are_none(gpu_packages):
    program = "import sys, aoti; print(aoti.devices()); aoti.load(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", program, gpu_packages / "mlp.pt2"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "IncompatiblePackageError" in done.stderr
    assert "needs a GPU, and there is none" in done.stderr
    assert "cuda:0" not in done.stdout


def test_a_model_on_the_cpu_does_not_load_the_gpus_libraries(modules, tmp_path, torch):
    module = torch.nn.Sequential(torch.nn.Linear(10, 1)).eval()
    aoti.export(module, (torch.randn(2, 10),), path=tmp_path / "cpu.pt2", in_process=True)
    program = """
import sys, numpy as np, aoti
aoti.load(sys.argv[1])(np.ones((2, 10), np.float32))
maps = open("/proc/self/maps").read()
assert "libtorch_cpu" in maps and "libtorch_cuda" not in maps and "libtorch_hip" not in maps
"""
    subprocess.run([sys.executable, "-c", program, tmp_path / "cpu.pt2"], check=True)


@pytest.mark.parametrize(
    "option", ["aot_inductor.embed_kernel_binary", "aot_inductor.emit_multi_arch_kernel"]
)
def test_ways_to_keep_kernels(modules, examples, tmp_path, torch, option):
    try:
        aoti.export(
            modules["mlp"], (examples["mlp"],), path=tmp_path / "m.pt2", options={option: True}
        )
    except aoti.ExportError as error:
        if "nvcc" not in str(error):
            raise
        pytest.skip("needs the toolkit's compiler")
    with aoti.load(tmp_path / "m.pt2") as model, torch.no_grad():
        torch.testing.assert_close(
            model(examples["mlp"]), modules["mlp"](examples["mlp"]), rtol=1e-4, atol=1e-5
        )
