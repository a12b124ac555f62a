"""The devices that this installation can run models on: what libtorch and the drivers allow."""

from __future__ import annotations

import re
import time

from aoti.engine import backend, libtorch
from aoti.engine._core import _device
from aoti.errors import DeviceError, ExecutionError
from aoti.machine.cpu import cpu_info
from aoti.machine.device import Device, DeviceInfo
from aoti.machine.gpu import gpus

_TEST_SIZE = 1 << 20  # ones to add up: 4 MiB, and still exact in float32


def devices() -> tuple[DeviceInfo, ...]:
    """The devices that this installation can run models on.

    Returns
    -------
    tuple of DeviceInfo
        The CPU, then the GPUs that this build of aoti can use. ``aoti test-device cuda`` reports
        why there are none.

    Notes
    -----
    In a build for GPUs their driver is initialised: a child that is forked later cannot use them.
    """
    return (cpu_info(), *usable_gpus()[0])


def usable_gpus() -> tuple[tuple[DeviceInfo, ...], str]:
    """The GPUs that this build of aoti can run models on.

    Returns
    -------
    found : tuple of DeviceInfo
        As from `aoti.machine.gpu.gpus`, with what libtorch was built for.
    reason : str
        Why there is none; empty if there is one.
    """
    engine = backend.chosen()
    if engine is None:
        return (), "no libtorch fits"
    libtorch, kind = engine
    if kind == "cpu":
        return (), "this build of aoti is for the CPU, and models on a GPU need one for that"
    found, reason = gpus()
    runtime = backend.runtime_of(libtorch)
    fitting = [gpu for gpu in found if gpu.architecture.startswith("gfx") == (kind == "rocm")]
    if found and not fitting:
        return (), f"this build of aoti is for {kind}, and the GPU here is a {found[0].name}"
    if fitting and (why := too_old(fitting[0].driver, runtime)):
        return (), why
    return tuple(gpu._replace(runtime=runtime) for gpu in fitting), reason


def too_old(driver: str | None, runtime: str | None) -> str:
    """Why a driver does not run what was built for this version of CUDA; empty if it does.

    Within a major version of CUDA, older drivers run what newer toolkits built.
    """
    knows = re.search(r"CUDA (\d+)", driver or "")
    wants = re.fullmatch(r"CUDA (\d+)\.\d+", runtime or "")
    if not knows or not wants or int(knows[1]) >= int(wants[1]):
        return ""
    return (
        f"the driver is too old: it is {driver}, and libtorch is built for {runtime}; update the "
        f"driver, or install a torch for CUDA {knows[1]}"
    )


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
    device = Device(name)
    if device.type != "cpu":
        found, reason = usable_gpus()
        available = [Device("cpu"), *(info.device for info in found)]
        if device not in (*available, *(Device("cuda") for _ in found[:1])):
            listed = ", ".join(map(str, available))
            why = f": {reason}" if reason and device.type == "cuda" else ""
            raise DeviceError(f"this installation cannot use {device}; it can use {listed}{why}")
    device = start_device(device)
    start = time.perf_counter_ns()
    try:
        total = _add_up(device)
    except ExecutionError as error:
        raise DeviceError(f"{device} failed: {error}") from error
    if total != _TEST_SIZE:
        raise DeviceError(f"{device} computes wrong results: {_TEST_SIZE} ones sum up to {total}")
    return (time.perf_counter_ns() - start) / 1e6


def _add_up(device: Device) -> float:
    if device.type != "cpu":
        return _device.check_device(str(device), _TEST_SIZE)
    import numpy as np

    return float(np.ones(_TEST_SIZE, np.float32).sum())


def start_device(device: Device) -> Device:
    """Load what a device needs of libtorch, and return the device with its number.

    Raises
    ------
    LibtorchError
        There is no libtorch that fits, or this build is not for GPUs.
    DeviceError
        libtorch cannot use the device.
    """
    if device.type == "cpu":
        return device
    libtorch.engine()
    backend.load()
    try:
        return Device(_device.find_device(str(device)))
    except DeviceError as error:
        _, reason = usable_gpus()
        if not reason:
            raise
        raise DeviceError(f"{device} cannot be used: {reason}") from error
