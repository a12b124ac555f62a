"""The GPUs of a machine, as a driver's library would tell them."""

from __future__ import annotations

import ctypes

import pytest

from aoti.machine.gpu import gpus

UUID = bytes(range(16))


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

    def cuDeviceGetUuid_v2(self, identity, handle):
        identity[:] = UUID
        return 0

    def cuDeviceGetAttribute(self, value, attribute, handle):
        major, minor = self.capability
        value._obj.value = {16: 132, 75: major, 76: minor}[attribute.value]
        return 0


class Management:
    """Stands in for libnvidia-ml.so.1."""

    def __init__(self, prefix="GPU", start=0):
        self.name = f"{prefix}-00010203-0405-0607-0809-0a0b0c0d0e0f".encode()
        self.start = start

    def nvmlInit_v2(self):
        return self.start

    def nvmlSystemGetDriverVersion(self, text, size):
        text.value = b"580.65.06"
        return 0

    def nvmlDeviceGetHandleByUUID(self, name, handle):
        return 0 if name == self.name else 2

    def nvmlDeviceGetMemoryInfo(self, handle, memory):
        memory[:] = 80 << 30, 79 << 30, 1 << 30
        return 0


def nvidia(driver, management=None):
    """Opens the libraries of this driver."""

    def load(name):
        found = {"libcuda.so.1": driver, "libnvidia-ml.so.1": management}[name]
        if found is None:
            raise OSError(f"{name}: cannot open shared object file")
        return found

    return load


@pytest.mark.parametrize(
    ("management", "free", "driver"),
    [
        (Management(), 79 << 30, "580.65.06 (CUDA 12.8)"),
        (Management("MIG"), 79 << 30, "580.65.06 (CUDA 12.8)"),
        (Management("other"), None, "580.65.06 (CUDA 12.8)"),
        (Management(start=9), None, "(CUDA 12.8)"),
        (object(), None, "(CUDA 12.8)"),
        (None, None, "(CUDA 12.8)"),
    ],
)
def test_memory_and_driver_are_told_without_a_context(tmp_path, management, free, driver):
    (found,), _ = gpus(nvidia(Driver(1), management), tmp_path)
    assert (found.memory_bytes, found.memory_free_bytes, found.driver) == (80 << 30, free, driver)


def test_gpus_are_described(tmp_path):
    found, reason = gpus(nvidia(Driver(2)), tmp_path)
    assert reason == ""
    assert [str(gpu.device) for gpu in found] == ["cuda:0", "cuda:1"]
    assert [gpu.name for gpu in found] == ["H100 number 0", "H100 number 1"]
    assert {(g.architecture, g.cores, g.memory_bytes) for g in found} == {("sm_90", 132, 80 << 30)}


def no_driver(name):
    assert name in ("libcuda.so.1", "libnvidia-ml.so.1")
    raise OSError(f"{name}: cannot open shared object file")


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (no_driver, "no GPU driver is installed"),
        (lambda name: Driver(0), "(for CUDA 12.8), but shows no device: look at CUDA_VISIBLE"),
        (lambda name: Driver(2, init=100), "but shows no device"),
        (lambda name: Driver(2, init=803), "different versions"),
        (lambda name: Driver(2, init=77), "failed with error 77"),
        (lambda name: object(), "not a CUDA driver"),
        (lambda name: ctypes.CDLL(None), "not a CUDA driver"),
    ],
)
def test_why_there_is_none(tmp_path, load, expected):
    found, reason = gpus(load, tmp_path / "nothing")
    assert found == ()
    assert expected in reason


@pytest.fixture
def kfd(tmp_path):
    """What the kernel tells of three AMD GPUs, and of how the memory of the first is used."""
    for number, target in enumerate((0, 90402, 90010, 110000)):
        bank = tmp_path / "kfd" / str(number) / "mem_banks/0"
        bank.mkdir(parents=True)
        bank.joinpath("properties").write_text("heap_type 1\nsize_in_bytes 1024\nflags 0\n")
        properties = f"simd_count 8\nsimd_per_cu 4\ngfx_target_version {target}\n"
        properties += f"drm_render_minor {127 + number}\n"
        (tmp_path / "kfd" / str(number) / "properties").write_text(properties)
    used = tmp_path / "drm/renderD128/device/mem_info_vram_used"
    used.parent.mkdir(parents=True)
    used.write_text("24\n")
    return tmp_path / "kfd"


def test_amd_gpus_are_read_from_the_kernel(kfd):
    found, reason = gpus(no_driver, kfd, kfd.parent / "drm", {})
    assert reason == ""
    assert [gpu.memory_free_bytes for gpu in found] == [1000, None, None]
    assert found[0].driver.startswith("amdgpu")
    assert [gpu.architecture for gpu in found] == ["gfx942", "gfx90a", "gfx1100"]
    assert [str(gpu.device) for gpu in found] == ["cuda:0", "cuda:1", "cuda:2"]
    assert {(gpu.cores, gpu.memory_bytes) for gpu in found} == {(2, 1024)}


@pytest.mark.parametrize(
    ("variables", "architectures"),
    [
        ({"HIP_VISIBLE_DEVICES": "2,0"}, ["gfx1100", "gfx942"]),
        ({"CUDA_VISIBLE_DEVICES": "1"}, ["gfx90a"]),
        ({"CUDA_VISIBLE_DEVICES": "1", "HIP_VISIBLE_DEVICES": "0"}, ["gfx942"]),
        ({"ROCR_VISIBLE_DEVICES": "1,2", "HIP_VISIBLE_DEVICES": "1"}, ["gfx1100"]),
        ({"HIP_VISIBLE_DEVICES": "1,-1,0"}, ["gfx90a"]),
        ({"HIP_VISIBLE_DEVICES": ""}, []),
        ({"ROCR_VISIBLE_DEVICES": "GPU-1234"}, ["gfx942", "gfx90a", "gfx1100"]),
    ],
)
def test_amd_gpus_can_be_hidden(kfd, variables, architectures):
    found, _ = gpus(no_driver, kfd, kfd.parent / "drm", variables)
    assert [gpu.architecture for gpu in found] == architectures
    assert [str(gpu.device) for gpu in found] == [f"cuda:{n}" for n in range(len(found))]


def test_this_machine_is_asked_without_harm():
    found, reason = gpus()
    assert bool(found) != bool(reason)
