"""The constants of a model, as the C++ that Inductor generated for it describes them.

A model whose weights stand outside its code is told where they are: memory of the wrong size, or
laid out in another way, would be read beyond its end. What they must be like, only the generated
C++ (``*.wrapper.cpp``) says, in the order in which a file of weights holds them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from aoti.errors import PackageError
from aoti.signature.dtypes import DTYPES

# Format: `codegen_model_constructor` in torch/_inductor/codegen/cpp_wrapper_cpu.py.
_NUM_CONSTANTS = re.compile(r"AOTInductorModelBase\(\s*\d+,\s*\d+,\s*(\d{1,9}),")
_FIELD = re.compile(r"constants_info_\[(\d{1,9})\]\.(\w{1,40}) = ([^\n]{0,10000});\n")
_QUOTED = re.compile(r'"([^"\\]{1,1000})"')
_NUMBERS = re.compile(r"\{((?:\d{1,18}L?(?:, )?){0,64})\}")
_NUMBER = re.compile(r"\d{1,18}")
_KIND = re.compile(r"ConstantType::(\w{1,40})\)")
_KINDS = {"Parameter": "parameter", "Buffer": "buffer", "TensorConstant": "constant"}
_WRITTEN = re.compile(r"\((?!const )[\w ]{1,40}\*\)\((\w{1,200})\.data_ptr\(\)\)")
_FROZEN = re.compile(r"_frozen_param\d+")


@dataclass(frozen=True, slots=True)
class Constant:
    """One constant of a model: a parameter, a buffer, or another tensor that its code refers to.

    Attributes
    ----------
    name : str
        What the model's code calls it.
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
        The bytes that it takes in a file of weights, with what follows for alignment.
    loaded : bool
        Whether the model has a value for it.
    device : str
        The type of device that it lies on.
    """

    name: str
    fqn: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    kind: str
    slot: int = field(default=0, repr=False)
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


@dataclass(frozen=True, slots=True)
class ConstantTable:
    """All constants of a model that are not computed from others.

    Attributes
    ----------
    constants : tuple of Constant
        In the order in which a file of weights holds them.
    folds : bool
        Whether others are computed from them before the first run.
    written : bool
        Whether the model may write to some: buffers that change, or it cannot be told.
    """

    constants: tuple[Constant, ...]
    folds: bool
    written: bool

    @property
    def nbytes(self) -> int:
        """The size of a file of weights."""
        return sum(constant.slot for constant in self.constants)

    def offsets(self) -> dict[str, int]:
        """Where each constant stands in a file of weights, in bytes, by its name."""
        found, offset = {}, 0
        for constant in self.constants:
            found[constant.name] = offset
            offset += constant.slot
        return found

    def to_json(self) -> str:
        """A text that `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> ConstantTable:
        """The table that `to_json` wrote."""
        record = json.loads(text)
        constants = tuple(
            Constant(**{**item, "shape": tuple(item["shape"]), "strides": tuple(item["strides"])})
            for item in record.pop("constants")
        )
        return cls(constants=constants, **record)


def is_frozen(fqns: Sequence[str]) -> bool:
    """Whether the weights were merged into others at the export, whose names say nothing."""
    return any(map(_FROZEN.fullmatch, fqns))


def read_constants(source: str) -> ConstantTable | None:
    """The constants of a model, from the C++ that Inductor generated for it.

    Returns
    -------
    ConstantTable or None
        None if the text does not describe them, or some are not plain tensors.

    Raises
    ------
    PackageError
        What it says of one cannot be.
    """
    count = _NUM_CONSTANTS.search(source)
    if count is None:
        return None
    fields: dict[int, dict[str, str]] = {}
    for index, name, value in _FIELD.findall(source):
        fields.setdefault(int(index), {})[name] = value
    if sorted(fields) != list(range(int(count[1]))):
        return None
    found = []
    for index in range(len(fields)):
        if fields[index].get("from_folded") == "true":
            continue
        if (constant := _read(fields[index])) is None:
            return None
        found.append(constant)
    changed = set(_WRITTEN.findall(source))
    return ConstantTable(
        tuple(found),
        folds=len(found) < len(fields),
        # A buffer may be written to in ways that the text does not show; parameters are not.
        written=any(c.kind != "parameter" or c.name in changed for c in found),
    )


def _read(fields: dict[str, str]) -> Constant | None:
    name, fqn = (
        _QUOTED.fullmatch(fields.get("name", "")),
        _QUOTED.fullmatch(fields.get("original_fqn", "")),
    )
    dtype = fields.get("dtype", "").rpartition("_torch_dtype_")[2]
    shape, strides = _numbers(fields.get("shape", "")), _numbers(fields.get("stride", ""))
    device = fields.get("device_type", "").rpartition("_device_type_")[2]
    size, kind = (
        _NUMBER.fullmatch(fields.get("data_size", "")),
        _KIND.search(fields.get("type", "")),
    )
    if (
        (not name or not fqn or dtype not in DTYPES or shape is None or strides is None)
        or (len(shape) != len(strides) or size is None or fields.get("offset") != "0")
        or device not in ("cpu", "cuda")
        or not fields.get("layout", "_strided)").endswith("_strided)")
    ):
        return None
    known = _KINDS.get(kind[1], "constant") if kind else "constant"
    constant = Constant(name[1], fqn[1], dtype, shape, strides, known, int(size[0]), device=device)
    if constant.extent > constant.slot:
        raise PackageError(
            f"the constant {constant.fqn} is {constant} and has {constant.slot} bytes; get the "
            "package again, or export it again"
        )
    return constant


def _numbers(text: str) -> tuple[int, ...] | None:
    match = _NUMBERS.fullmatch(text)
    return None if match is None else tuple(map(int, _NUMBER.findall(match[1])))


def check_table(table: ConstantTable, facts: Sequence[tuple[str, str, str]], package: str) -> None:
    """Compare what the generated C++ says with what the compiled code says of itself.

    Parameters
    ----------
    table : ConstantTable
        From the C++.
    facts : sequence of (str, str, str)
        Name, fully qualified name and dtype of each constant of the code.
    package : str
        What messages call it.

    Raises
    ------
    PackageError
        They are not of the same model.
    """
    said: dict[str, Any] = {c.name: (c.fqn, c.dtype) for c in table.constants}
    has = {name: (fqn, dtype) for name, fqn, dtype in facts}
    if not said.items() <= has.items() or (len(said) < len(has)) != table.folds:
        raise PackageError(
            f"{package}: its generated C++ is not that of its compiled code, which has other "
            "constants; get the package again, or export it again"
        )
