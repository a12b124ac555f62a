"""Packages made by hand: small ones, and real ones with something changed."""

from __future__ import annotations

import io
import json
import os
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

MODEL = "m/data/aotinductor/model"
SO = f"{MODEL}/a.wrapper.so"
METADATA = f"{MODEL}/a.wrapper_metadata.json"
DESCRIPTION = {"AOTI_DEVICE_KEY": "cpu", "AOTI_PLATFORM": "linux", "AOTI_MACHINE": "x86_64"}
FILES = {
    SO: b"\x7fELF" + bytes(500),
    METADATA: json.dumps(DESCRIPTION).encode(),
    f"{MODEL}/a.wrapper.cpp": b"// generated",
    "m/archive_format": b"pt2",
}

# Fields of a record of a zip's central directory, of a local header and of the end record: where
# they stand, and how.
FLAGS, METHOD, CRC, COMPRESSED, SIZE = (8, "<H"), (10, "<H"), (16, "<I"), (20, "<I"), (24, "<I")
NAME_LENGTH, EXTRA_LENGTH, ATTRIBUTES, OFFSET = (28, "<H"), (30, "<H"), (38, "<I"), (42, "<I")
COMMENT_LENGTH, LOCAL_NAME_LENGTH = (20, "<H"), (26, "<H")
DISKS, ENTRIES, DIRECTORY_SIZE, DIRECTORY_OFFSET = (4, "<H"), (10, "<H"), (12, "<I"), (16, "<I")

Files = Mapping[str, bytes] | Iterable[tuple[str | zipfile.ZipInfo, bytes]]


def zipped(files: Files = FILES, compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of these files."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that come twice
        for name, content in files.items() if isinstance(files, Mapping) else files:
            archive.writestr(name, content, compression)
    return memory.getvalue()


def changed(data: bytes, field: tuple[int, str], value: int, entry: str = SO) -> bytes:
    """The same with another value in an entry's record of the central directory."""
    return _packed(data, data.rindex(b"PK\1\2", 0, data.rindex(entry.encode())), field, value)


def changed_local(data: bytes, field: tuple[int, str], value: int, entry: str = SO) -> bytes:
    """The same with another value in an entry's local header."""
    return _packed(data, data.rindex(b"PK\3\4", 0, data.index(entry.encode())), field, value)


def changed_end(data: bytes, field: tuple[int, str], value: int) -> bytes:
    """The same with another value in the record at the archive's end."""
    return _packed(data, data.rindex(b"PK\5\6"), field, value)


def _packed(data: bytes, start: int, field: tuple[int, str], value: int) -> bytes:
    result = bytearray(data)
    struct.pack_into(field[1], result, start + field[0], value)
    return bytes(result)


def of(content: bytes | Files | Callable[[], bytes | Files]) -> Callable[[Path], Path]:
    """What makes a row's file, from its bytes or from the files in it."""

    def make(directory: Path) -> Path:
        data = content() if callable(content) else content
        path = directory / "m.pt2"
        path.write_bytes(data if isinstance(data, bytes) else zipped(data))
        return path

    return make


def with_file(name: str, content: bytes = b"x") -> Callable[[Path], Path]:
    """A package with one more file."""
    return of({**FILES, name: content})


def without(*names: str) -> dict[str, bytes]:
    """The files without some of them."""
    return {name: content for name, content in FILES.items() if name not in names}


def described(**changes: Any) -> Callable[[Path], Path]:
    """A package whose metadata says something else; None leaves a key out."""
    metadata = {k: v for k, v in {**DESCRIPTION, **changes}.items() if v is not None}
    return of({**FILES, METADATA: json.dumps(metadata).encode()})


def packages() -> Path:
    """Where the exported packages are."""
    return Path(os.environ["AOTI_TEST_PACKAGES"])


def real(name: str, change: Callable[[str, bytes], bytes | None]) -> Callable[[Path], Path]:
    """An exported package whose files a function changed, or left out by giving None."""

    def make(directory: Path) -> Path:
        with zipfile.ZipFile(packages() / name) as archive:
            files = {n: change(n, archive.read(n)) for n in archive.namelist()}
        path = directory / Path(name).name
        path.write_bytes(zipped({n: c for n, c in files.items() if c is not None}))
        return path

    return make


def real_code(change: Callable[[bytes], bytes | None], name: str = "mlp.pt2") -> Any:
    """An exported package with another shared object."""
    return real(name, lambda n, content: change(content) if n.endswith(".so") else content)


def real_metadata(**changes: str) -> Any:
    """An exported package with other metadata."""

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("wrapper_metadata.json"):
            return content
        return json.dumps(json.loads(content) | changes).encode()

    return real("mlp.pt2", change)
