"""The weights of an extracted model in one file, which is mapped into memory.

libtorch's loader copies a package's file of weights into memory of the process, and does not read
pickled weights at all. So the directory that it loads contains neither. Beside that directory are
this file and a description of its content, which comes from the model's generated C++.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO

from aoti.errors import PackageError
from aoti.package import layout
from aoti.package.archive import Span
from aoti.package.constants import Constant, ConstantTable
from aoti.package.package import Package

WEIGHTS = "weights.bin"
TABLE = "constants.json"

_BLOCK = 1 << 20  # bytes
_ALIGNMENT = 64  # bytes: AOTI_CONST_ALIGNMENT in torch/csrc/inductor/aoti_runtime/model_base.h


def separate(package: Package, model: str, directory: Path) -> None:
    """Move the weights of an extracted model to a separate file, if they are not in its code.

    Parameters
    ----------
    package : Package
        Where the model comes from.
    model : str
        Its name.
    directory : Path
        The directory of the extraction, whose ``model`` directory contains the model's files
        already. Where the generated C++ was stripped, or has constants that are not plain tensors,
        the weights stay where they are, for libtorch to read.

    Raises
    ------
    PackageError
        The weights are pickles that cannot be read.
    """
    files = directory / "model" / layout.model_folder(model)
    table = package.model(model).constants
    config = files / layout.PICKLED_WEIGHTS
    if table is not None:
        (directory / TABLE).write_text(table.to_json())
    if config.exists():
        if table is None:
            raise PackageError(
                f"{package.name}: model {model!r} keeps its weights as pickles, and does not say "
                "how they are laid out (its generated C++ was stripped); get the whole package, or "
                "export it again with aot_inductor.package_constants_on_disk_format='binary_blob'"
            )
        _write_pickled(package, config.read_bytes(), table, directory / WEIGHTS)
        config.unlink()
    elif table is not None and (blob := layout.find_weights(files)):
        blob.replace(directory / WEIGHTS)
        for other in files.glob(f"*{layout.BLOB}"):
            other.unlink()


def find_in_place(package: Package, model: str) -> Span | None:
    """A file of weights in a package, as `separate` would write it; None if there is none."""
    span = package.blob(model)
    if span is None or span.offset % _ALIGNMENT or package.weights(model) != "file":
        return None
    return span


def read_table(directory: Path) -> ConstantTable | None:
    """The constants of an extraction, which `separate` described; None if it did not."""
    try:
        return ConstantTable.from_json((directory / TABLE).read_bytes())
    except FileNotFoundError:
        return None


def _write_pickled(package: Package, config: bytes, table: ConstantTable, path: Path) -> None:
    from aoti.package.torch_pickle import open_storage  # few packages need it

    try:
        stored = {
            fqn: (str(file), tuple(map(int, shape)), tuple(map(int, strides)), int(offset))
            for fqn, (file, shape, strides, offset) in json.loads(config).items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise PackageError(
            f"{package.name}: {layout.PICKLED_WEIGHTS} is damaged: {error}"
        ) from error
    offsets = table.offsets()
    with path.open("xb") as out:
        out.truncate(table.nbytes)
        for constant in table.constants:
            file, *form, offset = stored.get(constant.fqn, ("", (), (), 0))
            name = f"{package.name}: the weight {constant.fqn}"
            if not file:
                raise PackageError(f"{name} is not in it; get the package again")
            if form != [constant.shape, constant.strides] or offset < 0:
                raise PackageError(f"{name} is {form[0]} in it; its code takes {constant}")
            out.seek(offsets[constant.name])
            with package.open_weight(file) as entry, open_storage(entry, name) as (dtype, storage):
                if dtype != constant.dtype:
                    raise PackageError(f"{name} is {dtype} in it; its code takes {constant}")
                _copy(storage, offset * constant.itemsize, constant, out, name)


def _copy(storage: IO[bytes], skip: int, constant: Constant, out: IO[bytes], name: str) -> None:
    storage.seek(skip)
    left = constant.extent
    while left and (block := storage.read(min(left, _BLOCK))):
        out.write(block)
        left -= len(block)
    if left:
        raise PackageError(f"{name} is cut short")
    while storage.read(_BLOCK):  # its checksum is verified at its end
        pass
