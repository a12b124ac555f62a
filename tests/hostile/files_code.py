"""Packages whose code or weights are missing, cut short, of another machine, or no code at all."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from craft import FILES, MODEL, SO, of, real, real_code, with_file, without
from runner import File, refused

from aoti import ExecutionError, IncompatiblePackageError, PackageError

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


def weights(change: Any) -> Any:
    """A network with weights in a file of its own, and another such file."""
    return real("weights_blob.pt2", lambda n, c: change(c) if n.endswith(".blob") else c)


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
    refused("weights cut in half", weights(lambda blob: blob[: len(blob) // 2]),
            IncompatiblePackageError, "768 bytes of weights", "that file has 384", **SLOW),
    refused("empty weights", weights(lambda blob: b""), IncompatiblePackageError,
            "that file has 0", **SLOW),
    refused("no weights", weights(lambda blob: None), IncompatiblePackageError,
            "there is no such file", **SLOW),
    refused("empty code", of({**FILES, SO: b""}), PackageError, "not an ELF shared object", **SLOW),
    refused("code that is text", of({**FILES, SO: b"x" * 5000}), PackageError,
            "not an ELF shared object", **SLOW),
    refused("code that is zeros", of({**FILES, SO: bytes(5000)}), PackageError,
            "not an ELF shared object", **SLOW),
    refused("code cut in its header", real_code(lambda code: code[:40]), PackageError,
            "not an ELF shared object", **SLOW),
    refused("code cut to a page", real_code(lambda code: code[:4096]), PackageError,
            "is damaged: it ends at 4096 bytes", **SLOW),
    refused("code of 32 bits", patched(4, "B", 1), IncompatiblePackageError, "32 bits", **SLOW),
    refused("code of the other byte order", patched(5, "B", 2), PackageError, "ELF", **SLOW),
    refused("code of another system", patched(7, "B", 9), ExecutionError, "ELF", **SLOW),
    refused("code of an unknown version", patched(20, "<I", 9), ExecutionError, "ELF", **SLOW),
    refused("code of another machine", patched(18, "<H", 183), IncompatiblePackageError,
            "code is for aarch64", "export the model on a Linux", **SLOW),
    refused("code that is an object file", patched(16, "<H", 1), PackageError,
            "is an object file, not a shared object", **SLOW),
    refused("code of a core dump", patched(16, "<H", 4), PackageError, "is a core dump", **SLOW),
    refused("no program headers", patched(56, "<H", 0), PackageError, "program headers", **SLOW),
    refused("65,535 program headers", patched(56, "<H", 65535), PackageError, "program headers",
            **SLOW),
    refused("program headers beyond the end", patched(32, "<Q", 1 << 40), PackageError,
            "program headers", **SLOW),
    refused("program headers of no size", patched(54, "<H", 0), PackageError, "program headers",
            **SLOW),
    refused("a program", real_code(a_program), IncompatiblePackageError, "model's code lacks",
            **SLOW),
    refused("a library that is no model", real_code(another_library), IncompatiblePackageError,
            "model's code lacks AOTInductorModelContainerCreateWithDevice", **SLOW),
    refused("code that cannot be run", renamed(b"ModelContainerRun\0", b"ModelContainerRxx\0"),
            IncompatiblePackageError, "lacks AOTInductorModelContainerRun;", **SLOW),
    refused("code that cannot be made", renamed(b"ModelContainerCreateWithDevice\0",
                                                b"ModelContainerCrxxteWithDevice\0"),
            IncompatiblePackageError, "lacks AOTInductorModelContainerCreateWithDevice", **SLOW),
    refused("code that wants what libtorch does not have",
            renamed(b"aoti_torch_empty_strided\0", b"aoti_torch_xmpty_strided\0"),
            IncompatiblePackageError, "calls aoti_torch_xmpty_strided", "export it again", **SLOW),
    refused("code that wants a newer C library", renamed(b"GLIBC_2.34\0", b"GLIBC_9.99\0"),
            IncompatiblePackageError, "needs GLIBC_9.99 of libc.so.6", **SLOW),
)  # fmt: skip
