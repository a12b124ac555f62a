"""Reads AOTInductor packages (``.pt2``): models, metadata, files. Runs nothing of them.

A package is a zip archive, or the same files in a directory; `aoti.package.layout` has their names.

libtorch's own reader checks neither names nor checksums, so it never reads the archive. `Package`
checks them, and libtorch's loader gets what `Package.extract` wrote.
"""

from __future__ import annotations

import collections
import io
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

from aoti.errors import ModelNotFoundError, PackageError
from aoti.package import layout
from aoti.package.archive import Directory, Limits, Span, Zip, readable, seekable
from aoti.package.elf import SharedObject, read_elf
from aoti.package.model_files import ModelFiles
from aoti.signature.signature import Signature

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO

_DEFAULTS = Limits()
_LARGE_WEIGHTS = 64 << 20  # bytes


class Package:
    """A package, opened for reading.

    Parameters
    ----------
    source : str, os.PathLike, bytes, bytearray, memoryview or binary file
        A ``.pt2`` file or a directory with the same content, by its path; or the content of such
        a file, in memory or as a seekable file object, which is left open.
    limits : Limits, optional
        How much the package may contain before it is refused.

    Attributes
    ----------
    name : str
        The name in messages: the path as given, or where the content came from.
    path : Path or None
        The path as given; None for a package that was given by its content.
    models : tuple of str
        The names of its models, sorted.
    files : dict of str to int
        All files and their sizes in bytes.

    Raises
    ------
    PackageNotFoundError
        There is nothing at the path.
    PackageError
        It is not a package, is damaged, or contains forbidden names.

    Notes
    -----
    Nothing of the package is executed or loaded, and no libtorch is needed. The file stays open
    until `close`. Use it as a context manager. One thread at a time may use it.
    """

    def __init__(self, source: Source, *, limits: Limits = _DEFAULTS) -> None:
        self._limits, self._hashed = limits, False
        self.path = Path(source) if isinstance(source, str | os.PathLike) else None
        if self.path is not None:
            self.name = str(self.path)
            is_directory = os.path.isdir(self.path)  # noqa: PTH112  (no error for any path)
            kind = Directory if is_directory else Zip.open
            self._archive: Zip | Directory = kind(self.path, limits)
        elif isinstance(source, bytes | bytearray | memoryview):
            self.name = f"<{len(source)} bytes>"
            try:
                content = io.BytesIO(source)
            except BufferError as error:
                raise PackageError(f"{self.name}: the memory is not contiguous") from error
            self._archive = Zip(content, self.name, limits, owned=True)
        else:
            self.name = f"<{getattr(source, 'name', type(source).__name__)}>"
            self._archive = Zip(seekable(source, self.name), self.name, limits)
        try:
            self.files = self._archive.files
            self._models = self._find_models()
            self.models = tuple(sorted(self._models))
            if not self.models:
                raise PackageError(f"{self.name} {layout.other_kind(self.files)}")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Package:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<aoti.Package {self.name!r}, models: {', '.join(self.models)}>"

    def close(self) -> None:
        """Close the file. May be called twice."""
        self._archive.close()

    @property
    def digest(self) -> str:
        """SHA-256 of the file, in hex; of names and contents together for a directory.

        The whole package is read when this is first asked for. From then on every file of the
        package is compared with the bytes that were hashed, and reading raises PackageError where
        they differ. Documents that were read before are read again.
        """
        found = self._archive.digest()
        if not self._hashed:
            self._models, self._hashed = self._find_models(), True
        return found

    @property
    def identity(self) -> tuple[int, int, int, int, int] | None:
        """Device, inode, size, and times of change (ns) of the file; None for any other source."""
        return self._archive.identity

    def select(self, model_name: str | None = None) -> str:
        """The name of the chosen model: the given one, else the only one, else ``"model"``.

        Raises
        ------
        ModelNotFoundError
            There is no such model, or there are several and none was named.
        """
        names = ", ".join(repr(name) for name in self.models)
        if model_name is None:
            if len(self.models) > 1 and "model" not in self.models:
                raise ModelNotFoundError(f"{self.name} holds several models, name one of: {names}")
            return self.models[0] if len(self.models) == 1 else "model"
        if model_name not in self.models:
            raise ModelNotFoundError(f"no model {model_name!r} in {self.name}; it holds {names}")
        return model_name

    def model(self, model_name: str | None = None) -> ModelFiles:
        """A model's files and documents, each of which is read once.

        Raises
        ------
        ModelNotFoundError
            As `select`.
        """
        return self._models[self.select(model_name)]

    def metadata(self, model_name: str | None = None) -> dict[str, str]:
        """What the exporter wrote about a model: ``AOTI_*`` keys, and the user's own.

        Raises
        ------
        PackageError
            There is no metadata, or it is damaged.
        ModelNotFoundError
            As `select`; so for every method below that takes a model's name.
        """
        return dict(self.model(model_name).metadata)

    def device(self, model_name: str | None = None) -> str | None:
        """The type of device that a model was compiled for: ``cpu``. None if it is not recorded.

        Raises PackageError as `metadata` does.
        """
        return self.model(model_name).metadata.get("AOTI_DEVICE_KEY") or None

    def exporter(self, model_name: str | None = None) -> str:
        """Which program wrote a model, as far as the package records it.

        Raises PackageError as `signature` does.
        """
        return self.signature(model_name).exporter or "torch, whose version packages do not record"

    def source(self, model_name: str | None = None) -> str | None:
        """The generated C++ around the model's kernels; None where it was stripped.

        Some tens of MiB for the largest models. It is read once, and kept until this object is
        gone.

        Raises
        ------
        PackageError
            The file is damaged or too large.
        """
        return self.model(model_name).source

    def num_constants(self, model_name: str | None = None) -> int | None:
        """The number of a model's weights; None where the generated C++ was stripped.

        Raises PackageError as `source` does.
        """
        return self.model(model_name).num_constants

    def call_spec(self, model_name: str | None = None) -> tuple[str, str] | None:
        """The input and the output treespec, as JSON; None if only the loaded model has them.

        Raises PackageError as `signature` does.
        """
        return self.signature(model_name).call_spec

    def signature(self, model_name: str | None = None) -> Signature:
        """What a model takes and gives.

        It comes from the exporter's own record where there is one (see docs/signature.md), else
        from the generated C++. Where that was stripped too, nothing is known.

        Raises
        ------
        PackageError
            The record is damaged, or of a version that this aoti does not know; or as `metadata`
            and `source`.
        """
        return self.model(model_name).signature

    def extra(self, name: str) -> str | None:
        """The text of a file below ``extra/``; None if there is no file of that name.

        Raises
        ------
        PackageError
            The file is damaged or too large.
        """
        for file in self.files:
            if file == f"extra/{name}" or file.endswith(f"/extra/{name}"):
                return self._document(file).decode("utf-8", "replace")
        return None

    def weights(self, model_name: str | None = None) -> str:
        """Where a model's weights are.

        Returns
        -------
        str
            ``code`` (in the shared object, or behind it), ``file`` (a ``*_weights.blob`` beside
            it), ``pickles``, ``missing``, ``none`` (the model has no weights) or ``unknown`` (its
            generated C++, which would say so, was stripped).

        Raises
        ------
        PackageError
            The generated C++ or the shared object is damaged.

        Notes
        -----
        Where that takes a look at a shared object that is compressed or in memory, this unpacks it
        to a temporary directory.
        """
        model = self.model(model_name)
        if model.find(layout.PICKLED_WEIGHTS) is not None:
            return "pickles"
        if model.find(layout.WEIGHTS) is not None:
            return "file"
        wanted = model.weight_bytes
        code = model.find(*layout.CODE)
        if wanted is None or code is None:
            return "unknown"
        if not wanted:
            return "none"
        if wanted > _LARGE_WEIGHTS:  # no code without weights is as large as that
            return "code" if self.files[code] > wanted else "missing"
        size = layout.weights_size(self._read_elf(code))
        return "unknown" if size is None else "code" if size > 1 else "missing"

    def code(self, model_name: str | None = None) -> SharedObject:
        """The tables of a model's shared object, without extracting it if it is not compressed.

        Raises
        ------
        PackageError
            The model comes as source code only, or its shared object is damaged.
        """
        model = self.model(model_name)
        self.check_runnable(model.name)
        name = model.find(*layout.CODE)
        assert name is not None
        return self._read_elf(name)

    def _read_elf(self, name: str) -> SharedObject:
        if self.path is not None and (span := self._archive.span(name)) is not None:
            return read_elf(span.path, span.offset, span.nbytes)
        import tempfile  # few packages need it

        with tempfile.TemporaryDirectory(prefix="aoti-") as directory:
            path = Path(directory, "model.so")
            self._write(name, path)
            return read_elf(path)

    def may_abort(self, model_name: str | None = None) -> bool:
        """Whether an index out of its range can abort the process, as far as the package says.

        Kernels that run on several threads throw from inside an OpenMP region, where nothing can
        catch it. Packages that `aoti.export` wrote record the ranges, and calls are checked.

        Raises PackageError as `signature` does.
        """
        return self.model(model_name).may_abort

    def threads(self, model_name: str | None = None) -> int | None:
        """How many threads a model's kernels were compiled to run on.

        Returns
        -------
        int or None
            The number that they use whatever ``OMP_NUM_THREADS`` or ``intra_op_threads`` says, as
            PyTorch's exporter compiles them: as many as the exporting machine had cores. None where
            they follow the setting, as in larger models that `aoti.export` wrote; where no kernel
            is parallel, as in its small ones; or where the generated C++ was stripped. libtorch's
            own operators, such as matrix products, always follow the setting.

        Raises
        ------
        PackageError
            As `source`.
        """
        return self.model(model_name).threads

    def extract(self, model_name: str, destination: Path, *, weights: bool = True) -> None:
        """Write the files that loading a model takes to `destination`, which must not exist.

        Without `weights`, the file of its weights is read and verified, but not written. Names lose
        the package's prefix and are otherwise kept. Checksums are verified while writing, and
        shared objects are prepared: see `aoti.package.elf_loadable`. If this fails, nothing is left
        behind.
        """
        self.check_runnable(model_name)
        destination.mkdir()
        try:
            for source, name in self._runtime_entries(model_name):
                if weights or not name.endswith(layout.BLOB):
                    self._write(source, destination / name)
                else:
                    collections.deque(self._blocks(source), maxlen=0)
        except BaseException:
            shutil.rmtree(destination, ignore_errors=True)
            raise

    def check_runnable(self, model_name: str) -> None:
        """Refuse a package that contains nothing to run, by a PackageError that says what to do."""
        model = self.model(model_name)
        if model.find(*layout.CODE) is None:
            raise PackageError(
                f"{self.name}: model {model.name!r} comes as source code only, which aoti does not "
                "compile; export it with aot_inductor.package_cpp_only=False"
            )

    def open_weight(self, name: str) -> IO[bytes]:
        """Open a weight that is kept as a pickle, by its name in ``weights_config.json``."""
        ending = layout.pickled_weight(name)
        found = [file for file in self.files if ending and file.endswith(ending)]
        if len(found) != 1:
            raise PackageError(f"{self.name}: there is no weight {name!r:.100} in it")
        return self._archive.open_file(found[0])

    def blob(self, model_name: str) -> Span | None:
        """The place of a model's file of weights.

        None if there is no such file, if it is compressed, or if the package is in memory.
        """
        blobs = [name for name in self.model(model_name).files if name.endswith(layout.BLOB)]
        if self.path is None or len(blobs) != 1:
            return None
        return self._archive.span(blobs[0])

    def runtime_files(self, model_name: str, *, weights: bool = True) -> dict[str, int]:
        """The files that `extract` writes, by their names there, and their sizes in bytes."""
        entries = self._runtime_entries(model_name)
        return {
            name: self.files[source]
            for source, name in entries
            if weights or not name.endswith(layout.BLOB)
        }

    def _runtime_entries(self, model_name: str) -> Iterator[tuple[str, str]]:
        """The files of a model that libtorch's loader reads, and their names without the prefix.

        It does not need the sources. Without them it does not look for the kernels' metadata.
        """
        for name in self.model(model_name).files:
            if not name.endswith((layout.GENERATED, layout.KERNEL_METADATA)):
                yield name, re.fullmatch(layout.MODEL_FILE, name)[1]  # type: ignore[index]
        for name in self.files:
            if match := re.fullmatch(layout.CONSTANT_FILE, name):
                yield name, match[1]
            if match := re.fullmatch(layout.CUSTOM_OBJECT, name):
                yield name, f"{layout.model_folder(model_name)}/{match[1]}"

    def extract_source(self, model_name: str, destination: Path) -> None:
        """Write the C++ that Inductor generated for a model, as `extract` writes the rest."""
        for name in self.model(model_name).files:
            if name.endswith(layout.GENERATED):
                path = destination / re.fullmatch(layout.MODEL_FILE, name)[1]  # type: ignore[index]
                self._write(name, path)

    def _write(self, source: str, path: Path) -> None:
        if path.exists():
            raise PackageError(f"{self.name} holds two files of the same name: {source!r}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as writer:
            for block in self._blocks(source):
                writer.write(block)
        if ".so" in path.suffixes:
            from aoti.package.elf_loadable import make_loadable  # needs numpy

            make_loadable(path)

    def _blocks(self, source: str) -> Iterator[bytes]:
        """The content of a file, whose checksum and size are verified at its end."""
        size = 0
        with self._archive.open_file(source) as reader:
            while block := self._block(reader):
                yield block
                size += len(block)
        if size != self.files[source]:
            raise PackageError(
                f"{self.name} is damaged: {source} has {size} bytes, not {self.files[source]}"
            )

    def _block(self, reader: IO[bytes]) -> bytes:
        # Only reading is guarded: an error in writing the block is not the package's.
        with readable(self.name):
            return reader.read(1 << 20)

    def _find_models(self) -> dict[str, ModelFiles]:
        found: dict[str, dict[str, int]] = {}
        for name, size in self.files.items():
            if match := re.fullmatch(layout.MODEL_FILE, name):
                found.setdefault(match[2], {})[name] = size
        return {
            model: ModelFiles(self.name, model, files, self._document)
            for model, files in found.items()
            if "/" not in model or layout.is_model(files)
        }

    def _document(self, name: str) -> bytes:
        if self.files[name] > self._limits.document_bytes:
            raise PackageError(f"{self.name}: {name} is too large ({self.files[name]} bytes)")
        with self._archive.open_file(name) as reader, readable(self.name):
            return reader.read(self.files[name])  # inflates no more than that
