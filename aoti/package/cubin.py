"""Reads which GPUs of NVIDIA a package's kernels are compiled for.

A ``.cubin`` is an ELF file for one architecture. A ``.fatbin`` contains several of those, and
portable code (PTX), which the driver compiles for newer GPUs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from aoti.errors import PackageError

_ELF, _EM_CUDA = b"\x7fELF", 190
_FATBIN = 0xBA55ED50
_PTX, _CODE = 1, 2  # kinds of a fatbin's entries
_SPECIFIC = 0x800  # of e_flags: for this very architecture, as sm_90a
_LIMIT = 1000  # entries of a fatbin


@dataclass(frozen=True, order=True)
class Target:
    """The GPUs that one piece of a kernel is compiled for.

    Attributes
    ----------
    number : int
        The compute capability: 90 for 9.0.
    portable : bool
        Whether it is PTX, which also runs on every newer GPU.
    specific : bool
        Whether it runs on this compute capability only.
    """

    number: int
    portable: bool = False
    specific: bool = False

    def __str__(self) -> str:
        kind = "compute" if self.portable else "sm"
        return f"{kind}_{self.number}{'a' if self.specific else ''}"

    def runs_on(self, number: int) -> bool:
        """Whether a GPU of this compute capability runs it.

        Within a major number, a GPU runs code for its own and for lower minor numbers.
        """
        if self.specific:
            return self.number == number
        return self.number <= number and (self.portable or self.number // 10 == number // 10)


def read_targets(path: Path) -> tuple[Target, ...]:
    """The targets of a kernel's file.

    Raises
    ------
    PackageError
        The file is damaged.
    """
    with path.open("rb") as file:
        head = file.read(64)
        try:
            if head.startswith(_ELF):
                return (_of_cubin(head),)
            magic, _version, offset, size = struct.unpack_from("<IHHQ", head)
            if magic != _FATBIN:
                raise ValueError("it is neither a cubin nor a fatbin")
            end = offset + size
            found: list[Target] = []
            while offset < end and len(found) < _LIMIT:
                file.seek(offset)
                kind, _flags, header, length, number = struct.unpack("<HHIQ12xI", file.read(32))
                if not number or kind not in (_PTX, _CODE) or header < 32:
                    raise ValueError("an entry is not one of a fatbin")
                found.append(Target(number, portable=kind == _PTX))
                offset += header + length
            return tuple(found)
        except (struct.error, ValueError) as error:
            raise PackageError(f"the kernel {path.name} is damaged: {error}") from error


def _of_cubin(head: bytes) -> Target:
    (machine,), (flags,) = struct.unpack_from("<H", head, 18), struct.unpack_from("<I", head, 48)
    if machine != _EM_CUDA:
        raise ValueError("it is not for a GPU of NVIDIA")
    if head[8] >= 8:  # the version of its ABI, since sm_100
        return Target(flags >> 8 & 0xFF)
    return Target(flags & 0xFF, specific=bool(flags & _SPECIFIC))
