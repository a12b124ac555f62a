"""The array libraries whose arrays go in and come out, found without importing them.

Whoever passes an array has imported its library. The outputs of a call are of the library of its
inputs. If inputs mix libraries, the first one that is not numpy determines the output type. An
array of a library that is not listed here comes back as `aoti.Tensor`; buffers, scalars and a call
without inputs give numpy.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from aoti.engine._core import _library
from aoti.errors import ConfigError

# The parameters of an ArrayLibrary: name, a function from aoti.Tensor to the array, whether the
# memory must not be written to, whether it has torch's lazy conjugation, and its C functions for
# DLPack.
Found = tuple[str, Callable[[Any], Any] | None, bool, bool, Any]

NAMES = ("numpy", "torch", "jax", "cupy", "dlpack")


def find(array_type: type) -> Found | None:
    """The library of arrays of this type; None for numpy's and for types without ``__dlpack__``."""
    roots = [base.__module__.partition(".")[0] for base in array_type.__mro__]
    if "numpy" in roots or not hasattr(array_type, "__dlpack__"):
        return None
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
    """The library that ``outputs=`` asks for; None for numpy.

    Raises
    ------
    ConfigError
        There is no such library, or it was not imported.
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


_library.register(find, named)
