"""Models whose code has one wrong number in a table of the dynamic loader, each in its own process.

usage: python elf_mutations.py PACKAGES DIRECTORY SEED NUMBER

Prints how each process ended, by the name of the change: the error of aoti, "ran", or what else.
The changes are drawn from all of them, which are about 7,000. Of a long table, some rows are drawn.

A change makes a number 0, 1, -1 or huge, moves it by one or out of step, or points it past the end.
Left out is what makes another sound file, which may crash: bytes of machine code, and a pointer or
a name that is moved to where another one may stand, another kind of symbol, and more of the memory
that is made read-only.
"""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from craft import zipped

import aoti
from aoti.engine import libtorch

PAGE = 4096
LONGEST = 20  # seconds
ROWS = 4  # drawn of each kind of row in a long table
REFUSED = 3
OUTSIDE = ("huge", "most", "past the end")
_DYNAMIC, _EH_FRAME, _RELRO, _NOTE = 2, 0x6474E550, 0x6474E552, 4
_HASH, _STRTAB, _SYMTAB, _RELA, _RELASZ, _STRSZ = 0x6FFFFEF5, 5, 6, 7, 8, 10
_PLTRELSZ, _JMPREL, _INIT_ARRAY, _INIT_ARRAYSZ = 2, 23, 25, 27
_CODE = (12, 13)  # DT_INIT and DT_FINI
_VERSYM, _VERNEED, _VERNEEDNUM = 0x6FFFFFF0, 0x6FFFFFFE, 0x6FFFFFFF


class Field(NamedTuple):
    """A number in the file: its table and name, where it stands, its format.

    ``free`` where it may have many values in a sound file; it is then moved out of all of them.
    """

    name: str
    place: int
    form: str
    free: bool = False


class Change(NamedTuple):
    """Other bytes at a place in the file."""

    name: str
    place: int
    number: bytes

    def of(self, data: bytes) -> bytes:
        """The file with this change."""
        return data[: self.place] + self.number + data[self.place + len(self.number) :]


class Code:
    """A shared object and the places of its numbers."""

    def __init__(self, data: bytes, seed: int) -> None:
        (self.table,) = struct.unpack_from("<Q", data, 32)
        (self.count,) = struct.unpack_from("<H", data, 56)
        headers = [
            struct.unpack_from("<IIQQQQQQ", data, self.table + 56 * n) for n in range(self.count)
        ]
        self.loads = [(h[3], h[5], h[2]) for h in headers if h[0] == 1]
        # Without debug information, which nobody reads: the section headers move to its place.
        end = max(offset + size for _, size, offset in self.loads)
        (sections,) = struct.unpack_from("<Q", data, 40)
        size, count = struct.unpack_from("<HH", data, 58)
        self.data = b"".join(
            (data[:40], struct.pack("<Q", end), data[48:end], data[sections:][: size * count])
        )
        self.headers = {h[0]: h for h in headers}
        self.random = random.Random(seed)
        start, size = self.headers[_DYNAMIC][2], self.headers[_DYNAMIC][5]
        self.dynamic = start, list(struct.iter_unpack("<QQ", data[start : start + size]))
        self.entries = dict(self.dynamic[1])

    def offset(self, address: int) -> int:
        """Where in the file an address is."""
        return next(o + address - a for a, size, o in self.loads if a <= address < a + size)

    def row(self, name: str, place: int, fields: str) -> Iterator[Field]:
        """The fields of a row: ``name:format`` in order, with a star behind a free one."""
        for field in fields.split():
            label, form = field.rstrip("*").split(":")
            yield Field(f"{name} {label}", place, "<" + form, field.endswith("*"))
            place += struct.calcsize("<" + form)

    def fields(self) -> Iterator[Field]:
        """The numbers that the dynamic loader and the unwinder read."""
        yield from self.row("header", 24, "entry:Q phoff:Q shoff:Q flags:I ehsize:H phentsize:H "
                            "phnum:H")  # fmt: skip
        for n in range(self.count):
            place = self.table + 56 * n
            kind = struct.unpack_from("<I", self.data, place)[0]
            free = "*" if kind == _RELRO else ""
            yield from self.row(f"segment {n} ({kind:#x})", place, "type:I flags:I offset:Q "
                                f"vaddr:Q paddr:Q filesz:Q memsz:Q{free} align:Q")  # fmt: skip
        start, entries = self.dynamic
        for n, (tag, _) in enumerate(entries):
            yield from self.row(
                f"dynamic {n} ({tag:#x})", start + 16 * n, "tag:Q value:Q" + "*" * (tag in _CODE)
            )
        yield from self.relocations()
        yield from self.symbols()
        yield from self.hashes()
        yield from self.versions()
        yield from self.others()

    def drawn(self, rows: list[tuple[object, int]]) -> list[int]:
        """Some places of each kind of row."""
        kinds: dict[object, list[int]] = {}
        for kind, place in rows:
            kinds.setdefault(kind, []).append(place)
        return [
            place
            for places in kinds.values()
            for place in sorted(self.random.sample(places, min(ROWS, len(places))))
        ]

    def relocations(self) -> Iterator[Field]:
        rows = []
        for start, size in ((_RELA, _RELASZ), (_JMPREL, _PLTRELSZ)):
            first = self.offset(self.entries[start])
            for place in range(first, first + self.entries[size], 24):
                rows.append((struct.unpack_from("<I", self.data, place + 8)[0], place))
        for place in self.drawn(rows):
            kind = struct.unpack_from("<I", self.data, place + 8)[0]
            yield from self.row(f"relocation at {place:#x} ({kind})", place,
                                "offset:Q* type:I symbol:I* addend:q*")  # fmt: skip

    def symbols(self) -> Iterator[Field]:
        first, end = self.offset(self.entries[_SYMTAB]), self.offset(self.entries[_STRTAB])
        rows = []
        for place in range(first, end - 23, 24):
            name, info, _, section = struct.unpack_from("<IBBH", self.data, place)
            strings = self.offset(self.entries[_STRTAB]) + name
            model = self.data.startswith(b"AOTInductorModelContainerR", strings)
            rows.append(((info, bool(section), model), place))
        for place in self.drawn(rows):
            yield from self.row(f"symbol {(place - first) // 24}", place,
                                "name:I* info:B* other:B section:H value:Q* size:Q")  # fmt: skip
        yield Field("names' end", self.offset(self.entries[_STRTAB]) + self.entries[_STRSZ] - 1,
                    "<B")  # fmt: skip

    def hashes(self) -> Iterator[Field]:
        start = self.offset(self.entries[_HASH])
        buckets, _, words, _ = struct.unpack_from("<IIII", self.data, start)
        yield from self.row("hash", start, "buckets:I first:I words:I shift:I")
        chains = start + 16 + 8 * words + 4 * buckets
        end = self.offset(self.entries[_SYMTAB])
        tables = {
            "filter": range(start + 16, start + 16 + 8 * words, 8),
            "bucket": range(start + 16 + 8 * words, chains, 4),
            "chain": range(chains, end - 3, 4),
        }
        for name, places in tables.items():
            kinds = [(places[-1] == place, place) for place in places]
            for place in self.drawn(kinds):  # type: ignore[arg-type]
                yield Field(f"hash {name} at {place:#x}", place, "<Q" if name == "filter" else "<I")

    def versions(self) -> Iterator[Field]:
        start = self.offset(self.entries[_VERSYM])
        numbers = [(number, start + 2 * n) for n, (number,) in enumerate(
            struct.iter_unpack("<H", self.data[start : self.offset(self.entries[_VERNEED]) & ~1])
        )]  # fmt: skip
        for place in self.drawn(numbers):  # type: ignore[arg-type]
            yield Field(f"version of symbol {(place - start) // 2}", place, "<H")
        place = self.offset(self.entries[_VERNEED])
        for n in range(self.entries[_VERNEEDNUM]):
            yield from self.row(f"versions of library {n}", place,
                                "version:H count:H file:I first:I next:I")  # fmt: skip
            _, count, _, first, following = struct.unpack_from("<HHIII", self.data, place)
            version = place + first
            for m in range(count):
                yield from self.row(f"version {n}.{m}", version,
                                    "hash:I flags:H other:H name:I next:I")  # fmt: skip
                version += struct.unpack_from("<I", self.data, version + 12)[0]
            place += following

    def others(self) -> Iterator[Field]:
        start = self.offset(self.entries[_INIT_ARRAY])
        for n in range(self.entries[_INIT_ARRAYSZ] // 8 + 1):  # and the first of DT_FINI_ARRAY
            yield Field(f"initializer {n}", start + 8 * n, "<Q")
        start = self.headers[_NOTE][2]
        yield from self.row("note", start, "namesz:I descsz:I type:I")
        start = self.headers[_EH_FRAME][2]
        yield from self.row("frames", start, "version:B pointer:B count:B table:B start:i rows:I")
        rows = struct.unpack_from("<I", self.data, start + 8)[0]
        for n in {0, rows // 2, rows - 1}:
            yield from self.row(f"frame {n}", start + 12 + 8 * n, "function:i* frame:i*")

    def changed(self, field: Field) -> Iterator[Change]:
        """Other numbers for one field."""
        (old,) = struct.unpack_from(field.form, self.data, field.place)
        size = 8 * struct.calcsize(field.form)
        values = {
            "0": 0, "1": 1, "-1": -1, "huge": 1 << (size - 2), "most": (1 << (size - 1)) - 1,
            "+1": old + 1, "-1 off": old - 1, "out of step": old + 4, "a row on": old + 24,
            "a page on": old + PAGE, "the end": len(self.data), "past the end": 1 << 30,
        }  # fmt: skip
        if field.free:
            values = {label: values[label] for label in OUTSIDE}
        seen = {old % (1 << size)}
        for label, value in values.items():
            bits = value % (1 << size)
            if bits not in seen:
                seen.add(bits)
                number = bits.to_bytes(size // 8, "little")
                yield Change(f"{field.name} := {label}", field.place, number)

    def changes(self) -> Iterator[Change]:
        """Every change of every field."""
        for field in self.fields():
            yield from self.changed(field)


def attempt(package: Path) -> None:
    """Load a package and run it, or end with REFUSED and the error's name."""
    try:
        with aoti.load(package) as model:
            model(np.zeros((3, 10), np.float32))
    except aoti.AotiError as error:
        print(type(error).__name__, error, file=sys.stderr)
        sys.exit(REFUSED)


def main() -> None:
    """Fork a process per change."""
    packages, directory = Path(sys.argv[1]), Path(sys.argv[2])
    seed, number = map(int, sys.argv[3:])
    with aoti.Package(packages / "mlp.pt2") as package:
        package.extract("model", directory / "model")
    files = {f"m/data/aotinductor/model/{path.name}": path.read_bytes()
             for path in (directory / "model").rglob("*") if path.is_file()}  # fmt: skip
    (so,) = (name for name in files if name.endswith(".so"))
    code = Code(files[so], seed)
    changes = [*code.changes()]
    changes = random.Random(seed).sample(changes, min(number, len(changes)))
    libtorch.engine()  # starts no thread
    _ = aoti.load
    gc.freeze()  # a child collects what is its own only, which halves its time
    ends: dict[str, str] = {}
    for change in changes:
        place = directory / "case"
        for made in ("cache", "tmp"):
            (place / made).mkdir(parents=True)
        (place / "m.pt2").write_bytes(
            zipped({**files, so: change.of(code.data), "m/archive_format": b"pt2"})
        )
        child = os.fork()
        if child == 0:
            with (place / "said").open("wb") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            tempfile.tempdir = str(place / "tmp")
            os.environ["AOTI_CACHE_DIR"] = str(place / "cache")
            signal.alarm(LONGEST)
            attempt(place / "m.pt2")
            return  # and end as programs do, with all that is registered for the end
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        said = (place / "said").read_text("utf-8", "replace").strip()
        ends[change.name] = {0: "ran", REFUSED: said}.get(status, f"ended with {status}: {said}")
        shutil.rmtree(place)
    print(json.dumps(ends))


if __name__ == "__main__":
    main()
