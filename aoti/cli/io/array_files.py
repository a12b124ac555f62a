"""Files of arrays that the command line reads and writes: ``.json``, ``.npy``, ``.npz``,
``.safetensors``. A written file is complete or not there.
"""

from __future__ import annotations

import contextlib
import json
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import numpy as np

from aoti._files import replacing
from aoti.cli.io.json_arrays import Array, in_order, parse, to_json
from aoti.cli.io.limits import bounded, check_bytes
from aoti.errors import InputError
from aoti.signature.spec import TensorSpec

READABLE = (".json", ".npy", ".npz", ".safetensors")


def read_inputs(source: str, specs: Sequence[TensorSpec] | None) -> list[Array]:
    """The inputs of a model from a file, in flat order.

    Parameters
    ----------
    source : str
        A ``.json``, ``.npy``, ``.npz`` or ``.safetensors`` file, or ``-`` for JSON on standard
        input.
    specs : sequence of TensorSpec, or None
        The inputs of the model: order, names, and the dtypes if the file does not have them.

    Raises
    ------
    InputError
        The file does not exist, cannot be read, or does not contain the inputs of the model.
    """
    return in_order(_read(source, specs), specs, source)


def read_sources(sources: Sequence[str], specs: Sequence[TensorSpec] | None) -> list[Array]:
    """The inputs of a model from the command line: a file, or NAME=FILE for each input.

    Parameters and errors are those of `read_inputs`. It is also an error if a source has neither
    form, or if a name is repeated.
    """
    if len(sources) == 1 and ("=" not in sources[0] or Path(sources[0]).exists()):
        return read_inputs(sources[0], specs)
    named: dict[str, str] = {}
    for source in sources:
        name, separator, file = source.partition("=")
        if not separator:
            raise InputError(f"--input {source}: several inputs must be NAME=FILE")
        if name in named:
            raise InputError(f"--input {source}: {name} was given before")
        named[name] = file
    return read_named(named, specs) if named else []


def read_named(sources: Mapping[str, str], specs: Sequence[TensorSpec] | None) -> list[Array]:
    """The inputs of a model from one file each, by name. Errors are those of `read_inputs`."""
    content = {}
    for name, source in sources.items():
        arrays = _read(source, specs)
        if len(arrays) != 1:
            raise InputError(f"{source} contains {len(arrays)} arrays, but {name} is one array")
        content[name] = next(iter(arrays.values() if isinstance(arrays, Mapping) else arrays))
    return in_order(content, specs, "the command line")


def write_outputs(destination: str, outputs: Mapping[str, Array]) -> None:
    """Write arrays by name into a file, whose format depends on its name; one array into ``.npy``.

    Raises
    ------
    InputError
        The file cannot be created, or it is an ``.npy`` file and there is not exactly one array.
    OSError
        The disk is full or fails.
    """
    if destination.endswith(".npy") and len(outputs) != 1:
        raise InputError(f"{len(outputs)} outputs do not fit into one .npy file: write .npz")
    with replaced(destination) as file:
        if destination.endswith(".npz"):
            _write_npz(file, outputs)
        elif destination.endswith(".npy"):
            (array,) = outputs.values()
            np.save(file, array, allow_pickle=False)
        elif destination.endswith(".safetensors"):
            contiguous = {name: np.ascontiguousarray(a) for name, a in outputs.items()}
            file.write(safetensors().save(contiguous))
        else:
            file.write(json.dumps(to_json(outputs), allow_nan=False).encode() + b"\n")


@contextlib.contextmanager
def replaced(destination: str) -> Iterator[IO[bytes]]:
    """A file that is moved to its place when it is complete; errors as for `write_outputs`."""
    path = Path(destination)
    try:
        with replacing(path) as partial, partial.open("wb") as file:
            yield file
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"cannot write {destination}: {error.strerror or error}") from error
    except BrokenPipeError:  # of another stream, while this one was open
        raise
    except OSError as error:
        raise OSError(f"cannot write {destination}: {error.strerror or error}") from error


def safetensors() -> ModuleType:
    """The module `safetensors.numpy`.

    Raises
    ------
    InputError
        It is not installed.
    """
    try:
        import safetensors.numpy
    except ImportError as error:
        raise InputError(
            ".safetensors files need a package: pip install 'aoti-runtime[safetensors]'"
        ) from error
    module: ModuleType = safetensors.numpy
    return module


def _write_npz(file: IO[bytes], arrays: Mapping[str, Array]) -> None:
    # Not np.savez, which takes the names as keyword arguments and has other keyword arguments.
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)


def _read(source: str, specs: Sequence[TensorSpec] | None) -> Mapping[str, Any] | Sequence[Any]:
    if source == "-" and sys.stdin is None:
        raise InputError("standard input is closed")
    try:
        if source == "-":
            return parse(bounded(sys.stdin.buffer, specs).read().decode())
        with Path(source).open("rb") as opened:
            file = bounded(opened, specs)
            if source.endswith((".npy", ".npz")):
                return _load(file, specs)
            if source.endswith(".safetensors"):
                arrays: dict[str, Any] = safetensors().load(file.read())
                return arrays
            return parse(file.read().decode())
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror or error}") from error
    except MemoryError as error:
        raise InputError(f"cannot read {source}: it does not fit into memory") from error
    except Exception as error:  # for damaged files, numpy and zipfile raise errors of a dozen types
        raise InputError(f"cannot read {source}: {error}") from error


def _load(file: IO[bytes], specs: Sequence[TensorSpec] | None) -> Mapping[str, Any] | Sequence[Any]:
    loaded = np.load(file, allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return [loaded]
    with loaded:
        check_bytes(sum(entry.file_size for entry in loaded.zip.infolist()), specs)
        arrays = dict(loaded)
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise ValueError("the archive contains a file that is not .npy")
    # np.savez gives these names to arrays without names.
    unnamed = all(name == f"arr_{index}" for index, name in enumerate(arrays))
    return list(arrays.values()) if unnamed else arrays
