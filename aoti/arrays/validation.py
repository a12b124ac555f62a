"""The checks of a model's calls: words errors, and repairs what can be repaired.

The core makes the same checks in a fraction of a microsecond, and comes here with what it cannot
pass on.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aoti.arrays.input_plan import InputPlan, describe
from aoti.arrays.libraries import place_of, type_name
from aoti.errors import InputError
from aoti.signature.pytree import CallPlan
from aoti.signature.signature import Signature, scaled
from aoti.signature.size_expr import affine
from aoti.signature.spec import ConstantSpec, Dim, TensorSpec

Flatten = Callable[[tuple[object, ...], dict[str, object]], Sequence[object]]
Rebuild = Callable[[Sequence[object]], object]
FlattenResult = Callable[[object], list[object]]

# Python's types for what no array is, where a package does not say which arguments are arrays.
_NO_ARRAYS = (bool, int, float, complex, str, type(None))


class Checker:
    """What the calls of one model are checked against.

    Parameters
    ----------
    signature : Signature
        What the model takes, as the package tells it.
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

        What is no tensor comes from the signature, since the model does not give it.
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

    def repair(self, index: int, values: Sequence[object]) -> Any:
        """What to pass for ``values[index]``, which the core could not take as it is.

        Called by the core, after all inputs before `index` were found to be right.

        Raises
        ------
        InputError, InputTypeError
            It cannot be repaired; the message names the input, what is wanted, what came and what
            to do.

        Warns
        -----
        UserWarning
            A size is out of a range that is not certain. The core then forgets the ranges.
        """
        path = self._path(index)
        spec = self._inputs[index] if self._known else TensorSpec("", None, None)
        where = "cpu" if spec.device == "cpu" else self._device
        if (place := place_of(values[index])) not in (None, where):
            verb = "runs on" if where == self._device else "takes it on"
            name = where.replace("cpu", "the cpu")
            raise InputError(
                f"{path}: the model {verb} {name}, and this {type_name(values[index])} lies on "
                f"{place}; move it to {name} first: {spec}"
            )
        if self._known:
            arrays: list[Any] = [*values[:index], spec.check(values[index], path)]
            self.bind(arrays)
        return spec.conform(values[index], path)

    def explain(
        self, values: Sequence[object], examined: Sequence[tuple[object, object]]
    ) -> list[InputPlan]:
        """Say what a run would do with each value, by what the core found: `Loader.examine`."""
        unknown = TensorSpec("", None, None)
        return [
            describe(
                value,
                view,
                outcome,
                self._inputs[n] if self._known else unknown,
                self._path(n),
                self._device,
            )
            for n, (value, (view, outcome)) in enumerate(zip(values, examined, strict=True))
        ]

    def refuse_values(self, index: int, arrays: Sequence[Any]) -> None:
        """Raise an InputError for ``arrays[index]``, whose values the core found out of range."""
        import numpy as np

        spec, array = self._inputs[index], np.asarray(arrays[index])
        assert spec.values is not None
        bound = self.bind(arrays)
        low, high = (_evaluate(size, bound) for size in spec.values)
        wrong = (array < low) | (array > high)
        where = tuple(int(places[0]) for places in wrong.nonzero())
        raise InputError(
            f"{self._path(index)}: expected values in {low}..{high}, which index a table; got "
            f"{array[where]} at {list(where)}"
        )

    def bind(self, arrays: Sequence[Any]) -> dict[str, int]:
        """What each symbol stands for, after checking that all arrays agree in it."""
        bound: dict[str, tuple[int, int, int]] = {}
        for other, (spec, array) in enumerate(zip(self._inputs, arrays, strict=False)):
            for dim, wanted in enumerate(spec.shape or ()):
                if not isinstance(wanted, Dim):
                    continue
                size = array.shape[dim]
                symbol, scale, offset = wanted.form
                meaning, rest = divmod(size - offset, scale)
                where = f"{self._path(other)}: dimension {dim} is {size}, but must be"
                if rest or (meaning < 0 and offset):
                    raise InputError(f"{where} {wanted} for some {symbol}: {spec}")
                first, first_dim, known = bound.setdefault(symbol, (other, dim, meaning))
                if meaning != known:
                    raise InputError(
                        f"{where} {scale * known + offset}, as dimension {first_dim} of "
                        f"{self._path(first)} is {arrays[first].shape[first_dim]}: {spec} and "
                        f"{self._inputs[first]} share {symbol}"
                    )
                low, high = self.signature.ranges.get(symbol, (None, None))
                if (low is not None and meaning < low) or (high is not None and meaning > high):
                    self._out_of_range(where, wanted, spec)
        return {symbol: meaning for symbol, (_, _, meaning) in bound.items()}

    def _out_of_range(self, where: str, wanted: Dim, spec: TensorSpec) -> None:
        symbol = wanted.form[0]
        low, high = scaled(self.signature.ranges[symbol], wanted.form)
        allowed = f"at least {low}" if high is None else f"in {low or 0}..{high}"
        message = f"{where} {allowed} ({wanted}): {spec}"
        if self.signature.enforced:
            raise InputError(f"{message}; export the model with a wider range for {symbol}")
        warnings.warn(
            f"{self._package}: {message}, says its generated code. Such ranges can be narrower "
            "than what works, so it is passed, now and from now on",
            stacklevel=4,
        )

    def _path(self, index: int) -> str:
        path = self._paths[index] if index < len(self._paths) else f"input {index}"
        name = self._inputs[index].name if index < len(self._inputs) else path
        return path if repr(name) in path or not path.endswith("]") else f"{path} ({name})"


def _tensors_only(plan: CallPlan, count: int, package: str) -> Flatten:
    """A flatten function that leaves out the arguments that are no tensors.

    Their values were compiled in at the export, and the package says neither which they are nor
    what they were. So whatever is no array is ignored, and a warning says so once.
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
            warnings.warn(
                f"{package}: arguments that are no arrays had their values compiled in at the "
                "export, and the package does not record them: what is passed is ignored; "
                "packages that aoti.export wrote do",
                stacklevel=3,
            )
        return tensors

    return flatten


def _evaluate(size: int | Dim, bound: Mapping[str, int]) -> int:
    if isinstance(size, int):
        return size
    form = affine(size.name)
    assert form is not None
    symbol, scale, offset = form
    return scale * bound[symbol] + offset
