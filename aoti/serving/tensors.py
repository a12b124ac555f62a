"""Tensors of the Open Inference Protocol (version 2) as numpy arrays. Needs no server."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from aoti.errors import ConfigError, InputError, InputTypeError
from aoti.signature.dtypes import DTYPES, numpy_dtype
from aoti.signature.spec import TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

_DATATYPE = re.compile(r"BOOL|U?INT(8|16|32|64)|FP(16|32|64)|BF16")


def datatype_of(dtype: str) -> str | None:
    """The protocol's name of a dtype: ``FP32`` for ``float32``. None if it has none."""
    name = dtype.upper().replace("BFLOAT", "BF").replace("FLOAT", "FP")
    return name if _DATATYPE.fullmatch(name) else None


_DTYPES = {datatype: dtype for dtype in DTYPES if (datatype := datatype_of(dtype)) is not None}


def described(specs: Iterable[TensorSpec]) -> list[dict[str, Any]]:
    """Inputs or outputs as a model's metadata shows them: -1 is a size that may change.

    Raises
    ------
    ConfigError
        The package does not say what they are, or the protocol has no datatype for one.
    """
    found = []
    for spec in specs:
        if spec.dtype is None or spec.shape is None:
            raise ConfigError(f"the package does not describe {spec.name}: export it with aoti")
        if (datatype := datatype_of(spec.dtype)) is None:
            raise ConfigError(f"{spec.name}: the protocol has no datatype for {spec.dtype}")
        shape = [size if isinstance(size, int) else -1 for size in spec.shape]
        found.append({"name": spec.name, "datatype": datatype, "shape": shape})
    return found


def decoded(
    name: str, datatype: str, shape: Sequence[int], data: Any, raw: bytes | memoryview | None
) -> Array:
    """The array of an input tensor.

    Parameters
    ----------
    name, datatype, shape
        As the request says.
    data : sequence of numbers or booleans
        The elements, flat or nested, in C order, if there are no raw ones.
    raw : bytes-like, optional
        The elements' bytes. The array shares them, or is a copy if they are not aligned.

    Raises
    ------
    InputError, InputTypeError
        The parts contradict each other. The message names the input.
    """
    import numpy as np

    dtype = _DTYPES.get(datatype)
    if dtype is None:
        raise InputTypeError(f"{name}: {datatype!r:.40} is not a datatype that models take")
    wanted = numpy_dtype(dtype)
    if any(size < 0 for size in shape):
        raise InputError(f"{name}: the shape {list(shape)} has a negative size")
    if raw is None:
        array = _of_numbers(name, datatype, data, wanted)
    elif len(raw) % wanted.itemsize:
        raise InputError(f"{name}: {len(raw)} bytes are not a whole number of {datatype}")
    else:
        array = np.frombuffer(raw, wanted)
        if not array.flags.aligned:
            array = array.copy()
    if array.size != math.prod(shape):
        raise InputError(
            f"{name}: the shape {list(shape)} has {math.prod(shape)} elements, and the data has "
            f"{array.size}"
        )
    return array.reshape(tuple(shape))


def _of_numbers(name: str, datatype: str, data: Any, wanted: np.dtype[Any]) -> Array:
    import numpy as np

    try:
        given = np.asarray(data)
    except ValueError:  # sequences of different lengths
        given = np.asarray(None)
    if given.size == 0:
        return np.empty(0, wanted)
    kind = "b" if wanted.kind == "b" else "iu" if wanted.kind in "iu" else "iuf"
    if given.dtype.kind not in kind:
        raise InputTypeError(f"{name}: the data is not {datatype}")
    with np.errstate(over="ignore", invalid="ignore"):
        array: Array = given.astype(wanted).ravel()
    if wanted.kind in "iu" and not np.array_equal(array, given.ravel()):
        raise InputError(f"{name}: the data is out of the range of {datatype}")
    return array


def numbers(array: Array) -> list[Any]:
    """The elements as Python's numbers or booleans, flat in C order."""
    exact = array.dtype.kind in "biu" or array.dtype.itemsize >= 4
    flat: list[Any] = (array if exact else array.astype("float32")).ravel().tolist()
    return flat
