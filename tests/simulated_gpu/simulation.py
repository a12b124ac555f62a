"""Starts the simulated GPUs of gpu.cpp, in a process that has run nothing yet."""

from __future__ import annotations

import ctypes
import json
import sys
import zipfile
from pathlib import Path

import numpy as np

import aoti
from aoti.compat import binary, platform
from aoti.engine import backend, devices, libtorch
from aoti.machine.device import DeviceInfo

GPUS = tuple(
    DeviceInfo(aoti.Device(f"cuda:{index}"), "Simulated GPU", "sm_90", 1, 1 << 32)
    for index in range(2)
)


def for_gpu(source: Path, target: Path) -> Path:
    """The same package as one for a GPU."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            if info.filename.endswith("_metadata.json"):
                record = json.loads(content)
                record |= {"AOTI_DEVICE_KEY": "cuda", "AOTI_COMPUTE_CAPABILITY": "90"}
                if signature := record.get("aoti.signature"):
                    record["aoti.signature"] = signature.replace('"cpu"', '"cuda"')
                content = json.dumps(record).encode()
            elif info.filename.endswith("wrapper.cpp"):
                content = content.replace(b"_device_type = 0", b"_device_type = 1")
                content = content.replace(b"_device_type_cpu", b"_device_type_cuda")
            new.writestr(info, content)
    return target


def start(library: str) -> ctypes.CDLL:
    """Bring the GPUs into this process."""
    libtorch.engine()
    gpus = ctypes.CDLL(library)
    gpus.gpu_start()
    gpus.gpu_stream.restype = ctypes.c_void_p
    gpus.gpu_waiting.argtypes = (ctypes.c_void_p,)
    gpus.gpu_waiting.restype = ctypes.c_size_t
    gpus.gpu_allocated.restype = ctypes.c_longlong
    backend.load = lambda: None
    platform.gpus = binary.gpus = lambda: (GPUS, "")
    devices.usable_gpus = lambda: (GPUS, "")
    return gpus


def on(device: str, array: np.ndarray) -> aoti.Tensor:
    """An array's copy on a device."""
    return aoti.Tensor.from_dlpack(Host(array)).moved(device)


class Host:
    """An array of a library that has nothing but DLPack."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)


class Foreign:
    """A library's array on a device, whose library works on a stream of its own."""

    def __init__(self, tensor: aoti.Tensor) -> None:
        self.tensor = tensor
        self.asked: list[object] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.tensor.__dlpack_device__()

    def __dlpack__(self, *, stream=None, **options):
        self.asked.append(stream)
        return self.tensor.__dlpack__(stream=stream, **options)


if __name__ == "__main__":
    for_gpu(Path(sys.argv[1]), Path(sys.argv[2]))
