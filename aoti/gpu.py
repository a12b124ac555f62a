"""The GPUs of this machine, as their drivers tell, without any of their toolkits.

Called where a package asks for a GPU. Nothing here raises, and no context is created: that would
take hundreds of megabytes of each device.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aoti.device import Device, DeviceInfo

# cuda.h: results, and attributes of a device.
_NO_DEVICE = 100
_ERRORS = {
    3: "the driver was shut down",
    34: "a stub stands in for the driver: libcuda.so of the toolkit, not of the driver",
    802: "the driver is not ready (on NVSwitch machines, the fabric manager must run)",
    803: "the driver's library and its kernel module have different versions",
    804: "the driver's compatibility library does not support this GPU",
    999: "the driver failed to start; after an update, restart the machine",
}
_MULTIPROCESSORS, _MAJOR, _MINOR = 16, 75, 76
_MAX_GPUS = 128  # c10::DeviceIndex is a signed byte
_KFD = Path("/sys/class/kfd/kfd/topology/nodes")


def gpus(
    load: Callable[[str], Any] = ctypes.CDLL, kfd: Path = _KFD
) -> tuple[tuple[DeviceInfo, ...], str]:
    """The GPUs that this process can see.

    Parameters
    ----------
    load : callable
        Opens a library by name, or raises OSError.
    kfd : Path
        Where the driver of AMD GPUs describes them.

    Returns
    -------
    found : tuple of DeviceInfo
        Their architecture is as in ``sm_90`` or ``gfx942``, their cores are multiprocessors.
    reason : str
        Why there is none; empty if there is one.

    Notes
    -----
    Initialises the CUDA driver, where there is one: CUDA_VISIBLE_DEVICES has its say then, and a
    child that is forked later cannot use CUDA.
    """
    try:
        cuda = load("libcuda.so.1")
    except OSError:
        cuda = None
    found, reason = _nvidia(cuda) if cuda is not None else ((), "no GPU driver is installed")
    return (found, "") if found else ((amd, "") if (amd := _amd(kfd)) else ((), reason))


def _nvidia(cuda: Any) -> tuple[tuple[DeviceInfo, ...], str]:
    """Signatures: CUDA driver API, chapters on initialisation, version and device management."""
    number, version = ctypes.c_int(), ctypes.c_int()
    try:
        cuda.cuDriverGetVersion(ctypes.byref(version))  # works without cuInit
        driver = f"the NVIDIA driver is there (for CUDA {_cuda(version.value)})"
        result = cuda.cuInit(ctypes.c_uint(0)) or cuda.cuDeviceGetCount(ctypes.byref(number))
        if result == _NO_DEVICE or (result == 0 and number.value < 1):
            return (), f"{driver}, but shows no device: look at CUDA_VISIBLE_DEVICES and nvidia-smi"
        if result:
            return (), f"{driver}, but {_ERRORS.get(result, f'it failed with error {result}')}"
        count = min(number.value, _MAX_GPUS)
        return tuple(_nvidia_gpu(cuda, index) for index in range(count)), ""
    except (AttributeError, OSError) as error:  # a library that is no CUDA driver
        return (), f"libcuda.so.1 is no driver of CUDA: {error}"


def _nvidia_gpu(cuda: Any, index: int) -> DeviceInfo:
    handle, memory, name = ctypes.c_int(index), ctypes.c_size_t(), ctypes.create_string_buffer(256)
    cuda.cuDeviceGet(ctypes.byref(handle), ctypes.c_int(index))
    cuda.cuDeviceGetName(name, ctypes.c_int(len(name) - 1), handle)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
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
    )


def _cuda(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def _amd(kfd: Path) -> tuple[DeviceInfo, ...]:
    """From the kernel's own description: the libraries of ROCm need not be there to read it.

    HIP_VISIBLE_DEVICES and its like have no say in it.
    """
    found: list[DeviceInfo] = []
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
            found.append(
                DeviceInfo(
                    device=Device(f"cuda:{len(found)}"),
                    name=f"AMD {architecture}",
                    architecture=architecture,
                    cores=values.get("simd_count", 0) // max(values.get("simd_per_cu", 1), 1),
                    memory_bytes=memory,
                )
            )
    except (OSError, ValueError):
        pass
    return tuple(found[:_MAX_GPUS])
