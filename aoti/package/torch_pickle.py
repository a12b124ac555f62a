"""Reads weights that a package keeps as pickles (``pickle_weights``), as data: nothing is run.

Each is what ``torch.save`` writes for one tensor: a zip archive with the tensor's storage and a
pickle that describes it. The pickle may name only a handful of classes, which are replaced here.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from aoti.errors import PackageError
from aoti.package.archive import readable
from aoti.signature.dtypes import DTYPES

_PICKLE_LIMIT = 1 << 20  # bytes; one tensor takes some hundred
_STORAGES = {dtype.storage: name for name, dtype in DTYPES.items() if dtype.storage}


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: str | None  # None: the tensor has it
    key: str


@contextmanager
def open_storage(file: IO[bytes], name: str) -> Iterator[tuple[str, IO[bytes]]]:
    """The dtype of a tensor that ``torch.save`` wrote, and its storage, to be read.

    Raises
    ------
    PackageError
        It is not such a file, or contains more than a tensor.
    """
    with readable(name):
        archive = zipfile.ZipFile(file)
        (document,) = [n for n in archive.namelist() if n.endswith("/data.pkl")]
        folder = document.removesuffix("data.pkl")
        if archive.getinfo(document).file_size > _PICKLE_LIMIT:
            raise PackageError(f"{name}: its pickle is too large")
        order = f"{folder}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise PackageError(f"{name}: its bytes are in big-endian order")
        text = archive.read(document)
        try:
            storage = _Tensors(io.BytesIO(text)).load()
        except (pickle.UnpicklingError, LookupError, AttributeError, MemoryError) as error:
            raise PackageError(f"{name} contains more than a tensor: {error!s:.200}") from error
        if not isinstance(storage, _Storage) or storage.dtype is None:
            raise PackageError(f"{name} does not contain a tensor")
        reader = archive.open(f"{folder}data/{storage.key}")
    with reader:
        yield storage.dtype, reader


class _Tensors(pickle.Unpickler):
    """Accepts what `torch.save` writes for a tensor, and refuses all other names in a pickle."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if module == "torch" and name in DTYPES:
            return name
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        what, dtype, key, _device, _numel = pid
        if what != "storage" or not isinstance(key, str) or not isinstance(dtype, str | None):
            raise pickle.UnpicklingError(f"{what!r:.50}")
        return _Storage(dtype, key)


def _tensor_v2(storage: _Storage, *_: object) -> _Storage:
    return storage


def _tensor_v3(storage: _Storage, *rest: Any) -> _Storage:
    return _Storage(rest[5], storage.key)


def _parameter(tensor: _Storage, *_: object) -> _Storage:
    return tensor


_KNOWN: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor_v2,
    ("torch._utils", "_rebuild_tensor_v3"): _tensor_v3,
    ("torch.storage", "UntypedStorage"): None,
    ("collections", "OrderedDict"): dict,
}
