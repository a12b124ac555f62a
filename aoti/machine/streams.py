"""Streams of other libraries, as handles of their backends."""

from __future__ import annotations

from typing import Any

from aoti.errors import ConfigError
from aoti.machine.device import Device


def handle_of(stream: Any, device: Device) -> int:
    """The handle of a stream: a ``cudaStream_t`` or ``hipStream_t`` as a number.

    Parameters
    ----------
    stream : int or object
        The handle itself, where 0 and 1 are the default stream and 2 is CUDA's per-thread stream;
        an object with ``__cuda_stream__`` (https://nvidia.github.io/cuda-python); or a stream of
        torch or cupy.
    device : Device
        The device that the stream must belong to.

    Raises
    ------
    ConfigError
        It is not a stream, or belongs to another device.
    """
    kind = type(stream)
    number = getattr(getattr(stream, "device", None), "index", None)  # torch's
    if number is None:
        number = getattr(stream, "device_id", None)  # cupy's; -1 for its default ones
    if isinstance(number, int) and number >= 0 and number != (device.index or 0):
        raise ConfigError(f"the stream belongs to cuda:{number}, but the model runs on {device}")
    handle: Any = stream
    if hasattr(kind, "__cuda_stream__"):
        _version, handle = stream.__cuda_stream__()
    else:
        for name in ("cuda_stream", "native_handle", "ptr"):
            if hasattr(kind, name) or hasattr(stream, name):
                handle = getattr(stream, name)
                break
    if isinstance(handle, bool) or not isinstance(handle, int) or handle < 0:
        raise ConfigError(
            f"a stream must be a handle as an int, a torch or cupy stream, or an object with "
            f"__cuda_stream__, not {kind.__name__}"
        )
    return handle
