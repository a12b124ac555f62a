"""The GPUs of this machine, as their drivers report them. No toolkit is needed.

Used for packages that need a GPU. Nothing here raises, and no context is created, which would take
hundreds of megabytes of each device.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aoti.machine.device import Device, DeviceInfo

# cuda.h: results, and attributes of a device.
_NO_DEVICE = 100
_ERRORS = {
    3: "the driver was shut down",
    34: "a stub replaces the driver: libcuda.so is that of the toolkit, not of the driver",
    802: "the driver is not ready (on NVSwitch machines, the fabric manager must run)",
    803: "the driver's library and its kernel module have different versions",
    804: "the driver's compatibility library does not support this GPU",
    999: "the driver failed to start; after an update, restart the machine",
}
_MULTIPROCESSORS, _MAJOR, _MINOR = 16, 75, 76
_MAX_GPUS = 128  # c10::DeviceIndex is a signed byte
_KFD = Path("/sys/class/kfd/kfd/topology/nodes")
_DRM = Path("/sys/class/drm")
_AMDGPU = Path("/sys/module/amdgpu/version")


def gpus(
    load: Callable[[str], Any] = ctypes.CDLL,
    kfd: Path = _KFD,
    drm: Path = _DRM,
    env: Mapping[str, str] = os.environ,
) -> tuple[tuple[DeviceInfo, ...], str]:
    """The GPUs that this process can see.

    Parameters
    ----------
    load : callable
        Opens a library by name, or raises OSError.
    kfd, drm : Path
        Where the driver of AMD GPUs describes the GPUs and their memory.
    env : mapping of str to str
        The environment, which can hide AMD GPUs.

    Returns
    -------
    found : tuple of DeviceInfo
        Their architecture is such as ``sm_90`` or ``gfx942``. Their cores are multiprocessors.
    reason : str
        Why there is none; empty if there is one.

    Notes
    -----
    Initialises the CUDA driver, if there is one: it reads CUDA_VISIBLE_DEVICES, and a child that is
    forked later cannot use CUDA.
    """
    cuda = _opened(load, "libcuda.so.1")
    found: tuple[DeviceInfo, ...] = ()
    reason = "no GPU driver is installed"
    if cuda is not None:
        found, reason = _nvidia(cuda, _Management(_opened(load, "libnvidia-ml.so.1")))
    if not found:
        found = _amd(kfd, drm, env)
    return found, "" if found else reason


def _opened(load: Callable[[str], Any], name: str) -> Any:
    try:
        return load(name)
    except OSError:
        return None


class _Management:
    """NVIDIA's management library, which reports versions and free memory without a context.

    Signatures: NVML, chapters on initialisation, system queries and device queries.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        try:
            self.driver = self._driver()
        except (AttributeError, OSError):
            self._library, self.driver = None, ""

    def _driver(self) -> str:
        text = ctypes.create_string_buffer(96)
        if self._library is None or self._library.nvmlInit_v2():
            self._library = None
            return ""
        self._library.nvmlSystemGetDriverVersion(text, ctypes.c_uint(len(text) - 1))
        return text.value.decode("utf-8", "replace")

    def free(self, uuid: bytes) -> int | None:
        """Free bytes of the device with this identity."""
        memory, handle = (ctypes.c_ulonglong * 3)(), ctypes.c_void_p()
        text = f"{uuid[:4].hex()}-{uuid[4:6].hex()}-{uuid[6:8].hex()}-{uuid[8:10].hex()}-"
        text += uuid[10:].hex()
        try:
            # A part of a GPU (MIG) has its own name.
            for name in (f"GPU-{text}", f"MIG-{text}") if self._library is not None else ():
                found = self._library.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(handle))
                if not found and not self._library.nvmlDeviceGetMemoryInfo(handle, memory):
                    return memory[1]  # total, free, used
        except (AttributeError, OSError):
            pass
        return None


def _nvidia(cuda: Any, management: _Management) -> tuple[tuple[DeviceInfo, ...], str]:
    """Signatures: CUDA driver API, chapters on initialisation, version and device management."""
    number, version = ctypes.c_int(), ctypes.c_int()
    try:
        cuda.cuDriverGetVersion(ctypes.byref(version))  # works without cuInit
        driver = f"{management.driver} (CUDA {_cuda(version.value)})".strip()
        there = f"the NVIDIA driver is there (for CUDA {_cuda(version.value)})"
        result = cuda.cuInit(ctypes.c_uint(0)) or cuda.cuDeviceGetCount(ctypes.byref(number))
        if result == _NO_DEVICE or (result == 0 and number.value < 1):
            return (), f"{there}, but shows no device: look at CUDA_VISIBLE_DEVICES and nvidia-smi"
        if result:
            return (), f"{there}, but {_ERRORS.get(result, f'it failed with error {result}')}"
        count = min(number.value, _MAX_GPUS)
        found = [_nvidia_gpu(cuda, index, management, driver) for index in range(count)]
        return tuple(found), ""
    except (AttributeError, OSError) as error:  # a library that is not a CUDA driver
        return (), f"libcuda.so.1 is not a CUDA driver: {error}"


def _nvidia_gpu(cuda: Any, index: int, management: _Management, driver: str) -> DeviceInfo:
    handle, memory, name = ctypes.c_int(index), ctypes.c_size_t(), ctypes.create_string_buffer(256)
    identity = (ctypes.c_ubyte * 16)()
    cuda.cuDeviceGet(ctypes.byref(handle), ctypes.c_int(index))
    cuda.cuDeviceGetName(name, ctypes.c_int(len(name) - 1), handle)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
    cuda.cuDeviceGetUuid_v2(identity, handle)
    values = []
    for attribute in (_MULTIPROCESSORS, _MAJOR, _MINOR):
        value = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(value), ctypes.c_int(attribute), handle)
        values.append(value.value)
    return DeviceInfo(
        device=Device(f"cuda:{index}"),
        name=name.value.decode("utf-8", "replace") or "GPU without a name",
        architecture=f"sm_{values[1]}{values[2]}",
        cores=values[0],
        memory_bytes=memory.value,
        memory_free_bytes=management.free(bytes(identity)),
        driver=driver,
    )


def _cuda(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def _amd(kfd: Path, drm: Path, env: Mapping[str, str]) -> tuple[DeviceInfo, ...]:
    """The GPUs that the kernel describes, which does not take the libraries of ROCm."""
    found: list[DeviceInfo] = []
    try:
        driver = _AMDGPU.read_text(encoding="utf-8").strip()
    except OSError:
        driver = ""  # the kernel's own driver, which has no version
    try:
        nodes = sorted(kfd.iterdir(), key=lambda node: (len(node.name), node.name))
        for node in nodes[: 2 * _MAX_GPUS]:
            text = (node / "properties").read_text(encoding="utf-8", errors="replace")
            values = {key: int(value) for key, value in re.findall(r"^(\w+) (\d+)$", text, re.M)}
            target = values.get("gfx_target_version", 0)  # 90402: major 9, minor 4, stepping 2
            if not target:
                continue  # a CPU
            memory = 0
            for bank in (node / "mem_banks").glob("*/properties"):
                memory += sum(
                    map(int, re.findall(r"^size_in_bytes (\d+)$", bank.read_text(), re.M))
                )
            architecture = f"gfx{target // 10000}{target // 100 % 100:x}{target % 100:x}"
            used = drm / f"renderD{values.get('drm_render_minor')}/device/mem_info_vram_used"
            found.append(
                DeviceInfo(
                    device=Device("cuda"),
                    name=f"AMD {architecture}",
                    architecture=architecture,
                    cores=values.get("simd_count", 0) // max(values.get("simd_per_cu", 1), 1),
                    memory_bytes=memory,
                    memory_free_bytes=memory - int(used.read_text()) if used.exists() else None,
                    driver=f"amdgpu {driver}".strip(),
                )
            )
    except (OSError, ValueError):
        pass
    # The runtime applies the first variable, and then HIP's to the GPUs that are left. It accepts
    # CUDA's in place of HIP's.
    found = _visible(found, env.get("ROCR_VISIBLE_DEVICES"))
    of_hip = env.get("HIP_VISIBLE_DEVICES", env.get("CUDA_VISIBLE_DEVICES"))
    found = _visible(found, of_hip)[:_MAX_GPUS]
    return tuple(gpu._replace(device=Device(f"cuda:{n}")) for n, gpu in enumerate(found))


def _visible(found: list[DeviceInfo], chosen: str | None) -> list[DeviceInfo]:
    """The GPUs in a list of numbers; all GPUs if the list has another form."""
    if chosen is None or not re.fullmatch(r"[\d\s,-]*", chosen):
        return found
    numbers = [int(text) for text in chosen.split(",") if text.strip().lstrip("-").isdigit()]
    end = next((n for n, number in enumerate(numbers) if not 0 <= number < len(found)), None)
    return [found[number] for number in numbers[:end]]
