"""Arrays in files: JSON, ``.npy`` and ``.npz``, read and written by the command line.

The JSON form of an array is ``{"data": [...], "shape": [...], "dtype": "..."}``, with the elements
in C order. A list of them gives inputs by position, an object of them by name.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aoti.errors import InputError
from aoti.spec import TensorSpec

Array = NDArray[np.generic]


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
    """Write arrays by name into a ``.json`` or ``.npz`` file; one array into an ``.npy`` file."""
    path = Path(destination)
    try:
        if path.suffix == ".npz":
            np.savez(path, allow_pickle=False, **outputs)
        elif path.suffix == ".npy":
            (array,) = outputs.values()
            np.save(path, array, allow_pickle=False)
        else:
            path.write_text(json.dumps(to_json(outputs)) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {destination}: {error.strerror}") from error


def to_json(arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Arrays by name in their JSON form."""
    return {
        name: {
            "data": array.ravel().tolist(),
            "shape": list(array.shape),
            "dtype": array.dtype.name,
        }
        for name, array in arrays.items()
    }


def _read(source: str) -> Mapping[str, Any] | Sequence[Any]:
    try:
        if source.endswith(".npy"):
            return [np.load(source, allow_pickle=False)]
        if source.endswith(".npz"):
            with np.load(source, allow_pickle=False) as archive:
                arrays = dict(archive)
            # What np.savez calls arrays that were given no name.
            unnamed = all(name == f"arr_{index}" for index, name in enumerate(arrays))
            return list(arrays.values()) if unnamed else arrays
        content = json.load(sys.stdin) if source == "-" else json.loads(Path(source).read_text())
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"cannot read {source}: {error}") from error
    if isinstance(content, dict) and "data" in content:
        return [content]
    if not isinstance(content, (dict, list)):
        raise InputError(f'{source}: expected {{"data": [...], "shape": [...]}}, {_SEVERAL}')
    return content


_SEVERAL = "a list of those, or an object of those by input name"


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
        raise InputError(f'{where}: expected {{"data": [...], "shape": [...], "dtype": "..."}}')
    name = value.get("dtype") or (spec.dtype if spec else None) or "float32"
    try:
        dtype = np.dtype(name)
        given = np.asarray(value["data"])
        if given.size == 0:
            given = given.astype(dtype)
        shape = tuple(value.get("shape", given.shape))
        if math.prod(shape) != given.size:
            raise InputError(
                f"{where}: {given.size} elements of data, but shape {list(shape)} "
                f"has {math.prod(shape)}"
            )
        array = given.astype(dtype).reshape(shape)
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{where}: {error}") from error
    # Floats are rounded to the dtype as everywhere; an integer that does not fit is a mistake.
    if dtype.kind in "iub" and not np.array_equal(array.ravel(), given.ravel()):
        raise InputError(f"{where}: the data does not fit into {dtype.name}")
    return array


def _names(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(spec.name for spec in specs) or "no inputs"
