"""What a model takes: names, dtypes, shapes and memory layout of its inputs.

A package made by the stock exporter carries no signature as such, but the C++ that Inductor
generated for it (``*.wrapper.cpp``) holds the checks it could make itself:

* one ``check_input_N`` function per input, with the dtype, the static sizes and strides, bounds of
  the dynamic sizes, and the device;
* in ``run_impl``, an ``assert_size_stride`` per used input, where dynamic sizes stand as symbols:
  inputs that must agree in a size name the same symbol.

The bounds are kept for people to see but not enforced: they can be narrower than what works.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aoti.errors import IncompatiblePackageError, InputError, InputTypeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DEVICE_TYPES = {0: "cpu", 1: "cuda", 12: "xpu", 13: "mps"}  # c10/core/DeviceType.h

# The dtypes that tensors and arrays share. numpy has the first lot, ml_dtypes the second.
DTYPES = frozenset(
    "bool uint8 uint16 uint32 uint64 int8 int16 int32 int64 "
    "float16 float32 float64 complex64 complex128 "
    "bfloat16 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz".split()
)

# What the core is told of an input: dtype, sizes, order, strides. See aoti._core.Loader.
Layout = tuple[str | None, tuple[int, ...] | None, tuple[int, ...] | None, tuple[int, ...] | None]


@dataclass(frozen=True, slots=True)
class Dim:
    """A size that may change from call to call. Inputs that share it must agree.

    Attributes
    ----------
    name : str
        Its name; the symbol of the compiler where nobody gave it one, or an expression over such
        symbols: ``1 + s27``.
    min, max : int or None
        The bounds that the export assumed, as far as the package tells.
    """

    name: str
    min: int | None = None
    max: int | None = None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input of a model.

    Attributes
    ----------
    name : str
        The name that a caller knows it by.
    dtype : str or None
        As torch, numpy and ml_dtypes name it: ``float32``. None: not known.
    shape : tuple of int or Dim, or None
        Per dimension its size, or the `Dim` that stands for it. None: not known.
    strides : tuple of str
        Per dimension the step that the kernels take, in elements, as an expression over the
        symbols of `shape`; ``"?"`` where it is not known.
    device : str or None
        The type of device that it lies on.
    """

    name: str
    dtype: str | None
    shape: tuple[int | Dim, ...] | None
    strides: tuple[str, ...] = ()
    device: str | None = None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype or 'any dtype'} of any shape"
        return f"{self.dtype or 'any dtype'} {_shape_text(self.shape)}"

    def layout(self, symbols: dict[str, int]) -> Layout:
        """What the core needs to check this input; `symbols` numbers the dims, shared by inputs.

        Raises
        ------
        IncompatiblePackageError
            The kernels step through this input in a way that cannot be told from the package.
        """
        if self.shape is None:
            return self.dtype, None, None, None
        sizes = tuple(
            size if isinstance(size, int) else -2 - symbols.setdefault(size.name, len(symbols))
            for size in self.shape
        )
        order = self.order()
        strides = None
        if order is None:
            if not all(stride.isdecimal() for stride in self.strides):
                raise IncompatiblePackageError(
                    f"input {self.name!r} was exported with a memory layout that aoti cannot tell "
                    f"from the package (shape {_shape_text(self.shape)}, strides "
                    f"{', '.join(self.strides)}); export with a contiguous example input"
                )
            strides = tuple(int(stride) for stride in self.strides)
        return self.dtype, sizes, order, strides

    def order(self) -> tuple[int, ...] | None:
        """The dimensions from the innermost outwards, where the input is dense in such an order.

        C order is ``(n-1, ..., 0)``, channels-last ``(1, 3, 2, 0)``. None if there is no order
        in which the strides are those of a dense tensor.
        """
        assert self.shape is not None
        rank = len(self.shape)
        c_order = tuple(reversed(range(rank)))
        if not self.strides:
            return c_order
        steps = [None if stride == "?" else _value(stride) for stride in self.strides]
        # Dense layouts of high rank that are not C order are too rare to search for.
        others = itertools.permutations(c_order) if rank <= 5 else ()
        orders = itertools.chain([c_order], others)
        return next((order for order in orders if self._dense_in(order, steps)), None)

    def _dense_in(self, order: tuple[int, ...], steps: Sequence[int | None]) -> bool:
        assert self.shape is not None
        expected, symbolic = 1, False
        for dim in order:
            size, step = self.shape[dim], steps[dim]
            # The step of a dimension of one element means nothing. One that is not told can only
            # be symbolic: a static stride is always told.
            if size != 1 and step != expected and not (symbolic and step is None):
                return False
            if isinstance(size, Dim):
                symbolic = True
                expected *= _value(size.name) or _symbol(size.name)
            else:
                expected *= max(size, 1)
        return True

    def conform(self, value: object, path: str) -> NDArray[np.generic]:
        """An array with the value of `value` that the model can read, copied if it has to be.

        Parameters
        ----------
        value : object
            What came.
        path : str
            Its place in the call, for messages.

        Raises
        ------
        InputTypeError
            It is no array, or of another dtype.
        InputError
            Its rank or one of its static sizes differs.
        """
        import numpy as np

        if isinstance(value, np.generic):
            value = np.asarray(value)
        if not isinstance(value, np.ndarray):
            raise InputTypeError(
                f"{path}: expected a numpy array, {self}; got {type(value).__name__}. "
                f"{_conversion(value, self.dtype)}"
            )
        got = f"{value.dtype.name} {_shape_text(value.shape)}"
        if value.dtype.name not in DTYPES:
            raise InputTypeError(
                f"{path}: expected {self}, got {got}, which torch has no dtype for"
            )
        if value.dtype.name != (self.dtype or value.dtype.name):
            raise InputTypeError(
                f"{path}: expected {self}, got {got}. Convert it: .astype({self.dtype!r})"
            )
        if self.shape is not None:
            if len(self.shape) != value.ndim:
                raise InputError(
                    f"{path}: expected {len(self.shape)} dimensions, {self}; got {got}"
                )
            for dim, (wanted, size) in enumerate(zip(self.shape, value.shape, strict=True)):
                if isinstance(wanted, int) and wanted != size:
                    raise InputError(
                        f"{path}: expected {self}, got {got}: "
                        f"dimension {dim} must be {wanted}, not {size}"
                    )
        return self._laid_out(value, path)

    def _laid_out(self, value: NDArray[np.generic], path: str) -> NDArray[np.generic]:
        import numpy as np

        native = value.astype(value.dtype.newbyteorder("="), copy=False)
        order = None if self.shape is None else self.order()
        if self.shape is None or order is not None:
            outermost_first = tuple(reversed(order)) if order else tuple(range(value.ndim))
            dense = np.require(native.transpose(outermost_first), requirements=["C", "A"])
            return dense.transpose(np.argsort(outermost_first))
        strides = [int(stride) for stride in self.strides]
        extent = 1
        for step, size in sorted(zip(strides, value.shape, strict=True)):
            if size > 1 and step < extent:
                raise InputError(
                    f"{path}: the model was exported with an input whose elements share memory "
                    f"(strides {', '.join(self.strides)}), which aoti cannot copy to; pass an "
                    "array of the same form (np.broadcast_to, np.lib.stride_tricks.as_strided)"
                )
            extent += max(size - 1, 0) * step
        memory = np.empty(extent, native.dtype)
        steps = [step * native.itemsize for step in strides]
        copy = np.lib.stride_tricks.as_strided(memory, value.shape, steps)
        copy[...] = native
        return copy


@functools.lru_cache(maxsize=1024)
def _value(expression: str) -> int:
    """What a sum of products comes to if each symbol in it stands for a large number of its own;
    0 for any other text. Expressions of one value are equal, but for a chance of about 2**-60.
    """
    words = r"(?:\b\d{1,18}\b|\b[A-Za-z_]\w*\b|[-+*() ])+"
    if len(expression) > 200 or not re.fullmatch(words, expression, re.ASCII):
        return 0
    try:
        return _evaluate(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return 0


def _evaluate(node: ast.expr) -> int:
    match node:
        case ast.Constant(int(number)):
            return number
        case ast.Name(name):
            return _symbol(name)
        case ast.UnaryOp(ast.USub(), operand):
            return -_evaluate(operand)
        case ast.BinOp(left, ast.Add(), right):
            return _evaluate(left) + _evaluate(right)
        case ast.BinOp(left, ast.Sub(), right):
            return _evaluate(left) - _evaluate(right)
        case ast.BinOp(left, ast.Mult(), right):
            return _evaluate(left) * _evaluate(right)
    raise ValueError("not a sum of products")


def _symbol(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


class Signature:
    """The inputs of a model together, and their places in a call.

    Parameters
    ----------
    inputs : sequence of TensorSpec, or None
        In flat order; None if the package does not tell.

    Attributes
    ----------
    inputs : tuple of TensorSpec or None
        As given, under the names of `rename`.
    """

    def __init__(self, inputs: Sequence[TensorSpec] | None) -> None:
        self.inputs = None if inputs is None else tuple(inputs)
        self._paths: Sequence[str] = ()

    def rename(self, names: Sequence[str], paths: Sequence[str]) -> None:
        """Use the names and the places in the call that people know the inputs by."""
        self._paths = paths
        if self.inputs is not None:
            self.inputs = tuple(
                replace(spec, name=name) for spec, name in zip(self.inputs, names, strict=True)
            )

    def layouts(self) -> list[Layout] | None:
        """What the core needs to check the inputs.

        Raises
        ------
        IncompatiblePackageError
            As `TensorSpec.layout`, or a size depends on another one: the core can only check that
            sizes are equal, and kernels read out of bounds where they are not what they assume.
        """
        if self.inputs is None:
            return None
        self._check_independent()
        symbols: dict[str, int] = {}
        return [spec.layout(symbols) for spec in self.inputs]

    def _check_independent(self) -> None:
        shapes = [spec.shape or () for spec in self.inputs or ()]
        names = {size.name for shape in shapes for size in shape if isinstance(size, Dim)}
        uses: dict[str, str] = {}
        for name in sorted(filter(_value, names)):
            for symbol in re.findall(r"[A-Za-z_]\w*", name):
                if (other := uses.setdefault(symbol, name)) != name:
                    raise IncompatiblePackageError(
                        f"the model takes sizes that depend on each other ({other}, {name}), which "
                        "aoti cannot check; export it with dimensions that are equal or independent"
                    )

    def repair(self, index: int, values: Sequence[object]) -> NDArray[np.generic]:
        """What to pass for ``values[index]``, which the core could not take as it is.

        Called by the core, after all inputs before `index` were found to be right.

        Raises
        ------
        InputError, InputTypeError
            It cannot be repaired; the message names the input, what is wanted, what came and what
            to do.
        """
        if self.inputs is None:
            return TensorSpec("", None, None).conform(values[index], self._path(index))
        spec = self.inputs[index]
        array = spec.conform(values[index], self._path(index))
        # Sizes that inputs share: compare with the first input that has the same dim.
        bound: dict[str, tuple[int, int, int]] = {}
        for other, known in enumerate(self.inputs[: index + 1]):
            sizes = array.shape if other == index else values[other].shape  # type: ignore[attr-defined]
            for dim, size in enumerate(known.shape or ()):
                if not isinstance(size, Dim):
                    continue
                first, first_dim, wanted = bound.setdefault(size.name, (other, dim, sizes[dim]))
                if other == index and sizes[dim] != wanted:
                    raise InputError(
                        f"{self._path(index)}: dimension {dim} is {sizes[dim]}, but must be "
                        f"{wanted} as dimension {first_dim} of {self._path(first)}: "
                        f"{spec} and {self.inputs[first]} share {size.name}"
                    )
        return array

    def _path(self, index: int) -> str:
        return self._paths[index] if index < len(self._paths) else f"input {index}"


def _shape_text(shape: Sequence[int | Dim]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _conversion(value: object, dtype: str | None) -> str:
    if hasattr(value, "numpy") and hasattr(value, "__dlpack__"):
        return "Pass its .numpy()"
    return f"Pass np.asarray(..., {dtype or 'dtype'!r})"


# -- reading wrapper.cpp -------------------------------------------------------------------------

# Numbers are cut short, so that a hostile text gives none that Python or the core refuses.
_INPUT = re.compile(r"ConstantHandle (\w+) = ConstantHandle\(input_handles\[(\d{1,6})\]\);")
_CHECKS_END = re.compile(r"void AOTInductorModel::run_impl\(")
_DTYPE = re.compile(r"_expected_dtype = aoti_torch_dtype_(\w+)\(\)")
_DEVICE = re.compile(r"_expected_device_type = (\d{1,3});")
_STATIC = re.compile(r"if \((\d{1,18}) != \w+_(size|stride)\[(\d{1,2})\]\)")
_BOUND = re.compile(r"if \(\w+_size\[(\d{1,2})\] ([<>]) (\d{1,19})\)")
_SYMBOL = re.compile(r"int64_t ([a-z]+\d+) = (\w+)_size\[(\d{1,2})\];")
_ASSERT = re.compile(r"assert_size_stride\((\w+), \{([^{}]*)\}, \{([^{}]*)\}")
_UNREADABLE = re.compile(r"::|\d{19}")  # functions, whose arguments have commas; too large
_MAX_RANK = 64


def read_wrapper(source: str) -> tuple[TensorSpec, ...] | None:
    """The inputs of a model, from the C++ that Inductor generated for it.

    Parameters
    ----------
    source : str
        The text of ``*.wrapper.cpp``. Format: `generate_input_output_runtime_checks` and
        `codegen_input_size_asserts` in ``torch/_inductor/codegen/cpp_wrapper_cpu.py``.

    Returns
    -------
    tuple of TensorSpec, or None
        None if the text holds no such checks.
    """
    end = _CHECKS_END.search(source)
    checks_end = end.start() if end else len(source)
    found = list(_INPUT.finditer(source, 0, checks_end))
    if [int(match[2]) for match in found] != list(range(len(found))) or not found:
        return None
    run = source[checks_end:]
    symbols: dict[str, dict[int, str]] = {}
    for match in _SYMBOL.finditer(run):
        symbols.setdefault(match[2], {})[int(match[3])] = match[1]
    asserted: dict[str, tuple[list[str], list[str]]] = {}
    for match in _ASSERT.finditer(run):
        sizes, strides = _expressions(match[2]), _expressions(match[3])
        if len(sizes) == len(strides) <= _MAX_RANK and not _UNREADABLE.search(match[0]):
            asserted.setdefault(match[1], (sizes, strides))
    ends = [match.start() for match in found[1:]] + [checks_end]
    return tuple(
        _read_input(
            source[match.end() : stop],
            match[1],
            symbols.get(match[1], {}),
            asserted.get(match[1]),
        )
        for match, stop in zip(found, ends, strict=True)
    )


def read_call_spec(source: str) -> tuple[str, str] | None:
    """The input and the output treespec in the text of ``*.wrapper.cpp``, None without them."""
    # Not a regex: where the end is missing, it would look for it again from every start.
    found = []
    for name in ("in", "out"):
        _, _, rest = source.partition(f'{name}_spec_ = R"(')
        spec, end, _ = rest.partition(')";')
        if not end:
            return None
        found.append(spec)
    return found[0], found[1]


def _expressions(text: str) -> list[str]:
    """``s77, 10L`` as ``["s77", "10"]``."""
    parts = [part.strip() for part in text.replace("static_cast<int64_t>", "").split(",")]
    return [re.sub(r"\b(\d+)L\b", r"\1", part) for part in parts if part]


def _read_input(
    checks: str,
    name: str,
    symbols: dict[int, str],
    asserted: tuple[list[str], list[str]] | None,
) -> TensorSpec:
    static = {(what, int(dim)): value for value, what, dim in _STATIC.findall(checks)}
    bounds = {(int(dim), sign): int(value) for dim, sign, value in _BOUND.findall(checks)}
    dtype = _DTYPE.search(checks)
    device = _DEVICE.search(checks)
    told = [dim for _, dim in static] + [dim for dim, _ in bounds]
    told += symbols
    # The innermost stride of a dense tensor is always told: where nothing is, it is a scalar.
    rank = len(asserted[0]) if asserted else max(told, default=-1) + 1
    shape: list[int | Dim] = []
    for dim in range(rank):
        if ("size", dim) in static:
            shape.append(int(static["size", dim]))
            continue
        symbol = asserted[0][dim] if asserted else symbols.get(dim, "?")
        if symbol.isdecimal():
            shape.append(int(symbol))
            continue
        if not _value(symbol):
            symbol = f"{name}.{dim}"  # agrees with nothing else
        shape.append(Dim(symbol, bounds.get((dim, "<")), bounds.get((dim, ">"))))
    strides = tuple(
        asserted[1][dim] if asserted else static.get(("stride", dim), "?") for dim in range(rank)
    )
    return TensorSpec(
        name=name,
        dtype=dtype[1] if dtype else None,
        shape=tuple(shape),
        strides=strides,
        device=_DEVICE_TYPES.get(int(device[1])) if device else None,
    )
