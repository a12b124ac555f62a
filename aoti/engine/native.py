"""Loads the native engine, which runs packages without libtorch, and knows which ones it can run.

The engine is a shared library of aoti's own. It defines the functions that compiled code imports,
under names that no other library has (`aoti.package.elf_native`).
"""

from __future__ import annotations

import ctypes
import logging
import threading
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

from aoti.engine.dlopen import open_library
from aoti.errors import EngineError
from aoti.package.elf import Undefined
from aoti.package.elf_native import LIBRARY, native_name
from aoti.package.layout import CONTAINER, RUN_FUNCTIONS

_PATH = Path(__file__).parent / "_native" / LIBRARY
_CAPSULE = b"aoti_engine"  # a capsule keeps the pointer to its name

# What csrc/aoti/native/code.cpp looks up.
_CALLED = (
    *RUN_FUNCTIONS,
    f"{CONTAINER}GetNumInputs",
    f"{CONTAINER}ExtractConstantsMap",
    f"{CONTAINER}UpdateUserManagedConstantBuffer",
    f"{CONTAINER}SwapConstantBuffer",
    f"{CONTAINER}FreeInactiveConstantBuffer",
    f"{CONTAINER}RunConstantFolding",
)

_log = logging.getLogger("aoti.native")
_lock = threading.Lock()
_loaded: tuple[ctypes.CDLL, object] | None = None


def _load() -> tuple[ctypes.CDLL, object]:
    global _loaded  # noqa: PLW0603
    if _loaded is None:
        with _lock:
            if _loaded is None:
                library = _open()
                _loaded = library, _add(library)
                _log.info("native engine %s", _PATH)
    return _loaded


def _open() -> ctypes.CDLL:
    if not _PATH.exists():
        raise EngineError(
            "aoti has no native engine here. Build it: pip install --no-build-isolation ."
        )
    try:
        return open_library(_PATH)
    except OSError as error:
        raise EngineError(
            f"the native engine cannot be loaded: {error}; install the libraries that it needs "
            "(Debian's are libgomp1 and libstdc++6)"
        ) from error


def _add(library: ctypes.CDLL) -> object:
    from aoti.engine._core import _device

    table = library.aoti_native_engine
    table.restype = ctypes.c_void_p
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = (
        ctypes.py_object,
        (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p),
    )
    capsule: object = make(table(), _CAPSULE, None)
    _device.add_engine(capsule)
    return capsule


def engine() -> Any:
    """The native engine, loaded on the first call: a capsule for the core.

    Safe to call from several threads.

    Raises
    ------
    EngineError
        This installation does not have it, or the system lacks a library that it needs.
    """
    return _load()[1]


def serves(symbol: str) -> bool:
    """Whether the engine defines a function that compiled code imports, by libtorch's name for it.

    Loads the engine. Raises EngineError as `engine` does.
    """
    name = native_name(symbol)
    return name is not None and hasattr(_load()[0], name)


def lacking(defined: Container[str]) -> list[str]:
    """The functions that the engine calls and code does not have."""
    return [name for name in _CALLED if name not in defined]


def missing(symbols: Iterable[Undefined]) -> list[str]:
    """The functions of libtorch that code imports and the native engine does not define.

    Those with a version belong to other libraries.
    """
    plain = (symbol.name for symbol in symbols if symbol.version is None and not symbol.weak)
    return sorted(name for name in plain if not serves(name))
