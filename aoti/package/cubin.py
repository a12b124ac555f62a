"""Which GPUs of NVIDIA a package's kernels are compiled for, by their own files.

A ``.cubin`` is an ELF file for one architecture; a ``.fatbin`` holds several of those, and portable
code (PTX), which the driver compiles for newer GPUs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from aoti._text import listing
from aoti.compat.finding import Finding
from aoti.errors import PackageError

_ELF, _EM_CUDA = b"\x7fELF", 190
_FATBIN = 0xBA55ED50
_PTX, _CODE = 1, 2  # kinds of a fatbin's entries
_SPECIFIC = 0x800  # of e_flags: for this very architecture, as sm_90a
_LIMIT = 1000  # entries of a fatbin


@dataclass(frozen=True, order=True)
class Target:
    """What one piece of a kernel is compiled for.

    Attributes
    ----------
    number : int
        The compute capability: 90 for 9.0.
    portable : bool
        Whether it is PTX, which also runs on every newer one.
    specific : bool
        Whether it runs on no other one.
    """

    number: int
    portable: bool = False
    specific: bool = False

    def __str__(self) -> str:
        kind = "compute" if self.portable else "sm"
        return f"{kind}_{self.number}{'a' if self.specific else ''}"

    def runs_on(self, number: int) -> bool:
        """Whether a GPU of this compute capability runs it.

        Of code for another minor number, a GPU runs that for lower ones.
        """
        if self.specific:
            return self.number == number
        return self.number <= number and (self.portable or self.number // 10 == number // 10)


def read_targets(path: Path) -> tuple[Target, ...]:
    """What a kernel's file is compiled for.

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
                    raise ValueError("it holds what no fatbin has")
                found.append(Target(number, portable=kind == _PTX))
                offset += header + length
            return tuple(found)
        except (struct.error, ValueError) as error:
            raise PackageError(f"the kernel {path.name} is damaged: {error}") from error


def _of_cubin(head: bytes) -> Target:
    (machine,), (flags,) = struct.unpack_from("<H", head, 18), struct.unpack_from("<I", head, 48)
    if machine != _EM_CUDA:
        raise ValueError("it is for no GPU of NVIDIA")
    if head[8] >= 8:  # the version of its ABI, since sm_100
        return Target(flags >> 8 & 0xFF)
    return Target(flags & 0xFF, specific=bool(flags & _SPECIFIC))


def check_kernels(directory: Path, architecture: str) -> Finding:
    """Do the kernels of a model run on a GPU?

    Parameters
    ----------
    directory : Path
        The model's directory: ``data/aotinductor/<model>`` of an extraction.
    architecture : str
        The GPU's: ``sm_90``.
    """
    number = int(architecture.removeprefix("sm_"))
    files = sorted((*directory.glob("*.cubin"), *directory.glob("*.fatbin")))
    try:
        targets = {file.name: read_targets(file) for file in files}
    except PackageError as error:
        return Finding("kernels", False, str(error), "copy the package again, or export it again")
    has = listing(sorted({str(target) for found in targets.values() for target in found}))
    for name, found in targets.items():
        if not any(target.runs_on(number) for target in found):
            message = (
                f"the package's kernels are for {has}, and none of {name} runs on {architecture}"
            )
            fix = f"export it on a {architecture}, or the oldest it shall run on with "
            fix += "aot_inductor.emit_multi_arch_kernel=True"
            return Finding("kernels", False, message, fix)
    if not files:
        return Finding("kernels", True, "the package has no files of kernels for GPUs of NVIDIA")
    return Finding("kernels", True, f"the package's kernels are for {has}")
