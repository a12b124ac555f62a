"""Reads shared objects: the libraries they need, and the symbols they define and use.

The format is that of elf(5) and of the Linux Standard Base's chapters on symbol versioning and the
GNU hash table. Whether the dynamic loader survives the file is for `aoti.package.elf_loadable`.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from aoti.errors import PackageError
from aoti.package.elf_tables import (
    DT_RPATH,
    DT_RUNPATH,
    DT_SYMTAB,
    DT_VERSYM,
    HIDDEN,
    PF_X,
    PT_GNU_STACK,
    Image,
    Names,
    Part,
    Segment,
    Tables,
    dynamic_without,
)

# e_machine, under the names that the kernel gives (uname -m) and AOTI_MACHINE records.
_MACHINES = {
    3: "i686",
    21: "ppc64",
    22: "s390x",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv64",
    258: "loongarch64",
}
_TYPES = {1: "an object file", 2: "a program", 4: "a core dump"}
_SHARED_OBJECT = 3  # ET_DYN
_STB_LOCAL, _STB_WEAK = 0, 2
_SHN_UNDEF = 0


class Undefined(NamedTuple):
    """A symbol that another library must define.

    Attributes
    ----------
    name : str
        The name, as the linker sees it.
    version : str or None
        The version it was linked against, such as ``GLIBC_2.34``; None for a plain name.
    library : str or None
        The library that had that version.
    weak : bool
        Whether the loader accepts that the symbol is missing.
    """

    name: str
    version: str | None
    library: str | None
    weak: bool


class SharedObject(NamedTuple):
    """A shared object, as the dynamic loader sees it.

    Attributes
    ----------
    path : Path
        The file.
    size : int
        Its size in bytes.
    machine : str
        As ``uname -m`` prints it; ``machine number N`` for an unknown machine.
    bits : int
        64 or 32.
    byteorder : str
        ``little`` or ``big``.
    executable_stack : bool
        Whether it asks for an executable stack.
    needed : tuple of str
        The libraries that it needs (DT_NEEDED).
    runpath : str or None
        Where the loader searches for them first (DT_RUNPATH, or else DT_RPATH).
    defined : mapping of str to int
        The symbols that other libraries can use, and their addresses.
    undefined : tuple of Undefined
        The symbols that other libraries must define.
    segments : tuple of Segment
        Its program headers.
    start : int
        Where it starts in the file, in bytes.

    Notes
    -----
    Only the header is read of files that are not 64-bit and little-endian.
    """

    path: Path
    size: int
    machine: str
    bits: int
    byteorder: str
    executable_stack: bool = False
    needed: tuple[str, ...] = ()
    runpath: str | None = None
    defined: Mapping[str, int] = MappingProxyType({})
    undefined: tuple[Undefined, ...] = ()
    segments: tuple[Segment, ...] = ()
    start: int = 0

    @property
    def for_this_machine(self) -> bool:
        """Whether it is code for this machine's processor."""
        here = (os.uname().machine, 64, sys.byteorder)
        return (self.machine, self.bits, self.byteorder) == here

    def read(self, address: int, size: int) -> bytes:
        """The bytes at an address of the mapped file.

        Raises
        ------
        PackageError
            No segment maps so many bytes there.
        """
        with self.path.open("rb") as file:
            part = Part(file.fileno(), self.start, self.size)
            return Image(self.path, part, self.segments).at(address, size)


def read_elf(path: Path, start: int = 0, nbytes: int | None = None) -> SharedObject:
    """Read a shared object.

    Parameters
    ----------
    path : Path
        The file. Little of it is read, however large it is.
    start, nbytes : int, optional
        The part of the file that is the shared object. Default: the whole file.

    Returns
    -------
    SharedObject

    Raises
    ------
    PackageError
        It is not a shared object, is cut short or damaged.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size - start if nbytes is None else nbytes
        part = Part(file.fileno(), start, size)
        header = part.read(64, 0)
        if header[:4] != b"\x7fELF" or len(header) < 52:
            raise PackageError(f"{path.name} is not an ELF shared object")
        bits = 64 if header[4] == 2 else 32
        byteorder = "big" if header[5] == 2 else "little"
        kind, number = struct.unpack_from(">HH" if byteorder == "big" else "<HH", header, 16)
        if kind != _SHARED_OBJECT:
            what = _TYPES.get(kind, f"an ELF file of type {kind}")
            raise PackageError(f"{path.name} is {what}, not a shared object")
        machine = _MACHINES.get(number, f"machine number {number}")
        if bits != 64 or byteorder != "little":
            return SharedObject(path, size, machine, bits, byteorder)
        if len(header) < 64:
            raise PackageError(f"{path.name} is damaged: it ends within its header")
        tables = Tables.of(path, part, header)
        names = Names(tables.image, tables.entries)
        defined, undefined = _symbols(tables, names)
        runpath = tables.entries.get(DT_RUNPATH, tables.entries.get(DT_RPATH))
        return SharedObject(
            path=path,
            size=size,
            machine=machine,
            bits=bits,
            byteorder=byteorder,
            executable_stack=tables.executable_stack,
            needed=tuple(map(names.at, tables.needed)),
            runpath=None if runpath is None else names.at(runpath),
            defined=defined,
            undefined=undefined,
            segments=tables.image.segments,
            start=start,
        )


def forbid_executable_stack(path: Path) -> None:
    """Clear PF_X in a file's PT_GNU_STACK program header.

    glibc 2.41 and newer refuse to load a shared object that asks for an executable stack; older
    ones make the whole process' stack executable. Files that are not 64-bit ELF are left alone.
    """
    with path.open("r+b") as file:
        header = file.read(64)
        if len(header) < 64 or header[:5] != b"\x7fELF\x02":
            return
        endian = "<" if header[5] == 1 else ">"
        (table,) = struct.unpack_from(endian + "Q", header, 32)
        size, count = struct.unpack_from(endian + "HH", header, 54)
        end = path.stat().st_size
        for place in range(table, table + count * size, size or 1):
            if place + 8 > end:
                return
            file.seek(place)
            kind, flags = struct.unpack(endian + "II", file.read(8))
            if kind == PT_GNU_STACK and flags & PF_X:
                file.seek(place + 4)
                file.write(struct.pack(endian + "I", flags & ~PF_X))


def drop_libtorch(path: Path) -> None:
    """Take ``libtorch.so`` out of a file's DT_NEEDED where it names ``libtorch_cpu.so`` as well.

    ``libtorch.so`` defines nothing, and loads the libraries of its backend: with a torch for CUDA,
    that takes a second and some hundred megabytes. Linkers without ``--as-needed`` write it into
    models for the CPU, too. Damaged files, and files that are not 64-bit little-endian ELF, are
    left alone.
    """
    with path.open("r+b") as file, contextlib.suppress(PackageError):
        header = file.read(64)
        if len(header) < 64 or header[:6] != b"\x7fELF\x02\x01":
            return
        part = Part(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        tables = Tables.of(path, part, header)
        names = Names(tables.image, tables.entries)
        libraries = [names.at(value) for value in tables.needed]
        if "libtorch.so" in libraries and "libtorch_cpu.so" in libraries:
            content = dynamic_without(tables, [libraries.index("libtorch.so")])
            file.seek(tables.image.offset(tables.dynamic.address))
            file.write(content)


def _symbols(tables: Tables, names: Names) -> tuple[dict[str, int], tuple[Undefined, ...]]:
    count, image, entries = tables.symbol_count(), tables.image, tables.entries
    table = image.at(entries[DT_SYMTAB], 24 * count)
    versions = {
        number: (names.at(library), names.at(name))
        for number, library, name in tables.needed_versions()
    }
    numbers: tuple[int, ...] = ()
    if DT_VERSYM in entries:
        numbers = struct.unpack(f"<{count}H", image.at(entries[DT_VERSYM], 2 * count))
    defined: dict[str, int] = {}
    undefined: list[Undefined] = []
    rows = struct.iter_unpack("<IBBHQQ", table)
    for index, (name, info, _, section, value, _) in enumerate(rows):
        binding = info >> 4
        if binding == _STB_LOCAL:
            continue
        if section != _SHN_UNDEF:
            defined[names.at(name)] = value
            continue
        number = numbers[index] & ~HIDDEN if numbers else 0
        library, version = versions.get(number, (None, None))
        undefined.append(Undefined(names.at(name), version, library, binding == _STB_WEAK))
    return defined, tuple(undefined)
