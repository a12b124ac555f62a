"""Any object that holds an array, as a numpy array or an `aoti.Tensor` over the same memory."""

from __future__ import annotations

import contextlib
import errno
import operator
import os
from typing import TYPE_CHECKING, Any

from aoti._text import printable
from aoti.engine._core._capsules import check_capsule
from aoti.engine._core._tensor import Tensor
from aoti.errors import InputError, InputTypeError

if TYPE_CHECKING:
    from aoti.signature.spec import TensorSpec

# DLDeviceType of dlpack.h
_DEVICES = {1: "cpu", 2: "cuda", 3: "cuda_host", 4: "opencl", 7: "vulkan", 8: "metal", 9: "vpi"}
_DEVICES |= {10: "rocm", 11: "rocm_host", 12: "an extension", 13: "cuda_managed", 14: "oneapi"}
_HOST = (1, 3, 11)


def place_of(value: Any) -> str | None:
    """The device that an array names as its own, as ``cuda:0``; None if it names none.

    numpy's arrays name none: they can only lie on the host.
    """
    kind = type(value)
    if kind.__module__.partition(".")[0] == "numpy" or not hasattr(kind, "__dlpack_device__"):
        return None
    try:
        number, index = map(operator.index, value.__dlpack_device__())
        # PyTorch, and so aoti, calls the GPUs of ROCm cuda too.
        name = "cuda" if number == 10 else _DEVICES.get(number, f"DLPack device type {number}")
        return "cpu" if number in _HOST else f"{name}:{index}"
    except Exception:  # whatever it raises, importing it says why
        return None


def as_array(value: Any, wanted: TensorSpec, path: str) -> Any:
    """A numpy array or an `aoti.Tensor` over the memory of `value`.

    What an object says of its memory is checked as far as that goes without its elements. An array
    of DLPack has sizes and strides that stay within the addresses that there are. An array of an
    ``__array_interface__`` lies in the buffer that it names; if it names an address, the process
    can read its first and its last byte.

    Raises
    ------
    InputTypeError
        It is not an array.
    InputError
        It cannot be read where it is: it lies on another device, or cannot be shared.
    """
    import numpy as np

    # By its type: an object may say anything of its __class__, and raise anything if it is asked.
    kind = type(value)
    if issubclass(kind, np.ma.MaskedArray):
        raise InputTypeError(f"{path}: a model does not take masks; pass the array's .filled(...)")
    if issubclass(kind, Tensor):
        return value
    if issubclass(kind, np.ndarray | np.generic):
        return np.asarray(value)  # without a subclass, which may mean something else by its data
    if hasattr(kind, "__dlpack__"):
        return _through_numpy(value, wanted, path)
    try:
        if isinstance(interface := getattr(value, "__array_interface__", None), dict):
            return _of_interface(value, interface)
        return np.asarray(memoryview(value))
    except TypeError:
        pass
    except Exception as error:
        raise InputTypeError(
            f"{path}: expected {wanted}; the {type_name(value)} cannot be read: {_words(error)}"
        ) from error
    raise InputTypeError(
        f"{path}: expected an array, {wanted}; got {type_name(value)}. "
        f"Pass np.asarray(..., {wanted.dtype or 'dtype'!r})"
    )


class _Interface:
    """An object that has an ``__array_interface__`` alone, and keeps the owner of the memory."""

    def __init__(self, interface: dict[str, Any], owner: object = None) -> None:
        self.__array_interface__ = interface
        self.owner = owner


def _of_interface(value: Any, interface: dict[str, Any]) -> Any:
    """A numpy array over the memory that an ``__array_interface__`` describes."""
    import numpy as np

    data = interface.get("data")
    if data is None:
        data = value
    array = np.asarray(_Interface({**interface, "data": data}, value))
    if array.dtype.hasobject:
        raise ValueError("its elements are Python objects")
    if not isinstance(data, tuple):  # a buffer, whose size numpy checks here
        offset = interface.get("offset", 0)
        return np.ndarray(array.shape, array.dtype, data, offset, array.strides)
    first = last = array.__array_interface__["data"][0]
    for size, step in zip(array.shape, array.strides, strict=True):
        first += min((size - 1) * step, 0)
        last += max((size - 1) * step, 0)
    if array.size and not (_readable(first) and _readable(last + array.itemsize - 1)):
        raise ValueError("the process cannot read the memory that it names")
    return array


def _readable(address: int) -> bool:
    """Whether the process can read a byte: write(2) refuses those that it cannot."""
    import numpy as np

    if not 0 < address < 1 << 64:
        return False
    interface = {"version": 3, "typestr": "|u1", "shape": (1,), "data": (address, True)}
    pipe = os.pipe()
    try:
        return os.write(pipe[1], np.asarray(_Interface(interface)).data) == 1
    except OSError as error:
        if error.errno != errno.EFAULT:
            raise
        return False
    finally:
        for end in pipe:
            os.close(end)


class _Checked:
    """An array for numpy, which believes a capsule: the core checks the capsule first."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __dlpack_device__(self) -> Any:
        return self.value.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> Any:
        capsule = self.value.__dlpack__(**options)
        check_capsule(capsule)
        return capsule


def _through_numpy(value: Any, wanted: TensorSpec, path: str) -> Any:
    """What the core could not take by DLPack: with negative strides, numpy can. Else say why."""
    import numpy as np

    where = place_of(value)
    if where not in (None, "cpu"):
        if wanted.device not in (None, "cpu"):
            raise InputTypeError(
                f"{path}: expected {wanted}; the {type_name(value)} on {where} cannot be "
                "shared; pass a copy in C order"
            )
        raise InputError(
            f"{path}: the model runs on the cpu, and this {type_name(value)} lies on {where}; "
            f"move it to the cpu first: {wanted}"
        )
    try:
        return np.from_dlpack(_Checked(value))
    except Exception as error:
        reason = error
    where = ""
    if hasattr(type(value), "device"):
        with contextlib.suppress(Exception):
            where = f" on {printable(value.device):.40}"
    raise InputTypeError(
        f"{path}: expected {wanted}; the {type_name(value)}{where} cannot be shared: "
        f"{_words(reason)}. "
        f"Pass {'its .numpy()' if hasattr(type(value), 'numpy') else 'it as a numpy array'}"
    ) from reason


def _words(error: Exception) -> str:
    """The first line of what an error of other code says."""
    try:
        text = printable(str(error).partition("\n")[0])
    except Exception:
        text = ""
    return text[:200].rstrip(".") or type(error).__name__


def type_name(value: object) -> str:
    """What messages call the type of an array: ``torch.Tensor``."""
    kind = type(value)
    root = kind.__module__.partition(".")[0]
    return kind.__name__ if root == "builtins" else f"{root}.{kind.__name__}"


def dtype_of(array: Any) -> str:
    """The name of an array's dtype, as numpy and torch spell it: ``float32``."""
    return str(getattr(array.dtype, "name", array.dtype)).removeprefix("torch.")
