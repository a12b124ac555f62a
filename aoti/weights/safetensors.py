"""Reading the header of a ``.safetensors`` file: where its tensors are.

The format: 8 bytes with the length of a JSON document, the document, the tensors. The library
`safetensors` returns copies; weights are mapped, or read into their final memory.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from typing import Any

from aoti.errors import ConstantError
from aoti.signature.dtypes import DTYPES

_HEADER_LIMIT = 100 << 20  # bytes; as in the library `safetensors`
_NAMES = {dtype.safetensors: name for name, dtype in DTYPES.items() if dtype.safetensors}


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file: its dtype and shape, in C order, and its first byte."""

    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def strides(self) -> tuple[int, ...]:
        """The steps between its elements, in elements."""
        return tuple(math.prod(self.shape[dim + 1 :]) for dim in range(len(self.shape)))


def read_header(file: int, name: str) -> dict[str, Stored]:
    """The tensors of an open file, by their names.

    Raises
    ------
    ConstantError
        It is not such a file, or it is truncated.
    """
    size = os.fstat(file).st_size
    length = int.from_bytes(os.pread(file, 8, 0), "little")
    if size < 8 or length > min(_HEADER_LIMIT, size - 8):
        raise ConstantError(f"{name} is not a .safetensors file, or is truncated; get it again")
    try:
        header: dict[str, Any] = json.loads(os.pread(file, length, 8))
        header.pop("__metadata__", None)
        return {key: _stored(item, 8 + length, size) for key, item in header.items()}
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ConstantError(
            f"{name} is a damaged .safetensors file: {error!s:.200}; get it again"
        ) from error


def _stored(item: Any, start: int, size: int) -> Stored:
    code, shape = item["dtype"], tuple(item["shape"])
    dtype = _NAMES.get(code, code.lower())
    begin, end = item["data_offsets"]
    if not all(type(number) is int and 0 <= number < 1 << 62 for number in (*shape, begin, end)):
        raise ValueError("sizes that are not valid")
    if code in _NAMES and end - begin != math.prod(shape) * DTYPES[dtype].itemsize:
        raise ValueError(f"{end - begin} bytes for {code} {shape}")
    if start + end > size:
        raise ValueError(f"it has {size} bytes, but a tensor ends at {start + end}")
    return Stored(dtype, shape, start + begin)
