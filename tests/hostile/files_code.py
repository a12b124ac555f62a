"""Packages whose code or weights are missing, cut short, of another machine, or no code at all."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from craft import FILES, MODEL, SO, of, real_code, with_file, without
from runner import File, refused

from aoti import ExecutionError, PackageError

# Each of these is written to a directory before the dynamic linker refuses it.
SLOW = {"repeats": 30}


def patched(place: int, kind: str, value: int) -> Any:
    """The exported network with another number in its ELF header (see elf(5))."""

    def change(code: bytes) -> bytes:
        result = bytearray(code)
        struct.pack_into(kind, result, place, value)
        return bytes(result)

    return real_code(change)


def renamed(old: bytes, new: bytes) -> Any:
    """The exported network with another name in its tables of symbols."""
    assert len(old) == len(new)
    return real_code(lambda code: code.replace(old, new))


def a_program(_: bytes) -> bytes:
    return Path("/bin/true").read_bytes()


def another_library(_: bytes) -> bytes:
    """A sound shared object that is no model."""
    import _bisect

    return Path(_bisect.__file__).read_bytes()


ROWS: tuple[File, ...] = (
    refused("source code only", of(without(SO)), PackageError, "package_cpp_only=False"),
    refused("weights as pickles", with_file(f"{MODEL}/weights_config.json", b"{}"), PackageError,
            "binary_blob"),
    # pending: nothing compares the weights with what the code wants (see export_weights.py)
    # refused("weights cut in half", weights(lambda blob: blob[: len(blob) // 2]), PackageError),
    # refused("empty weights", weights(lambda blob: b""), PackageError),
    # refused("no weights", weights(lambda blob: None), PackageError),
    # pending: aoti/elf.py makes PackageError of the ExecutionError in these, with its own words
    refused("empty code", of({**FILES, SO: b""}), ExecutionError, "file too short", **SLOW),
    refused("code that is text", of({**FILES, SO: b"x" * 5000}), ExecutionError,
            "invalid ELF header", **SLOW),
    refused("code that is zeros", of({**FILES, SO: bytes(5000)}), ExecutionError,
            "invalid ELF header", **SLOW),
    refused("code cut in its header", real_code(lambda code: code[:40]), ExecutionError,
            "file too short", **SLOW),
    # refused("code cut to a page", real_code(lambda code: code[:4096]), PackageError, **SLOW),
    # refused("code cut in half", real_code(lambda code: code[: len(code) // 2]),
    #         PackageError, **SLOW),
    # refused("code cut by a kilobyte", real_code(lambda code: code[:-1024]), PackageError, **SLOW),
    refused("code of 32 bits", patched(4, "B", 1), ExecutionError, "ELF class", **SLOW),
    refused("code of the other byte order", patched(5, "B", 2), ExecutionError, "ELF", **SLOW),
    refused("code of another system", patched(7, "B", 9), ExecutionError, "ELF", **SLOW),
    refused("code of an unknown version", patched(20, "<I", 9), ExecutionError, "ELF", **SLOW),
    refused("code of another machine", patched(18, "<H", 183), ExecutionError, **SLOW),
    refused("code that is an object file", patched(16, "<H", 1), ExecutionError, **SLOW),
    refused("code of a core dump", patched(16, "<H", 4), ExecutionError, **SLOW),
    # refused("no program headers", patched(56, "<H", 0), PackageError, **SLOW),
    # refused("65,535 program headers", patched(56, "<H", 65535), PackageError, **SLOW),
    # refused("program headers beyond the end", patched(32, "<Q", 1 << 40), PackageError, **SLOW),
    # refused("program headers of no size", patched(54, "<H", 0), PackageError, **SLOW),
    refused("a program", real_code(a_program), ExecutionError, **SLOW),
    refused("a library that is no model", real_code(another_library), ExecutionError, **SLOW),
    # pending: aoti/preflight.py makes IncompatiblePackageError or PackageError of these
    # refused("code that cannot be run", renamed(b"ModelContainerRun\0", b"ModelContainerRxx\0"),
    #         PackageError, **SLOW),
    refused("code that cannot be made", renamed(b"ModelContainerCreateWithDevice\0",
                                                b"ModelContainerCrxxteWithDevice\0"),
            ExecutionError, **SLOW),
    refused("code that wants what libtorch does not have",
            renamed(b"aoti_torch_empty_strided\0", b"aoti_torch_xmpty_strided\0"),
            ExecutionError, "aoti_torch_xmpty_strided", **SLOW),
)  # fmt: skip
