"""Streams of other libraries, by the handles that their backends know them by."""

from __future__ import annotations

from typing import Any

from aoti.errors import ConfigError
from aoti.machine.device import Device


def handle_of(stream: Any, device: Device) -> int:
    """The handle of a stream: a ``cudaStream_t`` or ``hipStream_t`` as a number.

    Parameters
    ----------
    stream : int or object
        The handle itself, where 0 and 1 are the default stream and 2 is CUDA's per-thread one; or
        what has ``__cuda_stream__`` (https://nvidia.github.io/cuda-python), a torch stream or a
        cupy one.
    device : Device
        The device that the stream must be of.

    Raises
    ------
    ConfigError
        It is no stream, or one of another device.
    """
    kind = type(stream)
    number = getattr(getattr(stream, "device", None), "index", None)  # torch's
    if number is None:
        number = getattr(stream, "device_id", None)  # cupy's; -1 for its default ones
    if isinstance(number, int) and number >= 0 and number != (device.index or 0):
        raise ConfigError(f"the stream is one of cuda:{number}, and the model runs on {device}")
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
            f"a stream is its handle as an int, a torch or cupy stream, or what has "
            f"__cuda_stream__; not this {kind.__name__}"
        )
    return handle
