"""Archives that lie, are damaged, or hold names that belong into no package."""

from __future__ import annotations

import stat
import struct
import zipfile
from typing import Any

from craft import (
    ATTRIBUTES,
    COMMENT_LENGTH,
    COMPRESSED,
    CRC,
    DIRECTORY_OFFSET,
    DIRECTORY_SIZE,
    DISKS,
    ENTRIES,
    EXTRA_LENGTH,
    FILES,
    FLAGS,
    LOCAL_NAME_LENGTH,
    METADATA,
    METHOD,
    MODEL,
    NAME_LENGTH,
    OFFSET,
    SIZE,
    SO,
    changed,
    changed_end,
    changed_local,
    of,
    real,
    with_file,
    zipped,
)
from runner import File, refused

import aoti
from aoti import Limits, PackageError

DEFLATED = zipped(compression=zipfile.ZIP_DEFLATED)


def flipped(place: int) -> Any:
    """The exported network with one bit of its code turned, somewhere in it."""

    def make(directory: Any) -> Any:
        path = real("mlp.pt2", lambda _, content: content)(directory)
        data = bytearray(path.read_bytes())
        data[data.index(b"\x7fELF") + place] ^= 1
        path.write_bytes(data)
        return path

    return make


def kind(mode: int) -> Any:
    return of(changed(zipped(), ATTRIBUTES, (mode | 0o777) << 16))


def zip64(size: int) -> bytes:
    """An entry whose size stands in an extra field of 64 bits."""
    info = zipfile.ZipInfo(SO)
    info.extra = struct.pack("<HHQ", 1, 8, size)
    return changed(zipped([(info, FILES[SO]), *list(FILES.items())[1:]]), SIZE, 0xFFFFFFFF)


def limited(**limits: int) -> Any:
    """A load that takes less than is there."""
    return {"load": lambda source: aoti.load(source, limits=Limits(**limits)).close()}


def cut(end: int) -> Any:
    return of(zipped()[:end])


def overlapping() -> bytes:
    """Two entries over one local header."""
    data = zipped({**FILES, f"{MODEL}/b_weights.blob": b"x"})
    return changed(data, OFFSET, 0, f"{MODEL}/b_weights.blob")


FORBIDDEN = "forbidden name"
DAMAGED = "is damaged"

NAMES = (
    refused("a name that leads out", with_file("../x"), PackageError, FORBIDDEN, "'../x'"),
    refused("a name that leads out further", with_file("m/../../x"), PackageError, FORBIDDEN),
    refused("a model's file that leads out", with_file(f"{MODEL}/../../../../x"), PackageError,
            FORBIDDEN),
    refused("a name from the root", with_file("/etc/x"), PackageError, FORBIDDEN),
    refused("a name on a drive", with_file("C:/x"), PackageError, FORBIDDEN),
    refused("a name on a share", with_file("//host/share/x"), PackageError, FORBIDDEN),
    refused("a stream of a file", with_file(f"{SO}:hidden"), PackageError, FORBIDDEN),
    refused("a name with a dot", with_file("m/./x"), PackageError, FORBIDDEN),
    refused("a name with an empty part", with_file("m//x"), PackageError, FORBIDDEN),
    refused("a name with backslashes", with_file("m\\..\\..\\x"), PackageError, FORBIDDEN),
    refused("a name cut by a NUL",
            of(zipped({**FILES, f"{MODEL}/a.wrapper.soZx": b""}).replace(b".soZx", b".so\0x")),
            PackageError, FORBIDDEN),
    refused("a device's name", with_file("m/nul"), PackageError, "named like a device", "'m/nul'"),
    refused("a device's name with an ending", with_file(f"{MODEL}/COM1.so"), PackageError,
            "named like a device"),
    refused("a long name", with_file(f"{MODEL}/{'x' * 250}"), PackageError, "too long"),
    refused("a long name of few letters", with_file(MODEL + "/" + "\u4e2d" * 80), PackageError,
            "too long"),
    refused("names that differ in case", with_file(SO.replace("a.w", "A.w")), PackageError,
            "names differ only in case"),
    refused("prefixes that differ in case", with_file(SO.replace("m/", "M/", 1)), PackageError,
            "names differ only in case"),
    refused("a name twice", of([*FILES.items(), (SO, b"x")]), PackageError,
            "two files of the same name"),
    refused("a name under two prefixes", with_file(SO.replace("m/", "n/", 1)), PackageError,
            "two files of the same name"),
    refused("a name with and without a prefix", with_file(SO.removeprefix("m/")), PackageError,
            "two files of the same name"),
    refused("a symbolic link", kind(stat.S_IFLNK), PackageError, "symbolic link", SO),
    refused("a named pipe", kind(stat.S_IFIFO), PackageError, "not a regular file"),
    refused("a device", kind(stat.S_IFCHR), PackageError, "not a regular file"),
    refused("a directory with content", kind(stat.S_IFDIR), PackageError, "not a regular file"),
)  # fmt: skip

SIZES = (
    refused("more files than the limit", of(FILES), PackageError, "holds 4 files; the limit is 3",
            **limited(files=3)),
    refused("more bytes than the limit", of(FILES), PackageError, "bytes; the limit is 100",
            **limited(total_bytes=100)),
    refused("a document over the limit", of(FILES), PackageError, "too large",
            **limited(document_bytes=10)),
    refused("a bomb", of(lambda: zipped({**FILES, SO: bytes(20 << 20)}, zipfile.ZIP_DEFLATED)),
            PackageError, "claims to hold"),
    refused("a bomb in the metadata",
            of(lambda: zipped({**FILES, METADATA: b" " * (20 << 20)}, zipfile.ZIP_DEFLATED)),
            PackageError, "claims to hold"),
    refused("a bomb that says it is small",
            of(lambda: changed(zipped({**FILES, SO: bytes(8 << 20)}, zipfile.ZIP_DEFLATED),
                               SIZE, 1000)),
            PackageError, DAMAGED),
    refused("a bomb of metadata that says it is small",
            of(lambda: changed(zipped({**FILES, METADATA: b" " * (8 << 20)}, zipfile.ZIP_DEFLATED),
                               SIZE, 100, METADATA)),
            PackageError, DAMAGED),
    refused("4 GiB", of(changed(zipped(), SIZE, 0xFFFFFFFE)), PackageError, "claims to hold"),
    refused("an exabyte", of(zip64(1 << 60)), PackageError, "the limit is"),
    refused("more than 64 bits", of(zip64(2**64 - 1)), PackageError),
    refused("no size of 64 bits", of(changed(zipped(), SIZE, 0xFFFFFFFF)), PackageError),
    refused("a byte more", of(changed(zipped(), SIZE, len(FILES[SO]) + 1)), PackageError, DAMAGED),
    refused("a byte less", of(changed(zipped(), SIZE, len(FILES[SO]) - 1)), PackageError, DAMAGED),
    refused("nothing", of(changed(zipped(), SIZE, 0)), PackageError, DAMAGED),
    refused("a byte less of the archive", of(changed(zipped(), COMPRESSED, 503)), PackageError,
            DAMAGED),
    refused("all that follows", of(changed(zipped(), COMPRESSED, 0x7FFFFFFF)), PackageError,
            "outside"),
    refused("an entry outside of the archive", of(changed(zipped(), OFFSET, 0x7F000000)),
            PackageError, "outside"),
    refused("an entry in the middle of another", of(changed(zipped(), OFFSET, 7)), PackageError,
            DAMAGED),
    refused("two entries over one", of(overlapping), PackageError, DAMAGED),
)  # fmt: skip

STRUCTURE = (
    refused("one bit of the code", flipped(300_000), PackageError, DAMAGED, repeats=50),
    refused("the first bit of the code", flipped(0), PackageError, DAMAGED, repeats=50),
    refused("one bit of the metadata", of(zipped().replace(b'"cpu"', b'"cpw"')), PackageError,
            DAMAGED, METADATA),
    refused("another checksum", of(changed(zipped(), CRC, 1)), PackageError, DAMAGED),
    refused("a bit of compressed data",
            of(DEFLATED[: (n := DEFLATED.index(b".so") + 8)] + b"\xff" + DEFLATED[n + 1 :]),
            PackageError, DAMAGED),
    refused("encrypted", of(changed(zipped(), FLAGS, 1)), PackageError, "encrypted", SO),
    refused("patched data", of(changed(zipped(), FLAGS, 0x20)), PackageError, DAMAGED),
    refused("bzip2", of(changed(zipped(), METHOD, 12)), PackageError, "compressed in a way", "12"),
    refused("lzma", of(changed(zipped(), METHOD, 14)), PackageError, "compressed in a way"),
    refused("a method that nobody knows", of(changed(zipped(), METHOD, 99)), PackageError,
            "compressed in a way"),
    refused("stored data called deflated", of(changed(zipped(), METHOD, 8)), PackageError, DAMAGED),
    refused("deflated data called stored", of(changed(DEFLATED, METHOD, 0)), PackageError, DAMAGED),
    refused("another name in the local header",
            of(zipped().replace(b"a.wrapper.so", b"b.wrapper.so", 1)), PackageError, DAMAGED),
    refused("a long name in the local header",
            of(changed_local(zipped(), LOCAL_NAME_LENGTH, 65535)), PackageError, DAMAGED),
    refused("no local header", of(zipped().replace(b"PK\3\4", b"PK\3\5", 1)), PackageError,
            DAMAGED),
    refused("a name longer than the directory", of(changed(zipped(), NAME_LENGTH, 65535)),
            PackageError, "m.pt2"),
    refused("an extra field longer than the directory", of(changed(zipped(), EXTRA_LENGTH, 65535)),
            PackageError, DAMAGED),
    refused("no directory", of(zipped().replace(b"PK\1\2", b"PK\1\3")), PackageError, DAMAGED),
    refused("half a directory", of(zipped().replace(b"PK\1\2", b"PK\1\3", 2).replace(
        b"PK\1\3", b"PK\1\2", 1)), PackageError, DAMAGED),
    refused("fewer entries", of(changed_end(changed_end(zipped(), ENTRIES, 0), DIRECTORY_SIZE, 0)),
            PackageError),
    refused("more of the directory", of(changed_end(zipped(), DIRECTORY_SIZE, 0x7FFFFFFF)),
            PackageError, DAMAGED),
    refused("a directory beyond the end", of(changed_end(zipped(), DIRECTORY_OFFSET, 0x7FFFFFFF)),
            PackageError),
    refused("a directory of 64 bits that is not there",
            of(changed_end(zipped(), DIRECTORY_OFFSET, 0xFFFFFFFF)), PackageError),
    refused("a comment with another end",
            of(changed_end(zipped(), COMMENT_LENGTH, 22) + b"PK\5\6" + bytes(18)), PackageError),
    refused("another disk", of(changed_end(zipped(), DISKS, 7)[:-1]), PackageError, DAMAGED),
    refused("cut in the first header", cut(10), PackageError, DAMAGED),
    refused("cut in the code", cut(300), PackageError, DAMAGED),
    refused("cut in the directory", cut(len(zipped()) - 100), PackageError, DAMAGED),
    refused("cut in the end", cut(-10), PackageError, DAMAGED),
    refused("cut by one byte", cut(-1), PackageError, DAMAGED),
    refused("no beginning", of(zipped()[40:]), PackageError),
    refused("an empty archive", of({}), PackageError, "not an AOTInductor package"),
)  # fmt: skip

ROWS: tuple[File, ...] = (*NAMES, *SIZES, *STRUCTURE)
