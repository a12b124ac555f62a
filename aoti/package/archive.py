"""The files of a package, checked: a zip archive on disk or in memory, or a directory.

These classes trust nothing in an archive. They return names that stay inside a directory, sizes
that match the archive's, and contents whose checksums were verified.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
import zipfile
import zlib
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, NamedTuple, cast

from aoti.errors import PackageError, PackageNotFoundError, reason
from aoti.package.hashed import Hash, hashed

_LOCAL_HEADER = struct.Struct("<26xHH")  # before a file's name and extra field: their lengths
_NAME_LIMIT = 200  # bytes; file systems take 255, and extractions are named after models
_DEVICE_NAMES = frozenset(  # reserved by Windows, whatever their ending
    ["con", "prn", "aux", "nul"] + [f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10)]
)
# Other kinds of files that people mistake for a package, by their first bytes.
_OTHER_FORMATS = (
    (4, b"ET12", "an ExecuTorch program; run it with executorch, or compile the model for aoti"),
    (0, b"\x7fELF", "a shared object; give the whole .pt2 package that it came from"),
    (8, b"{", "a safetensors file: weights without a model; export the model with aoti.export"),
    (0, b"\x80", "a pickle; export the model with aoti.export"),
    (0, b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (0, b"\xfd7zXZ", "compressed with xz; unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"),
    (257, b"ustar", "a tar archive; unpack it first"),
)


Identity = tuple[int, int, int, int, int]


class Span(NamedTuple):
    """A part of a file, in bytes, and the identity of that file if others may change it."""

    path: Path
    offset: int
    nbytes: int
    identity: Identity | None = None


class Limits(NamedTuple):
    """How much a package may contain before it is refused.

    Attributes
    ----------
    files : int
        The number of files.
    total_bytes : int
        The size of all files together, as they are extracted.
    document_bytes : int
        The size of one text: metadata, or generated C++, which has some tens of MiB for the largest
        models.
    inflation : int
        The size of all files, as a multiple of the archive's size. Packages are stored without
        compression; compressed by hand, code shrinks to a fifth.
    """

    files: int = 100_000
    total_bytes: int = 1 << 40
    document_bytes: int = 256 << 20
    inflation: int = 100


def identity(status: os.stat_result) -> Identity:
    """Facts that change when a file is replaced or written to: see `Zip.identity`."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class readable:  # noqa: N801  (a context manager, used like a function)
    """Turns what zipfile and zlib raise for a damaged archive into a PackageError."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # RuntimeError: features that zipfile does not have. OverflowError: sizes that no file has.
        # TypeError: a file object that does not return bytes.
        damage = (
            *(zipfile.BadZipFile, zlib.error, struct.error, EOFError),
            *(RuntimeError, ValueError, OverflowError, TypeError),
        )
        if isinstance(error, PackageError):
            return
        if isinstance(error, OSError):
            raise PackageError(f"{self._name} cannot be read: {reason(error)}") from error
        if isinstance(error, damage):
            raise PackageError(f"{self._name} is damaged: {error!s:.200}") from error


class Zip:
    """The files in a zip archive. zipfile verifies the CRC-32 of a file that is read to its end.

    Parameters
    ----------
    file : binary file
        The archive, seekable.
    name : str
        The archive's name, for messages.
    limits : Limits
        How much it may contain.
    owned : bool
        Whether `close` closes the file too.

    Attributes
    ----------
    files : dict of str to int
        Name and size of every file in it.
    """

    def __init__(self, file: BinaryIO, name: str, limits: Limits, *, owned: bool = False) -> None:
        self._file, self._name, self._owned = file, name, owned
        self._limits = limits
        self._hash: Hash | None = None
        self._opened = self.identity
        with readable(name):
            self._size = file.seek(0, io.SEEK_END)
        try:
            self._zip = self._open_zip(file)
        except PackageError as error:
            with readable(name):
                file.seek(0)
                what = _format(file.read(512))
            if what is not None:
                raise PackageError(f"{name} is not a .pt2 package: it is {what}") from error
            raise
        self.files = self._list()

    @classmethod
    def open(cls, path: Path, limits: Limits) -> Zip:
        """Open a file. It stays open, because the path may be another package later."""
        try:
            file = _open(path)
        except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a NUL
            raise PackageNotFoundError(f"no package at {path!s:.200}") from error
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise PackageNotFoundError(f"no package at {path!s:.200}...") from error
            if error.errno == errno.ENXIO:  # a socket
                raise PackageError(
                    f"{path} is not a .pt2 package: it is not a regular file"
                ) from error
            if error.errno == errno.ELOOP:
                raise PackageError(f"{path}: its symbolic links lead in a circle") from error
            raise
        try:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise PackageError(f"{path} is not a .pt2 package: it is not a regular file")
            return cls(file, str(path), limits, owned=True)
        except BaseException:
            file.close()
            raise

    def _open_zip(self, file: IO[bytes]) -> zipfile.ZipFile:
        with readable(self._name):
            return zipfile.ZipFile(file)

    def _list(self) -> dict[str, int]:
        # Not is_dir(), which fails for an empty name.
        entries = [info for info in self._zip.infolist() if not info.filename.endswith("/")]
        for info in entries:
            if refusal := _refusal(info, self._size):
                raise PackageError(f"{self._name} holds {refusal}: {info.orig_filename!r:.300}")
        files = {info.filename: info.file_size for info in entries}
        if len(files) < len(entries):
            raise PackageError(f"{self._name} holds two files of the same name")
        check_files(self._name, files, self._limits)
        total = sum(files.values())
        if total > self._limits.inflation * self._size:
            raise PackageError(f"{self._name} has {self._size} bytes and claims to hold {total}")
        return files

    @property
    def identity(self) -> Identity | None:
        """Device, inode, size, and times of change of the file; None for one in memory."""
        try:
            return identity(os.fstat(self._file.fileno()))
        except (OSError, AttributeError):  # io.UnsupportedOperation is an OSError
            return None

    def open_file(self, name: str) -> IO[bytes]:
        """Open one of the files, at its start."""
        with readable(self._name):
            return self._zip.open(name)

    def span(self, name: str) -> Span | None:
        """The place of a file's bytes; None if they are compressed."""
        info = self._zip.getinfo(name)
        if info.compress_type != zipfile.ZIP_STORED:
            return None
        self.open_file(name).close()  # compares the headers
        with readable(self._name):
            file = cast("IO[bytes]", self._zip.fp)
            file.seek(info.header_offset)
            header = file.read(_LOCAL_HEADER.size)
        offset = info.header_offset + len(header) + sum(_LOCAL_HEADER.unpack(header))
        return Span(Path(self._name), offset, info.file_size, self._opened)

    def digest(self) -> str:
        """SHA-256 of the whole archive, in hex; read from then on is only what was hashed."""
        if self._hash is None:
            with readable(self._name):
                found = Hash(self._file)
            self._zip = self._open_zip(hashed(self._file, found, self._name))
            if self._list() != self.files:
                raise PackageError(f"{self._name} was changed while it was read; load it again")
            self._hash = found
        return self._hash.digest

    def close(self) -> None:
        """Close the archive, and the file if it was opened here."""
        self._zip.close()  # leaves the file open
        if self._owned:
            self._file.close()


class Directory:
    """The files below a directory. Attributes and methods are those of `Zip`."""

    identity = None

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path = path
        self._hashes: dict[str, Hash] = {}
        self.files: dict[str, int] = {}
        for entry in sorted(path.rglob("*")):
            name = entry.relative_to(path).as_posix()
            with readable(str(path)):  # another process may be changing it
                status = entry.lstat()
            kind = status.st_mode
            if stat.S_ISLNK(kind):
                raise PackageError(f"{path} holds a symbolic link: {name!r}; copy it with cp -rL")
            if stat.S_ISREG(kind):
                self.files[name] = status.st_size
            elif not stat.S_ISDIR(kind):
                raise PackageError(f"{path} holds an entry that is not a regular file: {name!r}")
        check_files(str(path), self.files, limits)

    def open_file(self, name: str) -> IO[bytes]:
        """Open one of the files, at its start."""
        # The file may have been replaced since it was listed.
        with readable(str(self._path)):
            file = _open(self._path / name, getattr(os, "O_NOFOLLOW", 0))
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                file.close()
                raise PackageError(
                    f"{self._path} holds an entry that is not a regular file: {name!r}"
                )
        if name in self._hashes:
            return hashed(file, self._hashes[name], f"{self._path}: {name}", owned=True)
        return file

    def span(self, name: str) -> Span | None:
        """The place of a file's bytes."""
        return Span(self._path / name, 0, self.files[name])

    def digest(self) -> str:
        """SHA-256 of all names and contents together, in hex, as `Zip.digest`."""
        from hashlib import sha256  # loads OpenSSL, which most starts do not need

        whole = sha256()
        for name in self.files:
            if name not in self._hashes:
                with self.open_file(name) as file, readable(str(self._path)):
                    self._hashes[name] = Hash(file)
            whole.update(os.fsencode(name) + f"\0{self._hashes[name].digest}\n".encode())
        return whole.hexdigest()

    def close(self) -> None:
        """Do nothing: no file stays open."""


def seekable(file: object, name: str) -> BinaryIO:
    """Check that an archive can be read from a file object, and return the object."""
    if not callable(getattr(file, "read", None)):
        raise PackageError(
            f"a package must be a path, bytes or a binary file, not {type(file).__name__}"
        )
    if isinstance(file, io.TextIOBase):
        raise PackageError(f"{name} was opened as text; open it with mode 'rb'")
    if getattr(file, "closed", False):
        raise PackageError(f"{name} is closed; open it with mode 'rb'")
    seekable = getattr(file, "seekable", None)
    if seekable is None or not seekable():
        raise PackageError(f"{name} cannot be sought in; pass what its read() gives")
    return cast("BinaryIO", file)


def check_files(archive: str, files: dict[str, int], limits: Limits) -> None:
    """Refuse unsafe names, names that file systems refuse, and too much data."""
    if len(files) > limits.files:
        raise PackageError(f"{archive} holds {len(files)} files; the limit is {limits.files}")
    total = sum(files.values())
    if total > limits.total_bytes:
        raise PackageError(f"{archive} holds {total} bytes; the limit is {limits.total_bytes}")
    folded: dict[str, str] = {}
    for name in files:
        parts = name.split("/")
        if "\\" in name or "\0" in name or ":" in name or {"", ".", ".."} & set(parts):
            raise PackageError(f"{archive} holds a file with a forbidden name: {name!r:.300}")
        if any(part.partition(".")[0].strip().lower() in _DEVICE_NAMES for part in parts):
            raise PackageError(f"{archive} holds a file named like a device: {name!r:.300}")
        if max(len(part.encode(errors="surrogateescape")) for part in parts) > _NAME_LIMIT:
            raise PackageError(
                f"{archive} holds a file with a name that is too long: {name!r:.300}"
            )
        # On file systems that fold cases, the second would be written over the first.
        if folded.setdefault(name.casefold(), name) != name:
            raise PackageError(
                f"{archive} holds two files whose names differ only in case: {name!r:.300}"
            )


def _refusal(info: zipfile.ZipInfo, archive_size: int) -> str | None:
    """What is wrong with an entry, according to the archive's directory; None if nothing is."""
    if info.filename != info.orig_filename:  # cut at a NUL, or renamed by an extra field
        return "a file with a forbidden name"
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "a symbolic link"
    if kind not in (0, stat.S_IFREG):
        return "an entry that is not a regular file"
    if info.flag_bits & 1:
        return "an encrypted file"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"a file compressed in a way that aoti does not read ({info.compress_type})"
    if not 0 <= info.header_offset < archive_size - info.compress_size:
        return "a file outside of the archive"
    return None


def _open(path: Path, flags: int = 0) -> BinaryIO:
    """Open a file for reading, without waiting for a writer if it is a named pipe."""
    flags |= getattr(os, "O_NONBLOCK", 0)
    return open(path, "rb", opener=lambda name, usual: os.open(name, usual | flags))


def _format(head: bytes) -> str | None:
    """The kind of a file that is not a zip archive; None for a file that begins like one."""
    if head.startswith(b"PK"):
        return None
    if not head:
        return "an empty file"
    for place, magic, what in _OTHER_FORMATS:
        if head.startswith(magic, place):
            return what
    return "not a zip archive"
