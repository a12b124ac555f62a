"""Arrays in files: JSON, ``.npy`` and ``.npz``, read and written by the command line.

The JSON form of an array is ``{"data": [...], "shape": [...], "dtype": "..."}``, with the elements
in C order. A list of them gives inputs by position, an object of them by name. JSON has no numbers
for what is not finite: those are the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``. A
complex number is a pair ``[real, imaginary]``.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from aoti.errors import InputError
from aoti.spec import DTYPES, TensorSpec

Array = NDArray[np.generic]

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_FORM = '{"data": [...], "shape": [...], "dtype": "..."}'


def read_inputs(source: str, specs: Sequence[TensorSpec] | None) -> list[Array]:
    """The inputs of a model from a file, in flat order.

    Parameters
    ----------
    source : str
        A ``.json``, ``.npy`` or ``.npz`` file, or ``-`` for JSON on standard input.
    specs : sequence of TensorSpec, or None
        What the model takes: order, names, and the dtype where the file gives none.

    Raises
    ------
    InputError
        The file is not there, cannot be read, or does not hold what the model takes.
    """
    content = _read(source)
    if isinstance(content, Mapping):
        return _by_name(content, specs, source)
    if specs is not None and len(content) != len(specs):
        raise InputError(
            f"{source} holds {len(content)} arrays, the model takes {len(specs)}: {_names(specs)}"
        )
    return [
        _array(value, specs[index] if specs else None, f"{source}: input {index}")
        for index, value in enumerate(content)
    ]


def write_outputs(destination: str, outputs: Mapping[str, Array]) -> None:
    """Write arrays by name into a ``.json`` or ``.npz`` file; one array into an ``.npy`` file.

    The file is there whole or not at all.
    """
    if destination.endswith(".npz"):
        _write(destination, lambda file: _write_npz(file, outputs))
    elif destination.endswith(".npy"):
        (array,) = outputs.values()
        _write(destination, lambda file: np.save(file, array, allow_pickle=False))
    else:
        document = json.dumps(to_json(outputs), allow_nan=False) + "\n"
        _write(destination, lambda file: file.write(document.encode()))


def to_json(arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Arrays by name in their JSON form."""
    return {
        name: {"data": _elements(array), "shape": list(array.shape), "dtype": array.dtype.name}
        for name, array in arrays.items()
    }


def _elements(array: Array) -> list[Any]:
    if array.dtype.kind == "c":
        pairs = array.ravel().astype(np.complex128).view(np.float64)
        return np.array(_elements(pairs), object).reshape(-1, 2).tolist()
    values = array.ravel()
    if values.dtype.kind not in "biuf":  # bfloat16, float8
        values = values.astype(np.float32)
    elements: list[Any] = values.tolist()
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return [x if math.isfinite(x) else _name_of(x) for x in elements]
    return elements


def _name_of(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _write(destination: str, write: Callable[[IO[bytes]], object]) -> None:
    path = Path(destination)
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        partial = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                write(file)
            umask = os.umask(0)
            os.umask(umask)
            partial.chmod(0o666 & ~umask)  # as a file that was simply opened
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise InputError(f"cannot write {destination}: {error.strerror}") from error


def _write_npz(file: IO[bytes], arrays: Mapping[str, Array]) -> None:
    # Not np.savez, which takes the names as keyword arguments and has some of its own.
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)


def _read(source: str) -> Mapping[str, Any] | Sequence[Any]:
    try:
        if source.endswith((".npy", ".npz")):
            return _load(source)
        if source == "-":
            if sys.stdin is None:
                raise InputError("standard input is closed")
            content = json.load(sys.stdin)
        else:
            content = json.loads(Path(source).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror}") from error
    except (ValueError, EOFError, RecursionError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"cannot read {source}: {error}") from error
    if isinstance(content, dict) and isinstance(content.get("data"), (list, int, float)):
        return [content]  # one array, and not an object of arrays in which one is called data
    if not isinstance(content, (dict, list)):
        several = "a list of those, or an object of those by input name"
        raise InputError(f"{source}: expected {_FORM}, {several}")
    return content


def _load(source: str) -> Mapping[str, Any] | Sequence[Any]:
    with Path(source).open("rb") as file:  # which np.load leaves open when it fails
        loaded = np.load(file, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return [loaded]
        with loaded:
            arrays = dict(loaded)
    # What np.savez calls arrays that were given no name.
    unnamed = all(name == f"arr_{index}" for index, name in enumerate(arrays))
    return list(arrays.values()) if unnamed else arrays


def _by_name(
    content: Mapping[str, Any], specs: Sequence[TensorSpec] | None, source: str
) -> list[Array]:
    if specs is None:
        raise InputError(f"{source}: the package names no inputs; give a list in their order")
    wanted = [spec.name for spec in specs]
    if set(content) != set(wanted):
        raise InputError(
            f"{source} holds {', '.join(content) or 'nothing'}; the model takes {_names(specs)}"
        )
    return [_array(content[spec.name], spec, f"{source}: {spec.name}") for spec in specs]


def _array(value: Any, spec: TensorSpec | None, where: str) -> Array:
    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, dict) or not {"data"} <= set(value) <= {"data", "shape", "dtype"}:
        raise InputError(f"{where}: expected {_FORM}")
    dtype = _dtype(value.get("dtype") or (spec.dtype if spec else None) or "float32", where)
    try:
        array = _numbers(value["data"], dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where}: {error}") from error
    if "shape" not in value:
        return array
    shape = value["shape"]
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise InputError(f"{where}: a shape is a list of sizes, and not {shape!r}")
    if math.prod(shape) != array.size:
        raise InputError(
            f"{where}: {array.size} elements of data, but shape {shape} has {math.prod(shape)}"
        )
    return array.reshape(shape)


def _dtype(name: object, where: str) -> np.dtype[Any]:
    if name not in DTYPES:
        raise InputError(f"{where}: {name!r} is no dtype; known are {', '.join(sorted(DTYPES))}")
    try:
        return np.dtype(str(name))
    except TypeError:
        try:
            import ml_dtypes
        except ImportError:
            raise InputError(f"{where}: {name} needs the package ml_dtypes") from None
        dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, str(name)))
        return dtype


def _numbers(data: Any, dtype: np.dtype[Any]) -> Array:
    """An array of JSON's numbers, with nothing rounded that is to be an integer."""
    given = np.asarray(data)
    if given.dtype.kind in "UO":  # names of numbers that are not finite, or integers beyond 64 bits
        given = np.vectorize(lambda x: _NOT_FINITE.get(x, x), otypes=[object])(data)
        if any(type(x) not in (int, float) for x in given.flat):
            raise ValueError("the data holds what is no number")
        given = given.astype(np.float64) if dtype.kind in "fcV" else given
    if dtype.kind == "c":
        if given.shape[-1:] != (2,):
            raise ValueError("complex numbers are pairs of a real and an imaginary part")
        given = np.ascontiguousarray(given, np.float64)
        return given.view(np.complex128)[..., 0].astype(dtype)
    if (given.dtype.kind == "b") != (dtype.kind == "b") and not (
        dtype.kind == "b" and np.isin(given, (0, 1)).all()
    ):
        raise ValueError(f"the data is {given.dtype.name}, not {dtype.name}")
    if dtype.kind in "iu":
        if given.size and given.dtype.kind == "f":
            raise ValueError(f"the data holds numbers that are no integers, for {dtype.name}")
        limits = np.iinfo(dtype)
        if given.size and not (limits.min <= int(given.min()) and int(given.max()) <= limits.max):
            raise ValueError(f"the data does not fit into {dtype.name}")
    with np.errstate(all="ignore"):
        array = given.astype(dtype)
    if dtype.kind == "f" and np.isinf(array).sum() > np.isinf(given.astype(np.float64)).sum():
        raise ValueError(f"the data does not fit into {dtype.name}")
    return array


def _names(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(spec.name for spec in specs) or "no inputs"
