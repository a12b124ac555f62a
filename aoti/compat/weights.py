"""Checks that a model's weights are where its code expects them.

They are in the code, behind the code in the same file, or in a file beside it. Where they are
missing, the model loads, and then crashes or computes with zeros.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path

from aoti.compat.finding import Finding
from aoti.package.archive import Span
from aoti.package.elf import SharedObject
from aoti.package.layout import WEIGHTS_START, find_weights, weights_file, weights_size

_IN_SO = "aot_inductor.package_constants_in_so=True"
_MMAP_ALIGNMENT = 0x4000  # _get_constants_start in torch/csrc/inductor/aoti_runtime/model_base.h
_PLAUSIBLE_SIZE = 1 << 48  # bytes; more than this is a pair of floats


def check_weights(
    so: SharedObject,
    directory: Path,
    num_constants: Callable[[], int | None] = lambda: None,
    weights: Span | None = None,
) -> Finding:
    """Check that the weights are where the code expects them.

    Parameters
    ----------
    so : SharedObject
        The model's code. `aoti.package.layout.weights_size` describes how it marks its weights.
    directory : Path
        The model's directory, as for `aoti.compat.binary.check_files`.
    num_constants : callable, optional
        Returns the number of the model's constants, or None. Called only without weights.
    weights : Span, optional
        Where an extraction has its weights (see aoti.cache.weight_file).
    """
    size = weights_size(so)
    if size is None:
        return Finding("weights", True, "the model's code does not say where its weights are")
    start = so.defined[WEIGHTS_START]
    if size in (8, 16):
        wanted = struct.unpack("<Q", so.read(start, 8))[0]
        if size == 8 and wanted < _PLAUSIBLE_SIZE:
            return _blob(so, directory, wanted, weights)
        if size == 16 and 8 <= wanted < _PLAUSIBLE_SIZE:
            return _appended(so, wanted, so.read(start + 8, 8))
    if size > 1:
        return Finding("weights", True, f"the weights are in the model's code: {size} bytes")
    if weights is not None:
        message = f"the weights are in a file: {weights.nbytes} bytes"
        return Finding("weights", True, message)
    if count := num_constants():
        message = f"the package has no weights, and its model has {count} constants"
        return Finding("weights", True, message, "pass them: aoti.load(..., weights=...)")
    return Finding("weights", True, "the package has no weights, as for a model without constants")


def _blob(so: SharedObject, directory: Path, wanted: int, weights: Span | None) -> Finding:
    path = weights_file(so.path)
    if weights is not None:
        path, has = weights.path, weights.nbytes
    else:
        if not path.exists():
            path = find_weights(directory) or path
        has = path.stat().st_size if path.exists() else 0
    if has >= wanted:
        return Finding("weights", True, f"the weights are in a file: {wanted} bytes")
    what = f"that file has {has}" if path.exists() else "there is no such file"
    message = f"the model reads {wanted} bytes of weights from {path.name}, but {what}"
    return Finding("weights", False, message, f"copy the package again, or export it with {_IN_SO}")


def _appended(so: SharedObject, wanted: int, magic: bytes) -> Finding:
    offset = so.size - wanted
    if offset > 0 and offset % _MMAP_ALIGNMENT == 0:
        with so.path.open("rb") as file:
            if os.pread(file.fileno(), 8, so.size - 8) == magic:
                message = f"the weights are behind the model's code: {wanted - 8} bytes"
                return Finding("weights", True, message)
    message = f"the {wanted - 8} bytes of weights behind the model's code are damaged or cut short"
    return Finding("weights", False, message, "copy the package again, or export it again")
