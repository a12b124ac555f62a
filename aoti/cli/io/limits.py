"""How many bytes are read for a call: not more than its model takes, so that every read ends."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from typing import IO

from aoti.errors import InputError
from aoti.signature.spec import Dim, TensorSpec

_CHUNK = 1 << 20  # bytes
_PER_ELEMENT = 64  # bytes, in JSON with blanks, which is the longest form
_BESIDES = 1 << 20  # bytes: headers, names, and elements too many, for which there is an error
_STREAM = 1 << 30  # bytes of a pipe, a device or a line


def most_bytes(specs: Sequence[TensorSpec] | None, *, sized: bool) -> tuple[int, str]:
    """How many bytes may be read for one call, and what sets this limit, for people.

    Parameters
    ----------
    specs : sequence of TensorSpec, or None
        The inputs of the model.
    sized : bool
        Whether the size of the source is known before it is read.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [(memory, "the memory of this machine")]
    if not sized:
        limits.append((_STREAM, "the limit for pipes, devices and lines; pass a file"))
    counts = [_most_elements(spec) for spec in specs] if specs is not None else [None]
    known = [count for count in counts if count is not None]
    if len(known) == len(counts):
        limits.append((sum(known) * _PER_ELEMENT + _BESIDES, "more than the model's inputs take"))
    return min(limits)


def bounded(file: IO[bytes], specs: Sequence[TensorSpec] | None) -> IO[bytes]:
    """A file whose content ends: the same file, or its content in memory if its size is not known.

    Raises
    ------
    InputError
        It has more bytes than `most_bytes`.
    """
    if size := os.fstat(file.fileno()).st_size:
        check_bytes(size, specs)
        return file
    most, _ = most_bytes(specs, sized=False)  # of a pipe, a device, or what the kernel makes up
    content = bytearray()
    while len(content) <= most and (chunk := file.read(_CHUNK)):
        content += chunk
    check_bytes(len(content), specs, sized=False)
    return io.BytesIO(content)


def check_bytes(count: int, specs: Sequence[TensorSpec] | None, *, sized: bool = True) -> None:
    """Check a number of bytes against `most_bytes`.

    Raises
    ------
    InputError
        It is larger.
    """
    most, limit = most_bytes(specs, sized=sized)
    if count > most:
        raise InputError(f"it has more than {most / 1e6:.1f} MB, {limit}")


def _most_elements(spec: TensorSpec) -> int | None:
    """The largest number of elements of an input; None if it is not known."""
    if spec.shape is None:
        return None
    sizes = [size.max if isinstance(size, Dim) else size for size in spec.shape]
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None
