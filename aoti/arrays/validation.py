"""Inputs that the core cannot pass on: converted if possible, else refused with a reason.

The core makes the checks (csrc/aoti/core/check.h). For an input that it cannot pass on, it calls
`Checker.convert` with the first mismatch, a tuple ``(kind, dim, expected, got)``:

=============  =====================================  ====================================
kind           expected, got                          what `convert` does
=============  =====================================  ====================================
unreadable                                            makes an array of it, or raises
device                                                raises
dtype          names; None: not known to torch        raises
rank           numbers of dimensions                  raises
size           sizes; expected 0: an expression       raises
conflict       sizes, by an earlier input             raises
range          the bound of the symbol, the size      raises, or warns if it is not certain
null                                                  raises
alignment      bytes                                  copies
byte order                                            copies
strides        elements, bytes                        copies
read-only                                             raises
values         the least and the largest value        raises
=============  =====================================  ====================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from aoti._warnings import warn
from aoti.arrays import libraries  # noqa: F401 - makes the array libraries known to the core
from aoti.arrays.convert import as_array, dtype_of, place_of, type_name
from aoti.arrays.input_plan import InputPlan, describe
from aoti.engine._core._inputs import Inputs
from aoti.engine._core._tensor import Tensor
from aoti.errors import InputError, InputTypeError
from aoti.signature.pytree import CallPlan
from aoti.signature.signature import Signature, scaled
from aoti.signature.size_guard import SizeGuard
from aoti.signature.spec import ConstantSpec, Dim, TensorSpec, shape_text

Flatten = Callable[[tuple[object, ...], dict[str, object]], Sequence[object]]
Rebuild = Callable[[Sequence[object]], object]
FlattenResult = Callable[[object], list[object]]
Mismatch = tuple[str, int, Any, Any]

# Python's types for what is not an array, for packages that do not say which arguments are arrays.
_NO_ARRAYS = (bool, int, float, complex, str, type(None))
_UNKNOWN = TensorSpec("", None, None)


class Checker:
    """What the calls of one model are checked against.

    Parameters
    ----------
    signature : Signature
        What the model takes, as the package describes it.
    package : str
        What messages call the package.
    device : str
        Where the model runs: ``cpu`` or ``cuda:0``.

    Attributes
    ----------
    signature : Signature
        The same, under the names of the call plan once there is one.
    """

    def __init__(self, signature: Signature, package: str, device: str = "cpu") -> None:
        self.signature = signature
        self._package = package
        self._device = device
        self._inputs = signature.inputs or ()
        self._known = signature.inputs is not None
        self._paths: Sequence[str] = ()

    def inputs(self, *, validate: bool = True) -> Inputs:
        """The core's form of what the inputs must be, which calls `convert`.

        Raises
        ------
        IncompatiblePackageError
            The package takes inputs that the core cannot check.
        """
        layouts, ranges = self.signature.layouts() or (None, {})
        return Inputs(
            layouts,
            tuple(ranges.values()),
            ranges_hold=self.signature.enforced,
            validate=validate,
            convert=self.convert,
            check_sizes=partial(self._check_sizes, tuple(ranges))
            if self.signature.guards
            else None,
        )

    def fit(self, values: Sequence[object], inputs: Inputs | None = None) -> list[Any]:
        """The arrays that a run would pass on for these values, without an engine.

        Raises
        ------
        InputError, InputTypeError
            As a run.
        """
        arrays = []
        for _, outcome, _ in (inputs or self.inputs()).examine(list(values)):
            if isinstance(outcome, InputError):
                raise outcome
            arrays.append(outcome)
        return arrays

    def plan_calls(self, plan: CallPlan) -> Flatten:
        """Take over the plan's names, and give the function from a call's arguments to tensors."""
        self.signature = self.signature.renamed(plan)
        self._inputs = self.signature.inputs or ()
        arguments = self.signature.arguments
        if arguments is None:
            self._paths = plan.input_paths
            return plan.flatten
        if len(arguments) != plan.num_inputs:
            return _tensors_only(plan, len(self._inputs), self._package)
        places = [n for n, spec in enumerate(arguments) if isinstance(spec, TensorSpec)]
        self._paths = [plan.input_paths[place] for place in places]
        if len(places) == len(arguments):
            return plan.flatten
        constants = [
            (n, spec, plan.input_paths[n])
            for n, spec in enumerate(arguments)
            if isinstance(spec, ConstantSpec)
        ]

        def flatten(args: tuple[object, ...], kwargs: dict[str, object]) -> Sequence[object]:
            leaves = plan.flatten(args, kwargs)
            for place, spec, path in constants:
                spec.check(leaves[place], path)
            return [leaves[place] for place in places]

        return flatten

    def plan_results(self, plan: CallPlan) -> tuple[Rebuild, FlattenResult]:
        """Give the functions from tensors to a result, and from a result's arrays to a flat list.

        Values that are not tensors come from the signature, since the model does not return them.
        """
        results = self.signature.results or ()
        places = [n for n, spec in enumerate(results) if isinstance(spec, TensorSpec)]
        if len(places) == len(results):
            return plan.rebuild, plan.flatten_result
        values: list[object] = [
            spec.value if isinstance(spec, ConstantSpec) else None for spec in results
        ]

        def rebuild(tensors: Sequence[object]) -> object:
            leaves = values.copy()
            for place, tensor in zip(places, tensors, strict=True):
                leaves[place] = tensor
            return plan.rebuild(leaves)

        def flatten_result(value: object) -> list[object]:
            leaves = plan.flatten_result(value)
            return [leaves[place] for place in places]

        return rebuild, flatten_result

    def convert(self, index: int, values: Sequence[Any], value: Any, mismatch: Mismatch) -> Any:
        """What to pass for an input that the core could not take as it is.

        Parameters
        ----------
        index : int
            The number of the input.
        values : sequence
            All inputs, up to this one as they are passed on.
        value : object
            This input: what was given, or an `aoti.Tensor` over its memory.
        mismatch : tuple
            What is wrong with it.

        Returns
        -------
        numpy.ndarray or aoti.Tensor
            The same value, without this mismatch. For a range that is not certain, nothing.

        Raises
        ------
        InputError, InputTypeError
            It cannot be converted; the message names the input, what is wanted, what came and what
            to do.

        Warns
        -----
        UserWarning
            A size is out of a range that is not certain. The core then forgets the ranges.
        """
        kind, _, expected, got = mismatch
        spec = self._inputs[index] if self._known else _UNKNOWN
        path = self._path(index)
        match kind:
            case "unreadable" | "device":
                self._check_place(index, values[index], spec)
                return as_array(value, spec, path)
            case "dtype":
                raise InputTypeError(_dtype_message(path, spec, value, known=got is not None))
            case "rank":
                raise InputError(
                    f"{path}: expected {expected} dimensions, {spec}; got {_shown(value)}"
                )
            case "size" | "conflict" | "range":
                return self._refuse_size(index, value, mismatch)
            case "null":
                raise InputError(
                    f"{path}: the array's data pointer is null; it has no memory to read"
                )
            case "values":
                self._refuse_values(index, values[index], expected, got)
        if not self._known and kind == "read-only":
            raise InputError(
                f"{path}: the package does not say whether the model writes into this input; pass "
                "an array that it can write to"
            )
        if kind == "read-only" or spec.mutated:
            raise InputError(
                f"{path}: the model writes into this input; pass an array that it can write to: "
                f"{spec}, writeable, with strides of {', '.join(spec.strides)} elements"
            )
        return spec.laid_out(as_array(value, spec, path), path)

    def _check_place(self, index: int, value: Any, spec: TensorSpec) -> None:
        where = "cpu" if spec.device == "cpu" else self._device
        if (place := place_of(value)) not in (None, where):
            verb = "runs on" if where == self._device else "takes it on"
            name = where.replace("cpu", "the cpu")
            raise InputError(
                f"{self._path(index)}: the model {verb} {name}, and this {type_name(value)} lies "
                f"on {place}; move it to {name} first: {spec}"
            )

    def _refuse_size(self, index: int, value: Any, mismatch: Mismatch) -> None:
        kind, dim, expected, got = mismatch
        spec, path = self._inputs[index], self._path(index)
        assert spec.shape is not None
        wanted = spec.shape[dim]
        if not isinstance(wanted, Dim):
            raise InputError(
                f"{path}: expected {spec}, got {_shown(value)}: "
                f"dimension {dim} must be {wanted}, not {got}"
            )
        where = f"{path}: dimension {dim} is {got}, but must be"
        symbol = wanted.form[0]
        if kind == "size":
            raise InputError(f"{where} {wanted} for some {symbol}: {spec}")
        if kind == "conflict":
            other, first = self._first_with(symbol)
            size = _size_beside(expected, wanted, self._inputs[other], first)
            raise InputError(
                f"{where} {expected}, as dimension {first} of {self._path(other)} is {size}: "
                f"{spec} and {self._inputs[other]} share {symbol}"
            )
        low, high = scaled(self.signature.ranges[symbol], wanted.form)
        allowed = f"at least {low}" if high is None else f"in {low or 0}..{high}"
        message = f"{where} {allowed} ({wanted}): {spec}"
        if self.signature.enforced:
            raise InputError(f"{message}; export the model with a wider range for {symbol}")
        warn(
            f"{self._package}: {message}, according to its generated code. Such ranges can be "
            "narrower than what works, so the array is passed, now and from now on"
        )

    def _check_sizes(self, symbols: Sequence[str], values: Sequence[int]) -> None:
        """Refuse sizes for which a guard of the export does not hold."""
        sizes = dict(zip(symbols, values, strict=True))
        guard = self.signature.broken_guard(sizes)
        if guard is None:
            return
        used = sorted(SizeGuard.parse(guard).symbols)
        where = []
        for symbol in used:
            index, dim = self._first_with(symbol)
            where.append(f"{symbol} (dimension {dim} of {self._path(index)}) is {sizes[symbol]}")
        raise InputError(
            f"the model was exported for sizes with {guard}, and {', '.join(where)}; pass other "
            "sizes, or export the model again with an example of these sizes"
        )

    def _first_with(self, symbol: str) -> tuple[int, int]:
        """The first input, and its dimension, whose size binds a symbol."""
        return next(
            (n, dim)
            for n, spec in enumerate(self._inputs)
            for dim, size in enumerate(spec.shape or ())
            if isinstance(size, Dim) and size.form[0] == symbol
        )

    def _refuse_values(self, index: int, value: Any, low: int, high: int) -> None:
        import numpy as np

        array = as_array(value, self._inputs[index], self._path(index))
        array = np.asarray(array.numpy() if isinstance(array, Tensor) else array)
        wrong = (array < low) | (array > high)
        where = tuple(int(places[0]) for places in np.atleast_1d(wrong).nonzero())[: array.ndim]
        raise InputError(
            f"{self._path(index)}: expected values in {low}..{high}, which index a table; got "
            f"{array[where]} at {list(where)}"
        )

    def explain(
        self, values: Sequence[object], examined: Sequence[tuple[object, object, Mismatch | None]]
    ) -> list[InputPlan]:
        """Say what a run would do with each value, by what the core found: `Inputs.examine`."""
        return [
            describe(
                value,
                outcome,
                mismatch,
                self._inputs[n] if self._known else _UNKNOWN,
                self._path(n),
                self._device,
            )
            for n, (value, (_, outcome, mismatch)) in enumerate(zip(values, examined, strict=True))
        ]

    def sizes(self, arrays: Sequence[Any]) -> dict[str, int]:
        """What each symbol is in a call with these arrays, which fit."""
        bound: dict[str, int] = {}
        for spec, array in zip(self._inputs, arrays, strict=False):
            for wanted, size in zip(spec.shape or (), array.shape, strict=False):
                if isinstance(wanted, Dim):
                    symbol, scale, offset = wanted.form
                    bound.setdefault(symbol, (size - offset) // scale)
        return bound

    def _path(self, index: int) -> str:
        path = self._paths[index] if index < len(self._paths) else f"input {index}"
        name = self._inputs[index].name if index < len(self._inputs) else path
        return path if repr(name) in path or not path.endswith("]") else f"{path} ({name})"


def _tensors_only(plan: CallPlan, count: int, package: str) -> Flatten:
    """A flatten function that leaves out the arguments that are not tensors.

    Their values were compiled in at the export, and the package says neither which they are nor
    what they were. So whatever is not an array is ignored, and a warning says so once.
    """
    warned = False

    def flatten(args: tuple[object, ...], kwargs: dict[str, object]) -> Sequence[object]:
        nonlocal warned
        leaves = plan.flatten(args, kwargs)
        tensors = [leaf for leaf in leaves if type(leaf) not in _NO_ARRAYS]
        if len(tensors) != count:
            places = zip(leaves, plan.input_paths, strict=True)
            others = [place for leaf, place in places if type(leaf) in _NO_ARRAYS]
            raise InputError(
                f"the model takes {count} arrays, got {len(tensors)}; "
                f"no arrays: {', '.join(others) or 'none'}"
            )
        if not warned:
            warned = True
            warn(
                f"{package}: the values of arguments that are not arrays were compiled in at the "
                "export, and the package does not record them: what is passed is ignored; "
                "packages that aoti.export wrote record them"
            )
        return tensors

    return flatten


def _size_beside(size: int, wanted: Dim, other: TensorSpec, dim: int) -> int:
    """The size of another dimension with the symbol of `wanted`, where `wanted` is `size`."""
    assert other.shape is not None
    beside = other.shape[dim]
    assert isinstance(beside, Dim)
    _, scale, offset = wanted.form
    symbol = (size - offset) // scale
    return beside.form[1] * symbol + beside.form[2]


def _shown(array: Any) -> str:
    return f"{dtype_of(array)} {shape_text(tuple(array.shape))}"


def _dtype_message(path: str, spec: TensorSpec, value: Any, *, known: bool) -> str:
    message = f"{path}: expected {spec}, got {_shown(value)}"
    if not known:
        return f"{message}, which torch has no dtype for"
    torch = type(value).__module__.partition(".")[0] in ("aoti", "torch")
    cast = f".to(torch.{spec.dtype})" if torch else f".astype({spec.dtype!r})"
    return f"{message}. Convert it: {cast}"
