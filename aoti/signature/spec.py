"""One input or output of a model: its name, dtype, shape and memory layout."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aoti.errors import IncompatiblePackageError, InputError, InputTypeError
from aoti.signature.size_expr import Polynomial, affine, constant, polynomial, product, symbol

MAX_RANK = 64  # dimensions: numpy's limit, and that of the core's fixed buffers

# The description of an input for the core: see aoti/engine/_core/_inputs.pyx.
Size = int | tuple[int, int, int]
Layout = tuple[
    str | None,
    tuple[Size, ...] | None,
    tuple[int, ...] | None,
    tuple[int, ...] | None,
    bool,
    tuple[Size, Size] | None,
]


@dataclass(frozen=True, slots=True)
class Dim:
    """A size that may change from call to call. Inputs that share it must agree.

    Attributes
    ----------
    name : str
        Its name; without a given name, the compiler's symbol or an expression over such symbols:
        ``1 + s27``.
    min, max : int or None
        The bounds that the export assumed; None if the package does not record them.
    """

    name: str
    min: int | None = None
    max: int | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def form(self) -> tuple[str, int, int]:
        """The size as ``scale * symbol + offset``: symbol, scale, offset.

        A size without such a form is a symbol itself.
        """
        return affine(self.name) or (self.name, 1, 0)

    def evaluate(self, sizes: Mapping[str, int]) -> int:
        """The size as a number, for these values of the symbols.

        Raises
        ------
        KeyError
            `sizes` lacks its symbol.
        """
        symbol, scale, offset = self.form
        return scale * sizes[symbol] + offset


def evaluate(size: int | Dim, sizes: Mapping[str, int]) -> int:
    """A size as a number: see `Dim.evaluate`."""
    return size if isinstance(size, int) else size.evaluate(sizes)


@dataclass(frozen=True, slots=True)
class ConstantSpec:
    """An argument that is not a tensor. Its value was compiled in, so a call must pass the same.

    Attributes
    ----------
    name : str
        Its name for callers.
    value : bool, int, float, str or None
        The value at the export.
    """

    name: str
    value: bool | int | float | str | None

    def __str__(self) -> str:
        return repr(self.value)

    def check(self, value: object, path: str) -> None:
        """Refuse any value but that of the export.

        Raises
        ------
        InputError, InputTypeError
            The message names `path`, both values and what to do.
        """
        # True == 1 == 1.0, but a model computes differently with each. NaN is not equal to itself.
        # An int of more than 4300 digits has no repr.
        if type(value) is type(self.value) and (
            value == self.value if type(value) is int else repr(value) == repr(self.value)
        ):
            return
        advice = "the value was compiled in: pass the same, or export the model again with yours"
        kind = InputError if type(value) is type(self.value) else InputTypeError
        raise kind(f"{path}: the model was exported with {self}, got {_brief(value)}; {advice}")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a model.

    Attributes
    ----------
    name : str
        Its name for callers.
    dtype : str or None
        Its name in `aoti.signature.dtypes`: ``float32``. None: not known.
    shape : tuple of int or Dim, or None
        The size of each dimension, or the `Dim` for it. None: not known.
    strides : tuple of str
        The step of each dimension that the kernels take, in elements, as an expression over the
        symbols of `shape`; ``"?"`` where it is not known.
    device : str or None
        The type of device that it is on.
    mutated : bool
        Whether the model writes into it, as far as the package records it.
    values : tuple of two int or Dim, or None
        For an input that indexes tables: the least and the largest value that all tables have.
        None: any value, or not known.
    """

    name: str
    dtype: str | None
    shape: tuple[int | Dim, ...] | None
    strides: tuple[str, ...] = ()
    device: str | None = None
    mutated: bool = False
    values: tuple[int | Dim, int | Dim] | None = None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype or 'any dtype'} of any shape"
        return f"{self.dtype or 'any dtype'} {shape_text(self.shape)}"

    def layout(self, symbols: dict[str, int]) -> Layout:
        """The description of this input for the core. `symbols` numbers the dims of all inputs.

        Raises
        ------
        IncompatiblePackageError
            The package does not show how the kernels step through this input.
        """
        if self.shape is None:
            return self.dtype, None, None, None, self.mutated, None

        def numbered(size: int | Dim) -> Size:
            if isinstance(size, int):
                return size
            symbol, scale, offset = size.form
            return symbols.setdefault(symbol, len(symbols)), scale, offset

        sizes = tuple(numbered(size) for size in self.shape)
        order = self.order()
        strides = None
        if order is None:
            if not all(stride.isdecimal() for stride in self.strides):
                raise IncompatiblePackageError(
                    f"input {self.name!r} was exported with a memory layout that aoti cannot read "
                    f"from the package (shape {shape_text(self.shape)}, strides "
                    f"{', '.join(self.strides)}); export with a contiguous example input"
                )
            strides = tuple(int(stride) for stride in self.strides)
        values = self.values and (numbered(self.values[0]), numbered(self.values[1]))
        return self.dtype, sizes, order, strides, self.mutated, values

    def order(self) -> tuple[int, ...] | None:
        """The order of the dimensions in memory, from the innermost outwards, of a dense input.

        C order is ``(n-1, ..., 0)``, channels-last ``(1, 3, 2, 0)``. None if there is no order
        in which the strides are those of a dense tensor.
        """
        assert self.shape is not None
        rank = len(self.shape)
        c_order = tuple(reversed(range(rank)))
        if not self.strides:
            return c_order
        # A text that cannot be read is 0, which is not the step of any dense dimension.
        steps = [None if stride == "?" else polynomial(stride) or {} for stride in self.strides]
        # Dense layouts of high rank that are not C order are too rare to search for.
        others = itertools.permutations(c_order) if rank <= 5 else ()
        orders = itertools.chain([c_order], others)
        return next((order for order in orders if self._dense_in(order, steps)), None)

    def _dense_in(self, order: tuple[int, ...], steps: Sequence[Polynomial | None]) -> bool:
        assert self.shape is not None
        expected: Polynomial | None = constant(1)  # None: unlike any step
        symbolic = False
        for dim in order:
            size, step = self.shape[dim], steps[dim]
            # The step of a dimension of one element means nothing. An unknown step can only be
            # symbolic: packages always contain the static ones.
            if size != 1 and (step is None or step != expected) and not (symbolic and step is None):
                return False
            if isinstance(size, Dim):
                symbolic = True
                extent = polynomial(size.name) or symbol(size.name)
            else:
                extent = constant(max(size, 1))
            expected = expected and product(expected, extent)
        return True

    def steps(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The strides that the kernels take for these sizes, in elements."""
        order = tuple(reversed(range(len(shape)))) if self.shape is None else self.order()
        if order is None:
            return tuple(int(stride) for stride in self.strides)
        steps, step = [0] * len(shape), 1
        for dim in order:
            steps[dim] = step
            step *= max(shape[dim], 1)
        return tuple(steps)

    def laid_out(self, array: Any, path: str = "input") -> Any:
        """A copy of an array of the right dtype and shape, in the layout that the kernels take.

        Raises
        ------
        InputError
            Elements share memory in that layout. The message names `path`.
        """
        steps = self.steps(array.shape)
        extent = 1
        for step, size in sorted(zip(steps, array.shape, strict=True)):
            if size > 1 and step < extent:
                raise InputError(
                    f"{path}: the model was exported with an input whose elements share memory "
                    f"(strides {', '.join(self.strides)}), which aoti cannot copy to; pass an "
                    "array of the same form (np.broadcast_to, np.lib.stride_tricks.as_strided)"
                )
            extent += max(size - 1, 0) * step
        if isinstance(array.dtype, str):
            return array.copied(steps)
        import numpy as np

        native = array.dtype.newbyteorder("=")
        memory = np.empty(0 if 0 in array.shape else extent, native)
        strides = [step * native.itemsize for step in steps]
        copy = np.lib.stride_tricks.as_strided(memory, array.shape, strides)
        copy[...] = array
        return copy


def shape_text(shape: Sequence[int | Dim]) -> str:
    """A shape as messages show it: ``(s0, 3)``."""
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _brief(value: object) -> str:
    text = type(value).__name__
    if type(value) is int and value.bit_length() > 400:
        return f"an int of {value.bit_length()} bits"  # Python refuses to print the longest
    if type(value) in (bool, int, float, str, type(None)):
        text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."
