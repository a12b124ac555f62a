"""The JSON form of arrays, which the command line reads and writes.

An array is ``{"data": [...], "shape": [...], "dtype": "..."}``, with the elements in C order, flat
or nested; the default shape is that of the nesting. A list of arrays gives inputs by position, an
object gives them by name. Values that are not finite are the strings ``"NaN"``, ``"Infinity"`` and
``"-Infinity"``. A complex number is a pair ``[real, imaginary]``. Conversions lose nothing except
by rounding floats: integer dtypes accept integers only, bool accepts true, false, 0 and 1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from aoti.errors import InputError
from aoti.signature.dtypes import DTYPES, numpy_dtype
from aoti.signature.spec import TensorSpec

Array = NDArray[np.generic]

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_FORM = '{"data": [...], "shape": [...], "dtype": "..."}'


def parse(text: str | bytes) -> Mapping[str, Any] | Sequence[Any]:
    """The arrays in a JSON document: a list of them, or an object of them by name.

    Raises
    ------
    ValueError
        The text is not JSON, or does not contain arrays.
    """
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if isinstance(content, dict) and isinstance(content.get("data"), (list, int, float)):
        return [content]  # one array, not an object of arrays with one called data
    if not isinstance(content, (dict, list)):
        several = "a list of these, or an object of these by input name"
        raise ValueError(f"expected {_FORM}, {several}")
    return content


def in_order(
    content: Mapping[str, Any] | Sequence[Any], specs: Sequence[TensorSpec] | None, source: str
) -> list[Array]:
    """The inputs of a model in flat order, from arrays or their JSON form.

    Parameters
    ----------
    content : mapping or sequence
        The arrays by name, or in order.
    specs : sequence of TensorSpec, or None
        The inputs of the model: order, names, and the dtypes if JSON does not have them.
    source : str
        The name of the source in messages.

    Raises
    ------
    InputError
        The arrays are not the inputs of the model.
    """
    if isinstance(content, Mapping):
        return _by_name(content, specs, source)
    if specs is not None and len(content) != len(specs):
        raise InputError(
            f"{source} contains {len(content)} arrays, the model takes {len(specs)}: "
            f"{_names(specs)}"
        )
    return [
        _array(value, specs[index] if specs else None, f"{source}: input {index}")
        for index, value in enumerate(content)
    ]


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


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f'{name} is not JSON; write "{name}", a string')


def _by_name(
    content: Mapping[str, Any], specs: Sequence[TensorSpec] | None, source: str
) -> list[Array]:
    if specs is None:
        raise InputError(
            f"{source}: the package does not name its inputs; pass a list in their order"
        )
    wanted = [spec.name for spec in specs]
    if set(content) != set(wanted):
        raise InputError(
            f"{source} contains {', '.join(content) or 'nothing'}; the model takes {_names(specs)}"
        )
    return [_array(content[spec.name], spec, f"{source}: {spec.name}") for spec in specs]


def _array(value: Any, spec: TensorSpec | None, where: str) -> Array:
    if isinstance(value, np.ndarray):
        return value
    if not isinstance(value, dict) or not {"data"} <= set(value) <= {"data", "shape", "dtype"}:
        raise InputError(f"{where}: expected {_FORM}")
    name = value.get("dtype", (spec.dtype if spec else None) or "float32")
    try:
        array = _values(value["data"], _dtype(name))
        return _shaped(array, value["shape"]) if "shape" in value else array
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error


def _dtype(name: object) -> np.dtype[Any]:
    if not isinstance(name, str) or name not in DTYPES:
        raise ValueError(f"unknown dtype {name!r:.60}; known are {', '.join(sorted(DTYPES))}")
    return numpy_dtype(name)


def _shaped(array: Array, shape: object) -> Array:
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"a shape must be a list of sizes, not {shape!r:.60}")
    if math.prod(shape) != array.size:
        raise ValueError(f"{array.size} elements of data, but shape {shape} has {math.prod(shape)}")
    return array.reshape(shape)


def _values(data: object, dtype: np.dtype[Any]) -> Array:
    """An array of JSON data, flat or nested. ValueError if it does not fit the dtype."""
    given = np.array(data, object)  # objects: numpy would convert large integers to floats
    flat = given.ravel().tolist()
    types = set(map(type, flat))
    if list in types:
        raise ValueError("the data is nested unevenly or too deeply")
    strings = {value for value in flat if type(value) is str}
    if not types <= {bool, int, float, str} or not strings <= _NOT_FINITE.keys():
        raise ValueError("the data contains a value that is not a number")
    if dtype.kind == "b":
        if not types <= {bool, int} or not {0, 1}.issuperset(flat):
            raise ValueError("the data for bool must be true and false, or 1 and 0")
    elif bool in types:
        raise ValueError(f"the data contains true or false, which are not {dtype.name}")
    elif dtype.kind in "iu":
        if not types <= {int}:
            raise ValueError(f"the data contains numbers that are not integers, for {dtype.name}")
        limits = np.iinfo(dtype)
        if flat and not limits.min <= min(flat) <= max(flat) <= limits.max:
            raise ValueError(f"the data does not fit into {dtype.name}")
    elif dtype.kind == "c":
        if not flat:
            return np.empty(given.shape, dtype)
        if given.shape[-1:] != (2,):
            raise ValueError("complex numbers must be pairs of a real and an imaginary part")
        parts = _floats(flat, np.empty(0, dtype).real.dtype)
        return parts.view(dtype).reshape(given.shape[:-1])
    else:
        return _floats(flat, dtype).reshape(given.shape)
    return given.astype(dtype)


def _floats(values: list[Any], dtype: np.dtype[Any]) -> Array:
    named = sum(map(values.count, _NOT_FINITE))
    if named:
        values = [_NOT_FINITE.get(value, value) for value in values]
    try:
        with np.errstate(all="ignore"):
            array = np.array(values, np.float64).astype(dtype)
        if np.count_nonzero(~np.isfinite(array)) != named:
            raise OverflowError
    except OverflowError:  # numpy raises it, too, for an integer of more than 308 digits
        raise ValueError(f"the data does not fit into {dtype.name}") from None
    return array


def _names(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(spec.name for spec in specs) or "no inputs"
