"""Loads shared libraries without holding the GIL."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path


def open_library(path: str | Path) -> ctypes.CDLL:
    """Load a library without the GIL: other threads would wait until it is loaded.

    Raises
    ------
    OSError
        It cannot be loaded, with the loader's reason.
    """
    mode = os.RTLD_NOW | os.RTLD_LOCAL
    # As a foreign function, dlopen runs without the GIL, which CDLL keeps. CDLL then finds it
    # loaded, or says why not.
    ctypes.CDLL(None).dlopen(os.fsencode(path), mode)
    return ctypes.CDLL(str(path), mode=mode)
