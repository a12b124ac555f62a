"""The checks of a shared object's relocations, and of the functions called at its start and end."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from aoti.package.elf_bounds import (
    ARRAYS,
    DT_JMPREL,
    DT_PLTRELSZ,
    DT_RELA,
    DT_RELASZ,
    DT_RELR,
    DT_RELRSZ,
    Bounds,
    Flags,
    Numbers,
    inside,
    within,
)
from aoti.package.elf_symbols import Symbols

_DT_RELACOUNT = 0x6FFFFFF9
_MAX_ADDEND = 1 << 20  # to an address in another library
_MAX_PACKED = 1 << 20  # bytes of DT_RELR


class _Types(NamedTuple):
    """The relocations of a machine, under the names of x86-64."""

    absolute: int
    glob_dat: int
    jump_slot: int
    relative: int
    module: int
    offset: int
    thread: int
    descriptor: int
    indirect: int


_TYPES = {
    "x86_64": _Types(1, 6, 7, 8, 16, 17, 18, 36, 37),
    "aarch64": _Types(257, 1025, 1026, 1027, 1028, 1029, 1030, 1031, 1032),
}


class Relocations:
    """The relocations of a file: the rows of DT_RELA, and then those of DT_JMPREL."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        entries, image = bounds.entries, bounds.image
        size, slots = entries.get(DT_RELASZ, 0), entries.get(DT_PLTRELSZ, 0)
        if 0 < slots <= size and entries[DT_RELA] + size == entries[DT_JMPREL] + slots:
            size -= slots  # the linker counted the second table as a part of the first
        data = image.at(entries[DT_RELA], size) if size else b""
        data += image.at(entries[DT_JMPREL], slots) if slots else b""
        self._first_slot = size // 24
        place, info, addend = np.frombuffer(data, "<u8").reshape(-1, 3).T
        self._rows = np.stack((place, info & 0xFFFFFFFF, info >> 32, addend))
        self.named = np.unique(self._rows[2]).astype(np.uint32)

    def check(self, machine: str, symbols: Symbols) -> None:
        """Check all of them, if their machine is known."""
        if machine not in _TYPES:
            return
        bounds = self._bounds
        place, kind, symbol, addend = self._rows
        named = symbol != 0
        own = symbols.defined[symbol] | ~named
        target = symbols.value[symbol] + addend
        absolute, glob_dat, jump_slot, relative, module, offset, thread, descriptor, indirect = (
            kind == number for number in _TYPES[machine]
        )
        slot, per_thread = glob_dat | jump_slot, module | offset | thread | descriptor
        relative_first = bounds.entries.get(_DT_RELACOUNT, 0)
        bounds.require(
            # Each is one of these, with a symbol or without.
            (absolute | slot | relative | per_thread | indirect).all()
            and (named == (absolute | slot | per_thread & named)).all()
            and (jump_slot | descriptor | indirect)[self._first_slot :].all()
            # glibc asserts that these are.
            and relative_first <= self._first_slot
            and relative[:relative_first].all()
            # Each leads to what it is for.
            and (symbols.per_thread[symbol] == per_thread)[named].all()
            and not addend[slot].any()
            and inside(target[relative | absolute & own], bounds.mapped, 0).all()
            and (target[absolute & ~own] < _MAX_ADDEND).all()
            and inside(target[indirect], bounds.executable).all()
            and (target[per_thread & own & ~module] < bounds.thread_local).all()
            and (bounds.thread_local or not (per_thread & own).any())
            # A variable of a thread is found by a pair of words.
            and (np.isin(place, place[module] + np.uint64(8)) == offset).all(),
            "relocations",
        )
        packed = self._packed()
        places = np.concatenate((place, place[descriptor] + np.uint64(8), packed))
        dynamic = bounds.tables.dynamic
        bounds.require(
            not (places & 7).any()
            and inside(places, bounds.writable, 8).all()
            and np.diff(np.sort(places)).all()
            and not inside(places, [(dynamic.address, dynamic.address + dynamic.stored)]).any(),
            "relocations",
        )
        self._check_calls(place, target, own, relative | absolute, packed)

    def _check_calls(
        self, place: Numbers, target: Numbers, own: Flags, pointer: Flags, packed: Numbers
    ) -> None:
        """Every slot in the arrays of functions has a relocation that leads to code."""
        entries, executable = self._bounds.entries, self._bounds.executable
        ranges = [
            (entries[tag], entries[tag] + entries[size])
            for tag, size in ARRAYS.items()
            if entries.get(size)
        ]
        rows = inside(place, ranges)
        filled = [
            self._bounds.image.at(address, 8) for address in packed[inside(packed, ranges)].tolist()
        ]
        size = sum(end - start for start, end in ranges)
        self._bounds.require(
            all(entries.get(size) for tag, size in ARRAYS.items() if tag in entries)
            and all(start % 8 == 0 for start, _ in ranges)
            and 8 * (int(rows.sum()) + len(filled)) == size  # which is false where two overlap
            and pointer[rows].all()
            and (~own[rows] | inside(target[rows], executable)).all()
            and all(within(int.from_bytes(each, "little"), executable, 1) for each in filled),
            "functions to call at the start and at the end",
        )

    def _packed(self) -> Numbers:
        """The places of DT_RELR: an even word is one, an odd one has bits for the 63 after it."""
        entries = self._bounds.entries
        size = entries.get(DT_RELRSZ, 0)
        if not size:
            return np.empty(0, np.uint64)
        self._bounds.require(size <= _MAX_PACKED, "relocations")
        words = np.frombuffer(self._bounds.image.at(entries[DT_RELR], size), "<u8")
        odd, index = words & 1 == 1, np.arange(len(words))
        self._bounds.require(not odd[0], "relocations")
        even = np.maximum.accumulate(np.where(odd, 0, index))  # the last even word so far
        bits = np.unpackbits(words[odd].view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
        row, bit = np.nonzero(bits[:, 1:])
        passed = (8 + 63 * 8 * (index - even - 1)).astype(np.uint64)
        return np.concatenate((
            words[~odd], (words[even] + passed)[odd][row] + (8 * bit).astype(np.uint64)
        ))  # fmt: skip
