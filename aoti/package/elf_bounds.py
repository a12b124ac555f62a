"""What a shared object may point at, and the checks of its headers and of its dynamic section."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from aoti.package.elf_tables import (
    DT_RPATH,
    DT_RUNPATH,
    PF_R,
    PF_W,
    PF_X,
    Names,
    Part,
    Segment,
    Tables,
)

_PT_NOTE, _PT_PHDR, _PT_TLS = 4, 6, 7
_PT_GNU_EH_FRAME, _PT_GNU_RELRO, _PT_GNU_PROPERTY = 0x6474E550, 0x6474E552, 0x6474E553
DT_PLTRELSZ, _DT_PLTGOT, DT_RELA, DT_RELASZ, _DT_RELAENT, _DT_SYMENT = 2, 3, 7, 8, 9, 11
_DT_INIT, _DT_FINI, _DT_SONAME, _DT_PLTREL, DT_JMPREL = 12, 13, 14, 20, 23
_DT_INIT_ARRAY, _DT_FINI_ARRAY, _DT_INIT_ARRAYSZ, _DT_FINI_ARRAYSZ = 25, 26, 27, 28
_DT_PREINIT_ARRAY, _DT_PREINIT_ARRAYSZ = 32, 33
DT_RELRSZ, DT_RELR, _DT_RELRENT = 35, 36, 37
_DT_DEPAUDIT, _DT_AUDIT, _DT_AUXILIARY, _DT_FILTER = 0x6FFFFEFB, 0x6FFFFEFC, 0x7FFFFFFD, 0x7FFFFFFF

_STRINGS = (_DT_SONAME, DT_RPATH, DT_RUNPATH, _DT_DEPAUDIT, _DT_AUDIT, _DT_AUXILIARY, _DT_FILTER)
ARRAYS = {
    _DT_INIT_ARRAY: _DT_INIT_ARRAYSZ,
    _DT_FINI_ARRAY: _DT_FINI_ARRAYSZ,
    _DT_PREINIT_ARRAY: _DT_PREINIT_ARRAYSZ,
}
_TOGETHER = (
    (DT_RELA, DT_RELASZ, _DT_RELAENT),
    (DT_JMPREL, DT_PLTRELSZ, _DT_PLTREL),
    (DT_RELR, DT_RELRSZ, _DT_RELRENT),
    *ARRAYS.items(),
)
_FIXED = {_DT_RELAENT: 24, _DT_PLTREL: DT_RELA, _DT_RELRENT: 8, _DT_SYMENT: 24}
_STEPS = {DT_RELASZ: 24, DT_PLTRELSZ: 24, DT_RELRSZ: 8, **dict.fromkeys(ARRAYS.values(), 8)}

_SECTION, _SHF_TLS = struct.Struct("<IIQQQQIIQQ"), 0x400

_FRAMES = b"\x01\x1b\x03\x3b"  # the version and the encodings of .eh_frame_hdr
_MAX_TLS = 64 << 20  # bytes
_MAX_NOTES = 1 << 20  # bytes
_PAGE = mmap.PAGESIZE

Ranges = Iterable[tuple[int, int]]
Numbers = NDArray[np.uint64]
Flags = NDArray[np.bool_]


def pages(address: int) -> int:
    """The end of the page that ends at or after an address."""
    return -(-address // _PAGE) * _PAGE


def within(address: int, ranges: Ranges, size: int) -> bool:
    """Whether so many bytes at an address are in one of the ranges of addresses."""
    return any(start <= address and address + size <= end for start, end in ranges)


def inside(addresses: Numbers, ranges: Ranges, size: int = 1) -> Flags:
    """Which addresses are in one of the ranges, with so many bytes."""
    found = np.zeros(len(addresses), bool)
    for start, end in ranges:
        if end - start >= size:
            found |= addresses - np.uint64(start) <= np.uint64(end - start - size)
    return found


class Bounds:
    """What the tables may point at.

    ``thread_local`` is what an offset into the thread-local variables must be below.
    """

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.image = tables.image
        self.entries = tables.entries
        self.names = Names(tables.image, tables.entries)
        # A range reaches to the end of the last page: linkers may place the symbol `_end` there.
        self.mapped = [(each.address, pages(each.end)) for each in self.image.segments]
        self.writable = self._ranges(PF_W)
        self.executable = self._ranges(PF_X)
        self.thread_local = 0
        self._thread_end = 0

    def require(self, ok: object, what: str) -> None:
        """Raise PackageError unless a check holds."""
        if not ok:
            raise self.image.damage(f"its {what} do not make sense")

    def _ranges(self, flag: int) -> list[tuple[int, int]]:
        return [(each.address, each.end) for each in self.image.segments if each.flags & flag]

    def check_headers(self, program_headers: int) -> None:
        """Check the program headers, which start at an offset."""
        self._segments()
        for each in self.tables.headers:
            if not each.mapped:
                continue
            if each.kind == _PT_PHDR:
                self.require(self.image.offset(each.address) == program_headers, "program headers")
            elif each.kind == _PT_TLS:
                self._thread_local(each)
            elif each.kind == _PT_GNU_RELRO:
                self._read_only(each)
            elif each.kind in (_PT_NOTE, _PT_GNU_PROPERTY):
                self._notes(each)
            elif each.kind == _PT_GNU_EH_FRAME:
                self._frames(each)

    def _segments(self) -> None:
        """The loader maps each over what is there, in order, and fills the rest with zeros."""
        address = offset = 0
        for each in self.image.segments:
            first = each.address - each.address % _PAGE
            self.require(
                first >= address
                and (each.address - each.offset) % _PAGE == 0
                and (each.offset >= offset if each.stored else each.address == first)
                and each.flags & PF_R
                and (each.flags & PF_W or each.mapped == each.stored),
                "segments",
            )
            address = pages(each.end)
            offset = each.offset + each.stored

    def _thread_local(self, place: Segment) -> None:
        self.require(
            place.stored <= place.mapped <= _MAX_TLS
            and place.align & (place.align - 1) == 0
            and place.align <= _PAGE,
            "thread-local variables",
        )
        if place.stored:
            self.image.at(place.address, place.stored)
            # Of the tables of functions that the linker puts behind it, nothing is a first value.
            tables = [self.entries[tag] for tag in ARRAYS if tag in self.entries]
            end = place.address + place.stored
            self.require(
                not any(place.address <= table < end for table in tables), "thread-local variables"
            )
        self.thread_local = place.mapped + 1
        self._thread_end = place.end

    def check_sections(self, part: Part, header: bytes) -> None:
        """Check the sections of thread-local variables, given the file and its header.

        The loader reads no sections, and a file may have none. But code reaches its own variables
        by distances that no table contains: only the sections say how many bytes there must be.
        """
        (start,) = struct.unpack_from("<Q", header, 40)
        size, count = struct.unpack_from("<HH", header, 58)
        if not start or size != _SECTION.size:
            return
        table = part.read(size * count, start)
        for _, _, flags, address, _, length, *_ in _SECTION.iter_unpack(
            table[: len(table) // size * size]
        ):
            self.require(
                not flags & _SHF_TLS or address + length <= self._thread_end,
                "thread-local variables",
            )

    def _read_only(self, place: Segment) -> None:
        """What is made read-only after the relocations, in whole pages."""
        ends = [end for start, end in self.writable if start == place.address]
        self.require(
            ends
            and place.end <= pages(ends[0])
            and (place.end % _PAGE == 0 or place.end >= ends[0]),
            "read-only segments",
        )

    def _notes(self, place: Segment) -> None:
        self.require(
            place.stored == place.mapped <= _MAX_NOTES
            and self.image.offset(place.address) == place.offset,
            "notes",
        )
        data = self.image.at(place.address, place.mapped)
        align, at = max(place.align, 4), 0
        while at + 12 <= len(data):
            name, description = struct.unpack_from("<II", data, at)
            at += -(-(12 + name) // align) * align + description
            self.require(at <= len(data), "notes")
            at = -(-at // align) * align

    def _frames(self, place: Segment) -> None:
        """The index of functions, in which an exception's way is looked up."""
        data = self.image.at(place.address, place.stored)
        self.require(len(data) >= 12 and data.startswith(_FRAMES), "unwind tables")
        start, rows = struct.unpack_from("<iI", data, 4)
        self.image.offset(place.address + 4 + start)
        self.require(12 + 8 * rows <= len(data), "unwind tables")
        table = np.frombuffer(data, "<i4", 2 * rows, 12).reshape(-1, 2).astype(np.int64)
        functions, frames = (table.T + place.address).view(np.uint64)
        self.require(
            (table[1:, 0] >= table[:-1, 0]).all()
            and inside(functions, self.executable).all()
            and inside(frames, self.mapped, 8).all(),
            "unwind tables",
        )

    def check_dynamic(self) -> None:
        """Glibc stops the process by assertions where a number is not the one that it knows."""
        entries = self.entries
        dynamic = self.tables.dynamic
        self.require(
            dynamic.address % 8 == 0
            and within(dynamic.address, self.writable, dynamic.stored)
            and all(len({tag in entries for tag in tags}) == 1 for tags in _TOGETHER)
            and all(entries.get(tag, value) == value for tag, value in _FIXED.items())
            and all(entries.get(tag, 0) % step == 0 for tag, step in _STEPS.items())
            and all(entries.get(tag) != 0 for tag in (DT_RELASZ, DT_PLTRELSZ, DT_RELRSZ))
            and all(
                within(entries[tag], self.executable, 1)
                for tag in (_DT_INIT, _DT_FINI)
                if tag in entries
            )
            and (
                DT_PLTRELSZ not in entries or within(entries.get(_DT_PLTGOT, 0), self.writable, 24)
            ),
            "dynamic entries",
        )
        strings = [entries[tag] for tag in _STRINGS if tag in entries] + self.tables.needed
        size = len(self.names.table)
        self.require(
            self.names.table.endswith(b"\0") and all(each < size for each in strings), "names"
        )
