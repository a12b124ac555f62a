"""Reads AOTInductor packages (``.pt2``): models, metadata, files. Runs nothing of them.

A package is a zip archive, or the same files in a directory. Every name stands under one prefix,
usually the file's stem; a model's files stand in ``data/aotinductor/<model>/`` below it. The
format is that of ``torch/csrc/export/pt2_archive_constants.h``.

libtorch's own reader checks neither names nor checksums, so it never gets to see the archive: what
is read here is checked here, and the loader gets an extraction that this module wrote.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from aoti.elf import forbid_executable_stack
from aoti.errors import ModelNotFoundError, PackageError, PackageNotFoundError

_MODEL_ENTRY = re.compile(r"(?:[^/]+/)?(data/aotinductor/([^/]+)/[^/]+)")
_CONSTANT_ENTRY = re.compile(r"(?:[^/]+/)?(data/constants/[^/]+)")
_DOCUMENT_LIMIT = 256 << 20  # bytes; generated C++ of the largest models is some tens of MiB
_NAME_LIMIT = 200  # bytes; file systems take 255, and extractions are named after models
_INFLATION_LIMIT = 100  # packages are stored; compressed by hand, code shrinks to a fifth


class Package:
    """A package on disk, opened for reading.

    Parameters
    ----------
    path : str or os.PathLike
        A ``.pt2`` file, or a directory with the same content.

    Attributes
    ----------
    path : Path
        The path as given.
    models : tuple of str
        The names of the models in it, sorted.
    files : dict of str to int
        Every file in it and its size in bytes.

    Raises
    ------
    PackageNotFoundError
        There is nothing at `path`.
    PackageError
        It is not a package, is damaged, or holds names that do not belong into one.

    Notes
    -----
    Nothing of the package is executed or loaded. The file stays open until `close`, so that what
    is extracted is what was checked. Use it as a context manager.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            self._archive: _Zip | _Directory = _Directory(self.path)
        elif self.path.exists():
            self._archive = _Zip(self.path)
        else:
            raise PackageNotFoundError(f"no package at {self.path}")
        try:
            self.files = self._archive.files()
            for name in self.files:
                _check_name(name)
            self._entries = self._model_entries()
            self.models = tuple(sorted(self._entries))
            if not self.models:
                raise PackageError(self._why_no_model())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Package:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<aoti.Package {str(self.path)!r}, models: {', '.join(self.models)}>"

    def close(self) -> None:
        """Close the file. Harmless the second time."""
        self._archive.close()

    @property
    def digest(self) -> str:
        """SHA-256 of the file, in hex; of names and contents together for a directory."""
        return self._archive.digest()

    def select(self, model_name: str | None = None) -> str:
        """The model that is meant: the given one, else the only one, else ``"model"``.

        Raises
        ------
        ModelNotFoundError
            There is no such model, or there are several and none was named.
        """
        names = ", ".join(repr(name) for name in self.models)
        if model_name is None:
            if len(self.models) > 1 and "model" not in self.models:
                raise ModelNotFoundError(f"{self.path} holds several models, name one of: {names}")
            return self.models[0] if len(self.models) == 1 else "model"
        if model_name not in self.models:
            raise ModelNotFoundError(f"no model {model_name!r} in {self.path}; it holds {names}")
        return model_name

    def metadata(self, model_name: str | None = None) -> dict[str, str]:
        """What the exporter wrote about a model: ``AOTI_*`` keys, and the user's own."""
        model = self.select(model_name)
        name = self._find(model, "wrapper_metadata.json") or self._find(model, "_metadata.json")
        if name is None:
            raise PackageError(f"{self.path}: model {model!r} has no metadata file")
        try:
            metadata = json.loads(self._document(name))
        except (ValueError, RecursionError) as error:
            raise PackageError(f"{self.path}: {name} is not valid JSON: {error}") from error
        if not isinstance(metadata, dict) or not all(
            isinstance(value, str) for value in metadata.values()
        ):
            raise PackageError(f"{self.path}: {name} is not an object of strings")
        return metadata

    def source(self, model_name: str | None = None) -> str | None:
        """The generated C++ around the model's kernels; None where it was stripped."""
        name = self._find(self.select(model_name), ".wrapper.cpp")
        return None if name is None else self._document(name).decode("utf-8", "replace")

    def extract(self, model_name: str, destination: Path) -> None:
        """Write what a model needs to be loaded under `destination`, which must not exist.

        File names lose the package's prefix and are otherwise kept. Checksums are verified while
        writing, and no shared object is left that asks for an executable stack: glibc 2.41 and
        newer refuse those, older ones make the whole process' stack executable. If it fails,
        nothing is left.
        """
        model = self.select(model_name)
        if self._find(model, ".so") is None:
            raise PackageError(
                f"{self.path}: model {model!r} comes as source code only, which aoti does not "
                "compile; export it with aot_inductor.package_cpp_only=False"
            )
        if self._find(model, "weights_config.json") is not None:
            # The loader does not read them, and a run without weights is a crash.
            raise PackageError(
                f"{self.path}: model {model!r} keeps its weights as pickles, which aoti does not "
                "load; export it with aot_inductor.package_constants_on_disk_format='binary_blob'"
            )
        destination.mkdir()
        try:
            for source, name in self._runtime_entries(model):
                self._write(source, destination / name)
        except BaseException:
            shutil.rmtree(destination, ignore_errors=True)
            raise

    def _write(self, source: str, path: Path) -> None:
        if path.exists():
            raise PackageError(f"{self.path} holds two files of one name: {source!r}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._archive.open(source) as reader, path.open("xb") as writer:
            with _readable(self.path):
                shutil.copyfileobj(reader, writer, 1 << 20)
            if writer.tell() != self.files[source]:
                raise PackageError(
                    f"{self.path} is damaged: {source} has {writer.tell()} bytes, "
                    f"not {self.files[source]}"
                )
        if path.suffix == ".so":
            forbid_executable_stack(path)

    def _runtime_entries(self, model_name: str) -> Iterator[tuple[str, str]]:
        """Entries that the loader reads, and their names without the prefix. Sources it does not
        need: without them it does not look for the kernels' metadata either.
        """
        for name in self._entries[model_name]:
            if not name.endswith((".cpp", ".kernel_metadata.json")):
                yield name, _MODEL_ENTRY.fullmatch(name)[1]  # type: ignore[index]
        for name in self.files:
            if match := _CONSTANT_ENTRY.fullmatch(name):
                yield name, match[1]

    def _model_entries(self) -> dict[str, list[str]]:
        entries: dict[str, list[str]] = {}
        for name in self.files:
            if match := _MODEL_ENTRY.fullmatch(name):
                entries.setdefault(match[2], []).append(name)
        return entries

    def _why_no_model(self) -> str:
        if any(re.search(r"(^|/)models/[^/]+\.json$", name) for name in self.files):
            return (
                f"{self.path} is an exported program (torch.export.save), not a compiled one; "
                "compile it: aoti.export(torch.export.load(...), path=...)"
            )
        return f"{self.path} is not an AOTInductor package: no data/aotinductor/<model>/ in it"

    def _find(self, model_name: str, ending: str) -> str | None:
        found = [name for name in self._entries[model_name] if name.endswith(ending)]
        return found[0] if found else None

    def _document(self, name: str) -> bytes:
        if self.files[name] > _DOCUMENT_LIMIT:
            raise PackageError(f"{self.path}: {name} is too large ({self.files[name]} bytes)")
        with self._archive.open(name) as reader, _readable(self.path):
            return reader.read(self.files[name])  # inflates no more than that


def load_metadata_from_package(
    path: str | os.PathLike[str], model_name: str | None = None
) -> dict[str, str]:
    """The metadata of a model in a package, without loading it or libtorch.

    Parameters
    ----------
    path : str or os.PathLike
        A ``.pt2`` file, or a directory with the same content.
    model_name : str, optional
        Which model, where there are several.

    Returns
    -------
    dict of str to str
        ``AOTI_DEVICE_KEY``, ``AOTI_PLATFORM``, ``AOTI_MACHINE``, ``AOTI_CPU_ISA``,
        ``AOTI_COMPUTE_CAPABILITY`` and whatever the exporter added.
    """
    with Package(path) as package:
        return package.metadata(model_name)


class _readable:  # noqa: N801  (a context manager, used like a function)
    """Words what zipfile and zlib raise for a damaged archive as a PackageError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: Any, _: object) -> None:
        # RuntimeError: features that zipfile does not have. OverflowError: sizes that no file has.
        damage = (
            *(zipfile.BadZipFile, zlib.error, struct.error, EOFError),
            *(RuntimeError, ValueError, OverflowError),
        )
        if isinstance(error, damage) and not isinstance(error, PackageError):
            raise PackageError(f"{self._path} is damaged: {error}") from error


class _Zip:
    """The entries of a zip archive. zipfile verifies the CRC-32 of one that is read to its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # One open file for everything: the path may be another package by the time it is extracted.
        self._file = path.open("rb")
        try:
            with _readable(path):
                self._zip = zipfile.ZipFile(self._file)
        except BaseException as error:
            self._file.seek(0)
            signature = self._file.read(2)
            self._file.close()
            if isinstance(error, PackageError) and signature != b"PK":
                raise PackageError(f"{path} is not a .pt2 package: it is no zip archive") from error
            raise

    def files(self) -> dict[str, int]:
        # Not is_dir(): it takes no name to have no characters.
        entries = [info for info in self._zip.infolist() if not info.filename.endswith("/")]
        size = os.fstat(self._file.fileno()).st_size
        for info in entries:
            if refusal := _refusal(info, size):
                raise PackageError(f"{self._path} holds {refusal}: {info.orig_filename!r}")
        files = {info.filename: info.file_size for info in entries}
        if len(files) < len(entries):
            raise PackageError(f"{self._path} holds two files of one name")
        if sum(files.values()) > _INFLATION_LIMIT * size:
            raise PackageError(
                f"{self._path} has {size} bytes and claims to hold {sum(files.values())}"
            )
        return files

    def open(self, name: str) -> IO[bytes]:
        with _readable(self._path):
            return self._zip.open(name)

    def digest(self) -> str:
        self._file.seek(0)
        return hashlib.file_digest(self._file, "sha256").hexdigest()

    def close(self) -> None:
        self._zip.close()
        self._file.close()


def _refusal(info: zipfile.ZipInfo, archive_size: int) -> str | None:
    """What is wrong with an entry, going by the archive's directory."""
    if info.filename != info.orig_filename:  # cut at a NUL, or renamed by an extra field
        return "a file with a forbidden name"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "a symbolic link"
    if info.flag_bits & 1:
        return "an encrypted file"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"a file compressed in a way that aoti does not read ({info.compress_type})"
    if not 0 <= info.header_offset < archive_size:
        return "a file that lies outside of it"
    return None


class _Directory:
    """The files below a directory."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def files(self) -> dict[str, int]:
        files = {}
        for path in sorted(self._path.rglob("*")):
            name = path.relative_to(self._path).as_posix()
            if path.is_symlink():
                raise PackageError(
                    f"{self._path} holds a symbolic link: {name!r}; copy it with cp -rL"
                )
            if path.is_file():
                files[name] = path.stat().st_size
        return files

    def open(self, name: str) -> IO[bytes]:
        return (self._path / name).open("rb")

    def digest(self) -> str:
        whole = hashlib.sha256()
        for name in self.files():
            with (self._path / name).open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            whole.update(os.fsencode(name) + f"\0{content}\n".encode())
        return whole.hexdigest()

    def close(self) -> None:
        pass


def _check_name(name: str) -> None:
    """Refuse names that could lead outside the directory they are extracted to, or do not fit."""
    parts = name.split("/")
    if "\\" in name or "\0" in name or ":" in parts[0] or {"", ".", ".."} & set(parts):
        raise PackageError(f"the package holds a file with a forbidden name: {name!r}")
    if max(len(part.encode(errors="surrogateescape")) for part in parts) > _NAME_LIMIT:
        raise PackageError(f"the package holds a file with a name that is too long: {name!r}")
