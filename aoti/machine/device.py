"""Devices: their names, and the description of one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from aoti.errors import DeviceError

TYPES = ("cpu", "cuda", "xpu", "mps")

_MAX_INDEX = 127  # c10::DeviceIndex is a signed byte


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
        `name` is not a valid device.
    """

    type: str
    index: int | None

    def __init__(self, name: str | Device) -> None:
        match = re.fullmatch(r"([a-z]+)(?::(\d{1,3}))?", str(name))
        if not match or match[1] not in TYPES or int(match[2] or 0) > _MAX_INDEX:
            raise DeviceError(
                f"{name!r} is not a device; write 'cpu', 'cuda' or 'cuda:0' "
                f"(known types: {', '.join(TYPES)})"
            )
        if match[1] == "cpu" and match[2] not in (None, "0"):
            raise DeviceError(f"{name!r} is not a device: there is one 'cpu'")
        object.__setattr__(self, "type", match[1])
        index = None if match[2] is None or match[1] == "cpu" else int(match[2])
        object.__setattr__(self, "index", index)

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        return f"Device({str(self)!r})"


class DeviceInfo(NamedTuple):
    """A description of a device.

    Attributes
    ----------
    device : Device
        Its name.
    name : str
        The product name.
    architecture : str
        The machine and its vector instructions; for a GPU ``sm_90`` or ``gfx942``.
    cores : int
        Processors that this process may use; for a GPU its multiprocessors.
    memory_bytes : int
        The size of its memory.
    memory_free_bytes : int or None
        The part of the memory that is free now; None where that is not known.
    driver : str or None
        For a GPU, the version of its driver.
    runtime : str or None
        For a GPU, what the libtorch in use was built for: ``CUDA 13.0``.
    """

    device: Device
    name: str
    architecture: str
    cores: int
    memory_bytes: int
    memory_free_bytes: int | None = None
    driver: str | None = None
    runtime: str | None = None
