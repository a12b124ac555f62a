"""Paths, directories and file objects that hold no package, or hurt whoever reads them."""

from __future__ import annotations

import io
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from craft import FILES, METADATA, MODEL, SO, of, packages, zipped
from runner import File, refused

import aoti
from aoti import ModelNotFoundError, PackageError, PackageNotFoundError


class Stream(io.BytesIO):
    """A file object; subclasses misbehave."""


class RaisingRead(Stream):
    def read(self, *_: Any) -> bytes:
        raise ConnectionResetError("the other side is gone")


class ReadsText(Stream):
    def read(self, *_: Any) -> Any:
        return "text"


class ReadsNothing(Stream):
    def read(self, *_: Any) -> bytes:
        return b""


class Unseekable(Stream):
    def seekable(self) -> bool:
        return False


class RaisingSeek(Stream):
    def seek(self, *_: Any) -> int:
        raise OSError("cannot seek today")


class Shrinks(Stream):
    """The last half of it is gone once it was looked at."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if self.getbuffer().nbytes == len(zipped()):
            self.truncate(250)
        return data


def at(path: str) -> Callable[[Path], Any]:
    return lambda directory: directory / path


def unpacked(change: Callable[[Path], Any] | None = None) -> Callable[[Path], Path]:
    """A directory with a package's files, and something done to it."""

    def make(directory: Path) -> Path:
        for name, content in FILES.items():
            path = directory / "package" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if change is not None:
            change(directory / "package")
        return directory / "package"

    return make


def fifo(directory: Path) -> Path:
    os.mkfifo(directory / "m.pt2")
    return directory / "m.pt2"


def a_socket(directory: Path) -> Path:
    # Its path has room for some hundred bytes only.
    directory = Path(tempfile.mkdtemp(dir="/tmp")) if len(str(directory)) > 90 else directory
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "s"))
    return directory / "s"


def loop(directory: Path) -> Path:
    (directory / "a").symlink_to("b")
    (directory / "b").symlink_to("a")
    return directory / "a"


def opened(mode: str) -> Callable[[Path], Any]:
    """A file object on a package, opened in some way."""
    return lambda directory: of(FILES)(directory).open(mode)


def closed_file(directory: Path) -> Any:
    with of(FILES)(directory).open("rb") as file:
        return file


def pipe(_: Path) -> Any:
    return os.fdopen(os.pipe()[0], "rb")


def vanishing(source: Path) -> None:
    """Loads what loses a file after it was listed."""
    with aoti.Package(source) as package:
        (source / SO).unlink()
        try:
            package.extract("model", source.parent / "out")
        finally:
            (source / SO).write_bytes(FILES[SO])


def growing(source: Path) -> None:
    """The same of what gets longer."""
    with aoti.Package(source) as package:
        (source / SO).write_bytes(FILES[SO] * 2)
        try:
            package.extract("model", source.parent / "out")
        finally:
            (source / SO).write_bytes(FILES[SO])


def swapped(source: Path) -> None:
    """The same of what becomes a link to somewhere else."""
    with aoti.Package(source) as package:
        (source / SO).unlink()
        (source / SO).symlink_to("/etc/hostname")
        try:
            package.extract("model", source.parent / "out")
        finally:
            (source / SO).unlink()
            (source / SO).write_bytes(FILES[SO])


PATHS = (
    refused("nothing there", at("none.pt2"), PackageNotFoundError, "no package at", "none.pt2"),
    refused("no directory there", at("none/m.pt2"), PackageNotFoundError, "no package at"),
    refused("a path through a file", lambda d: of(FILES)(d) / "x", PackageNotFoundError,
            "no package at"),
    refused("a NUL in the path", at("a\0b"), PackageNotFoundError, "no package at"),
    refused("an empty path", lambda d: os.chdir(d) or "", PackageError, "no data/aotinductor"),
    refused("a path too long", at("x" * 5000), PackageNotFoundError, "no package at"),
    refused("a path that is no UTF-8", at("\udcff"), PackageNotFoundError, "no package at"),
    refused("a link to nothing", lambda d: (d / "l").symlink_to("none") or d / "l",
            PackageNotFoundError, "no package at"),
    refused("links in a circle", loop, PackageError, "symbolic links"),
    refused("an empty file", of(b""), PackageError, "an empty file"),
    refused("one byte", of(b"P"), PackageError, "not a zip archive"),
    refused("zeros", of(bytes(1 << 20)), PackageError, "not a zip archive"),
    refused("text", of(b"version https://git-lfs.github.com/spec/v1\n"), PackageError, "not a zip"),
    refused("a shared object", of(FILES[SO]), PackageError, "a shared object", "the whole .pt2"),
    refused("a gzip file", of(b"\x1f\x8b\x08\0" + bytes(100)), PackageError, "unpack it first"),
    refused("safetensors", of(b"\x10\0\0\0\0\0\0\0{}"), PackageError, "safetensors"),
    refused("a pickle", of(b"\x80\2}q."), PackageError, "a pickle"),
    refused("an ExecuTorch program", of(b"\x1c\0\0\0ET12" + bytes(100)), PackageError,
            "run it with executorch"),
    refused("an exported program", lambda d: packages() / "program.pt2", PackageError,
            "torch.export.save", "aoti.export(torch.export.load("),
    refused("a checkpoint", lambda d: packages() / "mlp.pth", PackageError, "a checkpoint"),
    refused("a wrong model name", lambda d: packages() / "mlp.pt2", ModelNotFoundError,
            "no model 'encoder'", "it holds 'model'",
            load=lambda source: aoti.load(source, model_name="encoder")),
    refused("a model name that leads out", lambda d: packages() / "mlp.pt2", ModelNotFoundError,
            "no model '../../model'", load=lambda source: aoti.load(
                source, model_name="../../model")),
    refused("/dev/null", lambda d: "/dev/null", PackageError, "not a regular file"),
    refused("/dev/zero", lambda d: "/dev/zero", PackageError, "not a regular file"),
    refused("a named pipe", fifo, PackageError, "not a regular file"),
    refused("a socket", a_socket, PackageError, "not a regular file"),
    refused("a file without a size", lambda d: "/proc/self/maps", PackageError),
)  # fmt: skip

DIRECTORIES = (
    refused("an empty directory", lambda d: d, PackageError, "no data/aotinductor"),
    refused("a directory of something else", lambda d: Path(__file__).parent, PackageError,
            "no data/aotinductor"),
    refused("a link in a directory", unpacked(lambda p: (p / "m/l").symlink_to("/etc/hostname")),
            PackageError, "symbolic link: 'm/l'", "cp -rL"),
    refused("a link for the code", unpacked(
        lambda p: (p / SO).rename(p / "x") and (p / SO).symlink_to(p / "x")), PackageError,
        "symbolic link"),
    refused("a link to a directory", unpacked(lambda p: (p / "m/l").symlink_to("/")), PackageError,
            "symbolic link"),
    refused("a named pipe in a directory", unpacked(lambda p: os.mkfifo(p / "m/f")), PackageError,
            "not a regular file", "'m/f'"),
    refused("a directory for the code", unpacked(
        lambda p: (p / SO).unlink() or (p / SO).mkdir()), PackageError, "source code only"),
    refused("a directory for the metadata", unpacked(
        lambda p: (p / METADATA).unlink() or (p / METADATA).mkdir()), PackageError, "no metadata"),
    refused("a directory without code", unpacked(lambda p: (p / SO).unlink()), PackageError,
            "source code only"),
    refused("a terabyte of nothing", unpacked(lambda p: os.truncate(p / SO, 1 << 41)), PackageError,
            "the limit is"),
    refused("metadata of a gigabyte of nothing",
            unpacked(lambda p: os.truncate(p / METADATA, 1 << 30)), PackageError, "too large"),
    refused("names that differ in case", unpacked(
        lambda p: (p / MODEL / "A.wrapper.so").write_bytes(b"")), PackageError, "only in case"),
    refused("a name that no archive could have",
            unpacked(lambda p: (p / "m/a\\b").touch()), PackageError, "forbidden name"),
    refused("code that vanishes", unpacked(), PackageError, "cannot be read", load=vanishing),
    refused("code that grows", unpacked(), PackageError, "is damaged", load=growing),
    refused("code that becomes a link", unpacked(), PackageError, "cannot be read", load=swapped),
)  # fmt: skip

OBJECTS = (
    refused("None", lambda d: None, PackageError, "not NoneType"),
    refused("a number", lambda d: 7, PackageError, "not int"),
    refused("a list", lambda d: [1], PackageError, "not list"),
    refused("a class", lambda d: Path, PackageError, "not type"),
    refused("no bytes", lambda d: b"", PackageError, "an empty file"),
    refused("wrong bytes", lambda d: b"hello", PackageError, "not a zip archive"),
    refused("half the bytes", lambda d: zipped()[:400], PackageError, "is damaged"),
    refused("a memoryview with steps", lambda d: memoryview(zipped())[::2], PackageError),
    refused("a text file", opened("r"), PackageError, "opened as text", "'rb'"),
    refused("a text stream", lambda d: io.StringIO("x"), PackageError, "opened as text"),
    refused("a closed file", closed_file, PackageError, "closed"),
    refused("a file to append to", opened("ab"), PackageError, "cannot be read"),
    refused("a pipe", pipe, PackageError, "cannot be sought in", "read()"),
    refused("a stream that does not seek", lambda d: Unseekable(zipped()), PackageError, "sought"),
    refused("a stream that fails to seek", lambda d: RaisingSeek(zipped()), PackageError,
            "cannot seek today"),
    refused("a stream that breaks", lambda d: RaisingRead(zipped()), PackageError,
            "the other side is gone"),
    refused("a stream of text", lambda d: ReadsText(zipped()), PackageError),
    refused("a stream of nothing", lambda d: ReadsNothing(zipped()), PackageError),
    refused("a stream that is cut short", lambda d: None, PackageError, "is damaged",
            load=lambda _: aoti.load(Shrinks(zipped()))),
)  # fmt: skip

OPTIONS = (
    refused("another digest", lambda d: packages() / "mlp.pt2", aoti.IntegrityError,
            "its SHA-256 is", "get it again",
            load=lambda source: aoti.load(source, sha256="0" * 64), repeats=50),
    refused("a digest that is none", lambda d: packages() / "mlp.pt2", aoti.ConfigError,
            "64 hexadecimal digits", load=lambda source: aoti.load(source, sha256="x" * 10_000)),
    refused("no such device", lambda d: packages() / "mlp.pt2", aoti.DeviceError, "is not a device",
            load=lambda source: aoti.load(source, device="gpu\n\x1b[2J")),
    refused("another device", lambda d: packages() / "mlp.pt2", aoti.IncompatiblePackageError,
            "compiled for cpu, but cuda was requested", load=lambda s: aoti.load(s, device="cuda")),
    refused("no runners", lambda d: packages() / "mlp.pt2", aoti.ConfigError, "at least 1",
            load=lambda source: aoti.load(source, num_runners=0)),
)  # fmt: skip

ROWS: tuple[File, ...] = (*PATHS, *DIRECTORIES, *OBJECTS, *OPTIONS)
