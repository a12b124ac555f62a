"""Any object that holds an array, as a numpy array or an `aoti.Tensor` over the same memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
        number, index = value.__dlpack_device__()
    except Exception:  # whatever it raises, importing it says why
        return None
    if number in _HOST:
        return "cpu"
    # PyTorch, and so aoti, calls the GPUs of ROCm cuda too.
    name = "cuda" if number == 10 else _DEVICES.get(number, f"DLPack device type {number}")
    return f"{name}:{index}"


def as_array(value: Any, wanted: TensorSpec, path: str) -> Any:
    """A numpy array or an `aoti.Tensor` over the memory of `value`.

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
        if isinstance(getattr(value, "__array_interface__", None), dict):
            return np.asarray(value)
        return np.asarray(memoryview(value))
    except TypeError:
        pass
    except Exception as error:
        raise InputTypeError(
            f"{path}: expected {wanted}; the {type_name(value)} cannot be read: {error}"
        ) from error
    raise InputTypeError(
        f"{path}: expected an array, {wanted}; got {type_name(value)}. "
        f"Pass np.asarray(..., {wanted.dtype or 'dtype'!r})"
    )


def _through_numpy(value: Any, wanted: TensorSpec, path: str) -> Any:
    """What the core could not take by DLPack: with negative strides, numpy can. Else say why."""
    import numpy as np

    try:
        number, index = value.__dlpack_device__()
    except Exception as error:
        reason, number = error, None
    else:
        if number in _HOST:
            try:
                return np.from_dlpack(value)
            except Exception as error:
                reason = error
        else:
            where = f"{_DEVICES.get(number, f'DLPack device type {number}')}:{index}"
            if wanted.device not in (None, "cpu"):
                raise InputTypeError(
                    f"{path}: expected {wanted}; the {type_name(value)} on {where} cannot be "
                    "shared; pass a copy in C order"
                )
            raise InputError(
                f"{path}: the model runs on the cpu, and this {type_name(value)} lies on {where}; "
                f"move it to the cpu first: {wanted}"
            )
    where = f" on {value.device}" if hasattr(type(value), "device") else ""
    first = str(reason).partition("\n")[0] or type(reason).__name__
    raise InputTypeError(
        f"{path}: expected {wanted}; the {type_name(value)}{where} cannot be shared: {first}. "
        f"Pass {'its .numpy()' if hasattr(type(value), 'numpy') else 'it as a numpy array'}"
    ) from reason


def type_name(value: object) -> str:
    """What messages call the type of an array: ``torch.Tensor``."""
    kind = type(value)
    root = kind.__module__.partition(".")[0]
    return kind.__name__ if root == "builtins" else f"{root}.{kind.__name__}"


def dtype_of(array: Any) -> str:
    """The name of an array's dtype, as numpy and torch spell it: ``float32``."""
    return str(getattr(array.dtype, "name", array.dtype)).removeprefix("torch.")
