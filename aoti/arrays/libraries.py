"""The kinds of arrays that go in and come out, and what to say of values that are none.

Kinds other than numpy are told by their types, without importing the libraries that they are of:
whoever has such an array has imported its library.

Which kind comes out: that of the inputs. numpy gives way to the others; where several others are
mixed, the first in flat order decides. An array of a library that is not named here comes back as
`aoti.Tensor`; buffers, scalars and a call without inputs give numpy.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aoti.errors import ConfigError, InputError, InputTypeError

if TYPE_CHECKING:
    from aoti.signature.spec import TensorSpec

# What the core makes a Kind of: name, a function from aoti.Tensor to the array, whether its memory
# must not be written to, whether it has torch's lazy conjugation, its C functions for DLPack.
Found = tuple[str, Callable[[Any], Any] | None, bool, bool, Any]

NAMES = ("numpy", "torch", "jax", "cupy", "dlpack")

# DLDeviceType of dlpack.h
_DEVICES = {1: "cpu", 2: "cuda", 3: "cuda_host", 4: "opencl", 7: "vulkan", 8: "metal", 9: "vpi"}
_DEVICES |= {10: "rocm", 11: "rocm_host", 12: "an extension", 13: "cuda_managed", 14: "oneapi"}
_HOST = (1, 3, 11)


def find(array_type: type) -> Found | None:
    """The kind of arrays of this type; None for numpy's and for what has no ``__dlpack__``."""
    roots = [base.__module__.partition(".")[0] for base in array_type.__mro__]
    if "numpy" in roots or not hasattr(array_type, "__dlpack__"):
        return None
    if array_type.__module__ == "aoti._core":
        return "dlpack", None, False, False, None
    if "torch" in roots and (torch := sys.modules.get("torch")) is not None:
        # A subclass may mean something else by its data, and says so in its own __dlpack__.
        plain = array_type in (torch.Tensor, torch.nn.Parameter)
        return _torch(torch, array_type if plain else None)
    if {"jax", "jaxlib"} & set(roots) and (found := _by_function("jax")):
        return found
    if "cupy" in roots and (found := _by_function("cupy")):
        return found
    exchange = array_type.__dict__.get("__dlpack_c_exchange_api__")
    return "dlpack", None, False, False, exchange


def named(name: str) -> Found | None:
    """The kind that ``outputs=`` asks for; None for numpy.

    Raises
    ------
    ConfigError
        There is no such kind, or its library was not imported.
    """
    if name not in NAMES:
        raise ConfigError(f"outputs={name!r}: known are {', '.join(map(repr, NAMES))}")
    if name == "numpy":
        return None
    if name == "dlpack":
        return "dlpack", None, False, False, None
    if name == "torch":
        torch = sys.modules.get("torch")
        found = None if torch is None else _torch(torch, torch.Tensor)
    else:
        found = _by_function(name)
    if found is None:
        raise ConfigError(f"outputs={name!r}: import {name} first; aoti does not import it itself")
    return found


def _torch(torch: Any, array_type: type | None) -> Found:
    exchange = getattr(array_type, "__dlpack_c_exchange_api__", None)
    # torch has no read-only tensors: what must not be written to is copied.
    return "torch", _from_dlpack(torch), False, exchange is not None, exchange


def _from_dlpack(torch: Any) -> Callable[[Any], Any]:
    def wrap(tensor: Any) -> Any:
        return torch.from_dlpack(tensor, copy=True if tensor.readonly else None)

    return wrap


def _by_function(name: str) -> Found | None:
    library = sys.modules.get(name)
    if library is None:
        return None
    wrap = library.dlpack.from_dlpack if name == "jax" else library.from_dlpack
    # jax counts on its arrays never changing, and does not set DLPack's flag for it.
    return name, wrap, name == "jax", False, None


def place_of(value: Any) -> str | None:
    """The device that an array says it lies on, as ``cuda:0``; None where it says nothing.

    numpy's arrays say nothing: they can only lie on the host, and do not choose that.
    """
    kind = type(value)
    if kind.__module__.partition(".")[0] == "numpy" or not hasattr(kind, "__dlpack_device__"):
        return None
    try:
        number, index = value.__dlpack_device__()
    except Exception:  # whatever it raises, taking it over will tell
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
        It is no array.
    InputError
        It cannot be read where it is: it lies on another device, or cannot be shared.
    """
    import numpy as np

    # By its type: an object may say anything of its __class__, and raise anything if it is asked.
    kind = type(value)
    if issubclass(kind, np.ma.MaskedArray):
        raise InputTypeError(f"{path}: models know no masks; pass the array's .filled(...)")
    if kind.__module__ == "aoti._core":
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
