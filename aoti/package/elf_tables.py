"""Finds the tables of a shared object as the dynamic loader finds them: by way of PT_DYNAMIC.

No number in the file is trusted: every table must be inside the part of the file that its segment
maps, and must not exceed a limit, many times what compilers write.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from aoti.errors import PackageError

PT_LOAD, PT_DYNAMIC, PT_GNU_STACK = 1, 2, 0x6474E551
PF_X, PF_W, PF_R = 1, 2, 4
DT_NEEDED, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ = 1, 4, 5, 6, 10
DT_RPATH, DT_RUNPATH, DT_GNU_HASH = 15, 29, 0x6FFFFEF5
DT_VERSYM, DT_VERNEED = 0x6FFFFFF0, 0x6FFFFFFE
_DT_NULL = 0
HIDDEN = 0x8000  # of an entry of the version table; the rest is the version's number

_MAX_SEGMENTS = 128
_MAX_DYNAMIC = 4096  # entries
_MAX_SYMBOLS = 1 << 18
_MAX_TABLE = 64 << 20  # bytes
_MAX_NAMES = 64 << 20  # bytes of all names together: hostile ones may overlap
_MAX_VERSIONS = 1 << 16  # bytes of the list


class Part(NamedTuple):
    """The part of an open file that is a shared object."""

    descriptor: int
    start: int
    size: int

    def read(self, size: int, offset: int) -> bytes:
        """The bytes at an offset, fewer where the part ends."""
        offset = min(offset, self.size)
        return os.pread(self.descriptor, min(size, self.size - offset), self.start + offset)


class Segment(NamedTuple):
    """A program header. The sizes are those in the file and in memory."""

    kind: int
    flags: int
    offset: int
    address: int
    physical: int
    stored: int
    mapped: int
    align: int

    @property
    def end(self) -> int:
        """The address after its last byte in memory."""
        return self.address + self.mapped


class Image:
    """A file as its segments map it: `at` takes addresses, not offsets."""

    def __init__(self, path: Path, part: Part, segments: tuple[Segment, ...]) -> None:
        self.path = path
        self.segments = segments  # those that are mapped
        self._part = part

    def at(self, address: int, size: int) -> bytes:
        """The bytes at an address."""
        offset, room = self._place(address)
        if not 0 <= size <= min(room, _MAX_TABLE):
            raise self.damage(f"{size} bytes at address {address:#x} reach beyond their segment")
        found = self._part.read(size, offset)
        if len(found) < size:
            raise self.damage("it got shorter")
        return found

    def offset(self, address: int) -> int:
        """Where in the file an address is."""
        return self._place(address)[0]

    def upto(self, address: int, size: int) -> bytes:
        """At most `size` bytes: those that the segment has."""
        offset, room = self._place(address)
        return self._part.read(min(size, room), offset)

    def damage(self, what: str) -> PackageError:
        """The error for a file with something wrong."""
        return _damage(self.path, what)

    def _place(self, address: int) -> tuple[int, int]:
        for segment in self.segments:
            if segment.address <= address < segment.address + segment.stored:
                passed = address - segment.address
                return segment.offset + passed, segment.stored - passed
        raise self.damage(f"nothing is mapped at address {address:#x}")


class Names:
    """A string table."""

    def __init__(self, image: Image, entries: dict[int, int]) -> None:
        self.table = image.at(entries[DT_STRTAB], entries[DT_STRSZ])
        self._image = image
        self._read = 0

    def at(self, offset: int) -> str:
        """The name at an offset."""
        end = self.table.find(b"\0", offset)
        self._read += end - offset
        if end < 0 or self._read > _MAX_NAMES:
            raise self._image.damage("its names do not make sense")
        return self.table[offset:end].decode("utf-8", "backslashreplace")


class Tables(NamedTuple):
    """What a file's headers say, before any table is read.

    ``entries`` has the values of the dynamic section by tag, the last where a tag comes twice, and
    ``needed`` the names' offsets of DT_NEEDED.
    """

    image: Image
    headers: tuple[Segment, ...]
    dynamic: Segment
    entries: dict[int, int]
    needed: list[int]

    @classmethod
    def of(cls, path: Path, part: Part, header: bytes) -> Tables:
        """The tables of a file with this ELF header, which is of 64 bits and little-endian."""
        headers = _program_headers(path, part, header)
        image = Image(path, part, tuple(each for each in headers if each.kind == PT_LOAD))
        dynamic = [each for each in headers if each.kind == PT_DYNAMIC]
        if not dynamic or not image.segments:
            raise PackageError(
                f"{path.name} is not a shared object: it has nothing to link or to map"
            )
        return cls(image, headers, dynamic[-1], *_dynamic(image, dynamic[-1]))

    @property
    def executable_stack(self) -> bool:
        """Whether the last PT_GNU_STACK asks for it."""
        flags = [each.flags for each in self.headers if each.kind == PT_GNU_STACK]
        return bool(flags and flags[-1] & PF_X)

    def symbol_count(self) -> int:
        """The number of dynamic symbols, which only the hash tables contain."""
        if DT_HASH in self.entries:
            _, count = struct.unpack("<II", self.image.at(self.entries[DT_HASH], 8))
        elif DT_GNU_HASH in self.entries:
            count = _gnu_hash_count(self.image, self.entries[DT_GNU_HASH])
        else:
            raise self.image.damage("its symbols have no hash table")
        if count > _MAX_SYMBOLS:
            raise self.image.damage(f"it claims to have {count} symbols")
        return int(count)

    def needed_versions(self) -> Iterator[tuple[int, int, int]]:
        """The number of each needed version, and the offsets of its library's name and its name.

        A list of libraries, each with a list of versions; the links are distances in bytes. The
        dynamic loader follows the links, and takes no notice of DT_VERNEEDNUM.
        """
        if DT_VERNEED not in self.entries:
            return
        data = self.image.upto(self.entries[DT_VERNEED], _MAX_VERSIONS)
        place, following = 0, 1
        steps = len(data) // 16  # for both lists: either may be made to go on for ever
        try:
            while following:
                _, _, library, first, following = struct.unpack_from("<HHIII", data, place)
                version, distance = place + first, 1
                while distance:
                    _, _, number, name, distance = struct.unpack_from("<IHHII", data, version)
                    yield number & ~HIDDEN, library, name
                    version += distance
                    steps -= 1
                    if steps < 0:
                        raise self.image.damage("its versions do not make sense")
                place += following
        except struct.error as error:
            raise self.image.damage("its versions do not make sense") from error


def dynamic_without(tables: Tables, dropped: Collection[int]) -> bytes:
    """The dynamic section without some of the needed libraries, by their positions in `needed`."""
    content = tables.image.at(tables.dynamic.address, tables.dynamic.stored)
    entries = [content[start : start + 16] for start in range(0, len(content), 16)]
    needed = [n for n, entry in enumerate(entries) if entry[:8] == struct.pack("<Q", DT_NEEDED)]
    gone = {needed[n] for n in dropped}
    kept = [entry for n, entry in enumerate(entries) if n not in gone]
    return b"".join(kept) + bytes(16 * len(gone))  # DT_NULL


def _damage(path: Path, what: str) -> PackageError:
    return PackageError(f"{path.name} is damaged: {what}")


def _program_headers(path: Path, part: Part, header: bytes) -> tuple[Segment, ...]:
    (table,) = struct.unpack_from("<Q", header, 32)
    entry, count = struct.unpack_from("<HH", header, 54)
    if entry != 56 or not 0 < count <= _MAX_SEGMENTS or table + entry * count > part.size:
        raise _damage(path, "its program headers do not make sense")
    data = part.read(entry * count, table)
    headers = tuple(map(Segment._make, struct.iter_unpack("<IIQQQQQQ", data)))
    for each in headers:
        if each.kind != PT_LOAD:
            continue
        # Memory that is mapped beyond the end of the file is SIGBUS at the first access.
        end = each.offset + each.stored
        if end > part.size:
            raise _damage(path, f"it ends at {part.size} bytes, and needs {end}")
        if each.stored > each.mapped or each.end > 1 << 63:
            raise _damage(path, "its segments do not make sense")
    return headers


def _dynamic(image: Image, place: Segment) -> tuple[dict[int, int], list[int]]:
    if place.stored % 16 or place.stored > 16 * _MAX_DYNAMIC:
        raise image.damage("its dynamic section does not make sense")
    entries: dict[int, int] = {}
    needed: list[int] = []
    for tag, value in struct.iter_unpack("<QQ", image.at(place.address, place.stored)):
        if tag == _DT_NULL:
            break
        if tag == DT_NEEDED:
            needed.append(value)
        entries[tag] = value
    else:
        raise image.damage("its dynamic section has no end")
    for tag in (DT_STRTAB, DT_STRSZ, DT_SYMTAB):
        if tag not in entries:
            raise image.damage("it has no table of symbols")
    return entries, needed


def _gnu_hash_count(image: Image, address: int) -> int:
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
