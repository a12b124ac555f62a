"""The checks of a shared object's symbols, of the table that finds them and of their versions."""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from aoti.package.elf_bounds import Bounds, inside
from aoti.package.elf_tables import DT_GNU_HASH, DT_HASH, DT_SYMTAB, DT_VERSYM, HIDDEN

_DT_VERDEF = 0x6FFFFFFC
_STB_LOCAL, _STB_WEAK = 0, 2
_BINDINGS = (0, 1, 2, 10)  # local, global, weak, unique: glibc finds no others
_KINDS = (0, 1, 2, 3, 4, 5, 6, 10)  # of data, of code, of threads, ifunc: nor others of these
_STT_FUNC, _STT_TLS, _STT_GNU_IFUNC = 2, 6, 10
_STV_DEFAULT = 0
_SHN_UNDEF, _SHN_ABS = 0, 0xFFF1

Numbers = NDArray[np.uint32]

_SYMBOL = np.dtype("<u4, u1, u1, <u2, <u8, <u8")


class Symbols:
    """The symbols of a file: whether it defines each, where, and whether one is per thread.

    ``named`` are the indices of those that relocations name. Without a symbol that is hashed, only
    relocations know how many there are.
    """

    def __init__(self, bounds: Bounds, named: Numbers) -> None:
        self._bounds = bounds
        highest = int(named.max(initial=0))
        self.count = bounds.tables.symbol_count()
        if DT_HASH not in bounds.entries:
            (first,) = struct.unpack("<I", bounds.image.at(bounds.entries[DT_GNU_HASH] + 4, 4))
            if self.count <= first:
                self.count = max(self.count, highest + 1)
        bounds.require(highest < self.count, "relocations")
        self._data = bounds.image.at(bounds.entries[DT_SYMTAB], 24 * self.count)
        self._name, info, other, section, self.value, _ = (
            np.frombuffer(self._data, _SYMBOL)[field] for field in _SYMBOL.names or ()
        )
        kind = info & 15
        self.defined = section != _SHN_UNDEF
        self.per_thread = kind == _STT_TLS
        self._local = info >> 4 == _STB_LOCAL
        # Where such a symbol is not found, its relocation becomes 0, and a call goes there.
        self._must_be_found = named[(self.defined & (info >> 4 == _STB_WEAK))[named]]
        self._hidden = other & 3 != _STV_DEFAULT
        self._code = (kind == _STT_FUNC) | (kind == _STT_GNU_IFUNC)
        self._known = np.isin(info >> 4, _BINDINGS) & np.isin(kind, _KINDS)
        self._placed = self.defined & (section != _SHN_ABS)

    def check(self) -> None:
        """Check the symbols, the hash table and the versions."""
        bounds, value, placed = self._bounds, self.value, self._placed
        undefined = ~self.defined
        data = placed & ~self._code & ~self.per_thread
        bounds.require(
            not any(self._data[:24])
            and self._known.all()
            and (self._name < len(bounds.names.table)).all()
            and not (undefined & (self._local | self._hidden | (value != 0)))[1:].any()
            and inside(value[placed & self._code], bounds.executable).all()
            and inside(value[data], bounds.mapped, 0).all()
            and (value[placed & self.per_thread] < bounds.thread_local).all(),
            "symbols",
        )
        if DT_GNU_HASH in bounds.entries:
            self._gnu_hash()
        else:
            self._hash()
        self._versions()

    def _gnu_hash(self) -> None:
        bounds = self._bounds
        address = bounds.entries[DT_GNU_HASH]
        count, first, words, shift = struct.unpack("<IIII", bounds.image.at(address, 16))
        tables = bounds.image.at(address + 16, 8 * words + 4 * count)
        filters = np.frombuffer(tables, "<u8", words)
        buckets = np.frombuffer(tables, "<u4", count, 8 * words)
        if not buckets.any():
            first = self.count
        bounds.require(
            shift < 32
            and words
            and words & (words - 1) == 0
            and 0 < first <= self.count
            and ((buckets >= first) & (buckets < self.count) | (buckets == 0)).all()
            and not (self.defined & ~self._local)[:first].any(),
            "hash tables",
        )
        hashed = self.count - first
        if not hashed:
            return
        chain = np.frombuffer(bounds.image.at(address + 16 + len(tables), 4 * hashed), "<u4")
        hashes = _gnu_hashes(np.frombuffer(bounds.names.table, np.uint8), self._name[first:])
        # The place of each symbol's chain: after the last end before the symbol.
        ends = chain & 1
        starts = np.concatenate(([0], np.flatnonzero(ends) + 1))
        start = starts[np.cumsum(ends) - ends]
        wide = hashes.astype(np.uint64)
        word = filters[(hashes >> 6) & (words - 1)]
        found = (
            ((word >> (wide & 63)) & (word >> ((wide >> shift) & 63)) & 1).astype(bool)
            & (chain ^ hashes < 2)
            & (buckets[hashes % count] == start + first)
        )
        bounds.require(
            ends[-1] and found[self._must_be_found[self._must_be_found >= first] - first].all(),
            "hash tables",
        )

    def _hash(self) -> None:
        bounds = self._bounds
        address = bounds.entries[DT_HASH]
        count, _ = struct.unpack("<II", bounds.image.at(address, 8))
        data = np.frombuffer(bounds.image.at(address + 8, 4 * (count + self.count)), "<u4")
        bounds.require(count and (data < self.count).all(), "hash tables")
        links, seen = data[count:].tolist(), set()
        for first in data[:count].tolist():
            index = first
            while index:
                bounds.require(index not in seen, "hash tables")  # else it went on for ever
                seen.add(index)
                index = links[index]
        bounds.require(seen.issuperset(self._must_be_found.tolist()), "hash tables")

    def _versions(self) -> None:
        """Glibc asserts that it knows the library of a version, and looks versions up by number."""
        bounds, names = self._bounds, self._bounds.names
        libraries, highest = {names.at(name) for name in bounds.tables.needed}, 0
        size = len(names.table)
        for number, library, name in bounds.tables.needed_versions():
            known = max(library, name) < size and names.at(library) in libraries
            bounds.require(known, "versions")
            highest = max(highest, number)
        for number, name in self._defined_versions():
            bounds.require(name < size, "versions")
            highest = max(highest, number)
        if DT_VERSYM in bounds.entries:
            data = bounds.image.at(bounds.entries[DT_VERSYM], 2 * self.count)
            numbers = np.frombuffer(data, "<u2") & ~np.uint16(HIDDEN)
            bounds.require((numbers <= highest).all(), "versions")
        else:
            bounds.require(not highest, "versions")

    def _defined_versions(self) -> Iterator[tuple[int, int]]:
        """The number and the name of each version that the file defines."""
        bounds, steps = self._bounds, 0
        place = bounds.entries.get(_DT_VERDEF, 0)
        following = _DT_VERDEF in bounds.entries
        while following:
            data = bounds.image.at(place, 20)
            _, _, number, _, _, first, following = struct.unpack("<HHHHIII", data)
            (name,) = struct.unpack("<I", bounds.image.at(place + first, 4))
            yield number & ~HIDDEN, name
            place += following
            steps += 1
            bounds.require(steps < HIDDEN, "versions")


def _gnu_hashes(table: NDArray[np.uint8], names: Numbers) -> Numbers:
    """The hashes of names in a string table: of each, 33 times the hash before it, and a byte.

    From sums over the whole table, which is faster than a look at each name: with the bytes divided
    by the powers of 33 modulo 2 ** 32, the difference of two sums is a hash but for a factor.
    """
    powers, inverse = _powers_of_33(max(16, len(table).bit_length()))
    sums = np.zeros(len(table) + 1, np.uint32)
    np.cumsum(table * inverse[: len(table)], out=sums[1:])
    zeros = np.flatnonzero(table == 0)
    ends = zeros[np.searchsorted(zeros, names)]
    start = powers[ends - names] * np.uint32(5381)
    hashes: Numbers = start + powers[ends] * inverse[1] * (sums[ends] - sums[names])
    return hashes


@functools.lru_cache(maxsize=1)
def _powers_of_33(bits: int) -> tuple[Numbers, Numbers]:
    """So many powers as a number of that many bits can count, and their inverses."""
    factors = np.full((2, 1 << bits), ((33,), (pow(33, -1, 1 << 32),)), np.uint32)
    factors[:, 0] = 1
    powers, inverse = np.cumprod(factors, axis=1, dtype=np.uint32)
    return powers, inverse
