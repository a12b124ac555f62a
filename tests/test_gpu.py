"""The GPUs of a machine, as a driver's library would tell them."""

from __future__ import annotations

import ctypes

import pytest

from aoti.gpu import gpus


class Driver:
    """Stands in for libcuda.so.1: answers through the pointers that it is given."""

    def __init__(self, count=0, init=0, capability=(9, 0)):
        self.count, self.init, self.capability = count, init, capability

    def cuInit(self, flags):
        assert flags.value == 0
        return self.init

    def cuDriverGetVersion(self, version):
        version._obj.value = 12080
        return 0

    def cuDeviceGetCount(self, count):
        count._obj.value = self.count
        return 0

    def cuDeviceGet(self, handle, index):
        handle._obj.value = index.value
        return 0

    def cuDeviceGetName(self, name, size, handle):
        assert size.value < len(name)
        name.value = b"H100 number %d" % handle.value
        return 0

    def cuDeviceTotalMem_v2(self, memory, handle):
        memory._obj.value = 80 << 30
        return 0

    def cuDeviceGetAttribute(self, value, attribute, handle):
        major, minor = self.capability
        value._obj.value = {16: 132, 75: major, 76: minor}[attribute.value]
        return 0


def test_gpus_are_described(tmp_path):
    found, reason = gpus(lambda name: Driver(2), tmp_path)
    assert reason == ""
    assert [str(gpu.device) for gpu in found] == ["cuda:0", "cuda:1"]
    assert [gpu.name for gpu in found] == ["H100 number 0", "H100 number 1"]
    assert {(g.architecture, g.cores, g.memory_bytes) for g in found} == {("sm_90", 132, 80 << 30)}


def no_driver(name):
    assert name == "libcuda.so.1"
    raise OSError(f"{name}: cannot open shared object file")


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (no_driver, "no GPU driver is installed"),
        (lambda name: Driver(0), "(for CUDA 12.8), but shows no device: look at CUDA_VISIBLE"),
        (lambda name: Driver(2, init=100), "but shows no device"),
        (lambda name: Driver(2, init=803), "different versions"),
        (lambda name: Driver(2, init=77), "failed with error 77"),
        (lambda name: object(), "no driver of CUDA"),
        (lambda name: ctypes.CDLL(None), "no driver of CUDA"),
    ],
)
def test_why_there_is_none(tmp_path, load, expected):
    found, reason = gpus(load, tmp_path / "nothing")
    assert found == ()
    assert expected in reason


def test_amd_gpus_are_read_from_the_kernel(tmp_path):
    for number, target in enumerate((0, 90402, 90010, 110000)):
        bank = tmp_path / str(number) / "mem_banks/0"
        bank.mkdir(parents=True)
        bank.joinpath("properties").write_text("heap_type 1\nsize_in_bytes 1024\nflags 0\n")
        properties = f"simd_count 8\nsimd_per_cu 4\ngfx_target_version {target}\n"
        (tmp_path / str(number) / "properties").write_text(properties)
    found, reason = gpus(no_driver, tmp_path)
    assert reason == ""
    assert [gpu.architecture for gpu in found] == ["gfx942", "gfx90a", "gfx1100"]
    assert [str(gpu.device) for gpu in found] == ["cuda:0", "cuda:1", "cuda:2"]
    assert {(gpu.cores, gpu.memory_bytes) for gpu in found} == {(2, 1024)}


def test_this_machine_is_asked_without_harm():
    found, reason = gpus()
    assert bool(found) != bool(reason)
