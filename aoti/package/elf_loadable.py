"""Refuses a shared object whose numbers would crash the process that loads it.

The dynamic loader trusts every number in a file: it follows addresses without looking where they
lead, and writes where relocations tell it to. The checks are those that glibc leaves out
(elf/dl-load.c, elf/dl-version.c, elf/dl-lookup.c, elf/dynamic-link.h, sysdeps/*/dl-machine.h). What
glibc refuses by itself, with words, is left to glibc.

The checks do not find a changed instruction. They do not find a pointer or a name that was changed
to another valid value either: such a file is well-formed. How much room thread-local variables need
is checked if the file has section headers, as compilers write them. A pin protects from all of this
(`aoti.load`).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from aoti.errors import PackageError
from aoti.package.elf import drop_libtorch, forbid_executable_stack, read_elf
from aoti.package.elf_bounds import Bounds
from aoti.package.elf_relocations import Relocations
from aoti.package.elf_symbols import Symbols
from aoti.package.elf_tables import Part, Tables

_DT_FLAGS_1, _DF_1_PIE = 0x6FFFFFFB, 0x08000000


def make_loadable(path: Path) -> None:
    """Prepare a shared object of a package for the dynamic loader, or refuse it.

    No shared object is left that asks for an executable stack: glibc 2.41 and newer refuse those,
    older ones make the whole process' stack executable. What `read_elf` cannot read stays as it is:
    `aoti.compat.binary` refuses it before it is mapped.

    Raises
    ------
    PackageError
        As `check_loadable`, for code of this machine.
    """
    forbid_executable_stack(path)
    drop_libtorch(path)
    try:
        so = read_elf(path)
    except PackageError:
        return
    if so.for_this_machine:
        check_loadable(path, so.machine)


def check_loadable(path: Path, machine: str) -> None:
    """Refuse a shared object that would crash the dynamic loader or the unwinder.

    Parameters
    ----------
    path : Path
        A file that `aoti.package.elf.read_elf` reads, of 64 bits and little-endian.
    machine : str
        The machine that it is for, as ``uname -m`` prints it.

    Raises
    ------
    PackageError
        A number in its tables is wrong.
    """
    with path.open("rb") as file:
        part = Part(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        header = part.read(64, 0)
        tables = Tables.of(path, part, header)
        if tables.entries.get(_DT_FLAGS_1, 0) & _DF_1_PIE:
            return  # a program, which glibc refuses by that flag
        bounds = Bounds(tables)
        (program_headers,) = struct.unpack_from("<Q", header, 32)
        bounds.check_headers(program_headers)
        bounds.check_sections(part, header)
        bounds.check_dynamic()
        relocations = Relocations(bounds)
        symbols = Symbols(bounds, relocations.named)
        symbols.check()
        relocations.check(machine, symbols)
