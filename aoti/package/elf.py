"""Reads shared objects: the libraries they need, and the symbols they define and use.

The format is that of elf(5) and of the Linux Standard Base's chapters on symbol versioning and the
GNU hash table. Tables are found by way of PT_DYNAMIC and not by section headers, as the dynamic
loader finds them, so both read the same tables.

The files come out of packages, so no number in them is trusted: every table must be inside the part
of the file that its segment maps, and must not exceed a limit, many times what compilers write.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from aoti.errors import PackageError

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
_PT_LOAD, _PT_DYNAMIC, _PT_GNU_STACK = 1, 2, 0x6474E551
_PF_X = 1
_DT_NULL, _DT_NEEDED, _DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ = 0, 1, 4, 5, 6, 10
_DT_RUNPATH, _DT_GNU_HASH = 29, 0x6FFFFEF5
_DT_VERSYM, _DT_VERNEED, _DT_VERNEEDNUM = 0x6FFFFFF0, 0x6FFFFFFE, 0x6FFFFFFF
_STB_LOCAL, _STB_WEAK = 0, 2
_SHN_UNDEF = 0
_HIDDEN = 0x8000  # of an entry of the version table; the rest is the version's number

_MAX_SEGMENTS = 128
_MAX_DYNAMIC = 4096  # entries
_MAX_SYMBOLS = 1 << 18
_MAX_VERSIONS = 4096
_MAX_TABLE = 64 << 20  # bytes
_MAX_NAMES = 64 << 20  # bytes of all names together: hostile ones may overlap


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


@dataclass(frozen=True, slots=True)
class SharedObject:
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
        Where the loader searches for them first (DT_RUNPATH).
    defined : mapping of str to int
        The symbols that other libraries can use, and their addresses.
    undefined : tuple of Undefined
        The symbols that other libraries must define.

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
    defined: Mapping[str, int] = field(default_factory=dict)
    undefined: tuple[Undefined, ...] = ()
    _segments: tuple[tuple[int, int, int], ...] = ()
    _start: int = 0

    def read(self, address: int, size: int) -> bytes:
        """The bytes at an address of the mapped file.

        Raises
        ------
        PackageError
            No segment maps so many bytes there.
        """
        with self.path.open("rb") as file:
            part = _Part(file.fileno(), self._start, self.size)
            return _Image(self.path, part, self._segments).at(address, size)


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
        part = _Part(file.fileno(), start, size)
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
            raise _damage(path, "it ends within its header")
        image, dynamic, executable_stack = _segments(path, part, header)
        entries, needed, runpath = _dynamic(image, dynamic)
        names = _Names(image, entries[_DT_STRTAB], entries[_DT_STRSZ])
        defined, undefined = _symbols(image, entries, names)
        return SharedObject(
            path=path,
            size=size,
            machine=machine,
            bits=bits,
            byteorder=byteorder,
            executable_stack=executable_stack,
            needed=tuple(map(names.at, needed)),
            runpath=None if runpath is None else names.at(runpath),
            defined=defined,
            undefined=undefined,
            _segments=image.segments,
            _start=start,
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
            if kind == _PT_GNU_STACK and flags & _PF_X:
                file.seek(place + 4)
                file.write(struct.pack(endian + "I", flags & ~_PF_X))


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
        part = _Part(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        image, (address, length), _ = _segments(path, part, header)
        entries, needed, _ = _dynamic(image, (address, length))
        names = _Names(image, entries[_DT_STRTAB], entries[_DT_STRSZ])
        libraries = {names.at(value): value for value in needed}
        if not {"libtorch.so", "libtorch_cpu.so"} <= libraries.keys():
            return
        entry = struct.pack("<QQ", _DT_NEEDED, libraries["libtorch.so"])
        table = image.at(address, length)
        before, after = table[: table.index(entry)], table[table.index(entry) + len(entry) :]
        file.seek(image.offset(address))
        file.write(before + after + bytes(len(entry)))  # DT_NULL


def _damage(path: Path, what: str) -> PackageError:
    return PackageError(f"{path.name} is damaged: {what}")


class _Part(NamedTuple):
    """The part of an open file that is a shared object."""

    descriptor: int
    start: int
    size: int

    def read(self, size: int, offset: int) -> bytes:
        return os.pread(self.descriptor, max(0, min(size, self.size - offset)), self.start + offset)


class _Image:
    """A file as its segments map it: `at` takes addresses, not offsets."""

    def __init__(self, path: Path, part: _Part, segments: tuple[tuple[int, int, int], ...]) -> None:
        self.path = path
        self.segments = segments  # address, size in the file, offset
        self._part = part

    def at(self, address: int, size: int) -> bytes:
        offset, room = self._place(address)
        if not 0 <= size <= min(room, _MAX_TABLE):
            raise self.damage(f"{size} bytes at address {address:#x} reach beyond their segment")
        found = self._part.read(size, offset)
        if len(found) < size:
            raise self.damage("it got shorter")
        return found

    def offset(self, address: int) -> int:
        return self._place(address)[0]

    def upto(self, address: int, size: int) -> bytes:
        """At most `size` bytes: those that the segment has."""
        offset, room = self._place(address)
        return self._part.read(min(size, room), offset)

    def damage(self, what: str) -> PackageError:
        return _damage(self.path, what)

    def _place(self, address: int) -> tuple[int, int]:
        for start, size, offset in self.segments:
            if start <= address < start + size:
                return offset + address - start, start + size - address
        raise self.damage(f"nothing is mapped at address {address:#x}")


def _segments(path: Path, part: _Part, header: bytes) -> tuple[_Image, tuple[int, int], bool]:
    """The mapped segments, where PT_DYNAMIC is, and whether the stack must be executable."""
    (table,) = struct.unpack_from("<Q", header, 32)
    entry, count = struct.unpack_from("<HH", header, 54)
    if entry != 56 or not 0 < count <= _MAX_SEGMENTS or table + entry * count > part.size:
        raise _damage(path, "its program headers do not make sense")
    segments, dynamic, executable_stack = [], None, False
    for kind, flags, offset, address, _, stored, mapped, _ in struct.iter_unpack(
        "<IIQQQQQQ", part.read(entry * count, table)
    ):
        if kind == _PT_LOAD:
            # Memory that is mapped beyond the end of the file is SIGBUS at the first access.
            if offset + stored > part.size:
                raise _damage(path, f"it ends at {part.size} bytes, and needs {offset + stored}")
            if stored > mapped or address + mapped > 1 << 63:
                raise _damage(path, "its segments do not make sense")
            segments.append((address, stored, offset))
        elif kind == _PT_DYNAMIC:
            dynamic = (address, stored)
        elif kind == _PT_GNU_STACK:
            executable_stack = bool(flags & _PF_X)
    if dynamic is None or not segments:
        raise PackageError(f"{path.name} is not a shared object: it has nothing to link or to map")
    return _Image(path, part, tuple(segments)), dynamic, executable_stack


def _dynamic(image: _Image, place: tuple[int, int]) -> tuple[dict[int, int], list[int], int | None]:
    """The dynamic section: values by tag, and the names' offsets of DT_NEEDED and DT_RUNPATH."""
    address, size = place
    if size % 16 or size > 16 * _MAX_DYNAMIC:
        raise image.damage("its dynamic section does not make sense")
    entries: dict[int, int] = {}
    needed: list[int] = []
    for tag, value in struct.iter_unpack("<QQ", image.at(address, size)):
        if tag == _DT_NULL:
            break
        if tag == _DT_NEEDED:
            needed.append(value)
        entries[tag] = value
    for tag in (_DT_STRTAB, _DT_STRSZ, _DT_SYMTAB):
        if tag not in entries:
            raise image.damage("it has no table of symbols")
    return entries, needed, entries.get(_DT_RUNPATH)


class _Names:
    """A string table."""

    def __init__(self, image: _Image, address: int, size: int) -> None:
        self._image = image
        self._table = image.at(address, size)
        self._read = 0

    def at(self, offset: int) -> str:
        end = self._table.find(b"\0", offset)
        self._read += end - offset
        if end < 0 or self._read > _MAX_NAMES:
            raise self._image.damage("its names do not make sense")
        return self._table[offset:end].decode("utf-8", "backslashreplace")


def _symbols(
    image: _Image, entries: dict[int, int], names: _Names
) -> tuple[dict[str, int], tuple[Undefined, ...]]:
    count = _symbol_count(image, entries)
    table = image.at(entries[_DT_SYMTAB], 24 * count)
    versions = _needed_versions(image, entries, names)
    numbers: tuple[int, ...] = ()
    if _DT_VERSYM in entries:
        numbers = struct.unpack(f"<{count}H", image.at(entries[_DT_VERSYM], 2 * count))
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
        number = numbers[index] & ~_HIDDEN if numbers else 0
        library, version = versions.get(number, (None, None))
        undefined.append(Undefined(names.at(name), version, library, binding == _STB_WEAK))
    return defined, tuple(undefined)


def _symbol_count(image: _Image, entries: dict[int, int]) -> int:
    """The number of dynamic symbols, which only the hash tables contain."""
    if _DT_HASH in entries:
        _, count = struct.unpack("<II", image.at(entries[_DT_HASH], 8))
    elif _DT_GNU_HASH in entries:
        count = _gnu_hash_count(image, entries[_DT_GNU_HASH])
    else:
        raise image.damage("its symbols have no hash table")
    if count > _MAX_SYMBOLS:
        raise image.damage(f"it claims to have {count} symbols")
    return int(count)


def _gnu_hash_count(image: _Image, address: int) -> int:
    """The number of symbols: hashed ones come last, so the end of the last chain is the last one.

    Layout: four words (buckets, index of the first hashed symbol, size of the filter, shift), the
    filter in words of eight bytes, the buckets, then a chain word per hashed symbol, whose lowest
    bit marks the end of a chain.
    """
    buckets, first, words, _ = struct.unpack("<IIII", image.at(address, 16))
    if buckets > _MAX_SYMBOLS or words > _MAX_SYMBOLS or first > _MAX_SYMBOLS:
        raise image.damage("its hash table does not make sense")
    address += 16 + 8 * words
    last = max(struct.unpack(f"<{buckets}I", image.at(address, 4 * buckets)), default=0)
    if last < first:
        return int(first)  # nothing is hashed
    address += 4 * buckets
    while last <= _MAX_SYMBOLS:
        block = image.upto(address + 4 * (last - first), 1024)
        for (word,) in struct.iter_unpack("<I", block[: len(block) & ~3]):
            last += 1
            if word & 1:
                return int(last)
        if len(block) < 4:
            break
    raise image.damage("its hash table has no end")


def _needed_versions(
    image: _Image, entries: dict[int, int], names: _Names
) -> dict[int, tuple[str, str]]:
    """Library and version by the version's number.

    A list of libraries, each with a list of versions; the links are distances in bytes.
    """
    versions: dict[int, tuple[str, str]] = {}
    place = entries.get(_DT_VERNEED, 0)
    libraries = entries.get(_DT_VERNEEDNUM, 0) if place else 0
    steps = _MAX_VERSIONS  # for both lists: either may be made to go on for ever
    for _ in range(min(libraries, steps)):
        _, count, library, first, following = struct.unpack("<HHIII", image.at(place, 16))
        version = place + first
        for _ in range(count):
            _, _, number, name, distance = struct.unpack("<IHHII", image.at(version, 16))
            versions[number & ~_HIDDEN] = (names.at(library), names.at(name))
            version += distance
            steps -= 1
            if not distance or not steps:
                break
        if not steps:
            raise image.damage("its versions do not make sense")
        if not following:
            break
        place += following
    return versions
