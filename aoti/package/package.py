"""Reads AOTInductor packages (``.pt2``): models, metadata, files. Runs nothing of them.

A package is a zip archive, or the same files in a directory. Every name stands under one prefix,
usually the file's stem; a model's files stand in ``data/aotinductor/<model>/`` below it. The
format is that of ``torch/csrc/export/pt2_archive_constants.h``.

libtorch's own reader checks neither names nor checksums, so it never gets to see the archive: what
is read here is checked here, and the loader gets an extraction that this module wrote.
"""

from __future__ import annotations

import collections
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO, cast

from aoti.compat.weights import weights_size
from aoti.errors import ModelNotFoundError, PackageError
from aoti.package.archive import Directory, Limits, Span, Zip, readable
from aoti.package.elf import drop_libtorch, forbid_executable_stack, read_elf
from aoti.package.wrapper_cpp import (
    may_abort,
    read_call_spec,
    read_num_constants,
    read_threads,
    read_weight_bytes,
    read_wrapper,
)
from aoti.signature.signature import METADATA_KEY, Signature, on_one_thread

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO

_MODEL_ENTRY = re.compile(r"(?:[^/]+/)?(data/aotinductor/([^/]+)/[^/]+)")
_CONSTANT_ENTRY = re.compile(r"(?:[^/]+/)?(data/constants/[^/]+)")
_DEFAULTS = Limits()
_LARGE_WEIGHTS = 64 << 20  # bytes
_WEIGHTS = ".blob"  # files of weights end so


class Package:
    """A package, opened for reading.

    Parameters
    ----------
    source : str, os.PathLike, bytes, bytearray, memoryview or binary file
        A ``.pt2`` file or a directory with the same content, by its path; or the content of such
        a file, in memory or as a seekable file object, which is left open.
    limits : Limits, optional
        How much it may hold before it is refused.

    Attributes
    ----------
    name : str
        What messages call it: the path as given, or where it came from.
    path : Path or None
        The path as given; None for one that was given by its content.
    models : tuple of str
        The names of the models in it, sorted.
    files : dict of str to int
        Every file in it and its size in bytes.

    Raises
    ------
    PackageNotFoundError
        There is nothing at the path.
    PackageError
        It is not a package, is damaged, or holds names that do not belong into one.

    Notes
    -----
    Nothing of the package is executed or loaded, and no libtorch is needed. The file stays open
    until `close`, so that what is extracted is what was checked. Use it as a context manager.
    One thread at a time may use it.
    """

    def __init__(self, source: Source, *, limits: Limits = _DEFAULTS) -> None:
        self._limits = limits
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
                raise PackageError(f"{self.name}: a view with steps holds no package") from error
            self._archive = Zip(content, self.name, limits, owned=True)
        else:
            self.name = f"<{getattr(source, 'name', type(source).__name__)}>"
            self._archive = Zip(_seekable(source, self.name), self.name, limits)
        try:
            self.files = self._archive.files
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
        return f"<aoti.Package {self.name!r}, models: {', '.join(self.models)}>"

    def close(self) -> None:
        """Close the file. Harmless the second time."""
        self._archive.close()

    @property
    def digest(self) -> str:
        """SHA-256 of the file, in hex; of names and contents together for a directory."""
        return self._archive.digest()

    @property
    def identity(self) -> tuple[int, int, int, int, int] | None:
        """Device, inode, size, and times of change (ns) of the file; None for any other source."""
        return self._archive.identity

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
                raise ModelNotFoundError(f"{self.name} holds several models, name one of: {names}")
            return self.models[0] if len(self.models) == 1 else "model"
        if model_name not in self.models:
            raise ModelNotFoundError(f"no model {model_name!r} in {self.name}; it holds {names}")
        return model_name

    def metadata(self, model_name: str | None = None) -> dict[str, str]:
        """What the exporter wrote about a model: ``AOTI_*`` keys, and the user's own."""
        model = self.select(model_name)
        name = self._find(model, "wrapper_metadata.json") or self._find(model, "_metadata.json")
        if name is None:
            raise PackageError(f"{self.name}: model {model!r} has no metadata file")
        try:
            metadata = json.loads(self._document(name))
        except (ValueError, RecursionError) as error:
            raise PackageError(f"{self.name}: {name} is not valid JSON: {error}") from error
        if not isinstance(metadata, dict) or not all(
            isinstance(value, str) for value in metadata.values()
        ):
            raise PackageError(f"{self.name}: {name} is not an object of strings")
        return metadata

    def device(self, model_name: str | None = None) -> str | None:
        """The type of device that a model was compiled for: ``cpu``. None if it does not say."""
        return self.metadata(model_name).get("AOTI_DEVICE_KEY") or None

    def exporter(self, model_name: str | None = None) -> str:
        """Which program wrote a model, as far as the package tells."""
        return self.signature(model_name).exporter or "torch, whose version packages do not record"

    def source(self, model_name: str | None = None) -> str | None:
        """The generated C++ around the model's kernels; None where it was stripped."""
        name = self._find(self.select(model_name), ".wrapper.cpp")
        return None if name is None else self._document(name).decode("utf-8", "replace")

    def num_constants(self, model_name: str | None = None) -> int | None:
        """How many weights a model has; None where the generated C++ was stripped."""
        return read_num_constants(self.source(model_name) or "")

    def call_spec(self, model_name: str | None = None) -> tuple[str, str] | None:
        """The input and the output treespec, as JSON; None if only the loaded model tells."""
        return self.signature(model_name).call_spec

    def signature(self, model_name: str | None = None) -> Signature:
        """What a model takes and gives.

        From the exporter's own record where there is one (see docs/signature.md), else from the
        generated C++; where that was stripped too, nothing is known.

        Raises
        ------
        PackageError
            The record is damaged or of a version that this aoti does not know.
        """
        if (record := self.metadata(model_name).get(METADATA_KEY)) is not None:
            return Signature.from_json(record, self.name)
        source = self.source(model_name) or ""
        return Signature.of_wrapper(read_wrapper(source), read_call_spec(source))

    def extra(self, name: str) -> str | None:
        """The text of a file below ``extra/``; None if there is none of that name."""
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
            it), ``pickles``, ``missing``, ``none`` (it needs none) or ``unknown`` (its generated
            C++, which tells, was stripped).
        """
        model = self.select(model_name)
        if self._find(model, "weights_config.json") is not None:
            return "pickles"
        if self._find(model, "_weights.blob") is not None:
            return "file"
        wanted = read_weight_bytes(self.source(model) or "")
        code = self._find(model, ".so")
        if wanted is None or code is None:
            return "unknown"
        if not wanted:
            return "none"
        if wanted > _LARGE_WEIGHTS:  # no code alone is as large as that
            return "code" if self.files[code] > wanted else "missing"
        with tempfile.TemporaryDirectory(prefix="aoti-") as directory:
            path = Path(directory, "model.so")
            self._write(code, path)
            size = weights_size(read_elf(path))
        return "unknown" if size is None else "code" if size > 1 else "missing"

    def may_abort(self, model_name: str | None = None) -> bool:
        """Whether an index out of its range can abort the process, as far as the package tells.

        Kernels that run on several threads throw from inside an OpenMP region, where nothing can
        catch it. Packages that `aoti.export` wrote record the ranges, and calls are checked.
        """
        model = self.select(model_name)
        if METADATA_KEY in self.metadata(model):
            signature = self.signature(model)
            return bool(signature.unchecked_indices) and not on_one_thread(signature.options)
        return any(map(may_abort, self._kernels(model)))

    def threads(self, model_name: str | None = None) -> int | None:
        """How many threads a model's kernels were compiled to run on.

        Returns
        -------
        int or None
            The number that they use whatever ``OMP_NUM_THREADS`` or ``intra_op_threads`` says, as
            PyTorch's exporter compiles them: as many as the exporting machine had cores. None where
            they go by the setting, as in larger models that `aoti.export` wrote, where none is
            parallel, as in its small ones, or where the generated C++ was stripped. libtorch's own
            operators, such as matrix products, always go by the setting.
        """
        found = map(read_threads, self._kernels(self.select(model_name)))
        return max(filter(None, found), default=None)

    def extract(self, model_name: str, destination: Path, *, weights: bool = True) -> None:
        """Write what a model needs to be loaded under `destination`, which must not exist; without
        `weights`, all but the file of its weights, which is only read.

        File names lose the package's prefix and are otherwise kept. Checksums are verified while
        writing, and no shared object is left that asks for an executable stack: glibc 2.41 and
        newer refuse those, older ones make the whole process' stack executable. If it fails,
        nothing is left.
        """
        self.check_runnable(model_name)
        destination.mkdir()
        try:
            for source, name in self._runtime_entries(model_name):
                if weights or not name.endswith(_WEIGHTS):
                    self._write(source, destination / name)
                else:
                    collections.deque(self._blocks(source), maxlen=0)
        except BaseException:
            shutil.rmtree(destination, ignore_errors=True)
            raise

    def check_runnable(self, model_name: str) -> None:
        """Refuse a form of package that holds nothing to run.

        Raises
        ------
        PackageError
            With what it is and what to do.
        """
        model = self.select(model_name)
        if self._find(model, ".so") is None:
            raise PackageError(
                f"{self.name}: model {model!r} comes as source code only, which aoti does not "
                "compile; export it with aot_inductor.package_cpp_only=False"
            )

    def open_weight(self, name: str) -> IO[bytes]:
        """Open a weight that is kept as a pickle, by the name that ``weights_config.json`` has."""
        found = [file for file in self.files if file.endswith(f"data/weights/{name}")]
        if len(found) != 1 or not re.fullmatch(r"weight_\d{1,9}", name):
            raise PackageError(f"{self.name}: there is no weight {name!r:.100} in it")
        return self._archive.open_file(found[0])

    def blob(self, model_name: str) -> Span | None:
        """Where the bytes of a model's file of weights are; None if it has no such file, or that is
        compressed, or nobody else could open the package.
        """
        blobs = [name for name in self._entries[self.select(model_name)] if name.endswith(_WEIGHTS)]
        if self.path is None or len(blobs) != 1:
            return None
        return self._archive.span(blobs[0])

    def runtime_files(self, model_name: str, *, weights: bool = True) -> dict[str, int]:
        """The files that `extract` writes, by their names there, and their sizes in bytes."""
        entries = self._runtime_entries(model_name)
        return {
            name: self.files[source]
            for source, name in entries
            if weights or not name.endswith(_WEIGHTS)
        }

    def _runtime_entries(self, model_name: str) -> Iterator[tuple[str, str]]:
        """What the loader reads of a model, and its name without the prefix. Sources it does not
        need: without them it does not look for the kernels' metadata either.
        """
        for name in self._entries[self.select(model_name)]:
            if not name.endswith((".cpp", ".kernel_metadata.json")):
                yield name, _MODEL_ENTRY.fullmatch(name)[1]  # type: ignore[index]
        for name in self.files:
            if match := _CONSTANT_ENTRY.fullmatch(name):
                yield name, match[1]

    def extract_source(self, model_name: str, destination: Path) -> None:
        """Write the C++ that Inductor generated for a model, as `extract` writes the rest."""
        for name in self._entries[self.select(model_name)]:
            if name.endswith(".cpp"):
                self._write(name, destination / _MODEL_ENTRY.fullmatch(name)[1])  # type: ignore[index]

    def _write(self, source: str, path: Path) -> None:
        if path.exists():
            raise PackageError(f"{self.name} holds two files of one name: {source!r}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as writer:
            for block in self._blocks(source):
                writer.write(block)
        if path.suffix == ".so":
            forbid_executable_stack(path)
            drop_libtorch(path)

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
        # Not what is done with it: what cannot be read and what cannot be written are two errors.
        with readable(self.name):
            return reader.read(1 << 20)

    def _model_entries(self) -> dict[str, list[str]]:
        entries: dict[str, list[str]] = {}
        for name in self.files:
            if match := _MODEL_ENTRY.fullmatch(name):
                entries.setdefault(match[2], []).append(name)
        return entries

    def _why_no_model(self) -> str:
        def holds(pattern: str) -> bool:
            return any(re.search(pattern, name) for name in self.files)

        if holds(r"(^|/)models/[^/]+\.json$"):
            return (
                f"{self.name} is an exported program (torch.export.save), not a compiled one; "
                "compile it: aoti.export(torch.export.load(...), path=...)"
            )
        if holds(r"\.pte$"):
            return f"{self.name} holds an ExecuTorch program: run it with executorch"
        if holds(r"(^|/)code/__torch__"):
            return f"{self.name} is a TorchScript model: export the module itself with aoti.export"
        if holds(r"(^|/)data\.pkl$"):
            return (
                f"{self.name} is a checkpoint (torch.save): load it into its module and export "
                "that with aoti.export"
            )
        return f"{self.name} is not an AOTInductor package: no data/aotinductor/<model>/ in it"

    def _find(self, model_name: str, ending: str) -> str | None:
        found = [name for name in self._entries[model_name] if name.endswith(ending)]
        return found[0] if found else None

    def _kernels(self, model_name: str) -> Iterator[str]:
        """The generated C++ of a model, file by file."""
        for name in self._entries[model_name]:
            if name.endswith(".cpp"):
                yield self._document(name).decode("utf-8", "replace")

    def _document(self, name: str) -> bytes:
        if self.files[name] > self._limits.document_bytes:
            raise PackageError(f"{self.name}: {name} is too large ({self.files[name]} bytes)")
        with self._archive.open_file(name) as reader, readable(self.name):
            return reader.read(self.files[name])  # inflates no more than that


def load_metadata_from_package(source: Source, model_name: str | None = None) -> dict[str, str]:
    """The metadata of a model in a package, without loading it or libtorch.

    Parameters
    ----------
    source : str, os.PathLike, bytes, bytearray, memoryview or binary file
        As for `Package`.
    model_name : str, optional
        Which model, where there are several.

    Returns
    -------
    dict of str to str
        ``AOTI_DEVICE_KEY``, ``AOTI_PLATFORM``, ``AOTI_MACHINE``, ``AOTI_CPU_ISA``,
        ``AOTI_COMPUTE_CAPABILITY`` and whatever the exporter added.
    """
    with Package(source) as package:
        return package.metadata(model_name)


def _seekable(file: object, name: str) -> BinaryIO:
    """A file object that an archive can be read from, or an error that says what is wrong."""
    if not callable(getattr(file, "read", None)):
        raise PackageError(
            f"a package is a path, bytes or a binary file, not {type(file).__name__}"
        )
    if isinstance(file, io.TextIOBase):
        raise PackageError(f"{name} was opened as text; open it with mode 'rb'")
    if getattr(file, "closed", False):
        raise PackageError(f"{name} is closed; open it with mode 'rb'")
    seekable = getattr(file, "seekable", None)
    if seekable is None or not seekable():
        raise PackageError(f"{name} cannot be sought in; pass what its read() gives")
    return cast("BinaryIO", file)
