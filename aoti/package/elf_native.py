"""Binds a shared object of a package to the native engine instead of libtorch.

The code imports libtorch's functions by name, and names ``libtorch_cpu.so`` as a library that it
needs. In the copy that the native engine loads, both are changed in place, inside ``.dynstr``, to
names of the same length that only aoti's own library defines. So nothing in the code can bind to a
libtorch that is loaded in the same process, whichever was loaded first and with whichever flags.
Symbols that a file does not define are in none of its hash tables, so nothing else changes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from aoti.errors import PackageError
from aoti.package.elf_tables import (
    DT_STRTAB,
    DT_SYMTAB,
    Names,
    Part,
    Tables,
    dynamic_without,
)

LIBRARY = "libaoti_cpu.so"  # not longer than libtorch_cpu.so
_OWN = "libtorch_cpu.so"
# The beginnings of names that libtorch defines and compiled code imports, and the native engine's:
# csrc/aoti/native/shim/symbols.h. The last one is the namespace at::native::cpublas, mangled.
_PREFIXES = {
    b"aoti_torch_": b"aotinative_",
    b"Sleef_": b"aotis_",
    b"_ZN2at6native7cpublas": b"_ZN4aoti6native5cblas",
}
_OF_TORCH = ("libtorch", "libc10")
_SHN_UNDEF = 0


def native_name(symbol: str) -> str | None:
    """The name by which the native engine would define a symbol; None if it cannot."""
    for prefix, ours in _PREFIXES.items():
        if symbol.startswith(prefix.decode()):
            return ours.decode() + symbol[len(prefix) :]
    return None


class _Change(NamedTuple):
    """Bytes to write into the string table: at an offset, in place of as many."""

    offset: int
    text: bytes


def bind(path: Path) -> None:
    """Bind a shared object to the native engine, in place.

    Parameters
    ----------
    path : Path
        A shared object that `aoti.package.elf_loadable.make_loadable` has accepted.

    Raises
    ------
    PackageError
        It is not linked to ``libtorch_cpu.so``, or shares a part of a name that must be changed
        with another name.
    """
    with path.open("r+b") as file:
        part = Part(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        tables = Tables.of(path, part, part.read(64, 0))
        names = Names(tables.image, tables.entries)
        strings = tables.image.offset(tables.entries[DT_STRTAB])
        changes = _changes(tables, names)
        dynamic = _without_libtorch(tables, names)
        for change in changes:
            file.seek(strings + change.offset)
            file.write(change.text)
        file.seek(tables.image.offset(tables.dynamic.address))
        file.write(dynamic)


def _changes(tables: Tables, names: Names) -> list[_Change]:
    """What to change in the string table."""
    changes, others = [], set()
    for name, section in _symbols(tables):
        prefix = next((p for p in _PREFIXES if names.table.startswith(p, name)), None)
        if prefix is None or section != _SHN_UNDEF:
            others.add(name)
        else:
            changes.append(_Change(name, _PREFIXES[prefix]))
    for needed in tables.needed:
        if names.at(needed) == _OWN:
            changes.append(_Change(needed, LIBRARY.encode().ljust(len(_OWN), b"\0")))
        else:
            others.add(needed)
    for _, library, version in tables.needed_versions():
        others.update((library, version))
    touched = {place for start, text in changes for place in range(start, start + len(text))}
    inside = any(names.table[start - 1] for start, _ in changes if start)
    if inside or not touched.isdisjoint(others):
        raise PackageError(
            f"{tables.image.path.name} shares the names of libtorch's functions with other names; "
            "load it with engine='libtorch'"
        )
    return changes


def _symbols(tables: Tables) -> Iterator[tuple[int, int]]:
    """The offset of each symbol's name, and the section that defines it."""
    table = tables.image.at(tables.entries[DT_SYMTAB], 24 * tables.symbol_count())
    for name, _, _, section, _, _ in struct.iter_unpack("<IBBHQQ", table):
        yield name, section


def _without_libtorch(tables: Tables, names: Names) -> bytes:
    """The dynamic section, with the native engine as the only library of libtorch's."""
    libraries = [names.at(value) for value in tables.needed]
    if _OWN not in libraries:
        raise PackageError(
            f"{tables.image.path.name} is not linked to {_OWN}, in whose place the native engine "
            "would be; export it with aot_inductor.link_libtorch=True"
        )
    of_torch = [n for n, library in enumerate(libraries) if library.startswith(_OF_TORCH)]
    return dynamic_without(tables, [n for n in of_torch if n != libraries.index(_OWN)])
