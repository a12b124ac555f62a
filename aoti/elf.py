"""ELF."""

import struct
from pathlib import Path


def forbid_executable_stack(path: Path) -> None:
    """Clear PF_X in an ELF file's PT_GNU_STACK program header (ELF-64, see elf(5))."""
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
            if kind == 0x6474E551 and flags & 1:  # PT_GNU_STACK, PF_X
                file.seek(place + 4)
                file.write(struct.pack(endian + "I", flags & ~1))
