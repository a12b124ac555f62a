"""The devices that this installation can use, and why it cannot use others."""

from __future__ import annotations

import os

import pytest

import aoti
from aoti.engine.devices import check_device, devices, too_old, usable_gpus
from aoti.engine.libtorch import Libtorch
from aoti.machine.device import DeviceInfo


def test_the_cpu_is_listed():
    (cpu,) = aoti.devices()
    assert str(cpu.device) == "cpu"
    assert cpu.architecture.split()[0] == os.uname().machine
    assert cpu.cores == len(os.sched_getaffinity(0))
    assert cpu.memory_bytes > 2**28
    assert cpu.name


def test_the_cpu_works_and_others_are_told_apart():
    assert check_device("cpu") > 0
    with pytest.raises(aoti.DeviceError, match="cannot use cuda:0; it can use cpu"):
        check_device("cuda:0")


@pytest.mark.parametrize(
    ("driver", "runtime", "expected"),
    [
        ("580.65.06 (CUDA 13.0)", "CUDA 13.0", ""),
        ("575.1 (CUDA 13.0)", "CUDA 13.2", ""),
        ("(CUDA 13.1)", "CUDA 12.6", ""),
        ("550.54 (CUDA 12.4)", "CUDA 13.0", "it is 550.54 (CUDA 12.4), and libtorch is built for"),
        ("amdgpu 6.8", "ROCm 7.1", ""),
        (None, None, ""),
    ],
)
def test_a_driver_that_is_too_old(driver, runtime, expected):
    assert (expected in too_old(driver, runtime)) and bool(expected) == bool(
        too_old(driver, runtime)
    )


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with these GPUs, and a build of aoti on a libtorch for these backends."""

    def machine(found, backend, libtorch="cuda", runtime="13.0"):
        (tmp_path / "version.py").write_text(f"cuda: Optional[str] = {runtime!r}\n")
        torch = Libtorch(tmp_path / "lib", "2.14.1", libtorch, "named by a test")
        monkeypatch.setattr("aoti.engine.backend.chosen", lambda: (torch, backend))
        monkeypatch.setattr(
            "aoti.engine.devices.gpus", lambda: (found, "" if found else "no driver is here")
        )

    return machine


def card(architecture, driver="580.65.06 (CUDA 13.0)"):
    return DeviceInfo(aoti.Device("cuda:0"), "A Card", architecture, 1, 1, driver=driver)


def test_a_build_for_gpus_lists_them(machine):
    machine((card("sm_90"),), "cuda")
    cpu, gpu = devices()
    assert (str(cpu.device), str(gpu.device)) == ("cpu", "cuda:0")
    assert (gpu.runtime, gpu.driver) == ("CUDA 13.0", "580.65.06 (CUDA 13.0)")
    assert usable_gpus()[1] == ""
    with pytest.raises(aoti.DeviceError, match=r"cannot use cuda:1; it can use cpu, cuda:0$"):
        check_device("cuda:1")


@pytest.mark.parametrize(
    ("found", "backend", "reason"),
    [
        ((), "cuda", "no driver is here"),
        ((card("sm_90"),), "cpu", "this build of aoti is for the CPU"),
        ((card("gfx942"),), "cuda", "is for cuda, and the GPU here is a A Card"),
        ((card("sm_90"),), "rocm", "is for rocm, and the GPU here is a A Card"),
        ((card("sm_90", "550.54 (CUDA 12.4)"),), "cuda", "the driver is too old"),
    ],
)
def test_why_no_gpu_can_be_used(machine, found, backend, reason):
    machine(found, backend)
    assert [str(info.device) for info in devices()] == ["cpu"]
    assert reason in usable_gpus()[1]
    with pytest.raises(aoti.DeviceError, match=f"cannot use cuda:0; it can use cpu: .*{reason}"):
        check_device("cuda:0")
