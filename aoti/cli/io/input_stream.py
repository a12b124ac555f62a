"""The inputs of many calls: JSON lines, or the files of a directory."""

from __future__ import annotations

import select
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from aoti.cli.io.array_files import READABLE, read_inputs
from aoti.cli.io.json_arrays import Array, in_order, parse
from aoti.cli.io.limits import check_bytes
from aoti.errors import InputError
from aoti.signature.spec import TensorSpec

_CHUNK = 1 << 16  # bytes


@dataclass(frozen=True, slots=True)
class Request:
    """The inputs of one call, or why they cannot be used.

    Attributes
    ----------
    label : dict of str to object
        ``{"line": 3}`` or ``{"file": "a.npy"}``.
    inputs : list of arrays
        In flat order.
    error : InputError or None
        What is wrong with them.
    """

    label: dict[str, Any]
    inputs: list[Array]
    error: InputError | None = None


def in_lines(source: str, specs: Sequence[TensorSpec] | None) -> Iterator[Request | None]:
    """The requests in a file of JSON lines, or in standard input for ``-``.

    If the next line is not there yet, None is yielded: the caller can process the previous
    requests, and then continue, which waits.

    Raises
    ------
    InputError
        The file cannot be read.
    """
    name = "standard input" if source == "-" else source
    for item in _lines(source, specs):
        if item is None:
            yield None
            continue
        number, line = item
        try:
            yield Request({"line": number}, in_order(parse(line), specs, f"{name}:{number}"))
        except InputError as error:
            yield Request({"line": number}, [], error)
        except ValueError as error:
            yield Request({"line": number}, [], InputError(f"{name}:{number}: {error}"))


def in_directory(source: str, specs: Sequence[TensorSpec] | None) -> Iterator[Request | None]:
    """The requests in the files of a directory, in the order of their names.

    Raises
    ------
    InputError
        The directory does not contain files of arrays.
    """
    try:
        paths = sorted(path for path in Path(source).iterdir() if path.suffix in READABLE)
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror or error}") from error
    if not paths:
        raise InputError(f"{source} does not contain files of arrays ({', '.join(READABLE)})")
    for path in paths:
        try:
            yield Request({"file": path.name}, read_inputs(str(path), specs))
        except InputError as error:
            yield Request({"file": path.name}, [], error)


def _lines(source: str, specs: Sequence[TensorSpec] | None) -> Iterator[tuple[int, bytes] | None]:
    """The lines that are not blank, numbered from 1; None if the next one is not there yet."""
    try:
        if source != "-":
            with Path(source).open("rb", buffering=0) as file:
                yield from _numbered(file, specs)
        elif sys.stdin is None:
            raise InputError("standard input is closed")
        else:
            yield from _numbered(getattr(sys.stdin.buffer, "raw", sys.stdin.buffer), specs)
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror or error}") from error
    except InputError as error:
        raise InputError(f"cannot read {source}: {error}") from error


def _numbered(
    file: IO[bytes], specs: Sequence[TensorSpec] | None
) -> Iterator[tuple[int, bytes] | None]:
    number, parts, held = 1, list[bytes](), 0
    ready = select.poll()
    ready.register(file, select.POLLIN)
    while chunk := file.read(_CHUNK):
        *ends, rest = chunk.split(b"\n")
        for end in ends:
            line = b"".join([*parts, end])
            parts.clear()
            held = 0
            if line.strip():
                yield number, line
            number += 1
        parts.append(rest)
        held += len(rest)
        check_bytes(held, specs, sized=False)
        if not ready.poll(0):
            yield None
    if (line := b"".join(parts)).strip():
        yield number, line
