"""Devices: how they are named, and what this machine offers."""

from __future__ import annotations

import functools
import os
import re
import time
from dataclasses import dataclass

from aoti.engine import libtorch
from aoti.engine._core import _device
from aoti.errors import DeviceError, ExecutionError

TYPES = ("cpu", "cuda", "xpu", "mps")

# What of /proc/cpuinfo tells which compiled packages run: the vector instructions.
_ISA_FLAGS = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "asimd",
    "sve",
)


_MAX_INDEX = 127  # c10::DeviceIndex is a signed byte
_TEST_SIZE = 1 << 20  # ones to add up: 4 MiB, and still exact in float32


@dataclass(frozen=True, slots=True)
class Device:
    """A device by name: ``cpu``, ``cuda`` (the current one) or ``cuda:1``.

    ROCm devices are named ``cuda`` too, as everywhere in PyTorch.

    Parameters
    ----------
    name : str
        The name as above.

    Attributes
    ----------
    type : str
        The part before the colon.
    index : int or None
        The number after it; None if there is none.

    Raises
    ------
    DeviceError
        The name is none of a device.
    """

    type: str
    index: int | None

    def __init__(self, name: str | Device) -> None:
        match = re.fullmatch(r"([a-z]+)(?::(\d{1,3}))?", str(name))
        if not match or match[1] not in TYPES or int(match[2] or 0) > _MAX_INDEX:
            raise DeviceError(
                f"{name!r} is no device; write 'cpu', 'cuda' or 'cuda:0' "
                f"(known types: {', '.join(TYPES)})"
            )
        if match[1] == "cpu" and match[2] not in (None, "0"):
            raise DeviceError(f"{name!r} is no device: there is one 'cpu'")
        object.__setattr__(self, "type", match[1])
        index = None if match[2] is None or match[1] == "cpu" else int(match[2])
        object.__setattr__(self, "index", index)

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        return f"Device({str(self)!r})"


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What is known of a device.

    Attributes
    ----------
    device : Device
        Its name.
    name : str
        What its maker calls it.
    architecture : str
        The machine and its vector instructions; of a GPU ``sm_90`` or ``gfx942``.
    cores : int
        Processors that this process may use; of a GPU its multiprocessors.
    memory_bytes : int
        All of its memory.
    memory_free_bytes : int or None
        What of it nobody uses now; None where that is not told.
    driver : str or None
        The version of its driver, of a GPU.
    runtime : str or None
        What the libtorch in use was built for, of a GPU: ``CUDA 13.0``.
    """

    device: Device
    name: str
    architecture: str
    cores: int
    memory_bytes: int
    memory_free_bytes: int | None = None
    driver: str | None = None
    runtime: str | None = None


@functools.cache
def cpu_flags() -> frozenset[str]:
    """The CPU's features, as /proc/cpuinfo calls them; empty where the system does not tell.

    That is what the kernel read by CPUID or from the hardware's registers, without what it masked:
    a register set that the kernel does not save must not be used, whatever CPUID says.
    """
    match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    return frozenset(match[1].split()) if match else frozenset()


def devices() -> tuple[DeviceInfo, ...]:
    """The devices that this installation can run models on.

    Returns
    -------
    tuple of DeviceInfo
        The CPU, then the GPUs that a build of aoti for them can use. ``aoti test-device cuda`` says
        why there are none.

    Notes
    -----
    In a build for GPUs their driver is initialised: a child that is forked later cannot use them.
    """
    from aoti.machine.gpu import usable_gpus

    return (_cpu(), *usable_gpus()[0])


def check_device(name: str | Device) -> float:
    """Allocate on a device, compute, wait for the result and check it.

    Parameters
    ----------
    name : str or Device
        The device.

    Returns
    -------
    float
        Milliseconds that it took, the first use of the device included.

    Raises
    ------
    DeviceError
        The device does not exist, this installation cannot use it, or it computes wrong results.
    LibtorchError
        There is no libtorch that fits.
    """
    from aoti.machine.gpu import usable_gpus

    device = Device(name)
    if device.type != "cpu":
        found, reason = usable_gpus()
        available = [Device("cpu"), *(info.device for info in found)]
        if device not in (*available, *(Device("cuda") for _ in found[:1])):
            listed = ", ".join(map(str, available))
            why = f": {reason}" if reason and device.type == "cuda" else ""
            raise DeviceError(f"this installation cannot use {device}; it can use {listed}{why}")
    libtorch.engine()
    device = start_device(device)
    start = time.perf_counter_ns()
    try:
        total = _device.check_device(str(device), _TEST_SIZE)
    except ExecutionError as error:
        raise DeviceError(f"{device} failed: {error}") from error
    if total != _TEST_SIZE:
        raise DeviceError(f"{device} computes wrong results: {_TEST_SIZE} ones sum up to {total}")
    return (time.perf_counter_ns() - start) / 1e6


def start_device(device: Device) -> Device:
    """Load what a device needs of libtorch; give the device with its number.

    Raises
    ------
    LibtorchError
        There is no libtorch that fits, or this build is not for GPUs.
    DeviceError
        libtorch cannot use it.
    """
    libtorch.engine()
    if device.type == "cpu":
        return device
    from aoti.engine import backend
    from aoti.machine.gpu import usable_gpus

    backend.load()
    try:
        return Device(_device.find_device(str(device)))
    except DeviceError as error:
        _, reason = usable_gpus()
        if not reason:
            raise
        raise DeviceError(f"{device} cannot be used: {reason}") from error


def _cpu() -> DeviceInfo:
    match = re.search(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    flags = cpu_flags()
    isa = [flag for flag in _ISA_FLAGS if flag in flags]
    return DeviceInfo(
        device=Device("cpu"),
        name=match[1].strip() if match else os.uname().machine,
        architecture=" ".join([os.uname().machine, *isa]),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        memory_free_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES"),
    )


def _cpuinfo() -> str:
    """The first processors' part of /proc/cpuinfo: the whole takes long where there are many."""
    try:
        with open("/proc/cpuinfo", "rb", buffering=0) as file:  # noqa: PTH123
            return file.read(8192).decode("utf-8", "replace")
    except OSError:
        return ""
