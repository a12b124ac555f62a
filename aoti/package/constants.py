"""The constants of a model: parameters, buffers and other tensors that its code refers to.

A model whose weights are outside its code is given their address, and would read memory of the
wrong size or layout beyond its end. Only the generated C++ describes the weights, in the order in
which a file of weights contains them: see `aoti.package.wrapper_cpp.read_constants`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from aoti.errors import PackageError
from aoti.signature.dtypes import DTYPES


class Constant(NamedTuple):
    """One constant of a model: a parameter, a buffer, or another tensor that its code refers to.

    Attributes
    ----------
    name : str
        Its name in the model's code.
    fqn : str
        Its fully qualified name, as in the module's ``state_dict()``.
    dtype : str
        As torch names it.
    shape : tuple of int
        Its sizes.
    strides : tuple of int
        The steps that the code takes, in elements.
    kind : str
        ``parameter``, ``buffer`` or ``constant``.
    slot : int
        The bytes that it takes in a file of weights, padding included.
    loaded : bool
        Whether the model has a value for it.
    device : str
        The type of device that it is on.
    """

    name: str
    fqn: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    kind: str
    slot: int = 0
    loaded: bool = False
    device: str = "cpu"

    @property
    def itemsize(self) -> int:
        """The size of one element, in bytes."""
        return DTYPES[self.dtype].itemsize

    @property
    def nbytes(self) -> int:
        """The size of its elements, in bytes."""
        return math.prod(self.shape) * self.itemsize

    @property
    def extent(self) -> int:
        """Bytes from its first element to the end of its last."""
        if 0 in self.shape:
            return 0
        last = sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        return (last + 1) * self.itemsize

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"


class ConstantTable(NamedTuple):
    """All constants of a model that are not computed from others.

    Attributes
    ----------
    constants : tuple of Constant
        In the order in which a file of weights contains them.
    folds : bool
        Whether others are computed from them before the first run.
    written : bool
        Whether the model may write to a constant. True where the text does not say.
    """

    constants: tuple[Constant, ...]
    folds: bool
    written: bool

    @property
    def nbytes(self) -> int:
        """The size of a file of weights."""
        return sum(constant.slot for constant in self.constants)

    def offsets(self) -> dict[str, int]:
        """The offset of each constant in a file of weights, in bytes, by its name."""
        found, offset = {}, 0
        for constant in self.constants:
            found[constant.name] = offset
            offset += constant.slot
        return found

    def to_json(self) -> str:
        """Return the table as text, for `from_json`."""
        constants = [constant._asdict() for constant in self.constants]
        return json.dumps({**self._asdict(), "constants": constants})

    @classmethod
    def from_json(cls, text: str | bytes) -> ConstantTable:
        """Read the text that `to_json` wrote."""
        record = json.loads(text)
        constants = tuple(
            Constant(**{**item, "shape": tuple(item["shape"]), "strides": tuple(item["strides"])})
            for item in record.pop("constants")
        )
        return cls(constants=constants, **record)


def is_frozen(fqns: Sequence[str]) -> bool:
    """Whether the export merged the weights into others, whose names mean nothing."""
    return any(re.fullmatch(r"_frozen_param\d+", fqn) for fqn in fqns)


def check_table(table: ConstantTable, facts: Sequence[tuple[str, str, str]], package: str) -> None:
    """Check that the generated C++ and the compiled code describe the same constants.

    Parameters
    ----------
    table : ConstantTable
        From the C++.
    facts : sequence of (str, str, str)
        Name, fully qualified name and dtype of each constant, from the compiled code.
    package : str
        The package's name, for messages.

    Raises
    ------
    PackageError
        They describe different models.
    """
    said: dict[str, Any] = {c.name: (c.fqn, c.dtype) for c in table.constants}
    has = {name: (fqn, dtype) for name, fqn, dtype in facts}
    if not said.items() <= has.items() or (len(said) < len(has)) != table.folds:
        raise PackageError(
            f"{package}: its generated C++ does not belong to its compiled code, which has other "
            "constants; get the package again, or export it again"
        )
